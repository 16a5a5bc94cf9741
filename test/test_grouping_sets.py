"""GROUPING SETS, ROLLUP and CUBE: a row counts in a group of each set."""

import psycopg
import pytest
from harness.database import Database
from harness.streams import continuous, counts, error_of, local_stream
from harness.wait import wait_for

QUERIES = {
    "rollup": "SELECT k, x, count(*), sum(x), GROUPING(k, x) FROM {0} GROUP BY ROLLUP (k, x)",
    "cube": "SELECT k, x, count(*), GROUPING(x) AS g1, GROUPING(k) AS g2, GROUPING(x, k) FROM {0} GROUP BY CUBE (k, x) HAVING GROUPING(x, k) <> 2",
    "sets": "SELECT k, x % 2 AS odd, count(*), GROUPING(x % 2) FROM {0} GROUP BY GROUPING SETS ((k), (x % 2), (), (k), ())",
    "distinct": "SELECT k, x, count(*) FROM {0} GROUP BY DISTINCT ROLLUP (k), ROLLUP (k, x)",
    "only empty": "SELECT count(*), sum(x) FROM {0} GROUP BY ()",
    "twice empty": "SELECT count(*), string_agg(x::text, ',' ORDER BY x) FROM {0} GROUP BY GROUPING SETS ((), ())",
    "window": """SELECT streamext.hop('1 min', '20 s', ts) AS w, k, x, count(*), avg(x), GROUPING(k, x) FROM {0}
        GROUP BY w, ROLLUP (k, x)""",
    "plain": "SELECT k, GROUPING(k), count(*) FROM {0} GROUP BY k",
    "sublink": "SELECT k, x, (SELECT max(GROUPING(s.k) + i) FROM generate_series(1, 2) i), count(*) FROM {0} s GROUP BY ROLLUP (k, x)",
    "joined": "SELECT k, name, count(*) FROM {0} JOIN names USING (k) GROUP BY CUBE (k, name)",
}


def test_sets_against_postgresql(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "k int, x int, ts timestamptz")
    db.execute("CREATE TABLE o (k int, x int, ts timestamptz)")
    db.execute("CREATE TABLE names AS SELECT i % 3 AS k, 'name ' || i AS name FROM generate_series(1, 5) i")
    for name, query in QUERIES.items():
        continuous(db, f'"{name}"', query.format("s"))
    for rows in range(3):
        for name, query in QUERIES.items():
            db.assert_same(f'TABLE "{name}"', query.format("o"))
            db.assert_same(f'SELECT * FROM "{name}" WHERE count > 3', f"SELECT * FROM ({query.format('o')}) q WHERE count > 3")
        db.assert_same("SELECT * FROM cube WHERE k = 1 AND x = 2", f"SELECT * FROM ({QUERIES['cube'].format('o')}) q WHERE k = 1 AND x = 2")
        db.execute("INSERT INTO o SELECT nullif(i % 4, 3), nullif(i % 7, 5), timestamptz '2024-01-01' + i * interval '1 s' FROM generate_series(1, 100) i")
        db.execute("INSERT INTO s SELECT nullif(i % 4, 3), nullif(i % 7, 5), timestamptz '2024-01-01' + i * interval '1 s' FROM generate_series(1, 100) i")
        db.flush("s")
        for name in QUERIES:
            # watermark_delay is 0: in the second round old windows are sealed
            assert rows > 0 or counts(db, f'"{name}"') == (100, 0, 0), name
        if rows == 0:
            db.execute('DROP VIEW "window"')
            del QUERIES["window"]


def test_a_row_that_raises_in_one_set_counts_in_none(db: Database) -> None:
    local_stream(db, "", "k int, x int")
    db.execute("""CREATE FUNCTION no_seven(a int, b int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN IF b = 7 THEN RAISE ''seven''; END IF; RETURN coalesce(a, 0) + b; END'""")
    db.execute("CREATE AGGREGATE sum_no_seven(int) (SFUNC = no_seven, STYPE = int, COMBINEFUNC = int4pl)")
    continuous(db, "v", "SELECT k, count(*) AS n, sum_no_seven(x) AS total FROM s GROUP BY ROLLUP (k)")
    db.execute("INSERT INTO s VALUES (1, 1), (1, 7), (2, 2), (2, 3), (2, 7)")
    db.flush("s")
    assert sorted(db.rows("TABLE v"), key=str) == [(1, 1, 1), (2, 2, 5), (None, 3, 6)]
    assert counts(db, "v") == (3, 0, 2)


TOTALS = {
    "rolled": "SELECT streamext.tumble('20 s', ts) AS w, k, count(*), sum(x), GROUPING(streamext.tumble('20 s', ts), k) AS g FROM {0} GROUP BY ROLLUP (streamext.tumble('20 s', ts), k)",
    "cubed": "SELECT date_trunc('minute', ts) AS w, k, x, count(DISTINCT x), array_agg(x ORDER BY x) AS xs FROM {0} GROUP BY CUBE (date_trunc('minute', ts), k, x)",
    "without": "SELECT date_bin('15 s', ts, '2024-01-01') AS w, k, avg(x), count(*) FROM {0} GROUP BY GROUPING SETS ((1, 2), (2), (1), (), ()) HAVING count(*) > 1",
    "never": "SELECT k, x, max(ts) FROM {0} GROUP BY GROUPING SETS ((k), (x))",
}


def test_sets_without_the_window(db: Database) -> None:
    """What is sealed counts in totals too, from memory and from history."""
    local_stream(db, "event_time 'ts'", "k int, x int, ts timestamptz")
    db.execute("CREATE TABLE o (k int, x int, ts timestamptz)")
    for name, query in TOTALS.items():
        continuous(db, name, query.format("s"))
    for step in range(4):
        if step == 3:
            wait_for(lambda: db.value("SELECT max(history_panes) FROM streamext.continuous_views") > 0, what="panes in history")
        for name, query in TOTALS.items():
            db.assert_same(f"TABLE {name}", query.format("o"))
            db.assert_same(f"SELECT * FROM {name} WHERE k = 1", f"SELECT * FROM ({query.format('o')}) q WHERE k = 1")
        db.assert_same("SELECT * FROM rolled WHERE w > '2024-01-01 00:01'", f"SELECT * FROM ({TOTALS['rolled'].format('o')}) q WHERE w > '2024-01-01 00:01'")
        db.assert_same("SELECT * FROM rolled WHERE w IS NULL", f"SELECT * FROM ({TOTALS['rolled'].format('o')}) q WHERE w IS NULL")
        rows = f"SELECT nullif(i % 4, 3), nullif(i % 7, 5), timestamptz '2024-01-01' + {100 * step} * interval '1 s' + i * interval '1 s' FROM generate_series(1, 100) i"
        db.execute(f"INSERT INTO o {rows}")
        db.execute(f"INSERT INTO s {rows}")
        db.flush("s")
    for options in ("streamext.retention = '1 h'", "streamext.into = 'o'"):
        assert "without the window" in db.refusal(f"CREATE VIEW v WITH (streamext.continuous, {options}) AS {TOTALS['rolled'].format('s')}")
    assert "without the window" in db.refusal("ALTER VIEW rolled SET (streamext.retention = '1 h')")
    assert "without the window" in db.refusal("CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM rolled")


def test_sessions(db: Database) -> None:
    """Each set has sessions of its own: those of a device, of a site, of all."""
    local_stream(db, "event_time 'ts', watermark_delay '5 min', max_ahead '1 day'", "k int, x int, ts timestamptz")
    db.execute("CREATE TABLE o (k int, x int, ts timestamptz)")
    continuous(db, "v", "SELECT streamext.session('10 s', ts) AS w, k, x, count(*) AS n, max(ts) AS last, GROUPING(k, x) AS g FROM s GROUP BY w, ROLLUP (k, x)")

    def islands(keys: str, columns: str, g: int) -> str:
        part = f"PARTITION BY {keys}" if keys else ""
        return f"""SELECT min(ts) AS w, {columns}, count(*) AS n, max(ts) AS last, {g} AS g FROM (SELECT *, sum(opens::int) OVER ({part} ORDER BY ts) AS session
            FROM (SELECT *, (ts - lag(ts) OVER ({part} ORDER BY ts) <= interval '10 s') IS NOT TRUE AS opens FROM o) r) n GROUP BY {keys + ',' if keys else ''} session"""

    oracle = " UNION ALL ".join([islands("k, x", "k, x", 0), islands("k", "k, NULL::int", 1), islands("", "NULL::int, NULL::int", 3)])
    for seed in range(4):
        db.execute("SELECT setseed(%s)", seed / 10)
        db.execute("""WITH r AS MATERIALIZED (SELECT (random() * 3)::int AS k, nullif((random() * 2)::int, 2) AS x,
            timestamptz '2024-01-01' + random() * interval '4 min' AS ts FROM generate_series(1, 60)), i AS (INSERT INTO o SELECT * FROM r) INSERT INTO s SELECT * FROM r""")
        db.flush("s")
        db.assert_same("TABLE v", oracle)
        db.assert_same("SELECT * FROM v WHERE k = 1 AND g = 1", f"SELECT * FROM ({oracle}) q WHERE k = 1 AND g = 1")
    db.execute("INSERT INTO s VALUES (9, 9, '2024-01-01 12:00')")
    db.flush("s")
    assert counts(db, "v") == (241, 0, 0)
    db.assert_same("SELECT * FROM v WHERE last < '2024-01-01 12:00'", oracle)


def test_what_is_refused(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "k int, x int, ts timestamptz")
    for query, state in {
        "SELECT streamext.hop('1 min', '10 s', ts) AS w, k, count(*) FROM s GROUP BY ROLLUP (k, streamext.hop('1 min', '10 s', ts))": "0A000",
        "SELECT count(*) FROM s GROUP BY CUBE (k, x, k + 1, k + 2, k + 3, k + 4, k + 5, k + 6)": "54000",
    }.items():
        with pytest.raises(psycopg.Error) as error:
            continuous(db, "refused", query)
        assert error_of(error)[0] == state
