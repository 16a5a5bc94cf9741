"""streamext.into of views with windows: each closed window's rows are in an ordinary table once, and clients are told."""

import json
import os
import random
import signal
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from harness.database import Database
from harness.faults import set_fault, wait_for_crash
from harness.kafka import Kafka, Message
from harness.streams import continuous, counts, error_of, is_alive, kafka_stream, local_stream, worker_pid
from harness.wait import wait_for

COLUMNS = "k int, x int, ts timestamptz"
BY_TS = "event_time 'ts', watermark_delay '5 s'"
BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)

# {source} is the stream or a table with its rows; the second query is the oracle where the first does not run over a table.
TUMBLE = """SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n, sum(x) AS total, array_agg(x ORDER BY x, ts) AS xs
    FROM {source} WHERE x <> 3 GROUP BY k, w HAVING count(*) > 1"""
HOP = "SELECT streamext.hop('10 s', '4 s', ts) + interval '10 s' AS until, avg(x::numeric), max(k) FROM {source} GROUP BY streamext.hop('10 s', '4 s', ts)"
GAPS = "SELECT k, date_trunc('minute', ts) AS minute, count(DISTINCT x), 'of ' || k AS label FROM {source} GROUP BY k, minute"
SPARSE = "SELECT streamext.hop('3 s', '7 s', ts) AS w, count(*), min(x) FROM {source} GROUP BY w"
SESSION = "SELECT k, streamext.session('2 s', ts) AS w, count(*) AS n, max(ts) AS last, string_agg(x::text, ',' ORDER BY ts, x) AS xs FROM {source} GROUP BY k, w"
SESSION_ORACLE = """SELECT k, min(ts), count(*), max(ts), string_agg(x::text, ',' ORDER BY ts, x)
    FROM (SELECT *, sum(opens::int) OVER (PARTITION BY k ORDER BY ts) AS session
          FROM (SELECT *, (ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) <= interval '2 s') IS NOT TRUE AS opens FROM {source}) r) n
    GROUP BY k, session"""
VIEWS = {"tumbling": (TUMBLE, TUMBLE), "hopping": (HOP, HOP), "truncated": (GAPS, GAPS), "sparse": (SPARSE, SPARSE), "sessions": (SESSION, SESSION_ORACLE)}

# Checkpoints, behind which windows are written, come often.
SETTINGS = {"streamext.checkpoint_interval": 200}
TIMEZONE = "UTC"


def create_views(db: Database, options: str = "") -> None:
    """Each view with an empty table of its columns, into_<view>."""
    for name, (query, _) in VIEWS.items():
        continuous(db, "columns", query.format(source="s"))
        db.execute(f"CREATE TABLE into_{name} (LIKE columns); DROP VIEW columns")
        continuous(db, name, query.format(source="s"), f", streamext.into = 'into_{name}'{options}")


def rows(rng: random.Random, count: int, begin: float, seconds: float, jitter: float = 4) -> list[tuple[int, int, datetime]]:
    """Times grow, but for up to 4 s, so that nothing is late."""
    result = []
    for i in range(count):
        at = begin + seconds * i / count - rng.random() * jitter
        result.append((rng.randrange(5), rng.randrange(10), BEGIN + timedelta(milliseconds=int(1000 * at))))
    return result


def insert(db: Database, table: str, values: list[tuple[int, int, datetime]]) -> None:
    with db.connection.cursor() as cursor, cursor.copy(f"COPY {table} (k, x, ts) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)


def close_all(db: Database) -> None:
    """A row so late in time that all other rows' windows are closed; it is of no table."""
    insert(db, "s", [(0, 0, BEGIN + timedelta(hours=1))])


def assert_written(db: Database, views: Collection[str] = VIEWS) -> None:
    """Each window of the rows of o once, and nothing else."""
    for name in views:
        expected = VIEWS[name][1].format(source="o")
        wait_for(lambda: db.value(f"SELECT count(*) FROM into_{name}") >= db.value(f"SELECT count(*) FROM ({expected}) q"), what=f"windows of {name}")
        db.assert_same(f"TABLE into_{name}", expected)


def test_closed_windows_are_written_once(database: Database) -> None:
    db = database
    local_stream(db, BY_TS, COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    create_views(db)
    rng = random.Random(1)
    for step in range(6):
        values = rows(rng, 400, 30 * step, 30)
        insert(db, "s", values)
        insert(db, "o", values)
        db.flush("s")
    # what is closed by now, and nothing else
    until = db.value("SELECT max(ts) - interval '15 s' FROM o")
    closed = f"SELECT * FROM ({TUMBLE.format(source='o')}) q WHERE w <= '{until}'"
    wait_for(lambda: db.value("SELECT count(*) FROM into_tumbling") >= db.value(f"SELECT count(*) FROM ({closed}) q"), what="windows")
    db.assert_same("TABLE into_tumbling", closed)
    close_all(db)
    assert_written(db)
    assert db.rows("SELECT DISTINCT late, rejected FROM streamext.continuous_views") == [(0, 0)]

    # a row that is late is in no window, and the view reads as the table does
    insert(db, "s", [(1, 1, BEGIN + timedelta(seconds=20))])
    db.flush("s")
    assert {late for (late,) in db.rows("SELECT late FROM streamext.continuous_views")} == {1}
    db.execute("ALTER VIEW sessions SET (streamext.lateness = '1 day'); ALTER VIEW tumbling SET (streamext.lateness = '1 day')")
    insert(db, "s", [(1, 1, BEGIN + timedelta(seconds=21)), (1, 2, BEGIN + timedelta(seconds=181))])
    db.flush("s")
    assert counts(db, "sessions")[1] >= 2 and counts(db, "tumbling")[1] == 3
    insert(db, "s", [(0, 0, BEGIN + timedelta(hours=2))])
    db.flush("s")
    assert_written(db, ("tumbling", "sessions"))
    insert(db, "o", [(0, 0, BEGIN + timedelta(hours=1))])  # close_all's, whose windows the others have closed by now
    assert_written(db, ("hopping", "truncated", "sparse"))


@pytest.mark.parametrize("fault", ["into-before-commit", "into-after-commit", "checkpoint-before-commit", "checkpoint-after-commit"])
def test_windows_are_written_once_whatever_crashes(database: Database, fault: str) -> None:
    """Some rows are late. Which ones depends on how rows come together in batches, and so may be another when they are read again;
    but what the table has and what the view reads stays the same."""
    db = database
    local_stream(db, BY_TS, COLUMNS)
    create_views(db)
    rng = random.Random(fault)
    for step in range(4):
        if step in (1, 2):
            before = set_fault(db, fault if step == 1 else "none")
        values = rows(rng, 600, 30 * step, 30, 8)
        try:
            for at in range(0, len(values), 20):
                insert(db, "s", values[at : at + 20])
                db.flush("s")
        except psycopg.OperationalError:
            assert step == 1
        if step == 1:
            wait_for_crash(db, fault, before)
    close_all(db)
    db.flush("s")
    late = [late for (late,) in db.rows("SELECT late FROM streamext.continuous_views")]
    assert any(late), late
    for name, column in (("tumbling", "w"), ("hopping", "until"), ("truncated", "minute"), ("sparse", "w"), ("sessions", "w")):
        closed = f"SELECT * FROM {name} WHERE {column} < '{BEGIN + timedelta(minutes=30)}'"
        wait_for(lambda: db.value(f"SELECT count(*) FROM into_{name}") >= db.value(f"SELECT count(*) FROM ({closed}) q"), what=f"windows of {name}")
        db.assert_same(f"TABLE into_{name}", closed)


def test_windows_from_kafka_while_workers_and_the_server_are_killed(database: Database, kafka: Kafka, topic: str) -> None:
    """Two workers, of which one writes."""
    db = database
    server = db.server
    kafka.create_topic(topic, 4)
    kafka_stream(db, kafka, f"topic '{topic}', workers '2', idle_timeout '1 h', {BY_TS}", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    create_views(db)
    rng = random.Random(2)
    for step in range(5):
        values = rows(rng, 2000, 30 * step, 30)
        insert(db, "o", values)
        kafka.produce(topic, [Message(json.dumps({"k": k, "x": x, "ts": ts.isoformat()}), i % 4) for i, (k, x, ts) in enumerate(values)])
        if step == 2:
            db.flush("s")
        if step % 2:
            pid = worker_pid(db)
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda pid=pid: not is_alive(pid), what="its end")  # else it could be the next one to be killed
        else:
            server.kill_backend(worker_pid(db))
            db = Database(server, db.name)
            db.execute("SET timezone = 'UTC'")
    end = (BEGIN + timedelta(hours=1)).isoformat()
    kafka.produce(topic, [Message(json.dumps({"k": 0, "x": 0, "ts": end}), partition) for partition in range(4)])
    assert_written(db)


def test_clients_are_told(database: Database) -> None:
    db = database
    local_stream(db, BY_TS, COLUMNS)
    db.execute("CREATE TABLE minutes (w timestamptz, n int)")
    db.execute("CREATE TABLE every (k int)")
    continuous(db, "v", "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.into = 'minutes'")
    continuous(db, '"Each one"', "SELECT k FROM s WHERE k > 0", ", streamext.into = 'every'")
    listener = db.connect()
    listener.execute('LISTEN "public.v"; LISTEN "public.Each one"')

    def told() -> tuple[str, dict[str, object]]:
        (notification,) = listener.notifies(timeout=90, stop_after=1)
        return notification.channel, json.loads(notification.payload)

    insert(db, "s", [(0, 0, BEGIN), (1, 0, BEGIN)])
    assert told() == ("public.Each one", {"rows": 1})
    insert(db, "s", [(0, 0, BEGIN + timedelta(minutes=2, seconds=5))])
    channel, payload = told()
    assert channel == "public.v"
    assert datetime.fromisoformat(str(payload["until"])) == BEGIN + timedelta(minutes=2)
    assert payload["rows"] == 1
    assert payload["after"] is None or datetime.fromisoformat(str(payload["after"])) <= BEGIN
    assert listener.execute("TABLE minutes").fetchall() == [(BEGIN, 2)]
    insert(db, "s", [(0, 0, BEGIN + timedelta(minutes=3, seconds=5))])
    channel, payload = told()
    assert datetime.fromisoformat(str(payload["after"])) == BEGIN + timedelta(minutes=2)
    assert db.rows("SELECT written_until FROM streamext_internal.into_window") == [(BEGIN + timedelta(minutes=3),)]


def test_retention_takes_no_window_that_is_not_written(database: Database) -> None:
    """Times go on much faster than the clock."""
    db = database
    local_stream(db, BY_TS, COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    create_views(db, ", streamext.retention = '1 s'")
    rng = random.Random(3)
    for step in range(5):
        values = rows(rng, 200, 3600 * step, 30)
        insert(db, "o", values)
        insert(db, "s", values)
    insert(db, "s", [(0, 0, BEGIN + timedelta(hours=6))])
    db.flush("s")
    assert_written(db)
    wait_for(lambda: db.value("SELECT count(*) FROM tumbling") <= 1, what="retention")
    assert_written(db)


def test_definitions_that_are_refused(database: Database) -> None:
    db = database
    local_stream(db, BY_TS, COLUMNS)
    db.execute("CREATE TABLE t (w timestamptz, n int CHECK (n < 100), k int)")
    w = "streamext.tumble('10 s', ts) AS w"
    refused = {
        "SELECT k, count(*) AS n FROM s GROUP BY k": ("0A000", "without a window"),
        "SELECT count(*) AS n FROM s": ("0A000", "without a window"),
        "SELECT count(*) AS n FROM s WHERE ts > now() - interval '1 min'": ("0A000", "slide over now()"),
        f"SELECT {w}, count(*) AS n FROM s WHERE ts > now() - interval '1 min' GROUP BY w": ("0A000", "slide over now()"),
        f"SELECT {w}, count(*) AS n FROM s GROUP BY w ORDER BY w": ("0A000", "ORDER BY with streamext.into"),
        f"SELECT {w}, count(*) AS n FROM s GROUP BY w LIMIT 1": ("0A000", "LIMIT with streamext.into"),
        f"SELECT DISTINCT {w}, count(*) AS n FROM s GROUP BY w": ("0A000", "DISTINCT with streamext.into"),
        f"SELECT {w}, rank() OVER () AS n FROM s GROUP BY w": ("0A000", "window functions with streamext.into"),
        f"SELECT {w}, count(*) AS m FROM s GROUP BY w": ("42703", '"m"'),
        f"SELECT {w}, max(ts) AS n FROM s GROUP BY w": ("42804", '"n"'),
    }
    for query, (state, message) in refused.items():
        with pytest.raises(psycopg.Error) as error:
            continuous(db, "refused", query, ", streamext.into = 't'")
        assert error_of(error)[0] == state, (query, error.value)
        assert message in error_of(error)[1], (query, error.value)


def test_a_table_that_refuses_a_window_fails_the_view(database: Database) -> None:
    """Nothing is lost meanwhile, and other views go on."""
    db = database
    local_stream(db, BY_TS, COLUMNS)
    db.execute("CREATE TABLE t (w timestamptz, n int CHECK (n < 3)); CREATE TABLE o (k int, x int, ts timestamptz)")
    query = "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM {source} GROUP BY w"
    continuous(db, "v", query.format(source="s"), ", streamext.into = 't'")
    continuous(db, "other", "SELECT count(*) AS n FROM s")
    for second in (0, 11, 12, 13, 22, 40):
        row = [(0, 0, BEGIN + timedelta(seconds=second))]
        insert(db, "s", row)
        insert(db, "o", row)
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'v'::regclass") == "failed", what="the view to fail")
    assert "t_n_check" in db.value("SELECT last_error FROM streamext.continuous_views WHERE view = 'v'::regclass")
    assert db.rows("TABLE t") == db.rows("SELECT * FROM t WHERE n < 3")
    insert(db, "s", [(0, 0, BEGIN + timedelta(seconds=45))])
    insert(db, "o", [(0, 0, BEGIN + timedelta(seconds=45))])
    wait_for(lambda: db.value("SELECT n FROM other") == 7, what="the other view")
    db.execute("ALTER TABLE t DROP CONSTRAINT t_n_check")
    db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous, streamext.into = 't') AS {query.format(source='s')}")
    close_all(db)
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM t") >= 4, what="windows")
    db.assert_same("TABLE t", query.format(source="o"))


@pytest.mark.parametrize("zone, day", [("Australia/Lord_Howe", "2024-04-06"), ("Australia/Lord_Howe", "2024-10-05"), ("Europe/Berlin", "2024-10-26")])
def test_hours_where_clocks_go_back(database: Database, zone: str, day: str) -> None:
    """At Lord Howe by half an hour: what date_trunc calls the next hour starts before the last one ends. Each is written when it is closed."""
    db = database
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"SET timezone = '{zone}'; CREATE TABLE t (w timestamptz, n bigint)")
    continuous(db, "v", "SELECT date_trunc('hour', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.into = 't'")
    continuous(db, "outer_v", "SELECT date_trunc('day', w) AS day, sum(n) AS n FROM v GROUP BY day")
    for minutes in range(13 * 60, 18 * 60, 17):
        db.execute("INSERT INTO s SELECT 1, 1, %s::timestamptz + %s * interval '1 minute'", f"{day} 00:00+00", minutes)
        db.flush("s")
    db.execute("INSERT INTO s SELECT 1, 1, %s::timestamptz + interval '3 days'", f"{day} 00:00+00")
    db.flush("s")
    db.assert_same("TABLE t", f"SELECT w, n FROM v WHERE w < timestamptz '{day} 00:00+00' + interval '2 days'")
    db.assert_same("TABLE outer_v", f"SELECT date_trunc('day', w), sum(n) FROM v WHERE w < timestamptz '{day} 00:00+00' + interval '2 days' GROUP BY 1")
