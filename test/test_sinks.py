"""streamext.into of streams: what views make flows on into local streams, and out to other systems."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from harness.database import Database, temporary_database
from harness.kafka import Kafka
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream, local_stream
from harness.wait import wait_for

COLUMNS = "k int, x int, ts timestamptz"
BY_TS = "event_time 'ts', watermark_delay '5 s'"
BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
MINUTES = "SELECT k, streamext.tumble('10 s', ts) + interval '10 s' AS ts, count(*) AS n, sum(x) AS total FROM {source} GROUP BY k, streamext.tumble('10 s', ts)"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Of this module's own: it is crashed."""
    with Postgres(settings={"streamext.checkpoint_interval": 200}) as server:
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    with temporary_database(server) as database:
        database.execute("SET timezone = 'UTC'")
        yield database


def rows(rng: random.Random, count: int, begin: float, seconds: float) -> list[tuple[int, int, datetime]]:
    """Times grow, but for up to 4 s, so that nothing is late."""
    return [
        (rng.randrange(5), rng.randrange(10), BEGIN + timedelta(milliseconds=int(1000 * (begin + seconds * i / count - 4 * rng.random()))))
        for i in range(count)
    ]


def insert(db: Database, table: str, values: list[tuple[int, int, datetime]]) -> None:
    with db.connection.cursor() as cursor, cursor.copy(f"COPY {table} (k, x, ts) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)


def chain(db: Database) -> None:
    """s -> each row into `doubled` -> sums of it; s -> closed windows into `minutes` -> their sums, and their rows into `large`."""
    local_stream(db, BY_TS, COLUMNS)
    local_stream(db, "", "k int, twice bigint NOT NULL", name="doubled")
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, n bigint, total bigint", name="minutes")
    local_stream(db, "", "k int, total bigint", name="large")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    continuous(db, "double_rows", "SELECT k, 2 * x AS twice FROM s WHERE x <> 3", ", streamext.into = 'doubled'")
    continuous(db, "by_k", "SELECT k, count(*) AS n, sum(twice) AS total FROM doubled GROUP BY k")
    continuous(db, "make_minutes", MINUTES.format(source="s"), ", streamext.into = 'minutes'")
    continuous(db, "of_minutes", "SELECT k, count(*) AS windows, sum(n) AS n, sum(total) AS total FROM minutes GROUP BY k")
    continuous(db, "large_minutes", "SELECT k, total FROM minutes WHERE total > 40", ", streamext.into = 'large'")
    continuous(db, "of_large", "SELECT k, count(*) AS n, max(total) AS most FROM large GROUP BY k")


def assert_chain(db: Database) -> None:
    """As PostgreSQL computes it from the rows of o, of windows that are closed."""
    until = db.value("SELECT max(ts) - interval '5 s' FROM o")
    closed = f"SELECT * FROM ({MINUTES.format(source='o')}) q WHERE ts <= '{until}'"
    db.assert_same("TABLE by_k", "SELECT k, count(*), sum(2 * x) FROM o WHERE x <> 3 GROUP BY k")
    db.assert_same("TABLE of_minutes", f"SELECT k, count(*), sum(n), sum(total) FROM ({closed}) c GROUP BY k")
    db.assert_same("TABLE of_large", f"SELECT k, count(*), max(total) FROM ({closed}) c WHERE total > 40 GROUP BY k")


def test_rows_and_closed_windows_flow_on_and_flush_waits_for_what_follows(database: Database) -> None:
    db = database
    chain(db)
    rng = random.Random(1)
    for step in range(5):
        values = rows(rng, 400, 30 * step, 30)
        insert(db, "s", values)
        insert(db, "o", values)
        db.flush("s")
        assert_chain(db)


@pytest.mark.parametrize("fault", ["into-before-commit", "into-after-commit", "batch-before-commit", "batch-after-commit", "checkpoint-after-cut"])
def test_what_flows_on_comes_once_whatever_crashes(database: Database, fault: str) -> None:
    db = database
    server = db.server
    chain(db)
    rng = random.Random(fault)
    for step in range(4):
        if step in (1, 2):
            before = server.log_file.stat().st_size
            setting = fault if step == 1 else "none"
            db.execute(f"ALTER SYSTEM SET streamext.fault_point = '{setting}'")
            server.reload()
            wait_for(lambda: db.value("SHOW streamext.fault_point") == setting, what="the setting")
        values = rows(rng, 400, 30 * step, 30)
        for at in range(0, len(values), 50):
            part = values[at : at + 50]
            while True:
                try:
                    with db.connection.transaction():
                        insert(db, "s", part)
                        insert(db, "o", part)
                    break
                except psycopg.OperationalError:
                    reconnect(db)
        if step == 1:
            until_quiet(db)
            wait_for(lambda: f'fault point "{fault}" reached' in server.log(before), what=fault)
            wait_for(lambda: "all server processes terminated" in server.log(before), what="the crash")
        if step == 2:
            server.kill9()
            server.start()
            reconnect(db)
    until_quiet(db)
    assert_chain(db)


def test_a_circle_is_refused(db: Database) -> None:
    for name in ("a", "b", "c"):
        local_stream(db, columns="k int", name=name)
    refused = 'streamext.into of view "v" closes a circle'
    with pytest.raises(psycopg.Error) as error:
        continuous(db, "v", "SELECT k FROM a", ", streamext.into = 'a'")
    assert error.value.sqlstate == "42P17" and refused in str(error.value)
    continuous(db, "ab", "SELECT k FROM a", ", streamext.into = 'b'")
    continuous(db, "bc", "SELECT k FROM b", ", streamext.into = 'c'")
    with pytest.raises(psycopg.Error) as error:
        continuous(db, "v", "SELECT k FROM c", ", streamext.into = 'a'")
    assert error.value.sqlstate == "42P17" and refused in str(error.value)
    # nor by replacing a view that was none
    db.execute("CREATE TABLE t (k int)")
    continuous(db, "v", "SELECT k FROM c", ", streamext.into = 't'")
    with pytest.raises(psycopg.Error) as error:
        db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous, streamext.into = 'a') AS SELECT k FROM c")
    assert error.value.sqlstate == "42P17" and refused in str(error.value)
    db.execute("INSERT INTO a VALUES (1), (2)")
    db.flush("a")
    assert db.rows("SELECT k FROM t ORDER BY k") == [(1,), (2,)]


def test_two_transactions_cannot_close_a_circle_together(db: Database) -> None:
    local_stream(db, columns="k int", name="a")
    local_stream(db, columns="k int", name="b")
    with db.connect(autocommit=False) as first, db.connect(autocommit=False) as second:
        first.execute("CREATE VIEW ab WITH (streamext.continuous, streamext.into = 'b') AS SELECT k FROM a")
        second.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("CREATE VIEW ba WITH (streamext.continuous, streamext.into = 'a') AS SELECT k FROM b")
        second.rollback()
        first.commit()
        with pytest.raises(psycopg.Error, match="closes a circle"):
            second.execute("CREATE VIEW ba WITH (streamext.continuous, streamext.into = 'a') AS SELECT k FROM b")


def test_a_row_that_the_next_stream_refuses_is_rejected_there_and_the_target_is_kept(db: Database) -> None:
    local_stream(db, columns="k int, x int")
    local_stream(db, columns="k int, x int NOT NULL", name="t")
    continuous(db, "v", "SELECT k, x FROM s", ", streamext.into = 't'")
    continuous(db, "n", "SELECT count(*) AS n, sum(k) AS total FROM t")
    db.execute("INSERT INTO s VALUES (1, 1), (2, NULL), (3, 3)")
    db.flush("s")
    assert db.rows("TABLE n") == [(2, 4)]
    # what a stream refuses is its own dead letter, whoever has put it in
    assert db.rows("SELECT view, accepted, rejected FROM streamext.continuous_views ORDER BY view") == [("v", 3, 0), ("n", 2, 1)]
    assert db.rows("SELECT stream, sqlstate FROM streamext.dead_letters") == [("t", "23502")]
    assert "depends on" in db.refusal("DROP FOREIGN TABLE t")


def test_flush_says_when_what_follows_does_not_get_on(db: Database) -> None:
    local_stream(db, columns="k int")
    local_stream(db, columns="k int", name="t")
    continuous(db, "v", "SELECT k FROM s", ", streamext.into = 't'")
    continuous(db, "n", "SELECT count(*) FROM t")
    db.execute("SELECT streamext.pause('t')")
    db.execute("INSERT INTO s VALUES (1)")
    with pytest.raises(psycopg.Error, match='stream "t" is paused'):
        db.flush("s")
    db.execute("SELECT streamext.resume('t')")
    db.flush("s")
    assert db.value("TABLE n") == 1


def test_a_new_view_of_a_kafka_stream_catches_up_into_a_stream(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, [f'{{"k": {i % 3}, "x": 1, "ts": "2024-05-01T12:{i // 60:02}:{i % 60:02}Z"}}' for i in range(3000)])
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS)
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, n bigint, total bigint", name="minutes")
    continuous(db, "v", MINUTES.format(source="s"), ", streamext.into = 'minutes'")
    continuous(db, "n", "SELECT count(*) AS windows, sum(n) AS n FROM minutes")
    db.flush("s")
    assert db.rows("TABLE n") == [(897, 2990)]


def reconnect(db: Database) -> None:
    def again() -> bool:
        try:
            db.connection = db.connect()
            db.execute("SET timezone = 'UTC'")
        except psycopg.OperationalError:
            return False
        return True

    wait_for(again, what="the server")


def until_quiet(db: Database) -> None:
    """Flushes; a worker may be at its end only now."""

    def flushed() -> bool:
        try:
            db.flush("s")
        except psycopg.OperationalError:
            reconnect(db)
            return False
        return True

    wait_for(flushed, what="a flush")
