"""Who is called by webhooks."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.server import free_port


class Hook:
    """A loopback server that takes POSTs; `answers` are status codes for the next ones, with Retry-After where they are a pair, or bytes
    behind which the connection ends; else `otherwise`. stop() ends the connections that are there, too, once they are used."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int | tuple[int, int] | bytes] = []
        self.otherwise = 204
        self.taken: list[bytes] = []  # bodies that were answered by 204
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.away:
                    self.close_connection = True
                    return
                hook.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                answer = hook.answers.pop(0) if hook.answers else hook.otherwise
                if isinstance(answer, bytes):
                    self.close_connection = True
                    with suppress(ConnectionError):
                        self.wfile.write(answer)
                    return
                status, wait = answer if isinstance(answer, tuple) else (answer, 0)
                if status == 204:
                    hook.taken.append(body)
                self.send_response(status)
                if wait:
                    self.send_header("Retry-After", str(wait))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.handler = Handler
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.away = False
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.away = True
        self.server.shutdown()
        self.server.server_close()

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.requests]
