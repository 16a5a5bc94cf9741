"""Fixtures: one PostgreSQL, Kafka and mosquitto for the whole run, a new database for each test."""

import contextlib
import itertools
from collections.abc import Generator, Iterator

import psycopg
import pytest
from psycopg import sql

from harness.database import Database, temporary_database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.server import Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def pg() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    with Kafka() as server:
        yield server


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as server:
        yield server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server of the module's own, to be crashed, restarted or configured, with what its SETTINGS say."""
    with Postgres(settings=getattr(request.module, "SETTINGS", {})) as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest, server: Postgres) -> Iterator[Database]:
    """In a session with the module's TIMEZONE, if it has one."""
    with temporary_database(server) as database:
        if timezone := getattr(request.module, "TIMEZONE", None):
            database.execute(f"SET timezone = '{timezone}'")
        yield database


@pytest.fixture
def db(pg: Postgres) -> Iterator[Database]:
    """A new database with the extension. It is dropped at the end, and the roles that were made meanwhile: which tests share a
    server, and in which order, depends on how long others take."""
    name = f"test_{next(_numbers)}"
    with pg.connect() as admin:
        roles = roles_of(admin)
    pg.create_database(name)
    database = Database(pg, name)
    yield database
    database.connection.close()
    with pg.connect() as admin:
        # A test that failed before it took its fault point back must not hold up all that come after it.
        if admin.execute("SELECT FROM pg_settings WHERE name = 'streamext.fault_point' AND setting <> ''").fetchall():
            admin.execute("ALTER SYSTEM RESET streamext.fault_point")
            pg.reload()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        for role in roles_of(admin) - roles:
            with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):  # of a module's own
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def roles_of(connection: psycopg.Connection) -> set[str]:
    return {role for (role,) in connection.execute("SELECT rolname FROM pg_roles")}


@pytest.fixture
def topic() -> str:
    """A name for a topic that no other test uses."""
    return f"topic-{next(_numbers)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, one for each of the two processes of make test: the first takes the first half."""

    def of(name: str) -> list[pytest.Item]:
        return [item for item in items if item.path.stem == name]

    first, second = of("test_crash"), of("test_versions")
    others = [item for item in items if item not in first and item not in second]
    half = len(items) // 2 - len(first)
    items[:] = first + others[:half] + second + others[half:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows with a failed test the ends of the logs of the servers it used."""
    report = yield
    if report.failed:
        for name, server in getattr(item, "funcargs", {}).items():
            if isinstance(server, Server) and server.log_file.exists():  # one that ended in teardown has none
                report.sections.append((f"log of {name}", "\n".join(server.log().splitlines()[-40:])))
    return report
