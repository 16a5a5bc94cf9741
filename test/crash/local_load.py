"""local: sessions that INSERT the same rows into the stream and into an ordinary table, in one transaction. What is in the
table afterwards was committed, also where the session died before it heard of it."""

import random

import psycopg

from crash.load import Producer, Producers, compare, counted
from harness.database import Database
from harness.streams import continuous, local_stream

TOTAL = "SELECT count(*) AS c, sum(n)::bigint AS s, count(DISTINCT n) AS d FROM {}"
KEYED = "SELECT k, count(*) AS c, bit_xor(n) AS x, array_agg(n ORDER BY n) AS list FROM {} GROUP BY k"


class LocalLoad(Producers):
    name = "local"
    streams = ["l"]

    def __init__(self, rng: random.Random, sessions: int = 3) -> None:
        super().__init__(rng)
        self._sessions = sessions

    def begin(self, db: Database) -> None:
        self._db = db
        local_stream(db, columns="n bigint, k int", name="l")
        db.execute("CREATE TABLE companion (n bigint, k int)")
        continuous(db, "l_total", TOTAL.format("l"))
        continuous(db, "l_keyed", KEYED.format("l"))
        self._threads = [Producer(_Session(self).work, idle=0.03) for _ in range(self._sessions)]

    def take(self, count: int) -> int:
        """The first of so many numbers that nobody else has."""
        with self._lock:
            self._n += count
            return self._n - count

    def check(self, db: Database) -> list[str]:
        n = db.value("SELECT count(*) FROM companion")
        return (
            compare(db, "l_total", "TABLE l_total", TOTAL.format("companion"))
            + compare(db, "l_keyed", "TABLE l_keyed", KEYED.format("companion"))
            + counted(db, "l_total", n) + counted(db, "l_keyed", n)
        )  # fmt: skip


class _Session:
    def __init__(self, load: LocalLoad) -> None:
        self._load = load
        self._rng = random.Random(load._rng.random())
        self._connection: psycopg.Connection | None = None

    def work(self) -> None:
        """A transaction: committed, rolled back, or part of it rolled back."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._load._db.connect(autocommit=False, connect_timeout=2)
                self._connection.execute(f"SET synchronous_commit = {self._rng.choice(['on', 'off'])}")
                self._connection.commit()
            self._insert()
            if self._rng.random() < 0.2:
                with self._connection.transaction(force_rollback=True):
                    self._insert()
            if self._rng.random() < 0.2:
                self._connection.rollback()
            else:
                self._connection.commit()
        except psycopg.OperationalError:  # the server is away
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _insert(self) -> None:
        count = self._rng.choice([1, 1, 10, 200])
        first = self._load.take(count)
        rows = f"SELECT g, g %% 7 FROM generate_series({first}::bigint, {first + count - 1}) AS g".replace("%%", "%")
        for relation in ("l", "companion"):
            self._connection.execute(f"INSERT INTO {relation} {rows}")
