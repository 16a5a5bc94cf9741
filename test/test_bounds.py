"""Counts that a user chooses: what a definition holds a great number of is kept right, or refused at CREATE with the limit."""

import psycopg
import pytest
from harness.database import Database
from harness.wait import wait_for

STREAM = """CREATE SERVER here FOREIGN DATA WRAPPER local;
    CREATE FOREIGN TABLE s (v int, t text, ts timestamptz) SERVER here OPTIONS (event_time 'ts', watermark_delay '1 day');
    CREATE TABLE o (v int, t text, ts timestamptz)"""
ROWS = "SELECT i % 100, 'k' || i % 7, timestamptz '2024-01-01' + i * interval '1 s' FROM generate_series(1, 500) i"


def items(n: int, item: str = "v + {}") -> str:
    return ", ".join(item.format(i) for i in range(1, n + 1))


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT t, array_agg(v ORDER BY {items(399)}) AS a FROM {{}} GROUP BY t",
        f"SELECT array_agg(v ORDER BY {items(1663)}) AS a FROM {{}}",
        f"SELECT array_agg(DISTINCT v) AS a, string_agg(t, ',' ORDER BY {items(250)}, t) AS b FROM {{}}",
        f"SELECT count(*) AS n, {items(31, 'v + {0} AS k{0}')} FROM {{}} GROUP BY {items(31)}",
        f"SELECT {items(128, 'sum(v + {0}) AS s{0}')} FROM {{}}",
        f"SELECT count(*) AS n FROM {{}} WHERE v IN ({items(2000, '{}')}) AND ({items(500, 'v <> -{}').replace(',', ' AND')})",
        f"SELECT max(greatest({items(1000)})) AS m, min(concat({items(90, 'v')})) AS c FROM {{}}",
        f"SELECT t, count(*) AS n FROM {{}} GROUP BY GROUPING SETS ({items(63, '(t), (t, v)')})",
    ],
)  # fmt: skip
def test_many_of_a_kind(db: Database, query: str) -> None:
    db.execute(STREAM)
    db.execute("CREATE VIEW v WITH (streamext.continuous) AS " + query.format("s"))
    db.execute(f"INSERT INTO s {ROWS}")
    db.execute(f"INSERT INTO o {ROWS}")
    db.flush("s")
    db.assert_same("TABLE v", query.format("o"))


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        (f"SELECT array_agg(v ORDER BY {items(1664)}) AS a FROM s", "at most 1664 arguments"),
        (f"SELECT array_agg(v ORDER BY {items(3000)}) AS a FROM s", "at most 1664 arguments"),
        (f"SELECT count(*) AS n FROM s GROUP BY {items(33)}", "at most 32 GROUP BY expressions"),
        (f"SELECT count(*) AS n FROM s GROUP BY {items(1600)}", "at most 32 GROUP BY expressions"),
        (f"SELECT {items(129, 'sum(v + {0}) AS s{0}')} FROM s", "at most 128 different aggregates"),
        (f"SELECT {items(1600, 'sum(v + {0}) AS s{0}')} FROM s", "at most 128 different aggregates"),
        (f"SELECT t, count(*) AS n FROM s GROUP BY GROUPING SETS ({items(129, '(t)')})", "at most 128 grouping sets"),
        ("SELECT count(*) AS n FROM s GROUP BY CUBE (t, v, t || 'a', v + 1, v + 2, v + 3, v + 4, v + 5)", "at most 128 grouping sets"),
        ("SELECT streamext.hop('10 days', '1 ms', ts) AS w, count(*) AS n FROM s GROUP BY w", "more than 10000 panes"),
    ],
)  # fmt: skip
def test_too_many_of_a_kind(db: Database, query: str, limit: str) -> None:
    db.execute(STREAM)
    with pytest.raises(psycopg.errors.Error, match=limit) as error:
        db.execute(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
    assert error.value.sqlstate in ("54000", "54011", "0A000", "22023")


def test_many_columns(db: Database) -> None:
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    db.execute(f"CREATE FOREIGN TABLE s ({items(1600, 'c{} int')}) SERVER here")
    db.execute(f"CREATE VIEW v WITH (streamext.continuous) AS SELECT {items(100, 'sum(c{0}) AS s{0}')}, sum(c1600) AS last FROM s")
    db.execute(f"INSERT INTO s SELECT {items(1600, '{}')}")
    db.flush("s")
    assert db.rows("SELECT s1, s100, last FROM v") == [(1, 100, 1600)]


def doubled(n: int, base: str) -> str:
    """WITH queries that each name the one before twice."""
    return f"WITH c0 AS (SELECT v FROM {base})" + "".join(f", c{i} AS (SELECT a.v FROM c{i - 1} a, c{i - 1} b)" for i in range(1, n))


def test_what_is_named_twice_and_twice_again(db: Database) -> None:
    """PostgreSQL makes such views at once. Where all of it is written out, to look at it takes all time and to plan it all memory: it is refused before."""
    db.execute(STREAM)
    db.execute("CREATE VIEW o0 AS SELECT v FROM o; CREATE VIEW s0 AS SELECT v FROM s")
    for i in range(1, 40):
        for name in "os":
            db.execute(f"CREATE VIEW {name}{i} AS SELECT a.v FROM {name}{i - 1} a, {name}{i - 1} b")
    large = [f"{doubled(40, base)} SELECT s.v, count(*) FROM s JOIN c39 USING (v) GROUP BY s.v" for base in "os"]
    large += [f"{doubled(40, base)} SELECT v, count(*) FROM c39 GROUP BY v" for base in "os"]
    large += [f"SELECT s.v, count(*) FROM s JOIN {name}39 USING (v) GROUP BY s.v" for name in "os"]
    chain = "WITH c0 AS (SELECT v FROM s)" + "".join(f", c{i} AS (SELECT v FROM c{i - 1})" for i in range(1, 2000))
    large += ["SELECT v, count(*) FROM s39 GROUP BY v", f"{chain} SELECT v, count(*) FROM c1999 GROUP BY v"]
    large += [f"SELECT v, count(*) FROM {'(SELECT v FROM ' * 300}s{') q' * 300} GROUP BY v"]
    for query in large:
        assert db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {query}").startswith("54001"), query[:200]
    # a view below that becomes so later
    db.execute("CREATE VIEW inner_one AS SELECT v FROM o; CREATE VIEW v WITH (streamext.continuous) AS SELECT s.v, count(*) AS n FROM s JOIN inner_one USING (v) GROUP BY s.v")
    db.execute("CREATE OR REPLACE VIEW inner_one AS SELECT v FROM o39")
    wait_for(lambda: "too large" in str(db.value("SELECT last_error FROM streamext.continuous_views")), what="the view's failure")
    db.execute("CREATE OR REPLACE VIEW inner_one AS SELECT v FROM o; INSERT INTO o VALUES (1, NULL, NULL); INSERT INTO s VALUES (1, NULL, now())")
    db.flush("s")
    assert db.rows("TABLE v") == [(1, 1)]


def test_a_query_that_is_too_long(db: Database) -> None:
    """Everybody who looks at streamext.continuous_views waits for its compilation."""
    db.execute(STREAM)
    long = "SELECT string_agg(i::text, ',') FROM generate_series(1, 150000) i"
    view = "CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s WHERE v IN (%%s)"
    assert db.refusal(f"DO $$ BEGIN EXECUTE format('{view.replace('%%', '%')}', ({long})); END $$").startswith("54000")
    db.execute(f"CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) AS n FROM s WHERE v IN ({items(10_000, '{}')})")
    db.execute("INSERT INTO s VALUES (10000, NULL, now()), (10001, NULL, now())")
    db.flush("s")
    assert db.rows("TABLE v") == [(1,)]
