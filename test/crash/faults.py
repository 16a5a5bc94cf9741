"""What happens to the servers. A fault returns when the servers accept connections again."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import FAST, IMMEDIATE, Postgres
from harness.server import Server
from harness.streams import is_alive
from harness.wait import wait_for

SOURCES = Path(__file__).parents[2] / "src"


def fault_points() -> list[str]:
    """The names in the source."""
    texts = "".join(file.read_text() for file in sorted(SOURCES.rglob("*.c")))
    points = sorted(set(re.findall(r'"((?:checkpoint|compaction|history|batch|mqtt|gateway|into|delivery)-[a-z-]+)"', texts)))
    assert points
    return points


def kill_all(server: Postgres) -> None:
    """kill -9 of the postmaster and of every process of it."""
    orphans = server.children()
    Server.kill9(server)
    for pid in orphans:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_for(lambda: not any(map(is_alive, orphans)), what="end of the orphans")


class Faults:
    """`hold` is how long something is stopped at most, `wait` how long a fault point is waited for."""

    def __init__(
        self, rng: random.Random, pg: Postgres, database: str, kafka: Kafka | None, mosquitto: Mosquitto | None,
        hold: float, wait: float, gateways: bool = False, sinks: bool = False,
    ) -> None:  # fmt: skip
        self._rng = rng
        self._pg = pg
        self._database = database
        self._hold = hold
        self._wait = wait
        self._all: dict[str, tuple[float, Callable[[], None]]] = {
            "worker -9": (4, lambda: self._kill("streamext worker")),
            "backend -9": (1, lambda: self._kill("client backend")),
            "checkpointer -9": (1, lambda: self._kill("checkpointer")),
            "walwriter -9": (1, lambda: self._kill("walwriter")),
            "launcher -9": (1, lambda: self._kill("streamext launcher")),
            "postmaster -9": (3, self._kill_postmaster),
            "postmaster -9, orphans too": (2, self._kill_all),
            "immediate restart": (1, lambda: pg.restart(IMMEDIATE)),
            "fast restart": (1, lambda: pg.restart(FAST)),
            "worker stopped": (1, lambda: self._stop_process("streamext worker")),
            "walwriter stopped": (1, lambda: self._stop_process("walwriter")),
        }
        if gateways:
            self._all["gateway -9"] = (2, lambda: self._kill("streamext gateway"))
            self._all["gateway stopped"] = (1, lambda: self._stop_process("streamext gateway"))
        left_out = [prefix for prefix, wanted in (("gateway-", gateways), ("into-", sinks), ("delivery-", sinks)) if not wanted]
        points = [point for point in fault_points() if not point.startswith(tuple(left_out))]
        for point in points:
            self._all[f"at {point}"] = (6 / len(points), lambda point=point: self._fault_point(point))
        for server in (kafka, mosquitto):
            if server:
                self._all[f"{server.name} -9"] = (1, lambda server=server: self._kill_server(server))
                self._all[f"{server.name} stopped"] = (1, lambda server=server: self._stop_server(server))

    def names(self) -> list[str]:
        return list(self._all)

    def choose(self, among: list[str] | None = None) -> str:
        names = [name for name in self._all if not among or name in among]
        return self._rng.choices(names, [self._all[name][0] for name in names])[0]

    def happen(self, name: str) -> None:
        self._all[name][1]()

    def _connect(self) -> psycopg.Connection:
        return self._pg.connect(self._database)

    def _pid(self, kind: str) -> int:
        """A process by pg_stat_activity's backend_type; 0: there is none now."""
        with self._connect() as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s || '%%' AND pid <> pg_backend_pid()", (kind,)
            ).fetchall()
        return self._rng.choice(found)[0] if found else 0

    def _kill(self, kind: str) -> None:
        own = self._connect()  # a client backend where there is no other one
        try:
            while True:
                pid = wait_for(lambda: self._pid(kind), what=f"a process: {kind}")
                try:
                    return self._pg.kill_backend(pid)
                except ProcessLookupError:  # it has just ended by itself
                    pass
        finally:
            own.close()

    def _kill_postmaster(self) -> None:
        """Its orphans end by themselves."""
        self._pg.kill9()
        self._pg.start()

    def _kill_all(self) -> None:
        kill_all(self._pg)
        self._pg.start()

    def _stop_process(self, kind: str) -> None:
        pid = wait_for(lambda: self._pid(kind), what=f"a process: {kind}")
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self._rng.uniform(0.2, 1) * self._hold)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _stop_server(self, server: Server) -> None:
        server.send(signal.SIGSTOP)
        try:
            time.sleep(self._rng.uniform(0.2, 1) * self._hold)
        finally:
            server.send(signal.SIGCONT)

    def _kill_server(self, server: Server) -> None:
        server.kill9()
        server.start()

    def _fault_point(self, point: str) -> None:
        """Some are not reached in the time there is; then nothing has happened."""
        before = self._pg.log_file.stat().st_size
        self._set(f"SET streamext.fault_point = '{point}'")
        try:
            wait_for(lambda: "was terminated by signal 9" in self._pg.log(before), self._wait)
            wait_for(lambda: "all server processes terminated" in self._pg.log(before), what="crash restart")
            wait_for(self._pg.is_ready, 60, "recovery")
        except TimeoutError:
            pass
        self._set("RESET streamext.fault_point")

    def _set(self, what: str) -> None:
        """ALTER SYSTEM; the server may be about to crash."""

        def done() -> bool:
            try:
                with self._connect() as connection:
                    connection.execute(f"ALTER SYSTEM {what}")
                return True
            except psycopg.OperationalError:
                return False

        wait_for(done, 60, "ALTER SYSTEM")
        self._pg.reload()
