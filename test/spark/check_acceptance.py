"""Continuous views computed by a real cluster of Spark: what they hold is what PostgreSQL itself returns, whatever is killed. make spark runs it;
SPARK_RECORDS (200000, of the generated definitions too) and SPARK_RANDOM (60) make it shorter, SPARK_TOGETHER (60) is how many of these an
application computes."""

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster import RUNNER, Application, Cluster
from plant import COLUMNS, DEFINITIONS, TABLE, make

from harness import views
from harness.database import Database, temporary_database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream
from harness.wait import wait_for

RECORDS = int(os.environ.get("SPARK_RECORDS", "200000"))
RANDOM = int(os.environ.get("SPARK_RANDOM", "60"))
# Where the view's text does not run over a table.
ORACLES = {
    "session": f"""SELECT device, session_start AS w, count(*) AS n, min(temperature) AS low, max(ts) AS upto FROM {views.sessions("o", ["device"], "'2 s'")}
        GROUP BY device, session_start""",
}
CRASHING = Path(__file__).with_name("crashing.py")
OPTIONS = "event_time 'ts', watermark_delay '1 h', max_ahead '36500 days'"
PATIENT = 900  # a JVM's start on a busy machine

LONG = 3600
# Views of one application, which decodes for all of them: each costs it about a second a batch, and some more in the first one.
TOGETHER = int(os.environ.get("SPARK_TOGETHER", "60"))

pytestmark = pytest.mark.timeout(LONG)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres(fsync=True) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def broker() -> Iterator[Kafka]:
    with Kafka() as kafka:
        yield kafka


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as spark:
        yield spark


@pytest.fixture
def plant(server: Postgres, broker: Kafka) -> Iterator[tuple[Database, str]]:
    """A database with the stream s over a new topic and its oracle o, both empty."""
    with temporary_database(server) as db:
        topic = db.name
        broker.create_topic(topic, 4)
        kafka_stream(db, broker, f"topic '{topic}', {OPTIONS}", COLUMNS)
        db.execute(f"CREATE TABLE o ({TABLE})")
        yield db, topic


def produce(db: Database, broker: Kafka, topic: str, count: int, seed: int = 1) -> int:
    """Records into the topic, and what is good of them into o; returns how many are bad."""
    messages, lines, bad = make(count, seed)
    broker.produce(topic, messages)
    with db.connect() as connection, connection.cursor().copy("COPY o FROM STDIN") as copy:
        copy.write("\n".join(lines) + "\n")
    return bad


def export(db: Database, definitions: dict[str, str]) -> None:
    """To a role that has INSERT on the views and nothing else."""
    db.execute("SET timezone = 'UTC'")
    if not db.rows("SELECT FROM pg_roles WHERE rolname = 'spark'"):
        db.execute("CREATE ROLE spark LOGIN")
    for name, query in definitions.items():
        continuous(db, name, query.format(source="s"))
        db.execute("SELECT streamext.export(%s, 'spark')", name)
        db.execute(f"GRANT INSERT ON {name} TO spark")


def submit(cluster: Cluster, db: Database, views: list[str], *arguments: str, program: Path = RUNNER, environment: dict[str, str] = {}) -> Application:
    dsn = f"host={db.server.dir} port={db.server.port} user=spark dbname={db.name}"
    named = [text for view in views for text in ("--view", view)]
    return cluster.submit(program, "--pg", dsn, *named, *arguments, environment=environment)


def once(cluster: Cluster, db: Database, views: list[str], *arguments: str) -> str:
    application = submit(cluster, db, views, "--once", *arguments)
    assert application.wait(LONG) == 0, application.log()[-6000:]
    return application.log()


def tell(log: Path) -> list[Any]:
    """What an application did, a line each batch; and its own log of that."""
    batches = [json.loads(line) for line in log.read_text().splitlines()]
    for batch in batches:
        told = list(batch["views"].values())
        parts = ", ".join(f"{what} {sum(view[what] for view in told):.1f} s" for what in ("computed", "copied", "merged"))
        print(f"  {len(told)} views, {told[0]['records']} records in {batch['seconds']:.1f} s: {parts}; the first, with decoding, {told[0]['computed']:.1f} s", flush=True)
    return batches


def delivered(db: Database, view: str) -> int:
    return db.value("SELECT delivered FROM streamext.exports WHERE view = %s::regclass", view) or 0


def assert_exact(db: Database, definitions: dict[str, str], count: int, bad: int) -> None:
    for name, query in definitions.items():
        db.assert_same(f"TABLE {name}", ORACLES.get(name, query).format(source="o"), tolerance=1e-8)
        found = db.rows("SELECT delivered, accepted, late, rejected FROM streamext.exports WHERE view = %s::regclass", name)
        assert found == [(count, count - bad, 0, bad)], name


def test_definitions(plant: tuple[Database, str], broker: Kafka, cluster: Cluster, tmp_path: Path) -> None:
    db, topic = plant
    export(db, DEFINITIONS)
    bad = produce(db, broker, topic, RECORDS)
    log = tmp_path / "batches"
    once(cluster, db, list(DEFINITIONS), "--batch", str(max(RECORDS // 3, 1000)), "--log", str(log))
    assert_exact(db, DEFINITIONS, RECORDS, bad)
    print(f"\n{len(DEFINITIONS)} definitions are PostgreSQL's answer, with its counts; {RECORDS} records, {bad} of them bad", flush=True)
    batches = tell(log)
    assert sum(batch["views"]["tumble"]["sent"] for batch in batches) < RECORDS / 50
    assert len(batches) >= 3


KILLED = {name: DEFINITIONS[name] for name in ("tumble", "session", "total")}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_driver_is_killed(plant: tuple[Database, str], broker: Kafka, cluster: Cluster, moment: str) -> None:
    db, topic = plant
    count = 5000
    export(db, KILLED)
    bad = produce(db, broker, topic, count)
    killed = submit(cluster, db, list(KILLED), "--batch", "1500", program=CRASHING, environment={"CRASH": f"{moment}:2"})
    assert killed.wait(PATIENT) == -9, killed.log()[-4000:]
    assert 0 < delivered(db, "tumble") < count
    once(cluster, db, list(KILLED))
    assert_exact(db, KILLED, count, bad)


def test_outages(plant: tuple[Database, str], broker: Kafka, cluster: Cluster) -> None:
    """One driver, records all the while; executors, its checkpoint, PostgreSQL and Kafka go away; another driver takes over."""
    db, topic = plant
    bad = count = 0

    def more(seed: int, n: int = 2000) -> None:
        nonlocal bad, count
        bad += produce(db, broker, topic, n, seed)
        count += n

    def caught_up() -> bool:
        try:
            return delivered(db, "total") == count
        except psycopg.OperationalError:
            return False

    export(db, KILLED)
    more(1)
    application = submit(cluster, db, list(KILLED), "--trigger", "0 seconds", "--look", "1")
    wait_for(caught_up, PATIENT, "the first batch")

    more(2)
    for pid in cluster.executors():
        os.kill(pid, 9)
    more(3)
    wait_for(caught_up, PATIENT, "new executors")

    for directory in (found for found in Path("/tmp").glob("streamext-spark-*") if (found / "offsets").exists()):
        shutil.rmtree(directory)
    more(4)
    wait_for(caught_up, PATIENT, "a query with another checkpoint")

    more(5)
    db.server.kill_backend(db.value("SELECT pid FROM pg_stat_activity WHERE application_name = 'streamext_spark' AND datname = %s", db.name))
    db.connection = db.server.connect(db.name)
    more(6)
    wait_for(caught_up, PATIENT, "PostgreSQL's return")

    more(7)
    broker.kill9()
    time.sleep(10)
    broker.start()
    more(8)
    wait_for(caught_up, PATIENT, "Kafka's return")

    broker.admin.create_partitions([_partitions(topic, 6)])[topic].result()
    broker.produce(topic, [Message('{"device":"new","ts":"2024-05-01T12:00:00Z","i4":1}', 5)])
    db.execute("INSERT INTO o (device, ts, i4, part) VALUES ('new', '2024-05-01T12:00:00Z', 1, 5)")
    count += 1
    wait_for(caught_up, PATIENT, "a partition added while running")

    assert application.is_running(), application.log()[-4000:]
    once(cluster, db, list(KILLED))
    more(9)
    assert application.wait(PATIENT) == 3, application.log()[-4000:]
    assert "another run" in application.log() or "newer run" in application.log(), application.log()[-4000:]
    once(cluster, db, list(KILLED))
    assert_exact(db, KILLED, count, bad)


def _partitions(topic: str, count: int) -> object:
    from confluent_kafka.admin import NewPartitions

    return NewPartitions(topic, count)


def records_of_rows(db: Database, broker: Kafka, rng: random.Random, count: int) -> int:
    """The generator's rows in o and as records of two partitions, with bad records between them; returns how many records are bad."""
    for begin in range(0, count, 5000):
        db.execute(f"INSERT INTO o VALUES {', '.join(views.rows(rng, min(5000, count - begin), views.NOW))}")
    # What Spark has no like of, in some: such records are decoded by PostgreSQL.
    db.execute("""UPDATE o SET n = nullif(n, -99999999999999999999.125), grade = nullif(grade, 'NaN'), ratio = nullif(nullif(ratio, 'NaN'), 'Infinity')
        WHERE i4 IS DISTINCT FROM 7 OR ts < (SELECT max(ts) - interval '1 minute' FROM o)""")
    messages = [Message(row[0], i % 2) for i, row in enumerate(db.rows("SELECT row_to_json(o)::text FROM o"))]
    bad = [Message(rng.choice(BAD_ROWS), rng.randrange(2)) for _ in range(count // 500)]
    broker.produce(db.name, [*messages, *bad] if count < 5000 else [*messages[:5000], *bad, *messages[5000:]])
    return len(bad)


BAD_ROWS = [
    "", "{", '{"ts":"nonsense"}', '{"k":"alpha"}', '{"ts":"2024-05-01T11:59:00Z","i4":99999999999}', '{"ts":"2024-05-01T11:59:00Z","span":"1 dag"}',
    '{"ts":"2024-05-01T11:59:00Z","day":"2024-02-30"}', '{"ts":"2024-05-01T11:59:00Z","ok":7}', '{"ts":"2024-05-01T11:59:00Z"} tail',
]  # fmt: skip


def choose(db: Database, rng: random.Random, count: int) -> tuple[dict[str, views.Definition], int]:
    """So many definitions that Spark can compute, exported; and how many were tried for them."""
    chosen: dict[str, views.Definition] = {}
    tried = 0
    while len(chosen) < count:
        tried += 1
        definition = views.definition(rng, views.KEPT if rng.random() < 0.4 else ())
        continuous(db, f"v{tried}", definition.view("s"), definition.options)
        try:
            db.execute("SELECT streamext.export(%s, 'spark')", f"v{tried}")
        except psycopg.errors.FeatureNotSupported:
            db.execute(f"DROP VIEW v{tried}")
            continue
        db.execute(f"GRANT INSERT ON v{tried} TO spark")
        chosen[f"v{tried}"] = definition
    return chosen, tried


def test_random_definitions(server: Postgres, broker: Kafka, cluster: Cluster, tmp_path: Path) -> None:
    seed = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
    rng = random.Random(seed)
    with temporary_database(server) as db:
        export(db, {})
        broker.create_topic(db.name, 2)
        kafka_stream(db, broker, f"topic '{db.name}', {OPTIONS}", f"{views.SPARK_COLUMNS}, ts timestamptz")
        db.execute(f"CREATE TABLE o ({views.SPARK_COLUMNS}, ts timestamptz)")
        chosen, tried = choose(db, rng, RANDOM)
        bad = records_of_rows(db, broker, rng, RECORDS)
        print(f"\nseed {seed}: {len(chosen)} of {tried} definitions can be exported; {RECORDS} records and {bad} bad ones", flush=True)
        for i in range(0, len(chosen), TOGETHER):
            once(cluster, db, list(chosen)[i : i + TOGETHER], "--batch", str((RECORDS + bad) // 3 + 1), "--log", str(tmp_path / f"batches{i}"))
            tell(tmp_path / f"batches{i}")
        db.execute("SELECT streamext.set_clock(%s)", views.NOW)
        try:
            wrong = [text for name, definition in chosen.items() if (text := difference(db, name, definition, RECORDS, bad))]
        finally:
            db.execute("SELECT streamext.set_clock(NULL)")
        assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n\n".join(wrong[:4])
        print(f"{len(chosen)} definitions are PostgreSQL's answer, with its counts", flush=True)


def difference(db: Database, name: str, definition: views.Definition, good: int, bad: int) -> str:
    """What is wrong with a view, or nothing."""
    found = db.rows("SELECT delivered, accepted, late, rejected FROM streamext.exports WHERE view = %s::regclass", name)
    try:
        assert found == [(good + bad, good, 0, bad)], found
        db.assert_same(f"TABLE {name}", definition.query("o", views.NOW), tolerance=1e-8)
    except AssertionError as error:
        return f"{definition.text}\n{error}"
    return ""


class Flow(threading.Thread):
    """Records into the topic and o without a pause, until it is ended."""

    def __init__(self, db: Database, broker: Kafka, topic: str) -> None:
        super().__init__(daemon=True)
        self.db, self.broker, self.topic = db, broker, topic
        self.count = self.bad = 0
        self.ending = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ending.wait(0.2):
                self.bad += produce(self.db, self.broker, self.topic, 400, self.count + 1000)
                self.count += 400
        except BaseException as error:
            self.failure = error

    def end(self) -> None:
        self.ending.set()
        self.join()
        assert self.failure is None, self.failure


def test_hand_over_under_load(plant: tuple[Database, str], broker: Kafka, cluster: Cluster) -> None:
    """Views that PostgreSQL computes go to Spark and come back, twice, while records come: none is missing, none counts twice."""
    db, topic = plant
    export(db, {})
    for name, query in KILLED.items():
        continuous(db, name, query.format(source="s"))
        db.execute(f"GRANT INSERT ON {name} TO spark")
    flow = Flow(db, broker, topic)
    flow.start()

    def reaches(what: str) -> None:
        goal = flow.count - flow.bad + 1000
        wait_for(lambda: (flow.failure or db.value("SELECT n FROM total") or 0) >= goal, PATIENT, what)

    try:
        for _ in range(2):
            reaches("PostgreSQL")
            for name in KILLED:
                db.execute("SELECT streamext.export(%s, 'spark')", name)
            job = submit(cluster, db, list(KILLED), "--trigger", "0 seconds", "--look", "1")
            reaches("Spark")
            for name in KILLED:
                db.execute("SELECT streamext.import(%s)", name)
            assert job.wait(PATIENT) == 3, job.log()[-4000:]
        reaches("PostgreSQL at the end")
    finally:
        flow.end()
    db.flush("s")
    for name, query in KILLED.items():
        db.assert_same(f"TABLE {name}", ORACLES.get(name, query).format(source="o"), tolerance=1e-8)
    counts = db.rows("SELECT DISTINCT accepted, late, rejected FROM streamext.continuous_views WHERE view::text IN ('tumble', 'session', 'total')")
    assert counts == [(flow.count - flow.bad, 0, flow.bad)]
