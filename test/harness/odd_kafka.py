"""A Kafka broker of a few lines that does not keep to the protocol: topic t, partition 0."""

import contextlib
import socket
import struct
import threading
import time

API_VERSIONS, METADATA, LIST_OFFSETS, FETCH = 18, 3, 2, 1
VERSIONS = [(0, 3, 3), (FETCH, 4, 4), (LIST_OFFSETS, 1, 1), (METADATA, 1, 1), (API_VERSIONS, 0, 3)]


def varint(n: int) -> bytes:
    n, out = (n << 1) ^ (n >> 63), b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def batch(*values: bytes, base: int = 0, last_offset_delta: int | None = None) -> bytes:
    """Of format 2; `last_offset_delta` is what it says of its last offset."""
    bodies = [b"\0\0" + varint(i) + varint(-1) + varint(len(value)) + value + varint(0) for i, value in enumerate(values)]
    last = len(values) - 1 if last_offset_delta is None else last_offset_delta
    rest = struct.pack(">hiqqqhii", 0, last, 0, 0, -1, -1, -1, len(values)) + b"".join(varint(len(body)) + body for body in bodies)
    rest = struct.pack(">ibI", 0, 2, crc32c(rest)) + rest
    return struct.pack(">qi", base, len(rest)) + rest


def string(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


class OddKafka:
    """Says that the topic ends at `end`, and answers each fetch below that with `records`; `fetches` counts those. A context manager."""

    def __init__(self, end: int, records: bytes) -> None:
        self.end, self.records, self.fetches = end, records, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.brokers = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "OddKafka":
        return self

    def __exit__(self, *_: object) -> None:
        for s in [self._listener, *self._connections]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connections.append(self._listener.accept()[0])
                threading.Thread(target=self._serve, args=(self._connections[-1],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        with contextlib.suppress(OSError, ValueError, struct.error):
            while True:
                request = stream.read(*struct.unpack(">i", stream.read(4)))
                key, version, correlation, client = struct.unpack_from(">hhih", request)
                answer = self._answer(key, version, request[10 + client :])
                connection.sendall(struct.pack(">ii", len(answer) + 4, correlation) + answer)

    def _answer(self, key: int, version: int, body: bytes) -> bytes:
        if key == API_VERSIONS:
            tag = b"\0" if version == 3 else b""
            count = bytes([len(VERSIONS) + 1]) if version == 3 else struct.pack(">i", len(VERSIONS))
            return b"\0\0" + count + b"".join(struct.pack(">hhh", *api) + tag for api in VERSIONS) + b"\0\0\0\0" + tag
        if key == METADATA:
            broker = struct.pack(">ii", 1, 1) + string(b"127.0.0.1") + struct.pack(">ihi", self.port, -1, 1)
            return broker + struct.pack(">ih", 1, 0) + string(b"t") + struct.pack(">?ihiiiiii", False, 1, 0, 0, 1, 1, 1, 1, 1)
        if key == LIST_OFFSETS:
            (earliest,) = struct.unpack(">q", body[-8:])
            return struct.pack(">i", 1) + string(b"t") + struct.pack(">iihqq", 1, 0, 0, -1, 0 if earliest == -2 else self.end)
        if key == FETCH and len(body) > 21 + 3:
            self.fetches += 1
            wait, offset = struct.unpack_from(">i", body, 4)[0], struct.unpack(">q", body[-12:-4])[0]
            records = self.records if offset < self.end else b""
            if not records:
                time.sleep(wait / 1000)  # as brokers do
            return struct.pack(">ii", 0, 1) + string(b"t") + struct.pack(">iihqqii", 1, 0, 0, self.end, self.end, 0, len(records)) + records
        return struct.pack(">ii", 0, 0)
