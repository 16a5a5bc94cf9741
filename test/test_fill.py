"""streamext.fill: windows without a row, for the keys that there are."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness.database import Database
from harness.streams import continuous, local_stream

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def filled(db: Database) -> Database:
    local_stream(db, "event_time 'ts'", "k text, ts timestamptz, i int, f float8")
    continuous(db, "v", "SELECT streamext.tumble('10 s', ts) AS w, k, count(*) AS n, sum(i) AS s, avg(f) AS a, max(k) AS t FROM s GROUP BY w, k")
    continuous(db, "h", "SELECT streamext.hop('20 s', '10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "m", "SELECT date_trunc('minute', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "sessions", "SELECT streamext.session('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "hidden", "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w, k")
    rows = [("a", 1, 2, 1.0), ("a", 2, 4, 2.0), ("b", 15, 10, 8.0), ("a", 41, 14, 10.0), (None, 25, 1, 1.0), ("b", 200, 5, 5.0)]
    # in one batch, or the row of 25 s may come too late
    values = [value for key, second, i, f in rows for value in (key, at(second), i, f)]
    db.execute(f"INSERT INTO s VALUES {', '.join(['(%s, %s, %s, %s)'] * len(rows))}", *values)
    db.flush("s")
    return db


def shown(db: Database, key: str | None, columns: str, mode: str = "null", first: float = 0, last: float = 60) -> list[tuple]:
    return db.rows(
        f"""SELECT extract(epoch FROM w - %s)::int, {columns} FROM streamext.fill(NULL::v, %s, %s, '{mode}')
        WHERE k IS NOT DISTINCT FROM %s ORDER BY w""",
        START, at(first), at(last), key,
    )  # fmt: skip


def test_with_null_last_and_interpolation(filled: Database) -> None:
    db = filled
    assert shown(db, "a", "n, s, a, t") == [(0, 2, 6, 1.5, "a"), (10, None, None, None, None), (20, None, None, None, None), (30, None, None, None, None), (40, 1, 14, 10.0, "a"), (50, None, None, None, None)]
    assert shown(db, None, "n") == [(0, None), (10, None), (20, 1), (30, None), (40, None), (50, None)]
    assert shown(db, "a", "n, s, t", "last") == [(0, 2, 6, "a"), (10, 2, 6, "a"), (20, 2, 6, "a"), (30, 2, 6, "a"), (40, 1, 14, "a"), (50, 1, 14, "a")]
    assert shown(db, "b", "s", "last") == [(0, None), (10, 10), (20, 10), (30, 10), (40, 10), (50, 10)]
    assert shown(db, "a", "s, a, t", "interpolate") == [(0, 6, 1.5, "a"), (10, 8, 3.625, None), (20, 10, 5.75, None), (30, 12, 7.875, None), (40, 14, 10.0, "a"), (50, None, None, None)]
    # from rows before and behind the range
    assert shown(db, "a", "s", "last", 20, 40) == [(20, 6), (30, 6)]
    assert shown(db, "a", "s", "interpolate", 20, 40) == [(20, 10), (30, 12)]
    assert db.value("SELECT count(*) FROM streamext.fill(NULL::v, %s, %s)", at(0), at(60)) == 18


def test_other_windows(filled: Database) -> None:
    db = filled
    assert db.rows("SELECT n FROM streamext.fill(NULL::h, %s, %s) ORDER BY w", at(-15), at(60)) == [(2,), (3,), (2,), (1,), (1,), (1,), (None,)]
    assert db.rows("SELECT w, n FROM streamext.fill(NULL::m, %s, %s) ORDER BY w", at(0), at(240)) == [(at(0), 5), (at(60), None), (at(120), None), (at(180), 1)]


@pytest.mark.parametrize(
    "query, error",
    [
        ("SELECT * FROM streamext.fill(NULL::sessions, now(), now())", psycopg.errors.FeatureNotSupported),
        ("SELECT * FROM streamext.fill(NULL::hidden, now(), now())", psycopg.errors.FeatureNotSupported),
        ("SELECT * FROM streamext.fill(NULL::int, now(), now())", psycopg.errors.WrongObjectType),
        ("SELECT * FROM streamext.fill(NULL::v, now(), now(), 'zero')", psycopg.errors.InvalidParameterValue),
        ("SELECT * FROM streamext.fill(NULL::v, '-infinity', now())", psycopg.errors.NullValueNotAllowed),
        ("SELECT * FROM streamext.fill(NULL::v, '2000-01-01', '2024-01-01')", psycopg.errors.ProgramLimitExceeded),
    ],
)
def test_what_is_refused(filled: Database, query: str, error: type) -> None:
    with pytest.raises(error):
        filled.rows(query)
