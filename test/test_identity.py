"""Whose rights a user's code has: in workers and in readers those of the stream's or the view's owner, never a superuser's."""

from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from harness.database import Database
from harness.streams import local_stream

# What each piece of the attacker's code does: it tells whom it ran as, and makes him a superuser if it can.
SETUP = """
    CREATE TABLE seen (place text, who name, super boolean);
    GRANT INSERT, SELECT ON seen TO PUBLIC;
    CREATE FUNCTION note(place text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        INSERT INTO mallory.seen SELECT place, current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user;
        BEGIN
            EXECUTE 'ALTER ROLE mallory SUPERUSER';
        EXCEPTION WHEN insufficient_privilege THEN
        END;
        RETURN true;
    END $$;
    CREATE FUNCTION pass(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM mallory.note(place); RETURN true; END $$;
    CREATE FUNCTION pass(place text, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM mallory.note(place); RETURN v; END $$;
"""


@pytest.fixture
def mallory(db: Database) -> Iterator[psycopg.Connection]:
    """An ordinary role: USAGE on a server of the wrapper local, a schema of its own, nothing else."""
    db.execute("CREATE ROLE mallory LOGIN")
    db.execute("CREATE SCHEMA mallory AUTHORIZATION mallory")
    db.execute("CREATE SERVER l FOREIGN DATA WRAPPER local; GRANT USAGE ON FOREIGN SERVER l TO mallory")
    db.execute("GRANT USAGE ON SCHEMA streamext TO mallory")
    with db.connect("mallory") as connection:
        connection.execute("SET search_path = mallory")
        connection.execute(SETUP)
        yield connection
    with suppress(psycopg.Error):
        db.execute("ALTER ROLE mallory NOSUPERUSER")
    db.execute("DROP OWNED BY mallory CASCADE; DROP ROLE mallory")


def flush(mallory: psycopg.Connection, stream: str = "s") -> None:
    mallory.execute("SELECT streamext.flush(%s)", [stream])


def places(db: Database, who: str = "mallory") -> set[str]:
    """Where code ran; all of it as this role, and none got anything by it."""
    others = db.rows("SELECT DISTINCT place, who FROM mallory.seen WHERE who <> %s OR super", who)
    assert not others, f"ran as somebody else: {others}"
    assert not db.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")
    return {place for (place,) in db.rows("SELECT DISTINCT place FROM mallory.seen")}


def insert(mallory: psycopg.Connection, sql: str) -> None:
    """What the session itself runs of the rows' types does not count."""
    mallory.execute(sql)
    mallory.execute("TRUNCATE seen")


def test_decoding_a_domain_gives_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """(a) Escalated: the CHECK of a column's domain ran as the superuser that the worker was."""
    mallory.execute("CREATE DOMAIN d AS int CHECK (mallory.pass('domain'))")
    mallory.execute("CREATE FOREIGN TABLE s (v d) SERVER l")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s")
    mallory.execute("INSERT INTO s VALUES (1)")
    flush(mallory)
    assert places(db) == {"domain"}


def test_a_cast_to_json_in_a_dead_letter_gives_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """(b) Escalated: a rejected row of a local stream is kept as JSON, by the casts of its types."""
    mallory.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
    mallory.execute("""CREATE FUNCTION tell(mood) RETURNS json LANGUAGE plpgsql AS
        $$ BEGIN PERFORM mallory.note('json'); RETURN '"mood"'; END $$""")
    mallory.execute("CREATE CAST (mood AS json) WITH FUNCTION tell(mood)")
    mallory.execute("CREATE FOREIGN TABLE s (v mood, x int) SERVER l")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT sum(1 / x) FROM s")
    insert(mallory, "INSERT INTO s VALUES ('good', 0)")
    flush(mallory)
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 1
    assert places(db) == {"json"}


def test_constants_folded_by_a_worker_give_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """(c) Escalated: a worker that compiles a view evaluates its constants, and its aggregates' first states."""
    mallory.execute("CREATE FUNCTION size() RETURNS interval LANGUAGE plpgsql IMMUTABLE AS "
                    "$$ BEGIN PERFORM mallory.note('size'); RETURN '1 min'; END $$")
    mallory.execute("CREATE DOMAIN state AS bigint CHECK (mallory.pass('initcond'))")
    mallory.execute("CREATE FUNCTION step(state, int) RETURNS state LANGUAGE sql IMMUTABLE AS 'SELECT $1'")
    mallory.execute("CREATE FUNCTION merge(state, state) RETURNS state LANGUAGE sql IMMUTABLE AS 'SELECT $1'")
    mallory.execute("CREATE AGGREGATE agg(int) (SFUNC = step, STYPE = state, INITCOND = '0', COMBINEFUNC = merge)")
    mallory.execute("CREATE FOREIGN TABLE s (v int, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    mallory.execute("""CREATE VIEW v WITH (streamext.continuous) AS
        SELECT streamext.tumble(size(), ts) AS w, agg(v) FROM s GROUP BY 1""")
    mallory.execute("TRUNCATE seen")
    mallory.execute("ALTER FOREIGN TABLE s OPTIONS (ADD watermark_delay '1 s')")
    mallory.execute("INSERT INTO s VALUES (1, now())")
    flush(mallory)
    assert places(db) >= {"size", "initcond"}
