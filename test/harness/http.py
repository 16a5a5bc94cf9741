"""A server of the wrapper http in a test's database, and its client."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.database import Database
from harness.server import free_port
from harness.wait import wait_for


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """The server `web` on a free port. Role `ingest` has the token `ingest-token` and INSERT on streams made by stream();
    `nobody` has a token and no rights."""

    def __init__(self, db: Database, options: str = "", tokens: bool = True) -> None:
        self.db = db
        self.port = free_port()
        more = f", {options}" if options else ""
        db.execute(f"CREATE SERVER web FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{self.port}'{more})")
        for role in ("ingest", "nobody"):
            db.execute(f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$")
            if tokens:
                db.execute(f"CREATE USER MAPPING FOR {role} SERVER web OPTIONS (token '{role}-token')")

    def stream(
        self, columns: str = "n int, t text", options: str = "", name: str = "s", path: str = "/s", format: str = "json"
    ) -> None:
        more = f", {options}" if options else ""
        self.db.execute(
            f"CREATE FOREIGN TABLE {name} ({columns}) SERVER web OPTIONS (path '{path}', format '{format}'{more})"
        )
        self.db.execute(f"GRANT INSERT ON {name} TO ingest")
        self.wait("listening")

    def state(self) -> str | None:
        rows = self.db.rows("SELECT state FROM streamext.gateways WHERE server = 'web'")
        return rows[0][0] if rows else None

    def wait(self, state: str) -> None:
        wait_for(lambda: self.state() == state, what=f"gateway {state}")

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = "ingest-token",
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        own = connection or self.connection()
        all_headers = dict(headers or {})
        if token is not None:
            all_headers.setdefault("Authorization", f"Bearer {token}")
        if isinstance(body, str):
            body = body.encode()
        own.request(method, path, body, all_headers)
        response = own.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        if connection is None:
            own.close()
        return answer

    def post(self, body: Any, path: str = "/s", type: str | None = "application/json", **more: Any) -> Answer:
        """A body that is neither bytes nor a string is sent as JSON."""
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
        headers = dict(more.pop("headers", {}))
        if type is not None:
            headers["Content-Type"] = type
        return self.request("POST", path, body, headers, **more)

    def raw(self, data: bytes, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
        """What comes back to these bytes until it is enough, or the server ends the connection."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=90) as connection:
            connection.sendall(data)
            with contextlib.suppress(ConnectionResetError):  # the server had not read all
                while not until(answer) and (piece := connection.recv(65536)):
                    answer += piece
        return answer


class Listener:
    """A client of GET /views/VIEW/changes: applies the events by `keys` as they come."""

    def __init__(self, web: Web, view: str, keys: Sequence[str], token: str | None = "ingest-token", last: str | None = None) -> None:
        self.keys = keys
        self.rows: dict[str, Any] = {}
        self.ops: list[str] = []
        self.data: list[str] = []  # as it came
        self.last = last
        self.ended = False
        self.packed, self.text = b"", b""
        head = f"GET /views/{view}/changes HTTP/1.1\r\nHost: web\r\nAccept: text/event-stream\r\n"
        if token is not None:
            head += f"Authorization: Bearer {token}\r\n"
        if last is not None:
            head += f"Last-Event-ID: {last}\r\n"
        self.socket = socket.create_connection(("127.0.0.1", web.port), timeout=90)
        self.socket.sendall(f"{head}\r\n".encode())
        while b"\r\n\r\n" not in self.packed:
            self.receive()
        answer, self.packed = self.packed.split(b"\r\n\r\n", 1)
        status, *headers = answer.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in (header.split(": ", 1) for header in headers)}
        if self.status != 200:
            while not self.ended:
                self.receive()
            self.error = json.loads(self.packed)
        self.socket.setblocking(False)

    def receive(self) -> None:
        """Raises BlockingIOError: nothing has come."""
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        self.ended = self.ended or not piece
        self.packed += piece

    def unpack(self) -> bool:
        """One chunk, when it is there whole."""
        size, found, rest = self.packed.partition(b"\r\n")
        if not found or len(rest) < (length := int(size, 16)) + 2:
            return False
        self.ended = self.ended or length == 0
        self.text, self.packed = self.text + rest[:length], rest[length + 2 :]
        return not self.ended

    def take(self) -> None:
        """What has come."""
        with contextlib.suppress(BlockingIOError):
            self.receive()
        while self.unpack():
            pass
        *events, self.text = self.text.split(b"\n\n")
        for event in events:
            fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if line and not line.startswith(":"))
            if "event" in fields:
                self.data.append(fields["data"])
                self.apply(fields["event"], fields["id"], json.loads(fields["data"]))

    def apply(self, op: str, token: str, row: Any) -> None:
        self.ops.append(op)
        self.last = token
        key = "" if row is None else json.dumps([row[column] for column in self.keys])
        if op == "reset":
            self.rows.clear()
        elif op == "delete":
            self.rows.pop(key, None)
        else:
            self.rows[key] = row

    def wait(self, rows: list[Any]) -> None:
        """Until what it has is these rows."""

        def text(row: Any) -> str:
            return json.dumps(row, sort_keys=True)

        def same() -> bool:
            self.take()
            return sorted(map(text, self.rows.values())) == sorted(map(text, rows))

        wait_for(same, what=f"the rows of {self.keys}")

    def wait_end(self) -> None:
        wait_for(lambda: self.take() or self.ended, what="the end of the events")

    def close(self) -> None:
        self.socket.close()
