"""After a crash or restart a view goes on from its last checkpoint: the source need not have the records any more."""

import contextlib
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import TopicPartition

from crash.faults import kill_all
from harness.database import Database, temporary_database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.postgres import FAST, IMMEDIATE
from harness.sensors import Plant, Reading
from harness.streams import (
    BY_TS, VIEWS, assert_views, continuous, copy_into, counts, create_views, kafka_stream, local_stream, mqtt_stream,
    state, table_of, worker_pid,
)  # fmt: skip
from harness.views import sessions
from harness.wait import wait_for

# Every way an aggregate is kept, beside those of VIEWS.
KEPT = {
    "kept": """SELECT site, array_agg(device ORDER BY ts, device) AS devices, string_agg(device, ',' ORDER BY ts, device) AS names,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY temperature) AS median, count(DISTINCT device) AS n,
        avg(temperature::numeric) AS mean, corr(temperature, humidity) AS corr, min(device) AS first,
        array_agg(humidity ORDER BY ts, humidity) FILTER (WHERE temperature > 20) AS damp, sum(ts - '2024-01-01 00:00+00') AS span
        FROM {source} GROUP BY site""",
    "texts": "SELECT streamext.tumble('30 s', ts) AS w, min(device), max(site || device) FROM {source} GROUP BY w",
}
LONG = {"long": "SELECT site, count(*) AS n FROM {source} WHERE ts > {now} - interval '720000 hours' GROUP BY site"}
WHOLE = {name: query for name, query in VIEWS.items() if name != "sliding"} | KEPT
ALL = WHOLE | LONG

# Checkpoints come often.
SETTINGS = {"streamext.checkpoint_interval": 50}


def set_fault(db: Database, fault: str) -> None:
    """The server may reach it before it says that it has the setting."""
    with contextlib.suppress(psycopg.OperationalError):
        db.configure("streamext.fault_point", fault)


def saved(db: Database, *streams: str) -> None:
    """Returns when all that the sources hold now is in a checkpoint, on disk."""
    db.flush(*streams)
    wait_for(
        lambda: not db.value("SELECT bool_or(checkpoint_pending) FROM streamext.workers"), what="a checkpoint"
    )
    db.execute("SET synchronous_commit = on; CREATE TABLE flushed (); DROP TABLE flushed")


def crash(db: Database, how: str = "immediate") -> Database:
    if how == "worker":
        db.server.kill_backend(worker_pid(db))
    else:
        db.server.restart({"immediate": IMMEDIATE, "fast": FAST}[how])
    return Database(db.server, db.name)


def forget(kafka: Kafka, topic: str) -> None:
    """The topic has none of its records any more."""
    ends = [TopicPartition(topic, partition, end) for partition, end in kafka.end_offsets(topic).items()]
    for future in kafka.admin.delete_records(ends).values():
        future.result()


def produce(kafka: Kafka, topic: str, readings: list[Reading], partitions: int = 3) -> None:
    kafka.produce(topic, [Message(r.json(), i % partitions) for i, r in enumerate(readings)])


def number_stream(db: Database, kafka: Kafka, topic: str) -> None:
    kafka_stream(db, kafka, f"topic '{topic}'", "a bigint")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total, array_agg(a) AS list FROM s GROUP BY k")


def numbers(start: int, end: int) -> list[str]:
    return [f'{{"a":{i}}}' for i in range(start, end)]


def assert_numbers(db: Database, end: int, start: int = 0) -> None:
    """Each number is counted, once."""
    db.flush("s")
    db.assert_same(
        "SELECT k, n, total, (SELECT array_agg(a ORDER BY a) FROM unnest(list) AS a) FROM v",
        f"SELECT a % 10, count(*), sum(a), array_agg(a ORDER BY a) FROM generate_series({start}::bigint, {end - 1}) AS a"
        " GROUP BY a % 10",
    )
    assert counts(db, "v") == (end - start, 0, 0)


def test_what_was_passed_over_stays_counted(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    kafka.produce(topic, [Message(None, key="k"), *numbers(0, 10), Message(None, key="l")])
    saved(db, "s")
    db = crash(db)
    assert_numbers(db, 10)
    kafka.produce(topic, [Message(None, key="m")])
    db.flush("s")
    assert db.rows("SELECT rows_in, tombstones FROM streamext.streams") == [(13, 3)]


@pytest.mark.parametrize("how", ["worker", "immediate", "fast"])
def test_kafka_views_go_on(database: Database, kafka: Kafka, topic: str, how: str) -> None:
    """All kinds of windows and aggregates; the records counted before are gone from the topic."""
    db = database
    kafka.create_topic(topic, 3)
    kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}")
    create_views(db, views=WHOLE)
    continuous(db, "long", LONG["long"].format(source="s", now="now()"), ", streamext.step = '240 hours'")
    continuous(db, "session", "SELECT device, streamext.session('3 s', ts) AS w, count(*) AS n FROM s GROUP BY device, w")
    readings = list(Plant(devices=40, sites=5).readings(6000))
    for start in range(0, 3000, 500):
        produce(kafka, topic, readings[start : start + 500])
        saved(db, "s")
    forget(kafka, topic)
    before = {view: counts(db, view) for view in ALL}
    db = crash(db, how)
    table_of(db, readings[:3000])
    db.flush("s")
    assert_views(db, "o", db.value("SELECT now()"), ALL)
    assert {view: counts(db, view) for view in ALL} == before
    produce(kafka, topic, readings[3000:4500])
    saved(db, "s")
    produce(kafka, topic, readings[4500:])
    db = crash(db, how)
    copy_into(db, "o", readings[3000:])
    db.flush("s")
    assert_views(db, "o", db.value("SELECT now()"), ALL)
    db.assert_same("SELECT device, w, n FROM session", f"""SELECT device, session_start, count(*) FROM {sessions('o', ['device'], "'3 s'")} GROUP BY 1, 2""")
    assert {counts(db, view) for view in ALL} == {(6000, 0, 0)}
    assert db.value("SELECT rows_in FROM streamext.streams") == 6000


def test_what_is_not_saved_is_read_again(database: Database, kafka: Kafka, topic: str) -> None:
    """And a server that is stopped in order saves everything."""
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 1000))
    saved(db, "s")
    db.configure("streamext.checkpoint_interval", "0")
    kafka.produce(topic, numbers(1000, 3000))
    assert_numbers(db, 3000)
    db = crash(db)
    assert_numbers(db, 3000)
    db.server.stop()
    forget(kafka, topic)
    db.server.start()
    db = Database(db.server, db.name)
    assert_numbers(db, 3000)
    kafka.produce(topic, numbers(3000, 3100))
    assert_numbers(db, 3100)


FAULTS = [
    "checkpoint-in-copy", "checkpoint-after-cut", "checkpoint-in-slice", "checkpoint-after-slice", "checkpoint-before-commit",
    "checkpoint-after-commit", "checkpoint-after-confirm",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_crash_at_each_step(database: Database, kafka: Kafka, topic: str, fault: str) -> None:
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    continuous(db, "wide", "SELECT a, count(*) AS n, repeat(a::text, 50) AS t FROM s GROUP BY a, repeat(a::text, 50)")
    kafka.produce(topic, numbers(0, 30_000))
    saved(db, "s")
    forget(kafka, topic)
    pid = worker_pid(db)
    before = db.server.log_file.stat().st_size
    set_fault(db, fault)
    for start in range(30_000, 200_000, 30_000):  # until a checkpoint is of several slices
        kafka.produce(topic, numbers(start, start + 30_000))
        end = start + 30_000
        try:
            wait_for(lambda: "all server processes terminated" in db.server.log(before), 2)
            break
        except TimeoutError:
            pass
    wait_for(lambda: "all server processes terminated" in db.server.log(before), what=fault)
    assert f'fault point "{fault}" reached' in db.server.log(before)
    wait_for(db.server.is_ready, what="recovery")
    db = Database(db.server, db.name)
    assert worker_pid(db) != pid
    kafka.produce(topic, numbers(end, end + 1000))
    assert_numbers(db, end + 1000)
    assert db.rows("SELECT count(*), sum(n), sum(a) FROM wide") == [(end + 1000, end + 1000, sum(range(end + 1000)))]
    db.execute("ALTER SYSTEM RESET streamext.fault_point")
    saved(db, "s")
    forget(kafka, topic)
    db = crash(db)
    assert_numbers(db, end + 1000)


def test_batches_while_groups_are_copied(database: Database, kafka: Kafka, topic: str) -> None:
    """Copying goes on over hundreds of batches: each group is in the checkpoint as it was at the cut, whatever came to it since."""
    db = database
    start = "'2024-05-01 12:00+00'::timestamptz"
    queries = {
        "wide": "SELECT a % 20000 AS k, count(*) AS n, sum(a) AS total, bit_xor(a) AS x FROM {source} GROUP BY k",
        "kept": """SELECT a % 700 AS k, array_agg(a ORDER BY a) AS list, sum(a::numeric) AS total, max(a::text) AS last
            FROM {source} GROUP BY k""",
        "sealed": "SELECT streamext.tumble('1 min', ts) AS w, a % 500 AS k, count(*) AS n, sum(a) AS total FROM {source} GROUP BY w, k",
        "sliding": f"SELECT a % 3000 AS k, count(*) AS n, sum(a) AS total FROM {{source}} WHERE ts > {start} GROUP BY k",
    }

    def produce_some(first: int, last: int) -> None:
        times = (datetime(2024, 5, 1, 12, tzinfo=UTC) + timedelta(milliseconds=10 * a) for a in range(first, last))
        kafka.produce(topic, [f'{{"a":{a},"ts":"{ts.isoformat()}"}}' for a, ts in enumerate(times, first)])

    def assert_exact(end: int) -> None:
        source = f"(SELECT a, {start} + a * interval '10 ms' AS ts FROM generate_series(0::bigint, {end - 1}) AS a) AS rows_"
        db.flush("s")
        for name, query in queries.items():
            db.assert_same(f"TABLE {name}", query.format(source=source))
            assert counts(db, name) == (end, 0, 0)

    db.configure("streamext.fault_point", "small-checkpoint-steps")
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '5 s'", "a bigint, ts timestamptz")
    for name, query in queries.items():
        continuous(db, name, query.format(source="s"))
    produce_some(0, 20_000)
    saved(db, "s")
    end = 20_000
    for _ in range(3):
        before = db.value("SELECT checkpoint_seq FROM streamext.workers")
        produce_some(end, end + 30_000)
        end += 30_000
        wait_for(lambda: db.value("SELECT checkpoint_seq FROM streamext.workers") > before, what="a checkpoint")
        db = crash(db, "worker")
        db.flush("s")
    assert_exact(end)
    saved(db, "s")
    forget(kafka, topic)
    db = crash(db)
    assert_exact(end)


def bytes_in(journal: Path) -> int:
    """Of its files; one that goes meanwhile has none."""
    size = 0
    for file in journal.iterdir():
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


@pytest.mark.parametrize("how", ["worker", "immediate", "fast"])
def test_local_views_go_on(database: Database, how: str) -> None:
    """The journal is trimmed below what checkpoints hold, and nothing is lost or counted twice."""
    db = database
    local_stream(db, columns="a bigint, t text")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total, array_agg(a) AS list FROM s GROUP BY k")
    end = 0
    for _ in range(3):
        for _ in range(10):
            db.execute("INSERT INTO s SELECT a, repeat('x', 4000) FROM generate_series(%s::int, %s) AS a", end, end + 999)
            end += 1000
        db = crash(db, how)
        assert_numbers(db, end)
    saved(db, "s")
    relid = db.value("SELECT 's'::regclass::oid")
    dboid = db.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    journal = db.server.data / "streamext" / str(dboid) / f"{relid}.0"
    wait_for(lambda: bytes_in(journal) <= 2 * 16 << 20, what="a trimmed journal")
    db = crash(db, how)
    assert_numbers(db, end)


def test_mqtt_views_go_on(database: Database, mosquitto: Mosquitto, topic: str) -> None:
    db = database
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a bigint")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total, array_agg(a) AS list FROM s GROUP BY k")
    db.flush("s")
    end = 0
    for how in ("worker", "immediate", "fast"):
        mosquitto.publish([(topic, payload) for payload in numbers(end, end + 300)])
        saved(db, "s")
        mosquitto.publish([(topic, payload) for payload in numbers(end + 300, end + 500)])
        end += 500
        db = crash(db, how)
        assert_numbers(db, end)


def test_where_a_new_view_begins_survives_a_crash(database: Database) -> None:
    db = database
    db.configure("streamext.checkpoint_interval", "0")
    local_stream(db, columns="a bigint")
    db.execute("INSERT INTO s SELECT generate_series(0, 99)")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total, array_agg(a) AS list FROM s GROUP BY k")
    db.execute("INSERT INTO s SELECT generate_series(100, 199)")
    assert_numbers(db, 200, 100)
    db = crash(db)
    assert_numbers(db, 200, 100)
    db = crash(db, "fast")
    db.execute("INSERT INTO s SELECT generate_series(200, 299)")
    assert_numbers(db, 300, 100)


def test_views_replaced_made_and_dropped(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a bigint")
    for name in ("stays", "goes", "changes"):
        continuous(db, name, "SELECT a % 10 AS k, count(*) AS n FROM s GROUP BY k")
    kafka.produce(topic, numbers(0, 1000))
    saved(db, "s")
    db.configure("streamext.checkpoint_interval", "0")
    db.execute("DROP VIEW goes")
    db.execute("CREATE OR REPLACE VIEW changes WITH (streamext.continuous) AS SELECT a % 10 AS k, sum(a)::bigint AS n FROM s GROUP BY k")
    continuous(db, "comes", "SELECT count(*) AS n FROM s")
    for _ in range(2):
        db.flush("s")
        assert db.rows("SELECT sum(n) FROM stays") == [(1000,)]
        assert db.rows("SELECT sum(n) FROM changes") == [(sum(range(1000)),)]
        assert db.rows("TABLE comes") == [(1000,)]
        db = crash(db)


def test_a_commit_that_a_crash_undoes_does_not_count(database: Database) -> None:
    """synchronous_commit = off: the view had counted the rows, but the server forgets the transaction."""
    db = database
    db.configure("streamext.checkpoint_interval", "0")
    local_stream(db, columns="a bigint")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("CREATE TABLE companion (a bigint)")
    with db.connection.transaction():
        db.execute("INSERT INTO s VALUES (1)")
        db.execute("INSERT INTO companion VALUES (1)")
    db.flush("s")
    os.kill(db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"), signal.SIGSTOP)
    db.execute("SET synchronous_commit = off")
    with db.connection.transaction():
        db.execute("INSERT INTO s VALUES (2)")
        db.execute("INSERT INTO companion VALUES (2)")
    db.flush("s")
    assert db.rows("TABLE v") == [(2,)]
    kill_all(db.server)
    db.server.start()
    db = Database(db.server, db.name)
    db.flush("s")
    db.assert_same("TABLE v", "SELECT count(*) FROM companion")


def test_what_was_missed_and_the_horizon_of_sessions_survive(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "ts timestamptz, a int")
    continuous(db, "v", "SELECT streamext.session('2 s', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.retention = '10 s'")
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)

    def rows(*seconds: int) -> list[str]:
        return [f'{{"ts":"{(start + timedelta(seconds=s)).isoformat()}","a":1}}' for s in seconds]

    kafka.produce(topic, rows(0, 5, 10))
    saved(db, "s")
    db.execute("SELECT streamext.pause('s')")
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
    worker_pid(db, besides=pid)
    kafka.produce(topic, rows(11, 12, 30, 35))
    for future in kafka.admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        future.result()
    db.execute("SELECT streamext.resume('s')")
    saved(db, "s")
    assert db.value("SELECT missed FROM streamext.stream_partitions") == 2
    wait_for(lambda: db.value("SELECT count(*) FROM v") == 2, what="retention")
    saved(db, "s")
    expected = db.rows("TABLE v ORDER BY w")
    db = crash(db)
    db.flush("s")
    assert db.value("SELECT missed FROM streamext.stream_partitions") == 2
    assert db.rows("TABLE v ORDER BY w") == expected


def test_a_view_that_cannot_start_keeps_its_place(database: Database) -> None:
    """Neither its groups nor the rows that it has yet to count are lost, though the journal is trimmed."""
    db = database
    db.execute("CREATE ROLE app; CREATE FUNCTION twice(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 * 2'")
    local_stream(db, columns="a bigint, t text")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total, array_agg(a) AS list FROM s GROUP BY k")
    continuous(db, "w", "SELECT count(*) AS n, sum(twice(a))::bigint AS total FROM s")
    try:
        db.execute("GRANT CREATE, USAGE ON SCHEMA public TO app; GRANT SELECT ON s TO app; ALTER VIEW w OWNER TO app")
        db.execute("INSERT INTO s SELECT generate_series(0, 99)")
        saved(db, "s")
        db.execute("REVOKE EXECUTE ON FUNCTION twice FROM PUBLIC")
        db = crash(db)
        db.execute("INSERT INTO s SELECT a, repeat('x', 4000) FROM generate_series(100, 9999) AS a")
        wait_for(lambda: db.value("SELECT sum(n) FROM v") == 10_000, what="the other view")
        assert db.value("SELECT state FROM streamext.continuous_views WHERE view = 'w'::regclass") == "failed"
        saved(db)
        db = crash(db)
        db.execute("GRANT EXECUTE ON FUNCTION twice TO PUBLIC; ALTER VIEW w SET (streamext.retention = '1 h')")
        assert_numbers(db, 10_000)
        db.flush("s")
        assert db.rows("TABLE w") == [(10_000, 2 * sum(range(10_000)))]
    finally:
        db.execute("DROP OWNED BY app CASCADE; DROP ROLE app")


@pytest.mark.parametrize("damage", ["E", "P", "row"])
def test_damage_is_found_and_the_view_counted_anew(database: Database, kafka: Kafka, topic: str, damage: str) -> None:
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    continuous(db, "other", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, numbers(0, 5000))
    saved(db, "s")
    db.configure("streamext.checkpoint_interval", "0")
    relid = db.value("SELECT 'v'::regclass::oid")
    if damage == "row":
        db.execute(f"DELETE FROM streamext_internal.checkpoint_log WHERE view = {relid}")
    else:
        db.execute(
            f"""UPDATE streamext_internal.checkpoint_log SET data = set_byte(data, 50, get_byte(data, 50) # 1)
            WHERE kind = '{damage}' AND view IN (0, {relid})"""
        )
    db.execute("CHECKPOINT")
    db = crash(db)
    assert_numbers(db, 5000)
    assert db.rows("TABLE other") == [(5000,)]
    assert "damaged" in db.value("SELECT last_error FROM streamext.streams")
    db.configure("streamext.checkpoint_interval", "50")
    kafka.produce(topic, numbers(5000, 5100))
    saved(db, "s")
    forget(kafka, topic)
    db = crash(db)
    assert_numbers(db, 5100)
    assert db.value("SELECT last_error FROM streamext.streams") is None


def test_dropped_panes_stay_dropped(database: Database, kafka: Kafka, topic: str) -> None:
    """Retention: what the log still holds of them does not come back."""
    db = database
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "ts timestamptz, a int")
    continuous(db, "v", "SELECT streamext.tumble('1 s', ts) AS w, count(*) AS n, array_agg(a) AS list FROM s GROUP BY w",
               ", streamext.retention = '10 s'")  # fmt: skip
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)
    for second in range(40):
        at = (start + timedelta(seconds=second)).isoformat()
        kafka.produce(topic, [f'{{"ts":"{at}","a":{i}}}' for i in range(10)])
        if second % 5 == 0:
            saved(db, "s")
    saved(db, "s")
    wait_for(lambda: db.value("SELECT count(*) FROM v") == 11, what="retention")
    expected = db.rows("TABLE v ORDER BY w")
    forget(kafka, topic)
    db = crash(db)
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM v") == 11, what="retention")
    assert db.rows("TABLE v ORDER BY w") == expected
    wait_for(lambda: db.value("SELECT open_windows FROM streamext.continuous_views") == 1, what="the others in history")
    assert counts(db, "v") == (400, 0, 0)


def log_bytes(db: Database) -> int:
    return db.value("SELECT pg_total_relation_size('streamext_internal.checkpoint_log')")


@pytest.mark.slow
def test_bounded_size_while_a_transaction_is_open(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    db.configure("streamext.checkpoint_interval", "20")
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a bigint")
    continuous(db, "v", "SELECT a % 20000 AS k, count(*) AS n, sum(a) AS total FROM s GROUP BY k")
    open_transaction = db.connect(autocommit=False)
    open_transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    open_transaction.execute("SELECT count(*) FROM pg_class")
    start, largest = db.value("SELECT pg_current_wal_lsn()"), 0
    for i in range(60):
        kafka.produce(topic, numbers(i * 20_000, (i + 1) * 20_000))
        saved(db, "s")
        largest = max(largest, log_bytes(db))
    assert db.value("SELECT pg_current_wal_lsn() - %s::pg_lsn", start) > 60_000_000
    assert largest < 40_000_000
    forget(kafka, topic)
    db = crash(db)
    db.flush("s")
    assert db.rows("SELECT count(*), sum(n), sum(total) FROM v") == [(20_000, 1_200_000, sum(range(1_200_000)))]


@pytest.mark.parametrize("fault", ["compaction-before-commit", "compaction-after-commit"])
def test_a_crash_in_the_compaction(database: Database, kafka: Kafka, topic: str, fault: str) -> None:
    db = database
    db.configure("streamext.checkpoint_interval", "20")
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    local_stream(db, columns="a bigint", name="l")
    continuous(db, "lv", "SELECT count(*) AS n, sum(a)::bigint AS total FROM l")
    db.execute("INSERT INTO l SELECT generate_series(1, 100)")
    continuous(db, "wide", "SELECT a % 20000 AS k, count(*) AS n FROM s GROUP BY k")
    before = db.server.log_file.stat().st_size
    worker_pid(db)
    set_fault(db, fault)
    end = 0
    while "all server processes terminated" not in db.server.log(before):
        assert end < 2_000_000
        kafka.produce(topic, numbers(end, end + 20_000))
        end += 20_000
        try:
            wait_for(lambda: "all server processes terminated" in db.server.log(before), 0.2)
        except TimeoutError:
            pass
    wait_for(db.server.is_ready, what="recovery")
    db = Database(db.server, db.name)
    saved(db, "s", "l")
    assert_numbers(db, end)
    forget(kafka, topic)
    db = crash(db)
    assert_numbers(db, end)
    assert db.rows("TABLE lv") == [(100, 5050)]
    assert db.value("SELECT sum(n) FROM wide") == end


def test_nothing_is_written_while_nothing_comes(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    saved(db, "s")
    before = db.rows("SELECT pid, checkpoint_seq, checkpoint_at FROM streamext.workers")
    with temporary_database(db.server) as other:  # its worker's checkpoints show that the time for some has passed
        local_stream(other, columns="a bigint", name="l")
        for _ in range(20):
            other.execute("INSERT INTO l VALUES (1)")
            saved(other, "l")
    assert db.rows("SELECT pid, checkpoint_seq, checkpoint_at FROM streamext.workers") == before


def test_a_locked_log_delays_checkpoints_only(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    kafka.produce(topic, numbers(0, 10))
    saved(db, "s")
    blocker = db.connect()
    with blocker.transaction():
        blocker.execute("LOCK TABLE streamext_internal.checkpoint_log")
        before = db.value("SELECT checkpoint_seq FROM streamext.workers")
        kafka.produce(topic, numbers(10, 5000))
        assert_numbers(db, 5000)
        assert db.value("SELECT checkpoint_seq FROM streamext.workers") == before
    saved(db, "s")
    forget(kafka, topic)
    db = crash(db)
    assert_numbers(db, 5000)


def test_a_copied_database(database: Database, kafka: Kafka, topic: str) -> None:
    """Views over Kafka go on in the copy as well; a local stream begins there with a journal of its own."""
    db = database
    kafka.create_topic(topic)
    number_stream(db, kafka, topic)
    local_stream(db, columns="a bigint", name="l")
    continuous(db, "lv", "SELECT count(*) AS n FROM l")
    kafka.produce(topic, numbers(0, 100))
    db.execute("INSERT INTO l SELECT generate_series(1, 100)")
    saved(db, "s", "l")
    forget(kafka, topic)
    db.connection.close()
    name = f"{db.name}_copy"
    db.server.psql(f"CREATE DATABASE {name} TEMPLATE {db.name}")
    try:
        copy = Database(db.server, name)
        assert_numbers(copy, 100)
        copy.execute("INSERT INTO l SELECT generate_series(1, 7)")
        copy.flush("l")
        assert copy.rows("TABLE lv") == [(7,)]
        copy.connection.close()
    finally:
        db.server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_log_is_internal(database: Database) -> None:
    db = database
    assert db.value("SELECT reltoastrelid::oid FROM pg_class WHERE oid = 'streamext_internal.checkpoint_log'::regclass") == 0
    local_stream(db, columns="a bigint")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("INSERT INTO s VALUES (1)")
    saved(db, "s")
    assert "checkpoint_log" not in db.server.run("pg_dump", db.name)
    db.execute("CREATE ROLE reader")
    try:
        assert not db.value("SELECT has_table_privilege('reader', 'streamext_internal.checkpoint_log', 'SELECT')")
    finally:
        db.execute("DROP ROLE reader")


def test_many_groups(database: Database, kafka: Kafka, topic: str) -> None:
    """A checkpoint of everything is loaded as it was: nothing is in the topic any more."""
    db = database
    kafka.create_topic(topic)
    groups = 400_000
    kafka_stream(db, kafka, f"topic '{topic}'", "a bigint")
    continuous(db, "v", "SELECT a, count(*) AS n, sum(a) AS total FROM s GROUP BY a")
    kafka.produce(topic, numbers(0, groups))
    saved(db, "s")
    # it is large, but all of it is alive: nothing to compact, which would be done in one go
    assert log_bytes(db) > 17_000_000
    assert db.value("SELECT count(*) FROM streamext_internal.checkpoint_log WHERE kind = 'H'") == 0
    forget(kafka, topic)
    db = crash(db)
    db.flush("s")
    assert db.rows("SELECT count(*), sum(n), sum(total) FROM v") == [(groups, groups, sum(range(groups)))]
    assert state(db) == "running"
