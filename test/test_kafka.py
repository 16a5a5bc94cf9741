"""Kafka end to end: what was produced is what the views hold, whatever happens in between."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from confluent_kafka.admin import NewPartitions

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.sensors import START, Plant, Reading
from harness.streams import BY_TS, assert_views, continuous, counts, create_views, kafka_stream, state, table_of
from harness.wait import wait_for

NOW = START + timedelta(minutes=10)


@pytest.fixture
def clock(db: Database) -> Iterator[None]:
    """The clock of windows stands at NOW."""
    db.execute("SELECT streamext.set_clock(%s)", NOW)
    yield
    db.execute("SELECT streamext.set_clock(NULL)")


def messages(readings: list[Reading], partitions: int) -> list[Message]:
    """All readings of a device in one partition."""
    return [Message(reading.json(), int(reading.device[-4:]) % partitions) for reading in readings]


def numbers(start: int, end: int, partitions: int = 1) -> list[Message]:
    return [Message(f'{{"a":{i}}}', i % partitions) for i in range(start, end)]


def positions(db: Database, view: str) -> dict[int, int]:
    return dict(db.rows("SELECT partition, next_offset FROM streamext.view_positions(%s)", view))


def count_stream(db: Database, kafka: Kafka, topic: str, options: str = "", name: str = "s") -> None:
    """A stream of {"a": number} and the view v_<name> (n, total)."""
    kafka_stream(db, kafka, f"topic '{topic}'" + options, "a bigint", name)
    continuous(db, f"v_{name}", f"SELECT count(*) AS n, sum(a)::bigint AS total FROM {name}")


def assert_counted(db: Database, start: int, end: int, view: str = "v_s") -> None:
    """Each of the numbers is counted, once."""
    assert db.rows(f"TABLE {view}") == [(end - start, sum(range(start, end)))]


def test_views_hold_postgresqls_own_answer(db: Database, kafka: Kafka, topic: str, clock: None) -> None:
    kafka.create_topic(topic, partitions=3)
    readings = list(Plant(devices=60, sites=7).readings(12_000))
    kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}")
    create_views(db)
    kafka.produce(topic, messages(readings[:7000], 3))
    db.flush("s")
    kafka.produce(topic, messages(readings[7000:], 3))
    db.flush("s")
    table_of(db, readings)
    assert_views(db, "o", NOW)
    rows = db.rows("SELECT view::text, accepted, late, rejected FROM streamext.continuous_views")
    assert {row[1:] for row in rows} == {(len(readings), 0, 0)}, rows


def test_views_created_over_data_and_while_others_run(db: Database, kafka: Kafka, topic: str, clock: None) -> None:
    kafka.create_topic(topic, partitions=2)
    readings = list(Plant(devices=20, sites=3).readings(5000))
    kafka.produce(topic, messages(readings[:4000], 2))
    kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}")
    create_views(db, views={"early": "SELECT device, count(*) AS n FROM {source} GROUP BY device"})
    db.flush("s")
    assert db.value("SELECT sum(n) FROM early") == 4000
    create_views(db)
    kafka.produce(topic, messages(readings[4000:], 2))
    db.flush("s")
    table_of(db, readings)
    assert_views(db, "o", NOW)
    assert_views(db, "o", views={"early": "SELECT device, count(*) FROM {source} GROUP BY device"})


def test_late_rows_are_counted_as_late(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}", "ts timestamptz, a int")
    continuous(db, "v", "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "lenient", "SELECT streamext.tumble('10 s', ts), count(*) FROM s GROUP BY 1", ", streamext.lateness='1 h'")
    continuous(db, "total", "SELECT count(*) AS n FROM s")

    def produce(*seconds: int) -> None:
        kafka.produce(topic, [json.dumps({"ts": str(START + timedelta(seconds=at)), "a": 1}) for at in seconds])
        db.flush("s")

    produce(0, 12, 24)  # the watermark is at 19 s: the window of 0 s is closed, that of 10 s is not
    produce(9, 10, 14)
    assert db.rows("SELECT extract(epoch FROM w - %s)::int, n FROM v ORDER BY w", START) == [(0, 1), (10, 3), (20, 1)]
    assert counts(db, "v") == (5, 1, 0)
    assert counts(db, "lenient") == counts(db, "total") == (6, 0, 0)


def test_metadata_columns(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, partitions=2)
    kafka.produce(topic, [
        Message('{"a":1}', 1, "k1", 1714564800123, [("h", b"v"), ("unit", "°C")]),
        Message('{"a":2}', 1, None, 1714564801000),
        Message('{"a":3}', 0, b"k3", 1714564802000),
    ])  # fmt: skip
    names = {
        "part": "partition", "pos": "offset", "key": "key", "at": "timestamp", "headers": "headers", "topic": "topic"
    }  # fmt: skip
    types = ["int", "bigint", "text", "timestamptz", "jsonb", "text"]
    columns = ", ".join(f"{name} {type} OPTIONS (metadata '{names[name]}')" for name, type in zip(names, types))
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'at'", f"a int, {columns}")
    continuous(db, "v", f"SELECT a, {', '.join(names)}, streamext.tumble('1 s', at) AS w, count(*) AS n "
                        f"FROM s GROUP BY a, {', '.join(names)}, w")  # fmt: skip
    db.flush("s")
    expected = [
        (1, 1, 0, "k1", 1714564800123, {"h": "v", "unit": "°C"}, topic, 1714564800000),
        (2, 1, 1, None, 1714564801000, None, topic, 1714564801000),
        (3, 0, 0, "k3", 1714564802000, None, topic, 1714564802000),
    ]
    milliseconds = "(extract(epoch FROM {}) * 1000)::bigint"
    found = db.rows(f"""SELECT a, part, pos, key, {milliseconds.format('at')}, nullif(headers, '{{}}'), topic,
        {milliseconds.format('w')} FROM v ORDER BY a""")
    assert found == expected
    buffered = db.rows(f"SELECT a, part, pos, key, {milliseconds.format('at')}, topic FROM s ORDER BY a")
    assert buffered == [row[:5] + row[6:7] for row in expected]


def test_where_the_value_stands_in_the_payload(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, ['{"a": {"b": [1, {"c": 7.5}]}, "x y": "é", "t": "12", "on": true, "n": null}'])
    kafka_stream(db, kafka, f"topic '{topic}'", """c numeric OPTIONS (path '$.a.b[1].c'), first smallint OPTIONS (path 'a.b[0]'),
        "x y" text, number int OPTIONS (path 't'), "on" bool, n text, missing int, list jsonb OPTIONS (path 'a.b'),
        doc json OPTIONS (path '$')""")
    continuous(db, "v", """SELECT c, first, "x y", number, "on", n, missing, list, (doc->>'t') AS t, count(*) FROM s
        GROUP BY c, first, "x y", number, "on", n, missing, list, t""")
    db.flush("s")
    found = db.rows('SELECT c::text, first, "x y", number, "on", n, missing, list, t, count FROM v')
    assert found == [("7.5", 1, "é", 12, True, None, None, [1, {"c": 7.5}], "12", 1)]
    assert db.rows("SELECT c::text, list, doc->'a'->'b' FROM s") == [("7.5", [1, {"c": 7.5}], [1, {"c": 7.5}])]


@pytest.mark.parametrize(
    "format, type, value, expected",
    [
        ("text", "text", "a\tb", "a\tb"),
        ("text", "numeric", "1.50", "1.50"),
        ("text", "timestamptz", "2024-05-01 12:00+00", "2024-05-01 12:00:00+00"),
        ("raw", "bytea", b"\x00\xff{", "\\x00ff7b"),
    ],
)
def test_text_and_raw(
    db: Database, kafka: Kafka, topic: str, format: str, type: str, value: bytes | str, expected: str
) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, [value, value])
    kafka_stream(db, kafka, f"topic '{topic}'", f"a {type}, part int OPTIONS (metadata 'partition')", format=format)
    continuous(db, "v", "SELECT a, count(*) AS n FROM s GROUP BY a")
    db.flush("s")
    db.execute("SET timezone = 'UTC'")
    assert db.rows("SELECT a::text, n FROM v") == [(expected, 2)]
    assert db.rows("SELECT DISTINCT a::text FROM s") == [(expected,)]


@pytest.mark.parametrize(
    "start, counted",
    [("earliest", 7), ("latest", 2), ("1970-01-01 00:00:02+00", 5), ("2001-01-01", 2), ("1960-01-01", 7), ("294276-12-31", 2)],
)
def test_start(db: Database, kafka: Kafka, topic: str, start: str, counted: int) -> None:
    kafka.create_topic(topic, partitions=2, config={"retention.ms": "-1"})  # the timestamps are of 1970
    kafka.produce(topic, [Message('{"a":1}', p, timestamp=ms) for p, ms in
                          [(0, 1000), (0, 2000), (0, 3000), (1, 1999), (1, 2000)]])  # fmt: skip
    count_stream(db, kafka, topic, f", start '{start}'")
    db.flush("s")
    kafka.produce(topic, [Message('{"a":1}', 0), Message('{"a":1}', 1)])
    db.flush("s")
    assert db.rows("TABLE v_s") == [(counted, counted)]


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_broker_restart_while_publishing(db: Database, kafka: Kafka, topic: str, how: str) -> None:
    """The stream says that it is stalled, goes on by itself, and nothing is lost or counted twice."""
    kafka.create_topic(topic, partitions=3)
    count_stream(db, kafka, topic)
    total, half = 20_000, threading.Event()

    def publish() -> None:
        producer = kafka.producer({"enable.idempotence": True})
        for i in range(total):
            producer.produce(topic, f'{{"a":{i}}}', partition=i % 3)
            producer.poll(0)
            if i == total // 2:
                producer.flush()
                half.set()
        producer.flush()

    publisher = threading.Thread(target=publish)
    publisher.start()
    half.wait()
    getattr(kafka, how)()
    wait_for(lambda: state(db) == "stalled", what="state stalled")
    kafka.start()
    publisher.join()
    db.flush("s")
    assert_counted(db, 0, total)
    assert sum(kafka.end_offsets(topic).values()) == total
    assert state(db) == "running"


def test_topic_created_later(db: Database, kafka: Kafka, topic: str) -> None:
    count_stream(db, kafka, topic)
    assert db.rows("TABLE v_s") == [(0, None)]
    kafka.create_topic(topic, partitions=2)
    kafka.produce(topic, numbers(0, 10, 2))
    wait_for(lambda: db.value("SELECT n FROM v_s") == 10, what="the rows of the new topic")
    db.flush("s")
    assert_counted(db, 0, 10)


@pytest.mark.slow
def test_partitions_added(db: Database, kafka: Kafka, topic: str) -> None:
    """Also under start latest: what comes into a new partition was never there before."""
    kafka.create_topic(topic, partitions=1)
    count_stream(db, kafka, topic)
    count_stream(db, kafka, topic, ", start 'latest'", "latest")
    kafka.produce(topic, numbers(0, 10))
    db.flush("s", "latest")
    kafka.admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    wait_for(lambda: len(kafka.end_offsets(topic)) == 3, what="the new partitions")
    kafka.produce(topic, numbers(10, 40, 3))
    wait_for(lambda: db.value("SELECT n FROM v_s") == 40, what="the rows of the new partitions")
    wait_for(lambda: db.value("SELECT n FROM v_latest") >= 30, what="the rows of the new partitions")
    assert_counted(db, 0, 40)
    assert positions(db, "v_s") == kafka.end_offsets(topic)


def test_two_topics_in_one_stream(db: Database, kafka: Kafka, topic: str) -> None:
    others = [f"{topic}-a", f"{topic}-b"]
    for name in others:
        kafka.create_topic(name, partitions=2)
        kafka.produce(name, numbers(0, 10, 2))
    kafka_stream(db, kafka, f"topics '{', '.join(others)}'", "a int, origin text OPTIONS (metadata 'topic')")
    continuous(db, "v", "SELECT origin, count(*) AS n, sum(a) AS total FROM s GROUP BY origin")
    kafka.produce(others[1], numbers(10, 15, 2))
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [(others[0], 10, 45), (others[1], 15, 105)]


def test_transactions(db: Database, kafka: Kafka, topic: str) -> None:
    """Aborted messages do not count, and flush gets over the markers at the end of the log."""
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    producer = kafka.producer({"transactional.id": topic})
    producer.init_transactions()
    for commit, first in ((True, 0), (False, 100), (True, 10)):
        producer.begin_transaction()
        for i in range(first, first + 10):
            producer.produce(topic, f'{{"a":{i}}}')
        producer.flush()
        producer.commit_transaction() if commit else producer.abort_transaction()
        db.flush("s")
    # a commit is visible to readers when the broker has written its marker, a moment after the producer was told
    wait_for(lambda: (db.flush("s"), db.value("SELECT n FROM v_s"))[1] == 20, what="the last commit's marker")
    assert_counted(db, 0, 20)


def test_positions_and_lag(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, partitions=3)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 100, 2))
    db.flush("s")
    assert positions(db, "v_s") == kafka.end_offsets(topic) == {0: 50, 1: 50, 2: 0}
    assert db.rows("SELECT rows_in, lag_rows, rejected, state FROM streamext.streams") == [(100, 0, 0, "running")]
    partitions = db.rows("SELECT topic, partition, position, high_watermark, last_arrival IS NULL FROM streamext.stream_partitions ORDER BY 2")
    assert partitions == [(topic, 0, 50, 50, False), (topic, 1, 50, 50, False), (topic, 2, 0, 0, True)]


def test_pause_and_resume(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    wait_for(lambda: state(db) == "paused", what="state paused")
    kafka.produce(topic, numbers(10, 30))
    with pytest.raises(psycopg.Error, match="paused"):
        db.flush("s")
    assert_counted(db, 0, 10)
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert_counted(db, 0, 30)
    assert state(db) == "running"


def test_lag_of_a_paused_stream(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    count_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    wait_for(lambda: state(db) == "paused", what="state paused")
    kafka.produce(topic, numbers(10, 30))
    wait_for(lambda: db.value("SELECT lag_rows FROM streamext.streams") == 20, what="the lag")


def test_the_buffer_keeps_the_last_records(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', buffer_size '100'", "a int")
    kafka.produce(topic, [*numbers(0, 1000), Message("not json"), *numbers(1000, 1010)])
    db.flush("s")
    found = [a for (a,) in db.rows("SELECT a FROM s")]
    assert found == list(range(1010 - len(found), 1010))
    assert 50 <= len(found) <= 100
    assert db.value("SELECT max(a) FROM s WHERE a < 1005") == 1004


def test_a_large_record(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, [json.dumps({"a": 1, "t": "x" * 900_000}), '{"a":2,"t":"y"}'])
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, t text")
    continuous(db, "v", "SELECT sum(length(t)) AS n, max(t) AS t FROM s")
    db.flush("s")
    assert db.rows("TABLE v") == [(900_001, "y")]


def test_another_broker_is_away_from_the_beginning(db: Database, kafka: Kafka) -> None:
    """DDL does not wait for the network; the state says what is wrong."""
    db.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:9')")
    db.execute("CREATE FOREIGN TABLE s (a int) SERVER nowhere OPTIONS (topic 't', format 'json')")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    assert db.rows("TABLE v") == [(0,)]
    wait_for(lambda: state(db) == "stalled", what="state stalled")
    assert db.value("SELECT last_error FROM streamext.streams")
    db.execute("ALTER SERVER nowhere OPTIONS (SET brokers %s)" % f"'{kafka.brokers}'")
    kafka.create_topic("t")
    kafka.produce("t", numbers(0, 3))
    wait_for(lambda: db.value("SELECT n FROM v") == 3, what="the rows")
