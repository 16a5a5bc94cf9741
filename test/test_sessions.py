"""Session windows against gaps and islands in plain SQL: arrival in any order, retention, pruning, several workers."""

import json
import random
from datetime import UTC, datetime, timedelta

import pytest

from harness import views
from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous, counts, kafka_stream, local_stream
from harness.wait import wait_for

COLUMNS = "id int, k text, v float8, n numeric, t text, ts timestamptz"
START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
US = timedelta(microseconds=1)

# keys, outputs, HAVING: natively kept, by transition functions, by values; with an expression over the session's start.
VIEWS = {
    "native": (["k"], "count(*) AS n, sum(v), avg(n), min(ts), max(ts), bool_or(v > 0), stddev(v)", ""),
    "transitions": (["k", "id % 3"], "corr(v, id), regr_slope(v, id), min(t), max(n), sum(n) FILTER (WHERE v > 0)", ""),
    "kept": (["lower(k)"], "array_agg(id ORDER BY id), count(DISTINCT t), string_agg(t, '' ORDER BY t), "
                           "percentile_cont(0.5) WITHIN GROUP (ORDER BY v)", ""),
    "alone": ([], "count(*) AS n, max(ts) AS last, sum(id)", ""),
    "filtered": (["k"], "count(*) AS n, max(id) - min(id) AS span", "HAVING count(*) > 3"),
}  # fmt: skip


def text(source: str, start: str, keys: list[str], outputs: str, having: str) -> str:
    names = [f"k{i}" for i in range(len(keys))]
    columns = "".join(f"{key} AS {name}, " for key, name in zip(keys, names))
    return f"SELECT {columns}{start} AS w, {outputs} FROM {source} GROUP BY {', '.join([*names, 'w'])} {having}"


def oracle(source: str, gap: timedelta, keys: list[str], outputs: str, having: str) -> str:
    return text(views.sessions(source, keys, literal(gap)), "session_start", keys, outputs, having)


def view(source: str, gap: timedelta, keys: list[str], outputs: str, having: str) -> str:
    return text(source, f"streamext.session({literal(gap)}, ts)", keys, outputs, having)


def literal(gap: timedelta) -> str:
    return f"'{gap.total_seconds():.6f} s'"


def fill(db: Database, rng: random.Random, count: int, groups: int, gap: timedelta) -> None:
    """The table o: each group a run of rows, the steps between them often at the very edge of the gap."""
    steps = [timedelta(0), US, gap / 3, gap - US, gap, gap, gap, gap + US, 2 * gap, 2 * gap + US, 5 * gap]
    at = {f"group {i}": START + rng.random() * 10 * gap for i in range(groups - 1)} | {None: START}
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    with db.connection.cursor() as cursor, cursor.copy("COPY o FROM STDIN") as copy:
        for i in range(count):
            k = rng.choice(list(at))
            at[k] += rng.choice(steps)
            copy.write_row((i, k, rng.randrange(-8, 9) / 8, rng.choice([1, "1.50", -7, None]), rng.choice("abcde"), at[k]))


ORDERS = ["ts, id", "ts DESC, id", "id % 2, random()", "(extract(epoch FROM ts) * 1000000)::bigint % 7, random()"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_arrival(db: Database, seed: int) -> None:
    """Five orders each: sorted both ways, bridging rows last, at random."""
    rng = random.Random(seed)
    gap = rng.choice([timedelta(seconds=30), timedelta(milliseconds=7), 3 * US, timedelta(days=3)])
    print(f"gap {gap}")
    fill(db, rng, 10_000, rng.choice([3, 40, 1000]), gap)
    local_stream(db, "event_time 'ts', watermark_delay '36525 days', max_ahead '36525 days', buffer_size '10'", COLUMNS)
    for name, shape in VIEWS.items():
        db.execute(f"CREATE TABLE expected_{name} AS {oracle('o', gap, *shape)}")
    for order in [*ORDERS[seed % 2 :: 2], *["random()"] * 3]:
        for name, shape in VIEWS.items():
            continuous(db, name, view("s", gap, *shape))
        with db.connection.transaction():
            db.execute(f"CREATE TEMP TABLE arrival ON COMMIT DROP AS SELECT *, row_number() OVER (ORDER BY {order}) AS nr FROM o")
            db.execute("INSERT INTO s SELECT id, k, v, n, t, ts FROM arrival ORDER BY nr")
        db.flush("s")
        for name in VIEWS:
            db.assert_same(f"TABLE {name}", f"TABLE expected_{name}")
            assert counts(db, name) == (10_000, 0, 0)
            db.execute(f"DROP VIEW {name}")


def insert(db: Database, *rows: tuple[str, float]) -> None:
    """(key, seconds after START) in one transaction; flushed."""
    values = ", ".join(f"('{k}', '{START + timedelta(seconds=at)}')" for k, at in rows)
    db.execute(f"INSERT INTO s VALUES {values}")
    db.flush("s")


@pytest.fixture
def keyed(db: Database) -> Database:
    local_stream(db, "event_time 'ts', max_ahead '36525 days'", "k text, ts timestamptz")
    return db


def found(db: Database, name: str = "v") -> list[tuple[str, float, int]]:
    return db.rows(f"SELECT k, extract(epoch FROM w - %s)::float8, n FROM {name} ORDER BY k, w", START)


SESSIONS = "SELECT k, streamext.session('10 s', ts) AS w, count(*) AS n FROM s GROUP BY k, w"


def test_a_bridging_row_merges(keyed: Database) -> None:
    continuous(keyed, "v", SESSIONS, ", streamext.lateness = '1 h'")
    insert(keyed, ("a", 0), ("a", 20), ("a", 10.000001))
    assert found(keyed) == [("a", 0, 1), ("a", 10.000001, 2)]
    insert(keyed, ("a", 5), ("b", 5))
    assert found(keyed) == [("a", 0, 4), ("b", 5, 1)]


def test_late_is_by_row(keyed: Database) -> None:
    """Late: watermark >= the row's time + gap + lateness."""
    continuous(keyed, "v", SESSIONS, ", streamext.lateness = '5 s'")
    insert(keyed, ("a", 100))
    insert(keyed, ("b", 85))
    insert(keyed, ("b", 85.000001), ("a", 99))
    assert found(keyed) == [("a", 99, 2), ("b", 85.000001, 1)]
    assert counts(keyed, "v") == (3, 1, 0)


def panes(db: Database, name: str = "v") -> int:
    return db.value("SELECT open_windows FROM streamext.continuous_views WHERE view = %s::regclass", name)


def test_retention_shows_a_session_whole_or_not_at_all(keyed: Database) -> None:
    continuous(keyed, "v", SESSIONS, ", streamext.retention = '20 s'")
    continuous(keyed, "everything", SESSIONS, ", streamext.lateness = '1 d'")
    # "long" goes on over many panes and past the end of "short", whose panes it shares
    insert(keyed, *(("long", at) for at in range(0, 100, 9)), ("short", 5), ("short", 12))
    assert ("long", 0, 12) in found(keyed)
    # 12 + 2 gaps + retention is reached, 99 + 2 gaps + retention is not: short goes, long stays with all of its panes
    insert(keyed, ("next", 138))
    wait_for(lambda: keyed.value("SELECT NOT EXISTS (SELECT FROM v WHERE k = 'short')"))
    assert found(keyed) == [("long", 0, 12), ("next", 138, 1)]
    wait_for(lambda: panes(keyed) == 11, what="the panes of short to go")
    # and can be joined as long as the row is not late itself, or not seen any more
    insert(keyed, ("next", 139), ("long", 108))
    wait_for(lambda: keyed.value("SELECT NOT EXISTS (SELECT FROM v WHERE k = 'long')"))
    wait_for(lambda: keyed.value("SELECT open_windows = 1 FROM streamext.continuous_views WHERE view = 'v'::regclass"))
    assert found(keyed) == [("next", 138, 2)]
    assert counts(keyed, "v") == (16, 1, 0)


def test_retention_is_told_by_the_watermark(keyed: Database) -> None:
    """Not by when the worker comes to drop what is beyond it: a read after a flush has sessions within retention alone, as it has windows."""
    continuous(keyed, "v", SESSIONS, ", streamext.retention = '20 s'")
    for i in range(1, 11):
        insert(keyed, (f"k{i}", 100 * i))
        keyed.flush("s")
        assert found(keyed) == [(f"k{i}", 100 * i, 1)]


@pytest.mark.slow
def test_a_range_of_starts_does_not_cut_sessions(db: Database) -> None:
    gap = timedelta(seconds=10)
    fill(db, random.Random(1), 2000, 20, gap)
    local_stream(db, "event_time 'ts', watermark_delay '36525 days', max_ahead '36525 days'", COLUMNS)
    shape = VIEWS["native"]
    continuous(db, "v", view("s", gap, *shape))
    db.execute(f"CREATE VIEW ov AS {oracle('o', gap, *shape)}")
    db.execute("INSERT INTO s SELECT * FROM o ORDER BY random()")
    db.flush("s")
    starts = [start for (start,) in db.rows("SELECT DISTINCT w FROM ov ORDER BY w")]
    assert len(starts) > 50
    for start in random.Random(2).sample(starts, 20):
        for operator in ("<", "<=", "=", ">=", ">"):
            for shift in ("-1 us", "0", "1 us", "10 s"):
                where = f"WHERE w {operator} timestamptz '{start}' + interval '{shift}'"
                db.assert_same(f"SELECT * FROM v {where}", f"SELECT * FROM ov {where}")
                db.assert_same(f"SELECT * FROM v {where} AND k0 = 'group 3'", f"SELECT * FROM ov {where} AND k0 = 'group 3'")
    db.assert_same("SELECT v.* FROM v JOIN o ON o.k = v.k0 AND o.ts = v.w", "SELECT ov.* FROM ov JOIN o ON o.k = ov.k0 AND o.ts = ov.w")
    plan = "\n".join(line for (line,) in db.rows("EXPLAIN SELECT * FROM v WHERE k0 = 'x' AND w >= '2024-05-01' AND w < '2024-05-02'"))
    assert "Window: session, gap 00:00:10" in plan and "Keys: hash look-up on (k0)" in plan
    assert "Panes: w >= " in plan and "Panes: w >= '2024-05-01 00:00:00+00'::timestamp with time zone AND" not in plan
    row = db.rows("SELECT window_kind, window_size FROM streamext.continuous_views")
    assert row == [("session", "00:00:10")]


def test_several_workers(db: Database, kafka: Kafka, topic: str) -> None:
    """The rows of a session come through different partitions, so it is chained over shards."""
    rng = random.Random(3)
    gap = timedelta(seconds=10)
    fill(db, rng, 4000, 30, gap)
    rows = db.rows("SELECT id, k, v, n::text, t, ts::text FROM o ORDER BY random()")
    kafka.create_topic(topic, partitions=4)
    names = ["id", "k", "v", "n", "t", "ts"]
    kafka.produce(topic, [Message(json.dumps(dict(zip(names, row))), rng.randrange(4)) for row in rows])
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '36525 days', workers '3'", COLUMNS)
    for name, shape in VIEWS.items():
        continuous(db, name, view("s", gap, *shape))
    db.flush("s")
    for name, shape in VIEWS.items():
        db.assert_same(f"TABLE {name}", oracle("o", gap, *shape))


def test_retention_looks_at_all_workers(db: Database, kafka: Kafka, topic: str) -> None:
    """What is left of a session in one shard may be joined by rows in another."""
    kafka.create_topic(topic, partitions=2)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', workers '2'", "k text, ts timestamptz")
    continuous(db, "v", SESSIONS, ", streamext.retention = '5 s'")

    def produce(*rows: tuple[int, str, float]) -> None:
        kafka.produce(topic, [
            Message(json.dumps({"k": k, "ts": str(START + timedelta(seconds=at))}), partition) for partition, k, at in rows
        ])  # fmt: skip
        db.flush("s")

    produce((0, "long", 0), *((1, "long", at) for at in range(9, 60, 9)))
    produce((0, "x", 70))  # worker 0 alone would say that the session's row at 0 is long gone; worker 1 is at 54
    assert found(db) == [("long", 0, 7), ("x", 70, 1)]
    produce((1, "x", 71))
    produce((0, "x", 79), (1, "x", 79))  # 54 + 25 is reached by both
    wait_for(lambda: db.value("SELECT NOT EXISTS (SELECT FROM v WHERE k = 'long')"))
    assert found(db) == [("x", 70, 4)]

    def only_x_is_kept() -> bool:
        """A worker looks at its panes when its own watermark moves."""
        at = 79 + next(steps) / 1000
        produce((0, "x", at), (1, "x", at))
        return db.value("SELECT groups = 2 FROM streamext.continuous_views")

    steps = iter(range(1, 1000))
    wait_for(only_x_is_kept)
    assert [(k, at) for k, at, _ in found(db)] == [("x", 70)]


def test_definitions(keyed: Database) -> None:
    for query, state, what in [
        ("SELECT streamext.session('1 mon', ts) AS w, count(*) FROM s GROUP BY w", "0A000", "months"),
        ("SELECT streamext.session('0 s', ts) AS w, count(*) FROM s GROUP BY w", "22023", "positive"),
        ("SELECT streamext.session('1 s', now()) AS w, count(*) FROM s GROUP BY w", "0A000", "event time"),
        ("SELECT streamext.session('1 s', ts), streamext.tumble('1 s', ts), count(*) FROM s GROUP BY 1, 2", "0A000", "two windows"),
        ("SELECT max(streamext.session('1 s', ts)) FROM s", "0A000", "window function"),
    ]:  # fmt: skip
        with pytest.raises(Exception) as error:
            continuous(keyed, "v", query)
        assert error.value.diag.sqlstate == state and what in str(error.value)
    keyed.execute("CREATE TABLE o (ts timestamptz)")
    keyed.execute("INSERT INTO o VALUES (now())")
    with pytest.raises(Exception, match="continuous views only"):
        keyed.execute("SELECT streamext.session('1 s', ts) FROM o")
