"""python -m harness.suite TEST...: the unit tests in C, the given pg_regress tests, a minute of the fuzzers, then pytest. The last line printed is
"N passed, N failed" over all; the exit status is 0 only if something passed and nothing failed.

Two processes share the tests, each with servers of its own: most tests wait more than they work.

With REPEATS=3 in the environment (CI, on a machine that it does not choose) up to three failed tests, the unit tests and pg_regress's are run that often
more, alone: what passes each time counts as passed and is named as unsteady, a fault to be mended that does not stop the others' work. Without it each
failure is one. The fuzzers' is in any case: what they try here is the same each time (make fuzz tries anew).

With QUICK set in the environment (make test QUICK=1), for daily work: of each feature the file named here, of that what is not
marked slow, or where a file takes longer a test or two of it; and no fuzzers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import native, regress

TESTS = Path(__file__).parents[1]
FUZZ_SECONDS = 60
# More failures than these are no accident.
UNSTEADY_AT_MOST = 3
# One file a feature; a new feature's file is added here when it runs within seconds,
QUICK = (
    "bad_input", "contract", "control", "csv", "ddl", "dump", "grouping_sets", "install", "into", "joins", "kafka", "lateness", "layers",
    "local", "mqtt", "operation", "oracle", "reading", "retry", "sessions", "sketches", "values", "fair",
)  # fmt: skip
# else tests of it that do: what takes their time is five servers, some ten seconds in two processes.
QUICK_TESTS = {
    "alerts": ("fires_after_hold_and_clears", "a_silent_sensor"),
    "changes": ("only_what_has_changed", "needs_the_rights_of_a_select"),
    "chains": ("hour_from_minute", "circles_and_dependants"),
    "feed": ("lines", "server_sent_events"),
    "flume": ("batches_are_counted", "avro_in_every_way"),
    "http": ("bodies_are_cut_into_records", "views_are_read"),
    "nest": ("every_shape",),
    "sinks": ("a_circle_is_refused", "a_webhook_gets_rows_and_windows_signed"),
    "unions": ("each_row_of_each_part_once", "ddl"),
}


def chosen() -> list[str]:
    """pytest's arguments: which tests."""
    if not os.environ.get("QUICK"):
        return [str(TESTS)]
    tests = [f"{file}.py::test_{name}" for file, names in QUICK_TESTS.items() for name in names]
    return [*(str(TESTS / f"test_{name}") for name in (*(f"{file}.py" for file in QUICK), *tests)), "-m", "not slow"]


class Tally:
    """Counts what pytest runs; an error in a fixture or while collecting is a failure."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []  # in the terms of pytest, relative to TESTS

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.passed and report.when == "call"
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def unsteady(failed: list[str], repeats: int) -> bool:
    """Whether the few tests that failed pass `repeats` times in a row now, alone; says so."""
    if not failed or not repeats or len(failed) > UNSTEADY_AT_MOST:
        return False
    print(f"Again, {repeats} times each: {' '.join(failed)}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *dict.fromkeys(failed)]
    if any(subprocess.run(command, cwd=TESTS).returncode for _ in range(repeats)):
        return False
    for test in failed:
        print(f"UNSTEADY: {test} failed once and then passed {repeats} times", flush=True)
    return True


def steady(run: Callable[[], tuple[int, int, str]], repeats: int) -> tuple[int, int, str]:
    """The outcome of tests that are run together, and again where some have failed."""
    first = outcome = run()
    if not first[1] or not repeats:
        return first
    for _ in range(repeats):
        outcome = run()
        if outcome[1]:
            return first
    print(f"UNSTEADY: failed once and then passed {repeats} times: {first[2]}", flush=True)
    return outcome


def main(regress_tests: list[str]) -> int:
    repeats = int(os.environ.get("REPEATS") or 0)
    parts = [steady(native.unit, repeats), steady(lambda: regress.run(regress_tests), repeats)]
    if not os.environ.get("QUICK"):
        parts.append(native.fuzz(FUZZ_SECONDS))
    passed, failed = (sum(part[i] for part in parts) for i in (0, 1))
    tally = Tally()
    code = pytest.main([*chosen(), "-n", "2", "--dist", "worksteal"], plugins=[tally])
    if unsteady(tally.failed, repeats):
        passed, code = passed + len(tally.failed), pytest.ExitCode.OK
        tally.failed = []
    passed, failed = passed + tally.passed, failed + len(tally.failed)
    # Where no more than the end of the output is at hand, it tells all that failed.
    wrong = [*(part[2] for part in parts if part[2]), *tally.failed]
    print(*wrong, f"{passed} passed, {failed} failed", sep="\n", flush=True)
    return 0 if passed and not failed and code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
