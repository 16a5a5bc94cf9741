"""Late rows: decided once for each window of a row, counted, kept if wanted; what moves the watermark and what does not."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.postgres import FAST, IMMEDIATE
from harness.streams import continuous, counts, kafka_stream, local_stream
from harness.wait import wait_for

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
NOW = START + timedelta(hours=1)

# A view's window, and the second from which on the watermark makes a row at a second late (None: never): the end of the last window that holds it.
WINDOWS = {
    "tumble": ("streamext.tumble('10 s', ts)", lambda at: at // 10 * 10 + 10),
    "bin": ("date_bin('15 s', ts, '2024-01-01 00:00:07+00')", lambda at: (at - 7) // 15 * 15 + 22),
    "trunc": ("date_trunc('minute', ts)", lambda at: at // 60 * 60 + 60),
    "hop": ("streamext.hop('60 s', '25 s', ts)", lambda at: at // 25 * 25 + 60),
    "even": ("streamext.hop('30 s', '10 s', ts)", lambda at: at // 10 * 10 + 30),
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


def open_windows(query: str, hop: str, lateness: int) -> str:
    """The query with each row in those of its windows only that were open by its `watermark`, when it came."""
    size = hop.split("'")[1]
    is_open = f"(s.watermark IS NULL OR s.watermark < wo + interval '{size}' + interval '{lateness} s')"
    query = query.replace(hop, "wo").replace(" s WHERE ", f" s, LATERAL {hop} AS wo WHERE {is_open} AND ")
    assert "LATERAL" in query
    return query


@pytest.mark.parametrize("lateness", [0, 7])
def test_late_is_decided_once(clock: Database, lateness: int) -> None:
    """Against a model: batches of rows, each decided by the watermark before it."""
    db, rng = clock, random.Random(lateness)
    local_stream(db, "event_time 'ts', watermark_delay '3 s'", "i int, ts timestamptz")
    for name, (window, _) in WINDOWS.items():
        continuous(db, name, view(window), f", streamext.keep_late, streamext.lateness = '{lateness} s'")
    db.execute("CREATE TABLE o (i int, ts timestamptz, late text[], watermark timestamptz)")
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
        before = "NULL" if watermark is None else f"'{START + timedelta(seconds=watermark)}'"
        watermark = max(watermark or -1e9, max(at for _, at in batch) - 3)
        values = ", ".join(f"({i}, '{START + timedelta(seconds=at)}')" for i, at in batch)
        db.execute(f"INSERT INTO s VALUES {values}, (0, NULL)")
        db.flush("s")
        lists = {i: "{" + ",".join(name for name in WINDOWS if i in late[name]) + "}" for i, _ in batch}
        db.execute("INSERT INTO o VALUES " + ", ".join(f"({i}, '{START + timedelta(seconds=at)}', '{lists[i]}', {before})" for i, at in batch))
    kept = db.rows("SELECT view::text, (convert_from(payload, 'UTF8')::json->>'i')::int, event_time FROM streamext.late_rows")
    times = dict(db.rows("SELECT i, ts FROM o"))
    for name, (window, _) in WINDOWS.items():
        divided_by_zero = db.value(f"SELECT count(*) FROM o WHERE i % 7 = 0 AND i % 5 > 0 AND '{name}' <> ALL (late)")
        assert counts(db, name) == (i - len(late[name]) - divided_by_zero, len(late[name]), divided_by_zero + 30)
        assert sum(counts(db, name)) == db.value("SELECT rows_in FROM streamext.streams") == i + 30
        assert {number for view, number, _ in kept if view == name} == late[name]
        if "session" not in window:
            accepted = f"(SELECT * FROM o WHERE '{name}' <> ALL (late) AND i % 7 <> 0) s"
            expected = view(window).replace("FROM s", f"FROM {accepted}")
            if window.startswith("streamext.hop"):
                expected = open_windows(expected, window, lateness)
            db.assert_same(f'TABLE "{name}"', expected)
    assert all(event_time == times[number] for _, number, event_time in kept)
    assert len(kept) == sum(map(len, late.values())) and all(late[name] for name in WINDOWS if name != "none")


# Kept natively, by an aggregate's own functions and by values; by one key or two, or grouping sets, that are equal by bytes or not.
HOP_VIEWS = {
    "native": "SELECT k, {w} AS w, count(*) AS n, sum(i) AS total, max(i) AS most FROM {s} WHERE i % 5 > 0 GROUP BY k, w",
    "own": "SELECT k, d, {w} AS w, avg(d) AS mean, stddev(d) AS spread, bool_or(i % 7 = 0) AS any FROM {s} WHERE i % 5 > 0 GROUP BY k, d, w",
    "kept": "SELECT {w} AS w, array_agg(i ORDER BY i) AS all, count(DISTINCT k) AS ks FROM {s} WHERE i % 5 > 0 GROUP BY w",
    "sets": "SELECT k, d, {w} AS w, count(*) AS n, string_agg(k, '' ORDER BY k) AS t FROM {s} WHERE i % 5 > 0 GROUP BY w, GROUPING SETS ((k), (d), ())",
}


class Disorder:
    """Rows whose times go back beyond the watermark, into the stream s and the table o, which keeps the watermark by which each was decided."""

    def __init__(self, db: Database, rng: random.Random) -> None:
        self.db, self.rng = db, rng
        self.watermark: datetime | None = None
        self.newest, self.i = 0.0, 0
        db.execute("CREATE TABLE o (k text, d numeric, i int, ts timestamptz, watermark timestamptz)")

    def insert(self, count: int = 30) -> None:
        rng, rows = self.rng, []
        self.newest += rng.choice([0, 1, 5, 20, 45])
        for _ in range(count):
            self.i += 1
            at = START + timedelta(seconds=max(0.0, self.newest - rng.choice([0, 0, 1, 5, 11, 20, 35, 60, 90]) - rng.choice([0, 0.25])))
            rows.append((f"'k{self.i % 3}', {self.i % 4}{'.0' * (self.i % 2)}, {self.i}, '{at}'", at))
        self.db.execute("INSERT INTO s VALUES " + ", ".join(f"({row})" for row, _ in rows))
        self.db.flush("s")
        before = "NULL" if self.watermark is None else f"'{self.watermark}'"
        self.db.execute("INSERT INTO o VALUES " + ", ".join(f"({row}, {before})" for row, _ in rows))
        self.watermark = max([at for _, at in rows] + [self.watermark or START])

    def late(self, hop: str, lateness: int) -> int:
        """Rows that found no window open; those between windows find none as soon as their pane is over, and there are none of these here."""
        size = hop.split("'")[1]
        return self.db.value(
            f"SELECT count(*) FROM o WHERE watermark >= (SELECT max(w) FROM {hop} w) + interval '{size}' + interval '{lateness} s'"
        )


@pytest.mark.parametrize("lateness", [0, 12])
@pytest.mark.parametrize("size, slide", [(60, 10), (45, 20), (30, 30), (7, 3)])
def test_each_window_takes_rows_until_it_closes(clock: Database, lateness: int, size: int, slide: int) -> None:
    """With windows in history, by key and range too; what is closed never changes; over a restart of the server."""
    db, rng = clock, random.Random(size * 100 + lateness)
    local_stream(db, "event_time 'ts'", "k text, d numeric, i int, ts timestamptz")
    hop = f"streamext.hop('{size} s', '{slide} s', ts)"
    for name, query in HOP_VIEWS.items():
        continuous(db, name, query.format(s="s", w=hop), f", streamext.lateness = '{lateness} s'")
    rows = Disorder(db, rng)

    def expected(name: str) -> str:
        return open_windows(HOP_VIEWS[name].format(s="o s", w=hop), hop, lateness)

    def compare() -> None:
        late = rows.late(hop, lateness)
        for name in HOP_VIEWS:
            assert counts(db, name) == (rows.i - late, late, 0)
            db.assert_same(f"TABLE {name}", expected(name))
        at = START + timedelta(seconds=max(0, rows.newest - rng.choice([10, 50, 100])))
        for condition in ("k = 'k1'", f"w >= '{at}'", f"w < '{at}'", f"k = 'k1' AND w = '{at}'"):
            for name in ("native", "own"):
                db.assert_same(f"SELECT * FROM {name} WHERE {condition}", f"SELECT * FROM ({expected(name)}) q WHERE {condition}")

    def closed(name: str) -> list[tuple]:
        return sorted(map(str, db.rows(f"SELECT * FROM {name} WHERE w + interval '{size + lateness} s' <= %s", rows.watermark)))

    for step in range(24):
        before = {name: closed(name) for name in HOP_VIEWS} if rows.watermark else {}
        former = rows.watermark
        rows.insert()
        compare()
        for name, content in before.items():
            now = db.rows(f"SELECT * FROM {name} WHERE w + interval '{size + lateness} s' <= %s", former)
            assert sorted(map(str, now)) == content, name
        if step in (7, 15):
            wait_for(lambda: not db.value("SELECT bool_or(checkpoint_pending) FROM streamext.workers"), what="a checkpoint")
            db.execute("SET synchronous_commit = on; CREATE TABLE flushed (); DROP TABLE flushed")
            db.server.restart(FAST if step == 7 else IMMEDIATE)
            db.connection = db.connect(autocommit=True)
            db.execute("SELECT streamext.set_clock(%s)", NOW)
            compare()
    assert rows.late(hop, lateness) > 0
    if size > slide:
        assert db.value("SELECT count(*) FROM streamext_internal.history WHERE view = 'native'::regclass") > 0
        # rows that counted in some of their windows
        assert db.value(
            f"""SELECT count(*) FROM o WHERE watermark >= (SELECT min(w) FROM {hop} w) + interval '{size + lateness} s'
            AND watermark < (SELECT max(w) FROM {hop} w) + interval '{size + lateness} s'"""
        ) > 20


def test_a_row_that_is_late_for_some_windows(clock: Database) -> None:
    """Out of order beyond the grace period, as ksqlDB has it: 30 s by 10 s, 10 s of grace; and with a predicate that slides."""
    db = clock
    local_stream(db, "event_time 'ts'", "v int, ts timestamptz")
    hop = "streamext.hop('30 s', '10 s', ts)"
    grace = ", streamext.lateness = '10 s', streamext.keep_late"
    continuous(db, "v", f"SELECT {hop} AS w, array_agg(v ORDER BY v) AS vs FROM s GROUP BY w", grace)
    sliding = "SELECT {w} AS w, array_agg(v ORDER BY v) AS vs FROM s WHERE ts > now() - interval '10 min' GROUP BY w"
    db.execute("SELECT streamext.set_clock(%s)", START + timedelta(minutes=5))
    continuous(db, "sliding", sliding.format(w=hop), grace)
    continuous(db, "whole", sliding.format(w="streamext.tumble('30 s', ts)"), grace)
    for value, at in enumerate([0, 45, 5, 15, 25, 71, 25, 55, 99, 75], 1):
        db.execute("INSERT INTO s VALUES (%s, %s)", value, START + timedelta(seconds=at))
        db.flush("s")

    rows = db.rows("SELECT view::text, (convert_from(payload, 'UTF8')::json->>'v')::int FROM streamext.late_rows ORDER BY id")

    def shown(view: str) -> dict[int, list[int]]:
        return {int((w - START).total_seconds()): vs for w, vs in db.rows(f"SELECT w, vs FROM {view}")}

    # 3 (5 s) comes when the watermark is 45 s: 0..30 ended at 40 with its grace, so it is late. 4 (15 s): of its three only 10..40 is open.
    expected = {-20: [1], -10: [1], 0: [1], 10: [4, 5], 20: [2, 5], 30: [2], 40: [2, 8], 50: [6, 8], 60: [6, 10], 70: [6, 9, 10], 80: [9], 90: [9]}
    assert shown("v") == shown("sliding") == expected
    assert shown("whole") == {0: [1], 30: [2], 60: [6, 10], 90: [9]}
    late = {view: [value for name, value in rows if name == view] for view in ("v", "sliding", "whole")}
    assert late == {"v": [3, 7], "sliding": [3, 7], "whole": [3, 4, 5, 7, 8]}


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
