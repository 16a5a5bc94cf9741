"""streamext.import hands over what an engine has merged, and how far: the view goes on from there, and the topic need not hold what came before.
STREAMEXT_COMEBACK_VIEWS sets how many generated definitions there are (4), STREAMEXT_ORACLE_SEED repeats a run."""

import json
import os
import random
import threading

import psycopg
import pytest
from confluent_kafka import TopicPartition

from crash.faults import kill_all
from harness import views
from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous
from harness.wait import wait_for
from test_export import SEED, Engine, refused, run_all
from test_handover import COLUMNS, COUNTS, EXPORTED, add, killed, put, topic_stream
from test_standby import caught_up, follow

VIEWS = int(os.environ.get("STREAMEXT_COMEBACK_VIEWS", "4"))

SETTINGS = {"streamext.checkpoint_interval": 50, "streamext.max_views": 256 + 2 * VIEWS}


def produce(db: Database, kafka: Kafka, topic: str) -> None:
    """What the topic does not have yet."""
    have = kafka.end_offsets(topic)
    rows = db.rows("SELECT partition, position, payload FROM records ORDER BY partition, position")
    kafka.produce(topic, [Message(bytes(body), partition=p) for p, position, body in rows if position >= have.get(p, 0)])


def forget(kafka: Kafka, topic: str) -> None:
    """All that the topic has."""
    ends = [TopicPartition(topic, p, end) for p, end in kafka.end_offsets(topic).items()]
    for future in kafka.admin.delete_records(ends).values():
        future.result()


# every aggregate that can be exported, over every kind of column
W = "streamext.tumble('2 min', ts)"
FIXED = [
    f"SELECT {W} AS w, count(*) FILTER (WHERE i4 > 5) AS a, sum(i4) AS b, avg(i4) AS c, min(i2) AS d, max(i4) AS e, var_pop(i4) AS f, stddev(i2) AS g, bit_xor(i4) AS h FROM {{0}} GROUP BY 1",
    f"SELECT k, {W} AS w, sum(i8) AS a, avg(i8) AS b, stddev_pop(i8) AS c, sum(n) AS d, avg(n) AS e, variance(n) AS f, sum(grade) AS g, stddev(grade) AS h FROM {{0}} GROUP BY 1, 2",
    f"SELECT k, site, {W} AS w, sum(f8) AS a, avg(f8) AS b, round(var_samp(f8)::numeric, 6) AS c, max(t) AS d, min(ts) AS e, bool_or(ok) AS f, every(ok) AS g, sum(n) AS h FROM {{0}} GROUP BY CUBE (k, site, 3)",
    f"SELECT {W} AS w, round(corr(f8, i4)::numeric, 6) AS a, regr_count(f8, i4) AS b, round(regr_slope(f8, i2)::numeric, 6) AS c, sum(f4) AS d, avg(f4) AS e, sum(span) AS f, avg(span) AS g, max(span) AS h, sum(ratio) AS i FROM {{0}} GROUP BY 1",
    "SELECT count(*) AS c, min(t) AS a, sum(n) AS b, max(n) AS d FROM {0}",
    f"""SELECT k, {W} AS w, count(DISTINCT i4) AS a, count(DISTINCT t) AS b, sum(DISTINCT n) AS c, avg(DISTINCT i2) AS d, count(DISTINCT span) FILTER (WHERE ok) AS e,
        streamext.first(date_trunc('second', ts)::text, ts) AS f, streamext.last(date_part('minute', ts), ts) FILTER (WHERE i4 > 0) AS g FROM {{0}} GROUP BY CUBE (k, 2)""",
    f"""SELECT {W} AS w, streamext.approx_count_distinct(t) AS a, streamext.approx_percentile(0.5, f8) AS b, streamext.approx_percentile(0.9, f8) AS c,
        streamext.cardinality(streamext.sketch_distinct(grade)) AS d, streamext.percentile(streamext.sketch_percentile(f8), 0.1) AS e,
        streamext.approx_percentile(0.2, i2) FILTER (WHERE ok) AS f, streamext.first(NULL::text, ts) AS g FROM {{0}} GROUP BY 1""",
]


def make(db: Database, rng: random.Random) -> dict[str, str]:
    """Views that can be exported, with their queries over a table."""
    made = {}
    generated = 0
    while generated < VIEWS + len(FIXED):
        name, options = f"v{len(made)}", ""
        if generated < len(FIXED):
            text = query = FIXED[generated]
            text = text.format("s")
        else:
            definition = views.definition(rng, views.KEPT if rng.random() < 0.5 else ())
            text, query, options = definition.view("s"), definition.query("{0}", views.NOW), definition.options
        generated += 1
        try:
            with db.connection.transaction():
                db.execute(f"CREATE VIEW {name} WITH (streamext.continuous{options}) AS {text}")
                db.execute(f"SELECT streamext.export_plan('{name}', 'postgres')")
        except psycopg.errors.FeatureNotSupported:
            continue
        print(name, text)
        made[name] = query
    return made


@pytest.mark.parametrize("workers, alone", [(1, True), (2, False)])
def test_there_and_back(database: Database, kafka: Kafka, topic: str, workers: int, alone: bool) -> None:
    """Counted here, by an engine, and here again; each time what was counted before is not in the topic any more. Killed with all it has in between."""
    db = database
    rng = random.Random(SEED + workers)
    print(f"seed {SEED}")
    topic_stream(db, kafka, topic, views.COLUMN_LIST, f"watermark_delay '1 day', workers '{workers}'")
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    db.execute("SELECT streamext.set_clock(%s)", views.NOW)
    if not alone:
        continuous(db, "other", "SELECT count(*) AS c FROM s")
    made = make(db, rng)

    def same(sliding: bool = True) -> None:
        for name, query in made.items():
            if sliding or views.NOW.isoformat() not in query:
                db.assert_same(f"TABLE {name}", query.format("o"))

    try:
        add(db, topic, views.rows(rng, 200, views.NOW))
        produce(db, kafka, topic)
        db.flush("s")
        same()
        for name in made:
            db.execute(f"SELECT streamext.export('{name}', 'postgres')")
        if alone:
            forget(kafka, topic)
        add(db, topic, views.rows(rng, 100, views.NOW))
        for name in made:
            engine = Engine(db, view=name, topic=topic)
            run_all(engine, db, rng)
            engine.connection.close()
        produce(db, kafka, topic)
        if alone:
            forget(kafka, topic)
        for name in made:
            db.execute(f"SELECT streamext.import('{name}')")
            assert db.rows("SELECT state FROM streamext.continuous_views WHERE view = %s::regclass", name)
        same()
        add(db, topic, views.rows(rng, 100, views.NOW))
        produce(db, kafka, topic)
        db.flush("s")
        same()
        kill_all(db.server)
        db.server.start()
        db = Database(db.server, db.name)
        db.execute("SELECT streamext.set_clock(%s)", views.NOW)
        db.flush("s")
        same(sliding=False)  # until then now() was another, and windows have slid on
        add(db, topic, views.rows(rng, 50, views.NOW))
        produce(db, kafka, topic)
        db.flush("s")
        same(sliding=False)
        total = db.value("SELECT count(*) FROM o")
        for name in made:
            assert db.rows("SELECT accepted + late + rejected FROM streamext.continuous_views WHERE view = %s::regclass", name) == [(total,)]
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


def test_late_records_and_closed_windows(db: Database, kafka: Kafka, topic: str) -> None:
    """What was late stays late, a record that counts in some windows only goes on doing so, windows that are closed go to history again."""
    topic_stream(db, kafka, topic, COLUMNS, "watermark_delay '5 s', idle_timeout '1 hour'")
    continuous(db, "v", "SELECT streamext.hop('20 s', '10 s', ts) AS w, count(*) AS n, sum(n) AS s FROM s GROUP BY w")
    before = "SELECT extract(epoch FROM w - '2024-05-01 11:00Z')::int, n, s FROM v ORDER BY 1"
    put(db, kafka, topic, (0, "a", 12), (1, "a", 40), (0, "a", 36))
    db.flush("s")  # the watermark is 31 s
    db.execute("SELECT streamext.export('v', 'postgres')")
    put(db, kafka, topic, (0, "a", 25), (0, "a", 15), (0, "a", 3), (1, "a", 44))
    engine = Engine(db, topic=topic)
    engine.batch({0: 5, 1: 2}, raw=True)
    engine.connection.close()
    content = [(0, 1, 12), (10, 1, 12), (20, 2, 61), (30, 3, 120), (40, 2, 84)]
    assert db.rows(before) == content and db.rows(EXPORTED) == [(7, 5, 2, 0)]
    forget(kafka, topic)
    db.execute("SELECT streamext.import('v')")
    assert db.rows(before) == content
    put(db, kafka, topic, (0, "a", 26), (0, "a", 2), (0, "a", 47), (1, "a", 52))
    db.flush("s")
    # 26 s counts in the window of 20 s alone, whose second row that is late for another; 2 s counts in none
    assert db.rows(before) == [(0, 1, 12), (10, 1, 12), (20, 3, 87), (30, 4, 167), (40, 4, 183), (50, 1, 52)]
    assert db.rows(COUNTS) == [(8, 3, 0)]
    put(db, kafka, topic, (0, "a", 90), (1, "a", 90))
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history WHERE view = 'v'::regclass") > 0, what="windows to be sealed")
    assert db.rows(before)[:3] == [(0, 1, 12), (10, 1, 12), (20, 3, 87)]
    # and once more
    db.execute("SELECT streamext.export('v', 'postgres'); SELECT streamext.import('v')")
    assert db.rows(before)[:3] == [(0, 1, 12), (10, 1, 12), (20, 3, 87)]


def test_killed_while_it_is_taken_back(database: Database, kafka: Kafka, topic: str) -> None:
    """Before the commit it is exported, whole; after it it is continuous, whole, be the worker killed before its first checkpoint or not."""
    db = database
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, count(*) AS c, sum(n::numeric) AS s, max(k) AS m FROM s GROUP BY k")
    put(db, kafka, topic, (0, "a", 1), (0, "a", 2), (1, "b", 3))
    db.flush("s")
    db.execute("SELECT streamext.export('v', 'postgres')")
    content = [("a", 2, 3, "a"), ("b", 1, 3, "b")]
    forget(kafka, topic)
    for step in (1, 2, 3):
        db.configure("streamext.fault_point", f"kill import {step}")
        db = killed(db, "SELECT streamext.import('v')")
        assert sorted(db.rows("TABLE v")) == content and db.rows("SELECT view::text FROM streamext.exports") == [("v",)]
    db.configure("streamext.checkpoint_interval", "0")  # none
    db.execute("SELECT streamext.import('v')")
    db.flush("s")
    kill_all(db.server)
    db.server.start()
    db = Database(db.server, db.name)
    db.configure("streamext.checkpoint_interval", "50")
    assert sorted(db.rows("TABLE v")) == content
    put(db, kafka, topic, (0, "a", 4))
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [("a", 3, 7, "a"), ("b", 1, 3, "b")]
    kill_all(db.server)
    db.server.start()
    db = Database(db.server, db.name)
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [("a", 3, 7, "a"), ("b", 1, 3, "b")]


def test_a_standby_has_it(database: Database, kafka: Kafka, topic: str) -> None:
    """What the view begins with is the standby's too, and a promoted one goes on from there though no checkpoint has it."""
    db = database
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, count(*) AS c, sum(n) AS s FROM s GROUP BY k")
    put(db, kafka, topic, (0, "a", 1), (1, "b", 3))
    db.flush("s")
    db.configure("streamext.checkpoint_interval", "0")  # none
    db.execute("SELECT streamext.export('v', 'postgres')")
    put(db, kafka, topic, (0, "a", 4), (1, "c", 5))
    engine = Engine(db, topic=topic)
    engine.batch({0: 2, 1: 2})
    engine.connection.close()
    forget(kafka, topic)
    content = [("a", 2, 5), ("b", 1, 3), ("c", 1, 5)]
    with follow(db.server) as server:
        db.execute("SELECT streamext.import('v')")
        caught_up(db, server)
        standby = Database(server, db.name)
        assert sorted(standby.rows("TABLE v")) == content
        server.promote()
        db.execute("DROP VIEW v")  # so that one of them reads the topic
        standby.flush("s")
        assert sorted(standby.rows("TABLE v")) == content
        put(standby, kafka, topic, (0, "a", 6), (1, "c", 7))
        standby.flush("s")
        assert sorted(standby.rows("TABLE v")) == [("a", 3, 11), ("b", 1, 3), ("c", 2, 12)]
        standby.connection.close()
    db.configure("streamext.checkpoint_interval", "50")


def test_an_engine_merges_while_the_lock_is_waited_for(db: Database, kafka: Kafka, topic: str) -> None:
    """What it has merged then comes back as well: the topic has it no more."""
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, count(*) AS c, sum(n) AS s FROM s GROUP BY k")
    put(db, kafka, topic, (0, "a", 1), (1, "b", 3))
    db.flush("s")
    db.execute("SELECT streamext.export('v', 'postgres')")
    put(db, kafka, topic, (0, "a", 4), (1, "c", 5))
    forget(kafka, topic)
    engine = Engine(db, topic=topic)
    engine.connection.execute("BEGIN")
    engine.merge(engine.stage({0: 2, 1: 2}))
    other = db.connect("postgres", autocommit=True)
    pid = other.info.backend_pid
    importing = threading.Thread(target=lambda: other.execute("SELECT streamext.import('v')"))
    importing.start()
    wait_for(lambda: db.rows("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", pid) != [], what="import to wait for the merge")
    engine.connection.execute("COMMIT")
    importing.join()
    engine.connection.close()
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [("a", 2, 5), ("b", 1, 3), ("c", 1, 5)]


def test_forged_times_and_positions(db: Database, kafka: Kafka, topic: str) -> None:
    """Refused while the table is still there, which holds all that was counted."""
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, streamext.session('5 s', ts) AS w, count(*) AS c FROM s GROUP BY 1, 2")
    put(db, kafka, topic, (0, "a", 1), (1, "b", 3))
    db.flush("s")
    db.execute("SELECT streamext.export('v', 'postgres'); ALTER TABLE v_export ALTER at DROP NOT NULL, ALTER first DROP NOT NULL")
    for forged in ("at = NULL", "at = 'infinity'", "first = NULL", "first = '-infinity'", "last = 'infinity'", "first = last + interval '1 us'", "at = at + interval '1 day'"):
        with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="times that are of no record"), db.connection.transaction():
            db.execute(f"UPDATE v_export SET {forged}")
            db.execute("SELECT streamext.import('v')")
    engine = Engine(db, topic=topic)
    view, run, _, _, counts = engine.stage({})
    for topics, sqlstate in (({"other": {"0": 1}}, "55000"), ({topic: {str(p): 1 for p in range(2, 1100)}}, "54000")):
        with engine.connection.transaction(force_rollback=True):
            engine.connection.execute("SELECT streamext.export_merge(%s, %s, %s, '{}', %s)", (view, run, json.dumps(topics), counts))
            assert refused(engine.connection, "SELECT streamext.import('v')")[0] == sqlstate
    engine.connection.close()
    db.execute("ALTER FOREIGN TABLE s OPTIONS (SET topic 'other')")
    assert refused(db.connection, "SELECT streamext.import('v')")[0] == "55000"
    db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET topic '{topic}')")
    db.execute("SELECT streamext.import('v')")
    assert sorted(db.rows("SELECT k, c FROM v")) == [("a", 1), ("b", 1)]


@pytest.mark.parametrize("was, now", [(2, 1), (1, 3)])
def test_other_workers_meanwhile(db: Database, kafka: Kafka, topic: str, was: int, now: int) -> None:
    topic_stream(db, kafka, topic, COLUMNS, f"watermark_delay '1 day', workers '{was}'")
    continuous(db, "v", "SELECT k, count(*) AS c FROM s GROUP BY k")
    told: list[tuple[str, str, str]] = []
    db.connection.add_notice_handler(lambda notice: told.append((str(notice.message_primary), str(notice.message_detail), str(notice.message_hint))))
    put(db, kafka, topic, (0, "a", 1), (1, "b", 3))
    db.flush("s")
    db.execute("SELECT streamext.export('v', 'postgres')")
    forget(kafka, topic)
    db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET workers '{now}')")
    db.execute("SELECT streamext.import('v')")
    put(db, kafka, topic, (0, "a", 4), (1, "c", 5))
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [("a", 2), ("b", 1), ("c", 1)]
    assert told == []
    with db.connection.transaction(force_rollback=True):
        db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET workers '{now}')")  # the same
        assert told == []
        db.execute("ALTER FOREIGN TABLE s OPTIONS (SET workers '5')")
    [(message, detail, hint)] = told
    assert message == 'continuous views are counted anew, because stream "s" has another number of workers' and detail == "From the stream's start on: v."
    assert "streamext.export(view, 'postgres')" in hint  # as this test has done
    assert sorted(db.rows("TABLE v")) == [("a", 2), ("b", 1), ("c", 1)]


def test_what_cannot_be_taken_back(db: Database, kafka: Kafka, topic: str) -> None:
    """Without its table the view is counted anew, and says so, whatever was counted of it before; what is of no state is refused."""
    topic_stream(db, kafka, topic, COLUMNS)
    continuous(db, "v", "SELECT k, avg(n) AS a, count(n) AS c FROM s GROUP BY k")
    put(db, kafka, topic, (0, "a", 1), (0, "a", 2), (1, "b", 3))
    db.flush("s")
    db.execute("SELECT streamext.export('v', 'postgres')")
    db.execute("INSERT INTO v_export SELECT * FROM v_export WHERE k1 = 'a'")
    sqlstate, message, hint = refused(db.connection, "SELECT streamext.import('v')")
    assert sqlstate == "21000" and "several rows of one group" in message and "CREATE OR REPLACE VIEW" in hint and "anew" in hint
    db.execute("DELETE FROM v_export WHERE k1 = 'a'; UPDATE v_export SET p2 = -1")
    sqlstate, _, hint = refused(db.connection, "SELECT streamext.import('v')")
    assert sqlstate == "22003" and "anew" in hint
    # What the hints say.
    db.execute("CREATE OR REPLACE VIEW v AS SELECT NULL::text AS k, NULL::numeric AS a, NULL::bigint AS c; ALTER TABLE v_export ALTER k1 TYPE bigint USING 1")
    assert refused(db.connection, "SELECT streamext.import('v')")[0] == "42804"
    db.execute("DROP TABLE v_export")
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    db.execute("SELECT streamext.import('v')")
    assert any("counted anew" in notice for notice in notices)
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [("a", 1.5, 2), ("b", 3, 1)]
