"""python -m harness.suite TEST...: the unit tests in C, the given pg_regress tests, a minute of the fuzzers, then pytest. The last line printed is
"N passed, N failed" over all; the exit status is 0 only if something passed and nothing failed.

Two processes share the tests, each with servers of its own: most tests wait more than they work.

With QUICK set in the environment (make test QUICK=1), for daily work: of each feature the file named here, of that what is not
marked slow, and no fuzzers."""

import os
import sys
from pathlib import Path

import pytest

from harness import native, regress

TESTS = Path(__file__).parents[1]
FUZZ_SECONDS = 60
# One file a feature; a new feature's file is added here when it runs within seconds.
QUICK = (
    "bad_input", "contract", "control", "csv", "ddl", "dump", "grouping_sets", "install", "into", "joins", "kafka", "lateness", "layers",
    "local", "mqtt", "operation", "oracle", "reading", "retry", "sessions", "sketches", "values", "fair",
)  # fmt: skip


def chosen() -> list[str]:
    """pytest's arguments: which tests."""
    if not os.environ.get("QUICK"):
        return [str(TESTS)]
    return [*(str(TESTS / f"test_{name}.py") for name in QUICK), "-m", "not slow"]


class Tally:
    """Counts what pytest runs; an error in a fixture or while collecting is a failure."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.passed and report.when == "call"
        self.failed += report.failed

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.failed += report.failed


def main(regress_tests: list[str]) -> int:
    parts = [native.unit(), regress.run(regress_tests)]
    if not os.environ.get("QUICK"):
        parts.append(native.fuzz(FUZZ_SECONDS))
    passed, failed = (sum(counts) for counts in zip(*parts))
    tally = Tally()
    code = pytest.main([*chosen(), "-n", "2", "--dist", "worksteal"], plugins=[tally])
    passed, failed = passed + tally.passed, failed + tally.failed
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed and code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
