"""Continuous views computed by a real cluster of Spark: what they hold is what PostgreSQL itself returns, whatever is killed. make spark runs it;
SPARK_RECORDS (200000) and SPARK_RANDOM (60) make it shorter."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

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
PATIENT = 300  # a JVM's start on a busy machine

pytestmark = pytest.mark.timeout(1800)


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
    assert application.wait(600) == 0, application.log()[-6000:]
    return application.log()


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
    batches = [json.loads(line) for line in log.read_text().splitlines()]
    print(*batches, sep="\n")
    sent = sum(batch["views"]["tumble"]["sent"] for batch in batches)
    assert sent < RECORDS / 50
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


# The generator's columns with types that Spark has too; those of span are mostly NULL.
_TYPES = {"grade numeric": "grade numeric(10,2)", "f4 float4": "f4 float8", "n numeric": "n numeric(26,4)", "local timestamp": "local timestamptz"}
_COLUMNS = ", ".join(_TYPES.get(column, column) for column in views.COLUMNS)


def test_random_definitions(server: Postgres, broker: Kafka, cluster: Cluster) -> None:
    rng = random.Random(7)
    with temporary_database(server) as db:
        export(db, {})
        broker.create_topic(db.name, 2)
        kafka_stream(db, broker, f"topic '{db.name}', {OPTIONS}", f"{_COLUMNS}, ts timestamptz")
        db.execute(f"CREATE TABLE o ({_COLUMNS}, ts timestamptz)")
        db.execute(f"INSERT INTO o VALUES {', '.join(views.rows(rng, 3000, views.NOW))}")
        # What Spark has no like of, in some: such records are decoded by PostgreSQL.
        db.execute("UPDATE o SET span = NULL, n = nullif(n, -99999999999999999999.125), grade = nullif(grade, 'NaN'), ratio = nullif(nullif(ratio, 'NaN'), 'Infinity') WHERE i4 IS DISTINCT FROM 7")
        chosen, tried = {}, 0
        while len(chosen) < RANDOM:
            tried += 1
            definition = views.definition(rng)
            try:
                continuous(db, f"v{tried}", definition.view("s"), definition.options)
                db.execute("SELECT streamext.export(%s, 'spark')", f"v{tried}")
                db.execute(f"GRANT INSERT ON v{tried} TO spark")
            except psycopg.Error:  # not with these types, or not by Spark
                db.execute(f"DROP VIEW IF EXISTS v{tried}")
            else:
                chosen[f"v{tried}"] = definition
        print(f"{len(chosen)} of {tried} definitions can be exported")
        lines = [row[0] for row in db.rows("SELECT row_to_json(o)::text FROM o")]
        broker.produce(db.name, [Message(line, i % 2) for i, line in enumerate(lines)])
        for i in range(0, len(chosen), 20):
            once(cluster, db, list(chosen)[i : i + 20], "--batch", "2000")
        db.execute("SELECT streamext.set_clock(%s)", views.NOW)
        try:
            wrong = []
            for name, definition in chosen.items():
                try:
                    db.assert_same(f"TABLE {name}", definition.query("o", views.NOW), tolerance=1e-8)
                except AssertionError as error:
                    wrong.append(f"{definition.text}\n{error}")
        finally:
            db.execute("SELECT streamext.set_clock(NULL)")
        assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n\n".join(wrong[:4])
