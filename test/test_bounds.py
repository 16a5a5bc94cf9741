"""Counts that a user chooses: what a definition holds a great number of is kept right, or refused at CREATE with the limit."""

import psycopg
import pytest
from harness.database import Database

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
