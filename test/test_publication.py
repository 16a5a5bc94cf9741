"""Logical replication beside streams: a publication of all tables brings the extension's rows, which count for nobody else."""

from collections.abc import Iterator

import psycopg
import pytest
from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, local_stream
from harness.wait import wait_for

WAL = {"wal_level": "logical", "max_replication_slots": 10, "max_logical_replication_workers": 8}


def make_streams(db: Database) -> None:
    """The same statements on both servers give the same OIDs, which is the worst case."""
    db.execute("CREATE EXTENSION streamext")
    local_stream(db, "event_time 'ts'", "k text, ts timestamptz, x int NOT NULL")
    db.execute("CREATE TABLE big (k text, ts timestamptz, x int); CREATE TABLE plain (n int PRIMARY KEY)")
    continuous(db, "v", "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) FROM s GROUP BY 1, 2", ", streamext.keep_late")
    continuous(db, "total", "SELECT count(*) AS n FROM s")
    continuous(db, "rows", "SELECT * FROM s WHERE x > 5", ", streamext.into = 'big'")


@pytest.fixture
def servers() -> Iterator[tuple[Database, Database]]:
    with Postgres(settings=WAL) as publisher, Postgres(settings=WAL) as subscriber:
        yield Database(publisher, "postgres"), Database(subscriber, "postgres")


def insert(db: Database, day: int, n: int) -> None:
    db.execute(f"INSERT INTO s SELECT 'k' || i % 3, timestamptz '2024-01-0{day}' + i * interval '1 s', i % 9 FROM generate_series(1, {n}) i")
    db.flush("s")


def subscribe(publisher: Database, subscriber: Database, tables: str = "FOR ALL TABLES") -> None:
    publisher.execute(f"CREATE PUBLICATION p {tables}")
    server = publisher.server
    subscriber.execute(f"CREATE SUBSCRIPTION sub CONNECTION 'host={server.dir} port={server.port} user=postgres dbname=postgres' PUBLICATION p")


def busy(db: Database) -> None:
    """Something in every table of the extension."""
    insert(db, 2, 100)
    db.execute("INSERT INTO s VALUES ('bad', '2024-01-02', NULL)")
    insert(db, 1, 1)  # late
    db.execute("SELECT streamext.pause('total')")
    db.execute("SELECT streamext.resume('total'); SELECT streamext.rebuild('v'); SELECT streamext.retry_dead_letters('s')")
    insert(db, 3, 50)
    db.execute("SELECT streamext.pause('rows')")


def wait_applied(publisher: Database, subscriber: Database) -> None:
    """All that was committed has been applied, by a worker that did not have to start again."""
    n = publisher.value("SELECT coalesce(max(n), 0) + 1 FROM plain")
    publisher.execute("INSERT INTO plain VALUES (%s)", n)
    wait_for(lambda: subscriber.value("SELECT count(*) FROM plain WHERE n = %s", n), what="the row of an ordinary table")


def test_checkpoints_are_nothing_to_logical_decoding(servers: tuple[Database, Database]) -> None:
    """Nobody could use them, and there are many."""
    db, _ = servers
    try:
        db.execute("SELECT pg_create_logical_replication_slot('slot', 'test_decoding')")
    except psycopg.errors.UndefinedFile:
        pytest.skip("this build of PostgreSQL has no test_decoding")
    make_streams(db)
    insert(db, 2, 100)
    db.execute("CHECKPOINT")
    wait_for(lambda: db.value("SELECT count(last_checkpoint) FROM streamext.continuous_views") > 0, what="a checkpoint")
    told = db.rows("SELECT data FROM pg_logical_slot_get_changes('slot', NULL, NULL)")
    assert any("into_position: INSERT" in data for (data,) in told) or any("big: INSERT" in data for (data,) in told)
    assert not [data for (data,) in told if "checkpoint_log: INSERT" in data]


def test_every_table_of_the_extension_is_guarded(db: Database) -> None:
    tables = """SELECT relname FROM pg_class WHERE relnamespace IN ('streamext'::regnamespace, 'streamext_internal'::regnamespace) AND relkind IN ('r', 'p')
        AND relpersistence = 'p' AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgenabled = 'R'
        AND tgfoid = 'streamext_internal.refuse_replicated'::regproc AND tgtype = 31)"""
    assert db.rows(tables) == []


def test_a_subscriber_with_streams_of_its_own(servers: tuple[Database, Database]) -> None:
    publisher, subscriber = servers
    for db in servers:
        make_streams(db)
    busy(publisher)  # is copied at first
    insert(subscriber, 2, 30)
    own = "SELECT count(*) FROM streamext.dead_letters", "TABLE v", "TABLE total", "SELECT state FROM streamext.continuous_views ORDER BY view"
    before = [sorted(subscriber.rows(query)) for query in own]
    subscribe(publisher, subscriber)
    wait_applied(publisher, subscriber)
    busy(publisher)
    wait_applied(publisher, subscriber)
    assert [sorted(subscriber.rows(query)) for query in own] == before
    assert subscriber.value("SELECT count(*) FROM streamext_internal.paused") == 0
    insert(subscriber, 3, 10)
    assert subscriber.value("SELECT n FROM total") == 40
    subscriber.server.restart()
    again = Database(subscriber.server, "postgres")
    again.flush("s")
    assert again.value("SELECT n FROM total") == 40
    assert again.value("SELECT sum(n) FROM v") == 40
    wait_applied(publisher, again)
    assert again.value("SELECT count(*) FROM big WHERE x > 5") > 0  # what views have written is data like any
    log = subscriber.server.log()
    assert "duplicate key" not in log and "logical replication apply worker" not in [l for l in log.splitlines() if "ERROR" in l]
    again.execute("DROP SUBSCRIPTION sub")


def test_a_subscriber_without_the_extension(servers: tuple[Database, Database]) -> None:
    """FOR ALL TABLES wants every table there; a list, or schemas, do not."""
    publisher, subscriber = servers
    make_streams(publisher)
    subscriber.execute("CREATE TABLE big (k text, ts timestamptz, x int); CREATE TABLE plain (n int PRIMARY KEY)")
    publisher.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    server = publisher.server
    with pytest.raises(psycopg.errors.InvalidSchemaName, match="streamext"):
        subscriber.execute(f"CREATE SUBSCRIPTION no CONNECTION 'host={server.dir} port={server.port} user=postgres dbname=postgres' PUBLICATION everything")
    subscribe(publisher, subscriber, "FOR TABLES IN SCHEMA public")
    busy(publisher)
    wait_applied(publisher, subscriber)
    wait_for(lambda: subscriber.value("SELECT count(*) FROM big") == publisher.value("SELECT count(*) FROM big"), what="rows of the view")
    subscriber.execute("DROP SUBSCRIPTION sub")


def test_what_a_session_does_under_replica_counts(db: Database) -> None:
    local_stream(db, "", "k text")
    db.execute("SET session_replication_role = replica; SELECT streamext.pause('s'); RESET session_replication_role")
    assert db.value("SELECT count(*) FROM streamext_internal.paused") == 1
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "paused", what="the pause")
