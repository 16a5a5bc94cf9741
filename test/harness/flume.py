"""A server of the wrapper flume in a test's database, senders that speak its two protocols byte for byte, and a real agent."""

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from harness.database import Database
from harness.server import Server, free_port
from harness.wait import wait_for

LIBS = Path(os.environ.get("STREAMEXT_DEPS", ".deps")).resolve() / "flume" / "libs"

Event = tuple[Mapping[str, str], bytes]  # headers and body


class Tier:
    """The server `tier` on a free port."""

    def __init__(self, db: Database, protocol: str = "avro") -> None:
        self.db = db
        self.protocol = protocol
        self.port = free_port()
        db.execute(f"CREATE SERVER tier FOREIGN DATA WRAPPER flume OPTIONS (listen '127.0.0.1:{self.port}', protocol '{protocol}')")

    def stream(self, columns: str = "n int, t text", options: str = "", name: str = "s") -> None:
        self.db.execute(f"CREATE FOREIGN TABLE {name} ({columns}) SERVER tier" + (f" OPTIONS ({options})" if options else ""))
        self.wait("listening")

    def gateway(self, column: str = "state") -> str | None:
        """None while the server is not known, as right after a crash."""
        rows = self.db.rows(f"SELECT {column} FROM streamext.gateways WHERE server = 'tier'")
        return str(rows[0][0]) if rows else None

    def wait(self, state: str) -> None:
        wait_for(lambda: self.gateway() == state, what=f"gateway {state}")

    def sender(self) -> "Sender":
        return ThriftSender(self.port) if self.protocol == "thrift" else AvroSender(self.port)


# ---- encodings ----


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def avro_long(number: int) -> bytes:
    return varint((number << 1) ^ (number >> 63))


def avro_bytes(data: bytes) -> bytes:
    return avro_long(len(data)) + data


def avro_event(event: Event) -> bytes:
    headers, body = event
    pairs = b"".join(avro_bytes(name.encode()) + avro_bytes(value.encode()) for name, value in headers.items())
    return (avro_long(len(headers)) + pairs if headers else b"") + avro_long(0) + avro_bytes(body)


def avro_batch(events: Sequence[Event]) -> bytes:
    return (avro_long(len(events)) + b"".join(map(avro_event, events)) if events else b"") + avro_long(0)


def thrift_bytes(data: bytes) -> bytes:
    return varint(len(data)) + data


def thrift_event(event: Event) -> bytes:
    headers, body = event
    pairs = b"".join(thrift_bytes(name.encode()) + thrift_bytes(value.encode()) for name, value in headers.items())
    return b"\x1b" + varint(len(headers)) + (b"\x88" + pairs if headers else b"") + b"\x18" + thrift_bytes(body) + b"\x00"


def thrift_batch(events: Sequence[Event]) -> bytes:
    many = bytes([len(events) << 4 | 12]) if len(events) < 15 else b"\xfc" + varint(len(events))
    return b"\x19" + many + b"".join(map(thrift_event, events)) + b"\x00"


# ---- senders ----


class Sender:
    """A connection of a sink."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (piece := self.socket.recv(size - len(data))):
                raise ConnectionError("closed")
            data += piece
        return data

    def call(self, events: Sequence[Event]) -> bytes:
        """The bytes of an appendBatch, the connection's next call."""
        raise NotImplementedError

    def answer(self) -> str | None:
        """None: acknowledged; else the error."""
        raise NotImplementedError

    def send(self, events: Sequence[Event]) -> None:
        self.socket.sendall(self.call(events))

    def batch(self, events: Sequence[Event]) -> str | None:
        self.send(events)
        return self.answer()


HANDSHAKE = b"\x86\xaa\xda\xe2\xc4\x54\x74\xc0\xfe\x93\xff\xd0\xf2\x35\x0a\x65"  # whatever the hash is


class AvroSender(Sender):
    shaken = False

    def frame(self, message: bytes, pieces: int = 2) -> bytes:
        self.serial += 1
        size = len(message) // pieces
        buffers = [message[i * size : (i + 1) * size if i + 1 < pieces else None] for i in range(pieces)]
        return struct.pack("!II", self.serial, pieces) + b"".join(struct.pack("!I", len(b)) + b for b in buffers)

    def request(self, name: str, arguments: bytes) -> bytes:
        message = b"\x00" + avro_bytes(name.encode()) + arguments
        if not self.shaken:
            message = HANDSHAKE + b"\x00" + HANDSHAKE + b"\x00" + message
        return message

    def call(self, events: Sequence[Event]) -> bytes:
        return self.frame(self.request("appendBatch", avro_batch(events)))

    def answer(self) -> str | None:
        serial, buffers = struct.unpack("!II", self.exactly(8))
        message = b"".join(self.exactly(struct.unpack("!I", self.exactly(4))[0]) for _ in range(buffers))
        if not self.shaken:
            assert message[:4] == b"\x00" * 4  # both, no protocol, no hash, no metadata
            message = message[4:]
            self.shaken = True
        assert serial == self.serial and message[0] == 0
        if message[1:] == b"\x00\x00":
            return None
        assert message[1:3] == b"\x01\x00"
        return message[3:].decode(errors="replace")[1:].lstrip("\x00\x01\x02")


class ThriftSender(Sender):
    def call(self, events: Sequence[Event]) -> bytes:
        self.serial += 1
        message = b"\x82\x21" + varint(self.serial) + thrift_bytes(b"appendBatch") + thrift_batch(events)
        return struct.pack("!I", len(message)) + message

    def answer(self) -> str | None:
        message = self.exactly(struct.unpack("!I", self.exactly(4))[0])
        head = varint(self.serial) + thrift_bytes(b"appendBatch")
        if message == b"\x82\x41" + head + b"\x05\x00\x00\x00":
            return None
        assert message.startswith(b"\x82\x61" + head + b"\x18")
        return message[len(head) + 4 :].decode(errors="replace")


# ---- a real agent ----


class Agent(Server):
    """Flume itself. `properties` are the agent's (named a), with {netcat} for the port of a netcat source and {dir} for a directory of its own."""

    name = "flume"

    def __init__(self, properties: str, heap: str = "128m") -> None:
        super().__init__()
        self.heap = heap
        self.file = self.dir / "agent.properties"
        self.file.write_text(properties.replace("{netcat}", str(self.port)).replace("{dir}", str(self.dir)))

    def command(self) -> list[str | Path]:
        return [
            "java", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{LIBS}/*",
            "org.apache.flume.node.Application", "-n", "a", "-f", self.file, "--no-reload-conf",
        ]  # fmt: skip

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def feed(self, lines: Sequence[str]) -> None:
        """Gives the lines to the netcat source; returns when it has acknowledged each by its OK."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall("".join(f"{line}\n" for line in lines).encode())
            wanted, got = 3 * len(lines), 0
            while got < wanted:
                piece = connection.recv(65536)
                if not piece:
                    raise ConnectionError("the netcat source has ended the connection")
                got += len(piece)
