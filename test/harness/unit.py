"""The unit tests in C: test/unit/run."""

import re
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]


def run() -> tuple[int, int]:
    """Returns how many tests passed and failed; one that does not build or crashes is a failure."""
    process = subprocess.run([TOP / "test/unit/run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(process.stdout, end="", flush=True)
    result = re.search(r"unit: (\d+) passed, (\d+) failed\n\Z", process.stdout)
    passed, failed = map(int, result.groups()) if result else (0, 1)
    return passed, max(failed, int(process.returncode != 0))
