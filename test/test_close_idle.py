"""close_idle: when the whole source is silent the clock closes the last windows."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous, counts, kafka_stream, local_stream
from harness.wait import wait_for

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
TUMBLE = "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w"
HOP = "SELECT streamext.hop('30 s', '10 s', ts) AS w, count(*) AS n FROM s GROUP BY w"
SESSION = "SELECT streamext.session('20 s', ts) AS w, count(*) AS n FROM s GROUP BY w"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def set_clock(db: Database, seconds: float) -> None:
    db.execute("SELECT streamext.set_clock(%s)", at(seconds))


def watermark(db: Database) -> float | None:
    moment = db.value("SELECT watermark FROM streamext.streams")
    return None if moment is None else (moment - START).total_seconds()


@pytest.fixture
def clock(db: Database) -> Iterator[Database]:
    set_clock(db, 0)
    yield db
    db.execute("SELECT streamext.set_clock(NULL)")


def views(db: Database) -> None:
    for name, query, kind in (("tumbled", TUMBLE, "timestamptz"), ("hopped", HOP, "timestamptz"), ("sessions", SESSION, "timestamptz")):
        db.execute(f"CREATE TABLE {name}_t (w {kind}, n bigint)")
        continuous(db, name, query, f", streamext.into = '{name}_t'")


def delivered(db: Database, name: str) -> bool:
    return db.value(f"SELECT count(*) FROM (TABLE {name} EXCEPT ALL TABLE {name}_t) d") == 0 and db.value(f"SELECT count(*) FROM {name}_t") > 0


def test_the_last_windows_are_delivered(clock: Database) -> None:
    db = clock
    local_stream(db, "event_time 'ts', watermark_delay '2 s', close_idle '30 s'", "i int, ts timestamptz")
    views(db)
    set_clock(db, 6)
    db.execute("INSERT INTO s VALUES (1, %s), (2, %s)", at(1), at(5))
    db.flush("s")
    assert watermark(db) == 3
    set_clock(db, 35.9)
    db.flush("s")
    assert watermark(db) == 3 and db.value("SELECT count(*) FROM tumbled_t") == 0
    set_clock(db, 36)
    wait_for(lambda: watermark(db) == 34, what="the watermark")
    wait_for(lambda: delivered(db, "tumbled"), what="tumbling windows")
    set_clock(db, 300)
    for name in ("hopped", "sessions"):
        wait_for(lambda name=name: delivered(db, name), what=name)
    # nothing is left to be closed
    reached = watermark(db)
    set_clock(db, 400)
    db.flush("s")
    assert watermark(db) == reached
    db.execute("INSERT INTO s VALUES (3, %s), (4, %s)", at(2), at(401))
    db.flush("s")
    assert counts(db, "tumbled") == (3, 1, 0)
    set_clock(db, 440)
    wait_for(lambda: delivered(db, "tumbled") and db.value("SELECT count(*) FROM tumbled_t") == 2, what="the window after the silence")


def test_without_the_option_they_stay_open(clock: Database) -> None:
    db = clock
    local_stream(db, "event_time 'ts'", "i int, ts timestamptz")
    continuous(db, "tumbled", TUMBLE)
    db.execute("INSERT INTO s VALUES (1, %s)", at(1))
    db.flush("s")
    set_clock(db, 1000)
    db.flush("s")
    assert watermark(db) == 1
    db.execute("ALTER FOREIGN TABLE s OPTIONS (ADD close_idle '5 s')")
    # as soon as the worker knows the option, whatever the clock says by then
    clock_times = itertools.count(1010, 10)
    wait_for(lambda: set_clock(db, next(clock_times)) or watermark(db) >= 1000, what="the watermark")


@pytest.mark.parametrize("workers", [1, 2])
def test_all_partitions_must_be_silent(clock: Database, kafka: Kafka, topic: str, workers: int) -> None:
    db = clock
    kafka.create_topic(topic, partitions=2)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', close_idle '20 s', workers '{workers}'", "ts timestamptz")
    views(db)

    def produce(*rows: tuple[int, float]) -> None:
        kafka.produce(topic, [Message(f'{{"ts": "{at(second)}"}}'.encode(), partition) for partition, second in rows])
        db.flush("s")

    produce((0, 1), (1, 3))
    set_clock(db, 15)
    produce((1, 15))
    set_clock(db, 25)
    produce()
    assert watermark(db) == 1
    set_clock(db, 35)
    wait_for(lambda: watermark(db) == 35, what="the watermark")
    set_clock(db, 300)
    for name in ("tumbled", "hopped", "sessions"):
        wait_for(lambda name=name: delivered(db, name), what=name)


def test_by_the_real_clock(db: Database) -> None:
    local_stream(db, "event_time 'ts', close_idle '100 ms'", "i int, ts timestamptz")
    db.execute("CREATE TABLE tumbled_t (w timestamptz, n bigint)")
    continuous(db, "tumbled", TUMBLE.replace("10 s", "1 s"), ", streamext.into = 'tumbled_t'")
    db.execute("INSERT INTO s VALUES (1, now())")
    wait_for(lambda: delivered(db, "tumbled"), what="the window")


def test_the_option_is_checked(db: Database) -> None:
    with pytest.raises(psycopg.Error) as error:
        local_stream(db, "close_idle '0'")
    assert "close_idle" in str(error.value)
