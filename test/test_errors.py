"""Errors that are no row's - a cancel, a deadlock, a lock, memory, disk - cost no row: the batch comes again, and a view that has
one for a while goes on by itself when it is over."""

import psycopg
import pytest
from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, counts, kafka_stream, local_stream, worker_pid
from harness.wait import wait_for

PASSING = ["57014", "40P01", "40001", "53200", "53100", "55P03", "58030", "08006", "XX000", "XX001"]

# Raises on the value 5, the first `times` times; a sequence counts, for it is not rolled back.
TROUBLE = """CREATE SEQUENCE tries;
    CREATE FUNCTION trouble(v int, state text, times int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        IF v = 5 AND nextval('public.tries') <= times THEN
            RAISE EXCEPTION 'trouble with %', v USING ERRCODE = state;
        END IF;
        RETURN v;
    END $$"""


@pytest.fixture
def stream(db: Database) -> Database:
    local_stream(db, columns="v int")
    db.execute(TROUBLE)
    return db


def insert(db: Database, first: int = 1, last: int = 10) -> None:
    db.execute("INSERT INTO s SELECT generate_series(%s::int, %s::int)", first, last)


def assert_nothing_lost(db: Database, view: str = "v", accepted: int = 10) -> None:
    db.flush("s")
    assert counts(db, view) == (accepted, 0, 0)
    assert db.rows("SELECT sqlstate, reason FROM streamext.dead_letters") == []


@pytest.mark.parametrize("state", PASSING)
def test_an_expression(stream: Database, state: str) -> None:
    continuous(stream, "v", f"SELECT trouble(v, '{state}', 2) AS t, count(*) FROM s GROUP BY 1")
    continuous(stream, "other", "SELECT v, count(*) FROM s GROUP BY v")
    insert(stream)
    assert_nothing_lost(stream)
    assert_nothing_lost(stream, "other")
    assert stream.value("SELECT count(*) FROM v") == 10
    assert "trouble with 5" in stream.value("SELECT last_error FROM streamext.continuous_views WHERE view = 'v'::regclass")


@pytest.mark.parametrize("state", ["40P01", "58030", "XX000"])
@pytest.mark.parametrize("place", ["key", "aggregate", "join", "into", "trigger"])
def test_other_places(db: Database, place: str, state: str) -> None:
    db.execute(TROUBLE)
    local_stream(db, columns="v int")
    db.execute("CREATE TABLE numbers AS SELECT generate_series(1, 10) AS n")
    db.execute("CREATE TABLE target (v int)")
    call = f"trouble(v, '{state}', 2)"
    if place == "key":
        continuous(db, "v", f"SELECT v, count(*) FROM s WHERE {call} > 0 GROUP BY v")
    elif place == "aggregate":
        db.execute(f"""CREATE FUNCTION add(a int, v int) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT a + public.{call} $$;
            CREATE AGGREGATE total(int) (SFUNC = add, STYPE = int, INITCOND = 0, COMBINEFUNC = int4pl)""")
        continuous(db, "v", "SELECT total(v) FROM s")
    elif place == "join":
        continuous(db, "v", f"SELECT n, count(*) FROM s JOIN numbers ON n = {call} GROUP BY n")
    elif place == "into":
        continuous(db, "v", f"SELECT {call} AS v FROM s", ", streamext.into = 'target'")
    else:
        db.execute(f"""CREATE FUNCTION check_row() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.v := public.trouble(NEW.v, '{state}', 2); RETURN NEW; END $$""")
        db.execute("CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION check_row()")
        continuous(db, "v", "SELECT v FROM s", ", streamext.into = 'target'")
    insert(db)
    assert_nothing_lost(db)
    if place in ("into", "trigger"):
        assert db.rows("SELECT count(*), sum(v) FROM target") == [(10, 55)]


def test_a_cancelled_worker_loses_no_row(stream: Database) -> None:
    db = stream
    db.execute("""CREATE FUNCTION waits(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN IF v = 5 THEN PERFORM pg_advisory_lock_shared(77); PERFORM pg_advisory_unlock_shared(77); END IF; RETURN v; END $$""")
    continuous(db, "v", "SELECT waits(v), count(*) FROM s GROUP BY 1")
    db.flush("s")
    pid = worker_pid(db)
    waiting = "SELECT count(*) = 1 FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
    with db.connect() as other:
        other.execute("SELECT pg_advisory_lock(77)")
        insert(db)
        wait_for(lambda: db.value(waiting, pid), what="the worker to wait")
        db.execute("SELECT pg_cancel_backend(%s)", pid)
        wait_for(lambda: db.value("SELECT last_error FROM streamext.continuous_views WHERE view = 'v'::regclass"), what="the error")
    assert_nothing_lost(db)
    assert worker_pid(db) == pid


def test_a_reader_is_cancelled(db: Database, kafka: Kafka, topic: str) -> None:
    """Rows whose decoding was cut off are not left out of an answer."""
    db.execute("""CREATE FUNCTION waits(v int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN IF v = 5 AND current_setting('application_name') = 'slow' THEN PERFORM pg_sleep(600); END IF; RETURN true; END $$""")
    db.execute("CREATE DOMAIN checked AS int CHECK (waits(VALUE))")
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "v checked")
    kafka.produce(topic, [b'{"v": %d}' % i for i in range(10)])
    db.flush("s")
    assert db.value("SELECT count(*) FROM s") == 10
    with db.connect(application_name="slow") as reader:
        reader.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            reader.execute("SELECT count(*) FROM s")


@pytest.mark.parametrize("state", ["40P01", "58030", "XX000"])
def test_decoding(db: Database, kafka: Kafka, topic: str, state: str) -> None:
    db.execute(TROUBLE)
    db.execute(f"CREATE DOMAIN checked AS int CHECK (trouble(VALUE, '{state}', 2) > 0)")
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "v checked")
    continuous(db, "v", "SELECT v::int, count(*) FROM s GROUP BY 1")
    db.flush("s")
    kafka.produce(topic, [b'{"v": %d}' % i for i in range(1, 11)])
    assert_nothing_lost(db)


def test_a_view_in_lasting_trouble(stream: Database) -> None:
    """It says so, the others go on, and when the trouble is over it counts what it has missed."""
    db = stream
    db.execute("CREATE TABLE known AS SELECT generate_series(1, 30) AS k")
    db.execute("""CREATE FUNCTION look(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT max(k) FROM public.known) = 30 THEN RAISE EXCEPTION 'no disk' USING ERRCODE = '58030'; END IF; RETURN v; END $$""")
    continuous(db, "v", "SELECT look(v), count(*) FROM s GROUP BY 1")
    continuous(db, "other", "SELECT v, count(*) FROM s GROUP BY v")
    insert(db)
    state = "SELECT state, last_error FROM streamext.continuous_views WHERE view = 'v'::regclass"
    wait_for(lambda: db.rows(state) == [("failed", "no disk")], what="the view to fail")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has failed"):
        db.flush("s")
    insert(db, 11, 20)
    wait_for(lambda: counts(db, "other") == (20, 0, 0), what="the other view")
    db.execute("DELETE FROM known WHERE k = 30")
    wait_for(lambda: counts(db, "v") == (20, 0, 0), what="the view to go on")
    assert_nothing_lost(db, accepted=20)
    db.assert_same("SELECT * FROM v", "SELECT i, 1::bigint FROM generate_series(1, 20) i")


def test_internal_errors(stream: Database) -> None:
    """On one row they are the row's, which is not to stop the view; on all of them they are the view's."""
    db = stream
    continuous(db, "one", "SELECT trouble(v, 'XX000', 1000000) AS t, count(*) FROM s GROUP BY 1")
    db.execute("""CREATE FUNCTION always(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'broken' USING ERRCODE = 'XX000'; END $$""")
    continuous(db, "every", "SELECT always(v), count(*) FROM s GROUP BY 1")
    insert(db)
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'every'::regclass") == "failed", what="failure")
    assert db.value("SELECT last_error FROM streamext.continuous_views WHERE view = 'every'::regclass") == "broken"
    wait_for(lambda: counts(db, "one") == (9, 0, 1), what="the other rows")
    wait_for(lambda: db.rows("SELECT view::text, sqlstate FROM streamext.dead_letters") == [("one", "XX000")], what="the letter")


@pytest.mark.parametrize("state", ["40P01", "XX000"])
def test_letters_that_are_tried_again(db: Database, state: str) -> None:
    """The worker goes on, and tries them until the error is over."""
    local_stream(db, columns="v int")
    function = "CREATE OR REPLACE FUNCTION half(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN {} RETURN v / 2; END'"
    db.execute("CREATE TABLE closed AS SELECT 1")
    db.execute(function.format("IF v % 5 = 0 THEN RAISE ''no %'', v; END IF;"))
    continuous(db, "v", "SELECT half(v), count(*) FROM s GROUP BY 1")
    db.execute("INSERT INTO s SELECT generate_series(1, 20)")
    db.flush("s")
    assert counts(db, "v") == (16, 0, 4)
    db.execute(function.format(f"IF EXISTS (TABLE public.closed) THEN RAISE ''closed'' USING ERRCODE = ''{state}''; END IF;"))
    db.flush("s")
    pid = db.value("SELECT max(pid) FROM streamext.workers")
    db.execute("SELECT streamext.retry_dead_letters('s')")
    wait_for(lambda: db.value("SELECT last_error FROM streamext.continuous_views") == "closed", what="the error")
    db.execute("DELETE FROM closed")
    # a view that was set aside meanwhile keeps its letters, and has them tried by who asks when it is back
    wait_for(
        lambda: db.value("SELECT count(*) FROM streamext.dead_letters") == 0 or db.execute("SELECT streamext.retry_dead_letters('s')"),
        what="the letters to go",
    )
    db.flush("s")
    assert counts(db, "v") == (20, 0, 0)
    assert db.value("SELECT max(pid) FROM streamext.workers") == pid


# A transition function that raises for 0; beside it some that keep their state in place, or as an internal one.
RAISING = """CREATE FUNCTION add(numeric, int) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1 / $2';
    CREATE AGGREGATE ones(int) (SFUNC = add, STYPE = numeric, INITCOND = '0', COMBINEFUNC = numeric_add);
    CREATE AGGREGATE mean(int) (SFUNC = int4_avg_accum, STYPE = int8[], INITCOND = '{0,0}', COMBINEFUNC = int4_avg_combine, FINALFUNC = int8_avg);
    CREATE AGGREGATE average(numeric) (SFUNC = numeric_avg_accum, STYPE = internal, COMBINEFUNC = numeric_avg_combine,
        SERIALFUNC = numeric_avg_serialize, DESERIALFUNC = numeric_avg_deserialize, FINALFUNC = numeric_avg)"""
AGGREGATES = "count(*) AS n, mean(v), average(v), ones(v) FILTER (WHERE v < 9), string_agg(v::text, '' ORDER BY v) AS all"


def test_half_of_a_batch_raises_in_aggregates(db: Database) -> None:
    """What is done for it is as much as there are rows, not their square: it went beyond view_time_limit. Others' states are without these rows."""
    local_stream(db, columns="v int, k int")
    db.execute(RAISING + "; CREATE TABLE o AS SELECT i % 2 * (i % 5) AS v, i % 7 AS k FROM generate_series(1, 20000) AS i")
    views = {"whole": f"SELECT {AGGREGATES} FROM {{}}", "keys": f"SELECT k, {AGGREGATES} FROM {{}} GROUP BY k",
             "sets": f"SELECT k, {AGGREGATES} FROM {{}} GROUP BY GROUPING SETS ((k), ())"}  # fmt: skip
    for name, query in views.items():
        continuous(db, name, query.format("s"))
    db.execute("INSERT INTO s TABLE o")
    db.flush("s")
    good = db.value("SELECT count(*) FROM o WHERE v <> 0")
    for name, query in views.items():
        assert counts(db, name) == (good, 0, 20000 - good)
        db.assert_same(f"TABLE {name}", query.format("(SELECT * FROM o WHERE v <> 0) AS good"))
    assert db.rows("SELECT DISTINCT sqlstate, reason FROM streamext.dead_letters") == [("22012", "division by zero")]


def test_a_joined_row_that_raises_takes_all_of_its_record_with_it(db: Database) -> None:
    local_stream(db, columns="v int")
    db.execute(RAISING + "; CREATE TABLE t AS SELECT v, n FROM generate_series(1, 100) AS v, unnest(ARRAY[1, 2, v % 2]) AS n")
    query = "SELECT n % 2 AS odd, count(*) AS n, mean(n), average(n), ones(n) FROM {} JOIN t USING (v) GROUP BY 1"
    continuous(db, "v", query.format("s"))
    db.execute("INSERT INTO s SELECT generate_series(1, 100)")
    db.flush("s")
    assert counts(db, "v") == (50, 0, 50)
    db.assert_same("TABLE v", query.format("(SELECT generate_series(1, 100, 2) AS v) AS good"))


def test_what_an_aggregate_kept_by_its_values_raises_is_raised_by_who_reads_it(db: Database) -> None:
    """As PostgreSQL raises it over a table; other windows can be read, and the rows can be left out."""
    local_stream(db, "event_time 'ts'", "k text, ts timestamptz, f float8")
    db.execute("CREATE TABLE o (k text, ts timestamptz, f float8)")
    raising = {"objects": ("jsonb_object_agg(k, f)", "22023"), "arrays": ("array_agg(string_to_array(k, '-'))", "22004"), "sums": ("sum(f)", "22003")}
    query = "SELECT streamext.tumble('1 min', ts) AS w, {} AS x FROM {} GROUP BY w"
    for name, (aggregate, _) in raising.items():
        continuous(db, name, query.format(aggregate, "s"))
        continuous(db, f"good_{name}", query.format(f"{aggregate} FILTER (WHERE k IS NOT NULL AND f < 1e300)", "s"))
    for table in ("s", "o"):
        db.execute(f"INSERT INTO {table} SELECT nullif(i, 3)::text, '2024-05-01'::timestamptz + i * interval '20 s', 10 ^ (308 * (i / 3 % 2)) FROM generate_series(0, 8) AS i")
    db.flush("s")
    for name, (aggregate, sqlstate) in raising.items():
        assert counts(db, name) == (9, 0, 0)
        for read in (f"TABLE {name}", query.format(aggregate, "o")):
            assert db.refusal(read).startswith(sqlstate), read
        good = "w >= '2024-05-01 00:02:00'::timestamptz"
        db.assert_same(f"SELECT * FROM {name} WHERE {good}", f"SELECT * FROM ({query.format(aggregate, 'o WHERE ts >= timestamptz $$2024-05-01 00:02$$')}) q")
        db.assert_same(f"TABLE good_{name}", query.format(f"{aggregate} FILTER (WHERE k IS NOT NULL AND f < 1e300)", "o"))
