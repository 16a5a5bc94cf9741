"""make spark ARGS=--rates: rates, memory and freshness of a view that Spark computes beside the same view here, in one run; prints the table of docs/scale.md.

What is compared are the same records of one topic (about 105 bytes, 1,000 devices, ten seconds of event time for 10,000 records) through one tumbling view,
`SELECT device, tumble('10 s'), count, avg, max`: by PostgreSQL's worker, and by Spark on a master and two workers of one core, PostgreSQL merging."""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from cluster import RUNNER, Application, Cluster

from harness.database import Database, temporary_database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream
from harness.wait import wait_for

COLUMNS = "device text, ts timestamptz, temperature float8, humidity float8, i4 int"
VIEW = "SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean, max(ts) AS newest FROM s GROUP BY device, w"
PATIENT = 900
PARTITIONS = 4
TICKS = os.sysconf("SC_CLK_TCK")

Table = list[tuple[str, str, str]]


def record(i: int, at: datetime, rng: random.Random) -> Message:
    text = f'{{"device":"dev-{rng.randrange(1000):05d}","ts":"{at.isoformat(timespec="microseconds")[:26]}Z","temperature":{rng.gauss(20, 8):.2f},"humidity":{rng.uniform(20, 90):.1f},"i4":{i % 1000}}}'
    return Message(text, i % PARTITIONS)


# ---- processes ----


def below(pid: int) -> list[int]:
    """The process and all that it has started."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in path.read_text().split():
                found += below(int(child))
        except OSError:
            pass
    return found


def cpu(pids: list[int]) -> float:
    """Seconds, of the process and of its children that have ended."""
    total = 0
    for pid in pids:
        try:
            total += sum(int(ticks) for ticks in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
        except OSError:
            pass
    return total / TICKS


def status(pid: int, field: str) -> float:
    """MB."""
    return next((int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field)), 0) / 1000


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def memory_of_spark(job: Application, cluster: Cluster) -> str:
    jvms, pythons = [], []
    for pid in below(job.process.pid):
        (jvms if "SparkSubmit" in program(pid) else pythons).append(status(pid, "VmHWM"))
    executors = [status(pid, "VmHWM") for pid in cluster.executors()]
    return f"driver {max(jvms):.0f}, its Python {max(pythons, default=0):.0f}, executors {', '.join(f'{mb:.0f}' for mb in executors)}"


def memory_of_postgres(server: Postgres) -> str:
    """Each page once."""
    total = 0
    for pid in server.children():
        try:
            total += sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
        except OSError:
            pass
    return f"all processes {total / 1000:.0f}"


# ---- rates ----


def fill(broker: Kafka, topic: str, count: int) -> None:
    rng = random.Random(1)
    begin = datetime(2024, 5, 1, 12)
    broker.produce(topic, (record(i, begin + timedelta(milliseconds=i), rng) for i in range(count)))


def submit(cluster: Cluster, db: Database, view: str, *arguments: str) -> Application:
    dsn = f"host={db.server.dir} port={db.server.port} user=postgres dbname={db.name}"
    return cluster.submit(RUNNER, "--pg", dsn, "--view", view, *arguments, conf={"spark.executor.memory": "1g", "spark.driver.memory": "1g"})


def here(db: Database, count: int) -> tuple[str, float]:
    began = time.monotonic()
    continuous(db, "here", VIEW)
    wait_for(lambda: (db.value("SELECT accepted FROM streamext.continuous_views WHERE view = 'here'::regclass") or 0) >= count, PATIENT, "the view here")
    seconds = time.monotonic() - began
    return f"{count / seconds:,.0f}", seconds


def spark(cluster: Cluster, db: Database, count: int, batch: int, table: Table) -> None:
    with db.connect(autocommit=False) as connection:  # in one transaction: nothing is counted here first
        connection.execute(f"CREATE VIEW there WITH (streamext.continuous) AS {VIEW}")
        connection.execute("SELECT streamext.export('there', 'spark')")
    log = Path(tempfile.mkdtemp(prefix="streamext-rates-")) / "batches"
    job = submit(cluster, db, "there", "--trigger", "0 seconds", "--batch", str(batch), "--log", str(log))

    def batches() -> list[dict]:
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def done() -> int:
        return sum(line["views"]["there"]["records"] for line in batches())

    def pids() -> list[int]:
        return [*below(job.process.pid), *cluster.executors()]

    warm_from = count // 2
    wait_for(lambda: job.is_running() and batches(), PATIENT, "the first batch")
    wait_for(lambda: done() >= warm_from, PATIENT, "half of the records")
    before, at = cpu(pids()), done()
    wait_for(lambda: done() >= count, PATIENT, "all records")
    used = cpu(pids()) - before
    lines = batches()
    warm = [line for i, line in enumerate(lines) if sum(x["views"]["there"]["records"] for x in lines[: i + 1]) > warm_from]
    wall = warm[-1]["at"] - warm[0]["at"]
    records = sum(line["views"]["there"]["records"] for line in warm[1:])
    table.append(("records a second, warm", table.pop()[1], f"{records / wall:,.0f}"))
    table.append(("CPU-seconds a million records, warm, without PostgreSQL's", "", f"{used / (done() - at) * 1e6:.1f}"))
    table.append(("seconds of the first batch", "", f"{lines[0]['seconds']:.1f}"))
    table.append(("rows to PostgreSQL a batch", "", f"{sum(line['views']['there']['rows'] for line in warm) / len(warm):,.0f} of {batch:,} records"))
    table.append(("seconds of a warm batch", "", f"{sum(line['seconds'] for line in warm) / len(warm):.2f}: " + ", ".join(
        f"{what} {sum(line['views']['there'][what] for line in warm) / len(warm):.2f}" for what in ("computed", "copied", "merged"))))  # fmt: skip
    table.append(("MB at most", memory_of_postgres(db.server), memory_of_spark(job, cluster)))
    db.assert_same("TABLE there", "TABLE here", tolerance=1e-8)
    db.execute("SELECT streamext.import('there')")
    job.wait(PATIENT)


# ---- freshness ----


class Watcher(threading.Thread):
    """Every 50 ms, how old the newest record is that a view shows."""

    def __init__(self, db: Database, view: str, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.connection, self.view, self.ending = db.connect(), view, ending
        self.ages: list[float] = []

    def run(self) -> None:
        while not self.ending.wait(0.05):
            newest = self.connection.execute(f"SELECT max(newest) FROM {self.view}").fetchone()[0]
            if newest is not None:
                self.ages.append((datetime.now(UTC) - newest).total_seconds())


def at(ages: list[float], share: float) -> str:
    seconds = sorted(ages)[int(len(ages) * share)]
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def freshness(cluster: Cluster, db: Database, broker: Kafka, seconds: float, table: Table) -> None:
    """2,000 records a second of 21 groups, both views at once."""
    query = "SELECT i4, max(ts) AS newest, count(*) AS n FROM f GROUP BY i4"
    broker.create_topic("fresh", 1)
    kafka_stream(db, broker, "topic 'fresh', event_time 'ts'", COLUMNS, name="f")
    continuous(db, "fresh_here", query)
    continuous(db, "fresh_there", query)
    db.execute("SELECT streamext.export('fresh_there', 'spark')")
    producing, rng = threading.Event(), random.Random(2)

    def produce() -> None:
        producer, i = broker.producer({"linger.ms": 1}), 0
        due = time.monotonic()
        while not producing.is_set():
            for _ in range(20):
                message = record(i % 21, datetime.now(UTC).replace(tzinfo=None), rng)
                producer.produce("fresh", message.value, partition=0)
                i += 1
            producer.poll(0)
            due += 0.01
            time.sleep(max(0, due - time.monotonic()))
        producer.flush()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    for trigger in ("1 second", "0 seconds"):
        job = submit(cluster, db, "fresh_there", "--trigger", trigger)
        began = db.value("SELECT coalesce(max(last_merge_at), now()) FROM streamext.exports WHERE view = 'fresh_there'::regclass")
        wait_for(lambda: job.is_running() and db.value("SELECT count(*) FROM streamext.exports WHERE view = 'fresh_there'::regclass AND last_merge_at > %s::timestamptz + interval '1 second'", began), PATIENT, "Spark")
        time.sleep(20)  # warm
        ending = threading.Event()
        watchers = [Watcher(db, view, ending) for view in ("fresh_here", "fresh_there")]
        for watcher in watchers:
            watcher.start()
        time.sleep(seconds)
        ending.set()
        for watcher in watchers:
            watcher.join()
        first, second = (f"p50 {at(watcher.ages, 0.5)}, p99 {at(watcher.ages, 0.99)}" for watcher in watchers)
        table.append((f"age of the newest record, 2,000 records a second, trigger '{trigger}'", first, second))
        job.kill9()
    producing.set()
    thread.join()


# ---- merge ----


def merging(db: Database, broker: Kafka, rows: int, table: Table) -> None:
    """Batches of partials of nine columns, as an engine sends them: two keys and a pane's time, the count, five partials."""
    broker.create_topic("merge", 1)
    kafka_stream(db, broker, "topic 'merge', event_time 'ts', watermark_delay '1 day'", COLUMNS, name="m")
    continuous(db, "merged", "SELECT device, i4, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean, min(temperature) AS low, max(humidity) AS high FROM m GROUP BY device, i4, w")
    db.execute("SELECT streamext.export('merged', 'spark')")
    with db.connect(autocommit=False) as connection:
        pid = connection.info.backend_pid
        run, plan = connection.execute("SELECT run, plan FROM streamext.export_begin('merged')").fetchone()
        connection.commit()
        stages = plan["stages"]
        columns = len(plan["keys"]) + 2 + len(plan["partials"])
        partials = "".join("\t3" if partial["type"] == "bigint" else "\t60.25" for partial in plan["partials"])
        best: dict[str, str] = {}
        for i, (what, first) in enumerate([("new groups", 0), ("groups that are there", 0), ("half of each", rows // 2)] * 2):
            shift = 0 if i < 3 else 10 * rows
            lines = "".join(f"dev-{g % 1000:05d}\t{g // 1000}\t2024-05-01 12:00:00+00\t3{partials}\n" for g in range(shift + first, shift + first + rows))
            for stage in stages:
                connection.execute(stage["create"])
            begun = cpu([pid])
            with connection.cursor().copy(f"COPY {stages[0]['table']} FROM STDIN") as copy:
                copy.write(lines)
            copied = cpu([pid])
            connection.execute("SELECT streamext.export_merge('merged', %s, %s, '{}', %s)", [run, json.dumps({"merge": {"0": (i + 1) * 3 * rows}}), json.dumps({"delivered": 3 * rows, "rejected": 0})])
            connection.commit()
            done = cpu([pid])
            told = f"{rows / max(done - copied, 0.01):,.0f}, with COPY {rows / max(done - begun, 0.01):,.0f}"
            best[what] = f"{best[what]}; {told}" if what in best else told
        for what, told in best.items():
            table.append((f"merged rows a CPU-second, {columns} columns, {rows:,} {what}", "", told))


def guarded(what: str, run: Callable[[], None]) -> bool:
    try:
        run()
    except (AssertionError, TimeoutError, psycopg.Error, RuntimeError) as error:
        print(f"{what} failed: {error}", file=sys.stderr)
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=4_000_000)
    parser.add_argument("--batch", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=30, help="of each look at freshness")
    parser.add_argument("--only", choices=["rates", "freshness", "merge"])
    options = parser.parse_args()
    table: Table = []
    fine = True
    settings = {"streamext.memory_limit": "512MB", "shared_buffers": "256MB", "max_wal_size": "4GB"}
    with Postgres(settings=settings) as server, Kafka(heap="700m", measured=True) as broker, temporary_database(server) as db:
        db.execute("SET timezone = 'UTC'")
        if options.only in (None, "merge"):
            fine &= guarded("merge", lambda: merging(db, broker, 100_000, table))
        if options.only != "merge":
            with Cluster(java="", memory="1500m") as cluster:
                if options.only in (None, "rates"):
                    broker.create_topic("plant", PARTITIONS)
                    kafka_stream(db, broker, "topic 'plant', event_time 'ts', watermark_delay '1 h'", COLUMNS)
                    fill(broker, "plant", options.records)
                    table.append(("", here(db, options.records)[0], ""))
                    fine &= guarded("rates", lambda: spark(cluster, db, options.records, options.batch, table))
                if options.only in (None, "freshness"):
                    fine &= guarded("freshness", lambda: freshness(cluster, db, broker, options.seconds, table))
    print(f"| {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} | here | Spark, two executors of one core |\n| --- | --- | --- |")
    for row in table:
        print("| " + " | ".join(row) + " |")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
