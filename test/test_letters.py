"""Letters of records that are rejected at full speed: held for a while, they are as if they had been written with their batch."""

import contextlib

import psycopg
import pytest
from harness.database import Database, temporary_database
from harness.postgres import Postgres
from harness.streams import continuous, counts, local_stream
from harness.wait import wait_for
from test_null import WRAPPER

BATCH = 4096


def null_stream(db: Database, records: int, payload: str, options: str = "") -> None:
    db.execute(WRAPPER)
    db.execute(
        "CREATE FOREIGN TABLE s (a int, pos bigint OPTIONS (metadata 'offset'), ts timestamptz OPTIONS (metadata 'timestamp'))"
        f" SERVER nowhere OPTIONS (records '{records}', payload '{payload}', event_time 'ts'{options})"
    )


def letters(db: Database) -> tuple[int, int, int]:
    return db.rows("SELECT count(*), min(position), max(position) FROM streamext.dead_letters")[0]


@pytest.fixture
def limit(db: Database) -> int:
    return int(db.value("SHOW streamext.dead_letter_limit"))


@pytest.mark.parametrize(("payload", "query"), [('{"a": "x"}', "SELECT count(*) FROM s"), ('{"a": 0}', "SELECT sum(1 / a) FROM s")])
def test_only_the_newest_are_written(db: Database, limit: int, payload: str, query: str) -> None:
    records = 100 * BATCH
    first = int(db.value("SELECT pg_current_xact_id()::text"))
    with db.connection.transaction():
        null_stream(db, records, payload)
        continuous(db, "v", query)
    db.flush("s")
    spent = int(db.value("SELECT pg_current_xact_id()::text")) - first
    n, least, most = letters(db)
    assert limit <= n <= limit * 1.1
    assert (least, most) == (records - n, records - 1)
    assert counts(db, "v") == (0, 0, records)
    assert spent < 100, f"{spent} transaction ids for 100 batches"


def test_the_end_of_a_worker_loses_none(db: Database, limit: int) -> None:
    """Its positions stay in shared memory."""
    records = 60 * BATCH
    db.configure("streamext.dead_letter_limit", records)
    db.configure("streamext.checkpoint_interval", "0")
    try:
        null_stream(db, records, '{"a": "x"}')
        pid = 0
        for batches in (5, 15, 30):
            wait_for(lambda: db.value("SELECT coalesce(max(rows_in), 0) FROM streamext.streams") > batches * BATCH, what="records")
            pid = db.value("SELECT max(pid) FROM streamext.workers")
            db.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
        db.flush("s")
        assert db.value("SELECT max(pid) FROM streamext.workers") != pid
        assert letters(db) == (records, 0, records - 1)
        assert db.value("SELECT rejected FROM streamext.streams") == records
    finally:
        db.execute("ALTER SYSTEM RESET ALL")
        db.server.reload()


def test_letters_that_cannot_be_written_wait(db: Database) -> None:
    records = 20 * BATCH
    db.execute("ALTER TABLE streamext_internal.dead_letter ADD CONSTRAINT never CHECK (stream = 0)")
    null_stream(db, records, '{"a": "x"}')
    wait_for(lambda: "could not be written" in (db.value("SELECT last_error FROM streamext.streams") or ""), what="the error")
    db.execute("ALTER TABLE streamext_internal.dead_letter DROP CONSTRAINT never")
    db.flush("s")
    n, least, most = letters(db)
    assert (least, most) == (records - n, records - 1)
    assert db.rows("SELECT rows_in, rejected FROM streamext.streams") == [(records, records)]


def test_a_crash_loses_none(pg: Postgres) -> None:
    """No checkpoint has passed what is held."""
    records = 40 * BATCH
    with temporary_database(pg) as db:
        null_stream(db, 1, '{"a": "x"}')
        db.flush("s")
        db.configure("streamext.fault_point", "letters-before-commit")
        with contextlib.suppress(psycopg.OperationalError):
            db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET records '{records}')")
            db.flush("s")
        wait_for(pg.is_ready, what="recovery")
        assert 'fault point "letters-before-commit" reached' in pg.log()
        db = Database(pg, db.name)
        db.execute("ALTER SYSTEM RESET streamext.fault_point")
        pg.reload()
        db.flush("s")
        n, least, most = letters(db)
        assert n >= 10000
        assert (least, most) == (records - n, records - 1)
        assert db.value("SELECT rejected FROM streamext.streams") == records


def test_late_rows_are_held_too(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '0'", "a int, ts timestamptz")
    continuous(db, "v", "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.keep_late")
    db.execute("INSERT INTO s VALUES (0, '2024-05-02')")
    db.flush("s")
    db.execute(f"INSERT INTO s SELECT i, '2024-05-01' FROM generate_series(1, {30 * BATCH}) AS i")
    db.flush("s")
    assert counts(db, "v") == (1, 30 * BATCH, 0)
    n, least, most = db.rows(
        "SELECT count(*), min(a), max(a) FROM (SELECT (convert_from(payload, 'UTF8')::json ->> 'a')::int AS a FROM streamext.late_rows) AS l"
    )[0]
    assert 10000 <= n <= 11000
    assert (least, most) == (30 * BATCH - n + 1, 30 * BATCH)


def test_values_outlive_the_conversions_of_others(db: Database) -> None:
    """Arrays and composites among as many that are none: each is what PostgreSQL makes of it, whatever was converted, or failed, after it."""
    numbers = ",".join(str(n) for n in range(300))
    db.execute(WRAPPER + "CREATE TYPE thing AS (a int, b text, c int[])")
    payload = '{"v": {"a": 1, "b": "abc", "c": [' + numbers + ']}, "w": [[1, 2], [3, 4]]}'
    with db.connection.transaction():
        db.execute(
            "CREATE FOREIGN TABLE s (v thing, w int[], ts timestamptz OPTIONS (metadata 'timestamp')) SERVER nowhere"
            f" OPTIONS (records '{2 * BATCH}', payload '{payload}', other '{{\"v\": {{\"a\": \"x\"}}}}', event_time 'ts')"
        )
        continuous(db, "v", "SELECT v::text AS v, w, count(*) AS n FROM s GROUP BY 1, 2")
    db.flush("s")
    db.assert_same("TABLE v", f"SELECT ROW(1, 'abc', ARRAY[{numbers}])::thing::text, ARRAY[[1,2],[3,4]], {BATCH}::bigint")
    assert counts(db, "v") == (BATCH, 0, BATCH)
