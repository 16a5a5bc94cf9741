"""python -m soak.http: `make soak-http SECONDS=60`. A gateway with 10,000 idle connections, then at full rate with 300 connections that send a byte now
and then. Ends non-zero if another client waits longer than 50 ms at the 99th percentile, the gateway's memory grows by more than a fifth, or the view does
not hold exactly what was acknowledged. Needs a machine that does nothing else."""

import argparse
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "bench")]

import programs
from harness.database import Database, temporary_database
from harness.http import Web
from harness.postgres import Postgres
from harness.streams import continuous
from harness.wait import wait_for

MOST = 50.0  # ms, p99
GROWTH = 1.2
BURST = 50_000  # posts of one call of the sender
HEAD = b"POST /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ingest-token\r\nContent-Length: 1000000\r\n\r\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak-http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="at full rate")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=300)
    return parser.parse_args()


def memory(db: Database) -> float:
    """MB that are the gateway's own."""
    pid = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext gateway'")
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private")) / 1024


class Client:
    """Another client: a request after the other on a connection of its own, so many a second."""

    def __init__(self, web: Web) -> None:
        self.latencies: list[float] = []
        self._web = web
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = self._web.connection()
        while not self._stop.wait(0.02):
            begin = time.monotonic()
            assert self._web.post({"n": 1}, connection=connection).status == 204
            self.latencies.append((time.monotonic() - begin) * 1000)

    def p99(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


def open_connections(web: Web, count: int, first: bytes = b"") -> list[socket.socket]:
    found = []
    for _ in range(count):
        found.append(socket.create_connection(("127.0.0.1", web.port), timeout=30))
        if first:
            found[-1].sendall(first)
    return found


def judge(what: str, value: float, bound: float) -> bool:
    print(f"{what}: {value:.1f} (at most {bound:.1f}){'' if value <= bound else '  TOO MUCH'}", flush=True)
    return value <= bound


def idle(web: Web, count: int) -> tuple[bool, int]:
    before = memory(web.db)
    connections = open_connections(web, count)
    try:
        wait_for(lambda: web.db.value("SELECT connections FROM streamext.gateways") >= count, what="the connections")
        with Client(web) as client:
            time.sleep(10)
        grown = (memory(web.db) - before) * 1024 / count
    finally:
        for connection in connections:
            connection.close()
    good = judge(f"{count} idle connections: p99 of another client, ms", client.p99(), MOST)
    return judge("kB of the gateway for each", grown, 32) and good, len(client.latencies)


def dribble(connections: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(0.5):
        for connection in connections:
            connection.sendall(b" ")


def full(web: Web, seconds: float, count: int, program: Path) -> tuple[bool, int]:
    command = [program, "post", str(web.port), "/s", "ingest-token", "64", str(BURST), "1", "0"]
    slow, stop = open_connections(web, count, HEAD), threading.Event()
    dribbler = threading.Thread(target=dribble, args=(slow, stop))
    dribbler.start()
    sizes: list[float] = []
    sent, end = 0, time.monotonic() + seconds
    try:
        with Client(web) as client:
            while time.monotonic() < end:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                sent += BURST
                sizes.append(memory(web.db))
    finally:
        stop.set()
        dribbler.join()
        for connection in slow:
            connection.close()
    print(f"{sent / seconds:,.0f} posts/s", flush=True)
    good = judge(f"{count} slow connections: p99 of another client, ms", client.p99(), MOST)
    third = max(len(sizes) // 3, 1)
    return judge("MB of the gateway at the end", max(sizes[-third:]), max(sizes[:third]) * GROWTH) and good, sent + len(client.latencies)


def main() -> int:
    options = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    program = programs.build()["channels"]
    with Postgres(settings={"streamext.memory_limit": "512MB", "max_wal_size": "4GB"}) as pg, temporary_database(pg) as db:
        web = Web(db, f"max_connections '{options.idle + options.slow + 1000}', header_timeout '10 min'")
        web.stream("n int, device text")
        continuous(db, "v", "SELECT count(*) AS c FROM s")
        results = [idle(web, options.idle), full(web, options.seconds, options.slow, program)]
        db.flush("s")
        counted, sent = db.value("SELECT c FROM v"), sum(count for _, count in results)
        print(f"acknowledged {sent:,}, counted {counted:,}{'' if sent == counted else '  WRONG'}")
        return 0 if all(good for good, _ in results) and sent == counted else 1


if __name__ == "__main__":
    sys.exit(main())
