"""streamext.export hands over what a continuous view has counted, and how far: an engine goes on from there, and the topic need not hold what
came before. STREAMEXT_HANDOVER_VIEWS sets how many generated definitions there are (8), STREAMEXT_ORACLE_SEED repeats a run."""

import json
import os
import random
import threading

import psycopg
import pytest

from crash.faults import kill_all
from harness import views
from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous
from harness.wait import wait_for
from test_export import RECORDS, SEED, Engine, is_exported, refused, run_all

SETTINGS = {"streamext.checkpoint_interval": 50}
VIEWS = int(os.environ.get("STREAMEXT_HANDOVER_VIEWS", "8"))
COUNTS = "SELECT accepted, late, rejected FROM streamext.continuous_views WHERE view = 'v'::regclass"
EXPORTED = "SELECT delivered, accepted, late, rejected FROM streamext.exports"


def topic_stream(db: Database, kafka: Kafka, topic: str, columns: str, options: str = "watermark_delay '1 day'") -> None:
    kafka.create_topic(topic, 2)
    db.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
    db.execute(f"CREATE FOREIGN TABLE s ({columns}) SERVER k OPTIONS (topic '{topic}', format 'json', event_time 'ts', {options})")
    db.execute(f"CREATE TABLE records ({RECORDS})")


def add(db: Database, topic: str, rows: list[str]) -> None:
    """Ordinary rows in o, and as JSON records of two partitions in records."""
    db.execute("CREATE TEMP TABLE fresh (LIKE o)")
    db.execute(f"INSERT INTO fresh VALUES {', '.join(rows)}")
    db.execute("INSERT INTO o TABLE fresh")
    db.execute(
        """INSERT INTO records SELECT %s, p, row_number() OVER (PARTITION BY p ORDER BY r) - 1 + (SELECT count(*) FROM records o WHERE o.partition = p), now(), NULL, body
        FROM (SELECT convert_to(row_to_json(f)::text, 'UTF8') AS body, (random() < 0.3)::int AS p, random() AS r FROM fresh f) q""",
        topic,
    )
    db.execute("DROP TABLE fresh")


def produce(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, [Message(bytes(body), partition=p) for p, body in db.rows("SELECT partition, payload FROM records ORDER BY partition, position")])


def test_generated_definitions(db: Database, kafka: Kafka, topic: str) -> None:
    """The view is counted here, exported, and goes on by an engine that has none of the records from before."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    topic_stream(db, kafka, topic, views.COLUMN_LIST)
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    add(db, topic, views.rows(rng, 200, views.NOW))
    produce(db, kafka, topic)
    db.execute("CREATE TABLE before AS TABLE o; CREATE TABLE ends AS SELECT partition, count(*) AS n FROM records GROUP BY 1")
    add(db, topic, views.rows(rng, 200, views.NOW))
    db.execute("DELETE FROM records r USING ends e WHERE r.partition = e.partition AND r.position < e.n")
    total = db.value("SELECT count(*) FROM o")
    reasons: dict[str, int] = {}
    db.execute("SELECT streamext.set_clock(%s)", views.NOW)
    try:
        for _ in range(VIEWS):
            definition = views.definition(rng, views.KEPT if rng.random() < 0.5 else ())
            db.execute(f"CREATE VIEW v WITH (streamext.continuous{definition.options}) AS {definition.view('s')}")
            db.flush("s")
            columns = db.rows("SELECT attname, atttypid, atttypmod, attcollation FROM pg_attribute WHERE attrelid = 'v'::regclass")
            if not is_exported(db, reasons):
                db.execute("DROP VIEW v")
                continue
            print(definition.view("s"))
            db.assert_same("TABLE v", definition.query("before", views.NOW))
            engine = Engine(db, topic=topic)
            assert {int(p): n for p, n in engine.positions[topic].items()} == dict(db.rows("TABLE ends"))
            run_all(engine, db, rng)
            db.assert_same("TABLE v", definition.query("o", views.NOW))
            assert columns == db.rows("SELECT attname, atttypid, atttypmod, attcollation FROM pg_attribute WHERE attrelid = 'v'::regclass")
            assert db.rows(EXPORTED) == [(total, total, 0, 0)]
            engine.connection.close()
            db.execute("DROP VIEW v")
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
    print(f"handed over {VIEWS - sum(reasons.values())} of {VIEWS}; refused: {reasons}")


COLUMNS = "k text, ts timestamptz NOT NULL, n int"


def put(db: Database, kafka: Kafka, topic: str, *records: tuple[int, str, float], live: bool = True) -> None:
    """(partition, k, second) into records, and to the topic."""
    for partition, k, second in records:
        body = f'{{"k": "{k}", "ts": "2024-05-01T11:{int(second // 60):02}:{second % 60:06.3f}Z", "n": {second:.0f}}}'
        db.execute(
            "INSERT INTO records SELECT %s, %s, count(*), now(), NULL, convert_to(%s, 'UTF8') FROM records WHERE partition = %s", topic, partition, body, partition
        )
        if live:
            kafka.produce(topic, [Message(body, partition=partition)])


def test_late_records_and_closed_windows(db: Database, kafka: Kafka, topic: str) -> None:
    """Windows that are closed stay so, in history too; a record that counts in some windows only goes on doing so; counts go on."""
    topic_stream(db, kafka, topic, COLUMNS, "watermark_delay '5 s', idle_timeout '1 hour'")
    continuous(db, "v", "SELECT streamext.hop('20 s', '10 s', ts) AS w, count(*) AS n, sum(n) AS s FROM s GROUP BY w")
    before = "SELECT extract(epoch FROM w - '2024-05-01 11:00Z')::int, n, s FROM v ORDER BY 1"
    put(db, kafka, topic, (0, "a", 12), (1, "a", 40), (0, "a", 36))
    db.flush("s")  # the watermark is 31 s
    put(db, kafka, topic, (0, "a", 25), (0, "a", 15), (0, "a", 3))
    kafka.produce(topic, [Message("{bad", partition=1)])
    put(db, kafka, topic, (1, "{bad", 0), live=False)
    db.flush("s")
    assert db.rows(COUNTS) == [(4, 2, 1)]
    content = db.rows(before)
    assert content == [(0, 1, 12), (10, 1, 12), (20, 2, 61), (30, 2, 76), (40, 1, 40)]
    db.execute("SELECT streamext.export('v', 'postgres')")
    assert db.rows(before) == content and db.rows(EXPORTED) == [(7, 4, 2, 1)]
    engine = Engine(db, topic=topic)
    assert engine.positions == {topic: {"0": 5, "1": 2}} and engine.watermark.second == 31
    db.execute("DELETE FROM records")  # the source has none of them any more
    rows = [(0, 26), (0, 2), (0, 47), (1, 52)]
    for i, (partition, second) in enumerate(rows):
        body = f'{{"k": "a", "ts": "2024-05-01T11:00:{second:02}Z", "n": {second}}}'
        db.execute("INSERT INTO records VALUES (%s, %s, %s, now(), NULL, convert_to(%s, 'UTF8'))", topic, partition, 5 + i if partition == 0 else 2, body)
    engine.batch({0: 8, 1: 3})
    # 26 s counts in the window of 20 s alone, whose second row that is late for another; 2 s counts in none
    assert db.rows(before) == [(0, 1, 12), (10, 1, 12), (20, 3, 87), (30, 3, 123), (40, 3, 139), (50, 1, 52)]
    assert db.rows(EXPORTED) == [(11, 7, 3, 1)] and engine.watermark.second == 42


def test_what_another_definition_has_counted_is_not_handed_over(db: Database, kafka: Kafka, topic: str) -> None:
    """Replaced in the same transaction, by one that counts other rows only."""
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, count(*) AS c FROM s WHERE n > 1 GROUP BY k")
    put(db, kafka, topic, (0, "a", 1), (0, "a", 2), (1, "b", 3))
    db.flush("s")
    with db.connection.transaction():
        db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS c FROM s WHERE n < 3 GROUP BY k")
        db.execute("SELECT streamext.export('v', 'postgres')")
    engine = Engine(db, topic=topic)
    assert engine.positions == {} and db.rows("TABLE v") == []
    engine.batch({0: 2, 1: 1})
    assert db.rows("TABLE v") == [("a", 2)]


def test_what_is_not_handed_over_is_refused(db: Database, kafka: Kafka, topic: str) -> None:
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, n, count(*) AS c FROM s GROUP BY GROUPING SETS ((k), (n))")
    continuous(db, "w", "SELECT k, count(*) AS c FROM s GROUP BY k")
    put(db, kafka, topic, (0, "a", 1), (1, "b", 2))
    db.flush("s")
    sqlstate, message, hint = refused(db.connection, "SELECT streamext.export('v', 'postgres')")
    assert sqlstate == "0A000" and "grouping sets" in message and "one transaction" in hint
    db.execute("SELECT streamext.pause('w')")
    put(db, kafka, topic, (0, "a", 3))
    db.flush("s")
    sqlstate, message, hint = refused(db.connection, "SELECT streamext.export('w', 'postgres')")
    assert sqlstate == "55000" and "has still to count" in message and "resume" in hint
    db.execute("SELECT streamext.resume('w')")
    db.flush("s")
    db.execute("SELECT streamext.export('w', 'postgres')")
    assert sorted(db.rows("TABLE w")) == [("a", 2), ("b", 1)]
    # nothing is counted of a view that is made in the same transaction
    db.execute("DROP VIEW v")
    with db.connection.transaction():
        continuous(db, "v", "SELECT k, n, count(*) AS c FROM s GROUP BY GROUPING SETS ((k), (n))")
        db.execute("SELECT streamext.export('v', 'postgres')")
    engine = Engine(db, topic=topic)
    assert engine.positions == {}
    engine.batch({0: 2, 1: 1})
    assert sorted(db.rows("SELECT k, n, c FROM v"), key=str) == sorted([("a", None, 2), ("b", None, 1), (None, 1, 1), (None, 2, 1), (None, 3, 1)], key=str)


# ---------------------------------------------------------------- crashes under load


class Load(threading.Thread):
    """Records 0, 1, ... of two partitions in turn, until it is stopped."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        super().__init__()
        self.kafka, self.topic, self.sent, self.stop = kafka, topic, 0, threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            self.kafka.produce(self.topic, [Message(numbered(i), partition=i % 2) for i in range(self.sent, self.sent + 500)])
            self.sent += 500
            self.stop.wait(0.02)


def numbered(i: int) -> str:
    return f'{{"k": "{i % 7}", "ts": "2024-05-01T11:{i // 6000 % 60:02}:{i // 100 % 60:02}Z", "n": {i}}}'


NUMBERS = "SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS c, sum(n) AS s, var_samp(n) AS v FROM {0} GROUP BY k, w"


def table_of(db: Database, n: int, topic: str) -> None:
    """What Load has sent, as records and as rows."""
    with db.connection.cursor().copy("COPY records (topic, partition, position, payload) FROM STDIN") as copy:
        for i in range(n):
            copy.write_row((topic, i % 2, i // 2, numbered(i).encode()))
    db.execute("CREATE TABLE o AS SELECT r.* FROM records, json_to_record(convert_from(payload, 'UTF8')::json) r (k text, ts timestamptz, n int)")


def killed(db: Database, sql: str) -> Database:
    """The statement kills its process; a connection to what the others come back to."""
    before = db.server.log_file.stat().st_size
    with pytest.raises(psycopg.OperationalError):
        db.execute(sql)
    wait_for(lambda: "ready to accept connections" in db.server.log(before), what="recovery")
    db = Database(db.server, db.name)
    db.configure("streamext.fault_point", "")
    return db


def test_killed_while_it_is_exported(database: Database, kafka: Kafka, topic: str) -> None:
    """Under load. Where the process is killed before its commit nothing has happened; where all are behind it, everything has."""
    db = database
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", NUMBERS.format("s"))
    load = Load(kafka, topic)
    load.start()
    try:
        for step in (1, 2, 3):
            wait_for(lambda: db.value("SELECT coalesce(sum(c), 0) FROM v") > 1000 * step, what="load")
            db.configure("streamext.fault_point", f"kill export {step}")
            db = killed(db, "SELECT streamext.export('v', 'postgres')")
            assert db.rows("SELECT view FROM streamext.exports") == [] and db.value("SELECT to_regclass('v_export')") is None
        db.flush("s")
        db.execute("SELECT streamext.export('v', 'postgres')")
        (positions,) = db.rows("SELECT positions FROM streamext.exports")[0]
        assert db.value("SELECT sum(c) FROM v") == sum(positions[topic].values()) > 3000
        kill_all(db.server)
        db.server.start()
        db = Database(db.server, db.name)
    finally:
        load.stop.set()
        load.join()
    engine = Engine(db, topic=topic)
    assert engine.positions == positions
    table_of(db, load.sent, topic)
    db.execute("DELETE FROM records WHERE position < (%s::jsonb ->> partition::text)::bigint", json.dumps(positions[topic]))
    run_all(engine, db, random.Random(1))
    engine.connection.close()
    db.assert_same("TABLE v", NUMBERS.format("o"))
    assert db.rows(EXPORTED) == [(load.sent, load.sent, 0, 0)]
