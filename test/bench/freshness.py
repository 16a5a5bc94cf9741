"""From produce to visible in a SELECT, at a steady flow, beside what broker and client library take alone; and what an idle worker costs."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from groups import BY_DEVICE
from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.streams import COLUMNS
from harness.wait import wait_for
from measure import idle_cpu
from plant import Plant
from reading import flow

RATES = {20_000: 20.0, 200_000: 100.0}  # events a second, and what p99 should be below, ms
DEVICES = 1000
LIMIT_SHARE = 4  # the bare consumer is measured for this part of the time


def _summary(source: str, rate: float, latencies: Sequence[float], wanted: int) -> dict[str, object]:
    """Without latencies no probe came through in time: the broker's queue grows faster than it is read."""

    def at(share: float) -> float | None:
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else None

    row = {
        "source": source, "wanted": wanted, "rate": rate, "probes": len(latencies), "target": RATES[wanted],
        "p50": at(0.5), "p99": at(0.99), "max": at(1),
    }  # fmt: skip
    print(f"  {row}", flush=True)
    return row


def _probe(plant: Plant, where: Sequence[str], seconds: float, conninfo: str = "") -> tuple[list[float], float]:
    """Latencies in ms, ascending; without conninfo those of a bare consumer, and its rate. Empty: none was seen."""
    command = [str(plant.programs["fresh"]), *where, str(seconds), *([conninfo] if conninfo else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return [], 0
    printed = json.loads(done.stdout)
    return printed["latencies"], printed["rate"]


def limit(plant: Plant, source: str, where: Sequence[str], wanted: int, seconds: float) -> dict[str, object]:
    """What broker, network and client library take: a bare consumer of the whole flow."""
    time.sleep(1)
    latencies, rate = _probe(plant, where, seconds / LIMIT_SHARE)
    return _summary(f"limit: {source}", rate, latencies, wanted)


def _visible(plant: Plant, db: Database, source: str, where: Sequence[str], wanted: int, seconds: float) -> dict[str, object]:
    def rows() -> int:
        return db.value("SELECT rows_in FROM streamext.streams")

    first = rows()
    wait_for(lambda: rows() > first, what="the flow")
    time.sleep(2)
    first, start = rows(), time.monotonic()
    latencies, _ = _probe(plant, where, seconds, plant.conninfo)
    return _summary(source, (rows() - first) / (time.monotonic() - start), latencies, wanted)


def _kafka(plant: Plant, seconds: float) -> list[dict[str, object]]:
    found = []
    for rate in RATES:
        topic = f"fresh-{rate}"
        plant.kafka.create_topic(topic, plant.load.partitions)
        where = ["kafka", plant.kafka.brokers, topic]
        db = plant.db
        with flow(plant, topic, DEVICES, rate):
            found.append(limit(plant, "kafka", where, rate, seconds))
        plant.create_stream(db, topic, (BY_DEVICE,))
        db.flush("s")
        with flow(plant, topic, DEVICES, rate):
            found.append(_visible(plant, db, "kafka", where, rate, seconds))
        if rate == max(RATES):
            found.append(idle(plant, db, "kafka"))
        db.execute("DROP FOREIGN TABLE s CASCADE")
        plant.kafka.delete_topic(topic)
    return found


@contextmanager
def _mqtt_flow(plant: Plant, broker: Mosquitto, rate: int) -> Iterator[None]:
    with subprocess.Popen([plant.programs["generate"], "mqtt", str(broker.port), "plant", str(rate), str(DEVICES)]) as process:
        try:
            yield
        finally:
            process.terminate()


def _mqtt(plant: Plant, seconds: float) -> list[dict[str, object]]:
    """The flow is QoS 0, the probes are QoS 1."""
    found = []
    with Mosquitto(quiet=True) as broker:
        db = plant.db
        where = ["mqtt", str(broker.port), "plant"]
        db.execute(f"CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        for rate in RATES:
            with _mqtt_flow(plant, broker, rate):
                found.append(limit(plant, "mqtt", where, rate, seconds))
            with db.connection.transaction():
                db.execute(
                    f"CREATE FOREIGN TABLE s ({COLUMNS}) SERVER floor OPTIONS (topic 'plant/#', format 'json', event_time 'ts')"
                )
                db.execute(f"CREATE VIEW by_device WITH (streamext.continuous) AS {BY_DEVICE.query.format(source='s')}")
            db.flush("s")
            with _mqtt_flow(plant, broker, rate):
                found.append(_visible(plant, db, "mqtt", where, rate, seconds))
            if rate == max(RATES):
                found.append(idle(plant, db, "mqtt"))
            db.execute("DROP FOREIGN TABLE s CASCADE")
        db.execute("DROP SERVER floor")
    return found


def idle(plant: Plant, db: Database, source: str, seconds: float = 20) -> dict[str, object]:
    """CPU of launcher and worker while nothing arrives, as a share of a core."""
    db.flush("s")
    time.sleep(2)
    assert plant.pg.process is not None
    server = plant.pg.process.pid
    before = idle_cpu(server, "postgres: streamext")
    time.sleep(seconds)
    return {"source": source, "idle": (idle_cpu(server, "postgres: streamext") - before) / seconds}


def measure(plant: Plant, seconds: float) -> list[dict[str, object]]:
    plant.restart()
    return _kafka(plant, seconds) + _mqtt(plant, seconds)


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = ["| source | events/s | probes | p50, ms | p99, ms | max, ms | p99 wanted |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for r in results:
        if "idle" in r:
            lines.append(f"| {r['source']} | idle: {r['idle']:.3%} of a core (< 0.1 %) | | | | | |")
            continue
        rate = f"{r['rate']:,.0f} of {r['wanted']:,}"
        wanted = "" if r["source"].startswith("limit") else f"< {r['target']:.0f}"
        seen = " | ".join("none" if r[at] is None else f"{r[at]:.1f}" for at in ("p50", "p99", "max"))
        lines.append(f"| {r['source']} | {rate} | {r['probes']:,} | {seen} | {wanted} |")
    return "\n".join(lines)
