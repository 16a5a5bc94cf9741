"""What runs without a server: the unit tests in C (test/unit/run) and the fuzzers (test/fuzz/run)."""

import os
import re
import subprocess
from pathlib import Path

TESTS = Path(__file__).parents[1]


# The lines of either that say what is wrong.
_WRONG = re.compile(r".*(?:FAILED|not built|SUMMARY|not so|runtime error|test_\w+\.c:\d+).*")


def unit() -> tuple[int, int, str]:
    """Returns how many tests passed and failed, and what is wrong in a few lines."""
    return _run(TESTS / "unit/run")


def fuzz(seconds: int) -> tuple[int, int, str]:
    """Returns how many fuzzers found nothing and how many something, after so many seconds of all together, and what they found in a few lines.
    A machine tries the same as any other, as far as it comes in that time."""
    return _run(TESTS / "fuzz/run", str(seconds), FUZZ_SEED="1")


def _run(*command: str | Path, **environment: str) -> tuple[int, int, str]:
    """What does not build or crashes is a failure."""
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=os.environ | environment)
    print(process.stdout, end="", flush=True)
    result = re.search(r": (\d+) passed, (\d+) failed\n\Z", process.stdout)
    passed, failed = map(int, result.groups()) if result else (0, 1)
    failed = max(failed, int(process.returncode != 0))
    if not failed:
        return passed, 0, ""
    lines = process.stdout.splitlines()
    return passed, failed, "\n".join(([line for line in lines if _WRONG.match(line)] or lines)[-8:])
