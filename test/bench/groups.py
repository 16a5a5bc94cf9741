"""Many groups: what a record and a group cost, against the limit program with as many groups."""

import json

import psycopg

from plant import Plant
from queries import View

BY_DEVICE = View(
    "by_device",
    """SELECT device, count(*) AS n, avg(temperature) AS mean, min(temperature) AS low, max(temperature) AS peak
    FROM {source} GROUP BY device""",
)
TIMEOUT = 600  # seconds


def measure(plant: Plant, devices: int) -> dict[str, object]:
    """The records of so many devices; random ones, so not every device may occur."""
    topic, table = f"groups-{devices}", f"g{devices}"
    plant.produce(topic, devices)
    plant.fill_table(table, devices)
    plant.answer(BY_DEVICE, table)
    limits = []

    def limit() -> None:
        with plant.meter(server=False) as meter:
            output = meter.run(
                [plant.programs["limit"], plant.kafka.brokers, topic, str(plant.load.records), "aggregate", "0"]
            )  # fmt: skip
        limits.append((json.loads(output), meter.cost))

    limit()
    plant.restart()
    db = plant.db
    db.execute(f"SET statement_timeout = '{TIMEOUT} s'")
    full = False
    with plant.meter() as meter:
        plant.create_stream(db, topic, (BY_DEVICE,))
        try:
            db.flush("s")
        except psycopg.errors.OutOfMemory:
            full = True
    limit()
    groups, state_bytes, state = db.rows("SELECT groups, state_bytes, state FROM streamext.continuous_views")[0]
    if not full:
        plant.verify_stream(db, (BY_DEVICE,), table)
    db.execute(f"DROP FOREIGN TABLE s CASCADE; DROP TABLE {table}, {table}_by_device")
    plant.kafka.delete_topic(topic)
    records = plant.load.records
    limit_rate = 2 * records / sum(printed["seconds"] for printed, _ in limits)
    return {
        "devices": devices,
        "groups": groups,
        "state": f"{state}, consumption stopped at the memory limit" if full else "complete",
        "rate": None if full else records / meter.cost.seconds,
        "cpu": None if full else meter.cost.cpu / records * 1e6,
        "limit_rate": limit_rate,
        "limit_cpu": sum(cost.cpu for _, cost in limits) / 2 / records * 1e6,
        "ratio": None if full else records / meter.cost.seconds / limit_rate,
        "bytes_a_group": state_bytes / groups if groups else None,
        "others": meter.cost.others,
    }


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = [
        "| groups | records/s | CPU-s per million | limit records/s | limit CPU-s | rate / limit | bytes a group | |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in results:
        rate, cpu, ratio = (f"{r[key]:{form}}" if r[key] else "" for key, form in (("rate", ",.0f"), ("cpu", ".2f"), ("ratio", ".2f")))
        lines.append(
            f"| {r['groups']:,} | {rate} | {cpu} | {r['limit_rate']:,.0f} | {r['limit_cpu']:.2f} | {ratio} |"
            f" {r['bytes_a_group'] or 0:.0f} | {r['state']} |"
        )
    return "\n".join(lines)
