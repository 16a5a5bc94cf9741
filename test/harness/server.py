"""A server process of a test: what PostgreSQL, Kafka and mosquitto have in common."""

import ctypes
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from harness.wait import wait_for

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on, below the range that the kernel gives to outgoing connections: there a client that
    knocks at a stopped broker could take the broker's port, or connect to itself. Each of the processes that share the
    tests has ports of its own and gives none twice: a server need not have taken its port yet, or may be stopped."""
    width = 22_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = 10_000 + width * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.SystemRandom().randrange(first, first + width)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port
            except OSError:
                continue


class Server:
    """Started and stopped any number of times, on the same port and directory; as a context manager it runs inside
    the block and leaves nothing behind. It ends with the thread that started it, so that a killed test run leaves no
    servers: start it from a thread that lives as long as it is needed."""

    name = "server"
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, user: str | None = None) -> None:
        # Popen's arguments that make a process run as `user`.
        self.identity: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        self.port = free_port()
        self.dir = Path(tempfile.mkdtemp(prefix=f"streamext-{self.name}-"))
        self.dir.chmod(0o755)
        self.log_file = self.dir / "log"
        self.process: subprocess.Popen[bytes] | None = None
        if user:
            shutil.chown(self.dir, user)

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self, timeout: float = 180) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.identity,
                start_new_session=True,  # Ctrl-C is for the test run, which stops its servers in order
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, self.stop_signal),
            )
        try:
            wait_for(lambda: self._check_alive() and self.is_ready(), timeout, f"start of {self.name}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its log ends with:\n{self.log()[-4000:]}") from None

    def _check_alive(self) -> bool:
        if not self.is_running():
            raise RuntimeError(f"{self.name} ended at its start:\n{self.log()[-4000:]}")
        return True

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT make a server hang for a while."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals | None = None, timeout: float = 180) -> None:
        if self.is_running():
            self.send(number or self.stop_signal)
            self.send(signal.SIGCONT)  # in case it was stopped
            self.process.wait(timeout)

    def kill9(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self, number: signal.Signals | None = None) -> None:
        self.stop(number)
        self.start()

    def log(self, since: int = 0) -> str:
        """The server's log from byte `since` on."""
        return self.log_file.read_bytes()[since:].decode(errors="replace")

    def remove(self) -> None:
        self.stop(self.kill_signal)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
