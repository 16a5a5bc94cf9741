"""Stateless continuous queries: each accepted row of a stream, transformed, is in an ordinary table exactly once."""

import os
import random
import signal

import psycopg
import pytest
from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import Postgres
from harness.streams import continuous, counts, error_of, is_alive, kafka_stream, local_stream, worker_pid
from harness.wait import wait_for

COLUMNS = "k int, x int, ts timestamptz DEFAULT '2024-01-01'"


@pytest.fixture
def simple(db: Database) -> Database:
    local_stream(db, "", COLUMNS)
    db.execute("""CREATE TABLE target (id bigint GENERATED ALWAYS AS IDENTITY, k bigint NOT NULL, quotient numeric(10, 2),
        word varchar(8), doubled bigint GENERATED ALWAYS AS (2 * k) STORED, at timestamptz, CHECK (k < 1000))""")
    return db


def into(db: Database, query: str, table: str = "target", name: str = "v") -> None:
    continuous(db, name, query, f", streamext.into = '{table}'")


def insert(db: Database, *rows: tuple[int, int]) -> None:
    db.execute(f"INSERT INTO s (k, x) VALUES {', '.join(map(str, rows))}")
    db.flush("s")


QUERY = "SELECT k, 100.0 / x AS quotient, 'k' || k AS word, ts AS at FROM s WHERE k > 0"


def test_rows_are_transformed_and_written_once(simple: Database) -> None:
    db = simple
    into(db, QUERY)
    for batch in range(5):
        insert(db, *((i - 3, i + 1 + batch) for i in range(200)))
    db.execute("CREATE TABLE o (k int, x int)")
    db.execute("INSERT INTO o SELECT i - 3, i + 1 + batch FROM generate_series(0, 199) i, generate_series(0, 4) batch")
    db.assert_same("SELECT k, quotient, word, doubled, at FROM target",
                   "SELECT k, round(100.0 / x, 2), 'k' || k, 2 * k, timestamptz '2024-01-01' FROM o WHERE k > 0")
    assert counts(db, "v") == (1000, 0, 0)
    assert db.value("SELECT options FROM streamext.continuous_views") == ["streamext.into=public.target"]
    assert db.value("SELECT count(DISTINCT id) FROM target") == db.value("SELECT count(*) FROM target")


def test_bad_rows_are_rejected_alone(simple: Database) -> None:
    """Whether an expression, a cast, a constraint or a trigger says no, also a deferred one."""
    db = simple
    db.execute("CREATE TABLE known (k int PRIMARY KEY)")
    db.execute("INSERT INTO known SELECT generate_series(1, 2000) EXCEPT VALUES (77)")
    db.execute("ALTER TABLE target ADD FOREIGN KEY (k) REFERENCES known DEFERRABLE INITIALLY DEFERRED")
    db.execute("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF NEW.k = 88 THEN RAISE ''not 88''; END IF; RETURN NEW; END'""")
    db.execute("CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse()")
    into(db, "SELECT k, 100.0 / x AS quotient, repeat('w', x) AS word FROM s WHERE k <> 3")
    rows = [(i, 2) for i in range(1, 301)]
    rows[10] = (11, 0)  # division by zero
    rows[20] = (21, 9)  # too long
    rows[30] = (1500, 2)  # CHECK
    insert(db, *rows)
    assert counts(db, "v") == (295, 0, 5)
    db.assert_same("SELECT k FROM target", "SELECT i FROM generate_series(1, 300) i WHERE i NOT IN (3, 11, 21, 31, 77, 88)")
    letters = db.rows("SELECT sqlstate FROM streamext.dead_letters WHERE view = 'v'::regclass ORDER BY position")
    assert [s for (s,) in letters] == ["22012", "22001", "23514", "23503", "P0001"]


def test_joined_rows_into_a_partitioned_table(simple: Database) -> None:
    db = simple
    db.execute("CREATE TABLE parted (k int, name text) PARTITION BY RANGE (k)")
    db.execute("CREATE TABLE p1 PARTITION OF parted FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF parted FOR VALUES FROM (10) TO (20)")
    db.execute("CREATE TABLE names (k int, name text)")
    db.execute("INSERT INTO names VALUES (1, 'one'), (1, 'uno'), (2, 'two'), (15, 'fifteen'), (50, 'fifty')")
    into(db, "SELECT s.k, n.name FROM s LEFT JOIN names n USING (k)", "parted")
    insert(db, (1, 0), (2, 0), (3, 0), (15, 0), (50, 0))
    assert sorted(db.rows("TABLE parted"), key=str) == [(1, "one"), (1, "uno"), (15, "fifteen"), (2, "two"), (3, None)]
    assert counts(db, "v") == (4, 0, 1)


def test_definitions(simple: Database) -> None:
    db = simple
    refused = {
        ("SELECT k FROM s LIMIT 1", None): ("0A000", "LIMIT without GROUP BY"),
        ("SELECT k, count(*) FROM s GROUP BY k", "target"): ("0A000", "streamext.into for queries that aggregate without a window"),
        ("SELECT DISTINCT k FROM s", "target"): ("0A000", "aggregate without a window"),
        ("SELECT k FROM s ORDER BY k", "target"): ("0A000", "ORDER BY"),
        ("SELECT k FROM s LIMIT 1", "target"): ("0A000", "LIMIT"),
        ("SELECT k, rank() OVER () AS quotient FROM s", "target"): ("0A000", "window functions"),
        ("SELECT k, random() AS quotient FROM s", "target"): ("0A000", "volatile function"),
        ("SELECT k, now() AS at FROM s", "target"): ("0A000", "now()"),
        ("SELECT k FROM s WHERE ts > now() - interval '1 min'", "target"): ("0A000", "now()"),
        ("SELECT k FROM s", "nowhere"): ("42P01", "nowhere"),
        ("SELECT k FROM s", "s"): ("42P17", "circle"),
        ("SELECT k AS no_such FROM s", "target"): ("42703", "no_such"),
        ("SELECT k, ts AS quotient FROM s", "target"): ("42804", "quotient"),
        ("SELECT k, x AS doubled FROM s", "target"): ("428C9", "doubled"),
    }
    for (query, table), (state, message) in refused.items():
        with pytest.raises(psycopg.Error) as error:
            continuous(db, "refused", query, f", streamext.into = '{table}'" if table else "")
        assert error_of(error)[0] == state, (query, error.value)
        assert message in error_of(error)[1], (query, error.value)

    into(db, "SELECT k FROM s")
    with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
        db.rows("TABLE v")
    assert "public.target" in error_of(error)[2]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute("DROP TABLE target")
    assert db.value("SELECT reloptions::text FROM pg_class WHERE relname = 'v'").count("streamext.into=public.target") == 1

    # OR REPLACE goes on where the former definition stood, in another table too
    insert(db, (1, 1), (2, 1))
    db.execute("CREATE TABLE other (k int, x int)")
    db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous, streamext.into = 'other') AS SELECT k FROM s")
    insert(db, (3, 1))
    assert db.rows("SELECT k FROM target ORDER BY k") == [(1,), (2,)]
    assert db.rows("SELECT k FROM other") == [(3,)]
    db.execute("DROP TABLE target")
    db.execute("DROP VIEW v")
    db.execute("DROP TABLE other")


def test_a_column_that_is_renamed_in_the_table_and_in_the_view(simple: Database) -> None:
    """PostgreSQL renames a view's column in the catalogue alone: the stored query keeps the name that it had."""
    db = simple
    db.execute("CREATE TABLE plain (k int, x int)")
    into(db, "SELECT k, x FROM s", "plain")
    insert(db, (1, 2))
    db.execute("ALTER TABLE plain RENAME COLUMN x TO y; ALTER VIEW v RENAME COLUMN x TO y")
    insert(db, (3, 4))
    db.execute("ALTER VIEW v SET (streamext.max_groups = 7)")
    insert(db, (5, 6))
    assert sorted(db.rows("SELECT k, y FROM plain")) == [(1, 2), (3, 4), (5, 6)]
    assert counts(db, "v") == (3, 0, 0)


def test_rights_are_the_owners(simple: Database) -> None:
    db = simple
    db.execute("DROP ROLE IF EXISTS writer")
    db.execute("CREATE ROLE writer LOGIN")
    try:
        db.execute("GRANT SELECT ON s TO writer; GRANT CREATE ON SCHEMA public TO writer")
        with db.connect("writer") as writer:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute("CREATE VIEW v WITH (streamext.continuous, streamext.into = 'target') AS SELECT k FROM s")
            db.execute("GRANT INSERT (k) ON target TO writer")
            writer.execute("CREATE VIEW v WITH (streamext.continuous, streamext.into = 'target') AS SELECT k FROM s")
        insert(db, (1, 1))
        assert db.rows("SELECT k FROM target") == [(1,)]
        db.execute("REVOKE INSERT (k) ON target FROM writer")
        db.execute("INSERT INTO s (k) VALUES (2)")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views") == "failed", what="the view to fail")
        db.execute("GRANT INSERT (k) ON target TO writer")
        db.flush("s")
        assert db.rows("SELECT k FROM target ORDER BY k") == [(1,), (2,)]
    finally:
        db.execute("DROP OWNED BY writer CASCADE; DROP ROLE writer")


@pytest.mark.slow
def test_exactly_once_when_workers_and_the_server_are_killed() -> None:
    """Rows of a local stream while its worker, then the whole server, is killed again and again."""
    rng = random.Random(1)
    with Postgres() as pg:
        pg.psql("CREATE EXTENSION streamext")
        db = Database(pg, "postgres")
        local_stream(db, "", COLUMNS)
        db.execute("CREATE TABLE target (k int)")
        into(db, "SELECT k FROM s")
        sent = 0
        for round_ in range(8):
            for _ in range(5):
                db.execute("INSERT INTO s (k) SELECT generate_series(%s::int, %s::int)", sent, sent + 1999)
                sent += 2000
            enough = sent - rng.randrange(8000)
            wait_for(lambda: db.value("SELECT count(*) FROM target") >= enough, what="some of the rows")
            if round_ % 2 == 0:
                pid = worker_pid(db)
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda pid=pid: not is_alive(pid), what="its end")  # else it could be the next one to be killed
            else:
                db = crash(pg, db)
        db.flush("s")
        assert db.rows("SELECT count(*), count(DISTINCT k), min(k), max(k) FROM target") == [(sent, sent, 0, sent - 1)]
        assert counts(db, "v") == (sent, 0, 0)


@pytest.mark.slow
def test_exactly_once_from_kafka(kafka: Kafka, topic: str) -> None:
    with Postgres() as pg:
        pg.psql("CREATE EXTENSION streamext")
        db = Database(pg, "postgres")
        kafka.create_topic(topic, 3)
        kafka_stream(db, kafka, f"topic '{topic}'", "k int")
        db.execute("CREATE TABLE target (k int)")
        into(db, "SELECT k FROM s")
        sent = 0
        for round_ in range(4):
            kafka.produce(topic, [f'{{"k": {k}}}' for k in range(sent, sent + 5000)])
            sent += 5000
            if round_ % 2 == 0:
                db.flush("s")
            else:
                before = sent - 5000
                wait_for(lambda: db.value("SELECT count(*) FROM target") > before, what="some of the rows")
            db = crash(pg, db)
        db.flush("s")
        assert db.rows("SELECT count(*), count(DISTINCT k), min(k), max(k) FROM target") == [(sent, sent, 0, sent - 1)]
        assert counts(db, "v") == (sent, 0, 0)


@pytest.mark.slow
def test_a_new_view_catches_up_into_its_table(db: Database, kafka: Kafka, topic: str) -> None:
    """In a process of its own, beside a stream that goes on, and is killed on the way."""
    kafka.create_topic(topic, 5)
    kafka_stream(db, kafka, f"topic '{topic}'", "k int")
    db.execute("CREATE TABLE target (k int); CREATE TABLE second (k int)")
    continuous(db, "n", "SELECT count(*) FROM s")
    sent = 0
    for step in range(6):
        kafka.produce(topic, [f'{{"k": {k}}}' for k in range(sent, sent + 20_000)])
        sent += 20_000
        if step == 1:
            db.flush("s")
            into(db, "SELECT k FROM s")
        if step == 3:
            into(db, "SELECT k FROM s WHERE k >= 0", "second", "w")
        if step in (2, 4):
            os.kill(worker_pid(db), signal.SIGTERM)
    db.flush("s")
    for table in ("target", "second"):
        wait_for(lambda: db.value(f"SELECT count(*) FROM {table}") >= sent, what=f"all rows in {table}")
        assert db.rows(f"SELECT count(*), count(DISTINCT k), min(k), max(k) FROM {table}") == [(sent, sent, 0, sent - 1)]
    assert counts(db, "v") == counts(db, "w") == (sent, 0, 0)


def crash(pg: Postgres, db: Database) -> Database:
    """Kills the stream's worker, and so the server; a connection to the new one."""
    os.kill(worker_pid(db), signal.SIGKILL)
    wait_for(lambda: not _answers(db.connection), what="the crash")
    wait_for(lambda: _connects(pg), what="recovery")
    return Database(pg, "postgres")


def _answers(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
        return True
    except psycopg.Error:
        return False


def _connects(pg: Postgres) -> bool:
    try:
        with pg.connect("postgres") as connection:
            return _answers(connection)
    except psycopg.Error:
        return False
