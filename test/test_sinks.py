"""streamext.into of streams: what views make flows on into local streams, and out to other systems."""

import hmac
import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError, TopicPartition
from crash.faults import kill_all
from harness.database import Database
from harness.faults import commit_once, reconnect, set_fault, until_quiet, wait_for_crash
from harness.hook import Hook
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.streams import continuous, kafka_stream, local_stream, mqtt_stream, worker_pid
from harness.wait import wait_for

COLUMNS = "k int, x int, ts timestamptz"
BY_TS = "event_time 'ts', watermark_delay '5 s'"
BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
MINUTES = "SELECT k, streamext.tumble('10 s', ts) + interval '10 s' AS ts, count(*) AS n, sum(x) AS total FROM {source} GROUP BY k, streamext.tumble('10 s', ts)"

SETTINGS = {"streamext.checkpoint_interval": 200}
TIMEZONE = "UTC"


def rows(rng: random.Random, count: int, begin: float, seconds: float) -> list[tuple[int, int, datetime]]:
    """Times grow, but for up to 4 s, so that nothing is late."""
    return [
        (rng.randrange(5), rng.randrange(10), BEGIN + timedelta(milliseconds=int(1000 * (begin + seconds * i / count - 4 * rng.random()))))
        for i in range(count)
    ]


def insert(db: Database, table: str, values: list[tuple[int, int, datetime]]) -> None:
    with db.connection.cursor() as cursor, cursor.copy(f"COPY {table} (k, x, ts) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)


def chain(db: Database) -> None:
    """s -> each row into `doubled` -> sums of it; s -> closed windows into `minutes` -> their sums, and their rows into `large`."""
    local_stream(db, BY_TS, COLUMNS)
    local_stream(db, "", "k int, twice bigint NOT NULL", name="doubled")
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, n bigint, total bigint", name="minutes")
    local_stream(db, "", "k int, total bigint", name="large")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    continuous(db, "double_rows", "SELECT k, 2 * x AS twice FROM s WHERE x <> 3", ", streamext.into = 'doubled'")
    continuous(db, "by_k", "SELECT k, count(*) AS n, sum(twice) AS total FROM doubled GROUP BY k")
    continuous(db, "make_minutes", MINUTES.format(source="s"), ", streamext.into = 'minutes'")
    continuous(db, "of_minutes", "SELECT k, count(*) AS windows, sum(n) AS n, sum(total) AS total FROM minutes GROUP BY k")
    continuous(db, "large_minutes", "SELECT k, total FROM minutes WHERE total > 40", ", streamext.into = 'large'")
    continuous(db, "of_large", "SELECT k, count(*) AS n, max(total) AS most FROM large GROUP BY k")


def assert_chain(db: Database) -> None:
    """As PostgreSQL computes it from the rows of o, of windows that are closed."""
    until = db.value("SELECT max(ts) - interval '5 s' FROM o")
    closed = f"SELECT * FROM ({MINUTES.format(source='o')}) q WHERE ts <= '{until}'"
    db.assert_same("TABLE by_k", "SELECT k, count(*), sum(2 * x) FROM o WHERE x <> 3 GROUP BY k")
    db.assert_same("TABLE of_minutes", f"SELECT k, count(*), sum(n), sum(total) FROM ({closed}) c GROUP BY k")
    db.assert_same("TABLE of_large", f"SELECT k, count(*), max(total) FROM ({closed}) c WHERE total > 40 GROUP BY k")


def test_rows_and_closed_windows_flow_on_and_flush_waits_for_what_follows(database: Database) -> None:
    db = database
    chain(db)
    rng = random.Random(1)
    for step in range(5):
        values = rows(rng, 400, 30 * step, 30)
        insert(db, "s", values)
        insert(db, "o", values)
        db.flush("s")
        assert_chain(db)


@pytest.mark.parametrize("fault", ["into-before-commit", "into-after-commit", "batch-before-commit", "batch-after-commit", "checkpoint-after-cut"])
def test_what_flows_on_comes_once_whatever_crashes(database: Database, fault: str) -> None:
    db = database
    server = db.server
    chain(db)
    rng = random.Random(fault)
    for step in range(4):
        if step in (1, 2):
            before = set_fault(db, fault if step == 1 else "none")
        values = rows(rng, 400, 30 * step, 30)
        for at in range(0, len(values), 50):
            commit_once(db, "o", partial(insert_into_both, db, values[at : at + 50]))
        if step == 1:
            until_quiet(db)
            wait_for_crash(db, fault, before)  # the flush may have been through before it
        if step == 2:
            kill_all(server)
            server.start()
            reconnect(db)
    until_quiet(db)
    assert_chain(db)


def test_a_circle_is_refused(db: Database) -> None:
    for name in ("a", "b", "c"):
        local_stream(db, columns="k int", name=name)
    refused = 'streamext.into of view "v" closes a circle'
    with pytest.raises(psycopg.Error) as error:
        continuous(db, "v", "SELECT k FROM a", ", streamext.into = 'a'")
    assert error.value.sqlstate == "42P17" and refused in str(error.value)
    continuous(db, "ab", "SELECT k FROM a", ", streamext.into = 'b'")
    continuous(db, "bc", "SELECT k FROM b", ", streamext.into = 'c'")
    with pytest.raises(psycopg.Error) as error:
        continuous(db, "v", "SELECT k FROM c", ", streamext.into = 'a'")
    assert error.value.sqlstate == "42P17" and refused in str(error.value)
    # nor by replacing a view that was none
    db.execute("CREATE TABLE t (k int)")
    continuous(db, "v", "SELECT k FROM c", ", streamext.into = 't'")
    with pytest.raises(psycopg.Error) as error:
        db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous, streamext.into = 'a') AS SELECT k FROM c")
    assert error.value.sqlstate == "42P17" and refused in str(error.value)
    db.execute("INSERT INTO a VALUES (1), (2)")
    db.flush("a")
    assert db.rows("SELECT k FROM t ORDER BY k") == [(1,), (2,)]


def test_two_transactions_cannot_close_a_circle_together(db: Database) -> None:
    local_stream(db, columns="k int", name="a")
    local_stream(db, columns="k int", name="b")
    with db.connect(autocommit=False) as first, db.connect(autocommit=False) as second:
        first.execute("CREATE VIEW ab WITH (streamext.continuous, streamext.into = 'b') AS SELECT k FROM a")
        second.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("CREATE VIEW ba WITH (streamext.continuous, streamext.into = 'a') AS SELECT k FROM b")
        second.rollback()
        first.commit()
        with pytest.raises(psycopg.Error, match="closes a circle"):
            second.execute("CREATE VIEW ba WITH (streamext.continuous, streamext.into = 'a') AS SELECT k FROM b")


def test_a_row_that_the_next_stream_refuses_is_rejected_there_and_the_target_is_kept(db: Database) -> None:
    local_stream(db, columns="k int, x int")
    local_stream(db, columns="k int, x int NOT NULL", name="t")
    continuous(db, "v", "SELECT k, x FROM s", ", streamext.into = 't'")
    continuous(db, "n", "SELECT count(*) AS n, sum(k) AS total FROM t")
    db.execute("INSERT INTO s VALUES (1, 1), (2, NULL), (3, 3)")
    db.flush("s")
    assert db.rows("TABLE n") == [(2, 4)]
    # what a stream refuses is its own dead letter, whoever has put it in
    assert db.rows("SELECT view, accepted, rejected FROM streamext.continuous_views ORDER BY view") == [("v", 3, 0), ("n", 2, 1)]
    assert db.rows("SELECT stream, sqlstate FROM streamext.dead_letters") == [("t", "23502")]
    assert "depends on" in db.refusal("DROP FOREIGN TABLE t")


def test_flush_says_when_what_follows_does_not_get_on(db: Database) -> None:
    local_stream(db, columns="k int")
    local_stream(db, columns="k int", name="t")
    continuous(db, "v", "SELECT k FROM s", ", streamext.into = 't'")
    continuous(db, "n", "SELECT count(*) FROM t")
    db.execute("SELECT streamext.pause('t')")
    db.execute("INSERT INTO s VALUES (1)")
    with pytest.raises(psycopg.Error, match='stream "t" is paused'):
        db.flush("s")
    db.execute("SELECT streamext.resume('t')")
    db.flush("s")
    assert db.value("TABLE n") == 1


def test_a_new_view_of_a_kafka_stream_catches_up_into_a_stream(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, [f'{{"k": {i % 3}, "x": 1, "ts": "2024-05-01T12:{i // 60:02}:{i % 60:02}Z"}}' for i in range(3000)])
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS)
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, n bigint, total bigint", name="minutes")
    continuous(db, "v", MINUTES.format(source="s"), ", streamext.into = 'minutes'")
    continuous(db, "n", "SELECT count(*) AS windows, sum(n) AS n FROM minutes")
    db.flush("s")
    assert db.rows("TABLE n") == [(897, 2990)]


KAFKA_COLUMNS = "k int, ts timestamptz, n bigint, total bigint"


def kafka_target(db: Database, kafka: Kafka, topic: str, columns: str = KAFKA_COLUMNS, name: str = "sent") -> None:
    kafka_stream(db, kafka, f"topic '{topic}'", columns, name=name)


def committed(kafka: Kafka, topic: str) -> list[Any]:
    """All that a reader of what is committed gets, up to the end as it is now."""
    consumer = kafka.consumer({"isolation.level": "read_committed", "enable.partition.eof": True})
    partitions = set(kafka.end_offsets(topic))
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    found = []
    while partitions:
        message = consumer.poll(60)
        assert message is not None, "no end of the partition"
        if message.error() is None:
            found.append(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            partitions.discard(message.partition())
    consumer.close()
    return found


def sink(db: Database, column: str = "state, delivered, waiting, dead") -> Any:
    return db.rows(f"SELECT {column} FROM streamext.sinks")


def wait_delivered(db: Database, n: int) -> None:
    wait_for(lambda: db.value("SELECT sum(delivered) FROM streamext.sinks") == n, what=f"{n} rows delivered, {sink(db)}")


def test_insert_into_kafka_is_published_at_commit(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_target(db, kafka, topic, "k int, word text, id text OPTIONS (metadata 'key')")
    with db.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO sent VALUES (1, 'one', 'a'), (2, NULL, NULL)")
        writer.execute("SAVEPOINT s; INSERT INTO sent VALUES (3, 'never', 'b'); ROLLBACK TO s")
        writer.execute("INSERT INTO sent (k) VALUES (4)")
        assert committed(kafka, topic) == []
        writer.rollback()
        writer.execute("INSERT INTO sent VALUES (1, 'one', 'a'), (2, NULL, NULL)")
        writer.execute("SAVEPOINT s; INSERT INTO sent VALUES (3, 'never', 'b'); ROLLBACK TO s")
        with writer.cursor() as cursor, cursor.copy("COPY sent (k, word) FROM STDIN") as copy:
            copy.write_row((4, 'a "word"'))
        writer.commit()
    wait_delivered(db, 3)
    messages = committed(kafka, topic)
    assert [(json.loads(m.value()), m.key()) for m in messages] == [
        ({"k": 1, "word": "one"}, b"a"),
        ({"k": 2, "word": None}, None),
        ({"k": 4, "word": 'a "word"'}, None),
    ]
    assert sink(db, "view, target, state, waiting, dead, lag_seconds, last_error") == [(None, "sent", "running", 0, 0, 0.0, None)]
    # it is a stream as any other
    db.flush("sent")
    assert db.rows("SELECT k, word, id FROM sent ORDER BY k") == [(1, "one", "a"), (2, None, None), (4, 'a "word"', None)]
    assert "PREPARE" in db.refusal("BEGIN; INSERT INTO sent (k) VALUES (1); PREPARE TRANSACTION 'x'")


def windows_to_kafka(db: Database, kafka: Kafka, topic: str) -> None:
    local_stream(db, BY_TS, COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    kafka_target(db, kafka, topic)
    continuous(db, "v", MINUTES.format(source="s"), ", streamext.into = 'sent'")


def insert_into_both(db: Database, values: list[tuple[int, int, datetime]]) -> None:
    insert(db, "s", values)
    insert(db, "o", values)


def insert_both(db: Database, values: list[tuple[int, int, datetime]]) -> None:
    with db.connection.transaction():
        insert_into_both(db, values)


def assert_published(db: Database, kafka: Kafka, topic: str) -> None:
    """Each closed window of the rows of o, once."""
    until = db.value("SELECT max(ts) - interval '5 s' FROM o")
    closed = db.rows(f"SELECT k, ts, n, total FROM ({MINUTES.format(source='o')}) q WHERE ts <= '{until}' ORDER BY ts, k")
    wait_for(lambda: db.value("SELECT sum(waiting) FROM streamext.sinks") == 0, what="nothing to wait")
    found = [json.loads(m.value()) for m in committed(kafka, topic)]
    rows = sorted((datetime.fromisoformat(m["ts"]), m["k"], m["n"], m["total"]) for m in found)
    assert rows == sorted((ts, k, n, total) for k, ts, n, total in closed)


def test_what_goes_out_is_not_as_the_session_shows_it(db: Database, kafka: Kafka, topic: str) -> None:
    """Who reads it knows nothing of these settings: it was another day, and half of a number."""
    kafka.create_topic(topic)
    columns = "id int, span daterange, f float8, r real, list float8[], took interval, took_all interval[], b bytea"
    key = "key text OPTIONS (metadata 'key')"
    kafka_target(db, kafka, topic, f"{columns}, {key}")
    db.execute(f"CREATE TABLE o ({columns}, key text)")
    db.execute("INSERT INTO o VALUES (1, '[2024-02-01,2024-03-01)', 1.7976931348623157e308, 0.1, '{0.1,1e-7}', '-1 day 2:03', '{1 mon}', '\\x00ff', 'a')")
    local_stream(db, "event_time 'ts'", "day date, ts timestamptz, f float8")
    with db.connect() as session:
        session.execute("""SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -12; SET bytea_output = 'escape';
            SET timezone = 'UTC'; INSERT INTO sent TABLE o""")
        session.execute("""CREATE VIEW v WITH (streamext.continuous, streamext.into = 'sent') AS SELECT 2 AS id, daterange(day, day + 1) AS span,
            max(f) AS f, streamext.tumble('1 min', ts)::text AS key, interval '3 days' AS took FROM s GROUP BY day, streamext.tumble('1 min', ts)""")
    db.execute("INSERT INTO s VALUES ('2024-02-01', '2024-02-01 10:00+00', 0.123456789), ('2024-02-03', '2024-02-01 10:02+00', 1)")
    db.flush("s")
    wait_delivered(db, 2)
    db.flush("sent")
    db.assert_same("SELECT * FROM sent WHERE id = 1", "SELECT * FROM o")
    (windows,) = [json.loads(m.value()) for m in committed(kafka, topic)][1:]
    assert windows["span"] == "[2024-02-01,2024-02-02)" and windows["f"] == 0.123456789 and windows["took"] == "3 days"
    headers = dict(committed(kafka, topic)[1].headers())
    assert headers["view"] == b"public.v"


def test_closed_windows_are_in_kafka_once(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic, 2)
    windows_to_kafka(db, kafka, topic)
    rng = random.Random(3)
    for step in range(4):
        insert_both(db, rows(rng, 400, 30 * step, 30))
        db.flush("s")
    assert_published(db, kafka, topic)
    message = committed(kafka, topic)[0]
    headers = dict(message.headers())
    assert json.loads(message.key()) == {"k": json.loads(message.value())["k"]}
    assert headers["view"] == b"public.v" and headers["token"].isdigit()
    assert sink(db, "view, target, state") == [("v", "sent", "running")]


@pytest.mark.parametrize("kill", ["server", "worker", "broker"])
def test_closed_windows_are_in_kafka_once_whatever_is_killed(database: Database, kafka: Kafka, topic: str, kill: str) -> None:
    db = database
    kafka.create_topic(topic)
    windows_to_kafka(db, kafka, topic)
    rng = random.Random(kill)
    for step in range(5):
        insert_both(db, rows(rng, 400, 30 * step, 30))
        db.flush("s")
        if step < 1:
            continue
        if kill == "broker":
            kafka.kill9()
            insert_both(db, rows(rng, 200, 30 * step + 30, 1))
            db.flush("s")  # the view goes on, and does not wait for it
            kafka.start()
        elif kill == "worker":
            db.server.kill_backend(worker_pid(db, "sent"))
            reconnect(db)
        else:
            kill_all(db.server)
            db.server.start()
            reconnect(db)
    assert_published(db, kafka, topic)


MOMENTS = ["delivery-before-begin", "delivery-before-number", "delivery-before-commit", "delivery-after-commit"]


def threads_that_wait(db: Database) -> int:
    """At a fault point."""
    found = 0
    for comm in Path(f"/proc/{worker_pid(db, 'sent')}/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found += comm.read_text() == "fault wait\n"
    return found


def kafka_rows(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_target(db, kafka, topic, "k int")
    db.execute("INSERT INTO sent VALUES (0)")
    wait_delivered(db, 1)


def assert_each_once(db: Database, kafka: Kafka, topic: str, n: int) -> None:
    wait_delivered(db, n)
    assert [json.loads(m.value())["k"] for m in committed(kafka, topic)] == list(range(n))
    assert sink(db) == [("running", n, 0, 0)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_broker_that_stands_still_in_a_transaction(database: Database, kafka: Kafka, topic: str, moment: str) -> None:
    """Stopped between two calls of a set's transaction. With STREAMEXT_LONG it stays away until that is shown."""
    db = database
    kafka_rows(db, kafka, topic)
    db.configure("streamext.fault_point", f"wait {moment}")
    db.execute("INSERT INTO sent SELECT generate_series(1, 100)")
    wait_for(lambda: threads_that_wait(db) == 1, what=moment)
    kafka.send(signal.SIGSTOP)
    try:
        db.configure("streamext.fault_point", "")
        wait_for(lambda: threads_that_wait(db) == 0, what="the thread to go on")
        if os.environ.get("STREAMEXT_LONG") and moment != "delivery-after-commit":
            wait_for(lambda: sink(db, "state, last_error <> ''") == [("stalled", True)], 120, what="the outage")
    finally:
        kafka.send(signal.SIGCONT)
    assert_each_once(db, kafka, topic, 101)


def test_a_client_that_does_not_come_back_is_replaced(database: Database, kafka: Kafka, topic: str) -> None:
    """One after the other, as in a call that ignores its time-out; then all go on beside each other, and each row is there once."""
    db = database
    kafka_rows(db, kafka, topic)
    for moment in ("delivery-before-number", "delivery-before-commit"):
        db.configure("streamext.delivery_timeout", 1)
        n = db.value("SELECT sum(delivered)::int FROM streamext.sinks")
        db.configure("streamext.fault_point", f"wait {moment}")
        db.execute(f"INSERT INTO sent SELECT generate_series({n}, {n + 99})")
        wait_for(lambda: threads_that_wait(db) >= 2, what="a second client")
        assert sink(db, "state, last_error") == [("stalled", "no answer for 1 s")]
        db.configure("streamext.delivery_timeout", 120)
        db.configure("streamext.fault_point", "")
        assert_each_once(db, kafka, topic, n + 100)
        wait_for(lambda: threads_that_wait(db) == 0, what="the former clients' end")


def test_clients_of_former_definitions_count_among_those_that_do_not_come_back(database: Database, kafka: Kafka, topic: str) -> None:
    """While four are left to themselves no further one is, until one has ended."""
    db = database
    kafka_rows(db, kafka, topic)
    before = db.server.log_file.stat().st_size
    db.configure("streamext.fault_point", "wait delivery-before-number")
    db.execute("INSERT INTO sent SELECT generate_series(1, 100)")
    for n in range(1, 5):
        wait_for(lambda: threads_that_wait(db) == n, what="a client that hangs")
        db.execute(f"ALTER FOREIGN TABLE sent ADD COLUMN c{n} int")
    wait_for(lambda: threads_that_wait(db) == 5, what="the last client")
    db.configure("streamext.delivery_timeout", 1)
    wait_for(lambda: sink(db, "state, last_error") == [("stalled", "no answer for 1 s")], what="that it hangs")
    assert "is begun anew" not in db.server.log(before)
    db.configure("streamext.delivery_timeout", 120)
    db.configure("streamext.fault_point", "")
    assert_each_once(db, kafka, topic, 101)
    wait_for(lambda: threads_that_wait(db) == 0, what="the former clients' end")


def test_an_outage_is_over_for_the_next_process_too(database: Database, kafka: Kafka, topic: str) -> None:
    """What a worker that is gone has shown does not stay."""
    db = database
    kafka_rows(db, kafka, topic)
    db.configure("streamext.delivery_timeout", 1)
    kafka.send(signal.SIGSTOP)
    try:
        db.execute("INSERT INTO sent VALUES (1)")
        wait_for(lambda: sink(db, "state") == [("stalled",)], 60, what="the outage")
        db.server.kill_backend(worker_pid(db, "sent"))
    finally:
        kafka.send(signal.SIGCONT)
    reconnect(db)
    db.configure("streamext.delivery_timeout", 120)
    wait_for(lambda: sink(db) == [("running", 2, 0, 0)], 60, what="running")


def test_a_topic_that_is_made_anew_gets_what_goes_out(database: Database, kafka: Kafka, topic: str) -> None:
    """The stream diverges for who reads it, until he says what to do; rows that go out do not wait for that. For a pause they do, and it is shown."""
    db = database
    kafka_rows(db, kafka, topic)
    db.flush("sent")
    kafka.delete_topic(topic)
    kafka.create_topic(topic)
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "diverged", 60, what="the divergence")
    db.execute("INSERT INTO sent VALUES (1)")
    wait_delivered(db, 2)
    assert [json.loads(m.value())["k"] for m in committed(kafka, topic)] == [1]
    db.execute("SELECT streamext.seek('sent', 'earliest')")
    db.flush("sent")
    db.execute("SELECT streamext.pause('sent')")
    db.execute("INSERT INTO sent VALUES (2)")
    assert sink(db, "state, waiting") == [("paused", 1)]
    db.execute("SELECT streamext.resume('sent')")
    wait_for(lambda: sink(db) == [("running", 3, 0, 0)], what="what was held back")


@pytest.mark.parametrize("limit", ["max.message.bytes", "cleanup.policy"])
def test_a_message_that_kafka_refuses_takes_none_with_it(db: Database, kafka: Kafka, topic: str, limit: str) -> None:
    """Brokers refuse the batch that it is in: for its size, here also that of all together, or on a compacted topic as it has no key."""
    kafka.create_topic(topic, config={limit: "5000" if limit == "max.message.bytes" else "compact"})
    kafka_target(db, kafka, topic, "n int, x text, k text OPTIONS (metadata 'key')")
    bad = [17, 60]
    db.execute("""INSERT INTO sent SELECT i, (SELECT string_agg(md5(random()::text), '') FROM generate_series(0, CASE WHEN i = ANY (%s) THEN 300 ELSE 5 END)),
        CASE WHEN i <> ALL (%s) THEN 'k' || i END FROM generate_series(1, 100) i""", bad, bad)
    wait_for(lambda: sink(db) == [("running", 98, 0, 2)], what="all but the two")
    assert [json.loads(m.value())["n"] for m in committed(kafka, topic)] == [n for n in range(1, 101) if n not in bad]
    db.execute("INSERT INTO sent VALUES (101, '', 'k')")
    wait_delivered(db, 99)


def test_nothing_is_counted_of_what_only_goes_out(db: Database) -> None:
    db.execute("CREATE SERVER hook FOREIGN DATA WRAPPER webhook OPTIONS (url 'http://127.0.0.1:1/')")
    db.execute("CREATE FOREIGN TABLE sent (k int) SERVER hook")
    assert db.refusal("CREATE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM sent GROUP BY k").startswith("0A000")


def test_an_outage_is_shown_and_what_waits_comes_in_order(db: Database, topic: str) -> None:
    with Kafka() as broker:
        broker.create_topic(topic)
        kafka_target(db, broker, topic, "k int")
        db.execute("INSERT INTO sent VALUES (0)")
        wait_delivered(db, 1)
        broker.kill9()
        db.execute("INSERT INTO sent SELECT generate_series(1, 500)")
        wait_for(lambda: sink(db, "state, waiting, lag_seconds > 0, last_error <> ''") == [("stalled", 500, True, True)], what="the outage")
        db.execute("ALTER SYSTEM SET streamext.outbox_limit = 500")
        db.server.reload()
        wait_for(lambda: db.value("SHOW streamext.outbox_limit") == "500", what="the setting")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
            db.execute("INSERT INTO sent VALUES (501)")
        db.execute("ALTER SYSTEM RESET streamext.outbox_limit")
        db.server.reload()
        broker.start()
        wait_delivered(db, 501)
        assert [json.loads(m.value())["k"] for m in committed(broker, topic)] == list(range(501))
        assert sink(db) == [("running", 501, 0, 0)]
        db.execute("DROP FOREIGN TABLE sent")
        assert sink(db) == []


def test_what_waits_is_counted_once_for_all_targets(db: Database, kafka: Kafka, topic: str) -> None:
    """It was for each of them, by the planner's estimate for each row that waits: reading streamext.sinks in an outage took a second of compiling."""
    kafka.create_topic(topic)
    kafka_target(db, kafka, topic, "k int")
    db.execute("SELECT streamext.pause('sent')")
    db.execute("INSERT INTO sent SELECT generate_series(1, 20000)")
    db.execute("ANALYZE streamext_internal.outbox")
    assert sink(db, "state, waiting, dead") == [("paused", 20000, 0)]
    plan = db.value("EXPLAIN (FORMAT json) TABLE streamext.sinks")[0]["Plan"]
    assert plan["Total Cost"] < float(db.value("SHOW jit_above_cost"))


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.stop()


def webhook(db: Database, hook: Hook, options: str = "", columns: str = "k int, word text") -> None:
    db.execute(f"CREATE SERVER hook FOREIGN DATA WRAPPER webhook OPTIONS (url 'http://127.0.0.1:{hook.port}/in')")
    db.execute(f"CREATE FOREIGN TABLE sent ({columns}) SERVER hook OPTIONS (format 'json'{options})")


def test_a_webhooks_url_holds_no_password(db: Database) -> None:
    """Everybody may read a server's options."""
    for url in ("http://u:secret@localhost/x", "https://token@localhost"):
        assert "user mapping" in db.refusal(f"CREATE SERVER hook FOREIGN DATA WRAPPER webhook OPTIONS (url '{url}')")
    db.execute("CREATE SERVER hook FOREIGN DATA WRAPPER webhook OPTIONS (url 'https://localhost/@x?to=a@b')")


def test_a_webhook_gets_rows_and_windows_signed(db: Database, hook: Hook) -> None:
    secret = Path(db.value("SHOW data_directory")) / "hook.secret"
    secret.write_text("swordfish\n")
    webhook(db, hook, ", signature_secret_file 'hook.secret'", "k int, w timestamptz, n bigint")
    db.execute("INSERT INTO sent (k) VALUES (1)")
    wait_delivered(db, 1)
    headers, body = hook.requests[0]
    assert json.loads(body) == {"k": 1, "w": None, "n": None} and headers["content-type"] == "application/json"
    at, signature = headers["x-streamext-signature"].split(",")
    expected = hmac.new(b"swordfish", at.removeprefix("t=").encode() + b"." + body, "sha256").hexdigest()
    assert signature == f"v1={expected}"

    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "v", "SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY k, w", ", streamext.into = 'sent'")
    db.execute(f"INSERT INTO s SELECT i % 2, i, timestamptz '{BEGIN}' + i * interval '1 s' FROM generate_series(0, 30) i")
    db.flush("s")
    wait_delivered(db, 7)
    assert [(b["k"], b["n"]) for b in sorted(hook.bodies()[1:], key=lambda b: (b["w"], b["k"]))] == [(0, 5), (1, 5)] * 3
    assert hook.requests[1][0]["x-streamext-view"] == "public.v" and hook.requests[1][0]["x-streamext-window"]
    keys = [headers["idempotency-key"] for headers, _ in hook.requests]
    assert len(set(keys)) == 7
    assert sorted(db.rows("SELECT view, delivered FROM streamext.sinks"), key=str) == [("v", 6), (None, 1)]


def test_a_webhook_that_fails_is_tried_again_and_then_passed_over(db: Database, hook: Hook) -> None:
    webhook(db, hook, ", attempts '3'")
    hook.answers = [500, (503, 1), 204]
    db.execute("INSERT INTO sent VALUES (1, 'passing')")
    wait_delivered(db, 1)
    keys = [headers["idempotency-key"] for headers, _ in hook.requests]
    assert len(keys) == 3 and len(set(keys)) == 1
    assert sink(db, "state, dead, last_error") == [("running", 0, "the answer is HTTP status 503")]

    hook.answers = [500, 500, 500, 204, 404, 204]
    db.execute("INSERT INTO sent VALUES (2, 'three times'), (3, 'good'), (4, 'refused'), (5, 'good')")
    wait_delivered(db, 3)
    assert [b["k"] for b in hook.bodies()] == [1, 1, 1, 2, 2, 2, 3, 4, 5]
    assert sink(db) == [("running", 3, 0, 2)]
    assert db.value("SELECT streamext.retry_deliveries('sent')") == 2
    wait_delivered(db, 5)
    assert [b["k"] for b in hook.bodies()[9:]] == [2, 4]
    assert sink(db) == [("running", 5, 0, 0)]


def test_what_is_behind_the_head_of_a_webhooks_answer_is_nothing(db: Database, hook: Hook) -> None:
    """A body that was cut, wrong or endless was no answer: the row went out for ever, and nothing behind it did."""
    webhook(db, hook, ", attempts '2'")
    hook.answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (20 << 20),
        b"HTTP/1.1 400 No\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Half: ",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ]
    db.execute("INSERT INTO sent SELECT k FROM generate_series(1, 5) k")
    wait_delivered(db, 4)
    assert [b["k"] for b in hook.bodies()] == [1, 2, 3, 4, 5, 5, 5]  # the last two were no answers
    assert sink(db) == [("running", 4, 0, 1)]


def test_a_webhooks_retry_after_may_be_as_long_as_it_likes(db: Database, hook: Hook) -> None:
    """In milliseconds it was more than 64 bits hold: a row was dead after a second or two that was to wait for an hour."""
    webhook(db, hook)
    db.execute("CREATE FOREIGN TABLE other (k int) SERVER hook OPTIONS (format 'json')")
    hook.answers = [(503, (1 << 63) - 1)]
    db.execute("INSERT INTO sent (k) VALUES (1)")
    wait_for(lambda: sink(db, "last_error") == [("the answer is HTTP status 503",)], what="the answer")
    hook.answers = [500, 500, 500, 204]
    db.execute("INSERT INTO other VALUES (2)")
    wait_for(lambda: len(hook.requests) > 4, what="tries of the other one, which come later and later")
    assert [b["k"] for b in hook.bodies()][:5] == [1, 2, 2, 2, 2]


def test_a_webhooks_token_is_sent_whole_or_not_at_all(db: Database, hook: Hook) -> None:
    webhook(db, hook)
    db.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER hook OPTIONS (bearer_token '{'x' * 4000}')")
    db.execute("INSERT INTO sent VALUES (1, 'goes')")
    wait_delivered(db, 1)
    assert hook.requests[0][0]["authorization"] == f"Bearer {'x' * 4000}"
    db.execute(f"ALTER USER MAPPING FOR CURRENT_USER SERVER hook OPTIONS (SET bearer_token '{'x' * 4001}')")
    db.execute("INSERT INTO sent VALUES (2, 'waits')")
    wait_for(lambda: "bearer_token is longer than 4000 bytes" in str(sink(db, "last_error")), what="the reason")
    assert len(hook.requests) == 1


def test_a_webhooks_headers_are_its_own(db: Database, hook: Hook) -> None:
    """The signature stands under no name that the request has already; a header goes out whole, or the row does not."""
    webhook(db, hook, columns="k int")
    for name in ("Content-Length", "host", "Transfer-Encoding", "AUTHORIZATION", "idempotency-key", "", "X: y\r\nZ", "x" * 101):
        assert db.refusal(f"ALTER FOREIGN TABLE sent OPTIONS (ADD signature_header '{name}')").startswith("HV024"), name
    local_stream(db, columns="k int")
    continuous(db, '"good\u00e4"', "SELECT k FROM s WHERE k < 3", ", streamext.into = 'sent'")
    continuous(db, '"a\r\nHost: other"', "SELECT k FROM s WHERE k > 1", ", streamext.into = 'sent'")
    db.execute("INSERT INTO s VALUES (1), (2), (3)")
    wait_for(lambda: sink(db, "sum(delivered), sum(waiting), sum(dead)") == [(2, 0, 2)], what="those that can be sent")
    assert sorted(b["k"] for b in hook.bodies()) == [1, 2]
    assert {headers["x-streamext-view"].encode("latin-1").decode() for headers, _ in hook.requests} == {'public."good\u00e4"'}


def test_a_webhook_that_is_away_is_waited_for(db: Database, hook: Hook) -> None:
    webhook(db, hook, ", attempts '1'")
    hook.stop()
    db.execute("INSERT INTO sent SELECT i FROM generate_series(1, 30) i")
    wait_for(lambda: sink(db) == [("stalled", 0, 30, 0)], what="the outage")
    hook.start()
    wait_delivered(db, 30)
    assert [b["k"] for b in hook.bodies()] == list(range(1, 31))
    assert sink(db) == [("running", 30, 0, 0)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_rows_are_published_to_mqtt(db: Database, mosquitto: Mosquitto, topic: str, qos: int) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', qos '{qos}', publish_topic '{topic}/{{site}}/state', retained 'true'", "site text, n int, at text OPTIONS (metadata 'topic')", name="sent")
    with pytest.raises(psycopg.Error, match="cannot be part of a topic"):
        db.execute("INSERT INTO sent (site, n) VALUES ('a+b', 1)")
    db.execute("INSERT INTO sent (site, n) SELECT 's' || i % 3, i FROM generate_series(1, 30) i")
    wait_delivered(db, 30)
    got: dict[str, int] = {}
    client = mosquitto.client(on_message=lambda _c, _u, m: got.update({m.topic: json.loads(m.payload)["n"]}))
    client.subscribe(f"{topic}/#", 1)
    wait_for(lambda: got == {f"{topic}/s0/state": 30, f"{topic}/s1/state": 28, f"{topic}/s2/state": 29}, what="retained messages")
    client.disconnect()
    client.loop_stop()


def test_what_could_never_go_out_is_refused_when_the_view_is_made(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """Not when its first window is closed."""
    columns = "site text, w timestamptz, n bigint"
    local_stream(db, "event_time 'ts'", "site text, ts timestamptz")
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', publish_topic '{topic}/{{area}}'", columns, name="no_column")
    mqtt_stream(db, mosquitto, f"topic '{topic}/#'", columns, name="no_topic")
    mqtt_stream(db, mosquitto, f"topic '{topic}/x'", columns, name="no_format", format="csv")
    windows = "SELECT site, streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY site, w"
    continuous(db, "v", windows)
    for target, wrong in (
        ("no_column", '42703 option publish_topic names column "area", which stream "no_column" does not have'),
        ("no_topic", '0A000 cannot insert into stream "no_topic", whose topic is a filter'),
        ("no_format", '0A000 format "csv" of stream "no_format" cannot be written'),
    ):
        for view in (
            f"CREATE VIEW out WITH (streamext.continuous, streamext.into = '{target}') AS {windows}",
            f"CREATE VIEW out WITH (streamext.continuous, streamext.into = '{target}') AS SELECT site, ts AS w FROM s",
            f"CREATE VIEW out WITH (streamext.alert, streamext.to = '{target}') AS SELECT site, n FROM v WHERE n > 100",
        ):
            assert db.refusal(view).startswith(wrong), view
    db.execute("ALTER FOREIGN TABLE no_column ADD COLUMN area text")
    continuous(db, "out", windows, ", streamext.into = 'no_column'")


def test_what_mqtt_cannot_carry_holds_up_nothing(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """Who may insert chooses topics and headers: neither the broker's own topics, nor what makes the broker end the connection again and again."""
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', publish_topic '{{site}}/{topic}'", "site text, n int, h jsonb OPTIONS (metadata 'headers')", name="sent")
    rows = [("$CONTROL/x", None), ("a\nb", None), ("/" * 250, None), ("\ufffe", None), ("\U0001ffff", None), ("ok", '{"h": "a\\nb"}'),
            ("ok", json.dumps({"h": "x" * 70_000})), ("\u00e4/b", '{"h": "\u00e4"}')]  # fmt: skip
    got: list[str] = []
    client = mosquitto.client(on_message=lambda _c, _u, m: got.append(m.topic))
    client.subscribe([(f"{filter}/{topic}", 1) for filter in ("+", "+/+", "$CONTROL/x")])
    for n, (site, headers) in enumerate(rows):
        db.execute("INSERT INTO sent VALUES (%s, %s, %s)", site, n, headers)
    wait_for(lambda: sink(db, "delivered, waiting, dead") == [(1, 0, 7)], what="what can be sent")
    wait_for(lambda: got, what="the message")
    assert got == [f"\u00e4/b/{topic}"]
    client.disconnect()
    client.loop_stop()


def test_values_that_make_no_topic_stop_neither_view_nor_alert(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """A session is told at its INSERT. What a publisher's values make of a view's rows is no error of the view: they are set aside, and stay so when sent again."""
    columns = "site text, w timestamptz, n bigint"
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', publish_topic '{topic}/{{site}}/x'", columns, name="windows")
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', publish_topic '{topic}/{{site}}/y'", columns, name="fired")
    local_stream(db, "event_time 'ts'", "site text, ts timestamptz")
    minutes = "SELECT site, date_trunc('minute', ts) AS w, count(*) AS n FROM s GROUP BY site, 2"
    continuous(db, "minutes", minutes, ", streamext.into = 'windows'")
    continuous(db, "busy", "SELECT site, count(*) AS n FROM s GROUP BY site")
    db.execute("CREATE VIEW many WITH (streamext.alert, streamext.key = 'site', streamext.to = 'fired') AS SELECT site, n FROM busy WHERE n > 0")
    sites = ["ok", None, "", "a+b", "#", "$x", "also"]
    got: set[str] = set()
    client = mosquitto.client(on_message=lambda _c, _u, m: got.add(m.topic))
    client.subscribe(f"{topic}/#", 1)
    for site in sites:
        db.execute("INSERT INTO s VALUES (%s, '2024-01-01 00:00:01')", site)
    db.execute("INSERT INTO s VALUES (NULL, '2024-01-01 00:02')")
    wait_for(lambda: got == {f"{topic}/{site}/{end}" for site in ("ok", "also", "$x") for end in "xy"}, what="windows and alerts of the others")
    shown = "SELECT sum(dead), sum(waiting), bool_and(last_error LIKE '%%has + or #%%') FROM streamext.sinks WHERE target IN ('windows'::regclass, 'fired'::regclass)"
    wait_for(lambda: db.rows(shown) == [(8, 0, True)], what="those that were set aside")
    assert db.rows("SELECT view::text, dead > 0 FROM streamext.sinks WHERE target = 'fired'::regclass") == [("many", True)]  # an alert's rows are its own
    assert db.rows("SELECT last_error FROM streamext.alert_views") == [(None,)]
    assert set(db.rows("SELECT state, last_error FROM streamext.continuous_views")) == {("running", None)}
    assert db.value("SELECT streamext.retry_deliveries('windows')") == 4
    wait_for(lambda: db.rows(shown) == [(8, 0, True)], what="the same again")
    assert len(got) == 6
    client.disconnect()
    client.loop_stop()


def test_headers_that_cannot_be_read_hold_up_nothing(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """json takes what jsonb does not; what is no text is no header."""
    mqtt_stream(db, mosquitto, f"topic '{topic}/a', publish_topic '{topic}/a'", "n int, h json OPTIONS (metadata 'headers')", name="sent")
    headers = ['{"a": "\\u0000"}', '{"a": "\\ud83d"}', '{"a": 1e1000000}', "[1]", "3", '{"a": 1, "b": "c", "d": {"e": "f"}, "a": "x\\ud83d\\ude00"}', None]
    got: list[dict] = []
    client = mosquitto.client(on_message=lambda _c, _u, m: got.append(dict(m.properties.UserProperty)))
    client.subscribe(f"{topic}/a", 1)
    for n, header in enumerate(headers):
        db.execute("INSERT INTO sent VALUES (%s, %s)", n, header)
    wait_for(lambda: sink(db, "delivered, waiting, dead") == [(4, 0, 3)], what="what can be sent")
    wait_for(lambda: len(got) == 4, what="the messages")
    assert [{k: v for k, v in message.items() if k != "token"} for message in got] == [{}, {}, {"b": "c", "a": "x\U0001f600"}, {}]
    client.disconnect()
    client.loop_stop()


def test_what_a_broker_refuses_is_not_delivered(db: Database) -> None:
    """By MQTT 5 and qos 1 it says so: a topic that a row has chosen is that row's fault, else all waits."""
    with Mosquitto(users={"app": "secret"}, acl="user app\ntopic readwrite good/#\n") as broker:
        mqtt_stream(db, broker, "topic 'good/#', publish_topic '{site}/x'", "site text, n int", name="sent")
        mqtt_stream(db, broker, "topic 'good/#', publish_topic 'bad'", "n int", name="other")
        db.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER mqtt_server OPTIONS (username 'app', password 'secret')")
        db.execute("INSERT INTO sent VALUES ('good', 1), ('bad', 2), ('good', 3); INSERT INTO other VALUES (1)")
        shown = "SELECT delivered, waiting, dead, state FROM streamext.sinks WHERE target = %s::regclass"
        wait_for(lambda: db.rows(shown, "sent")[0][1:] == (0, 1, "running"), what="one refused")
        wait_for(lambda: db.rows(shown, "other") == [(0, 1, 0, "stalled")], what="one that waits")
        assert db.rows(shown, "sent")[0][0] == 2
        wait_for(lambda: "authorized" in db.value("SELECT last_error FROM streamext.sinks WHERE target = 'other'::regclass"), what="why")


def test_a_filter_is_no_topic_to_publish_to(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/#'", "n int", name="sent")
    assert "is a filter" in db.refusal("INSERT INTO sent VALUES (1)")
    mqtt_stream(db, mosquitto, f"topic '{topic}/x'", "n int", name="plain")
    db.flush("plain")  # it has subscribed
    db.execute("INSERT INTO plain VALUES (1)")
    wait_delivered(db, 1)
    wait_for(lambda: db.rows("TABLE plain") == [(1,)], what="the row to come back")
