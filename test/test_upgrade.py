"""pg_upgrade from 15 to 16: what is kept, what begins anew; nothing is wrong."""

from collections.abc import Iterator

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import FAST, Postgres
from harness.streams import continuous, counts, kafka_stream, local_stream, state
from harness.versions import WHEEL, Version, available
from harness.wait import wait_for

QUERY = """SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n, sum(x) AS total, string_agg(k, ',') AS ks
    FROM {} GROUP BY k, w"""
TOTAL = "SELECT count(*) AS n, sum(x) AS total FROM {}"
COLUMNS = "k text, ts timestamptz, x bigint"


@pytest.fixture(scope="module")
def new_version() -> Iterator[Version]:
    if not available(16):
        pytest.skip(f"PostgreSQL 16 is not in {WHEEL}: pip could not install test/postgres.txt")
    with Version(16) as version:
        version.build("COPT=-O0")
        yield version


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


@pytest.mark.timeout(300)
def test_pg_upgrade(new_version: Version, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, 2)
    with Postgres() as old:
        old.psql("CREATE DATABASE d; CREATE ROLE app")
        db = Database(old, "d")
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
        wait_for(lambda: db.value("SELECT count(*) FROM streamext.history WHERE view = 'k_window'::regclass"), what="history")
        definitions = db.rows(DEFINITIONS)
        assert len(definitions) == 6
        # Debian's 15.20 writes this option for every column; the wheel's 16 is older and does not know it.
        db.execute("UPDATE pg_attribute SET attoptions = NULL WHERE attrelid >= 16384 AND attoptions::text LIKE '{pg_attver=%%}'")
        db.connection.close()
        old.stop(FAST)

        with Upgraded(old, new_version) as new:
            db = Database(new, "d")
            assert db.rows(DEFINITIONS) == definitions
            db.flush("k", "l")
            print(db.rows("TABLE l_total"), db.rows("TABLE k_total"), db.rows("SELECT source, count(*) FROM written GROUP BY 1"))
            db.execute("INSERT INTO l " + rows(0, 100))
            kafka.produce(topic, [message(i) for i in range(600, 700)])
            db.flush("k", "l")
            print(db.rows("TABLE l_total"), db.rows("TABLE k_total"), db.rows("SELECT source, count(*) FROM written GROUP BY 1"))
            print(db.rows("select * from streamext.into_position"))
            print(db.rows("select view, count(*) from streamext.history group by 1"), db.rows("table streamext.streams"), db.rows("table streamext.stream_events"))
            assert 0
