"""Where the benchmarks run: a broker with the records in a topic, and a PostgreSQL with the same rows in the table o."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import Postgres
from harness.streams import BY_TS, COLUMNS, counts
from measure import Meter
from queries import View

DATABASE = "bench"
TOPIC = "sensors"

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",  # no noise; what needs it is vacuumed explicitly
    "jit": "off",
    "work_mem": "256MB",
    "temp_buffers": "256MB",
}


@dataclass
class Load:
    records: int = 2_000_000
    devices: int = 1000
    partitions: int = 4
    size: int = 0  # of a record in bytes; 0: as it is


@dataclass
class Plant:
    programs: dict[str, Path]
    kafka: Kafka
    pg: Postgres
    load: Load
    answers: set[str] = field(default_factory=set)  # of which views PostgreSQL's own answer is in a table

    @property
    def db(self) -> Database:
        """A new connection, because the server is restarted again and again."""
        return Database(self.pg, DATABASE)

    @property
    def conninfo(self) -> str:
        return f"host={self.pg.dir} port={self.pg.port} user=postgres dbname={DATABASE}"

    def restart(self) -> None:
        """The server anew: its memory is that of the next measurement alone."""
        self.pg.restart()

    def produce(self, topic: str, devices: int = 0) -> float:
        """Fills a new topic; the seconds it took."""
        load = self.load
        self.kafka.create_topic(topic, load.partitions)
        with Meter(0, self._broker) as meter:
            meter.run(
                [self.programs["generate"], "load", self.kafka.brokers, topic, str(load.records), str(devices or load.devices),
                 str(load.partitions), str(load.size)]
            )  # fmt: skip
        assert sum(self.kafka.end_offsets(topic).values()) == load.records
        return meter.cost.seconds

    def fill_table(self, name: str = "o", devices: int = 0) -> None:
        """The same rows by COPY."""
        db = self.db
        db.execute(f"CREATE UNLOGGED TABLE {name} ({COLUMNS})")
        command = [self.programs["generate"], "rows", str(self.load.records), str(devices or self.load.devices)]
        with _output(command) as rows, db.connection.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
            while data := rows.read(1 << 18):
                copy.write(data)
        db.execute(f"VACUUM ANALYZE {name}")

    def meter(self, server: bool = True) -> Meter:
        return Meter(self.pg.process.pid if server and self.pg.process else 0, self._broker)

    @property
    def _broker(self) -> int:
        assert self.kafka.process is not None
        return self.kafka.process.pid

    def create_stream(self, db: Database, topic: str, views: tuple[View, ...], name: str = "s", options: str = "") -> None:
        """Stream and views in one transaction, so that nothing is read twice."""
        with db.connection.transaction():
            db.execute(f"CREATE FOREIGN TABLE {name} ({COLUMNS}) SERVER plant OPTIONS (topic '{topic}', format 'json', {BY_TS}{options})")
            for view in views:
                db.execute(f"CREATE VIEW {view.name} WITH (streamext.continuous) AS {view.query.format(source=name)}")

    def can(self, view: View) -> bool:
        """Has this version what the view needs?"""
        have = {name for (name,) in self.db.rows("SELECT proname FROM pg_proc WHERE pronamespace = 'streamext'::regnamespace")}
        return have.issuperset(view.needs)

    def answer(self, view: View, table: str = "o") -> str:
        """The table that holds PostgreSQL's own answer."""
        name = f"{table}_{view.name}"
        if name not in self.answers:
            source = f"(SELECT * FROM {table} WHERE {view.sample}) AS sampled" if view.sample else table
            db = self.db
            db.execute("SET enable_sort = off")  # it does not know how few groups hop() makes, and would sort all rows on disk
            db.execute(f"CREATE UNLOGGED TABLE {name} AS {(view.exact or view.query).format(source=source)}")
            self.answers.add(name)
        return name

    def verify(self, db: Database, view: View, actual: str = "", table: str = "o") -> None:
        """The view (or `actual`) holds PostgreSQL's own answer over the table."""
        actual, expected = actual or f"TABLE {view.name}", f"TABLE {self.answer(view, table)}"
        if view.sample:
            ours, theirs = view.sums
            db.assert_same(ours.format(view=view.name), theirs.format(source=table))
            actual = f"SELECT * FROM {view.name} WHERE {view.sample}"
        if view.exact:
            _assert_near(db, actual, expected, view.errors)
        else:
            db.assert_same(actual, expected)

    def verify_stream(self, db: Database, views: tuple[View, ...], table: str = "o") -> None:
        for view in views:
            assert counts(db, view.name) == (self.load.records, 0, 0), f"{view.name}: {counts(db, view.name)}"
            self.verify(db, view, table=table)


def _assert_near(db: Database, actual: str, expected: str, errors: dict[str, float]) -> None:
    """Window by window: columns with an error within it, all others equal."""
    cursor = db.connection.execute(f"SELECT * FROM ({expected}) AS e ORDER BY w")
    names = [column.name for column in cursor.description or []]
    wanted = cursor.fetchall()
    found = db.rows(f"SELECT * FROM ({actual}) AS a ORDER BY w")
    assert len(found) == len(wanted), f"{len(found)} windows instead of {len(wanted)}"
    for a, e in zip(found, wanted):
        for name, x, y in zip(names, a, e):
            assert abs(x - y) <= errors[name] * abs(y) if name in errors else x == y, f"{name} is {x}, not {y}, in {a}"


@contextmanager
def _output(command: Sequence[str | Path]) -> Iterator[IO[bytes]]:
    """What a program prints, that must succeed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed")


@contextmanager
def plant(programs: dict[str, Path], load: Load, memory_limit: str) -> Iterator[Plant]:
    settings = SETTINGS | {"streamext.memory_limit": memory_limit}
    with Kafka(heap="1g", measured=True) as kafka, Postgres(settings=settings) as pg:
        pg.psql(f"CREATE DATABASE {DATABASE}")
        pg.psql(
            f"CREATE EXTENSION streamext; CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')",
            DATABASE,
        )
        yield Plant(programs, kafka, pg, load)
