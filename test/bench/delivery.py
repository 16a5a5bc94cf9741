"""What changes cost: the stream's worker with a subscriber, and many listeners of server-sent events."""

import json
import re
import selectors
import socket
import threading
import time
from functools import partial
from pathlib import Path

import freshness
from confluent_kafka import Producer
from harness.database import Database
from harness.meanwhile import meanwhile
from harness.server import free_port
from harness.wait import wait_for
from measure import memory
from plant import TOPIC, Plant
from queries import QUERIES
from reading import flow

# listeners, emit_interval, p99 wanted in ms, pause between two probes
LISTENERS = [(10, "10 ms", 30.0, 0.05), (1000, "250 ms", 400.0, 0.1)]
RATE = 200_000
WARM = 8  # seconds of flow before it is measured: a broker that has just begun compiles its code first
RUNS = 3
BY_SITE = "SELECT site, count(*) AS n, max(temperature) AS peak FROM s GROUP BY site"


def _subscribe(db: Database, view: str, told: list[int], over: threading.Event) -> None:
    """`told`: rows, one number for each answer."""
    token = None
    while not over.is_set():
        rows = db.rows("SELECT * FROM streamext.changes(%s, %s, '1 s')", view, token)
        told.append(len(rows))
        token = rows[-1][1] if rows else token


def _cpu(db: Database) -> float:
    """CPU-seconds of the connection's server process, to the nanosecond."""
    return int(Path(f"/proc/{db.connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9


def _read_once(db: Database, view: str, rows: int) -> float:
    """CPU-seconds that PostgreSQL takes for so many of the view's rows as JSON, without what is changed or told: what whoever wants them pays."""
    before = _cpu(db)
    found = len(db.rows(f"SELECT to_jsonb(v) FROM {view} AS v"))
    return (_cpu(db) - before) / max(found, 1) * rows


def cost(plant: Plant) -> list[dict[str, object]]:
    """
    Records a second by the clock, and CPU of the server's processes, of no client, for a million records of Q1 with nobody who asks, and with one subscriber, in turn. What the
    subscriber's session takes is also measured by itself: that is sharper than the difference of two runs.
    """
    plant.produce(TOPIC)
    query = QUERIES["q1"]
    found = []
    for run in range(RUNS):
        for subscribers in (0, 1):
            plant.restart()
            db, listener, view = plant.db, plant.db, query.views[0].name
            told: list[int] = []
            listener.value("SELECT 1")  # it has been there for long
            with plant.meter() as meter:
                plant.create_stream(db, TOPIC, query.views)
                before = _cpu(listener)
                if subscribers:
                    with meanwhile(partial(_subscribe, listener, view, told)):
                        db.flush("s")
                else:
                    db.flush("s")
                session = _cpu(listener) - before
            row = {"what": f"q1, {subscribers} subscribers", "run": run, "cpu": meter.cost.cpu / plant.load.records * 1e6,
                   "rate": plant.load.records / meter.cost.seconds, "others": meter.cost.others}  # fmt: skip
            if subscribers:
                row |= {"told": sum(told), "session": session / plant.load.records * 1e6,
                        "read": _read_once(listener, view, sum(told)) / plant.load.records * 1e6}  # fmt: skip
            db.execute("DROP FOREIGN TABLE s CASCADE")
            found.append(row)
            print(f"  {row}", flush=True)
    return found


PROBE = re.compile(rb'"peak": (\d+), "site": "heard"')


class Listeners:
    """Sockets that read what comes; `seen`: when each of them had a probe's number or a greater one."""

    def __init__(self, port: int, n: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.seen: list[tuple[int, float]] = []
        request = b"GET /views/public.by_site/changes HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench\r\n\r\n"
        for _ in range(n):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            self.selector.register(connection, selectors.EVENT_READ, [0])

    def run(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            for key, _ in self.selector.select(left):
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                now = time.monotonic()
                if not data:
                    raise RuntimeError("a listener was cut off")
                for match in PROBE.finditer(data):
                    number = int(match[1])
                    if last := key.data[0]:
                        self.seen += [(k, now) for k in range(last + 1, number + 1)]
                    key.data[0] = max(number, last)


def _gateway(db: Database) -> int:
    return db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext gateway'")


def listeners(plant: Plant, n: int, interval: str, wanted: float, pause: float, seconds: float) -> dict[str, object]:
    """From a record's produce to the moment at which each of n listeners has the row that shows it, while RATE records a second come in."""
    plant.restart()
    db, topic, port = plant.db, f"delivery-{n}", free_port()
    plant.kafka.create_topic(topic, plant.load.partitions)
    plant.create_stream(db, topic, ())
    db.execute(f"CREATE VIEW by_site WITH (streamext.continuous, streamext.emit_interval = '{interval}') AS {BY_SITE}")
    db.execute(f"CREATE SERVER web FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{port}', max_connections '5000')")
    db.execute("CREATE USER MAPPING FOR postgres SERVER web OPTIONS (token 'bench')")
    wait_for(lambda: db.value("SELECT state FROM streamext.gateways") == "listening", what="the gateway")
    sent: dict[int, float] = {}

    def probes(over: threading.Event) -> None:
        producer = Producer({"bootstrap.servers": plant.kafka.brokers, "linger.ms": 0})
        number = 1000
        while not over.wait(pause):
            number += 1
            sent[number] = time.monotonic()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            producer.produce(topic, json.dumps({"device": "heard", "site": "heard", "ts": stamp, "temperature": number, "humidity": 0}))
            producer.poll(0)

    gateway = _gateway(db)
    clients = Listeners(port, 1)
    clients.run(time.monotonic() + 2)
    before = memory(gateway)

    def rows_in() -> int:
        return db.value("SELECT rows_in FROM streamext.streams")

    with flow(plant, topic, 1000, RATE):
        wait_for(lambda: rows_in() > WARM * RATE, 300, "the flow")
        bare = freshness.limit(plant, "kafka", ["kafka", plant.kafka.brokers, topic], RATE, seconds)
        db.flush("s")
        first, start = rows_in(), time.monotonic()
        clients = Listeners(port, n)
        with meanwhile(probes):
            clients.run(time.monotonic() + seconds)
        held = (memory(gateway) - before) / n
        rate = (rows_in() - first) / (time.monotonic() - start)
    latencies = sorted((at - sent[number]) * 1000 for number, at in clients.seen if number in sent)
    db.execute("DROP SERVER web CASCADE")
    db.execute("DROP FOREIGN TABLE s CASCADE")
    plant.kafka.delete_topic(topic)
    row = {"what": f"{n} listeners at {interval}", "rate": rate, "seen": len(latencies), "p50": latencies[len(latencies) // 2],
           "p99": latencies[int(len(latencies) * 0.99)], "wanted": wanted, "bytes": held,
           "bare": bare["p99"]}  # fmt: skip
    print(f"  {row}", flush=True)
    return row


def measure(plant: Plant, seconds: float) -> list[dict[str, object]]:
    return [listeners(plant, *case, seconds) for case in LISTENERS] + cost(plant)


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = ["| what | records/s | p50, ms | p99, ms | wanted | a bare consumer's p99, ms | bytes a listener | CPU-s/M |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for r in results:
        if "cpu" in r:
            session = f", {r['session']:.3f} of it the session's for {r['told']:,} rows told (read once as JSON: {r['read']:.3f})" if "told" in r else ""
            lines.append(f"| {r['what']}, run {r['run']} | | | | | | | {r['cpu']:.2f}{session} |")
        else:
            lines.append(f"| {r['what']} | {r['rate']:,.0f} | {r['p50']:.0f} | {r['p99']:.0f} | < {r['wanted']:.0f} | {r['bare'] or 0:.1f} | {r['bytes']:,.0f} | |")
    return "\n".join(lines)
