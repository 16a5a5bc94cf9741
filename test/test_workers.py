"""Workers come and go with their streams, and nothing that happens to them makes a view wrong."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import IMMEDIATE, Postgres
from harness.streams import (
    continuous, error_of, is_alive, kafka_stream, local_stream, mqtt_stream, state, worker_pid, worker_pids,
)  # fmt: skip
from harness.wait import wait_for


@pytest.fixture
def new_database(server: Postgres, request: pytest.FixtureRequest) -> Iterator[Callable[[], Database]]:
    """Makes databases with the extension on the module's server, dropped at the end."""
    names: list[str] = []

    def create() -> Database:
        names.append(f"w{os.urandom(4).hex()}")
        server.psql(f"CREATE DATABASE {names[-1]}")
        server.psql("CREATE EXTENSION streamext", names[-1])
        return Database(server, names[-1])

    yield create
    for name in names:
        server.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def database(new_database: Callable[[], Database]) -> Database:
    return new_database()


def local_counter(db: Database, name: str = "s") -> None:
    """A local stream and its view v_<name> (n, total)."""
    local_stream(db, columns="a bigint", name=name)
    continuous(db, f"v_{name}", f"SELECT count(*) AS n, sum(a)::bigint AS total FROM {name}")


def kafka_counter(db: Database, kafka: Kafka, topic: str, name: str = "s") -> None:
    kafka_stream(db, kafka, f"topic '{topic}'", "a bigint", name)
    continuous(db, f"v_{name}", f"SELECT count(*) AS n, sum(a)::bigint AS total FROM {name}")


def mqtt_counter(db: Database, mosquitto: Mosquitto, topic: str, name: str = "s") -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a bigint", name)
    continuous(db, f"v_{name}", f"SELECT count(*) AS n, sum(a)::bigint AS total FROM {name}")


def insert(db: Database, start: int, end: int, name: str = "s") -> None:
    db.execute(f"INSERT INTO {name} SELECT generate_series(%s::int, %s)", start, end - 1)


def numbers(start: int, end: int) -> list[str]:
    return [f'{{"a":{i}}}' for i in range(start, end)]


def assert_counted(db: Database, end: int, name: str = "s") -> None:
    """Each number below `end`, once."""
    db.flush(name)
    assert db.rows(f"TABLE v_{name}") == [(end, sum(range(end)))]


def backends(server: Postgres, database: str) -> list[tuple[int, str]]:
    """The extension's processes in a database."""
    other = server.connect()
    with other:
        return other.execute(
            "SELECT pid, backend_type FROM pg_stat_activity WHERE datname = %s AND backend_type <> 'client backend'"
            " AND backend_type NOT LIKE 'autovacuum%%' AND backend_type NOT LIKE 'parallel%%'",
            (database,),
        ).fetchall()


def test_a_terminated_worker_is_back(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    kafka_counter(db, kafka, topic, "k")
    local_counter(db)
    kafka.produce(topic, numbers(0, 1000))
    insert(db, 0, 1000)
    assert_counted(db, 1000)
    assert_counted(db, 1000, "k")
    for end in (2000, 3000):
        pids = {name: worker_pid(db, name) for name in ("s", "k")}
        for pid in pids.values():
            assert db.value("SELECT pg_terminate_backend(%s)", pid)
        insert(db, end - 1000, end)
        kafka.produce(topic, numbers(end - 1000, end))
        for name, pid in pids.items():
            worker_pid(db, name, besides=pid)
        assert_counted(db, end)
        assert_counted(db, end, "k")


def test_kill_9_of_a_worker(database: Database, kafka: Kafka, mosquitto: Mosquitto, topic: str) -> None:
    """PostgreSQL restarts its processes; each stream goes on, each view is right again."""
    db = database
    kafka.create_topic(topic)
    kafka_counter(db, kafka, topic, "k")
    mqtt_counter(db, mosquitto, topic, "m")
    local_counter(db)
    db.flush("k", "m", "s")
    kafka.produce(topic, numbers(0, 5000))
    mosquitto.publish([(topic, payload) for payload in numbers(0, 500)])
    insert(db, 0, 500)
    for name, end in (("k", 5000), ("m", 500), ("s", 500)):
        assert_counted(db, end, name)
    db.server.kill_backend(worker_pid(db, "k"))
    db = Database(db.server, db.name)
    kafka.produce(topic, numbers(5000, 6000))
    mosquitto.publish([(topic, payload) for payload in numbers(500, 600)])
    insert(db, 500, 600)
    for name, end in (("k", 6000), ("m", 600), ("s", 600)):
        assert_counted(db, end, name)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_restart_of_the_server(database: Database, kafka: Kafka, topic: str, how: str) -> None:
    """Streams go on without anyone connecting to their database first."""
    db = database
    kafka.create_topic(topic)
    kafka_counter(db, kafka, topic, "k")
    local_counter(db)
    kafka.produce(topic, numbers(0, 1000))
    insert(db, 0, 1000)
    assert_counted(db, 1000)
    assert_counted(db, 1000, "k")
    db.server.restart(IMMEDIATE if how == "immediate" else None)
    wait_for(lambda: len(backends(db.server, db.name)) == 2, what="two workers")
    db = Database(db.server, db.name)
    assert_counted(db, 1000)
    assert_counted(db, 1000, "k")
    insert(db, 1000, 1100)
    assert_counted(db, 1100)


def test_two_databases_at_once(new_database: Callable[[], Database], kafka: Kafka, topic: str) -> None:
    """The same names, the same topic."""
    kafka.create_topic(topic)
    databases = [new_database(), new_database()]
    for db in databases:
        local_counter(db)
        kafka_counter(db, kafka, topic, "k")
    kafka.produce(topic, numbers(0, 100))
    for i, db in enumerate(databases):
        insert(db, 0, 10 * (i + 1))
    for i, db in enumerate(databases):
        assert_counted(db, 10 * (i + 1))
        assert_counted(db, 100, "k")
        assert db.value("SELECT count(*) FROM streamext.streams") == 2


def test_drop_database(new_database: Callable[[], Database], kafka: Kafka, topic: str) -> None:
    db = new_database()
    kafka.create_topic(topic)
    kafka_counter(db, kafka, topic, "k")
    local_counter(db)
    db.flush("k", "s")
    db.connection.close()
    db.server.psql(f"DROP DATABASE {db.name}")  # PostgreSQL itself gives up when processes stay for five seconds
    other = new_database()
    local_counter(other)
    insert(other, 0, 10)
    assert_counted(other, 10)


def test_rename_database(new_database: Callable[[], Database]) -> None:
    db = new_database()
    local_counter(db)
    insert(db, 0, 10)
    assert_counted(db, 10)
    db.connection.close()
    server, renamed = db.server, f"{db.name}_renamed"
    server.psql(f"ALTER DATABASE {db.name} RENAME TO {renamed}")
    try:
        db = Database(server, renamed)
        insert(db, 10, 20)
        assert_counted(db, 20)
        db.connection.close()
    finally:
        server.psql(f"DROP DATABASE {renamed} WITH (FORCE)")


def test_database_as_a_template(new_database: Callable[[], Database], kafka: Kafka, topic: str) -> None:
    """The copy's streams run, and the original's go on."""
    db = new_database()
    kafka.create_topic(topic)
    kafka_counter(db, kafka, topic)
    kafka.produce(topic, numbers(0, 100))
    assert_counted(db, 100)
    db.connection.close()
    server, name = db.server, f"{db.name}_copy"
    server.psql(f"CREATE DATABASE {name} TEMPLATE {db.name}")
    try:
        wait_for(lambda: backends(server, name), what="a worker in the copy")
        copy = Database(server, name)
        kafka.produce(topic, numbers(100, 200))
        assert_counted(copy, 200)
        assert_counted(Database(server, db.name), 200)
        copy.connection.close()
    finally:
        server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def test_drop_extension(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    for _ in range(2):
        kafka_counter(db, kafka, topic, "k")
        local_counter(db)
        db.flush("k", "s")
        pids = [worker_pid(db, "k"), worker_pid(db, "s")]
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            db.execute("DROP EXTENSION streamext")
        db.execute("DROP EXTENSION streamext CASCADE")
        wait_for(lambda: not any(map(is_alive, pids)), what="end of the workers")
        wait_for(lambda: backends(db.server, db.name) == [], what="end of all that looked into the database")
        db.execute("CREATE EXTENSION streamext")


@pytest.mark.parametrize("drop", ["FOREIGN TABLE s", "SERVER local_server", "VIEW v_s; DROP FOREIGN TABLE s"])
def test_drop_of_a_stream_ends_its_worker(database: Database, drop: str) -> None:
    db = database
    local_counter(db)
    insert(db, 0, 10)
    db.flush("s")
    pid = worker_pid(db)
    for statement in drop.split("; DROP "):
        db.execute(f"DROP {statement} CASCADE")
    wait_for(lambda: not is_alive(pid), what="end of the worker")
    for relation in ("streams", "stream_partitions", "continuous_views", "workers"):
        wait_for(lambda relation=relation: db.rows(f"TABLE streamext.{relation}") == [], what=f"nothing in {relation}")
    db.execute("DROP SERVER IF EXISTS local_server CASCADE")
    local_counter(db)
    insert(db, 0, 3)
    assert_counted(db, 3)


def test_ddl_that_is_rolled_back(database: Database) -> None:
    db = database
    local_counter(db)
    insert(db, 0, 10)
    db.flush("s")
    pid = worker_pid(db)
    with db.connection.transaction(force_rollback=True):
        db.execute("DROP FOREIGN TABLE s CASCADE")
        local_counter(db)
        insert(db, 0, 3)
    with db.connection.transaction(force_rollback=True):
        local_counter(db, "other")
        continuous(db, "late", "SELECT count(*) FROM s")
    insert(db, 10, 20)
    assert_counted(db, 20)
    assert worker_pids(db) == [pid]
    assert db.rows("SELECT stream::text FROM streamext.streams") == [("s",)]
    assert db.rows("SELECT view::text FROM streamext.continuous_views") == [("v_s",)]


def test_drop_and_create_a_view_while_rows_come(database: Database) -> None:
    db = database
    local_counter(db)
    writer = db.connect()
    for i in range(20):
        writer.execute("INSERT INTO s SELECT generate_series(%s::int, %s)", (i * 10, i * 10 + 9))
        continuous(db, f"w{i}", "SELECT count(*) AS n FROM s")
        if i % 2:
            db.execute(f"DROP VIEW w{i}")
    assert_counted(db, 200)
    assert [db.value(f"SELECT n FROM w{i}") for i in range(0, 20, 2)] == [190 - 10 * i for i in range(0, 20, 2)]


def test_no_worker_left_for_a_stream(kafka: Kafka, topic: str) -> None:
    """Its state says so, and it gets the next one that is free."""
    settings = {"max_worker_processes": 2, "max_logical_replication_workers": 0, "max_parallel_workers": 0}
    with Postgres(settings=settings) as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        local_counter(db, "one")
        db.flush("one")
        local_counter(db, "two")
        wait_for(lambda: state(db, "two") == "waiting", what="state waiting")
        wait_for(lambda: 'slot is free for a stream of database "postgres"' in server.log(), what="the log to say so")
        assert state(db, "one") == "running"
        insert(db, 0, 10, "two")
        db.execute("DROP FOREIGN TABLE one CASCADE")
        wait_for(lambda: state(db, "two") == "running", what="state running")
        assert_counted(db, 10, "two")


def test_not_preloaded() -> None:
    """Streams and continuous views say so and can be dropped; none is made."""
    make = "CREATE EXTENSION streamext; CREATE SERVER here FOREIGN DATA WRAPPER local; CREATE FOREIGN TABLE s (a int) SERVER here"
    with Postgres() as server:
        server.psql(make + "; CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s")
        server.configure({"shared_preload_libraries": ""})
        server.restart()
        for statement in ("TABLE v", "TABLE s", "DROP EXTENSION streamext CASCADE;" + make):
            with server.connect() as connection, pytest.raises(psycopg.Error) as error:
                connection.execute(statement)
            sqlstate, _, hint = error_of(error)
            assert (statement, sqlstate) == (statement, "55000")
            assert "shared_preload_libraries" in hint
        server.psql("DROP EXTENSION streamext CASCADE")


def test_what_a_transaction_holds_keeps_no_other_stream_from_starting(server: Postgres, database: Database) -> None:
    """A lock on one view that outlives a restart, of anybody's, kept all streams of all databases from being started for as long."""
    db = database
    local_stream(db, columns="a bigint", name="mine")
    continuous(db, "counted", "SELECT count(*) AS n FROM mine")
    local_stream(db, "event_time 'ts'", columns="ts timestamptz")
    continuous(db, "minutes", "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "hours", "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minutes GROUP BY h")
    db.execute("BEGIN; LOCK TABLE hours; PREPARE TRANSACTION 'held'")
    try:
        server.restart(IMMEDIATE)
        db = Database(server, database.name)
        worker_pid(db, "mine")
        db.execute("INSERT INTO mine VALUES (1)")
        db.flush("mine")
        assert db.value("SELECT n FROM counted") == 1
    finally:
        db.execute("ROLLBACK PREPARED 'held'")
    worker_pid(db, "hours")
