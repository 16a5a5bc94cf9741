"""What runs without a server: the unit tests in C (test/unit/run) and the fuzzers (test/fuzz/run)."""

import re
import subprocess
from pathlib import Path

TESTS = Path(__file__).parents[1]


def unit() -> tuple[int, int]:
    """Returns how many tests passed and failed."""
    return _run(TESTS / "unit/run")


def fuzz(seconds: int) -> tuple[int, int]:
    """Returns how many fuzzers found nothing and how many something, after so many seconds of all together."""
    return _run(TESTS / "fuzz/run", str(seconds))


def _run(*command: str | Path) -> tuple[int, int]:
    """What does not build or crashes is a failure."""
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(process.stdout, end="", flush=True)
    result = re.search(r": (\d+) passed, (\d+) failed\n\Z", process.stdout)
    passed, failed = map(int, result.groups()) if result else (0, 1)
    return passed, max(failed, int(process.returncode != 0))
