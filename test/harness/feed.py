"""A server of feeds on loopback, played by a script for each connection: an endless HTTP answer, server-sent events, a websocket."""

import base64
import gzip
import hashlib
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from harness.wait import wait_for


class Connection:
    """One connection: what was asked for, and what is answered. Methods send at once and return when the system has the bytes."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.path = ""
        self.query: dict[str, list[str]] = {}
        self.headers: dict[str, str] = {}
        self.packer: Any = None
        self.chunked = False
        self.closed = threading.Event()

    def read_request(self) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := self.peer.recv(65536)):
                return False
            data += piece
        head = data.split(b"\r\n\r\n", 1)[0].decode()
        first, *lines = head.split("\r\n")
        self.path = first.split(" ")[1]
        self.query = parse_qs(urlsplit(self.path).query)
        self.headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        return True

    def raw(self, data: bytes) -> None:
        self.peer.sendall(data)

    def answer(self, status: str = "200 OK", headers: str = "", body: str = "") -> None:
        """An answer that is whole."""
        self.raw(f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\n{headers}\r\n{body}".encode())

    def begin(self, content_type: str = "application/x-ndjson", packed: bool = False, chunked: bool = True) -> None:
        """The head of an answer that goes on."""
        self.chunked = chunked
        self.packer = zlib.compressobj(wbits=31) if packed else None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
        if chunked:
            head += "Transfer-Encoding: chunked\r\n"
        if packed:
            head += "Content-Encoding: gzip\r\n"
        self.raw((head + "\r\n").encode())

    def send(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        if self.packer:
            data = self.packer.compress(data) + self.packer.flush(zlib.Z_SYNC_FLUSH)
        if self.chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self.raw(data)

    def finish(self) -> None:
        """The answer ends in good order."""
        if self.chunked:
            self.raw(b"0\r\n\r\n")
        self.close()

    def close(self) -> None:
        try:
            self.peer.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.peer.close()

    # ---- websocket ----

    def accept(self, key: str | None = None) -> None:
        digest = hashlib.sha1(((key or self.headers["sec-websocket-key"]) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.raw(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )

    def frame(self, data: str | bytes, opcode: int = 1, final: bool = True) -> None:
        data = data.encode() if isinstance(data, str) else data
        size = len(data)
        length = bytes([size]) if size < 126 else struct.pack("!BH", 126, size) if size < 65536 else struct.pack("!BQ", 127, size)
        self.raw(bytes([opcode | (0x80 if final else 0)]) + length + data)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (piece := self.peer.recv(size - len(data))):
                raise ConnectionError("closed")
            data += piece
        return data

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of a frame of the client, which must be masked."""
        first, second = self._exactly(2)
        assert second & 0x80
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        mask = self._exactly(4)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(self._exactly(size)))


class FeedServer:
    """Connections wait in `take()` until a test plays them. `context`: with TLS."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context = context
        self.connections: list[Connection] = []
        self.taken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(peer,), daemon=True).start()

    def _greet(self, peer: socket.socket) -> None:
        try:
            if self.context:
                peer = self.context.wrap_socket(peer, server_side=True)
            connection = Connection(peer)
            if connection.read_request():
                self.connections.append(connection)
        except OSError:
            pass

    def take(self) -> Connection:
        """The next connection, once it has asked."""
        wait_for(lambda: len(self.connections) > self.taken, what="a connection to the feed")
        self.taken += 1
        return self.connections[self.taken - 1]

    def url(self, path: str = "/stream", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self.listener.close()
        for connection in self.connections:
            connection.close()
