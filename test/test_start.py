"""Where a stream begins is decided once: no crash has it decided again."""

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import NewPartitions

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.postgres import IMMEDIATE, Postgres
from harness.streams import continuous, kafka_stream
from harness.wait import wait_for

OLD = 1_000_000_000_000  # milliseconds: long before any start


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Of this module's own: it is crashed, and what is committed asynchronously is on disk much later."""
    with Postgres(settings={"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}) as server:
        server.psql("CREATE EXTENSION streamext")
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    yield Database(server, "postgres")
    db = Database(server, "postgres")
    db.execute("DROP SERVER kafka_server CASCADE")
    wait_for(lambda: not db.rows("TABLE streamext.workers"), what="the end of the worker")


def numbers(start: int, end: int, partition: int = 0) -> list[Message]:
    return [Message(f'{{"a":{i}}}', partition, timestamp=OLD + i) for i in range(start, end)]


def count_stream(db: Database, kafka: Kafka, topic: str, start: str) -> None:
    kafka_stream(db, kafka, f"topic '{topic}', start '{start}'", "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, min(a) AS first, max(a) AS last FROM s")
    db.flush("s")


def crash(db: Database) -> Database:
    db.server.restart(IMMEDIATE)
    return Database(db.server, db.name)


def add_partition(kafka: Kafka, topic: str) -> None:
    kafka.admin.create_partitions([NewPartitions(topic, 2)])[topic].result()
    wait_for(lambda: len(kafka.end_offsets(topic)) == 2, what="the partition")


STARTS = pytest.mark.parametrize("start", ["latest", "2020-01-01"])


@STARTS
def test_a_crash_soon_after_the_start(database: Database, kafka: Kafka, topic: str, start: str) -> None:
    """Also where the time is behind the last record of that moment."""
    db = database
    kafka.create_topic(topic)
    kafka.produce(topic, numbers(0, 100))
    count_stream(db, kafka, topic, start)
    kafka.produce(topic, numbers(100, 200))
    db.flush("s")
    assert db.rows("TABLE v") == [(100, 100, 199)]
    db = crash(db)
    kafka.produce(topic, numbers(200, 250))
    db.flush("s")
    assert db.rows("TABLE v") == [(150, 100, 249)]
    continuous(db, "later", "SELECT count(*) AS n, min(a) AS first, max(a) AS last FROM s")
    db.flush("s")
    assert db.rows("TABLE later") == [(150, 100, 249)]


@STARTS
def test_a_crash_soon_after_a_partition_was_added(database: Database, kafka: Kafka, topic: str, start: str) -> None:
    """It is read from its beginning."""
    db = database
    kafka.create_topic(topic)
    count_stream(db, kafka, topic, start)
    add_partition(kafka, topic)
    kafka.produce(topic, numbers(0, 100, 1))
    db.flush("s")
    assert db.rows("TABLE v") == [(100, 0, 99)]
    db = crash(db)
    kafka.produce(topic, numbers(100, 150, 1))
    db.flush("s")
    assert db.rows("TABLE v") == [(150, 0, 149)]


@STARTS
def test_a_partition_that_was_added_while_the_server_was_away(database: Database, kafka: Kafka, topic: str, start: str) -> None:
    """It is no older than the stream."""
    db = database
    kafka.create_topic(topic)
    kafka.produce(topic, numbers(0, 10))
    count_stream(db, kafka, topic, start)
    db.server.stop()
    add_partition(kafka, topic)
    kafka.produce(topic, numbers(100, 150, 1))
    db.server.start()
    db = Database(db.server, db.name)
    db.flush("s")
    assert db.rows("TABLE v") == [(50, 100, 149)]
