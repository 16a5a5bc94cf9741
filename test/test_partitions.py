"""The table option partitions: servers that share a topic, each with partitions of its own."""

from collections.abc import Iterator

import psycopg
import pytest
from confluent_kafka.admin import NewPartitions

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.streams import continuous, error_of, kafka_stream
from harness.wait import wait_for


@pytest.fixture
def servers(db: Database) -> Iterator[list[Database]]:
    """Two."""
    with Postgres() as other:
        other.psql("CREATE EXTENSION streamext")
        yield [db, Database(other, "postgres")]


def numbers(start: int, end: int, partitions: int) -> list[Message]:
    return [Message(f'{{"a":{i}}}', i % partitions) for i in range(start, end)]


def count_stream(db: Database, kafka: Kafka, topic: str, options: str) -> None:
    kafka_stream(db, kafka, f"topic '{topic}', {options}", "a bigint, part int OPTIONS (metadata 'partition')")
    continuous(db, "v", "SELECT part, count(*) AS n, sum(a)::bigint AS total FROM s GROUP BY part")


def partitions(db: Database) -> list[int]:
    return [p for (p,) in db.rows("SELECT partition FROM streamext.stream_partitions ORDER BY partition")]


@pytest.mark.parametrize("workers", [(1, 1), (2, 3)])
def test_two_servers_share_a_topic(servers: list[Database], kafka: Kafka, topic: str, workers: tuple[int, int]) -> None:
    """Each record is counted by one of them, also those of partitions that come later."""
    kafka.create_topic(topic, 5)
    for i, db in enumerate(servers):
        count_stream(db, kafka, topic, f"partitions '{i}/2', workers '{workers[i]}'")
    kafka.produce(topic, numbers(0, 1000, 5))
    for i, db in enumerate(servers):
        db.flush("s")
        assert partitions(db) == list(range(i, 5, 2))
        assert db.rows("SELECT rows_in, lag_rows, partitions FROM streamext.streams") == [(200 * len(range(i, 5, 2)), 0, f"{i}/2")]
    kafka.admin.create_partitions([NewPartitions(topic, 8)])[topic].result()
    wait_for(lambda: len(kafka.end_offsets(topic)) == 8, what="the partitions")
    kafka.produce(topic, numbers(1000, 2000, 8))
    expected = [(p, [*(n for n in range(1000) if n % 5 == p), *(n for n in range(1000, 2000) if n % 8 == p)]) for p in range(8)]
    found: list[tuple[int, int, int]] = []
    for i, db in enumerate(servers):
        db.flush("s")
        assert partitions(db) == list(range(i, 8, 2))
        shards = db.rows("SELECT shard, count(*) FROM streamext.stream_partitions GROUP BY shard ORDER BY shard")
        assert len(shards) == workers[i] and max(n for _, n in shards) - min(n for _, n in shards) <= 1
        found += db.rows("TABLE v")
    assert sorted(found) == [(p, len(ns), sum(ns)) for p, ns in expected]


def test_seek(db: Database, kafka: Kafka, topic: str) -> None:
    """Of a partition that another server has there is none."""
    kafka.create_topic(topic, 3)
    count_stream(db, kafka, topic, "partitions '1/2'")
    kafka.produce(topic, numbers(0, 300, 3))
    db.flush("s")
    assert db.rows("TABLE v") == [(1, 100, sum(range(1, 300, 3)))]
    with pytest.raises(psycopg.Error) as error:
        db.execute("SELECT streamext.seek('s', %s, 0, 5)", topic)
    assert error_of(error)[0] == "22023"
    db.execute("SELECT streamext.seek('s', %s, 1, 50, rebuild => true)", topic)
    db.flush("s")
    assert db.rows("TABLE v") == [(1, 50, sum(range(151, 300, 3)))]
    assert db.rows("SELECT partition, next_offset FROM streamext.view_positions('v')") == [(1, 100)]


def test_what_is_refused(db: Database, kafka: Kafka, topic: str) -> None:
    for value in ("", "1", "2/2", "0/0", "-1/2", "1/2/3", "a/b", "1 / 2", "0/1000000000000"):
        with pytest.raises(psycopg.Error) as error:
            count_stream(db, kafka, topic, f"partitions '{value}'")
        assert error_of(error)[0] == "HV024", value
    kafka.create_topic(topic, 3)
    count_stream(db, kafka, topic, "partitions '0/1'")
    db.flush("s")
    assert partitions(db) == [0, 1, 2]
    with pytest.raises(psycopg.Error) as error:
        db.execute("ALTER FOREIGN TABLE s OPTIONS (SET partitions '0/2')")
    assert error_of(error)[0] == "55006" or error_of(error)[2]
    db.execute("DROP VIEW v")
    db.execute("ALTER FOREIGN TABLE s OPTIONS (SET partitions '1/2')")
    db.flush("s")
    assert partitions(db) == [1]
