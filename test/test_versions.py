"""The same source on other versions of PostgreSQL. `make versions` runs more of the tests there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from harness.versions import TREES, WHEEL, Version, available

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def version() -> Iterator[Callable[[int], Version]]:
    """Builds a version of PostgreSQL's when it is asked for first; quickly, without optimisation."""
    built: dict[int, Version] = {}
    with ExitStack() as stack:

        def get(major: int) -> Version:
            if not available(major):
                pytest.skip(f"PostgreSQL {major} is not in {WHEEL}: pip could not install test/postgres.txt")
            if major not in built:
                built[major] = stack.enter_context(Version(major))
                built[major].build("COPT=-O0")
            return built[major]

        yield get


@pytest.mark.parametrize("major", TREES)
def test_builds_and_passes_pg_regress(version: Callable[[int], Version], major: int) -> None:
    done = version(major).make("regress")
    assert done.returncode == 0, done.stdout
