"""Fixtures: one PostgreSQL, Kafka and mosquitto for the whole run, a new database for each test."""

import itertools
from collections.abc import Generator, Iterator

import pytest

from harness.database import Database
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


@pytest.fixture
def db(pg: Postgres) -> Iterator[Database]:
    """A new database with the extension, dropped at the end."""
    name = f"test_{next(_numbers)}"
    pg.psql(f"CREATE DATABASE {name}")
    pg.psql("CREATE EXTENSION streamext", name)
    database = Database(pg, name)
    yield database
    database.connection.close()
    # A test that failed before it took its fault point back must not hold up all that come after it.
    if pg.psql("SELECT setting FROM pg_settings WHERE name = 'streamext.fault_point'").strip():
        pg.psql("ALTER SYSTEM RESET streamext.fault_point")
        pg.reload()
    pg.psql(f"DROP DATABASE {name} WITH (FORCE)")


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
