"""The smallest connector, src/source/null: what the room `source` promises to any, without an outside system."""

import pytest

from harness.database import Database
from harness.streams import continuous

WRAPPER = """
CREATE FUNCTION null_validator(text[], oid) RETURNS void LANGUAGE c STRICT AS 'streamext', 'streamext_null_validator';
CREATE FOREIGN DATA WRAPPER "null" HANDLER streamext.fdw_handler VALIDATOR null_validator;
CREATE SERVER nowhere FOREIGN DATA WRAPPER "null";
"""
RECORDS = 100_000


@pytest.fixture
def stream(db: Database) -> str:
    db.execute(WRAPPER)
    db.execute(
        "CREATE FOREIGN TABLE s (a int, pos bigint OPTIONS (metadata 'offset'), ts timestamptz OPTIONS (metadata 'timestamp'))"
        f" SERVER nowhere OPTIONS (records '{RECORDS}', payload '{{\"a\": 7}}', event_time 'ts')"
    )
    return "s"


def test_each_record_counts_once(db: Database, stream: str) -> None:
    continuous(db, "v", "SELECT pos % 10 AS digit, count(*) AS n, sum(a) AS total, min(ts), max(pos) FROM s GROUP BY digit")
    continuous(db, "w", "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    db.flush(stream)
    db.execute(
        "CREATE TABLE o AS SELECT 7 AS a, i AS pos, timestamptz '2000-01-01 00:00Z' + i * interval '1 ms' AS ts"
        f" FROM generate_series(0::bigint, {RECORDS - 1}) AS i"
    )
    db.assert_same("TABLE v", "SELECT pos % 10, count(*), sum(a), min(ts), max(pos) FROM o GROUP BY 1")
    db.assert_same("TABLE w", "SELECT streamext.tumble('10 s', ts), count(*) FROM o GROUP BY 1")


def test_a_later_view_reads_from_the_start(db: Database, stream: str) -> None:
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.flush(stream)
    continuous(db, "later", "SELECT count(*) AS n, sum(pos)::bigint AS total FROM s")
    db.flush(stream)
    assert db.rows("TABLE later") == [(RECORDS, RECORDS * (RECORDS - 1) // 2)]


def test_it_says_what_it_is(db: Database, stream: str) -> None:
    assert db.rows("SELECT connector, format FROM streamext.streams") == [("null", "json")]
    assert "cannot insert into a null stream" in db.refusal("INSERT INTO s VALUES (1)")
    assert "records, payload, format" in db.refusal("ALTER FOREIGN TABLE s OPTIONS (ADD topic 'a')")
    assert "Valid values are: offset, timestamp." in db.refusal("ALTER FOREIGN TABLE s ALTER a OPTIONS (metadata 'key')")


@pytest.mark.parametrize(
    ("column", "good", "bad", "sqlstate"),
    [
        ("int[]", "[1, 2]", '[1, "x"]', "22P02"),
        ("pair", '{"a": 1, "b": ["ok"]}', '{"a": 1, "b": ["bad"]}', "22P02"),
        ("small", "7", "70", "23514"),
        ("small[]", "[7]", "[7, 70]", "23514"),
        ("date", '"2024-01-01"', '"n/a"', "22007"),
        ("noting", "7", "70", "P0001"),
    ],
)
def test_values_that_are_none_cost_their_record_only(db: Database, column: str, good: str, bad: str, sqlstate: str) -> None:
    """With a subtransaction for each or without: what the check of a domain has written before it raised is not there."""
    db.execute(WRAPPER)
    db.execute("""CREATE TYPE mood AS ENUM ('ok'); CREATE TYPE pair AS (a int, b mood[]); CREATE DOMAIN small AS int CHECK (VALUE < 10);
        CREATE TABLE seen (v int); CREATE FUNCTION note(v int) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.seen VALUES (v); IF v > 10 THEN RAISE EXCEPTION 'too large'; END IF; RETURN true; END $$;
        CREATE DOMAIN noting AS int CHECK (public.note(VALUE))""")
    db.execute(
        f"CREATE FOREIGN TABLE s (v {column}, ts timestamptz OPTIONS (metadata 'timestamp')) SERVER nowhere OPTIONS (records '2000',"
        f" payload '{{\"v\": {good}}}', other '{{\"v\": {bad}}}', event_time 'ts')"
    )
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.flush("s")
    assert db.rows("TABLE v") == [(1000,)]
    assert db.rows("SELECT sqlstate, count(*) FROM streamext.dead_letters GROUP BY sqlstate") == [(sqlstate, 1000)]
    assert db.value("SELECT count(*) FROM seen WHERE v > 10") == 0
