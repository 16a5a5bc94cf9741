"""make spark-demo: a running view is handed to Spark and taken back, while records come and the view is read all the time."""

import json
import sys
import threading
import time
from datetime import UTC, datetime

from cluster import RUNNER, Cluster

from harness.database import temporary_database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream
from harness.wait import wait_for

VIEW = "SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean FROM {} GROUP BY device, w"


class Plant(threading.Thread):
    """About 500 records a second."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(daemon=True)
        self.kafka, self.sent, self.ending = kafka, 0, threading.Event()

    def run(self) -> None:
        while not self.ending.wait(0.2):
            at = datetime.now(UTC).isoformat()
            self.kafka.produce("plant", [Message(json.dumps({"device": f"d{i % 20}", "ts": at, "temperature": i / 10}), i % 2) for i in range(100)])
            self.sent += 100


def main() -> int:
    with Postgres() as server, Kafka() as kafka, Cluster() as cluster, temporary_database(server) as db:
        kafka.create_topic("plant", 2)
        kafka_stream(db, kafka, "topic 'plant', event_time 'ts', watermark_delay '1 h'", "device text, ts timestamptz, temperature float8")
        continuous(db, "device_10s", VIEW.format("s"))
        plant = Plant(kafka)
        plant.start()
        shown = 0.0

        def count() -> int:
            nonlocal shown
            began = time.monotonic()
            n = db.value("SELECT coalesce(sum(n), 0)::bigint FROM device_10s")
            if time.monotonic() - shown > 1:
                shown = time.monotonic()
                print(f"  {plant.sent:7} sent  {n:7} in the view  read in {(time.monotonic() - began) * 1000:.1f} ms", flush=True)
            return n

        def reaches(what: str) -> None:
            goal = plant.sent + 1000
            wait_for(lambda: count() >= goal, 600, what)

        print("PostgreSQL computes device_10s")
        reaches("the view")
        print("SELECT streamext.export('device_10s', 'spark'); the job starts, and counts from where the view is")
        db.execute("SELECT streamext.export('device_10s', 'spark')")
        job = cluster.submit(RUNNER, "--pg", f"host={server.dir} port={server.port} user=postgres dbname={db.name}", "--view", "device_10s")
        reaches("Spark")
        print("  ", db.rows("SELECT engine, state, delivered, accepted, late, rejected, round(merge_ms) FROM streamext.exports"))
        print("SELECT streamext.import('device_10s'); PostgreSQL goes on from where the job is, and the job ends by itself")
        db.execute("SELECT streamext.import('device_10s')")
        reaches("PostgreSQL again")
        print("   the job's exit code:", wait_for(lambda: None if job.is_running() else str(job.process.returncode), 300, "the job's end"))
        plant.ending.set()
        plant.join()
        db.flush("s")
        print(f"{plant.sent} sent, {count()} in the view")
        return int(count() != plant.sent)


if __name__ == "__main__":
    sys.exit(main())
