"""The watermark is taken over all partitions and workers: none that has nothing holds it back, and none that has something is passed over."""

import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.streams import continuous, counts, kafka_stream, mqtt_stream
from harness.wait import wait_for

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
NOW = START + timedelta(hours=1)
VIEW = "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w"


@pytest.fixture
def clock(db: Database) -> Iterator[Database]:
    set_clock(db, 0)
    yield db
    db.execute("SELECT streamext.set_clock(NULL)")


def set_clock(db: Database, seconds: float) -> None:
    """So many seconds after NOW."""
    db.execute("SELECT streamext.set_clock(%s)", NOW + timedelta(seconds=seconds))


def row(at: float) -> str:
    return json.dumps({"ts": str(START + timedelta(seconds=at))})


def stream(db: Database, kafka: Kafka, topic: str, partitions: int, options: str) -> None:
    kafka.create_topic(topic, partitions)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', {options}", "ts timestamptz")


def views(db: Database) -> None:
    """v, and w that writes its windows into the table t."""
    continuous(db, "v", VIEW)
    db.execute("CREATE TABLE t (w timestamptz, n bigint)")
    continuous(db, "w", VIEW, ", streamext.into = 't'")
    db.flush("s")


def produce(kafka: Kafka, topic: str, rows: Iterable[tuple[int, float]]) -> None:
    """Partition and second."""
    kafka.produce(topic, [Message(row(at), partition) for partition, at in rows])


def watermark(db: Database) -> float | None:
    at = db.value("SELECT watermark FROM streamext.streams")
    return None if at is None else (at - START).total_seconds()


def sealed_until(db: Database) -> float | None:
    at = db.value("SELECT sealed_until FROM streamext.continuous_views WHERE view = 'v'::regclass")
    return None if at is None else (at - START).total_seconds()


def assert_written(db: Database, until: float) -> None:
    """The windows up to there come into the table, and are as the view has them."""
    end = START + timedelta(seconds=until)
    wait_for(lambda: db.value("SELECT max(w) + interval '10 s' FROM t") == end, what=f"windows up to {until} in the table")
    db.assert_same("TABLE t", f"SELECT * FROM v WHERE w < '{end}'")


@contextmanager
def stopped(db: Database, shard: int = 0) -> Iterator[None]:
    """The shard's worker does not run meanwhile."""
    pid = db.value("SELECT pid FROM streamext.workers WHERE stream = 's'::regclass AND shard = %s", shard)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_silent_partition(clock: Database, kafka: Kafka, topic: str, workers: int) -> None:
    """It holds nothing back once it is idle, whichever worker has it, and what it brings then is late by what the others have reached."""
    db = clock
    stream(db, kafka, topic, 2, f"idle_timeout '20 s', workers '{workers}'")
    views(db)
    produce(kafka, topic, [(0, 5), (0, 100)])
    db.flush("s")
    assert watermark(db) is None
    set_clock(db, 19)
    produce(kafka, topic, [(0, 121)])
    db.flush("s")
    assert watermark(db) is None and counts(db, "v") == (3, 0, 0)
    set_clock(db, 20)
    wait_for(lambda: watermark(db) == 121, what="the watermark")
    assert_written(db, 110)
    wait_for(lambda: sealed_until(db) == 110, what="sealed windows")
    produce(kafka, topic, [(1, 7), (1, 122), (0, 133)])
    db.flush("s")
    assert counts(db, "v") == (5, 1, 0)
    wait_for(lambda: watermark(db) == 122, what="the watermark of both")
    produce(kafka, topic, [(1, 140)])
    assert_written(db, 130)
    wait_for(lambda: sealed_until(db) == 130, what="sealed windows of both")


def test_workers_without_a_partition(db: Database, kafka: Kafka, topic: str) -> None:
    stream(db, kafka, topic, 1, "workers '3'")
    views(db)
    produce(kafka, topic, [(0, 5), (0, 100)])
    db.flush("s")
    wait_for(lambda: watermark(db) == 100, what="the watermark")
    assert_written(db, 10)
    wait_for(lambda: sealed_until(db) == 10, what="sealed windows")


@pytest.mark.parametrize("workers", [1, 2])
def test_partitions_that_fall_silent_one_after_the_other(clock: Database, kafka: Kafka, topic: str, workers: int) -> None:
    """The last one's watermark stays, with several workers too."""
    db = clock
    stream(db, kafka, topic, 2, f"idle_timeout '20 s', workers '{workers}'")
    views(db)
    produce(kafka, topic, [(1, 5)])
    db.flush("s")
    set_clock(db, 15)
    produce(kafka, topic, [(0, 100)])
    db.flush("s")
    set_clock(db, 25)
    wait_for(lambda: watermark(db) == 100, what="the watermark")
    set_clock(db, 3600)
    db.flush("s")
    assert watermark(db) == 100
    assert_written(db, 10)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", ["held up", "paused", "restarted"])
def test_nothing_that_waited_is_late(clock: Database, kafka: Kafka, topic: str, how: str, workers: int) -> None:
    """What came into both partitions while nobody read them, and for longer than idle_timeout, is in order in each."""
    db = clock
    stream(db, kafka, topic, 2, f"idle_timeout '1 s', workers '{workers}'")
    views(db)
    produce(kafka, topic, [(0, 0), (1, 0)])
    db.flush("s")
    rows = [(i % 2, i / 100) for i in range(60_000)]
    if how == "held up":
        with stopped(db):
            produce(kafka, topic, rows)
            set_clock(db, 60)
    else:
        db.execute("SELECT streamext.pause('s')")
        produce(kafka, topic, rows)
        set_clock(db, 60)
        if how == "restarted":
            db.execute("SELECT pg_terminate_backend(pid, 5000) FROM streamext.workers WHERE stream = 's'::regclass")
        db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert counts(db, "v") == (60_002, 0, 0)


def test_an_idle_partition_gets_records_while_the_worker_is_held_up(clock: Database, kafka: Kafka, topic: str) -> None:
    """It is idle no more from the moment that they are there, whichever of the partitions is read first."""
    db = clock
    stream(db, kafka, topic, 2, "idle_timeout '1 s'")
    views(db)
    produce(kafka, topic, [(0, 0), (1, 0)])
    db.flush("s")
    for i in range(6):
        set_clock(db, 10 * i + 10)
        produce(kafka, topic, [(i % 2, 100 * i)])
        db.flush("s")
        set_clock(db, 10 * i + 10.5)
        wait_for(lambda at=100 * i: watermark(db) == at, what="the watermark past the idle partition")
        with stopped(db):
            produce(kafka, topic, [(p, 100 * i + j / 300) for p in (0, 1) for j in range(30_000)])
            set_clock(db, 10 * i + 13)
        db.flush("s")
    assert counts(db, "v") == (360_008, 0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_catch_up_at_different_speeds(db: Database, kafka: Kafka, topic: str, workers: int) -> None:
    """One partition is read whole before the other begins, by the stream and by a view that is made later."""
    kafka.create_topic(topic, 2)
    produce(kafka, topic, [(0, i / 100) for i in range(60_000)])
    produce(kafka, topic, [(1, i / 100) for i in range(60_000)])
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', idle_timeout '1 ms', workers '{workers}'", "ts timestamptz")
    continuous(db, "v", VIEW)
    db.flush("s")
    assert counts(db, "v") == (120_000, 0, 0)
    continuous(db, "later", VIEW)
    db.flush("s")
    assert counts(db, "later") == (120_000, 0, 0)
    db.assert_same("TABLE later", "TABLE v")


def test_a_worker_that_is_not_there_holds_the_watermark(clock: Database, kafka: Kafka, topic: str) -> None:
    """Its partition has records that wait; windows are written when it has read them."""
    db = clock
    stream(db, kafka, topic, 2, "idle_timeout '1 s', workers '2'")
    views(db)
    produce(kafka, topic, [(0, 0), (1, 0)])
    db.flush("s")
    with stopped(db, 1):
        produce(kafka, topic, [(0, 100), (1, 50), (1, 100), (0, 111)])
        set_clock(db, 60)
        wait_for(lambda: db.value("SELECT sum(n) FROM v") == 4, what="the records of the other worker")
        wait_for(lambda: not db.value("SELECT checkpoint_pending FROM streamext.workers WHERE shard = 0"), what="its checkpoint")
        assert watermark(db) == 0 and db.rows("TABLE t") == []
    db.flush("s")
    assert counts(db, "v") == (6, 0, 0)
    assert_written(db, 60)


def test_calendar_windows_that_one_worker_has_sealed(db: Database, kafka: Kafka, topic: str) -> None:
    """The catalogue compares how far its workers are; the other one has much to seal."""
    kafka.create_topic(topic, 2)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', workers '2'", "ts timestamptz, o bigint OPTIONS (metadata 'offset')")
    continuous(db, "v", "SELECT o, date_trunc('minute', ts) AS w, count(*) AS n FROM s GROUP BY o, w")
    produce(kafka, topic, [(0, 0)] + [(1, 60 * (i % 3)) for i in range(30_000)])
    db.flush("s")
    produce(kafka, topic, [(0, 200), (1, 200)])
    wait_for(lambda: sealed_until(db) == 180, what="sealed windows")


def test_mqtt_workers_with_little_to_do(clock: Database, mosquitto: Mosquitto, topic: str) -> None:
    """The broker gives some of them nothing."""
    db = clock
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', event_time 'ts', idle_timeout '20 s', workers '4'", "ts timestamptz")
    views(db)
    mosquitto.publish([(f"{topic}/x", row(5))])
    db.flush("s")
    assert watermark(db) is None
    set_clock(db, 19)
    mosquitto.publish([(f"{topic}/x", row(100))])
    db.flush("s")
    set_clock(db, 20)
    wait_for(lambda: watermark(db) == 100, what="the watermark")
    assert_written(db, 10)
