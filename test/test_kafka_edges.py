"""What Kafka does to a topic has a defined outcome, and one can see it."""

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous, is_alive, kafka_stream, state, worker_pid
from harness.wait import wait_for


def numbers(start: int, end: int, partitions: int = 1) -> list[Message]:
    return [Message(f'{{"a":{i}}}', i % partitions) for i in range(start, end)]


def count_stream(db: Database, kafka: Kafka, topic: str, options: str = "") -> None:
    kafka_stream(db, kafka, f"topic '{topic}'" + options, "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")


def events(db: Database, kind: str = "") -> list[tuple[str, str | None, int | None, int]]:
    found = db.rows("SELECT kind, topic, partition, missed FROM streamext.stream_events WHERE stream = 's'::regclass ORDER BY id")
    return [event for event in found if kind in ("", event[0])]


def last_error(db: Database) -> str:
    return db.value("SELECT last_error FROM streamext.streams") or ""


def pause_without_client(db: Database) -> None:
    """Pauses the stream and makes its worker forget what its client has fetched."""
    db.execute("SELECT streamext.pause('s')")
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    wait_for(lambda: not is_alive(pid), what="the end of the worker")
    worker_pid(db, besides=pid)


def delete_before(kafka: Kafka, topic: str, offset: int) -> None:
    kafka.admin.delete_records([TopicPartition(topic, 0, offset)])[TopicPartition(topic, 0)].result()


def test_records_gone_before_they_were_read(db: Database, kafka: Kafka, topic: str) -> None:
    """A gap is counted and told, and the stream goes on behind it."""
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 100))
    db.flush("s")
    pause_without_client(db)
    kafka.produce(topic, numbers(100, 200))
    delete_before(kafka, topic, 150)
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert db.rows("TABLE v") == [(150, sum(range(100)) + sum(range(150, 200)))]
    assert events(db, "gap") == [("gap", topic, 0, 50)]
    assert db.rows("SELECT position, rows_in, missed FROM streamext.stream_partitions") == [(200, 150, 50)]
    assert "offsets 100 to 149 are gone" in last_error(db)
    assert state(db) == "running"


def test_records_gone_after_they_were_read(db: Database, kafka: Kafka, topic: str) -> None:
    """No loss for the stream; a new view has what is left."""
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 100))
    db.flush("s")
    delete_before(kafka, topic, 100)
    pause_without_client(db)
    kafka.produce(topic, numbers(100, 120))
    db.execute("SELECT streamext.resume('s')")
    continuous(db, "w", "SELECT count(*) AS n FROM s")
    db.flush("s")
    assert db.rows("TABLE v") == [(120, sum(range(120)))]
    assert db.rows("TABLE w") == [(20,)]
    assert events(db, "gap") == []


def test_compacted_topic(db: Database, kafka: Kafka, topic: str) -> None:
    """Offsets that compaction has taken are no loss."""
    config = {"cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0"}
    kafka.create_topic(topic, config=config)
    kafka.produce(topic, [Message(f'{{"a":{i}}}', key=f"k{i % 10}") for i in range(1000)])
    consumer = kafka.consumer({"auto.offset.reset": "earliest", "enable.partition.eof": True})

    def kept() -> int:
        # a new segment makes the one before cleanable
        kafka.produce(topic, [Message('{"a":0}', key="other")])
        consumer.assign([TopicPartition(topic, 0, 0)])
        n = 0
        while not (message := wait_for(lambda: consumer.poll(1), what="the end of the topic")).error():
            n += 1
        return n

    wait_for(lambda: kept() < 500, what="compaction")
    consumer.close()
    count_stream(db, kafka, topic)
    db.flush("s")
    assert 0 < db.value("SELECT n FROM v") < 500
    assert state(db) == "running"
    assert events(db) == []


def test_topic_deleted(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    db.flush("s")
    kafka.delete_topic(topic)
    wait_for(lambda: state(db) == "stalled", what="state stalled")
    wait_for(lambda: "does not exist" in last_error(db), what="the reason")
    assert db.rows("TABLE v") == [(10, 45)]
    wait_for(lambda: events(db)[-1:] and events(db)[-1][0] == "stalled", what="the event")


@pytest.mark.parametrize("length", [5, 9, 10, 100])
@pytest.mark.parametrize("how", ["running", "stopped"])
def test_topic_made_anew(db: Database, kafka: Kafka, topic: str, length: int, how: str) -> None:
    """Shorter than what was read of the old one, as long, longer: never counted as its continuation."""
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    db.flush("s")
    if how == "stopped":
        pause_without_client(db)
    kafka.delete_topic(topic)
    if how == "running":
        wait_for(lambda: state(db) == "stalled", what="state stalled")
    kafka.create_topic(topic)
    kafka.produce(topic, numbers(1000, 1000 + length))
    if how == "stopped":
        db.execute("SELECT streamext.resume('s')")
    wait_for(lambda: state(db) == "diverged", what="state diverged")
    assert last_error(db).startswith("diverged: ")
    assert events(db, "diverged") == [("diverged", topic, 0, 0)]
    assert db.rows("TABLE v") == [(10, 45)]
    with pytest.raises(psycopg.Error, match="not the one read before"):
        db.flush("s")
    # it stays so over a restart of the worker
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    worker_pid(db, besides=pid)
    wait_for(lambda: state(db) == "diverged", what="state diverged again")
    db.execute("DROP FOREIGN TABLE s CASCADE")
    count_stream(db, kafka, topic)
    db.flush("s")
    assert db.value("SELECT n FROM v") == length


def test_the_same_topic_again(db: Database, kafka: Kafka, topic: str) -> None:
    """A new client finds the record that it knows."""
    kafka.create_topic(topic, partitions=2)
    count_stream(db, kafka, topic)
    for end in (100, 200, 300):
        kafka.produce(topic, numbers(end - 100, end, 2))
        db.flush("s")
        pid = worker_pid(db)
        db.execute("SELECT pg_terminate_backend(%s)", pid)
        worker_pid(db, besides=pid)
    continuous(db, "w", "SELECT count(*) AS n FROM s")
    db.flush("s")
    assert db.rows("SELECT v.n, total, w.n FROM v, w") == [(300, sum(range(300)), 300)]
    assert events(db) == []


def test_partitions_added_while_running(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    db.flush("s")
    kafka.admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    wait_for(lambda: len(kafka.end_offsets(topic)) == 3, what="the new partitions")
    kafka.produce(topic, numbers(10, 40, 3))
    db.flush("s")
    assert db.rows("TABLE v") == [(40, sum(range(40)))]


def test_aborted_transaction_at_the_end(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, numbers(0, 10))
    producer = kafka.producer({"transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    for i in range(100):
        producer.produce(topic, f'{{"a":{i}}}')
    producer.flush()
    producer.abort_transaction()
    count_stream(db, kafka, topic)
    db.flush("s")
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    worker_pid(db, besides=pid)
    db.flush("s")
    assert db.rows("TABLE v") == [(10, 45)]
    assert db.rows("SELECT position, high_watermark FROM streamext.stream_partitions") == [(111, 111)]
    assert events(db) == []


def test_more_than_is_fetched_ahead(db: Database, kafka: Kafka, topic: str) -> None:
    """Three times as long as the client's queue; paused, begun anew and by another worker in the midst of it."""
    n = 300_000
    kafka.create_topic(topic, 4)
    kafka.produce(topic, numbers(0, n, 4))
    count_stream(db, kafka, topic)
    wait_for(lambda: db.value("SELECT rows_in > 0 FROM streamext.streams"), what="records")
    db.execute("SELECT streamext.pause('s')")
    wait_for(lambda: state(db) == "paused", what="the pause")
    db.execute("SELECT streamext.resume('s')")
    db.execute("SELECT streamext.seek('s', 'earliest', rebuild => true)")
    wait_for(lambda: db.value("SELECT n > 0 FROM v"), what="records again")
    db.execute("SELECT pg_terminate_backend(%s)", worker_pid(db))
    db.flush("s")
    assert db.rows("TABLE v") == [(n, sum(range(n)))]
    assert events(db, "gap") == []


def test_tombstones(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, [Message(None, key="k"), *numbers(0, 10)])
    count_stream(db, kafka, topic)
    db.flush("s")
    assert db.rows("TABLE v") == [(10, 45)]
    assert db.rows("SELECT topic FROM streamext.dead_letters") == []
    assert db.value("SELECT tombstones FROM streamext.streams") == 1


def test_broker_away_for_a_while(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    db.flush("s")
    kafka.stop()
    wait_for(lambda: state(db) == "stalled", what="state stalled")
    assert last_error(db)
    kafka.start()
    kafka.produce(topic, numbers(10, 20))
    db.flush("s")
    assert db.rows("TABLE v") == [(20, 190)]
    assert state(db) == "running"
    wait_for(lambda: [event[0] for event in events(db)] == ["stalled", "recovered"], what="both events")


def test_offsets_are_committed_to_the_brokers_group(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, partitions=2)
    db.execute(
        f"CREATE SERVER kafka_server FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}', group_id '{topic}-group')"
    )
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 100, 2))
    db.flush("s")
    consumer = kafka.consumer({"group.id": f"{topic}-group"})
    partitions = [TopicPartition(topic, p) for p in range(2)]
    wait_for(lambda: [p.offset for p in consumer.committed(partitions, timeout=5)] == [50, 50], what="the committed offsets")
    consumer.close()


@pytest.mark.parametrize(
    "large, sqlstate, reason",
    [
        (Message('{"a":1}', key=b"k" * (16 * 1024 * 1024 + 1)), "54000", 'column "k": the key is larger than 16777216 bytes'),
        (Message('{"a":1}', headers=[("h", b"\1" * (16 * 1024 * 1024))]), "54000", 'column "h": the headers are larger than 16777216 bytes'),
        (Message('{"a":1}', headers=[("", None)] * 100_001), "22000", 'column "h": the headers cannot be read, or there are more than 100000'),
    ],
    ids=["key", "header", "headers"],
)  # fmt: skip
def test_a_record_with_more_than_its_payload(db: Database, kafka: Kafka, topic: str, large: Message, sqlstate: str, reason: str) -> None:
    """A key, and headers, have the bound that a payload has, however little of the topic they take; without a column they are not looked at."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, k bytea OPTIONS (metadata 'key'), h jsonb OPTIONS (metadata 'headers')")
    kafka_stream(db, kafka, f"topic '{topic}'", "a int", name="bare")
    continuous(db, "v", "SELECT count(*) FROM s")
    continuous(db, "w", "SELECT count(*) FROM bare")
    producer = kafka.producer({"compression.type": "gzip", "message.max.bytes": 200_000_000})
    producer.produce(topic, large.value, large.key, partition=0, headers=large.headers)
    producer.produce(topic, b'{"a":2}', b"k", partition=0, headers=[("h", b"1")])
    assert producer.flush(120) == 0
    db.flush("s", "bare")
    assert db.rows("TABLE v") == [(1,)] and db.rows("TABLE w") == [(2,)]
    assert db.rows("SELECT stream::text, sqlstate, reason, payload, key, headers FROM streamext.dead_letters") == [
        ("s", sqlstate, reason, b'{"a":1}', None, None)
    ]
    assert db.rows("SELECT a, k, h FROM s") == [(2, b"k", {"h": "1"})]


@pytest.mark.parametrize("compression", ["zstd", "gzip", "snappy", "lz4"])
def test_a_batch_that_unpacks_to_much(db: Database, kafka: Kafka, topic: str, compression: str) -> None:
    """1,400 lines of 100 kB that are some kB in the topic: the client's limits do not make good records look damaged."""
    kafka.create_topic(topic, config={"max.message.bytes": "20000000"})
    kafka_stream(db, kafka, f"topic '{topic}'", "a text", format="text")
    continuous(db, "v", "SELECT count(*) AS n, min(length(a)) AS least FROM s")
    producer = kafka.producer({
        "compression.type": compression, "linger.ms": 30_000, "batch.size": 200_000_000, "message.max.bytes": 200_000_000,
        "queue.buffering.max.kbytes": 1_000_000,
    })  # fmt: skip
    for _ in range(1400):
        producer.produce(topic, b"x" * 100_000, partition=0)
    assert producer.flush(120) == 0
    db.flush("s")
    assert db.rows("TABLE v") == [(1400, 100_000)]
    assert events(db) == []
    assert batches_within(db, 1400, 1400 * 100_000)


def batches_within(db: Database, records: int, size: int) -> bool:
    """Whether so many records of so many bytes in all came in as many batches as 64 MB each make of them."""
    found = db.value("SELECT value FROM streamext.metrics WHERE name = 'streamext_batch_seconds_count'")
    return db.value("SELECT rows_in FROM streamext.streams") == records and found >= size / (64 << 20)


def test_a_batch_with_long_headers(db: Database, kafka: Kafka, topic: str) -> None:
    """Their texts are up to six times as long: 194 kB of a topic made more than a gigabyte at once."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, h json OPTIONS (metadata 'headers')")
    continuous(db, "v", "SELECT count(*) AS n, count(h) AS headers FROM s")
    producer = kafka.producer({
        "compression.type": "zstd", "linger.ms": 30_000, "batch.size": 200_000_000, "message.max.bytes": 200_000_000,
        "queue.buffering.max.kbytes": 1_000_000,
    })  # fmt: skip
    for _ in range(36):
        producer.produce(topic, b'{"a":1}', partition=0, headers=[("h", b"x" * 4_000_000)])
    assert producer.flush(120) == 0
    db.flush("s")
    assert db.rows("TABLE v") == [(36, 36)]
    assert batches_within(db, 36, 36 * 4_000_000)
