"""What an operator does when a stream is full, stopped, or has just come back."""

import psycopg
import pytest
from harness.database import Database
from harness.postgres import Postgres
from harness.wait import wait_for

STREAM = """CREATE SERVER here FOREIGN DATA WRAPPER local;
    CREATE FOREIGN TABLE s (k text, ts timestamptz, x float8) SERVER here OPTIONS (event_time 'ts')"""


def test_a_full_stream_goes_on_when_there_is_memory() -> None:
    with Postgres(settings={"streamext.memory_limit": "16MB"}) as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        db.execute(STREAM)
        db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) FROM s GROUP BY k")
        db.execute("CREATE VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n FROM s")
        db.execute("INSERT INTO s SELECT i::text, timestamptz '2024-01-01', 1 FROM generate_series(1, 400000) i")
        wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "full", what="full")
        with pytest.raises(psycopg.Error, match="memory limit"):
            db.flush("s")
        db.execute("DROP VIEW v")
        db.flush("s")
        assert db.value("SELECT n FROM total") == 400_000
        assert db.value("SELECT state FROM streamext.streams") == "running"


def test_the_limit_that_is_reached_is_named() -> None:
    """Memory ends within a batch that also has more groups than the view may have: raising max_groups would not help."""
    with Postgres(settings={"streamext.memory_limit": "16MB"}) as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        db.execute(STREAM)
        db.execute(
            "CREATE VIEW v WITH (streamext.continuous, streamext.max_groups = 10) AS "
            "SELECT repeat(k, 20000) AS k, count(*) FROM s GROUP BY 1"
        )
        db.execute("INSERT INTO s SELECT lpad(i::text, 10), timestamptz '2024-01-01', 1 FROM generate_series(1, 200) i")
        wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "full", what="full")
        assert "streamext.memory_limit is reached" in db.value("SELECT last_error FROM streamext.streams")
        with pytest.raises(psycopg.Error, match="memory limit") as error:
            db.flush("s")
        assert "streamext.memory_limit is reached" in str(error.value)  # when it was tried again, too


def test_flush_right_after_a_restart() -> None:
    with Postgres() as server:
        server.psql("CREATE EXTENSION streamext")
        server.psql(STREAM)
        server.restart()
        server.psql("SELECT streamext.flush('s')")


def test_flush_right_after_resume(db: Database) -> None:
    db.execute(STREAM)
    for _ in range(5):
        db.execute("SELECT streamext.pause('s')")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="paused"):
            db.flush("s")
        db.execute("SELECT streamext.resume('s')")
        db.flush("s")


def test_functions_that_may_read_tables_are_refused(db: Database) -> None:
    db.execute(STREAM)
    db.execute("CREATE FUNCTION pick(text) RETURNS text STABLE LANGUAGE sql AS 'SELECT relname::text FROM pg_class LIMIT 1'")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"STABLE function pick\(\)"):
        db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT pick(k), count(*) FROM s GROUP BY 1")


def test_dead_letter_of_a_local_row_is_json(db: Database) -> None:
    db.execute(STREAM)
    db.execute("INSERT INTO s VALUES ('a', NULL, 1.5)")
    db.flush("s")
    assert db.value("SELECT convert_from(payload, 'UTF8')::jsonb = '{\"k\": \"a\", \"ts\": null, \"x\": 1.5}' FROM streamext.dead_letters")
