"""From produce to visible in a SELECT, at a steady flow; and what an idle worker costs."""

import random
import subprocess
import time
from collections.abc import Callable

from groups import BY_DEVICE
from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.streams import COLUMNS
from harness.wait import wait_for
from measure import cpu
from plant import Plant
from reading import flow

RATES = (20_000, 200_000)
DEVICES = 1000
PAUSE = 0.02  # seconds between two probes, at random around it
NOT_AFTER = 10  # seconds


def _record(number: int) -> bytes:
    ts = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    return f'{{"device":"probe","site":"probe","ts":"{ts}","temperature":{number},"humidity":0}}'.encode()


def probe(db: Database, send: Callable[[bytes], None], seconds: float) -> list[float]:
    """Latencies in ms: the clock runs from before the record is handed to the client library until the SELECT that shows it has returned."""
    found = []
    end = time.monotonic() + seconds
    cursor = db.connection.cursor()
    query = "SELECT peak FROM by_device WHERE device = 'probe'"
    number = 0
    while time.monotonic() < end:
        number += 1
        start = time.monotonic()
        send(_record(number))
        while True:
            row = cursor.execute(query, prepare=True).fetchone()
            now = time.monotonic()
            if row and row[0] >= number:
                break
            if now > start + NOT_AFTER:
                raise TimeoutError("a record is not visible")
            time.sleep(0.0002)
        found.append((now - start) * 1000)
        time.sleep(random.uniform(0, 2 * PAUSE))
    return found


def _summary(source: str, rate: float, latencies: list[float], wanted: int) -> dict[str, object]:
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "source": source, "wanted": wanted, "rate": rate, "probes": len(ordered),
        "p50": at(0.5), "p99": at(0.99), "max": ordered[-1],
    }  # fmt: skip


def _probed(db: Database, send: Callable[[bytes], None], seconds: float) -> tuple[float, list[float]]:
    """The flow's true rate, and the latencies."""

    def rows() -> int:
        return db.value("SELECT rows_in FROM streamext.streams")

    first = rows()
    wait_for(lambda: rows() > first, what="the flow")
    time.sleep(2)
    first, start = rows(), time.monotonic()
    latencies = probe(db, send, seconds)
    return (rows() - first) / (time.monotonic() - start), latencies


def _kafka(plant: Plant, seconds: float) -> list[dict[str, object]]:
    found = []
    for rate in RATES:
        topic = f"fresh-{rate}"
        plant.kafka.create_topic(topic, plant.load.partitions)
        db = plant.db
        plant.create_stream(db, topic, (BY_DEVICE,))
        db.flush("s")
        producer = plant.kafka.producer({"linger.ms": 0})

        def send(value: bytes) -> None:
            producer.produce(topic, value, partition=0)
            producer.poll(0)

        with flow(plant, topic, DEVICES, rate):
            true_rate, latencies = _probed(db, send, seconds)
        found.append(_summary("kafka", true_rate, latencies, rate))
        if rate == RATES[-1]:
            found.append(idle(plant, db, "kafka"))
        db.execute("DROP FOREIGN TABLE s CASCADE")
        plant.kafka.delete_topic(topic)
    return found


def _mqtt(plant: Plant, seconds: float) -> list[dict[str, object]]:
    """The flow comes from mosquitto_pub at QoS 0, which may not keep up; the probes are QoS 1."""
    found = []
    with Mosquitto() as mosquitto:
        db = plant.db
        db.execute(f"CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{mosquitto.uri}')")
        for rate in RATES:
            with db.connection.transaction():
                db.execute(
                    f"CREATE FOREIGN TABLE s ({COLUMNS}) SERVER floor OPTIONS (topic 'plant/#', format 'json', event_time 'ts')"
                )
                db.execute(f"CREATE VIEW by_device WITH (streamext.continuous) AS {BY_DEVICE.query.format(source='s')}")
            db.flush("s")
            client = mosquitto.client()
            lines = subprocess.Popen([plant.programs["generate"], "lines", str(rate), str(DEVICES)], stdout=subprocess.PIPE)
            publisher = subprocess.Popen(
                ["mosquitto_pub", "-p", str(mosquitto.port), "-t", "plant/flow", "-q", "0", "-l"], stdin=lines.stdout
            )
            try:
                true_rate, latencies = _probed(db, lambda value: client.publish("plant/probe", value, 1) and None, seconds)
            finally:
                for process in (lines, publisher):
                    process.terminate()
                    process.wait()
            found.append(_summary("mqtt", true_rate, latencies, rate))
            if rate == RATES[-1]:
                found.append(idle(plant, db, "mqtt"))
            client.disconnect()
            client.loop_stop()
            db.execute("DROP FOREIGN TABLE s CASCADE")
        db.execute("DROP SERVER floor")
    return found


def idle(plant: Plant, db: Database, source: str, seconds: float = 10) -> dict[str, object]:
    """CPU of the whole server while nothing arrives, as a share of a core."""
    db.flush("s")
    time.sleep(2)
    assert plant.pg.process is not None
    before = cpu(plant.pg.process.pid)
    time.sleep(seconds)
    return {"source": source, "idle": (cpu(plant.pg.process.pid) - before) / seconds}


def measure(plant: Plant, seconds: float) -> list[dict[str, object]]:
    plant.restart()
    return _kafka(plant, seconds) + _mqtt(plant, seconds)


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = ["| source | events/s | probes | p50, ms | p99, ms | max, ms |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for r in results:
        if "idle" in r:
            lines.append(f"| {r['source']} | idle: {r['idle']:.2%} of a core | | | | |")
        else:
            lines.append(f"| {r['source']} | {r['rate']:,.0f} of {r['wanted']:,} | {r['probes']:,} | {r['p50']:.1f} | {r['p99']:.1f} | {r['max']:.1f} |")
    return "\n".join(lines)
