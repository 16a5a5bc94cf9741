"""Reading continuous views against a plain indexed unlogged table with the same rows: pgbench, idle and under load."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from groups import BY_DEVICE
from harness.database import Database
from harness.wait import wait_for
from plant import Plant

SIZES = (1000, 100_000)
CLIENTS = 2
RATE = 200_000

# {r} is the view or the table, {n} the number of devices.
QUERIES = {
    "point": r"""\set d random(0, {n} - 1)
SELECT * FROM {r} WHERE device = 'device-' || lpad((:d)::text, 4, '0');""",
    "top 10": "SELECT * FROM {r} ORDER BY peak DESC, device LIMIT 10;",
    "whole": "SELECT * FROM {r};",
}


@contextmanager
def flow(plant: Plant, topic: str, devices: int, rate: int) -> Iterator[None]:
    """Records of the present arrive at that rate."""
    command = [plant.programs["generate"], "flow", plant.kafka.brokers, topic, rate, devices, plant.load.partitions]
    with subprocess.Popen([str(word) for word in command]) as process:
        try:
            yield
        finally:
            process.terminate()


def bench(plant: Plant, query: str, relation: str, devices: int, seconds: int) -> float:
    """Mean latency in ms."""
    script = plant.pg.dir / "pgbench.sql"
    script.write_text(query.format(r=relation, n=devices) + "\n")
    printed = plant.pg.run(
        "pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), "-f", script, plant.db.name
    )
    found = re.search(r"latency average = ([\d.]+) ms", printed)
    assert found and "failed transactions: 0" in printed, printed
    return float(found[1])


def _rows_in(db: Database) -> int:
    return db.value("SELECT rows_in FROM streamext.streams")


def measure(plant: Plant, seconds: int) -> list[dict[str, object]]:
    found = []
    for devices in SIZES:
        topic = f"reading-{devices}"
        plant.produce(topic, devices)
        db = plant.db
        plant.create_stream(db, topic, (BY_DEVICE,))
        db.flush("s")
        db.execute("CREATE UNLOGGED TABLE plain AS TABLE by_device")
        db.execute("ALTER TABLE plain ADD PRIMARY KEY (device)")
        db.execute("VACUUM ANALYZE plain")
        for loaded in (False, True):
            with flow(plant, topic, devices, RATE if loaded else 0):
                if loaded:
                    before = _rows_in(db)
                    wait_for(lambda: _rows_in(db) > before + RATE, what="the flow")
                for name, query in QUERIES.items():
                    latencies: dict[str, list[float]] = {"plain": [], "by_device": []}
                    for relation in ("plain", "by_device", "by_device", "plain"):  # drift of the machine cancels out
                        latencies[relation].append(bench(plant, query, relation, devices, seconds))
                    table, view = (sum(latencies[relation]) / 2 for relation in ("plain", "by_device"))
                    found.append({"rows": devices, "query": name, "loaded": loaded, "table_ms": table, "view_ms": view, "ratio": view / table})
        db.execute("DROP TABLE plain; DROP FOREIGN TABLE s CASCADE")
        plant.kafka.delete_topic(topic)
    return found


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = [
        "| rows | query | | table, ms | view, ms | view / table |",
        "| ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for r in results:
        load = f"{RATE:,} events/s" if r["loaded"] else "idle"
        lines.append(f"| {r['rows']:,} | {r['query']} | {load} | {r['table_ms']:.3f} | {r['view_ms']:.3f} | {r['ratio']:.2f} |")
    return "\n".join(lines)
