"""UNION ALL of streams as one input: each row of each part once, against PostgreSQL's own UNION ALL over tables."""

import json
import random
import re

import psycopg
import pytest
from harness.database import Database, temporary_database
from harness.feed import FeedServer
from harness.faults import reconnect, set_fault, wait_for_crash
from harness.flume import Tier
from harness.http import Web
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.streams import continuous, kafka_stream, local_stream, mqtt_stream
from harness.wait import wait_for

A = "k int, x int, ts timestamptz"
B = "name text, v bigint, at timestamptz"

# Checkpoints come often.
SETTINGS = {"streamext.checkpoint_interval": 200, "max_worker_processes": 60, "streamext.max_streams": 100}
TIMEZONE = "UTC"


def streams(db: Database) -> None:
    local_stream(db, "event_time 'ts'", A, "a")
    local_stream(db, "event_time 'at'", B, "b")
    db.execute(f"CREATE TABLE a_o ({A}); CREATE TABLE b_o ({B}); CREATE TABLE names (k int, name text)")
    db.execute("INSERT INTO names SELECT i, 'name ' || i % 3 FROM generate_series(0, 3) AS i")


def feed(db: Database, begin: int, count: int, parts: str = "ab") -> None:
    """Into streams and tables; times of both grow alike, so that nothing is late whatever is read first."""
    for part in parts:
        names = "(k, x, ts)" if part == "a" else ""
        columns = "i % 5, i % 10" if part == "a" else "repeat('x', i % 4), i % 7"
        for table in (part, f"{part}_o"):
            db.execute(f"INSERT INTO {table} {names} SELECT {columns}, '2024-01-01'::timestamptz + i * interval '1 s' FROM generate_series({begin}, {begin + count - 1}) AS i")


def flush(db: Database) -> None:
    db.flush("a")
    db.flush("b")


UNION = "SELECT k, x, ts FROM {a} UNION ALL SELECT length(name), v + 100, at FROM {b}"
QUERIES = {
    "tumble": f"SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) AS total FROM ({UNION}) q GROUP BY k, w",
    "hop": "SELECT src, streamext.hop('2 min', '30 s', t) AS w, count(*) AS n, max(x), min(y) FROM (SELECT 'a' AS src, ts AS t, x, x AS y FROM {a} WHERE x > 2"
    " UNION ALL SELECT name, at, v::int, 7 FROM {b} WHERE v <> 3 UNION ALL SELECT 'again', ts, k, x FROM {a}) q WHERE y < 9 GROUP BY src, w",
    "cte": "WITH q AS (SELECT x AS v, ts FROM {a} UNION ALL SELECT v, at FROM {b}), r AS (SELECT v * 2 AS d FROM q WHERE v > 1) SELECT d, count(*), array_agg(d) FROM r GROUP BY d",
    "totals": f"SELECT count(*) AS n, avg(x), count(DISTINCT k) AS ks, stddev(x) FROM ({UNION}) q",
    "join": f"SELECT n.name, count(*), sum(q.x) FROM ({UNION}) q JOIN names n USING (k) WHERE q.x <> 4 GROUP BY n.name",
    "semi": f"SELECT k, count(*) FROM ({UNION}) q WHERE k IN (SELECT k FROM names WHERE k > 0) GROUP BY k",
    "same": "SELECT k, count(*), sum(x) FROM (SELECT k, x FROM {a} WHERE x < 5 UNION ALL SELECT k, x FROM {a}) q GROUP BY k",
    "twin": "SELECT p, q, count(*), sum(p) AS sp, sum(q) AS sq FROM (SELECT k AS p, k AS q FROM {a} UNION ALL SELECT v::int, length(name) FROM {b}) q GROUP BY p, q",
    "nulls": "SELECT c, count(c) AS cs, count(*) AS n, count(*) FILTER (WHERE d) AS ds FROM (SELECT NULL::text AS c, x > 5 AS d FROM {a} UNION ALL SELECT name, NULL FROM {b}) q GROUP BY c",
    "types": "SELECT max(c), sum(d), min(e) FROM (SELECT x AS c, 1 AS d, 'lit' AS e FROM {a} UNION ALL SELECT v, 1.5, name FROM {b}) q",
    "sets": f"SELECT GROUPING(k), k, streamext.tumble('5 min', ts) AS w, count(*) FROM ({UNION}) q GROUP BY ROLLUP (k), streamext.tumble('5 min', ts)",
    "distinct": "SELECT DISTINCT c FROM (SELECT x AS c FROM {a} UNION ALL SELECT v FROM {b}) q",
    "rows": "SELECT x, 'a' AS src FROM {a} WHERE x = 3 UNION ALL SELECT v, name FROM {b} WHERE v = 2",
}
SESSION = f"SELECT k, streamext.session('3 s', ts) AS w, count(*) AS n FROM ({UNION}) q GROUP BY k, w"
SESSION_ORACLE = f"""SELECT k, min(ts) AS w, count(*) AS n
    FROM (SELECT *, sum(opens::int) OVER (PARTITION BY k ORDER BY ts) AS session
          FROM (SELECT *, (ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) <= interval '3 s') IS NOT TRUE AS opens FROM ({UNION}) r) r) n
    GROUP BY k, session"""


def oracle(query: str) -> str:
    return query.format(a="a_o", b="b_o")


def create(db: Database, names: list[str]) -> dict[str, str]:
    """Views of these names with their oracles."""
    for name in names:
        continuous(db, f"v_{name}", QUERIES[name].format(a="a", b="b"))
    return {f"v_{name}": oracle(QUERIES[name]) for name in names}


def assert_all(db: Database, views: dict[str, str]) -> None:
    for name, query in views.items():
        db.assert_same(f"TABLE {name}", query)
    lost = db.rows("SELECT view::text, state, late, rejected, last_error FROM streamext.continuous_views WHERE late > 0 OR rejected > 0 OR state = 'failed'")
    assert not lost, lost


def test_each_row_of_each_part_once(database: Database) -> None:
    db = database
    streams(db)
    views = create(db, list(QUERIES))
    continuous(db, "v_session", SESSION.format(a="a", b="b"))
    views["v_session"] = oracle(SESSION_ORACLE)
    # parts that are derived streams, and an ordinary view that is the UNION ALL
    continuous(db, "big", "SELECT k, x + 1 AS x, ts FROM a WHERE x > 3")
    db.execute("CREATE VIEW all_of_them AS SELECT k, x, ts FROM big UNION ALL SELECT 1, v, at FROM b")
    continuous(db, "v_derived", "SELECT k, sum(x) FROM (SELECT * FROM all_of_them) q GROUP BY k")
    views["v_derived"] = "SELECT k, sum(x) FROM (SELECT k, x + 1 AS x FROM a_o WHERE x > 3 UNION ALL SELECT 1, v FROM b_o) q GROUP BY k"
    continuous(db, "v_over", "SELECT streamext.tumble('5 min', w) AS w, sum(n) AS n FROM v_tumble GROUP BY streamext.tumble('5 min', w)")
    feed(db, 0, 400)
    flush(db)
    feed(db, 400, 400)
    flush(db)
    assert_all(db, views)
    counted = "SELECT sum(n) FROM v_tumble WHERE w < '2024-01-01 00:10:00'"
    assert db.value("SELECT sum(n) FROM v_over WHERE w < '2024-01-01 00:10:00'") == db.value(counted)
    assert "Union All Of: a, b" in "\n".join(line for (line,) in db.rows("EXPLAIN TABLE v_tumble"))
    assert db.rows("SELECT topic FROM streamext.view_positions('v_tumble') ORDER BY topic") == [("local of a",), ("local of b",)]
    listed = "SELECT topic, shard, position FROM streamext.stream_partitions WHERE stream = 'v_tumble'::regclass ORDER BY topic"
    assert [row[:2] for row in db.rows(listed)] == [("local of a", 0), ("local of b", 1)]
    assert sorted(row[2] for row in db.rows(listed)) == sorted(row[1] for row in db.rows("SELECT * FROM streamext.view_positions('v_tumble')"))
    assert db.rows("SELECT stream::text, position > 0 FROM streamext.stream_partitions WHERE stream = 'v_over'::regclass") == [("v_over", True)]
    assert db.rows("SELECT streams::text, stream::text FROM streamext.continuous_views WHERE view IN ('v_tumble'::regclass, 'big'::regclass, 'v_derived'::regclass) ORDER BY view") == [
        ("{a,b}", "v_tumble"), ("{a}", "a"), ("{a,b}", "v_derived")
    ]  # fmt: skip
    assert db.value("SELECT detail FROM streamext.check('a') WHERE what = 'views'") == f"{len(QUERIES) + 3} continuous views read the stream, {len(QUERIES) + 2} of them by UNION ALL"
    assert db.rows("SELECT state, accepted FROM streamext.continuous_views WHERE view = 'v_tumble'::regclass") == [("running", 1600)]
    db.execute("SELECT streamext.rebuild('v_hop')")
    flush(db)
    db.assert_same("TABLE v_hop", views["v_hop"])


@pytest.mark.parametrize("fault", ["batch-before-commit", "batch-after-commit", "checkpoint-before-commit", "checkpoint-before-confirm"])
def test_whatever_crashes(database: Database, fault: str) -> None:
    """Rows go into streams and tables by one transaction, so that both have them or neither."""
    db = database
    server = db.server
    streams(db)
    views = create(db, ["tumble", "same", "twin"])
    rng = random.Random(fault)
    for step in range(3):
        if step == 1:
            before = set_fault(db, fault)
        try:
            with db.connection.transaction():
                feed(db, 500 * step, 500, rng.choice(["ab", "ba"]))
            flush(db)
        except psycopg.OperationalError:
            assert step == 1
        if step != 1:
            continue
        wait_for_crash(db, fault, before)
        configuration = server.data / "postgresql.auto.conf"
        configuration.write_text(configuration.read_text().replace(fault, "none"))
        server.reload()
        reconnect(db)
        wait_for(lambda: db.value("SHOW streamext.fault_point") == "none", what="the setting")
        if db.value("SELECT count(*) FROM b_o") == 500:
            feed(db, 500, 500)
    assert_all(db, views)


def watermark(db: Database) -> list[tuple[object, ...]]:
    return db.rows("SELECT w::text, n FROM closed ORDER BY w")


def test_the_least_watermark_counts(database: Database) -> None:
    """But for parts that are idle. Nothing of a part that lags is late, and no window closes before it."""
    db = database
    local_stream(db, "event_time 'ts', idle_timeout '1 s'", A, "a")
    local_stream(db, "event_time 'at', idle_timeout '1 h'", B, "b")
    db.execute("CREATE TABLE closed (k int, w timestamptz, n bigint, total numeric)")
    continuous(db, "v", QUERIES["tumble"].format(a="a", b="b"), ", streamext.into = 'closed'")
    db.execute("INSERT INTO a VALUES (1, 1, '2024-01-01 12:00:30'), (1, 1, '2024-01-01 12:10:00')")
    flush(db)
    assert watermark(db) == []
    db.execute("INSERT INTO b VALUES ('x', 1, '2024-01-01 12:00:10'), ('x', 1, '2024-01-01 12:05:00')")
    flush(db)
    assert watermark(db) == [("2024-01-01 12:00:00+00", 2)]
    # behind the watermark of its own part, and not behind the least
    db.execute("INSERT INTO a VALUES (1, 1, '2024-01-01 12:06:00')")
    flush(db)
    assert db.rows("SELECT accepted, late FROM streamext.continuous_views WHERE view = 'v'::regclass") == [(5, 0)]
    db.execute("INSERT INTO a VALUES (1, 1, '2024-01-01 12:00:40')")
    flush(db)
    assert db.rows("SELECT accepted, late FROM streamext.continuous_views WHERE view = 'v'::regclass") == [(5, 1)]
    # a is idle after a second, and holds nothing back
    db.execute("INSERT INTO b VALUES ('x', 1, '2024-01-01 13:00:00')")
    wait_for(lambda: (flush(db), watermark(db))[1] == [("2024-01-01 12:00:00+00", 2), ("2024-01-01 12:05:00+00", 1), ("2024-01-01 12:06:00+00", 1), ("2024-01-01 12:10:00+00", 1)], what="windows of a")


def test_kafka_beside_local_and_two_workers(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic, 3)
    messages = [f'{{"k": {i % 5}, "x": {i % 10}, "ts": "2024-01-01T00:{i // 60:02}:{i % 60:02}Z"}}' for i in range(1000)]
    kafka.produce(topic, [*messages[:500], "no json"])
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h', workers '2'", A, "a")
    local_stream(db, "event_time 'at', watermark_delay '1 h'", B, "b")
    db.execute(f"CREATE TABLE a_o ({A}); CREATE TABLE b_o ({B})")
    views = create(db, ["tumble", "hop", "same"])
    feed(db, 0, 300, "b")
    kafka.produce(topic, messages[500:])
    for message in messages:
        db.execute("INSERT INTO a_o SELECT * FROM json_populate_record(NULL::a_o, %s)", message)
    flush(db)
    for name, query in views.items():
        db.assert_same(f"TABLE {name}", query)
    counts = db.rows("SELECT accepted, late, rejected FROM streamext.continuous_views WHERE view = 'v_tumble'::regclass")
    assert counts == [(1300, 0, 1)]
    assert db.value("SELECT count(*) FROM streamext.view_positions('v_tumble')") == 4
    assert db.value("SELECT count(DISTINCT stream) FROM streamext.dead_letters WHERE payload = 'no json'") >= 2


def accepted(db: Database, view: str = "v_totals") -> int:
    return db.value(f"SELECT accepted FROM streamext.continuous_views WHERE view = '{view}'::regclass")


def test_a_journal_stays_for_who_reads_it(database: Database) -> None:
    """Up to half of its limit: a view that is stuck does not keep the stream from taking rows, and is told what it has missed."""
    db = database
    local_stream(db, "event_time 'ts'", "k int, x int, ts timestamptz, pad text", "a")
    local_stream(db, "event_time 'at'", B, "b")
    continuous(db, "v_totals", QUERIES["totals"].format(a="a", b="b"))
    size = "SELECT journal_bytes FROM streamext.stream_partitions WHERE stream = 'a'::regclass"

    def insert(count: int) -> None:
        db.execute(f"INSERT INTO a SELECT 1, 1, '2024-01-01', repeat(md5(i::text), 1000) FROM generate_series(1, {count}) AS i")
        db.flush("a")

    db.execute("SELECT streamext.pause('v_totals')")
    for _ in range(4):
        insert(500)
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.workers WHERE checkpoint_pending") == 0, what="checkpoints")
    assert accepted(db) == 0
    assert db.value(size) > 50_000_000
    db.execute("SELECT streamext.resume('v_totals')")
    wait_for(lambda: (db.flush("a"), accepted(db))[1] == 2000, what="all rows")
    insert(1)
    wait_for(lambda: (insert(1), db.value(size))[1] < 35_000_000, what="the journal to be trimmed")
    db.execute("ALTER SYSTEM SET streamext.journal_limit = '64MB'")
    db.server.reload()
    wait_for(lambda: db.value("SHOW streamext.journal_limit") == "64MB", what="the limit")
    db.execute("SELECT streamext.pause('v_totals')")
    for _ in range(6):
        insert(500)
        wait_for(lambda: db.value(size) < 55_000_000, what="room in the journal")
    db.execute("SELECT streamext.resume('v_totals')")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.stream_events WHERE kind = 'gap' AND stream = 'v_totals'::regclass") > 0, what="the gap")
    db.execute("ALTER SYSTEM RESET streamext.journal_limit")
    db.server.reload()


def test_ddl(database: Database) -> None:
    db = database
    streams(db)
    views = create(db, ["totals", "tumble"])
    feed(db, 0, 100)
    flush(db)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute("DROP FOREIGN TABLE b")
    with pytest.raises(psycopg.errors.ObjectInUse):
        db.execute("ALTER FOREIGN TABLE b OPTIONS (DROP event_time)")
    assert db.refusal("ALTER FOREIGN TABLE b DROP COLUMN v").startswith("2BP01")
    assert db.refusal("ALTER FOREIGN TABLE b ALTER COLUMN v TYPE int").startswith("0A000")
    db.execute("ALTER FOREIGN TABLE a ADD COLUMN more text")
    db.execute("ALTER FOREIGN TABLE b RENAME COLUMN v TO value")
    db.execute("SELECT streamext.pause('a')")
    db.execute("INSERT INTO b SELECT * FROM b_o; INSERT INTO a (k, x, ts) SELECT * FROM a_o")
    db.flush("b")
    wait_for(lambda: accepted(db) == 300, what="the part that is not paused")
    db.execute("SELECT streamext.resume('a')")
    wait_for(lambda: (flush(db), accepted(db))[1] == 400, what="the other part")
    db.execute("INSERT INTO a_o SELECT * FROM a_o; INSERT INTO b_o SELECT * FROM b_o")
    db.assert_same("TABLE v_totals", views["v_totals"])
    db.execute("CREATE OR REPLACE VIEW v_tumble WITH (streamext.continuous) AS SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) AS total"
               " FROM (SELECT 1 AS k, x::numeric, ts FROM a UNION ALL SELECT 2, 1, ts FROM a) q GROUP BY k, w")
    db.execute("DROP FOREIGN TABLE b CASCADE")
    assert db.rows("SELECT view::text FROM streamext.continuous_views") == [("v_tumble",)]
    feed(db, 100, 200, "a")
    counted = "SELECT coalesce(sum(n), 0)::int FROM v_tumble WHERE k = "
    wait_for(lambda: (db.flush("a"), db.value(counted + "2"))[1] == 200, what="the part that is new there: from now on")
    assert db.value(counted + "1") == 400, "what the journal holds since the view was made"
    db.execute("DROP VIEW v_tumble")
    wait_for(lambda: db.rows("SELECT DISTINCT stream::text FROM streamext.workers") == [("a",)], what="the view's workers to go")


def test_parts_are_told_apart_in_tables(database: Database) -> None:
    """Parts have the same topic and positions each of its own: where a view with `into` stands, letters and late rows."""
    db = database
    server = db.server
    streams(db)
    db.execute("CREATE TABLE copies (x bigint, ts timestamptz)")
    copied = "SELECT x, ts FROM {a} UNION ALL SELECT v, at FROM {b} UNION ALL SELECT k, ts FROM {a} WHERE x > 5"
    continuous(db, "v_copies", copied.format(a="a", b="b"), ", streamext.into = 'copies'")
    continuous(db, "v_divided", "SELECT streamext.tumble('1 min', ts) AS w, sum(60 / x) FROM (SELECT x, ts FROM a UNION ALL SELECT v, at FROM b) q GROUP BY w", ", streamext.keep_late")
    feed(db, 0, 1000, "a")
    db.flush("a")
    feed(db, 0, 10, "b")
    flush(db)
    db.assert_same("TABLE copies", oracle(copied))
    server.kill9()
    server.start()
    db = Database(server, db.name)
    feed(db, 1000, 20)
    flush(db)
    db.assert_same("TABLE copies", oracle(copied))
    db.execute("INSERT INTO a VALUES (1, 7, '2020-01-01'); INSERT INTO b VALUES ('b', 7, '2020-01-01')")
    flush(db)
    counts = db.rows("SELECT accepted, late, rejected FROM streamext.continuous_views WHERE view = 'v_divided'::regclass")
    letters = "SELECT topic, count(*) FROM streamext.dead_letters GROUP BY topic ORDER BY topic"
    assert counts == [(1050 - 102 - 5, 2, 102 + 5)]
    assert db.rows(letters) == [("local of a", 102), ("local of b", 5)]
    assert db.rows("SELECT topic FROM streamext.late_rows ORDER BY topic") == [("local of a",), ("local of b",)]
    assert db.value("SELECT accepted FROM streamext.continuous_views WHERE view = 'v_copies'::regclass") == 1021 + 31 + 1021
    assert db.value("SELECT streamext.retry_dead_letters('b', 'v_divided')") == 5
    flush(db)
    assert db.rows(letters)[0] == ("local of a", 102)
    left = db.value("SELECT count(*) FROM streamext.dead_letters")
    assert db.value("SELECT streamext.retry_dead_letters('v_divided')") == left
    flush(db)
    accepted, late, rejected = db.rows("SELECT accepted, late, rejected FROM streamext.continuous_views WHERE view = 'v_divided'::regclass")[0]
    assert (accepted, late + rejected) == (1050 - 102 - 5, 2 + 102 + 5), "they divide by zero as before, or their windows are closed"


DENIED = {
    "written": "SELECT count(*) FROM (SELECT x FROM a UNION ALL SELECT v FROM b) q",
    "rows": "SELECT x FROM a UNION ALL SELECT v FROM b",
    "with": "WITH q AS (SELECT x FROM a UNION ALL SELECT v FROM b) SELECT count(*) FROM q",
    "subquery": "SELECT count(*) FROM (SELECT * FROM b) q",
    "joined": "SELECT count(*) FROM a WHERE k IN (SELECT k FROM names)",
    "through a view": "SELECT count(*) FROM (SELECT x FROM a UNION ALL SELECT v FROM hidden) q",
}


def test_rights(database: Database) -> None:
    """Who may not read a part makes no view over it; through an ordinary view that he may read he does, and sees none of its stream's records."""
    db = database
    streams(db)
    db.execute("CREATE ROLE joint; CREATE ROLE keeper; GRANT CREATE ON SCHEMA public TO joint, keeper; GRANT SELECT ON a TO joint; GRANT SELECT ON a, b TO keeper")
    try:
        db.execute("SET ROLE keeper; CREATE VIEW hidden AS SELECT v FROM b; CREATE VIEW shown WITH (security_barrier) AS SELECT v, at FROM b WHERE v <> 5;"
                   " CREATE VIEW both_parts AS SELECT x, ts FROM a UNION ALL SELECT v, at FROM b WHERE v <> 5; GRANT SELECT ON shown, both_parts TO joint; RESET ROLE; SET ROLE joint")
        for name, query in DENIED.items():
            assert db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {query}").startswith("42501"), name
        mine = "SELECT streamext.tumble('1 min', ts) AS w, sum(60 / x) AS total FROM ({query}) q GROUP BY w"
        continuous(db, "v", mine.format(query="SELECT x::bigint, ts FROM a"))
        refused = mine.format(query="SELECT x, ts FROM a UNION ALL SELECT v, at FROM b")
        assert db.refusal(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS {refused}").startswith("42501")
        db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS {mine.format(query='SELECT x, ts FROM a UNION ALL SELECT v, at FROM shown')}")
        db.execute("RESET ROLE; SET ROLE keeper")
        continuous(db, "theirs", mine.format(query="TABLE both_parts"), ", streamext.keep_late")
        db.execute("GRANT SELECT ON theirs TO joint; RESET ROLE")
        feed(db, 0, 20)
        flush(db)
        db.execute("INSERT INTO b VALUES ('secret', 7, '2020-01-01')")
        flush(db)
        db.execute("SET ROLE joint")
        db.assert_same("TABLE v", "SELECT w, sum(total) FROM theirs GROUP BY w")
        assert db.value("SELECT count(*) FROM streamext.dead_letters WHERE view = 'theirs'::regclass") == 5
        assert db.value("SELECT count(*) FROM streamext.dead_letters WHERE payload IS NOT NULL OR (reason = 'division by zero' AND view = 'theirs'::regclass)") == 0
        assert db.rows("SELECT view::text, payload FROM streamext.late_rows") == [("theirs", None)]
        db.execute("RESET ROLE; REVOKE SELECT ON b FROM keeper")
        wait_for(lambda: db.rows("SELECT DISTINCT state FROM streamext.continuous_views") == [("failed",)], what="failed")
        db.execute("SET ROLE joint")
        assert db.refusal("TABLE v").startswith("42501")
        db.execute("RESET ROLE; ALTER VIEW shown OWNER TO postgres")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'v'::regclass") == "running", what="running")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY joint CASCADE; DROP OWNED BY keeper CASCADE; DROP ROLE joint; DROP ROLE keeper")


def test_dump_and_restore(database: Database) -> None:
    """The same statements come back, and what the streams get then is counted."""
    db = database
    streams(db)
    views = create(db, ["tumble", "twin", "join", "same"])
    continuous(db, "v_derived", "SELECT k, x, ts FROM a WHERE x > 3 UNION ALL SELECT 1, v, at FROM b")
    db.execute("CREATE VIEW all_of_them AS SELECT k, x, ts FROM a UNION ALL SELECT 1, v, at FROM b")
    continuous(db, "v_all", "SELECT k, sum(x) FROM all_of_them GROUP BY k")
    views["v_all"] = "SELECT k, sum(x) FROM (SELECT k, x FROM a_o UNION ALL SELECT 1, v FROM b_o) q GROUP BY k"
    db.execute("CREATE TABLE copies (x bigint)")
    continuous(db, "v_copies", "SELECT x FROM a UNION ALL SELECT v FROM b", ", streamext.into = 'copies'")
    feed(db, 0, 300)
    flush(db)
    with temporary_database(db.server) as copy:

        def dump(of: Database) -> str:
            return re.sub(r"^\\(un)?restrict .*\n", "", of.server.run("pg_dump", of.name), flags=re.MULTILINE)

        script = dump(db)
        db.server.psql(script, copy.name)
        assert dump(copy) == script
        copy.execute("SET timezone = 'UTC'; INSERT INTO a SELECT * FROM a_o; INSERT INTO b SELECT * FROM b_o")
        flush(copy)
        assert_all(copy, views)
        copy.assert_same("TABLE copies", "SELECT x FROM a_o UNION ALL SELECT v FROM b_o UNION ALL SELECT x FROM a_o UNION ALL SELECT v FROM b_o")
        copy.connection.close()


def test_mqtt_beside_http(database: Database, mosquitto: Mosquitto, topic: str) -> None:
    db = database
    web = Web(db)
    web.stream(A, "event_time 'ts', watermark_delay '1 h'", "a", "/a")
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', event_time 'at', watermark_delay '1 h'", B, "b")
    db.execute(f"CREATE TABLE a_o ({A}); CREATE TABLE b_o ({B})")
    views = create(db, ["tumble", "hop", "twin"])
    flush(db)
    for begin in (0, 100):
        posted = [{"k": i % 5, "x": i % 10, "ts": f"2024-01-01T00:00:{i % 60:02}Z"} for i in range(begin, begin + 100)]
        published = [{"name": "x" * (i % 4), "v": i % 7, "at": f"2024-01-01T00:01:{i % 60:02}Z"} for i in range(begin, begin + 100)]
        assert web.post(posted, "/a").status == 204
        mosquitto.publish([(f"{topic}/{row['v']}", json.dumps(row)) for row in published])
        db.execute("INSERT INTO a_o SELECT * FROM json_populate_recordset(NULL::a_o, %s)", json.dumps(posted))
        db.execute("INSERT INTO b_o SELECT * FROM json_populate_recordset(NULL::b_o, %s)", json.dumps(published))
        flush(db)
    assert_all(db, views)


def test_flume_beside_a_feed(database: Database) -> None:
    """Both are brought, into journals that the view reads too: before and after a crash."""
    db = database
    server = db.server
    source = FeedServer()
    try:
        tier = Tier(db)
        tier.stream("n int", name="f")
        db.execute(f"CREATE SERVER feed_server FOREIGN DATA WRAPPER feed OPTIONS (url '{source.url()}')")
        db.execute("CREATE FOREIGN TABLE d (n int) SERVER feed_server OPTIONS (format 'json')")
        continuous(db, "v", "SELECT src, count(*)::int AS c, sum(n)::int AS total FROM (SELECT 'f' AS src, n FROM f UNION ALL SELECT 'd', n FROM d) q GROUP BY src")
        for step in range(2):
            connection = source.take()
            connection.begin()
            connection.send("".join(f'{{"n": {n}}}\n' for n in range(100 * step, 100 * step + 100)))
            with tier.sender() as sender:
                assert sender.batch([({}, json.dumps({"n": n}).encode()) for n in range(100 * step, 100 * step + 100)]) is None
            count = 100 * (step + 1)
            db.flush("f")
            wait_for(lambda: sorted(db.rows("TABLE v")) == [(src, count, sum(range(count))) for src in ("d", "f")], what="both")
            if step == 0:
                server.kill9()
                server.start()
                db = tier.db = Database(server, db.name)
                tier.wait("listening")
    finally:
        source.close()


def test_a_view_that_reads_one_part_alone_from_now_on(database: Database) -> None:
    """The view's own stream goes, and the part's takes the view, whichever worker is the first to look."""
    db = database
    streams(db)
    db.execute("CREATE TABLE copies (x bigint)")
    option = ", streamext.into = 'copies'"
    for i in range(6):
        continuous(db, "v", "SELECT x FROM a UNION ALL SELECT v FROM b", option)
        db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous, streamext.into = 'copies') AS SELECT x::bigint FROM a")
        db.execute("INSERT INTO a VALUES (1, 1, '2024-01-01')")
        db.flush("a")
        wait_for(lambda: db.value("SELECT count(*) FROM copies") == i + 1, 30, "the row")
        db.execute("DROP VIEW v")


def test_circles_are_refused(database: Database) -> None:
    db = database
    streams(db)
    with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="closes a circle"):
        db.execute("CREATE VIEW c WITH (streamext.continuous, streamext.into = 'b') AS SELECT name, v, at FROM b UNION ALL SELECT 'a', x, ts FROM a")


def test_a_role_takes_no_more_than_its_share_of_places(database: Database) -> None:
    """SELECT on a stream is enough for views of many parts."""
    db = database
    streams(db)
    parts = " UNION ALL ".join(["SELECT k FROM a"] * 5)
    query = f"SELECT count(*) FROM ({parts}) q"
    db.configure("streamext.owner_stream_share", "10")  # of 100 places
    db.execute("CREATE ROLE greedy; GRANT CREATE ON SCHEMA public TO greedy; GRANT SELECT ON a TO greedy; SET ROLE greedy")
    try:
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match='role "greedy"'), db.connection.transaction():
            for i in range(3):
                continuous(db, f"v{i}", query)
        continuous(db, "v0", query)
        continuous(db, "v1", query)
        refusal = db.refusal("CREATE VIEW v2 WITH (streamext.continuous) AS SELECT k FROM a UNION ALL SELECT x FROM a")
        assert refusal.startswith("53400") and "streamext.owner_stream_share" in refusal, refusal
        db.execute(f"CREATE OR REPLACE VIEW v1 WITH (streamext.continuous) AS {query.replace('count(*)', 'count(k) AS count')}")
        db.execute("RESET ROLE")
        continuous(db, "v2", query)
        assert db.refusal("ALTER VIEW v2 OWNER TO greedy").startswith("53400")
        server = db.server
        server.kill9()
        server.start()
        db = Database(server, db.name)
        db.flush("a")
        workers = "SELECT count(*) FROM streamext.workers WHERE stream::text ~ '^v[01]' AND pid IS NOT NULL"
        wait_for(lambda: db.value(workers) == 10, what="workers")
        db.execute("SET ROLE greedy")
        assert db.refusal("CREATE VIEW v3 WITH (streamext.continuous) AS SELECT k FROM a UNION ALL SELECT x FROM a").startswith("53400")
        db.execute("DROP VIEW v0")
        db.execute("RESET ROLE")
        wait_for(lambda: db.rows("SELECT DISTINCT stream::text FROM streamext.workers WHERE stream::text ~ '^v' ORDER BY 1") == [("v1",), ("v2",)], what="v0 to go")
        db.execute("SET ROLE greedy")
        continuous(db, "v3", "SELECT k FROM a UNION ALL SELECT x FROM a")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY greedy CASCADE; DROP ROLE greedy")
        db.configure("streamext.owner_stream_share", "50")


def test_an_inner_top_n_is_for_an_ordinary_view(database: Database) -> None:
    db = database
    streams(db)
    inner = "SELECT date_trunc('minute', ts) AS m, k, count(*) AS n, row_number() OVER (PARTITION BY date_trunc('minute', ts) ORDER BY count(*) DESC, k) AS r FROM {a} GROUP BY 1, 2"
    with pytest.raises(psycopg.errors.FeatureNotSupported) as raised:
        continuous(db, "v", f"SELECT m, k FROM ({inner.format(a='a')}) q WHERE r < 3")
    hint = raised.value.diag.message_hint
    assert "and an ordinary view that names inner_view" in hint, hint
    db.execute(re.search(r"CREATE VIEW inner_view .*?(?=; and an)", hint, re.DOTALL)[0])
    db.execute("CREATE VIEW v AS SELECT m, k FROM inner_view q WHERE r < 3")
    feed(db, 0, 600, "a")
    db.flush("a")
    db.assert_same("TABLE v", oracle(f"SELECT m, k FROM ({inner}) q WHERE r < 3"))


def test_too_many_parts_for_the_server(database: Database) -> None:
    """It is the streams' places that there are not enough of."""
    db = database
    streams(db)
    parts = " UNION ALL ".join(["SELECT k FROM a"] * 16)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="too many streams"), db.connection.transaction():
        for i in range(7):
            continuous(db, f"v{i}", f"SELECT count(*) FROM ({parts}) q")
