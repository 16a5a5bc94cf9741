"""python -m harness.regress TEST...: pg_regress with sql/ and expected/ of the repository on a throwaway server, then pg_isolation_regress with
specs/. Leaves results/ and regression.diffs at the top of the repository."""

import re
import subprocess
import sys
from pathlib import Path

from harness.postgres import Postgres, pg_config

TOP = Path(__file__).parents[2]
# PostgreSQL 15 prints "test name ... ok", from 16 on "ok 1 - name".
_RESULT = re.compile(r"(?:test |\s+)\S+\s+\.\.\. (ok|FAILED)\b|(ok|not ok) \d+ ")


def run(tests: list[str]) -> tuple[int, int, str]:
    """Returns how many tests passed and failed, and what is wrong in a few lines."""
    if not tests:
        return 0, 0, ""
    programs = pg_config("pgxs").parents[1] / "test"
    with Postgres() as server:
        passed, failed, wrong = _run(server, programs / "regress" / "pg_regress", tests)
        isolation = programs / "isolation" / "pg_isolation_regress"
        if not failed and isolation.exists():
            specs = sorted(file.stem for file in (TOP / "specs").glob("*.spec"))
            more, failed, wrong = _run(server, isolation, specs)
            passed += more
    return passed, failed, wrong


def _run(server: Postgres, program: Path, tests: list[str]) -> tuple[int, int, str]:
    command: list[str | Path] = [
        program,
        f"--inputdir={TOP}", f"--outputdir={TOP}", f"--bindir={server.bindir}",
        f"--host={server.dir}", f"--port={server.port}", "--user=postgres", "--dbname=regression", *tests,
    ]  # fmt: skip
    passed = failed = 0
    wrong = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if result := _RESULT.match(line):
            if "ok" in result.groups():
                passed += 1
            else:
                failed += 1
                wrong.append(line.strip())
    if process.wait():
        failed = max(failed, 1)
        diffs = TOP / "regression.diffs"
        text = diffs.read_text() if diffs.exists() else server.log()[-4000:]
        print(text)
        wrong += [line for line in text.splitlines() if line.startswith(("+", "-"))][:12]
        if not server.is_running():
            print(server.log()[-4000:])
    return passed, failed, "\n".join(wrong)


if __name__ == "__main__":
    sys.exit(1 if run(sys.argv[1:])[1] else 0)
