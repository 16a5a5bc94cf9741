"""Sealed windows leave memory for streamext_internal.history: exactly once, and readers see each exactly once at every moment.

STREAMEXT_HISTORY_READS sets how often readers look while windows close, STREAMEXT_HISTORY_DAYS how many days of
one-minute windows are kept."""

import os
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness import views as oracle
from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import IMMEDIATE, Postgres
from harness.streams import continuous, counts, kafka_stream, local_stream, worker_pid
from harness.wait import wait_for

READS = int(os.environ.get("STREAMEXT_HISTORY_READS", "20"))
DAYS = int(os.environ.get("STREAMEXT_HISTORY_DAYS", "7"))
SEED = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
START = datetime(2024, 3, 1, tzinfo=UTC)
COLUMNS = "k text, ts timestamptz, i int, f float8, n numeric, t text"

VIEWS = {
    "tumbled": "SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS c, sum(i) AS s, avg(f) AS a, max(ts) AS m FROM {s} GROUP BY k, w",
    "hopped": "SELECT k, streamext.hop('1 min', '10 s', ts) AS w, count(*) AS c, sum(f) AS s, min(i) AS l FROM {s} GROUP BY k, w",
    "hopped_text": """SELECT k, streamext.hop('25 s', '10 s', ts) AS w, string_agg(t, ',' ORDER BY t, i) AS t, sum(n) AS n,
        count(DISTINCT i) AS d FROM {s} GROUP BY k, w""",
    "binned": "SELECT date_bin('15 s', ts, '2024-01-01 00:00:07+00') AS w, k, sum(n) AS n, max(t) AS t, min(n) AS l FROM {s} GROUP BY 1, 2",
    "truncated": "SELECT date_trunc('minute', ts) AS w, count(*) AS c, stddev(f) AS d, array_agg(i ORDER BY i) AS a FROM {s} GROUP BY 1",
    "numbers": "SELECT streamext.tumble('7 s', ts) AS w, i % 5 AS r, sum(n) AS n, avg(n) AS a, regr_slope(f, i) AS g FROM {s} GROUP BY 1, 2",
    "keyless": "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS c, percentile_cont(0.5) WITHIN GROUP (ORDER BY f) AS p FROM {s} GROUP BY 1",
    "total": "SELECT count(*) AS c, sum(i) AS s FROM {s}",
}
SEALING = [name for name in VIEWS if name != "total"]


def rows(first: int, last: int, step: str = "1 second") -> str:
    """A SELECT of rows number first to last - 1, a step apart."""
    return f"""SELECT 'k' || g % 7, timestamptz '{START}' + g * interval '{step}', g % 23, g % 11 + 0.5,
        (g % 13)::numeric / 4, 't' || g % 5 FROM generate_series({first}, {last - 1}) AS g"""


def insert(db: Database, first: int, last: int, step: str = "1 second") -> None:
    """Into the stream s and the table o."""
    with db.connection.transaction():
        db.execute(f"INSERT INTO s {rows(first, last, step)}")
        db.execute(f"INSERT INTO o {rows(first, last, step)}")


def history(db: Database, view: str) -> tuple[int, int, datetime | None, int]:
    """(history_panes, open_windows, sealed_until, state_bytes)"""
    return db.rows(
        """SELECT history_panes, open_windows, sealed_until, state_bytes FROM streamext.continuous_views
        WHERE view = %s::regclass""",
        view,
    )[0]


def wait_sealed(db: Database, view: str, end: datetime, width: timedelta = timedelta(minutes=1)) -> None:
    """Until what ended `width` before `end` is in history."""
    wait_for(lambda: (history(db, view)[2] or START) > end - width, what=f"history of {view}")


def compare(db: Database, names: list[str] | None = None) -> None:
    for name in names or VIEWS:
        db.assert_same(f"TABLE {name}", VIEWS[name].format(s="o"))


@pytest.fixture
def kept(db: Database) -> Database:
    """A stream s and a table o of the same rows, and VIEWS."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name, query in VIEWS.items():
        continuous(db, name, query.format(s="s"))
    return db


def test_every_kind_of_window_and_aggregate(kept: Database) -> None:
    """Over sealed and open windows, windows that span the boundary, and again in REPEATABLE READ."""
    db = kept
    for first in range(0, 2000, 250):
        insert(db, first, first + 250)
        db.flush("s")
        compare(db)
    for name in SEALING:
        wait_sealed(db, name, START + timedelta(seconds=2000), timedelta(seconds=130))
    compare(db)
    assert db.value("SELECT count(DISTINCT view) FROM streamext_internal.history") == len(SEALING)
    assert {counts(db, name) for name in VIEWS} == {(2000, 0, 0)}
    # Later than sealed: counted as late, and no window is reopened.
    db.execute(f"INSERT INTO s {rows(0, 100)}")
    db.flush("s")
    compare(db, SEALING)
    assert {counts(db, name) for name in SEALING} == {(2000, 100, 0)}
    with db.connection.transaction():
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        compare(db, SEALING)
        other = db.connect()
        other.execute(f"INSERT INTO s {rows(2000, 2500)}")
        other.execute("SELECT streamext.flush('s')")
        wait_for(
            lambda: other.execute("SELECT sealed_until FROM streamext.continuous_views WHERE view = 'tumbled'::regclass").fetchone()[0]
            > START + timedelta(seconds=2400)
        )
        # A read shows the moment it starts.
        assert db.value("SELECT sum(c) FROM tumbled") == 2500
        other.close()


def test_memory_holds_open_panes_only(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    continuous(db, "v", VIEWS["tumbled"].format(s="s"))
    continuous(db, "texts", VIEWS["numbers"].format(s="s"))
    largest = 0
    for first in range(0, 100_000, 20_000):
        insert(db, first, first + 20_000, "5 second")
        db.flush("s")
        end = START + timedelta(seconds=5 * (first + 20_000))
        wait_sealed(db, "v", end)
        wait_sealed(db, "texts", end)
        panes, opened, _, size = history(db, "v")
        largest = max(largest, size, history(db, "texts")[3])
        assert opened <= 2
    assert panes == 50_000 - opened
    assert largest < 512 * 1024  # 50,000 panes take 50 MB; what is left is the array that a burst of them wanted
    db.assert_same("TABLE v", VIEWS["tumbled"].format(s="o"))
    db.assert_same("TABLE texts", VIEWS["numbers"].format(s="o"))


def analyzed(db: Database, query: str) -> dict[str, object]:
    """Properties of the scan of a continuous view in EXPLAIN ANALYZE."""
    (plan,) = db.value(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")

    def find(node: dict) -> dict:
        if "Continuous View" in node:
            return node
        return next(filter(None, map(find, node.get("Plans", []))), {})

    return find(plan["Plan"])


def test_time_ranges_and_keys_read_little(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    wide = "SELECT extract(epoch FROM ts)::bigint % 1000 AS k, streamext.tumble('1000 s', ts) AS w, count(*) AS c, sum(i) AS s FROM {s} GROUP BY 1, w"
    continuous(db, "keys", wide.format(s="s"))
    hop = VIEWS["hopped"]
    continuous(db, "hopped", hop.format(s="s"))
    insert(db, 0, 20_000)
    db.flush("s")
    end = START + timedelta(seconds=20_000)
    for name in ("keys", "hopped"):
        wait_sealed(db, name, end, timedelta(seconds=1000))
    whole = analyzed(db, "SELECT count(*) FROM keys")
    assert whole["History Groups"] == 19_600 and whole["History Slices"] > 19 * 4
    one = analyzed(db, "SELECT * FROM keys WHERE k = 77")
    assert one["History Slices"] == 20 and one["History Groups"] == 19, one
    assert one["Actual Rows"] == 20
    short = analyzed(db, f"SELECT * FROM keys WHERE w = '{START + timedelta(seconds=2600)}' AND k = 77")
    assert short["History Slices"] == short["Actual Rows"] == 1, short
    hour = analyzed(db, f"SELECT * FROM hopped WHERE w >= '{START + timedelta(seconds=6000)}' AND w < '{START + timedelta(seconds=6100)}'")
    assert hour["History Slices"] <= 17, hour
    db.assert_same("SELECT * FROM keys WHERE k = 77", f"SELECT * FROM ({wide.format(s='o')}) AS q WHERE k = 77")
    bounds = f"WHERE w >= '{START + timedelta(seconds=6000)}' AND w < '{START + timedelta(seconds=6100)}'"
    db.assert_same(f"SELECT * FROM hopped {bounds}", f"SELECT * FROM ({hop.format(s='o')}) AS q {bounds}")
    db.assert_same(f"SELECT * FROM hopped {bounds} AND k = 'k3'", f"SELECT * FROM ({hop.format(s='o')}) AS q {bounds} AND k = 'k3'")
    rows_planned = db.value("EXPLAIN (FORMAT JSON) SELECT * FROM keys")[0]["Plan"]["Plan Rows"]
    assert 15_000 < rows_planned < 25_000


def test_damage_is_told(kept: Database) -> None:
    """Whatever bit of a slice has changed on disk: an error of who reads it. States of aggregates would crash the server else."""
    insert(kept, 0, 600)
    kept.flush("s")
    wait_sealed(kept, "hopped_text", START + timedelta(minutes=8))
    compare(kept, ["hopped_text"])
    where = """WHERE view = 'hopped_text'::regclass AND pane = (SELECT min(pane) FROM streamext_internal.history WHERE view = 'hopped_text'::regclass)
        AND part = 0"""
    size = kept.value(f"SELECT length(data) FROM streamext_internal.history {where}")
    for bit in [0, 40, 8 * 150, *random.Random(1).sample(range(8 * size), 20)]:
        flip = f"UPDATE streamext_internal.history SET data = set_bit(data, {bit}, 1 - get_bit(data, {bit})) {where}"
        kept.execute(flip)
        with pytest.raises(psycopg.errors.DataCorrupted, match="streamext_internal.history"):
            kept.rows("TABLE hopped_text")
        kept.execute(flip)
    compare(kept, ["hopped_text"])


def test_key_look_ups_in_joins(kept: Database) -> None:
    db = kept
    insert(db, 0, 1000)
    db.flush("s")
    wait_sealed(db, "tumbled", START + timedelta(seconds=1000))
    query = "SELECT p.k, v.w, v.c FROM (VALUES ('k1'), ('k4'), ('none')) AS p(k) LEFT JOIN LATERAL (SELECT * FROM {v} AS v WHERE v.k = p.k) AS v ON true"
    db.assert_same(query.format(v="tumbled"), query.format(v=f"({VIEWS['tumbled'].format(s='o')})"))


def restart(pg: Postgres, db: Database) -> None:
    pg.stop(IMMEDIATE)
    pg.start()
    db.connection = pg.connect(db.name)


@pytest.fixture
def own_pg() -> Postgres:
    with Postgres() as server:
        yield server


@pytest.fixture
def own(own_pg: Postgres) -> Database:
    own_pg.psql("CREATE EXTENSION streamext")
    return Database(own_pg, "postgres")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", ["local", "kafka"])
def test_restart(own_pg: Postgres, own: Database, kafka: Kafka, topic: str, source: str) -> None:
    """The server is stopped at once, at any moment of writing; nothing is missing or twice."""
    db = own
    sent = 0
    if source == "kafka":
        kafka.create_topic(topic)
        kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS)
    else:
        local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name, query in VIEWS.items():
        continuous(db, name, query.format(s="s"))
    for round_ in range(4):
        for first in range(sent, sent + 1500, 300):
            db.execute(f"INSERT INTO o {rows(first, first + 300)}")
            if source == "kafka":
                lines = db.rows(f"SELECT row_to_json(r)::text FROM ({rows(first, first + 300)}) AS r(k, ts, i, f, n, t)")
                kafka.produce(topic, [line for (line,) in lines])
            else:
                db.execute(f"INSERT INTO s {rows(first, first + 300)}")
            db.flush("s")
        sent += 1500
        if round_ % 2 == 0:
            # a pane is sealed with the last window that holds it
            wait_sealed(db, "hopped", START + timedelta(seconds=sent), timedelta(minutes=2))
            # The last seals may be lost with the server, those of a round before are not.
            db.execute("CHECKPOINT")
            sealed = history(db, "hopped")[0]
        restart(own_pg, db)
        db.flush("s")
        compare(db)
        assert history(db, "hopped")[0] >= sealed
        assert {counts(db, name) for name in VIEWS} == {(sent, 0, 0)}
    assert db.value("SELECT count(*) FROM streamext_internal.history") > 0


def test_worker_restart(kept: Database, pg: Postgres) -> None:
    db = kept
    insert(db, 0, 1000)
    db.flush("s")
    wait_sealed(db, "tumbled", START + timedelta(seconds=1000))
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    worker_pid(db, besides=pid)
    insert(db, 1000, 2000)
    db.flush("s")
    wait_sealed(db, "tumbled", START + timedelta(seconds=2000))
    compare(db)


def test_retention(db: Database) -> None:
    """Old slices go; a window is there as a whole or not at all."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    hop, trunc = VIEWS["hopped"], VIEWS["truncated"]
    continuous(db, "hopped", hop.format(s="s"), ", streamext.retention = '10 min'")
    continuous(db, "truncated", trunc.format(s="s"), ", streamext.retention = '10 min'")
    for first in range(0, 4000, 500):
        insert(db, first, first + 500)
        db.flush("s")
        watermark = db.value("SELECT watermark FROM streamext.streams")
        floor = f"'{watermark}'::timestamptz - interval '10 min'"
        db.assert_same("TABLE hopped", f"SELECT * FROM ({hop.format(s='o')}) AS q WHERE w + interval '1 min' > {floor}")
        db.assert_same("TABLE truncated", f"SELECT * FROM ({trunc.format(s='o')}) AS q WHERE w + interval '1 min' > {floor}")
    insert(db, 4000, 4100)
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history WHERE view = 'hopped'::regclass") < 75)
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history WHERE view = 'truncated'::regclass") < 13)
    wait_for(lambda: history(db, "hopped")[0] < 75)
    assert db.value("SELECT count(*) FROM hopped") > 300


def test_history_goes_with_its_view(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name in ("a", "b", "c"):
        continuous(db, name, VIEWS["tumbled"].format(s="s"))
    insert(db, 0, 500)
    db.flush("s")
    for name in ("a", "b", "c"):
        wait_sealed(db, name, START + timedelta(seconds=500))
    views = "SELECT count(DISTINCT view) FROM streamext_internal.history"
    assert db.value(views) == 3
    db.execute("DROP VIEW a")
    wait_for(lambda: db.value(views) == 2, what="deletion")
    # Another definition begins anew; a local stream has only what comes now.
    db.execute(f"CREATE OR REPLACE VIEW b WITH (streamext.continuous) AS {VIEWS['tumbled'].format(s='s').replace('sum(i)', 'sum(i + 1)')}")
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history WHERE view = 'b'::regclass") in (0, 50, 49))
    db.execute("DROP FOREIGN TABLE s CASCADE")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history") == 0, what="deletion")


def test_nobody_reads_the_table(db: Database) -> None:
    assert not db.value("SELECT has_table_privilege('pg_read_all_stats', 'streamext_internal.history', 'SELECT')")
    db.execute("CREATE ROLE history_reader")
    try:
        local_stream(db, "event_time 'ts'", COLUMNS)
        db.execute(f"CREATE TABLE o ({COLUMNS})")
        continuous(db, "v", VIEWS["tumbled"].format(s="s"))
        db.execute("GRANT SELECT ON v TO history_reader")
        insert(db, 0, 500)
        db.flush("s")
        wait_sealed(db, "v", START + timedelta(seconds=500))
        db.execute("SET ROLE history_reader")
        assert db.value("SELECT sum(c) FROM v") == 500
        db.execute("SET default_transaction_read_only = on")
        assert db.value("SELECT sum(c) FROM v") == 500
    finally:
        db.execute("RESET ROLE")
        db.execute("RESET default_transaction_read_only")
        db.execute("DROP OWNED BY history_reader")
        db.execute("DROP ROLE history_reader")


@pytest.mark.timeout(READS * 10 + 300)
def test_readers_while_windows_close(db: Database) -> None:
    """Every second of event time has three rows. Each read shows every window that is not beyond retention exactly once."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "v", "SELECT k, streamext.hop('1 min', '10 s', ts) AS w, count(*) AS c, sum(i) AS s FROM s GROUP BY k, w",
        ", streamext.retention = '1 hour'")
    continuous(db, "texts", "SELECT streamext.tumble('10 s', ts) AS w, string_agg(t, '' ORDER BY t) AS t FROM s GROUP BY w",
        ", streamext.retention = '2 hours'")
    stop = threading.Event()
    failures: list[str] = []
    reads = [0, 0]

    most = 0

    def write() -> None:
        nonlocal most
        connection = db.connect()
        second = 0
        while not stop.is_set():
            connection.execute(
                f"""INSERT INTO s SELECT k, timestamptz '{START}' + g * interval '1 second', 1, 1, 1, 'x'
                FROM generate_series({second}, {second + 99}) AS g, (VALUES ('a'), ('b'), ('c')) AS k(k) ORDER BY g"""
            )
            second += 100
            if second % 10_000 == 0:
                most = max(most, history(db, "v")[0])
        connection.close()

    def check(rows: list[tuple], texts: list[tuple]) -> str | None:
        seen: dict[tuple, int] = {}
        for k, w, c, s in rows:
            if (k, w) in seen or c != s:
                return f"{k} {w} twice or wrong: {c} {s}"
            seen[k, w] = c
        if not seen:
            return None
        first, last = min(w for _, w in seen), max(w for _, w in seen)
        for number in range(int((last - first).total_seconds()) // 10 + 1):
            w = first + timedelta(seconds=10 * number)
            for k in "abc":
                count = seen.get((k, w))
                whole = START <= w <= last - timedelta(seconds=60)
                if count is None:  # of the newest window a batch may have brought only some keys
                    if w == last:
                        continue
                    return f"{k} {w}: missing of {first} to {last}"
                if (whole and count != 60) or count > 60:
                    return f"{k} {w}: {count} of {first} to {last}"
        for (w, t), (later, _) in zip(texts, texts[1:]):
            if later - w != timedelta(seconds=10) or t != "x" * 30:
                return f"text {w} {later} {t}"
        return None

    def read(number: int, isolation: str) -> None:
        connection = db.connect()
        while not stop.is_set() and not failures:
            with connection.transaction():
                connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
                for _ in range(3):
                    rows = connection.execute("TABLE v").fetchall()
                    texts = connection.execute("SELECT w, t FROM texts ORDER BY w").fetchall()
                    if failure := check(rows, texts):
                        failures.append(f"{isolation}: {failure}")
                    reads[number] += 1
        connection.close()

    threads = [threading.Thread(target=write)]
    threads += [threading.Thread(target=read, args=(i, level)) for i, level in enumerate(("REPEATABLE READ", "READ COMMITTED"))]
    for thread in threads:
        thread.start()
    wait_for(lambda: failures or (min(reads) >= READS and most > 10), READS * 10 + 240, "reads and sealed windows")
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{reads} reads, {history(db, 'v')} sealed")
    assert not failures, failures


@pytest.mark.timeout(1200)
def test_a_long_time(db: Database) -> None:
    """One-minute windows of 100 keys; STREAMEXT_HISTORY_DAYS=365 is a year. What reading costs: make bench ARGS='--history 30'."""
    local_stream(db, "event_time 'ts', buffer_size '0'", "k int, ts timestamptz, f float8")
    continuous(db, "v", "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(f) AS total, max(f) AS peak FROM s GROUP BY k, w")
    for day in range(DAYS):
        db.execute(
            f"""INSERT INTO s SELECT g % 100, timestamptz '{START}' + g / 100 * interval '1 minute', g
            FROM generate_series({day * 144000}, {(day + 1) * 144000 - 1}) AS g"""
        )
    wait_for(lambda: history(db, "v")[0] >= DAYS * 1440 - 1, 900, "history")
    end = START + timedelta(days=DAYS)
    month = min(DAYS, 30)
    assert db.value(f"SELECT count(*) FROM v WHERE w >= '{end - timedelta(hours=1)}'") == 6000
    assert db.value("SELECT sum(n) FROM v WHERE k = 42") == DAYS * 1440
    assert db.value(f"SELECT sum(n) FROM v WHERE k = 42 AND w >= '{end - timedelta(days=month)}'") == month * 1440
    hours = "SELECT count(*) FROM (SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM v GROUP BY h) AS q WHERE n = 6000"
    assert db.value(hours) == DAYS * 24


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(int(os.environ.get("STREAMEXT_HISTORY_SEEDS", "3"))))
def test_random_views(db: Database, seed: int) -> None:
    """The oracle's definitions with rows in the order of time, so that windows close; compared while they move."""
    rng = random.Random(SEED + seed)
    print(f"seed {SEED + seed}")
    local_stream(db, "event_time 'ts'", oracle.COLUMN_LIST)
    db.execute(f"CREATE TABLE o ({oracle.COLUMN_LIST})")
    db.execute("SELECT streamext.set_clock(%s)", oracle.NOW)
    try:
        definitions = []
        while len(definitions) < 40:
            definition = oracle.definition(rng, oracle.GENERAL)
            if " AS w" in definition.text and "now" not in definition.text:
                definitions.append(definition)
        for i, definition in enumerate(definitions):
            continuous(db, f"v{i}", definition.view("s"), definition.options)
        for step, count in enumerate((500, 1, 700, 900, 300)):
            end = oracle.NOW - timedelta(minutes=48 - 12 * step)
            lines = sorted(oracle.rows(rng, count, end), key=lambda line: datetime.fromisoformat(line.rsplit("'", 2)[1]))
            with db.connection.transaction():
                db.execute(f"INSERT INTO s VALUES {', '.join(lines)}")
                db.execute(f"INSERT INTO o VALUES {', '.join(lines)}")
            db.flush("s")
            for i, definition in enumerate(definitions):
                db.assert_same(f"TABLE v{i}", definition.query("o", oracle.NOW))
        sealable = db.value("SELECT count(*) FROM streamext.continuous_views WHERE window_kind <> 'session'")  # by chance more or fewer
        wait_for(lambda: 2 * db.value("SELECT count(DISTINCT view) FROM streamext_internal.history") > sealable, what="sealed panes")
        for i, definition in enumerate(definitions):
            db.assert_same(f"TABLE v{i}", definition.query("o", oracle.NOW))
        total = db.value("SELECT count(*) FROM o")
        for row in db.rows("SELECT view, accepted, late, rejected FROM streamext.continuous_views"):
            assert row[1:] == (total, 0, 0), row
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
