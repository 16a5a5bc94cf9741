"""Objects, roles and settings come and go while streams run: nothing is left over, no worker is disturbed."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.streams import continuous, local_stream, mqtt_stream, state, worker_pid
from harness.wait import wait_for

CYCLES = int(os.environ.get("STREAMEXT_LIFECYCLE_CYCLES", 30))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Of this module's own: its settings are changed."""
    with Postgres(settings={"max_connections": 20, "superuser_reserved_connections": 1}) as server:
        server.psql("CREATE EXTENSION streamext")
        yield server


@pytest.fixture
def db(server: Postgres) -> Iterator[Database]:
    database = Database(server, "postgres")
    yield database
    database.execute("DROP SERVER IF EXISTS local_server CASCADE")
    database.connection.close()


def counter(db: Database, name: str = "s") -> None:
    local_stream(db, columns="a bigint", name=name)
    continuous(db, f"v_{name}", f"SELECT count(*) AS n FROM {name}")


def processes(server: Postgres) -> list[int]:
    """Of the extension, besides the launcher."""
    with server.connect() as connection:
        return [
            pid
            for (pid,) in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'streamext%%' AND datname IS NOT NULL"
            ).fetchall()
        ]


def journals(server: Postgres) -> list[Path]:
    """Directories of streams."""
    return list((server.data / "streamext").glob("*/*"))


def test_cycles_leave_nothing(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """More cycles than there are slots; the last view has as much memory as the first. Journals of rows and of messages, counted or
    not; every tenth stream takes more than a file of 16 MB."""
    launcher = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'streamext launcher%%'")
    fds = 0
    for i in range(CYCLES):
        counter(db)
        db.execute("INSERT INTO s SELECT generate_series(1, 1000)")
        if i % 3:
            db.flush("s")
            assert db.value("SELECT n FROM v_s") == 1000
        if i % 10 == 0:
            db.execute("INSERT INTO s SELECT 1 FROM generate_series(1, 250000)")
        if i % 5 == 0:
            mqtt_stream(db, mosquitto, f"topic '{topic}'", "a bigint", "m")
            continuous(db, "v_m", "SELECT count(*) AS n FROM m")
            db.flush("m")
            mosquitto.publish([(topic, '{"a":1}')] * 20, qos=1)
            if i % 10:
                db.flush("m")
                assert db.value("SELECT n FROM v_m") == 20
            db.execute("DROP FOREIGN TABLE m CASCADE")
        db.execute("DROP FOREIGN TABLE s CASCADE")
        if i == 9:
            fds = len(os.listdir(f"/proc/{launcher}/fd"))
    wait_for(lambda: not processes(db.server), what="end of the workers")
    for relation in ("streams", "stream_partitions", "continuous_views", "workers"):
        wait_for(lambda relation=relation: db.rows(f"TABLE streamext.{relation}") == [], what=f"nothing in {relation}")
    assert len(os.listdir(f"/proc/{launcher}/fd")) <= fds + 5
    wait_for(lambda: not journals(db.server), what="end of the journals")


def test_settings_of_the_server_do_not_disturb_workers(db: Database) -> None:
    settings = {
        "statement_timeout": "1ms", "idle_in_transaction_session_timeout": "1ms", "lock_timeout": "1ms",
        "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on", "search_path": "nowhere", "session_replication_role": "replica",
    }  # fmt: skip
    with db.server.connect() as admin:
        admin.execute("SET statement_timeout = 0; SET default_transaction_read_only = off")
        try:
            for name, value in settings.items():
                admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            admin.execute("ALTER DATABASE postgres SET statement_timeout = '1ms'")
            admin.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
            admin.execute("SELECT pg_reload_conf()")
            mine = (
                "-c statement_timeout=0 -c default_transaction_read_only=off -c search_path=public -c lock_timeout=0"
                " -c default_transaction_isolation=read\\ committed -c idle_in_transaction_session_timeout=0"
                " -c session_replication_role=origin"
            )
            db.connection.close()
            db.connection = db.server.connect("postgres", options=mine)
            counter(db)
            for end in (100, 200):
                db.execute("INSERT INTO s SELECT generate_series(1, 100)")
                db.flush("s")
                assert db.value("SELECT n FROM v_s") == end
                pid = worker_pid(db)
                db.execute("SELECT pg_terminate_backend(%s)", pid)
                worker_pid(db, besides=pid)
            db.execute("INSERT INTO s VALUES (NULL)")
            db.flush("s")
            wait_for(
                lambda: db.value("SELECT last_checkpoint IS NOT NULL FROM streamext.continuous_views"), what="a checkpoint"
            )
        finally:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("ALTER DATABASE postgres RESET ALL")
            admin.execute("ALTER ROLE postgres RESET ALL")
            admin.execute("SELECT pg_reload_conf()")


def test_no_connections_left(db: Database) -> None:
    counter(db)
    db.flush("s")
    taken = []
    with pytest.raises(psycopg.OperationalError, match="too many clients|reserved"):
        while True:
            taken.append(db.connect())
    pid = worker_pid(db)
    db.execute("INSERT INTO s SELECT generate_series(1, 100)")
    db.flush("s")
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    db.execute("INSERT INTO s SELECT generate_series(1, 100)")
    worker_pid(db, besides=pid)
    db.flush("s")
    assert db.value("SELECT n FROM v_s") == 200
    for connection in taken:
        connection.close()


def test_two_databases_and_few_processes() -> None:
    """At max_worker_processes = 8 streams that find no process wait, and the others run."""
    with Postgres(settings={"max_worker_processes": 8}) as server:
        databases = []
        for name in ("one", "two"):
            server.psql(f"CREATE DATABASE {name}")
            server.psql("CREATE EXTENSION streamext", name)
            databases.append(Database(server, name))
        for database in databases:
            for i in range(5):
                counter(database, f"s{i}")
        states = lambda: [state(database, f"s{i}") for database in databases for i in range(5)]  # noqa: E731
        wait_for(lambda: set(states()) == {"running", "waiting"}, what="running and waiting")

        def refused() -> bool:
            """One that waits only until those that register streams have ended is flushed."""
            for database, i in [(d, i) for d in databases for i in range(5) if state(d, f"s{i}") == "waiting"]:
                try:
                    database.flush(f"s{i}")
                except psycopg.Error as error:
                    assert "worker" in str(error)
                    return True
            return False

        wait_for(refused, what="a stream that waits")
        databases[0].connection.close()
        server.psql("DROP DATABASE one WITH (FORCE)")
        wait_for(lambda: {state(databases[1], f"s{i}") for i in range(5)} == {"running"}, what="all running")
        databases[1].connection.close()


def test_roles_come_and_go(db: Database) -> None:
    """REASSIGN OWNED and a dropped role: the stream runs on, as its new owner's."""
    db.execute("CREATE ROLE a; CREATE ROLE b; GRANT CREATE ON SCHEMA public TO a, b")
    db.execute("CREATE SERVER local_server FOREIGN DATA WRAPPER local; GRANT USAGE ON FOREIGN SERVER local_server TO a, b")
    db.execute("SET ROLE a")
    db.execute("CREATE FOREIGN TABLE s (a bigint) SERVER local_server")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("RESET ROLE")
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    db.execute("REASSIGN OWNED BY a TO b; DROP OWNED BY a; DROP ROLE a")
    db.execute("INSERT INTO s VALUES (2)")
    db.flush("s")
    assert db.rows("TABLE v") == [(2,)]
    db.execute("DROP OWNED BY b CASCADE; DROP ROLE b")
    assert db.rows("TABLE streamext.streams") == []
