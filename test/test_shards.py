"""streamext.shard_view: one view over the continuous views of several servers, as PostgreSQL would answer over all rows."""

import contextlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from crash.faults import kill_all
from harness import views
from harness.database import Database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.streams import continuous, error_of, local_stream
from harness.wait import wait_for
from test_merge import AGGREGATES, COLUMNS, OUTPUTS, ROWS, START

LONGEST = """CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS
    'SELECT CASE WHEN $1 IS NULL OR length($2) > length($1) OR length($2) = length($1) AND $2 > $1 THEN $2 ELSE $1 END';
    CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text, COMBINEFUNC = longer)"""

# {0} is the stream or a table, {1} the event time's bound
VIEWS = {
    "everything": f"SELECT k, {OUTPUTS} FROM {{0}} GROUP BY k",
    "hopping": "SELECT k, streamext.hop('30 s', '10 s', ts) AS w, count(*) AS n, round(avg(n), 3) AS mean, avg(f) / count(*) AS odd FROM {0} WHERE i > 2 GROUP BY k, w HAVING count(*) > 5",
    "hidden": "SELECT count(*) AS n, max(t) AS last FROM {0} GROUP BY k, v HAVING bool_or(v)",
    "truncated": "SELECT date_trunc('minute', ts) AS w, v, count(DISTINCT i) AS i, string_agg(t, ',' ORDER BY t, i) AS ts FROM {0} GROUP BY 1, 2",
    "total": "SELECT count(*) AS n, sum(n) AS s, array_agg(i ORDER BY i) AS a FROM {0}",
    "nothing": "SELECT count(*) AS n, sum(i) AS s FROM {0} WHERE i > 100",
    "sets": "SELECT k, v, grouping(k, v) AS g, count(*) AS n, avg(b) AS b FROM {0} GROUP BY GROUPING SETS ((k, v), (k), ())",
    "ranked": "SELECT k, count(*) AS n, rank() OVER (ORDER BY sum(i) DESC, k) AS r FROM {0} GROUP BY k ORDER BY r LIMIT 3",
    "keys": "SELECT k, v FROM {0} GROUP BY k, v",
    "sliding": "SELECT k, count(*) AS n, max(ts) FROM {0} WHERE ts > {1} - interval '1 minute' GROUP BY k",
}


def prepared(server: Postgres, name: str) -> Database:
    """A new database with what the views need."""
    server.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    server.psql(f"CREATE DATABASE {name}")
    database = Database(server, name)
    database.execute("CREATE EXTENSION streamext")
    return database


@pytest.fixture
def shards(pg: Postgres) -> Iterator[list[Database]]:
    """Two databases: for what merges them they are as two servers are."""
    found = [prepared(pg, f"shard_{i}") for i in range(2)]
    yield found
    for i, shard in enumerate(found):
        shard.connection.close()
        pg.psql(f"DROP DATABASE shard_{i} WITH (FORCE)")


def connect(db: Database, shards: list[Database]) -> None:
    """Servers a, b, ... of postgres_fdw."""
    if not db.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this PostgreSQL has no postgres_fdw")
    db.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
    for name, shard in zip("abc", shards, strict=False):
        db.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{shard.server.port}', dbname '{shard.name}', connect_timeout '5')")
        db.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER {name} OPTIONS (user 'postgres')")


def shared(db: Database, view: str, away: str = "error") -> str:
    return db.value("SELECT streamext.shard_view(%s, ARRAY['a', 'b'], %s)::text", view, away)


def test_every_kind_of_view(db: Database, shards: list[Database]) -> None:
    connect(db, shards)
    db.execute(LONGEST)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    db.execute(f"INSERT INTO o {ROWS}")
    for i, shard in enumerate(shards):
        shard.execute(LONGEST)
        shard.execute("SELECT streamext.set_clock('2024-05-01 12:25:00+00')")
        local_stream(shard, "event_time 'ts'", COLUMNS)
        for name, query in VIEWS.items():
            continuous(shard, name, query.format("s", "now()"))
        shard.execute(f"INSERT INTO s SELECT * FROM ({ROWS}) r (k, ts) WHERE extract(second FROM ts)::int % 2 = {i}")
        shard.flush("s")
    for name, query in VIEWS.items():
        assert shared(db, f"public.{name}") == f"{name}_shards"
        db.assert_same(f"TABLE {name}_shards", query.format("o", "timestamptz '2024-05-01 12:25:00+00'"))
    for shard in shards:
        shard.execute("SELECT streamext.set_clock(NULL)")
    columns = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"
    assert db.rows(columns, "everything_shards") == shards[0].rows(columns, "everything")
    assert len(AGGREGATES) >= 40

    # keys and windows are sent, and looked up there
    plan = "\n".join(line for (line,) in db.rows("EXPLAIN (VERBOSE) SELECT n FROM hopping_shards WHERE k = 'k1' AND w >= '2024-05-01 12:10:00+00'"))
    assert plan.count("((k1 = 'k1'))") == 2 and plan.count("k2 >= '2024-05-01") == 2 and "Async Foreign Scan" in plan
    there = "\n".join(line for (line,) in shards[0].rows("EXPLAIN SELECT k1, a1 FROM hopping_shard_rows WHERE k1 = 'k1'"))
    assert "hash look-up on (k)" in there
    db.assert_same("SELECT * FROM hopping_shards WHERE k = 'k1' AND w >= '2024-05-01 12:10:00+00'", f"SELECT * FROM ({VIEWS['hopping'].format('o', '')}) q WHERE k = 'k1' AND w >= '2024-05-01 12:10:00+00'")
    assert [(row[0], row[2]) for row in db.rows("SELECT server, partitions, state, watermark FROM hopping_shards_state ORDER BY server")] == [("a", "running"), ("b", "running")]


def test_sessions(db: Database, shards: list[Database]) -> None:
    """A session's rows may be on any of the servers, and be one only through another's."""
    connect(db, shards)
    rng = random.Random(7)
    rows = [(rng.choice(["a", "b", None]), START + timedelta(seconds=rng.randrange(4000)), rng.randrange(9)) for _ in range(400)]
    for i, shard in enumerate(shards):
        local_stream(shard, "event_time 'ts', watermark_delay '1 day'", "k text, ts timestamptz, i int")
        continuous(shard, "v", "SELECT k, streamext.session('30 s', ts) AS w, count(*) AS n, avg(i) AS mean FROM s GROUP BY k, w")
        continuous(shard, "keyless", "SELECT streamext.session('5 s', ts) AS w, array_agg(i ORDER BY i) AS a FROM s GROUP BY w HAVING count(*) > 1")
        with shard.connection.cursor() as cursor:
            cursor.executemany("INSERT INTO s VALUES (%s, %s, %s)", rows[i::2])
        shard.flush("s")
    db.execute("CREATE TABLE o (k text, ts timestamptz, i int)")
    with db.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO o VALUES (%s, %s, %s)", rows)

    def islands(keys: str, gap: str) -> str:
        over = f"OVER ({f'PARTITION BY {keys} ' if keys else ''}ORDER BY ts)"
        return f"""(SELECT *, min(ts) OVER (PARTITION BY {keys + ', ' if keys else ''}island) AS w FROM (SELECT *, sum(begins) {over} AS island
            FROM (SELECT *, CASE WHEN ts <= lag(ts) {over} + '{gap}' THEN 0 ELSE 1 END AS begins FROM o) o) o) o"""

    assert shared(db, "v") == "v_shards" and shared(db, "keyless") == "keyless_shards"
    db.assert_same("TABLE v_shards", f"SELECT k, w, count(*) AS n, avg(i) AS mean FROM {islands('k', '30 s')} GROUP BY k, w")
    db.assert_same("TABLE keyless_shards", f"SELECT w, array_agg(i ORDER BY i) AS a FROM {islands('', '5 s')} GROUP BY w HAVING count(*) > 1")
    db.assert_same("SELECT w, n FROM v_shards WHERE k = 'a'", f"SELECT w, count(*) AS n FROM {islands('k', '30 s')} WHERE k = 'a' GROUP BY w")
    assert "k1 = 'a'" in str(db.rows("EXPLAIN (VERBOSE) SELECT w, n FROM v_shards WHERE k = 'a'"))


@pytest.mark.parametrize("round_", range(int(os.environ.get("STREAMEXT_SHARD_ROUNDS", "1"))))
def test_random_views(db: Database, shards: list[Database], round_: int) -> None:
    """Definitions of the oracle's kind, rows anywhere: what two servers have together is what one has."""
    seed = int(os.environ.get("STREAMEXT_ORACLE_SEED", "1500")) + round_
    print(f"seed {seed}")
    rng = random.Random(seed)
    connect(db, shards)
    extra = [*views.GENERAL, *views.MORE]
    definitions = [views.definition(rng, extra) for _ in range(25)]
    db.execute(views.SETUP)
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    db.execute("SELECT streamext.set_clock(%s)", views.NOW)
    try:
        for shard in shards:
            shard.execute(views.SETUP)
            local_stream(shard, "event_time 'ts', watermark_delay '1 day'", views.COLUMN_LIST)
            for i, definition in enumerate(definitions):
                continuous(shard, f"v{i}", definition.view("s"), re.sub(", streamext.retention = '[^']*'", "", definition.options))
        for count in (30, 600):
            for shard in shards:
                values = ", ".join(views.rows(rng, count, views.NOW))
                shard.execute(f"INSERT INTO s VALUES {values}")
                db.execute(f"INSERT INTO o VALUES {values}")
                shard.flush("s")
        for i, definition in enumerate(definitions):
            try:
                assert shared(db, f"v{i}") == f"v{i}_shards"
            except psycopg.errors.FeatureNotSupported as error:
                assert "anonymous records" in str(error)
                continue
            db.assert_same(f"TABLE v{i}_shards", definition.query("o", views.NOW))
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


@pytest.fixture
def apart(pg: Postgres) -> Iterator[list[Database]]:
    """Two servers."""
    with Postgres() as other:
        yield [prepared(pg, "shard_0"), prepared(other, "shard_1")]
    pg.psql("DROP DATABASE shard_0 WITH (FORCE)")


def test_shares_of_a_topic_and_a_server_that_is_away(db: Database, apart: list[Database], kafka: Kafka, topic: str) -> None:
    """Killed, it is an error, or named; back again, nothing is missing and nothing is there twice."""
    kafka.create_topic(topic, 4)
    for i, shard in enumerate(apart):
        shard.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
        shard.execute(f"CREATE FOREIGN TABLE s (a bigint, ts timestamptz) SERVER k OPTIONS (topic '{topic}', format 'json', event_time 'ts', partitions '{i}/2')")
        continuous(shard, "v", "SELECT a % 7 AS k, streamext.tumble('1 min', ts) AS w, count(*) AS n, avg(a) AS mean FROM s GROUP BY 1, 2")
    connect(db, apart)

    def produce(start: int, end: int) -> None:
        kafka.produce(topic, [Message(f'{{"a":{i},"ts":"2024-05-01T12:{i // 60 % 60:02}:{i % 60:02}Z"}}', i % 4) for i in range(start, end)])

    def expected(end: int) -> str:
        return f"""SELECT a % 7 AS k, streamext.tumble('1 min', ts) AS w, count(*) AS n, avg(a) AS mean
            FROM (SELECT a, timestamptz '2024-05-01 12:00:00Z' + a * interval '1 s' AS ts FROM generate_series(0::bigint, {end} - 1) a) o GROUP BY 1, 2"""

    def back() -> None:
        """Started again; it has counted again what its last checkpoint did not hold."""
        apart[1].server.start()
        again = Database(apart[1].server, "shard_1")
        again.flush("s")
        again.connection.close()

    produce(0, 1000)
    for shard in apart:
        shard.flush("s")
    assert shared(db, "v") == "v_shards"
    db.execute("CREATE VIEW above AS SELECT k, n, w FROM v_shards")
    db.assert_same("TABLE v_shards", expected(1000))
    assert db.rows("SELECT server, partitions, lag_rows FROM v_shards_state ORDER BY 1") == [("a", "0/2", 0), ("b", "1/2", 0)]

    kill_all(apart[1].server)
    with pytest.raises(psycopg.Error) as error:
        db.rows("TABLE v_shards")
    assert error_of(error)[0][:2] in ("08", "57")
    back()
    db.assert_same("TABLE v_shards", expected(1000))
    oid = db.value("SELECT 'v_shards'::regclass::oid")
    assert shared(db, "v", "name") == "v_shards"
    assert db.value("SELECT 'v_shards'::regclass::oid") == oid and len(db.rows("TABLE above")) > 7
    db.assert_same("SELECT k, w, n, mean FROM v_shards WHERE away IS NULL", expected(1000))
    kill_all(apart[1].server)
    produce(1000, 1500)
    apart[0].flush("s")
    # half of the rows are there, and it says so
    assert db.rows("SELECT sum(n)::int, away FROM v_shards GROUP BY away") == [(750, ["b"])]
    assert db.rows("SELECT server, state FROM v_shards_state ORDER BY 1") == [("a", "running"), ("b", "away")]
    back()
    db.assert_same("SELECT k, w, n, mean FROM v_shards WHERE away IS NULL", expected(1500))

    # a standby takes its place
    with Postgres(copy_of=apart[1].server, standby=True) as standby:
        kill_all(apart[1].server)
        produce(1500, 1700)
        standby.promote()
        db.execute(f"ALTER SERVER b OPTIONS (SET port '{standby.port}')")
        for shard in (apart[0], Database(standby, "shard_1")):
            shard.flush("s")
        db.assert_same("SELECT k, w, n, mean FROM v_shards WHERE away IS NULL", expected(1700))
        assert db.rows("SELECT server, partitions, lag_rows FROM v_shards_state ORDER BY 1") == [("a", "0/2", 0), ("b", "1/2", 0)]


@pytest.mark.timeout(300 + 60 * int(os.environ.get("STREAMEXT_SHARD_CRASHES", "0")))
@pytest.mark.skipif("STREAMEXT_SHARD_CRASHES" not in os.environ, reason="STREAMEXT_SHARD_CRASHES says how many rounds")
@pytest.mark.parametrize("count", [2, 3])
def test_crashes_under_load(db: Database, kafka: Kafka, topic: str, count: int) -> None:
    """Any of the servers is killed while records come; in the end each record is counted once, wherever."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Postgres()) for _ in range(count)]
        crash_rounds(db, [prepared(server, f"shard_{i}") for i, server in enumerate(servers)], kafka, topic)


def crash_rounds(db: Database, apart: list[Database], kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, 4)
    for i, shard in enumerate(apart):
        shard.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
        shard.execute(
            f"CREATE FOREIGN TABLE s (a bigint, ts timestamptz) SERVER k OPTIONS (topic '{topic}', format 'json', event_time 'ts', partitions '{i}/{len(apart)}', watermark_delay '1 day')"
        )
        continuous(shard, "v", "SELECT a % 50 AS k, streamext.hop('1 min', '20 s', ts) AS w, count(*) AS n, sum(a) AS total, stddev(a) AS sd, count(DISTINCT a) AS d FROM s GROUP BY 1, 2")
    connect(db, apart)
    db.execute("SELECT streamext.shard_view('v', %s, 'name')", list("abc"[: len(apart)]))
    rounds, produced, stop = int(os.environ["STREAMEXT_SHARD_CRASHES"]), [0], threading.Event()

    def produce() -> None:
        while not stop.is_set():
            began, start = time.monotonic(), produced[0]
            kafka.produce(topic, [Message(f'{{"a":{i},"ts":"2024-05-01T12:{i // 1000 % 60:02}:{i % 60:02}Z"}}', i % 4) for i in range(start, start + 4000)])
            produced[0] = start + 4000
            stop.wait(max(0.0, 0.2 - (time.monotonic() - began)))

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        rng = random.Random(3)
        for round_ in range(rounds):
            server = rng.choice(apart).server
            before, began = produced[0], time.monotonic()
            kill_all(server)
            [(away,)] = db.rows("SELECT DISTINCT away::text FROM v_shards") or [("",)]
            assert away in ("{a}", "{b}", "{c}", "")
            server.start()
            wait_for(lambda before=before: produced[0] > before + 8000, what="more records")
            print(f"round {round_ + 1} of {rounds}: {time.monotonic() - began:.1f} s, {produced[0]} records", flush=True)
    finally:
        stop.set()
        thread.join()
    for i, shard in enumerate(apart):
        again = Database(shard.server, f"shard_{i}")
        again.flush("s")
        again.connection.close()
    db.assert_same(
        "SELECT k, w, n, total, sd, d FROM v_shards WHERE away IS NULL",
        f"""SELECT a % 50 AS k, w, count(*) AS n, sum(a) AS total, stddev(a) AS sd, count(DISTINCT a) AS d
        FROM generate_series(0::bigint, {produced[0]} - 1) a, streamext.hop('1 min', '20 s', timestamptz '2024-05-01 12:00:00Z' + a / 1000 % 60 * interval '1 min' + a % 60 * interval '1 s') w GROUP BY 1, 2""",
    )


def test_growing_from_two_to_three(db: Database, pg: Postgres, kafka: Kafka, topic: str) -> None:
    """New shards read from the start beside the old ones; readers change over and miss nothing."""
    query = "SELECT a % 7 AS k, count(*) AS n, avg(a) AS mean FROM s{0} GROUP BY 1"
    kafka.create_topic(topic, 5)
    shards = [prepared(pg, f"shard_{i}") for i in range(3)]
    try:
        connect(db, shards)

        def streams(n: int) -> None:
            for i, shard in enumerate(shards[:n]):
                shard.execute(f"CREATE SERVER IF NOT EXISTS k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
                shard.execute(f"CREATE FOREIGN TABLE s{n} (a bigint) SERVER k OPTIONS (topic '{topic}', format 'json', partitions '{i}/{n}')")
                continuous(shard, f"v{n}", query.format(n))

        def same(n: int, relation: str, records: int) -> None:
            for shard in shards[:n]:
                shard.flush(f"s{n}")
            db.assert_same(f"TABLE {relation}", f"SELECT a % 7 AS k, count(*) AS n, avg(a) AS mean FROM generate_series(0::bigint, {records} - 1) a GROUP BY 1")

        streams(2)
        kafka.produce(topic, [Message(f'{{"a":{i}}}', i % 5) for i in range(700)])
        db.execute("SELECT streamext.shard_view('v2', ARRAY['a', 'b'])")
        db.execute("CREATE VIEW answer AS TABLE v2_shards")
        same(2, "answer", 700)
        streams(3)
        with pytest.raises(psycopg.Error) as error:
            db.execute("SELECT streamext.shard_view('v3', ARRAY['a', 'b'])")
        assert error_of(error)[0] == "55000" and "whole" in error_of(error)[1]
        db.execute("SELECT streamext.shard_view('v3', ARRAY['a', 'b', 'c'])")
        same(3, "v3_shards", 700)
        db.execute("CREATE OR REPLACE VIEW answer AS TABLE v3_shards")
        for shard in shards[:2]:
            shard.execute("DROP VIEW v2 CASCADE; DROP FOREIGN TABLE s2")
        kafka.produce(topic, [Message(f'{{"a":{i}}}', i % 5) for i in range(700, 1000)])
        same(3, "answer", 1000)
    finally:
        for i, shard in enumerate(shards):
            shard.connection.close()
            pg.psql(f"DROP DATABASE shard_{i} WITH (FORCE)")


def test_what_does_not_make_one_whole(db: Database, shards: list[Database]) -> None:
    connect(db, shards)
    for shard in shards:
        local_stream(shard, "event_time 'ts'", COLUMNS)
        continuous(shard, "kept", "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY k, w", ", streamext.retention = '1 day'")
        continuous(shard, "v", f"SELECT k, count(*) AS n FROM s {'WHERE i > 1' if shard is shards[1] else ''} GROUP BY k")
        continuous(shard, "same", "SELECT k, avg(i) AS n FROM s GROUP BY k HAVING count(*) > 10")
        continuous(shard, "inner_windows", "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY k, w")
        continuous(shard, "chained", "SELECT k, max(n) AS n FROM inner_windows GROUP BY k")
    for view, servers, sqlstate, word in (
        ("kept", ["a", "b"], "0A000", "retention"),
        ("chained", ["a", "b"], "0A000", "one server"),
        ("v", ["a", "b"], "55000", "not the same"),
        ("same", ["a", "a"], "22023", "twice"),
        ("same", ["a", "c"], "42704", "c"),
        ("missing", ["a", "b"], "42P01", "missing"),
        ("same", [], "22023", "1 to"),
        ("s", ["a"], "42809", "continuous"),
    ):
        with pytest.raises(psycopg.Error) as error:
            db.execute("SELECT streamext.shard_view(%s, %s::text[])", view, servers)
        assert error_of(error)[0] == sqlstate and word in error_of(error)[1], view
    with pytest.raises(psycopg.Error) as error:
        db.execute("SELECT streamext.shard_view('same', ARRAY['a'], 'perhaps')")
    assert error_of(error)[0] == "22023"

    # a view that changes afterwards is told, not merged
    assert shared(db, "same") == "same_shards"
    assert db.rows("TABLE same_shards") == []
    shards[0].execute("DROP VIEW same_shard_rows")
    continuous(shards[0], "other", "SELECT k, avg(i) AS n FROM s GROUP BY k")
    shards[1].execute("CREATE OR REPLACE VIEW same WITH (streamext.continuous) AS SELECT k, avg(i) AS n FROM s GROUP BY k HAVING count(*) > 20")
    for _ in range(2):
        with pytest.raises(psycopg.Error):
            db.rows("TABLE same_shards")
    with pytest.raises(psycopg.Error) as error:
        shards[1].rows("TABLE same_shard_rows")
    assert error_of(error)[0] == "55000" and "streamext.shard_view" in error_of(error)[2]


def test_windows_that_have_left(db: Database, shards: list[Database], kafka: Kafka, topic: str) -> None:
    """With retention a window may be on one server only: that is refused whenever it is asked for, also when it is over; the hints' ways work."""
    query = "SELECT a % 3 AS k, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM {} GROUP BY 1, 2"
    kafka.create_topic(topic, 2)
    kafka.produce(topic, [Message(f'{{"a":{i},"ts":"2024-05-01T12:{i // 10:02}:00Z"}}', i % 2) for i in range(300)])
    connect(db, shards)
    db.execute("CREATE TABLE o AS SELECT a, timestamptz '2024-05-01 12:00:00Z' + a / 10 * interval '1 min' AS ts FROM generate_series(0::bigint, 299) a")

    def has_dropped(shard: Database) -> None:
        shard.flush("s")
        wait_for(lambda: shard.value("SELECT open_windows + history_panes FROM streamext.continuous_views") < 15, what="retention")

    def refusal(of: Callable[[], object]) -> str:
        with pytest.raises(psycopg.Error) as error:
            of()
        return " ".join(error_of(error))

    for i, shard in enumerate(shards):
        shard.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
        shard.execute(f"CREATE FOREIGN TABLE s (a bigint, ts timestamptz) SERVER k OPTIONS (topic '{topic}', format 'json', event_time 'ts', partitions '{i}/2')")
        continuous(shard, "v", query.format("s"), ", streamext.retention = '5 min'")
        has_dropped(shard)
    said = refusal(lambda: shared(db, "v"))
    assert said.startswith("0A000") and "RESET (streamext.retention)" in said
    for shard in shards:
        shard.execute("ALTER VIEW v RESET (streamext.retention)")
    for shard in shards:
        said = refusal(lambda: shared(db, "v"))
        assert said.startswith("55000") and "gone" in said and "streamext.rebuild" in said
    for shard in shards:
        shard.execute("SELECT streamext.rebuild('v')")
        shard.flush("s")
    assert shared(db, "v") == "v_shards"
    db.assert_same("TABLE v_shards", query.format("o"))
    late = "SELECT * FROM {} WHERE w >= '2024-05-01 12:20Z'"
    db.assert_same(late.format("v_shards"), late.format(f"({query.format('o')}) q"))
    # afterwards too
    shards[1].execute("ALTER VIEW v SET (streamext.retention = '5 min')")
    assert "RESET (streamext.retention)" in refusal(lambda: db.rows("TABLE v_shards"))
    has_dropped(shards[1])
    shards[1].execute("ALTER VIEW v RESET (streamext.retention)")
    assert "had streamext.retention" in refusal(lambda: db.rows("TABLE v_shards"))
    shards[1].execute("SELECT streamext.rebuild('v')")
    shards[1].flush("s")
    db.assert_same("TABLE v_shards", query.format("o"))


def test_rows_in_other_queries(shards: list[Database]) -> None:
    """Beside anything else that reads the view its columns would be others than the query means, so there is nothing else."""
    shard = shards[0]
    local_stream(shard, "event_time 'ts'", COLUMNS)
    continuous(shard, "v", "SELECT k, avg(i) AS mean FROM s GROUP BY k")
    shard.execute("INSERT INTO s (k, ts, i) VALUES ('a', now(), 1)")
    shard.flush("s")
    shard.execute("INSERT INTO streamext.shard_request (view) VALUES ('v')")
    assert len(shard.rows("TABLE v_shard_rows")) == 1
    calls = shard.value("SELECT substring(pg_get_viewdef('v_shard_rows') from 'SELECT (.*)FROM')")
    for query in ("{} FROM v WHERE mean > 0", "{}, v FROM v", "{}, mean FROM v", "{} FROM v ORDER BY mean", "{} FROM v, s", "{}, (SELECT mean) FROM v", "{} FROM v GROUP BY mean"):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            shard.rows("SELECT " + query.format(calls))
    assert len(shard.rows(f"SELECT {calls} FROM v")) == 1


def test_what_is_somebodys_own(db: Database, shards: list[Database]) -> None:
    """Relations that have the names by chance, or by somebody's design, are left alone and not read."""
    connect(db, shards)
    for shard in shards:
        local_stream(shard, "event_time 'ts'", COLUMNS)
        continuous(shard, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    for own in ("TABLE v_shard_all ()", "TABLE v_shard_state ()", "VIEW v_shards AS SELECT 1", "VIEW v_shards_state AS SELECT 1", "TABLE v_shard_1 ()"):
        db.execute(f"CREATE {own}")
        with pytest.raises(psycopg.errors.DuplicateTable):
            shared(db, "v")
        db.execute(f"DROP {' '.join(own.split()[:2])}")
    assert shared(db, "v") == shared(db, "v") == "v_shards"
    shard = shards[0]
    shard.execute("DROP VIEW v_shard_rows; CREATE ROLE planter; GRANT CREATE ON SCHEMA public TO planter; GRANT SELECT ON v TO planter; SET ROLE planter")
    try:
        shard.execute("CREATE VIEW v_shard_rows AS SELECT streamext.shard_rows_of('x') AS shard, NULL::text AS k1, NULL::bytea AS a1 FROM v")
        shard.execute("RESET ROLE")
        with pytest.raises(psycopg.errors.DuplicateTable):
            shared(db, "v")
    finally:
        shard.execute("RESET ROLE; DROP OWNED BY planter; DROP ROLE planter")


def test_what_another_role_has_planted(db: Database, shards: list[Database]) -> None:
    """A view that stays another role's, who may change it when it is read, is not made the answer."""
    connect(db, shards)
    for shard in shards:
        local_stream(shard, "event_time 'ts'", COLUMNS)
        continuous(shard, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("CREATE ROLE planter; GRANT CREATE ON SCHEMA public TO planter; SET ROLE planter")
    try:
        for table, view in (("v_shard_all", "v_shards"), ("v_shard_state", "v_shards_state")):
            db.execute(f"CREATE TABLE {table} (k text) PARTITION BY LIST (k)")
            db.execute(f"CREATE VIEW {view} AS SELECT k, 1::bigint AS n FROM {table}")
            db.execute("RESET ROLE")
            with pytest.raises(psycopg.errors.DuplicateTable):
                shared(db, "v")
            db.execute(f"SET ROLE planter; DROP VIEW {view}; DROP TABLE {table}")
        db.execute("RESET ROLE")
        assert shared(db, "v") == "v_shards"
    finally:
        db.execute("RESET ROLE; DROP OWNED BY planter; DROP ROLE planter")


def test_rights_on_a_shard(shards: list[Database]) -> None:
    """Who may read the view alone gets none of its states by asking as another server would."""
    shard = shards[0]
    local_stream(shard, "event_time 'ts'", COLUMNS)
    continuous(shard, "v", "SELECT k, avg(i) AS mean FROM s GROUP BY k HAVING count(*) > 10")
    shard.execute("CREATE ROLE asker; GRANT SELECT ON v TO asker; GRANT CREATE ON SCHEMA public TO asker; SET ROLE asker")
    try:
        for query in (
            "INSERT INTO streamext.shard_request (view) VALUES ('v') RETURNING relation",
            "SELECT streamext.shard_rows_of('x'), streamext.shard_key(1, NULL::text) FROM v",
            "SELECT streamext.shard_partial(1)",
        ):
            with pytest.raises(psycopg.Error) as error:
                shard.rows(query)
            assert error_of(error)[0] in ("42501", "0A000"), query
    finally:
        shard.execute("RESET ROLE; DROP OWNED BY asker; DROP ROLE asker")
