"""Whose rights a user's code has: in workers and in readers those of the stream's or the view's owner, never a superuser's."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.streams import counts
from harness.wait import wait_for

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
    CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM mallory.note(TG_ARGV[0]); RETURN NEW; END $$;
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
    wait_for(lambda: dropped(db, "mallory"), what="the role to be dropped")


def dropped(db: Database, role: str) -> bool:
    """Unless a worker that writes as the role held it up in a deadlock."""
    try:
        db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    except psycopg.errors.DeadlockDetected:
        return False
    return True


def flush(mallory: psycopg.Connection, stream: str = "s") -> None:
    mallory.execute("SELECT streamext.flush(%s)", [stream])


def places(db: Database, who: str = "mallory") -> set[str]:
    """Where code ran; all of it as this role, and none got anything by it."""
    others = db.rows("SELECT DISTINCT place, who FROM mallory.seen WHERE who <> %s OR super", who)
    assert not others, f"ran as somebody else: {others}"
    assert not db.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")
    return {place for (place,) in db.rows("SELECT DISTINCT place FROM mallory.seen")}


def insert(mallory: psycopg.Connection, sql: str) -> None:
    """What was seen before, when things were defined, does not count."""
    mallory.execute("TRUNCATE seen")
    mallory.execute(sql)


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


def test_types_input(db: Database, mallory: psycopg.Connection, mosquitto: Mosquitto, topic: str) -> None:
    """Checks of domains, wherever they are within a type, run as the stream's owner: in its worker, and in whoever selects from it."""
    db.execute(f"CREATE SERVER m FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{mosquitto.uri}'); GRANT USAGE ON FOREIGN SERVER m TO mallory")
    for name in ("plain", "member", "element", "bound"):
        mallory.execute(f"CREATE DOMAIN {name} AS int CHECK (mallory.pass('{name}', VALUE) = VALUE)")
    mallory.execute("CREATE TYPE pair AS (v member)")
    mallory.execute("CREATE TYPE span AS RANGE (subtype = bound)")
    mallory.execute("CREATE DOMAIN listed AS int[] CHECK (mallory.pass('listed', VALUE[1]) > 0)")
    columns = "a plain, b pair, c element[], d span, e listed, f pair[]"
    mallory.execute(f"CREATE FOREIGN TABLE s ({columns}) SERVER m OPTIONS (topic '{topic}')")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s")
    flush(mallory)
    mallory.execute("TRUNCATE seen")
    mosquitto.publish([(topic, '{"a": 1, "b": {"v": 2}, "c": [3], "d": "[4,5)", "e": [6], "f": [{"v": 7}]}')])
    flush(mallory)
    mosquitto.publish([(topic, '{"a": "x"}')])
    flush(mallory)
    assert counts(db, "mallory.v")[0] == 1
    wanted = {"plain", "member", "element", "bound", "listed"}
    assert places(db) == wanted
    mallory.execute("TRUNCATE seen")
    assert len(wait_for(lambda: db.rows("SELECT * FROM mallory.s"))) == 1
    assert places(db) == wanted
    assert db.value("SELECT count(*) FROM streamext.streams, streamext.continuous_views, streamext.dead_letters") > 0


def test_rows_of_former_columns(db: Database, mallory: psycopg.Connection) -> None:
    """Casts into what a column is by now, and defaults of columns that were added, are the stream's owner's to run."""
    mallory.execute("CREATE TYPE old AS (v int); CREATE TYPE new AS (v int)")
    mallory.execute("""CREATE FUNCTION turn(old) RETURNS new LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM mallory.note('cast'); RETURN ROW(($1).v)::mallory.new; END $$;
        CREATE CAST (old AS new) WITH FUNCTION turn(old) AS ASSIGNMENT""")
    mallory.execute("CREATE FOREIGN TABLE s (a old) SERVER l")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s")
    mallory.execute("SELECT streamext.pause('s')")
    mallory.execute("INSERT INTO s VALUES (ROW(1))")
    mallory.execute("ALTER FOREIGN TABLE s ALTER a TYPE new, ADD b int DEFAULT pass('added', 7); TRUNCATE seen")
    mallory.execute("SELECT streamext.resume('s')")
    flush(mallory)
    assert db.rows("SELECT * FROM mallory.v") == [(1,)], db.rows("SELECT * FROM streamext.dead_letters")
    assert places(db) == {"cast", "added"}
    mallory.execute("TRUNCATE seen")
    assert db.rows("SELECT (a).v, b FROM mallory.s") == [(1, 7)]
    assert places(db) == {"cast", "added"}


def test_what_a_superuser_does_with_another_ones_stream(db: Database, mallory: psycopg.Connection) -> None:
    """The catalogue, EXPLAIN, options, rebuild, retry, late rows: whatever he asks for, the owner's code stays the owner's."""
    aggregates(mallory)
    mallory.execute("CREATE DOMAIN plain AS int CHECK (mallory.pass('plain', VALUE) = VALUE)")
    mallory.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
    mallory.execute("""CREATE FUNCTION tell(mood) RETURNS json LANGUAGE plpgsql AS
        $$ BEGIN PERFORM mallory.note('json'); RETURN '"mood"'; END $$""")
    mallory.execute("CREATE CAST (mood AS json) WITH FUNCTION tell(mood)")
    mallory.execute("CREATE FUNCTION size() RETURNS interval LANGUAGE plpgsql IMMUTABLE AS "
                    "$$ BEGIN PERFORM mallory.note('size'); RETURN '1 min'; END $$")
    mallory.execute("CREATE FOREIGN TABLE s (m mood, v plain, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    mallory.execute("""CREATE VIEW v WITH (streamext.continuous, streamext.keep_late) AS
        SELECT streamext.tumble(size(), ts) AS w, kept(100 / pass('argument', v)) FROM s GROUP BY 1""")
    mallory.execute("INSERT INTO s VALUES ('good', 1, '2024-01-02')")
    flush(mallory)
    mallory.execute("INSERT INTO s VALUES ('good', 1, '2024-01-01'), ('bad', 0, '2024-01-02 00:10')")
    flush(mallory)
    mallory.execute("TRUNCATE seen")
    for statement in (
        "SELECT * FROM streamext.continuous_views", "SELECT * FROM streamext.streams", "SELECT * FROM streamext.stream_partitions",
        "SELECT * FROM streamext.dead_letters", "SELECT * FROM streamext.late_rows", "SELECT streamext.view_positions('mallory.v')",
        "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM mallory.v", "EXPLAIN VERBOSE SELECT * FROM mallory.s",
        "PREPARE p AS SELECT w, kept::text FROM mallory.v WHERE w > '2000-01-01'", "EXECUTE p", "EXECUTE p", "COPY mallory.s TO STDOUT",
        "ALTER VIEW mallory.v SET (streamext.retention = '10000 days')", "ALTER FOREIGN TABLE mallory.s OPTIONS (ADD max_ahead '2 h')",
        "SELECT streamext.retry_dead_letters('mallory.s')", "SELECT streamext.flush('mallory.s')",
        "CREATE OR REPLACE VIEW mallory.v WITH (streamext.continuous, streamext.keep_late) AS SELECT streamext.tumble(mallory.size(), ts) AS w,"
        " mallory.kept(100 / mallory.pass('argument', v)) FROM mallory.s GROUP BY 1",
        "SELECT streamext.rebuild('mallory.v')", "SELECT streamext.flush('mallory.s')",
        "SELECT streamext.seek('mallory.s', 'earliest', true)", "SELECT streamext.flush('mallory.s')",
        "CREATE TABLE copied AS SELECT w FROM mallory.v", "DROP TABLE copied",
    ):  # fmt: skip
        with suppress(psycopg.errors.FeatureNotSupported, psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.WrongObjectType):
            db.execute(statement)
        places(db)
    assert places(db) >= {"size", "finish", "step", "json"}


def test_replacing_a_view_with_inner_views_gives_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """Escalated: the inner view that was there was parsed again as the superuser, to see whether it is the new one's; its constants are of a domain."""
    mallory.execute("CREATE DOMAIN d AS int CHECK (mallory.pass('constant', VALUE) = VALUE)")
    mallory.execute("CREATE FOREIGN TABLE s (x int, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    hours = """VIEW mallory.h WITH (streamext.continuous) AS SELECT date_trunc('hour', w) AS h, max(n) AS n FROM (
        SELECT streamext.tumble('1 min', ts) AS w, count(*) FILTER (WHERE x = ANY ({})) AS n FROM mallory.s GROUP BY 1) q GROUP BY 1"""
    mallory.execute("CREATE " + hours.format("'{1,2}'::d[]::int[]"))
    mallory.execute("TRUNCATE seen")
    db.execute("CREATE OR REPLACE " + hours.format("'{1,2}'"))
    assert not places(db)


def aggregates(mallory: psycopg.Connection) -> None:
    """`kept` is kept by its states, `listed` by its arguments: it has no combine function."""
    mallory.execute("""
        CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.pass('step', $1 + $2) $$;
        CREATE FUNCTION merge(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.pass('merge', $1 + $2) $$;
        CREATE FUNCTION finish(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.pass('finish', $1) $$;
        CREATE AGGREGATE kept(int) (SFUNC = step, STYPE = int, INITCOND = 0, COMBINEFUNC = merge, FINALFUNC = finish);
        CREATE FUNCTION step2(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.pass('step2', $1 + $2) $$;
        CREATE DOMAIN first AS int CHECK (mallory.pass('first', VALUE) = VALUE);
        CREATE FUNCTION step3(first, int) RETURNS first LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
        CREATE AGGREGATE listed(int) (SFUNC = step2, STYPE = int, INITCOND = 0);
        CREATE AGGREGATE begun(int) (SFUNC = step3, STYPE = first, INITCOND = 0)""")


def test_folding_and_reading(db: Database, mallory: psycopg.Connection) -> None:
    """Expressions and aggregates run as the view's owner, also in a superuser who reads it; only what stands above is the reader's."""
    aggregates(mallory)
    mallory.execute("CREATE FOREIGN TABLE s (k int, v int, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    mallory.execute("""CREATE VIEW v WITH (streamext.continuous) AS
        SELECT streamext.hop('2 min', '1 min', ts) AS w, pass('key', k) AS k, kept(pass('argument', v)) AS kept,
            listed(v) AS listed, begun(v) AS begun, sum(v) FILTER (WHERE pass('filter', v) > 0) AS sum,
            pass('output', max(v)) AS top
        FROM s WHERE pass('where', v) > 0 GROUP BY 1, 2 HAVING pass('having', max(v)) > 0""")
    insert(mallory, "INSERT INTO s SELECT i % 2, i, '2024-01-01'::timestamptz + i * interval '1 min' FROM generate_series(1, 6) i")
    flush(mallory)
    assert places(db) == {"key", "argument", "filter", "where", "step"}
    mallory.execute("TRUNCATE seen")
    assert len(db.rows("SELECT * FROM mallory.v")) == 12
    assert db.rows("SELECT * FROM mallory.v WHERE k = 1")
    rights = db.rows("SELECT DISTINCT place, who FROM mallory.seen")
    assert {place for place, who in rights if who == "postgres"} == {"output", "having"}
    assert {place for place, who in rights if who == "mallory"} >= {"merge", "finish", "step2", "first"}


def test_reading_does_not_give_the_owner_away(db: Database, mallory: psycopg.Connection) -> None:
    """Names in the owner's functions are not looked up where the reader says, and settings that they change do not stay."""
    mallory.execute("""
        CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 + $2 $$;
        CREATE FUNCTION finish(int) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN
            PERFORM set_config('search_path', 'elsewhere', false), set_config('work_mem', '123kB', false);
            RETURN current_setting('role') || ' ' || current_user; END $$;
        CREATE AGGREGATE kept(int) (SFUNC = step, STYPE = int, INITCOND = 0, COMBINEFUNC = step, FINALFUNC = finish)""")
    mallory.execute("CREATE FOREIGN TABLE s (v int) SERVER l")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT kept(v) AS who FROM s")
    mallory.execute("INSERT INTO s VALUES (1)")
    flush(mallory)
    before = db.rows("SHOW search_path") + db.rows("SHOW work_mem")
    assert db.value("SELECT who FROM mallory.v") == "none mallory"
    assert db.rows("SHOW search_path") + db.rows("SHOW work_mem") == before
    assert db.value("SELECT current_user::text") == "postgres"


def test_keys_and_order(db: Database, mallory: psycopg.Connection) -> None:
    """Equality, hash and order of a type, from operator classes that a superuser made of a user's functions."""
    mallory.execute("CREATE TYPE t AS (n int)")
    for function, result in (("eq", "boolean"), ("lt", "boolean"), ("cmp", "int")):
        sign = {"eq": "($1).n = ($2).n", "lt": "($1).n < ($2).n", "cmp": "sign(($1).n - ($2).n)::int"}[function]
        mallory.execute(f"""CREATE FUNCTION {function}(t, t) RETURNS {result} LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM mallory.note('{function}'); RETURN {sign}; END $$""")
    mallory.execute("""CREATE FUNCTION hash(t) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM mallory.note('hash'); RETURN ($1).n % 2; END $$""")
    db.execute("""CREATE OPERATOR mallory.= (FUNCTION = mallory.eq, LEFTARG = mallory.t, RIGHTARG = mallory.t, HASHES, MERGES,
        COMMUTATOR = OPERATOR(mallory.=))""")
    db.execute("CREATE OPERATOR mallory.< (FUNCTION = mallory.lt, LEFTARG = mallory.t, RIGHTARG = mallory.t)")
    db.execute("""CREATE OPERATOR CLASS mallory.hash_t DEFAULT FOR TYPE mallory.t USING hash AS
        OPERATOR 1 mallory.=, FUNCTION 1 mallory.hash(mallory.t)""")
    db.execute("""CREATE OPERATOR CLASS mallory.btree_t DEFAULT FOR TYPE mallory.t USING btree AS
        OPERATOR 1 mallory.<, OPERATOR 3 mallory.=, FUNCTION 1 mallory.cmp(mallory.t, mallory.t)""")
    mallory.execute("CREATE FOREIGN TABLE s (k t, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    mallory.execute("""CREATE VIEW v WITH (streamext.continuous) AS
        SELECT streamext.hop('2 min', '1 min', ts) AS w, k, array_agg(k ORDER BY k) AS all, count(DISTINCT k) FROM s GROUP BY 1, 2""")
    insert(mallory, "INSERT INTO s SELECT ROW(i % 4)::t, '2024-01-01'::timestamptz + i * interval '20 s' FROM generate_series(1, 20) i")
    flush(mallory)
    assert places(db) >= {"hash", "eq"}
    mallory.execute("TRUNCATE seen")
    assert len(db.rows("SELECT w, k::text, all::text, count FROM mallory.v".replace(", all::", ', v."all"::'))) > 20
    assert places(db) >= {"eq", "cmp"}


TARGET = """
    CREATE FUNCTION fallback() RETURNS int LANGUAGE sql AS $$ SELECT mallory.pass('default', 1) $$;
    CREATE TABLE target (v int CHECK (pass('check', v) > 0), d int DEFAULT fallback(),
        g int GENERATED ALWAYS AS (pass('generated', v)) STORED) PARTITION BY RANGE (v);
    CREATE TABLE part PARTITION OF target FOR VALUES FROM (1) TO (1000);
    CREATE INDEX ON target ((pass('index', v))) WHERE pass('predicate', v) > 0;
    CREATE TRIGGER a BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION note_row('before');
    CREATE TRIGGER b AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION note_row('after');
    CREATE TRIGGER c AFTER INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION note_row('statement');
    CREATE CONSTRAINT TRIGGER d AFTER INSERT ON part DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_row('deferred');
"""
TARGET_PLACES = {"check", "default", "generated", "index", "predicate", "before", "after", "statement", "deferred"}


@pytest.mark.parametrize("windows", [False, True])
def test_into_a_table(db: Database, mallory: psycopg.Connection, windows: bool) -> None:
    """All that a table does when a row is inserted is done by the view's owner, before the scope is left."""
    mallory.execute(TARGET)
    mallory.execute("CREATE FOREIGN TABLE s (v int, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    query = "max(v) AS v FROM s GROUP BY streamext.tumble('1 min', ts)" if windows else "pass('expression', v) AS v FROM s"
    mallory.execute(f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 'target') AS SELECT {query}")
    insert(mallory, "INSERT INTO s VALUES (1, '2024-01-01'), (2, '2024-01-01 00:10')")
    flush(mallory)
    wait_for(lambda: db.value("SELECT count(*) FROM mallory.target") == (1 if windows else 2))
    assert places(db) == TARGET_PLACES | (set() if windows else {"expression"})


def test_joins(db: Database, mallory: psycopg.Connection) -> None:
    mallory.execute("CREATE TABLE known (k int, name text); ALTER TABLE known ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    mallory.execute("CREATE POLICY p ON known USING (pass('policy', k) > 0); INSERT INTO known VALUES (1, 'one')")
    mallory.execute("CREATE INDEX ON known (pass('index', k))")
    mallory.execute("CREATE FOREIGN TABLE s (k int) SERVER l")
    mallory.execute("""CREATE VIEW v WITH (streamext.continuous) AS
        SELECT name, count(*) FROM s JOIN known ON known.k = pass('on', s.k) WHERE pass('constant') GROUP BY name""")
    insert(mallory, "INSERT INTO s VALUES (1), (2)")
    flush(mallory)
    assert db.rows("SELECT * FROM mallory.v") == [("one", 1)]
    assert places(db) >= {"policy", "on", "constant"}


# A trigger's attempts to get out, each by itself. What the restriction forbids raises 42501.
WAYS_OUT = [
    "SET ROLE postgres", "RESET ROLE", "SET SESSION AUTHORIZATION postgres", "RESET SESSION AUTHORIZATION",
    "SET LOCAL SESSION AUTHORIZATION DEFAULT", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CREATE TEMP TABLE t (a int)", "LISTEN x",
    "PREPARE p AS SELECT 1", "SET CONSTRAINTS ALL DEFERRED; INSERT INTO mallory.later VALUES (1)",
    "SELECT mallory.with_role()", "SELECT mallory.with_authorization()",
]  # fmt: skip


def test_ways_out_stay_closed(db: Database, mallory: psycopg.Connection) -> None:
    mallory.execute("CREATE TABLE later (a int); CREATE TABLE target (way int); CREATE TABLE tried (way int, state text)")
    mallory.execute("""CREATE CONSTRAINT TRIGGER d AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION note_row('deferred')""")
    for name, setting in (("with_role", "role"), ("with_authorization", "session_authorization")):
        mallory.execute(f"CREATE FUNCTION {name}() RETURNS boolean LANGUAGE sql AS $$ SELECT mallory.note('{name}') $$")
        try:
            mallory.execute(f"ALTER FUNCTION {name}() SET {setting} = 'postgres'")
        except psycopg.Error:  # what cannot be declared cannot be called either
            mallory.execute(f"DROP FUNCTION {name}()")
    cases = " ".join(f"WHEN {i} THEN {mallory_quote(way)}" for i, way in enumerate(WAYS_OUT))
    mallory.execute(f"""CREATE FUNCTION try() RETURNS trigger LANGUAGE plpgsql SET work_mem = '200kB' AS $$ BEGIN
        PERFORM mallory.note('try'), set_config('search_path', 'mallory', false), set_config('maintenance_work_mem', '1234kB', false);
        BEGIN
            EXECUTE CASE NEW.way {cases} END;
            INSERT INTO mallory.tried VALUES (NEW.way, 'done');
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO mallory.tried VALUES (NEW.way, SQLSTATE);
        END;
        RETURN NEW; END $$""")
    mallory.execute("CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION try()")
    mallory.execute("CREATE FUNCTION setting() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('maintenance_work_mem') $$")
    mallory.execute("CREATE FOREIGN TABLE s (way int) SERVER l")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous, streamext.into = 'target') AS SELECT way FROM s")
    insert(mallory, f"INSERT INTO s SELECT generate_series(0, {len(WAYS_OUT) - 1})")
    flush(mallory)
    outcome = dict(db.rows("SELECT way, state FROM mallory.tried"))
    allowed = [way for i, way in enumerate(WAYS_OUT) if outcome[i] not in ("42501", "0A000", "42883")]
    assert not allowed
    assert places(db) == {"try"}
    # what was set did not stay with the worker: the next batch is looked up and written as before
    mallory.execute("TRUNCATE tried; CREATE TABLE was (setting text, path text)")
    mallory.execute("""CREATE OR REPLACE FUNCTION try() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO mallory.was VALUES (current_setting('maintenance_work_mem'), current_setting('search_path')); RETURN NEW; END $$""")
    mallory.execute("INSERT INTO s VALUES (1)")
    flush(mallory)
    assert db.rows("SELECT setting, path FROM mallory.was") == [(db.value("SHOW maintenance_work_mem"), "pg_catalog, pg_temp")]


# What a trigger may do with its owner's rights to what it is part of, while its batch is under way.
MEDDLING = [
    "INSERT INTO mallory.other VALUES (1)", "INSERT INTO mallory.s VALUES (-1)", "SELECT streamext.pause('mallory.other')",
    "SELECT streamext.rebuild('mallory.w')", "SELECT streamext.seek('mallory.other', 'earliest')", "DROP VIEW mallory.w",
    "CREATE VIEW mallory.x WITH (streamext.continuous) AS SELECT count(*) FROM mallory.other",
    "ALTER VIEW mallory.w SET (streamext.max_groups = 5)", "ALTER FOREIGN TABLE mallory.other ADD b int",
    "ALTER FOREIGN TABLE mallory.s OPTIONS (ADD max_ahead '2 h')", "SELECT * FROM mallory.s", "SELECT * FROM mallory.w",
    "TRUNCATE mallory.target", "SELECT * FROM streamext.dead_letters", "SET TRANSACTION READ ONLY",
    "SET LOCAL transaction_read_only = on", "DROP FOREIGN TABLE mallory.s CASCADE",
]  # fmt: skip


@pytest.mark.parametrize("meddling", MEDDLING)
def test_meddling_ends_nothing(db: Database, mallory: psycopg.Connection, meddling: str) -> None:
    """Whatever a trigger does to its own stream or another one of its owner's: the server lives, and other people's streams go on."""
    mallory.execute("CREATE FOREIGN TABLE s (a int) SERVER l; CREATE FOREIGN TABLE other (a int) SERVER l")
    mallory.execute("CREATE VIEW w WITH (streamext.continuous) AS SELECT count(*) FROM other; CREATE TABLE target (a int)")
    db.execute("CREATE FOREIGN TABLE innocent (a int) SERVER l; CREATE VIEW i WITH (streamext.continuous) AS SELECT count(*) FROM innocent")
    mallory.execute(f"""CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM mallory.note('meddle'); IF NEW.a > 0 THEN EXECUTE {mallory_quote(meddling)}; END IF; RETURN NEW; END $$""")
    mallory.execute("CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION meddle()")
    mallory.execute("CREATE VIEW v WITH (streamext.continuous, streamext.into = 'target') AS SELECT a FROM s")
    started = db.value("SELECT pg_postmaster_start_time()")
    said = db.server.log_file.stat().st_size
    mallory.execute("INSERT INTO s VALUES (1), (2)")
    with suppress(psycopg.Error):
        mallory.execute("SET statement_timeout = '10 s'")
        flush(mallory)
    db.execute("INSERT INTO innocent VALUES (1)")
    db.flush("innocent")
    assert db.value("SELECT count FROM i") == 1
    assert db.value("SELECT pg_postmaster_start_time()") == started
    places(db)
    assert "terminated by signal" not in db.server.log(said)


def mallory_quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def test_an_owner_changes(db: Database, mallory: psycopg.Connection) -> None:
    """Of the stream, then of the view: the next batch is the new one's."""
    db.execute("CREATE ROLE heir; GRANT USAGE ON SCHEMA mallory, streamext TO heir; GRANT CREATE ON SCHEMA mallory TO heir")
    db.execute("GRANT USAGE ON FOREIGN SERVER l TO heir")
    try:
        mallory.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
        mallory.execute("""CREATE FUNCTION tell(mood) RETURNS json LANGUAGE plpgsql AS
            $$ BEGIN PERFORM mallory.note('json'); RETURN '"mood"'; END $$""")
        mallory.execute("CREATE CAST (mood AS json) WITH FUNCTION tell(mood)")
        mallory.execute("CREATE FOREIGN TABLE s (v mood, x int) SERVER l")
        mallory.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT sum(1 / pass('argument', x)) FROM s")

        def owners() -> dict[str, str]:
            insert(mallory, "INSERT INTO s VALUES ('good', 0), ('good', 1)")
            db.flush("mallory.s")
            return dict(db.rows("SELECT DISTINCT place, who::text FROM mallory.seen"))

        assert owners() == {"json": "mallory", "argument": "mallory"}
        mallory.execute("GRANT SELECT, INSERT ON s TO mallory, heir")
        db.execute("ALTER FOREIGN TABLE mallory.s OWNER TO heir; GRANT SELECT, INSERT ON mallory.s TO mallory")
        assert owners() == {"json": "heir", "argument": "mallory"}
        db.execute("ALTER VIEW mallory.v OWNER TO heir")
        assert owners() == {"json": "heir", "argument": "heir"}
    finally:
        db.execute("DROP OWNED BY heir CASCADE; DROP ROLE heir")


def test_restoring_a_view_gives_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """A superuser who restores a dump makes each view as his own before he gives it away: by then nothing of it must have run."""
    aggregates(mallory)
    mallory.execute("""CREATE FUNCTION size() RETURNS interval LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM mallory.note('size'); RETURN '1 min'; END $$;
        CREATE DOMAIN span AS interval CHECK (mallory.pass('span'));
        CREATE FUNCTION begin2(first, first) RETURNS first LANGUAGE sql IMMUTABLE AS 'SELECT $1';
        CREATE AGGREGATE begun2(int) (SFUNC = step3, STYPE = first, INITCOND = 0, COMBINEFUNC = begin2);
        CREATE FOREIGN TABLE s (v int, ts timestamptz) SERVER l OPTIONS (event_time 'ts'); TRUNCATE seen""")
    for output in ("streamext.tumble(mallory.size(), ts)", "streamext.tumble('1 min'::mallory.span, ts)", "mallory.begun2(v)"):
        group = " GROUP BY 1" if "tumble" in output else ""
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="superuser"):
            db.execute(f"CREATE VIEW mallory.v WITH (streamext.continuous) AS SELECT {output}, count(*) FROM mallory.s{group}")
    assert not places(db)
    # what runs with rows only is restored as it is, and is his from then on
    db.execute("CREATE VIEW mallory.v WITH (streamext.continuous) AS SELECT mallory.kept(v) AS n FROM mallory.s WHERE mallory.pass('where')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.flush("mallory.s")  # a worker that comes first runs nothing either
    assert not places(db)
    db.execute("ALTER VIEW mallory.v OWNER TO mallory; ALTER VIEW mallory.v SET (streamext.max_groups = 7)")
    mallory.execute("INSERT INTO s VALUES (1, now())")
    flush(mallory)
    assert places(db) == {"where", "step"}


def test_restoring_alerts_and_joins_gives_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """Also what runs without a row's coming, or by a table's row: an alert's own functions, those of views below, of `clear`, casts to json."""
    mallory.execute("""CREATE TYPE mood AS ENUM ('well'); CREATE FUNCTION tell(mood) RETURNS json LANGUAGE plpgsql AS
        $$ BEGIN PERFORM mallory.note('cast'); RETURN '1'; END $$; CREATE CAST (mood AS json) WITH FUNCTION tell(mood);
        CREATE TABLE t (k int); INSERT INTO t VALUES (1); CREATE VIEW below AS SELECT k, mallory.pass('below', k) AS b FROM t;
        CREATE VIEW folded AS SELECT k, mallory.pass('folded') AS f FROM t;
        CREATE FOREIGN TABLE s (k int) SERVER l; CREATE FOREIGN TABLE s2 (k int) SERVER l; CREATE VIEW counted WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM s GROUP BY k""")
    insert(mallory, "INSERT INTO s VALUES (1)")
    flush(mallory)
    db.execute("SET search_path = mallory, public")
    alert = "WITH (streamext.alert, streamext.every = '50 ms', streamext.key = 'k'"
    db.execute(f"CREATE VIEW a1 {alert}) AS SELECT k FROM counted WHERE note('where')")
    db.execute(f"CREATE VIEW a2 {alert}) AS SELECT k, b FROM counted JOIN below USING (k)")
    db.execute(f"CREATE VIEW a3 {alert}, streamext.clear = 'mallory.note(''clear'')') AS SELECT k FROM counted WHERE n > 0")
    db.execute(f"CREATE VIEW a4 {alert}) AS SELECT k, 'well'::mood AS m FROM counted")
    db.execute("CREATE VIEW n1 WITH (streamext.continuous, streamext.notify) AS SELECT k, 'well'::mood AS m, count(*) FROM s GROUP BY k")
    db.execute("CREATE VIEW j1 WITH (streamext.continuous) AS SELECT k, b, count(*) FROM s2 JOIN below USING (k) GROUP BY k, b")
    db.execute("CREATE VIEW j2 WITH (streamext.continuous) AS SELECT k, f, count(*) FROM s2 JOIN folded USING (k) GROUP BY k, f")
    db.execute("INSERT INTO s VALUES (2)")
    db.flush("s")
    failed = "SELECT count(*) FROM streamext.alert_views WHERE last_error LIKE '%superuser%'"
    wait_for(lambda: db.value(failed) == 4, what="all alerts to be refused")
    joins = "SELECT count(*) FROM streamext.continuous_views WHERE view::text IN ('j1', 'j2') AND state = 'failed'"
    wait_for(lambda: db.value(joins) == 2, what="the joins to be refused")
    assert not places(db)
    db.execute("ALTER VIEW a3 OWNER TO mallory; ALTER VIEW n1 OWNER TO mallory")
    wait_for(lambda: places(db) == {"cast", "clear"}, what="what is an ordinary role's to be evaluated")


def test_restoring_a_stream_gives_nothing(db: Database, mallory: psycopg.Connection) -> None:
    """The same of the types of its columns, also within others: the stream reads nothing until it is an ordinary role's."""
    mallory.execute("CREATE DOMAIN checked AS int CHECK (mallory.pass('domain', VALUE) IS NOT NULL); CREATE TYPE pair AS (a text, list checked[])")
    db.execute("CREATE FOREIGN TABLE mallory.s (p mallory.pair) SERVER l; GRANT ALL ON mallory.s TO mallory")
    db.execute("CREATE VIEW mallory.v WITH (streamext.continuous) AS SELECT count(*) AS n FROM mallory.s")
    stream = "SELECT state, last_error FROM streamext.streams"
    wait_for(lambda: db.rows(stream)[0][0] == "failed", what="the stream to fail")
    assert "of a type of another role" in db.rows(stream)[0][1]
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="of a type of another role"):
        db.rows("SELECT * FROM mallory.s")
    assert not places(db)
    db.execute("ALTER FOREIGN TABLE mallory.s OWNER TO mallory")
    mallory.execute("INSERT INTO s VALUES (ROW('a', ARRAY[1]))")
    wait_for(lambda: db.rows(stream)[0][0] == "running", what="the stream to run")
    db.flush("mallory.s")
    assert db.rows("TABLE mallory.v") == [(1,)]


def test_security_invoker_over_a_join(db: Database) -> None:
    """Readers would see what row security hides from them in the joined table: refused at definition, and at read where it is there."""
    db.execute("CREATE SERVER l FOREIGN DATA WRAPPER local; CREATE FOREIGN TABLE s (k int) SERVER l; CREATE TABLE t (k int, name text)")
    db.execute("INSERT INTO t VALUES (1, 'shown'), (2, 'hidden'); ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE POLICY p ON t USING (name = 'shown'); CREATE ROLE visitor LOGIN; GRANT SELECT ON s, t TO visitor")
    query = "SELECT name, count(*) FROM s JOIN t USING (k) GROUP BY name"
    try:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="security_invoker"):
            db.execute(f"CREATE VIEW v WITH (streamext.continuous, security_invoker) AS {query}")
        db.execute(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="security_invoker"):
            db.execute("ALTER VIEW v SET (security_invoker)")
        db.execute("GRANT SELECT ON v TO visitor; INSERT INTO s VALUES (1), (2)")
        db.flush("s")
        with db.connect("visitor") as visitor:
            assert visitor.execute("SELECT count(*) FROM v").fetchall() == [(2,)]  # as any view: with its owner's rights
            db.execute("""UPDATE pg_class SET reloptions = reloptions || '{security_invoker=true}' WHERE oid = 'v'::regclass""")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="security_invoker"):
                visitor.execute("SELECT * FROM v")
        db.execute("ALTER VIEW v RESET (security_invoker)")
        assert db.value("SELECT count(*) FROM v") == 2
    finally:
        db.execute("DROP OWNED BY visitor; DROP ROLE visitor")


def test_readers_need_no_right_on_the_schema(db: Database) -> None:
    """As of any view: who may read it needs none of the rights that its definition took."""
    db.execute("CREATE SERVER l FOREIGN DATA WRAPPER local; CREATE FOREIGN TABLE s (v int, ts timestamptz) SERVER l OPTIONS (event_time 'ts')")
    db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT streamext.tumble('1 min', ts) AS w, sum(v) FROM s GROUP BY 1")
    db.execute("CREATE ROLE visitor LOGIN; GRANT SELECT ON v TO visitor; INSERT INTO s VALUES (1, '2024-01-01')")
    db.flush("s")
    try:
        db.execute("REVOKE USAGE ON SCHEMA streamext FROM PUBLIC")
        with db.connect("visitor") as visitor:
            assert visitor.execute("SELECT sum FROM v").fetchall() == [(1,)]
    finally:
        db.execute("DROP OWNED BY visitor; DROP ROLE visitor")


def test_no_call_is_outside_a_scope() -> None:
    """.ci/identity finds no way in src/ to a user's code but through a scope of the owner's, except those that it lists with reasons."""
    script = Path(__file__).resolve().parent.parent / ".ci/identity"
    result = subprocess.run([script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
