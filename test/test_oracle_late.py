"""As test_oracle.py: rows that come too late for some of their windows, by a model of the rule; a crash in the middle; two workers.

STREAMEXT_ORACLE_SEED repeats a run, STREAMEXT_ORACLE_VIEWS sets how many definitions test_oracle.py has; here an eighth.
STREAMEXT_ORACLE_CRASH sets how many there are over a crash in the middle on one worker, and as many on two (40 on two otherwise)."""

import os
import random
import re
import time
from datetime import datetime, timedelta

import pytest
from harness import views
from harness.database import Database
from harness.faults import reconnect
from harness.kafka import Kafka, Message
from harness.streams import kafka_stream, worker_pid
from harness.wait import wait_for

SEED = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
VIEWS_A_ROUND = 40
ROUNDS = max(1, int(os.environ.get("STREAMEXT_ORACLE_VIEWS", "320")) // 8 // VIEWS_A_ROUND)
CRASH = int(os.environ.get("STREAMEXT_ORACLE_CRASH", "0"))
CRASHES = [(workers, round_) for workers in (1, 2) for round_ in range(CRASH // VIEWS_A_ROUND)] or [(2, round_) for round_ in range(ROUNDS)]
DELAY = timedelta(seconds=20)
LATENESS = ["0", "0", "15 s", "2 min"]
KINDS = ("none", "tumble", "bin", "trunc", "hop", "session")  # now() is another after a crash

WINDOW = re.compile(r"(streamext\.tumble\('(\d+ s)', ts\)|streamext\.hop\('(\d+ s)', '\d+ s', ts\)|date_bin\('(\d+ s)', ts, [^)]*\)|date_trunc\('(\w+)', ts\)) AS w")

SETTINGS = {"streamext.checkpoint_interval": 200}
TIMEZONE = "UTC"


def definitions(rng: random.Random, extra: list[str], count: int, nested: bool = False) -> list[views.Definition]:
    result: list[views.Definition] = []
    while len(result) < count:
        definition = views.definition(rng, extra, nested)
        # a view with UNION ALL has a worker for each part: more than a few, and the server has no more places
        many = "both_" in definition.text and sum("both_" in other.text for other in result) >= 3
        if definition.window in KINDS and not many:
            result.append(definition)
    return result


def in_time(definition: views.Definition, lateness: str) -> str:
    """The query over the rows of o that are not late: o.wm is the watermark when the row came."""
    if definition.window == "none":
        return definition.query("o", views.NOW)
    if definition.window == "session":
        gap = re.search(r"streamext\.session\(('.*?'), ts\)", definition.text)
        assert gap is not None
        return definition.query(f"(SELECT * FROM o WHERE wm < ts + interval {gap[1]} + interval '{lateness}') AS o", views.NOW)
    match = WINDOW.search(definition.text)
    assert match is not None, definition.text
    size = next((group for group in match.groups()[1:4] if group), f"1 {match[5]}")
    source = f"(SELECT * FROM (SELECT *, {match[1]} AS w_ FROM o) AS q WHERE wm < w_ + interval '{size}' + interval '{lateness}') AS o"
    return definition.text.replace(match[1], "w_").format(source=source, now="now()")


def crash(db: Database) -> None:
    """Of all processes, once a checkpoint that is on disk holds all that is counted: which rows are late depends on how they come together
    in batches, so what is read again may be judged otherwise."""
    wait_for(lambda: not db.value("SELECT bool_or(checkpoint_pending) FROM streamext.workers"), what="a checkpoint")
    db.execute("CREATE TABLE synced (); DROP TABLE synced")
    db.server.kill_backend(worker_pid(db))
    reconnect(db)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_rows_that_come_too_late(database: Database, round_: int) -> None:
    db = database
    rng = random.Random(SEED + round_)
    print(f"seed {SEED + round_}")
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    db.execute(f"CREATE FOREIGN TABLE s ({views.COLUMN_LIST}) SERVER here OPTIONS (event_time 'ts', watermark_delay '{DELAY.seconds} s')")
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST}, wm timestamptz)")
    db.execute(views.SETUP)
    db.execute("CREATE VIEW derived WITH (streamext.continuous) AS SELECT k, i4::bigint * 2 AS twice, ts FROM s WHERE i2 IS DISTINCT FROM 1")
    db.execute("CREATE VIEW over_derived WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(twice) AS total FROM derived GROUP BY k")
    chosen = [(definition, rng.choice(LATENESS)) for definition in definitions(rng, [*views.GENERAL, *views.MORE], VIEWS_A_ROUND)]
    for i, (definition, lateness) in enumerate(chosen):
        db.execute(f"CREATE VIEW v{i} WITH (streamext.continuous, streamext.lateness = '{lateness}') AS {definition.view('s')}")
    watermark: datetime | None = None
    for step in range(8):
        values = views.rows(rng, 60, views.NOW - timedelta(minutes=12 - step), timedelta(minutes=3))
        wm = f"'{watermark.isoformat()}'" if watermark else "'-infinity'"
        db.execute(f"INSERT INTO o VALUES {', '.join(f'{row[:-1]}, {wm})' for row in values)}")
        db.execute(f"INSERT INTO s VALUES {', '.join(values)}")
        db.flush("s")
        watermark = db.value("SELECT max(ts) FROM o") - DELAY
        if step == 4:
            crash(db)
            db.flush("s")
        if step in (4, 7):
            for i, (definition, lateness) in enumerate(chosen):
                db.assert_same(f"TABLE v{i}", in_time(definition, lateness))
            db.assert_same("TABLE over_derived", "SELECT k, count(*), sum(i4::bigint * 2) FROM o WHERE i2 IS DISTINCT FROM 1 GROUP BY k")
    for row in db.rows("SELECT view, accepted + late, rejected FROM streamext.continuous_views"):
        assert row[1:] == (480, 0), row
    assert db.value("SELECT sum(late) FROM streamext.continuous_views") > 0
    # what is shown of a derived stream after a crash is what came since
    db.assert_same("TABLE derived", f"SELECT k, i4::bigint * 2, ts FROM o WHERE i2 IS DISTINCT FROM 1 AND wm >= (SELECT wm FROM (SELECT DISTINCT wm FROM o ORDER BY wm DESC LIMIT 3) q ORDER BY wm LIMIT 1)")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("workers", "round_"), CRASHES)
def test_a_crash_in_the_middle(database: Database, kafka: Kafka, topic: str, workers: int, round_: int) -> None:
    db = database
    seed = SEED + 1000 * workers + round_
    rng = random.Random(seed)
    print(f"seed {seed}")
    kafka.create_topic(topic, 4)
    kafka_stream(db, kafka, f"topic '{topic}', workers '{workers}', event_time 'ts', watermark_delay '1 day'", views.COLUMN_LIST)
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    for statement in [views.SETUP, *views.setup_nested("s", True), *views.setup_nested("o", False), views.SETUP_NESTED]:
        db.execute(statement)
    chosen = definitions(rng, [*views.GENERAL, *views.MORE], VIEWS_A_ROUND, nested=True)
    for i, definition in enumerate(chosen):
        db.execute(f"CREATE VIEW v{i} WITH (streamext.continuous) AS {definition.view('s')}")
    for step in range(3):
        values = ", ".join(views.rows(rng, 300, views.NOW))
        payloads = db.rows(f"WITH i AS (INSERT INTO o VALUES {values} RETURNING *) SELECT row_to_json(i)::text FROM i")
        kafka.produce(topic, [Message(payload, i % 4) for i, (payload,) in enumerate(payloads)])
        if step == 1:
            db.server.kill_backend(worker_pid(db))
            reconnect(db)
        db.flush("s")
        for i, definition in enumerate(chosen):
            db.assert_same(f"TABLE v{i}", definition.query("o", views.NOW))
    twice = {f"v{i}" for i, definition in enumerate(chosen) if "both_" in definition.text}
    for row in db.rows("SELECT view::text, accepted, late, rejected FROM streamext.continuous_views"):
        assert row[1:] == (1800 if row[0] in twice else 900, 0, 0), row
