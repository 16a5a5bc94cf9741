"""Late rows: decided once for a row and view, counted, kept if wanted; what moves the watermark and what does not."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous, counts, kafka_stream, local_stream
from harness.wait import wait_for

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
NOW = START + timedelta(hours=1)

# A view's window, and the second from which on the watermark makes a row at a second late (None: never).
WINDOWS = {
    "tumble": ("streamext.tumble('10 s', ts)", lambda at: at // 10 * 10 + 10),
    "bin": ("date_bin('15 s', ts, '2024-01-01 00:00:07+00')", lambda at: (at - 7) // 15 * 15 + 22),
    "trunc": ("date_trunc('minute', ts)", lambda at: at // 60 * 60 + 60),
    "hop": ("streamext.hop('60 s', '25 s', ts)", lambda at: at // 5 * 5 + 5),
    "gaps": ("streamext.hop('5 s', '20 s', ts)", lambda at: at // 5 * 5 + 5),
    "session": ("streamext.session('10 s', ts)", lambda at: at + 10),
    "none": ("", None),
}  # fmt: skip


@pytest.fixture
def clock(db: Database) -> Iterator[Database]:
    db.execute("SELECT streamext.set_clock(%s)", NOW)
    yield db
    db.execute("SELECT streamext.set_clock(NULL)")


def view(window: str) -> str:
    return f"SELECT i % 3 AS k, {window and window + ' AS w,'} count(*) AS n, sum(6 / (i % 7)) AS total FROM s WHERE i % 5 > 0 GROUP BY k{window and ', w'}"


@pytest.mark.parametrize("lateness", [0, 7])
def test_late_is_decided_once(clock: Database, lateness: int) -> None:
    """Against a model: batches of rows, each decided by the watermark before it."""
    db, rng = clock, random.Random(lateness)
    local_stream(db, "event_time 'ts', watermark_delay '3 s'", "i int, ts timestamptz")
    for name, (window, _) in WINDOWS.items():
        continuous(db, name, view(window), f", streamext.keep_late, streamext.lateness = '{lateness} s'")
    db.execute("CREATE TABLE o (i int, ts timestamptz, late text[])")
    late: dict[str, set[int]] = {name: set() for name in WINDOWS}
    watermark, newest, i = None, 0.0, 0
    for _ in range(30):
        newest += rng.choice([0, 1, 10, 30])
        batch = []
        for _ in range(40):
            i += 1
            at = max(0.0, newest - rng.choice([0, 0, 1, 5, 10, 11, 20, 60]) - rng.choice([0, 0, 0.25, 0.5]))
            batch.append((i, at))
            for name, (_, end) in WINDOWS.items():
                if end is not None and watermark is not None and watermark >= end(at) + lateness:
                    late[name].add(i)
        watermark = max(watermark or -1e9, max(at for _, at in batch) - 3)
        values = ", ".join(f"({i}, '{START + timedelta(seconds=at)}')" for i, at in batch)
        db.execute(f"INSERT INTO s VALUES {values}, (0, NULL)")
        db.flush("s")
        lists = {i: "{" + ",".join(name for name in WINDOWS if i in late[name]) + "}" for i, _ in batch}
        db.execute("INSERT INTO o VALUES " + ", ".join(f"({i}, '{START + timedelta(seconds=at)}', '{lists[i]}')" for i, at in batch))
    kept = db.rows("SELECT view::text, (convert_from(payload, 'UTF8')::json->>'i')::int, event_time FROM streamext.late_rows")
    times = dict(db.rows("SELECT i, ts FROM o"))
    for name, (window, _) in WINDOWS.items():
        divided_by_zero = db.value(f"SELECT count(*) FROM o WHERE i % 7 = 0 AND i % 5 > 0 AND '{name}' <> ALL (late)")
        assert counts(db, name) == (i - len(late[name]) - divided_by_zero, len(late[name]), divided_by_zero + 30)
        assert sum(counts(db, name)) == db.value("SELECT rows_in FROM streamext.streams") == i + 30
        assert {number for view, number, _ in kept if view == name} == late[name]
        if "session" not in window:
            accepted = f"(SELECT * FROM o WHERE '{name}' <> ALL (late) AND i % 7 <> 0) s"
            db.assert_same(f'TABLE "{name}"', view(window).replace("FROM s", f"FROM {accepted}"))
    assert all(event_time == times[number] for _, number, event_time in kept)
    assert len(kept) == sum(map(len, late.values())) and all(late[name] for name in WINDOWS if name != "none")


def test_late_rows_of_kafka(db: Database, kafka: Kafka, topic: str) -> None:
    """With position and bytes; the option can be set and reset; rights are the stream's."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "ts timestamptz, a int")
    continuous(db, "v", "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.keep_late")
    continuous(db, "silent", "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")

    def produce(*seconds: int) -> list[bytes]:
        payloads = [json.dumps({"ts": str(START + timedelta(seconds=at)), "a": at}).encode() for at in seconds]
        kafka.produce(topic, payloads)
        db.flush("s")
        return payloads

    produce(100)
    payloads = produce(9, 95, 89)
    kept = db.rows("SELECT stream::text, view::text, topic, partition, position, event_time, payload FROM streamext.late_rows ORDER BY id")
    assert kept == [
        ("s", "v", topic, 0, 1, START + timedelta(seconds=9), payloads[0]),
        ("s", "v", topic, 0, 2, START + timedelta(seconds=95), payloads[1]),
        ("s", "v", topic, 0, 3, START + timedelta(seconds=89), payloads[2]),
    ]
    assert counts(db, "v") == counts(db, "silent") == (1, 3, 0)
    assert db.rows("SELECT options FROM streamext.continuous_views WHERE view = 'v'::regclass") == [(["streamext.keep_late=true"],)]
    db.execute("ALTER VIEW v RESET (streamext.keep_late)")
    db.execute("ALTER VIEW silent SET (streamext.keep_late = true)")
    produce(1)
    assert db.rows("SELECT view::text, count(*) FROM streamext.late_rows GROUP BY 1 ORDER BY 1") == [("silent", 1), ("v", 3)]
    with pytest.raises(psycopg.errors.SyntaxError):
        db.execute("ALTER VIEW v SET (streamext.keep_late = 'sometimes')")

    db.execute("CREATE ROLE late_reader LOGIN")
    try:
        reader = db.connect("late_reader", autocommit=True)
        assert reader.execute("SELECT count(*) FROM streamext.late_rows").fetchone() == (0,)
        db.execute("GRANT SELECT ON s TO late_reader")
        assert reader.execute("SELECT count(*) FROM streamext.late_rows").fetchone() == (4,)
        reader.close()
    finally:
        db.execute("DROP OWNED BY late_reader")
        db.execute("DROP ROLE late_reader")


def test_late_rows_are_bounded(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "i int, ts timestamptz")
    continuous(db, "v", "SELECT streamext.session('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.keep_late")
    db.execute("INSERT INTO s VALUES (0, %s)", NOW)
    db.flush("s")
    db.execute("ALTER SYSTEM SET streamext.late_row_limit = 50")
    try:
        db.execute("SELECT pg_reload_conf()")

        def bounded() -> bool:
            db.execute("INSERT INTO s SELECT i, %s FROM generate_series(1, 10) i", START)
            db.flush("s")
            kept = db.value("SELECT count(*) FROM streamext.late_rows")
            late = counts(db, "v")[1]
            return late > 200 and kept <= 55

        wait_for(bounded)
        assert db.value("SELECT count(*) FROM streamext.late_rows") >= 50
    finally:
        db.execute("ALTER SYSTEM RESET streamext.late_row_limit")
        db.execute("SELECT pg_reload_conf()")


def test_an_idle_partition_holds_no_window_open(clock: Database, kafka: Kafka, topic: str) -> None:
    db = clock
    kafka.create_topic(topic, partitions=2)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', idle_timeout '20 s'", "ts timestamptz")
    continuous(db, "v", "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "sessions", "SELECT streamext.session('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")

    def produce(*rows: tuple[int, int]) -> None:
        kafka.produce(topic, [Message(json.dumps({"ts": str(START + timedelta(seconds=at))}), partition) for partition, at in rows])
        db.flush("s")

    def watermark() -> float:
        return (db.value("SELECT watermark FROM streamext.streams") - START).total_seconds()

    produce((0, 100), (1, 5))
    assert watermark() == 5
    produce((0, 120), (0, 7))
    assert counts(db, "v") == counts(db, "sessions") == (4, 0, 0)
    db.execute("SELECT streamext.set_clock(%s)", NOW + timedelta(seconds=19))
    produce((0, 121))
    assert watermark() == 5
    db.execute("SELECT streamext.set_clock(%s)", NOW + timedelta(seconds=20))
    wait_for(lambda: watermark() == 121)
    produce((0, 8))
    assert counts(db, "v") == counts(db, "sessions") == (5, 1, 0)
    # it is back, and late by what the others have reached; the watermark stays
    produce((1, 6), (1, 122))
    assert counts(db, "v") == counts(db, "sessions") == (6, 2, 0)
    assert watermark() >= 121
    # when all are idle it stays as well
    before = watermark()
    db.execute("SELECT streamext.set_clock(%s)", NOW + timedelta(hours=1))
    db.flush("s")
    assert watermark() == before


@pytest.mark.parametrize("ahead", [timedelta(hours=1, microseconds=1), timedelta(days=365 * 200000)])
def test_a_time_far_ahead_closes_nothing(clock: Database, ahead: timedelta) -> None:
    db = clock
    local_stream(db, "event_time 'ts'", "i int, ts timestamptz")
    for name, (window, _) in WINDOWS.items():
        continuous(db, name, view(window))
    far = f"timestamptz '{NOW}' + interval '{ahead.days} days {ahead.seconds} s {ahead.microseconds} us'"
    db.execute("INSERT INTO s VALUES (1, %s)", NOW)
    db.execute(f"INSERT INTO s VALUES (1, {far}), (2, 'infinity'), (3, '-infinity')")
    db.flush("s")
    assert db.value("SELECT watermark FROM streamext.streams") == NOW
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 3
    assert "max_ahead" in db.value("SELECT reason FROM streamext.dead_letters ORDER BY id LIMIT 1")
    db.execute("INSERT INTO s VALUES (4, %s), (6, %s)", NOW - timedelta(seconds=1), NOW + timedelta(hours=1))
    db.flush("s")
    assert db.value("SELECT watermark FROM streamext.streams") == NOW + timedelta(hours=1)
    for name in WINDOWS:
        accepted, late, rejected = counts(db, name)
        assert rejected == 3 and accepted + late == 3
    assert counts(db, "session") == counts(db, "none") == (3, 0, 3)
