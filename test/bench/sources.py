"""Several workers on a topic; MQTT against bare subscribers; local streams against an unlogged table. Every result is verified."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.streams import BY_TS, COLUMNS
from measure import Cost, Meter
from plant import TOPIC, Plant
from queries import TUMBLING

WORKERS = (1, 2, 4)
TRICKLE = 10  # seconds of single INSERTs
CLIENTS = 4


def _row(what: str, records: int, cost: Cost) -> dict[str, object]:
    print(f"  {what}: {records / cost.seconds:,.0f}/s", flush=True)
    return {
        "what": what, "records": records, "rate": records / cost.seconds, "cpu": cost.cpu / records * 1e6,
        "broker": cost.broker / records * 1e6, "others": cost.others,
    }  # fmt: skip


def shards(plant: Plant) -> list[dict[str, object]]:
    """Q1 by so many workers."""
    plant.produce(TOPIC)
    plant.fill_table()
    plant.answer(TUMBLING)
    found = []
    for workers in WORKERS:
        plant.restart()
        db = plant.db
        with plant.meter() as meter:
            plant.create_stream(db, TOPIC, (TUMBLING,), options=f", workers '{workers}'")
            db.flush("s")
        plant.verify_stream(db, (TUMBLING,))
        db.execute("DROP FOREIGN TABLE s CASCADE")
        found.append(_row(f"Kafka, workers {workers}", plant.load.records, meter.cost))
    return found


def _subscribers(plant: Plant, broker: Mosquitto, qos: int) -> list[dict[str, object]]:
    """What throws away all it takes: mosquitto's own client, and the library that streamext uses."""
    port, records = str(broker.port), str(plant.load.records)
    return [
        _subscriber(
            plant, broker, qos, "mosquitto_sub", ["mosquitto_sub", "-p", port, "-t", "plant/#", "-q", str(qos), "-C", records, "-F", "%l"]
        ),
        _subscriber(plant, broker, qos, "paho alone", [plant.programs["subscribe"], port, "plant/#", str(qos), records]),
    ]


def _subscriber(plant: Plant, broker: Mosquitto, qos: int, name: str, command: Sequence[str | Path]) -> dict[str, object]:
    assert broker.process is not None
    publisher = threading.Thread(target=lambda: (time.sleep(0.3), _publish(plant, broker, qos)))
    with Meter(0, broker.process.pid) as meter:
        publisher.start()
        meter.run(command)
    publisher.join()
    meter.cost.seconds -= 0.3
    return _row(f"{name}, QoS {qos}", plant.load.records, meter.cost)


def _publish(plant: Plant, broker: Mosquitto, qos: int) -> None:
    load = plant.load
    subprocess.run([plant.programs["generate"], "publish", str(broker.port), "plant", str(load.records), str(load.devices), str(qos)], check=True)


def _mqtt_stream(plant: Plant, broker: Mosquitto, qos: int, workers: int) -> dict[str, object]:
    plant.restart()
    db = plant.db
    assert broker.process is not None and plant.pg.process is not None
    with db.connection.transaction():
        db.execute(
            f"CREATE FOREIGN TABLE s ({COLUMNS}) SERVER floor OPTIONS (topic 'plant/#', format 'json', {BY_TS}, qos '{qos}', workers '{workers}')"
        )
        db.execute(f"CREATE VIEW tumbling WITH (streamext.continuous) AS {TUMBLING.query.format(source='s')}")
    db.flush("s")
    with Meter(plant.pg.process.pid, broker.process.pid) as meter:
        _publish(plant, broker, qos)
        db.flush("s")
    plant.verify_stream(db, (TUMBLING,))
    db.execute("DROP FOREIGN TABLE s CASCADE")
    return _row(f"streamext, QoS {qos}" + (f", workers {workers}" if workers > 1 else ""), plant.load.records, meter.cost)


def mqtt(plant: Plant) -> list[dict[str, object]]:
    """The clock runs from the first message published until the last one is there."""
    plant.fill_table()
    plant.answer(TUMBLING)
    found = []
    with Mosquitto(quiet=True) as broker:
        plant.db.execute(f"CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        for qos in range(3):
            found += _subscribers(plant, broker, qos)
            found.append(_mqtt_stream(plant, broker, qos, 1))
            if qos == 1:
                found.append(_mqtt_stream(plant, broker, qos, 2))
    return found


def _copy(plant: Plant, db: Database, to: str) -> None:
    with (
        subprocess.Popen([plant.programs["generate"], "rows", str(plant.load.records), str(plant.load.devices)], stdout=subprocess.PIPE) as rows,
        db.connection.cursor() as cursor,
        cursor.copy(f"COPY {to} FROM STDIN") as copy,
    ):
        assert rows.stdout is not None
        while data := rows.stdout.read(1 << 18):
            copy.write(data)


def _trickle(plant: Plant, to: str) -> int:
    """Single INSERTs by pgbench; how many."""
    script = plant.pg.dir / "insert.sql"
    script.write_text(f"INSERT INTO {to} VALUES ('device-0001', 'site-01', now(), 20.5, 50);\n")
    printed = plant.pg.run(
        "pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(TRICKLE), "-f", script, plant.db.name
    )
    found = re.search(r"number of transactions actually processed: (\d+)", printed)
    assert found and "failed transactions: 0" in printed, printed
    return int(found[1])


def local(plant: Plant) -> list[dict[str, object]]:
    """Until the rows are in the view, or committed to the table."""
    plant.fill_table()
    plant.answer(TUMBLING)
    plant.db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")

    def insert(db: Database, to: str) -> int:
        db.execute(f"INSERT INTO {to} TABLE o")
        return plant.load.records

    def copy(db: Database, to: str) -> int:
        _copy(plant, db, to)
        return plant.load.records

    ways: dict[str, Callable[[Database, str], int]] = {
        "INSERT … SELECT": insert,
        "COPY": copy,
        f"single INSERTs, {CLIENTS} clients": lambda db, to: _trickle(plant, to),
    }
    found = []
    for way, run in ways.items():
        plant.restart()
        db = plant.db
        db.execute(f"CREATE UNLOGGED TABLE plain ({COLUMNS})")
        with plant.meter() as meter:
            records = run(db, "plain")
        found.append(_row(f"{way}: unlogged table", records, meter.cost))
        db.execute("DROP TABLE plain")
        plant.restart()
        db = plant.db
        db.execute(f"CREATE FOREIGN TABLE s ({COLUMNS}) SERVER here OPTIONS ({BY_TS})")
        db.execute(f"CREATE VIEW tumbling WITH (streamext.continuous) AS {TUMBLING.query.format(source='s')}")
        db.flush("s")
        with plant.meter() as meter:
            records = run(db, "s")
            db.flush("s")
        if records == plant.load.records:
            plant.verify_stream(db, (TUMBLING,))
        assert db.value("SELECT sum(n) FROM tumbling") == records
        db.execute("DROP FOREIGN TABLE s CASCADE")
        found.append(_row(f"{way}: local stream with a view", records, meter.cost))
    return found


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = ["| what | records | records/s | CPU-s per million | broker's | others % |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {r['what']} | {r['records']:,} | {r['rate']:,.0f} | {r['cpu']:.2f} | {r['broker']:.2f} | {r['others'] * 100:.0f} |" for r in results
    ]
    return "\n".join(lines)
