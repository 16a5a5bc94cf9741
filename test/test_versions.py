"""The same source on other versions of PostgreSQL, and pg_upgrade between them. `make versions` runs more of the tests there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import FAST, Postgres
from harness.streams import continuous, kafka_stream, local_stream
from harness.versions import TREES, Version, available
from harness.wait import wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def version() -> Iterator[Callable[[int], Version]]:
    """Builds a version of PostgreSQL's when it is asked for first; quickly, without optimisation."""
    built: dict[int, Version] = {}
    with ExitStack() as stack:

        def get(major: int) -> Version:
            if not available(major):
                pytest.skip(f"PostgreSQL {major} is not in {TREES[major][0]}: pip could not install its wheel")
            if major not in built:
                built[major] = stack.enter_context(Version(major))
                built[major].build("COPT=-O0")
            return built[major]

        yield get


# make versions has 17 too, which is a download of its own.
@pytest.mark.parametrize("major", [16, 18])
def test_builds_and_passes_pg_regress(version: Callable[[int], Version], major: int) -> None:
    done = version(major).make("regress")
    assert done.returncode == 0, done.stdout


# ---- pg_upgrade ----

QUERY = """SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n, sum(x) AS total, string_agg(k, ',') AS ks
    FROM {} GROUP BY k, w"""
TOTAL = "SELECT count(*) AS n, sum(x) AS total FROM {}"
COLUMNS = "k text, ts timestamptz, x bigint"


def message(i: int) -> str:
    return f'{{"k":"{"abc"[i % 3]}","ts":"2024-05-01T12:{i // 60 % 60:02}:{i % 60:02}Z","x":{i}}}'


def rows(start: int, end: int) -> str:
    return f"""SELECT (ARRAY['a','b','c'])[i % 3 + 1], '2024-05-01 12:00Z'::timestamptz + make_interval(secs => i % 3600), i
        FROM generate_series({start}, {end - 1}) i"""


DEFINITIONS = "SELECT relname, reloptions, oid FROM pg_class WHERE relname ~ '^[kl]_' ORDER BY 1"


class Upgraded(Postgres):
    """What pg_upgrade makes of a server that is stopped."""

    def __init__(self, old: Postgres, version: Version) -> None:
        super().__init__(bindir=version.bindir)
        self._run_as_owner(
            "pg_upgrade", f"--old-bindir={old.bindir}", f"--new-bindir={self.bindir}",
            f"--old-datadir={old.data}", f"--new-datadir={self.data}", f"--old-port={old.port}",
            f"--new-port={self.port}", "--username=postgres", f"--socketdir={self.dir}",
        )  # fmt: skip

    def _run_as_owner(self, program: str, *arguments: str) -> None:
        try:
            super()._run_as_owner(program, *arguments)
        except RuntimeError as error:
            logs = self.data.glob("pg_upgrade_output.d/*/log/pg_upgrade_dump_*.log")
            raise RuntimeError("\n".join([str(error), *(log.read_text()[-3000:] for log in logs)])) from None


def test_pg_upgrade(version: Callable[[int], Version], kafka: Kafka, topic: str) -> None:
    """Kafka views are counted anew and exact; local ones begin with what comes now; streamext.into goes on, exactly once."""
    kafka.create_topic(topic)
    with Postgres() as old:
        old.psql("CREATE DATABASE d; CREATE ROLE app")
        db = Database(old, "d")
        if int(db.value("SHOW server_version_num")) >= 160000:
            pytest.skip("it is to 16")
        db.execute("CREATE EXTENSION streamext")
        kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '5 s'", COLUMNS, "k")
        local_stream(db, "event_time 'ts'", COLUMNS, "l")
        db.execute("CREATE TABLE written (k text, x bigint, source text)")
        for stream in ("k", "l"):
            continuous(db, f"{stream}_window", QUERY.format(stream), ", streamext.lateness = '1 min'")
            continuous(db, f"{stream}_total", TOTAL.format(stream))
            continuous(db, f"{stream}_into", f"SELECT k, x, '{stream}'::text AS source FROM {stream}", ", streamext.into = 'public.written'")
        db.execute("GRANT SELECT ON k_window TO app")
        kafka.produce(topic, [message(i) for i in range(600)])
        db.execute("INSERT INTO l " + rows(0, 600))
        db.flush("k", "l")
        wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history WHERE view = 'k_window'::regclass"), what="history")
        definitions = db.rows(DEFINITIONS)
        assert len(definitions) == 6
        # Debian's 15.20 writes this option for every column; the wheel's 16 is older and does not know it.
        db.execute("UPDATE pg_attribute SET attoptions = NULL WHERE attrelid >= 16384 AND attoptions::text LIKE '{pg_attver=%%}'")
        db.connection.close()
        old.stop(FAST)

        with Upgraded(old, version(16)) as new:
            db = Database(new, "d")
            assert db.rows(DEFINITIONS) == definitions
            assert db.value("SELECT has_table_privilege('app', 'k_window', 'SELECT')")
            db.execute("INSERT INTO l " + rows(600, 700))
            kafka.produce(topic, [message(i) for i in range(600, 700)])
            db.flush("k", "l")
            db.execute(f"CREATE TABLE o ({COLUMNS}); INSERT INTO o {rows(0, 700)}")
            for query, view in ((QUERY, "window"), (TOTAL, "total")):
                db.assert_same(f"TABLE k_{view}", query.format("o"))
                db.assert_same(f"TABLE l_{view}", query.format("(SELECT * FROM o WHERE x >= 600) AS o"))
            db.assert_same("TABLE written", "SELECT k, x, source FROM o, (VALUES ('k'), ('l')) AS v (source)")
            assert db.rows("SELECT DISTINCT state FROM streamext.continuous_views") == [("running",)]
            db.connection.close()
