"""Continuous views read like any view: PostgreSQL's permissions, every way to use a view in a query, whole batches."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from harness.database import Database
from harness.gate import Gate
from harness.sensors import START, Plant
from harness.streams import COLUMNS, continuous, copy_into, local_stream

NOW = START + timedelta(minutes=10)
VIEWS = {
    "v": """SELECT device, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(temperature) AS total,
        max(humidity) AS damp FROM {0} GROUP BY device, w""",
    "h": "SELECT site, streamext.hop('2 min', '30 s', ts) AS w, count(*) AS n FROM {0} GROUP BY site, w",
    "d": "SELECT device, count(*) AS n, sum(temperature) AS total, max(ts) AS last FROM {0} GROUP BY device",
    "a": "SELECT count(*) AS n FROM {0}",
}


@pytest.fixture(scope="module")
def shared(pg: object) -> Iterator[Database]:
    """Views v, h, d, a over a local stream s of 3,000 readings (one device is NULL), and the same as ordinary views ov, …
    over the table o. For tests that only read."""
    pg.psql("CREATE DATABASE reading")
    pg.psql("CREATE EXTENSION streamext", "reading")
    db = Database(pg, "reading")
    fill(db)
    yield db
    db.connection.close()
    pg.psql("DROP DATABASE reading WITH (FORCE)")


def fill(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h', max_ahead '1 h'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name, query in VIEWS.items():
        db.execute(f"CREATE VIEW {name} WITH (streamext.continuous) AS {query.format('s')}")
        db.execute(f"CREATE VIEW o{name} AS {query.format('o')}")
    copy_into(db, "o", Plant(devices=30, sites=4).readings(3000))
    db.execute("INSERT INTO o SELECT NULL, NULL, ts, temperature, humidity FROM o LIMIT 10")
    db.execute("INSERT INTO s SELECT * FROM o")
    db.flush("s")
    db.execute("CREATE TABLE lines (device text, line text)")
    db.execute("INSERT INTO lines SELECT DISTINCT device, 'line ' || right(device, 1) FROM o WHERE device < 'device-0020'")


# Queries over {v}, {h}, {d}, {a}: the continuous views, or the ordinary ones.
QUERIES = {
    "all": "SELECT * FROM {v}",
    "columns": "SELECT w, n FROM {v}",
    "expressions": "SELECT upper(device), n * 2, total / n, w + interval '1 s' FROM {v}",
    "whole row": "SELECT x::text, (x).n FROM {v} AS x",
    "no columns": "SELECT 1 FROM {v}",
    "count": "SELECT count(*), sum(n), max(w) FROM {h}",
    "group": "SELECT device, sum(n), min(w) FROM {v} GROUP BY device HAVING sum(n) > 100",
    "rollup": "SELECT site, w, sum(n) FROM {h} GROUP BY ROLLUP (site, w)",
    "distinct": "SELECT DISTINCT ON (device) device, w, n FROM {v} ORDER BY device, w DESC",
    "limit": "SELECT device, w FROM {v} ORDER BY n DESC, device, w LIMIT 5 OFFSET 2",
    "window function": "SELECT device, w, sum(n) OVER (PARTITION BY device ORDER BY w), lag(n) OVER (PARTITION BY device ORDER BY w) FROM {v}",
    "join": "SELECT line, sum(n) FROM {d} JOIN lines USING (device) GROUP BY line",
    "outer join": "SELECT device, line, n FROM {d} FULL JOIN lines USING (device)",
    "self join": "SELECT x.device, x.w, x.n, y.n FROM {v} x JOIN {v} y ON x.device = y.device AND y.w = x.w - interval '1 min'",
    "join of views": "SELECT x.device, x.n, y.n, z.n FROM {v} x JOIN {d} y USING (device) CROSS JOIN {a} z",
    "lateral": "SELECT line, x.* FROM lines, LATERAL (SELECT w, n FROM {v} WHERE {v}.device = lines.device ORDER BY w LIMIT 2) x",
    "in": "SELECT * FROM {v} WHERE device IN (SELECT device FROM lines)",
    "not in": "SELECT * FROM {d} WHERE device NOT IN (SELECT device FROM lines WHERE device IS NOT NULL)",
    "exists": "SELECT line FROM lines l WHERE EXISTS (SELECT FROM {d} WHERE device = l.device AND n > 100)",
    "scalar": "SELECT line, (SELECT n FROM {d} WHERE device = l.device) FROM lines l",
    "cte": "WITH x AS (SELECT device, n FROM {d}) SELECT * FROM x WHERE n > (SELECT avg(n) FROM x)",
    "cte materialized": "WITH x AS MATERIALIZED (TABLE {d}) SELECT a.device, b.n FROM x a JOIN x b ON a.device = b.device",
    "recursive": "WITH RECURSIVE r(w) AS (SELECT min(w) FROM {v} UNION SELECT (SELECT min(w) FROM {v} WHERE w > r.w) FROM r WHERE r.w IS NOT NULL) TABLE r",
    "union": "SELECT device AS k, n FROM {d} UNION ALL SELECT site, sum(n) FROM {h} GROUP BY site",
    "except": "SELECT device FROM {v} EXCEPT SELECT device FROM lines",
    "view over views": "SELECT * FROM (SELECT device, max(n) AS best FROM {v} GROUP BY device) x JOIN {d} USING (device)",
    "values": "SELECT v.column1, d.n FROM (VALUES ('device-0001'), ('nothing')) v LEFT JOIN {d} d ON d.device = v.column1",
    "case": "SELECT CASE WHEN n > 100 THEN 'many' ELSE 'few' END, count(*) FROM {d} GROUP BY 1",
    "aggregate order": "SELECT string_agg(device, ',' ORDER BY device DESC) FROM {d}",
    "filter on aggregate": "SELECT * FROM {v} WHERE n > 12 AND total < 200",
    # What may be a look-up or a range of panes.
    "key": "SELECT * FROM {d} WHERE device = 'device-0003'",
    "key that is not there": "SELECT * FROM {d} WHERE device = 'nothing'",
    "key null": "SELECT * FROM {d} WHERE device IS NULL",
    "key equals null": "SELECT * FROM {d} WHERE device = NULL",
    "key not distinct": "SELECT * FROM {d} WHERE device IS NOT DISTINCT FROM NULL",
    "key any": "SELECT * FROM {d} WHERE device = ANY ('{{device-0001,device-0002,NULL}}')",
    "key in": "SELECT * FROM {d} WHERE device IN ('device-0001', 'device-0002', 'device-0001')",
    "key twice": "SELECT * FROM {d} WHERE device = 'device-0001' AND device = 'device-0002'",
    "key or": "SELECT * FROM {d} WHERE device = 'device-0001' OR n > 110",
    "key as name": "SELECT * FROM {d} WHERE device = 'device-0001'::name",
    "key collated": "SELECT * FROM {d} WHERE device = 'device-0001' COLLATE \"C\"",
    "key by expression": "SELECT * FROM {d} WHERE device = 'device-' || '0004' AND n > 0",
    "key like": "SELECT * FROM {d} WHERE device LIKE 'device-000%'",
    "key and window": "SELECT * FROM {v} WHERE device = 'device-0003' AND w = '2024-05-01 12:03+00'",
    "key and some windows": "SELECT * FROM {v} WHERE device = 'device-0003' AND w >= '2024-05-01 12:03+00'",
    "window": "SELECT * FROM {v} WHERE w = '2024-05-01 12:03+00'",
    "window off the grid": "SELECT * FROM {v} WHERE w = '2024-05-01 12:03:01+00'",
    "windows half open": "SELECT * FROM {v} WHERE w >= '2024-05-01 12:03+00' AND w < '2024-05-01 12:05+00'",
    "windows open": "SELECT * FROM {h} WHERE w > '2024-05-01 12:03+00' AND w <= '2024-05-01 12:05:10+00'",
    "windows between": "SELECT * FROM {h} WHERE w BETWEEN '2024-05-01 11:50+00' AND '2024-05-01 12:01+00'",
    "windows of nothing": "SELECT * FROM {h} WHERE w > '2024-05-01 12:05+00' AND w < '2024-05-01 12:01+00'",
    "windows for ever": "SELECT * FROM {h} WHERE w > '-infinity' AND w < 'infinity'",
    "windows by date": "SELECT * FROM {h} WHERE w > date '2024-05-01' AND w < timestamp '2024-05-01 12:04'",
    "windows the other way": "SELECT * FROM {h} WHERE '2024-05-01 12:05+00' < w",
    "last window": "SELECT * FROM {v} WHERE w = (SELECT max(w) FROM {v})",
    "constant false": "SELECT * FROM {v} WHERE false",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries(shared: Database, query: str) -> None:
    continuous, ordinary = (query.format(**{name: prefix + name for name in VIEWS}) for prefix in ("", "o"))
    shared.assert_same(f"SELECT * FROM ({continuous}) AS q", f"SELECT * FROM ({ordinary}) AS q")


def test_parameters_of_prepared_statements(shared: Database) -> None:
    """Custom and generic plans give the same, also after the plan was cached."""
    queries = {
        "key": ("SELECT * FROM {} WHERE device = $1", "d", "text", ["'device-0001'", "'device-0002'", "NULL", "'x'"]),
        "window": ("SELECT * FROM {} WHERE w >= $1", "v", "timestamptz", [f"'2024-05-01 12:0{i}+00'" for i in range(9)]),
        "both": ("SELECT * FROM {} WHERE device = 'device-0001' AND w = $1", "v", "timestamptz", ["'2024-05-01 12:03+00'", "NULL"]),
    }  # fmt: skip
    for mode in ("force_custom_plan", "force_generic_plan"):
        shared.execute(f"SET plan_cache_mode = {mode}")
        for name, (query, view, type, values) in queries.items():
            shared.execute(f'PREPARE "{name}"({type}) AS {query.format(view)}')
            for value in values:
                expected = shared.rows(query.format("o" + view).replace("$1", f"{value}::{type}"))
                assert sorted(shared.rows(f'EXECUTE "{name}"({value})'), key=repr) == sorted(expected, key=repr)
            shared.execute(f'DEALLOCATE "{name}"')
    shared.execute("RESET plan_cache_mode")


def test_functions_over_views(shared: Database) -> None:
    shared.execute("""CREATE FUNCTION by_device(text) RETURNS TABLE (device text, n bigint) STABLE LANGUAGE sql AS
        'SELECT device, n FROM d WHERE device = $1'""")
    shared.execute("CREATE FUNCTION all_of() RETURNS SETOF d STABLE LANGUAGE sql BEGIN ATOMIC SELECT * FROM d; END")
    shared.execute("CREATE FUNCTION total() RETURNS bigint VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT n FROM a); END'")
    shared.assert_same("SELECT * FROM by_device('device-0001')", "SELECT device, n FROM od WHERE device = 'device-0001'")
    shared.assert_same("SELECT * FROM all_of()", "TABLE od")
    shared.assert_same("SELECT l.line, f.n FROM lines l, by_device(l.device) f", "SELECT line, n FROM lines JOIN od USING (device)")
    assert shared.rows("SELECT total(), total() FROM generate_series(1, 2)") == [(3010, 3010)] * 2


def test_where_the_rows_go(shared: Database) -> None:
    db = shared
    db.execute("CREATE TABLE t1 AS TABLE v")
    db.execute("CREATE TABLE t2 (LIKE t1)")
    db.execute("INSERT INTO t2 SELECT * FROM v")
    db.execute("CREATE MATERIALIZED VIEW t3 AS SELECT * FROM v")
    db.execute("REFRESH MATERIALIZED VIEW t3")
    for table in ("t1", "t2", "t3"):
        db.assert_same(f"TABLE {table}", "TABLE ov")
    db.execute("UPDATE t2 SET n = -d.n FROM d WHERE d.device = t2.device")
    db.assert_same("TABLE t2", "SELECT ov.device, w, coalesce(-od.n, ov.n), ov.total, damp FROM ov LEFT JOIN od USING (device)")
    db.execute("DELETE FROM t1 USING d WHERE d.device = t1.device")
    assert db.value("SELECT count(*) FROM t1 WHERE device IS NOT NULL") == 0
    with db.connection.cursor().copy("COPY (SELECT device, n FROM d WHERE device IS NOT NULL) TO STDOUT") as copy:
        copied = sorted(bytes(line).decode().rstrip("\n") for line in copy)
    assert copied == sorted(f"{device}\t{n}" for device, n in db.rows("SELECT device, n FROM od WHERE device IS NOT NULL"))


def test_cursors(shared: Database) -> None:
    db = shared
    expected = db.rows("SELECT device, w FROM ov ORDER BY device, w")
    with db.connection.transaction():
        db.execute("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT device, w FROM v ORDER BY device, w")
        db.execute("DECLARE u SCROLL CURSOR FOR SELECT device, w FROM v")
        assert db.rows("FETCH 10 FROM c") == expected[:10]
        unordered = db.rows("FETCH 5 FROM u")
        assert db.rows("FETCH BACKWARD 4 FROM u") == unordered[3::-1]
        assert db.rows("FETCH ABSOLUTE 3 FROM u") == [unordered[2]]
    assert db.rows("FETCH ABSOLUTE -1 FROM c") == expected[-1:]
    assert db.rows("FETCH BACKWARD ALL FROM c") == expected[-2::-1]
    db.execute("CLOSE c")


def test_a_server_side_cursor_shows_one_moment(db: Database) -> None:
    local_stream(db, columns="a int")
    db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT a, count(*) AS n FROM s GROUP BY a")
    db.execute("INSERT INTO s SELECT generate_series(1, 1000)")
    db.flush("s")
    other = db.connect(autocommit=False)
    cursor = other.cursor("c")
    cursor.execute("SELECT a, n FROM v")
    found = cursor.fetchmany(10)
    db.execute("INSERT INTO s SELECT generate_series(1, 2000)")
    db.flush("s")
    found += cursor.fetchall()
    assert sorted(found) == [(a, 1) for a in range(1, 1001)]
    other.close()


def explain(db: Database, query: str) -> str:
    return "\n".join(line for (line,) in db.rows(f"EXPLAIN {query}"))


def test_explain(shared: Database) -> None:
    """It shows the view, the look-up by key and the range of windows."""
    plain = explain(shared, "SELECT * FROM v")
    for line in ("Continuous View: v", "Window: tumbling, size 00:01:00", "Keys: all groups", "Panes: all"):
        assert line in plain
    assert "Foreign Scan" not in plain
    assert "Keys: hash look-up on (device)" in explain(shared, "SELECT * FROM d WHERE device = 'device-0001'")
    assert "Keys: all groups" in explain(shared, "SELECT * FROM d WHERE device > 'device-0001'")
    both = explain(shared, "SELECT * FROM v WHERE device = 'device-0001' AND w = '2024-05-01 12:03+00'")
    assert "Keys: hash look-up on (device, w)" in both
    assert "Panes: w >= '2024-05-01" in explain(shared, "SELECT * FROM v WHERE w >= '2024-05-01 12:03+00'")
    analyzed = explain(shared, "(ANALYZE) SELECT * FROM v")
    assert f"rows={shared.value('SELECT count(*) FROM ov')}" in analyzed


@pytest.mark.parametrize("format", ["json", "xml", "yaml"])
def test_explain_formats(shared: Database, format: str) -> None:
    shared.rows(f"EXPLAIN (ANALYZE, VERBOSE, BUFFERS, FORMAT {format}) SELECT * FROM h JOIN d ON d.device = h.site WHERE w > '2024-05-01'")


def test_estimates_come_from_the_groups(shared: Database) -> None:
    estimate = shared.value("EXPLAIN (FORMAT json) SELECT * FROM d")[0]["Plan"]["Plan Rows"]
    assert 15 <= estimate <= 60  # 31 there are


def test_for_update(shared: Database) -> None:
    for query in ("SELECT * FROM v FOR UPDATE", "SELECT * FROM v JOIN lines USING (device) FOR SHARE OF v"):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            shared.rows(query)
    shared.rows("SELECT * FROM v JOIN lines USING (device) FOR UPDATE OF lines")


@pytest.mark.parametrize("statement", ["INSERT INTO v (n) VALUES (1)", "UPDATE v SET n = 1", "DELETE FROM v"])
def test_views_are_not_written(shared: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        shared.execute(statement)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_transactions(shared: Database, isolation: str) -> None:
    with shared.connection.transaction():
        shared.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation} READ ONLY")
        assert shared.value("SELECT n FROM a") == 3010
        shared.assert_same("TABLE d", "TABLE od")


# ---- permissions ----


@pytest.fixture
def roles(pg: object) -> Iterator[None]:
    """alice owns, bob reads."""
    pg.psql("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    yield
    pg.psql("DROP ROLE alice; DROP ROLE bob")


@pytest.fixture
def owned(roles: None, db: Database) -> Database:
    """A stream s of alice's with the view v (a, n) of hers."""
    db.execute("CREATE SERVER local_server FOREIGN DATA WRAPPER local")
    db.execute("GRANT USAGE ON FOREIGN SERVER local_server TO alice")
    db.execute("GRANT CREATE ON SCHEMA public TO alice")
    alice = db.connect("alice")
    alice.execute("CREATE FOREIGN TABLE s (a int, b int) SERVER local_server")
    alice.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT a, count(*) AS n, sum(b) AS b FROM s GROUP BY a")
    alice.execute("INSERT INTO s VALUES (1, 10), (1, 20)")
    alice.execute("SELECT streamext.flush('s')")
    alice.close()
    return db


def refused(connection: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_reader_needs_the_view_only(owned: Database) -> None:
    db, bob = owned, owned.connect("bob")
    refused(bob, "SELECT * FROM v")
    refused(bob, "SELECT * FROM s")
    db.execute("GRANT SELECT ON v TO bob")
    assert bob.execute("TABLE v").fetchall() == [(1, 2, 30)]
    refused(bob, "SELECT * FROM s")
    refused(bob, "INSERT INTO s VALUES (1)")
    bob.close()


def test_columns_can_be_granted(owned: Database) -> None:
    db, bob = owned, owned.connect("bob")
    db.execute("GRANT SELECT (n) ON v TO bob")
    assert bob.execute("SELECT n FROM v").fetchall() == [(2,)]
    refused(bob, "SELECT n FROM v WHERE a = 1")
    refused(bob, "SELECT * FROM v")
    bob.close()


def test_revoke_after_prepare(owned: Database) -> None:
    db, bob = owned, owned.connect("bob")
    db.execute("GRANT SELECT ON v TO bob")
    bob.execute("PREPARE p AS SELECT n FROM v WHERE a = 1")
    for _ in range(7):
        assert bob.execute("EXECUTE p").fetchall() == [(2,)]
    db.execute("REVOKE SELECT ON v FROM bob")
    refused(bob, "EXECUTE p")
    bob.close()


def test_the_owners_rights_on_the_stream_count(owned: Database) -> None:
    """As for any view: whoever reads it, its owner must be allowed to read what is below."""
    db = owned
    bob = db.connect("bob")
    db.execute("GRANT SELECT ON s TO bob")
    db.execute("GRANT CREATE ON SCHEMA public TO bob")
    bob.execute("CREATE VIEW bobs WITH (streamext.continuous) AS SELECT count(*) AS n FROM s")
    bob.execute("CREATE VIEW over AS SELECT sum(n) AS n FROM v")
    refused(bob, "TABLE over")
    assert bob.execute("TABLE bobs").fetchall()
    db.execute("REVOKE SELECT ON s FROM bob")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.rows("TABLE bobs")
    refused(bob, "CREATE VIEW more WITH (streamext.continuous) AS SELECT count(*) AS n FROM s")
    bob.close()


def test_security_invoker(owned: Database) -> None:
    db, bob = owned, owned.connect("bob")
    alice = db.connect("alice")
    alice.execute("ALTER VIEW v SET (security_invoker = true)")
    alice.execute("GRANT SELECT ON v TO bob")
    refused(bob, "TABLE v")
    alice.execute("GRANT SELECT ON s TO bob")
    assert bob.execute("SELECT n FROM v").fetchall() == [(2,)]
    alice.close()
    bob.close()


def test_control_and_catalogue_are_not_for_everybody(owned: Database) -> None:
    bob = owned.connect("bob")
    owned.execute("INSERT INTO s VALUES ((SELECT 1), 1); CREATE VIEW w WITH (streamext.continuous) AS SELECT sum(1 / a) AS n FROM s")
    owned.execute("INSERT INTO s VALUES (0, 0)")
    owned.flush("s")
    assert owned.value("SELECT count(*) FROM streamext.dead_letters") == 1
    refused(bob, "SELECT streamext.set_clock(now())")
    refused(bob, "SELECT streamext.pause('s')")
    for catalogue in ("streams", "continuous_views", "stream_partitions", "workers", "dead_letters"):
        assert bob.execute(f"SELECT * FROM streamext.{catalogue}").fetchall() == []
    refused(bob, "CREATE FOREIGN TABLE t (a int) SERVER local_server")
    bob.close()


def test_expressions_run_as_the_owner(roles: None, db: Database) -> None:
    """A function that the view's author wrote gets no rights of the worker's."""
    db.execute("CREATE TABLE secret (a int); CREATE TABLE stolen (who text)")
    db.execute("GRANT INSERT ON stolen TO PUBLIC")
    db.execute("GRANT CREATE ON SCHEMA public TO alice")
    db.execute("CREATE SERVER local_server FOREIGN DATA WRAPPER local")
    db.execute("GRANT USAGE ON FOREIGN SERVER local_server TO alice")
    alice = db.connect("alice")
    alice.execute("""CREATE FUNCTION spy(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN
            IF current_user <> 'alice' THEN RETURN -1; END IF;
            BEGIN PERFORM count(*) FROM public.secret; RETURN -2; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
            BEGIN SET ROLE postgres; RETURN -3; EXCEPTION WHEN OTHERS THEN NULL; END;
            BEGIN SET SESSION AUTHORIZATION postgres; RETURN -4; EXCEPTION WHEN OTHERS THEN NULL; END;
            RETURN $1;
        END $$""")
    alice.execute("CREATE FOREIGN TABLE s (a int) SERVER local_server")
    alice.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT sum(spy(a)) AS total, count(*) AS n FROM s")
    alice.execute("INSERT INTO s VALUES (7)")
    alice.execute("SELECT streamext.flush('s')")
    assert alice.execute("TABLE v").fetchall() == [(7, 1)]
    alice.close()


# ---- whole batches ----


def test_a_reader_sees_whole_batches(db: Database) -> None:
    """While a writer inserts ten rows at a time and waits for them, no reader sees a part of ten, and two views in one
    statement show the same moment."""
    local_stream(db, columns="a int, k int")
    db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(a) AS total FROM s GROUP BY k")
    db.execute("CREATE VIEW w WITH (streamext.continuous) AS SELECT count(*) AS n FROM s")
    stop = threading.Event()
    rounds = 0

    def write() -> None:
        nonlocal rounds
        writer = db.connect()
        while not stop.is_set():
            writer.execute("INSERT INTO s SELECT CASE WHEN i % 2 = 0 THEN 1 ELSE -1 END, i FROM generate_series(0, 9) AS i")
            writer.execute("SELECT streamext.flush('s')")
            rounds += 1
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = set()
        while len(seen) < 50 and thread.is_alive():
            n, groups, total, w = db.rows("SELECT sum(v.n), count(*), sum(v.total), (SELECT n FROM w) FROM v")[0]
            assert (n or 0) == w
            assert w % 10 == 0 and (total or 0) == 0 and groups in (0, 10)
            seen.add(w)
    finally:
        stop.set()
        thread.join()
    db.flush("s")
    assert db.value("SELECT n FROM w") == rounds * 10


def test_readers_do_not_starve(db: Database) -> None:
    """While the worker folds at full speed, and while it stands in the midst of a batch. How long a read takes: make bench ARGS=--reading."""
    local_stream(db, columns="a int, b int")
    db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT a, count(*) AS n, avg(b) FROM s GROUP BY a")
    rows = 400_000
    db.execute("INSERT INTO s SELECT i %% 1000, i FROM generate_series(1, %s) AS i", rows)
    reader = db.connect()
    query, last = "SELECT sum(n)::int, count(*) FILTER (WHERE a = 7) FROM v", 0
    while last != rows:
        n = reader.execute(query).fetchone()[0] or 0
        assert n >= last
        last = n
    with Gate(db) as gate:
        continuous(db, "held", f"SELECT count(*) AS n FROM s WHERE {gate.passes('b <> -1')}")
        db.flush("s")
        before = db.value("SELECT n FROM held")
        db.execute("INSERT INTO s SELECT i, -i FROM generate_series(0, 9) AS i")
        gate.wait_until_held()
        assert reader.execute(query).fetchone()[0] == rows
        assert reader.execute("SELECT n FROM held").fetchone() == (before,)
    db.flush("s")
    assert reader.execute(query).fetchone()[0] == rows + 10
    reader.close()


def test_a_session_follows_every_change(db: Database) -> None:
    """What it remembers of a view is never out of date, whoever has changed something, and an open cursor keeps its own."""
    fill(db)
    reader = db.connect()

    def read() -> list[tuple[object, ...]]:
        return reader.execute("EXECUTE q").fetchall()

    reader.execute("PREPARE q AS SELECT device, n FROM d WHERE device = 'device-0001'")
    ((_, n),) = before = read()
    with reader.transaction():
        reader.execute("DECLARE c CURSOR FOR SELECT sum(n) FROM d")
        reader.execute("CREATE TEMP TABLE other ()")
        reader.execute("ALTER FUNCTION upper(text) COST 101")
        assert read() == before
        assert reader.execute("FETCH c").fetchone() == (3010,)
        raise psycopg.Rollback
    assert read() == before

    db.execute("ALTER FOREIGN TABLE s RENAME COLUMN device TO machine")
    assert read() == before
    db.execute("ALTER VIEW d SET (streamext.max_groups = 1000)")
    assert read() == before
    db.execute("CREATE OR REPLACE VIEW d WITH (streamext.continuous) AS SELECT machine AS device, count(*) + 1 AS n, sum(temperature) AS total, max(ts) AS last FROM s GROUP BY machine")
    assert read() == [("device-0001", n + 1)]
    with reader.transaction():
        reader.execute("CREATE OR REPLACE VIEW d WITH (streamext.continuous) AS SELECT machine AS device, count(*) + 2 AS n, sum(temperature) AS total, max(ts) AS last FROM s GROUP BY machine")
        assert read() == [("device-0001", n + 2)]
        raise psycopg.Rollback
    assert read() == [("device-0001", n + 1)]
    db.execute("DROP VIEW d")
    with pytest.raises(psycopg.errors.UndefinedTable):
        read()
    db.execute("CREATE TABLE d AS SELECT 'device-0001' AS device, -1::bigint AS n")
    assert read() == [("device-0001", -1)]
    reader.close()


def test_execution_of_aggregates_is_checked_each_time(db: Database) -> None:
    fill(db)
    db.execute("CREATE ROLE poor; GRANT SELECT ON d TO poor; REVOKE EXECUTE ON FUNCTION max(timestamptz) FROM PUBLIC")
    try:
        assert db.value("SELECT count(*) FROM d") == 31
        db.execute("SET ROLE poor")
        for query in ("SELECT last FROM d", "EXPLAIN SELECT last FROM d"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(query)
    finally:
        db.execute("RESET ROLE; REVOKE ALL ON d FROM poor; DROP ROLE poor")


# Parameter types, the query over {n} (k int, n) or {w} (windows), and parameters with what PostgreSQL answers: an error only
# where the look-up is asked for.
BRANCHES = {
    "else": ("int", "SELECT CASE WHEN $1 = 0 THEN -1 ELSE (SELECT n FROM {n} WHERE k = 10 / $1) END", [0, 5, 1]),
    "coalesce": ("int, int", "SELECT coalesce($1, (SELECT n FROM {n} WHERE k = 10 / $2))", [(7, 0), (None, 5), (None, 0)]),
    "and": ("int", "SELECT $1 > 0 AND EXISTS (SELECT FROM {n} WHERE k = 10 / $1)", [0, 5]),
    "never": ("int", "SELECT count(*) FROM {n} WHERE k = 10 / $1 AND $1 <> 0", [5, 0]),
    "bound": ("int", "SELECT CASE WHEN $1 = 0 THEN -1 ELSE (SELECT sum(n) FROM {w} WHERE w >= timestamptz '2024-01-01' "
              "+ make_interval(secs => 60 / $1)) END", [0, 1]),
    "text": ("text", "SELECT CASE WHEN $1 = '' THEN -1 ELSE (SELECT n FROM {n} WHERE k = int4in($1::cstring)) END", ["2"]),
    "cast": ("text", "SELECT CASE WHEN $1 = 'x' THEN -1 ELSE (SELECT n FROM {n} WHERE k = $1::int) END", ["x", "2"]),
    "asked for": ("int", "SELECT n FROM {n} WHERE k = 10 / $1", [0, 5]),
    "in a transaction": ("int", "SELECT n, (SELECT count(*) FROM {n}) FROM {n} WHERE k = 10 / $1", [5]),
}  # fmt: skip


@pytest.mark.parametrize(("type", "key"), [
    ("text", "$1"), ("int", "'device-' || lpad($1::text, 4, '0')"), ("jsonb", "$1 #>> '{}'"), ("text", "coalesce($1, 'device-0002')"),
])  # fmt: skip
def test_a_look_up_by_a_parameter_copies_one_group(shared: Database, type: str, key: str) -> None:
    """Known before the statement runs, in a generic plan too."""
    value = {"int": "2", "jsonb": "'\"device-0002\"'"}.get(type, "'device-0002'")
    with shared.connection.transaction(force_rollback=True):
        shared.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        shared.execute(f"PREPARE one ({type}) AS SELECT n FROM d WHERE device = {key}")
        plan = shared.value(f"EXPLAIN (ANALYZE, FORMAT json) EXECUTE one({value})")[0]["Plan"]
        shared.execute("DEALLOCATE one")
    assert (plan["Groups Copied"], plan["Actual Rows"]) == (1, 1), plan


@pytest.mark.parametrize("plans", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("name", BRANCHES)
def test_a_look_up_in_a_branch_that_never_runs(db: Database, name: str, plans: str) -> None:
    types, query, parameters = BRANCHES[name]
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    db.execute("CREATE TABLE o (k int, ts timestamptz); SET plan_cache_mode = " + plans)
    views = {"n": "SELECT k, count(*) AS n FROM {} GROUP BY k",
             "w": "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM {} GROUP BY w"}  # fmt: skip
    for view, definition in views.items():
        continuous(db, view, definition.format("s"))
        db.execute(f"CREATE VIEW plain_{view} AS {definition.format('o')}")
    rows = "SELECT i % 4, timestamptz '2024-01-01' + i * interval '1 s' FROM generate_series(1, 200) AS i"
    db.execute(f"INSERT INTO s {rows}; INSERT INTO o {rows}")
    db.flush("s")
    for kind, prefix in ("continuous", ""), ("ordinary", "plain_"):
        db.execute(f"PREPARE {kind} ({types}) AS {query.format(n=prefix + 'n', w=prefix + 'w')}")

    def answer(kind: str, values: object) -> object:
        texts = ["NULL" if value is None else f"'{value}'" for value in (values if isinstance(values, tuple) else [values])]
        try:
            return db.rows(f"EXECUTE {kind} ({', '.join(texts)})")
        except psycopg.Error as error:
            return error.sqlstate

    for values in parameters:
        assert answer("continuous", values) == answer("ordinary", values), values
