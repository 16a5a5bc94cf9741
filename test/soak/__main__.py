"""python -m soak: `make soak SECONDS=600 RATE=100000`. Real Kafka, a steady flow, views of every kind of window; two transactions stay
open all the time, one with a snapshot, one that writes. After a warm-up the first minute is compared with the last one: sizes of
relations, memory, latencies of reads. Then every view is compared with PostgreSQL's own answer over a recount of the topic. Ends
non-zero if something has grown by more than a fifth, the rate was not held, or a view is wrong."""

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from bench.programs import build
from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import Postgres
from harness.streams import COLUMNS, kafka_stream
from harness.wait import wait_for
from soak.gauge import CONTROL, Gauge, Sample, sealed_anew
from soak.views import DELAY, READS, check, create

MOST = 1.2  # last minute / first minute
CLOCK = 0.1  # ms; reads of a tenth of a millisecond vary by that
QUEUE = 64  # MB; what librdkafka has queued is now more and now less
TOPIC = "soak"
PARTITIONS = 4
DEVICES = 1000
# Checkpoints twenty times as often as by default: their log grows and is compacted several times a minute, whatever minute it is.
SETTINGS = {"streamext.checkpoint_interval": "50ms", "fsync": "on", "streamext.memory_limit": "1GB", "max_wal_size": "4GB", "shared_buffers": "512MB"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="that are measured")
    parser.add_argument("--rate", type=int, default=100_000, help="records a second")
    parser.add_argument("--warm-up", type=float, default=120, help="seconds before: until as much goes as comes. A sliding view keeps panes for a minute longer than it shows them")
    parser.add_argument("--minute", type=float, default=60, help="seconds at both ends that are compared, at most a third of all")
    return parser.parse_args()


@contextmanager
def flow(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def open_transactions(db: Database) -> Iterator[list[psycopg.Connection]]:
    """One that has read and keeps its snapshot, one that has written and has an id."""
    reader, writer = db.connect(autocommit=False), db.connect(autocommit=False)
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reader.execute("SELECT count(*) FROM by_device")
    writer.execute("INSERT INTO written VALUES (1)")
    try:
        yield [reader, writer]
    finally:
        reader.close()
        writer.close()


def assert_open(db: Database, connections: list[psycopg.Connection]) -> int:
    """They have been open throughout; how many transactions ago the snapshot was taken."""
    pids = [connection.info.backend_pid for connection in connections]
    ages = db.rows(
        "SELECT age(backend_xmin), age(backend_xid) FROM pg_stat_activity WHERE pid = ANY(%s) AND state = 'idle in transaction'", pids
    )
    snapshot, written = (max((age for age in column if age is not None), default=0) for column in zip(*ages, strict=True))
    assert len(ages) == 2 and snapshot and written, f"the transactions are not open: {ages}"
    return snapshot


def flush(db: Database, kafka: Kafka) -> None:
    """The broker may be about to append what the generator sent last."""
    before = None
    while (ends := kafka.end_offsets(TOPIC)) != before:
        before = ends
        db.flush("s")


def recount(db: Database, kafka: Kafka, program: object) -> int:
    """The topic, read by a consumer of its own into the table byhand_events; how many records that are."""
    records = sum(kafka.end_offsets(TOPIC).values())
    db.execute(f"CREATE UNLOGGED TABLE byhand_events ({COLUMNS})")
    conninfo = f"host={db.server.dir} port={db.server.port} user=postgres dbname={db.name}"
    subprocess.run([str(program), kafka.brokers, TOPIC, str(records), conninfo, "copy"], check=True, stdout=subprocess.DEVNULL)
    db.execute("VACUUM ANALYZE byhand_events")
    return records


# ---------------------------------------------------------------- the verdict


@dataclass
class Row:
    name: str
    first: float
    last: float
    limited: bool = True
    slack: float = 0  # growth by no more than this is not judged
    drift: float = 1  # of the machine, that is taken off

    @property
    def ratio(self) -> float:
        return self.last / self.first if self.first else 1.0

    @property
    def wrong(self) -> bool:
        return self.limited and self.ratio > MOST * self.drift and self.last - self.first > self.slack


def compare(samples: list[Sample], minute: float, anew: float) -> list[Row]:
    """`anew`: what a byte of sealed windows takes if nothing is wasted. Sizes are the greatest of the minute, because the log of
    checkpoints grows and is compacted all the time; latencies and the worker's memory are medians."""
    end = samples[-1].at
    ends = [s for s in samples if s.at <= minute], [s for s in samples if s.at >= end - minute]

    def row(name: str, value: Callable[[Sample], float], of: Callable[[list[float]], float] = max, limited: bool = True, slack: float = 0) -> Row:
        first, last = (of([value(s) for s in part]) for part in ends)
        return Row(name, first, last, limited, slack)

    def relations(s: Sample) -> float:
        return sum(size for name, size in s.sizes.items() if name != "pg_catalog") / 1e6

    rows = [
        row("relations of the extension, MB", relations, limited=False),
        row("  sealed windows, MB: data", lambda s: s.sealed * anew / 1e6, limited=False),
        row("  all but these, MB", lambda s: relations(s) - s.sealed * anew / 1e6),
    ]
    for name in sorted({name for s in samples for name in s.sizes}):
        if max(s.sizes.get(name, 0) for s in samples) > 100_000:
            rows.append(row(f"  {name}, MB", lambda s, name=name: s.sizes.get(name, 0) / 1e6, limited=name == "pg_catalog"))
    rows.append(row("state in shared memory, MB", lambda s: s.state / 1e6, slack=1))
    rows.append(row("the worker's own memory, MB", lambda s: s.worker / 1e6, statistics.median, slack=QUEUE))
    rows.append(row(f"{CONTROL}, ms", lambda s: s.reads[CONTROL], statistics.median, limited=False))
    drift = max(1.0, rows[-1].ratio)
    for name in READS:
        rows.append(row(f"{name}, ms", lambda s, name=name: s.reads[name], statistics.median, slack=CLOCK))
        rows[-1].drift = drift
    return rows


def table(rows: list[Row], minute: float) -> str:
    """In Markdown."""
    lines = [f"| | first {minute:.0f} s | last {minute:.0f} s | ratio (≤ {MOST}) |", "| --- | ---: | ---: | ---: |"]
    for r in rows:
        ratio = f"{r.ratio:.2f}{' TOO HIGH' if r.wrong else ''}" if r.limited else f"({r.ratio:.2f})"
        lines.append(f"| {r.name} | {r.first:.2f} | {r.last:.2f} | {ratio} |")
    return "\n".join(lines)


# ---------------------------------------------------------------- the run


def measure(db: Database, process: subprocess.Popen[bytes], options: argparse.Namespace) -> list[Sample]:
    minute = min(options.minute, options.seconds / 3)
    pause = minute / 12
    gauge = Gauge(db)
    told = 0.0
    while not gauge.samples or gauge.samples[-1].at < options.seconds:
        if process.poll() is not None:
            raise RuntimeError("the generator has ended")
        sample = gauge.take()
        if sample.at >= told:
            told += 15
            log = sample.sizes["checkpoint_log"] / 1e6
            reads = " ".join(f"{ms:.1f}" for ms in sample.reads.values())
            print(f"{sample.at:6.0f} s  {sample.rows:12,} rows  lag {sample.lag:,}  log {log:.0f} MB  worker {sample.worker / 1e6:.0f} MB  reads, ms: {reads}", flush=True)
        gauge.wait(gauge.begun + len(gauge.samples) * pause)
    return gauge.samples


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # the servers are stopped and removed
    options = arguments()
    minute = min(options.minute, options.seconds / 3)
    programs = build()
    with ExitStack() as stack:
        kafka = stack.enter_context(Kafka(heap="1g", measured=True))
        pg = stack.enter_context(Postgres(settings=SETTINGS))
        pg.psql("CREATE DATABASE soak")
        pg.psql("CREATE EXTENSION streamext", "soak")
        db = Database(pg, "soak")
        kafka.create_topic(TOPIC, PARTITIONS)
        kafka_stream(db, kafka, f"topic '{TOPIC}', event_time 'ts', watermark_delay '{DELAY} s', idle_timeout '1 h'")
        create(db, "s")
        db.execute("CREATE TABLE written (n int); CREATE TABLE control AS SELECT n, n::text AS t FROM generate_series(1, 1000) AS n")
        db.flush("s")
        connections = stack.enter_context(open_transactions(db))
        command = [str(programs["generate"]), "flow", kafka.brokers, TOPIC, str(options.rate), str(DEVICES), str(PARTITIONS)]
        with flow(command) as process:
            begin = time.monotonic()
            wait_for(lambda: db.value("SELECT rows_in FROM streamext.streams") > 0, what="the flow")
            print(f"{options.rate:,} records a second; warm-up of {options.warm_up:.0f} s", flush=True)
            time.sleep(max(0.0, begin + options.warm_up - time.monotonic()))
            samples = measure(db, process, options)
        age = assert_open(db, connections)

        flush(db, kafka)
        now = db.value("SELECT date_trunc('second', clock_timestamp()) + interval '1 s'")
        db.execute("SELECT streamext.set_clock(%s)", now)  # for what slides over now()
        rows = compare(samples, minute, sealed_anew(db))
        rate = (samples[-1].rows - samples[0].rows) / (samples[-1].at - samples[0].at)
        print(f"\n{table(rows, minute)}\n")
        print(f"{rate:,.0f} records a second for {samples[-1].at:.0f} s; the open snapshot is {age:,} transactions old")
        print("comparing the views with a recount …", flush=True)
        records = recount(db, kafka, programs["byhand"])
        wrong = check(db, "s", "byhand_events", now, records)
        wrong += [f"{row.name} has grown by {row.ratio:.2f}" for row in rows if row.wrong]
        if rate < 0.95 * options.rate:
            wrong.append(f"{rate:,.0f} records a second are less than {options.rate:,}")
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{records:,} records, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
