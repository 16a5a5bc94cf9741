"""The other direction: Spark reads a view's closed windows by JDBC, in partitions by ranges of the window; make spark runs it."""

import json
from pathlib import Path

import pytest
from cluster import Cluster
from plant import COLUMNS, DEFINITIONS, make

from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, kafka_stream


@pytest.mark.timeout(1800)
def test_ranges_of_closed_windows(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, 4)
    kafka.produce(topic, make(5000)[0])
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS)
    continuous(db, "tumble", DEFINITIONS["tumble"].format(source="s"))
    db.flush("s")
    with Cluster() as cluster:
        application = cluster.submit(Path(__file__).with_name("read_view.py"), f"jdbc:postgresql://127.0.0.1:{db.server.port}/{db.name}")
        assert application.wait(600) == 0, application.log()[-4000:]
        (found,) = (line for line in application.log().splitlines() if line.startswith("FOUND "))
    count, n, mean, partitions = json.loads(found.removeprefix("FOUND "))
    expected = db.rows("SELECT count(*), sum(n)::bigint, sum(mean) FROM tumble WHERE w >= '2024-05-01 12:00Z' AND w < '2024-05-01 12:05Z'")[0]
    assert (count, n, partitions) == (*expected[:2], 5)
    assert count > 500 and abs(mean - expected[2]) < 1e-6 * abs(expected[2])
