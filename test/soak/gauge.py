"""What is looked at again and again during a soak: sizes of relations, memory, latencies of reads."""

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.database import Database
from soak.views import READS

LOOK = 0.5  # seconds between two looks at sizes
TIMES = 20  # each read in a sample; the median counts

CONTROL = "(an ordinary table of 1,000 rows)"  # shows how steady the machine is

# Of the extension's tables with their indexes and TOAST, and of the system catalogue, which DDL and TRUNCATE of it would bloat.
SIZES = """SELECT relname::text, pg_total_relation_size(oid) FROM pg_class WHERE relnamespace IN ('streamext'::regnamespace, 'streamext_internal'::regnamespace) AND relkind = 'r'
    UNION ALL SELECT 'pg_catalog', sum(pg_total_relation_size(oid))::bigint FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared"""
SEALED = "SELECT coalesce(sum(pg_column_size(h.*)), 0)::bigint FROM streamext_internal.history AS h"


@dataclass
class Sample:
    at: float  # seconds since the measurement began
    sizes: dict[str, int]  # bytes by relation, the greatest since the sample before
    sealed: int  # bytes of the rows of streamext_internal.history
    state: int  # bytes of shared memory
    worker: int  # bytes of the worker's own memory
    rows: int  # records read
    lag: int
    reads: dict[str, float]  # ms


@dataclass
class Gauge:
    db: Database
    samples: list[Sample] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    _sizes: dict[str, int] = field(default_factory=dict)

    def _look_at_sizes(self) -> None:
        for name, size in self.db.rows(SIZES):
            self._sizes[name] = max(self._sizes.get(name, 0), size)

    def wait(self, until: float) -> None:
        """Looks at sizes, of which some go up and down, more often than a sample is taken."""
        while (left := until - time.monotonic()) > 0:
            self._look_at_sizes()
            time.sleep(min(LOOK, left))

    def _read(self, sql: str) -> float:
        taken = []
        for _ in range(TIMES):
            begin = time.perf_counter()
            self.db.connection.execute(sql, prepare=True).fetchall()
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken) * 1000

    def take(self) -> Sample:
        db = self.db
        rows, lag = db.rows("SELECT rows_in, coalesce(lag_rows, 0) FROM streamext.streams")[0]
        pid = db.value("SELECT pid FROM streamext.workers")
        self._look_at_sizes()
        sizes, self._sizes = self._sizes, {}
        self.samples.append(
            Sample(
                at=time.monotonic() - self.begun,
                sizes=sizes,
                sealed=db.value(SEALED),
                state=db.value("SELECT sum(state_bytes)::bigint FROM streamext.continuous_views"),
                worker=private(pid),
                rows=rows,
                lag=lag,
                reads={name: self._read(sql) for name, sql in {CONTROL: "TABLE control", **READS}.items()},
            )
        )
        return self.samples[-1]


def private(pid: int) -> int:
    """Bytes of memory that are the process's alone."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def sealed_anew(db: Database) -> float:
    """What a byte of sealed windows takes in a table that was written just now, index included."""
    db.execute("CREATE TABLE anew (LIKE streamext_internal.history INCLUDING ALL); INSERT INTO anew TABLE streamext_internal.history")
    size, rows = db.value("SELECT pg_total_relation_size('anew')"), db.value(SEALED)
    db.execute("DROP TABLE anew")
    return size / rows if rows else 1
