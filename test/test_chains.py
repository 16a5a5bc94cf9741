"""Continuous views over continuous views: the closed windows of the inner one, each once, against PostgreSQL's nested query.

STREAMEXT_CHAINS sets how many random chains there are, with and without a crash, STREAMEXT_CHAINS_SEED what they are."""

import os
import random
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from harness.database import Database
from harness.faults import commit_once, set_fault, until_quiet, wait_for_crash
from harness.streams import continuous, counts, local_stream
from harness.wait import wait_for

CHAINS = int(os.environ.get("STREAMEXT_CHAINS", "8"))
SEED = int(os.environ.get("STREAMEXT_CHAINS_SEED", "5"))
COLUMNS = "k int, x int, ts timestamptz"
BY_TS = "event_time 'ts', watermark_delay '5 s'"
BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
MINUTE = "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) AS total, max(x) AS peak FROM {s} GROUP BY k, w"

Row = tuple[int, int, datetime]

# Checkpoints, behind which windows are given, come often.
SETTINGS = {"streamext.checkpoint_interval": 200, "max_worker_processes": 80}
TIMEZONE = "UTC"


def rows(rng: random.Random, count: int, begin: float, seconds: float, jitter: float = 4) -> list[Row]:
    """Times grow, but for up to 4 s, so that nothing is late."""
    result = []
    for i in range(count):
        at = begin + seconds * i / count - rng.random() * jitter
        result.append((rng.randrange(5), rng.randrange(10), BEGIN + timedelta(milliseconds=int(1000 * at))))
    return result


def insert(db: Database, table: str, values: list[Row]) -> None:
    with db.connection.cursor() as cursor, cursor.copy(f"COPY {table} (k, x, ts) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)


def insert_both(db: Database, values: list[Row]) -> None:
    """Rows that came twice would be late in the one."""

    def insert_them() -> None:
        insert(db, "o", values)
        insert(db, "s", values)

    commit_once(db, "o", insert_them)


def stream(db: Database) -> None:
    local_stream(db, BY_TS, COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")


def feed(db: Database, seed: int = 1, count: int = 3000, minutes: int = 150, steps: int = 4) -> None:
    """Into the stream and the table; at the end a row so late in time that all windows of the others are closed, of the stream alone."""
    rng = random.Random(seed)
    for step in range(steps):
        values = rows(rng, count // steps, 60 * minutes / steps * step, 60 * minutes / steps)
        insert(db, "s", values)
        insert(db, "o", values)
        db.flush("s")
    close_all(db)


def close_all(db: Database, days: int = 10) -> None:
    """A key that no row of the table has."""
    insert(db, "s", [(99, 0, BEGIN + timedelta(days=days))])
    db.flush("s")


def test_hour_from_minute(database: Database) -> None:
    db = database
    stream(db)
    hour = "SELECT k, date_trunc('hour', w) AS h, sum(n) AS n, max(peak) AS peak, avg(total) AS mean FROM {m} GROUP BY k, h"
    continuous(db, "minute", MINUTE.format(s="s"))
    continuous(db, "hour", hour.format(m="minute"))
    feed(db)
    inner = f"({MINUTE.format(s='o')}) m"
    db.assert_same("TABLE hour", hour.format(m=inner))
    assert db.value("SELECT count(*) FROM hour") > 10
    assert db.rows("SELECT stream::text, late, rejected FROM streamext.continuous_views WHERE view = 'hour'::regclass") == [("minute", 0, 0)]
    assert "Closed Windows Of: minute" in "\n".join(line for (line,) in db.rows("EXPLAIN SELECT * FROM hour"))
    # one made later takes all that there is
    continuous(db, "later", hour.format(m="minute"))
    db.flush("s")
    db.assert_same("TABLE later", "TABLE hour")


def test_a_dropped_outer_view_leaves_nothing(database: Database) -> None:
    db = database
    stream(db)
    continuous(db, "minute", MINUTE.format(s="s"))
    continuous(db, "hour", "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minute GROUP BY h")
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.flow") == 1, what="the outer view's place")
    db.execute("DROP VIEW hour")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.flow") == 0, what="nothing of it")


def of_view(db: Database, oid: int) -> dict[str, int]:
    """Rows of the extension's own tables that name the view or its stream; but of what is tidied later: the checkpoints' log, texts of definitions."""
    columns = db.rows("""SELECT c.oid::regclass::text, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace IN ('streamext'::regnamespace, 'streamext_internal'::regnamespace) AND c.relkind = 'r' AND relname NOT IN ('checkpoint_log', 'content') AND a.attnum > 0 AND a.atttypid IN ('oid'::regtype, 'regclass'::regtype)""")
    found = {f"{table}.{column}": db.value(f"SELECT count(*) FROM {table} WHERE {column} = {oid}") for table, column in columns}
    return {name: n for name, n in found.items() if n > 0}


@pytest.mark.parametrize("replaced", [True, False])
def test_a_view_that_is_no_outer_one_any_more_leaves_nothing(database: Database, replaced: bool) -> None:
    """Neither if it reads the stream itself from now on, nor if it goes with the inner one."""
    db = database
    stream(db)
    continuous(db, "minute", MINUTE.format(s="s"))
    continuous(db, "hour", "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minute GROUP BY h")
    feed(db, count=200, steps=1)
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.flow") == 1, what="the outer view's place")
    inner, outer = db.rows("SELECT 'minute'::regclass::oid::int, 'hour'::regclass::oid::int")[0]
    if replaced:
        db.execute("CREATE OR REPLACE VIEW hour WITH (streamext.continuous) AS SELECT date_trunc('hour', ts) AS h, sum(x)::numeric AS n FROM s GROUP BY h")
        wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.flow") == 0, what="no place")
        wait_for(lambda: db.value("SELECT count(*) FROM streamext.workers") == 1, what="its worker's end")
        db.execute("DROP VIEW hour")
        wait_for(lambda: not of_view(db, outer), what="nothing of the outer one")
    db.execute("DROP VIEW minute CASCADE")
    wait_for(lambda: not of_view(db, outer) and not of_view(db, inner), what="nothing of both")
    wait_for(lambda: not list((db.server.data / "streamext").glob(f"*/{outer}.*")), what="no journal")


def told_by_flush(db: Database) -> list[str | None]:
    notices: list[str] = []
    take = lambda diagnostic: notices.append(diagnostic.message_primary)
    db.connection.add_notice_handler(take)
    db.execute("SELECT streamext.flush('s', '60 s')")
    db.connection.remove_notice_handler(take)
    return notices


@pytest.mark.parametrize("view", ["minute", "hour", "day"])
def test_flush_beside_a_paused_view(database: Database, view: str) -> None:
    """Wherever it stands in a chain: named and not waited for, and those below it have all."""
    db = database
    stream(db)
    below = {"minute": MINUTE.format(s="{}"), "hour": "SELECT date_trunc('hour', w) AS w, sum(n) AS n FROM {} GROUP BY 1", "day": "SELECT date_trunc('day', w) AS w, sum(n) AS n FROM {} GROUP BY 1"}
    for name, source in (("minute", "s"), ("hour", "minute"), ("day", "hour")):
        continuous(db, name, below[name].format(source))
    db.flush("s")
    db.execute(f"SELECT streamext.pause('{view}')")
    feed(db, count=200, steps=1)
    assert told_by_flush(db) == [f'continuous view "{view}" is paused and was not waited for']
    if view != "minute":
        assert db.value("SELECT sum(n) FROM minute WHERE k <> 99") == db.value("SELECT count(*) FROM o")
    # its definition is another one now, or the one below is
    db.execute(f"CREATE OR REPLACE VIEW hour WITH (streamext.continuous) AS {below['hour'].format('minute')} HAVING sum(n) > 0")
    assert told_by_flush(db) == [f'continuous view "{view}" is paused and was not waited for']
    db.execute(f"SELECT streamext.resume('{view}')")
    assert told_by_flush(db) == []
    hours = below["hour"].format(f"({MINUTE.format(s='o')}) m")
    open_one = "w < (SELECT max(w) FROM {})"
    db.assert_same(f"SELECT * FROM hour WHERE {open_one.format('hour')}", f"SELECT * FROM ({hours}) h WHERE {open_one.format('hour')}")
    db.assert_same(f"SELECT * FROM day WHERE {open_one.format('day')}", f"SELECT * FROM ({below['day'].format(f'({hours}) h')}) d WHERE {open_one.format('day')}")


def test_an_outer_view_that_is_paused_holds_windows_within_bounds(database: Database) -> None:
    """In its journal, and when that is full in the inner view, beyond its retention: the stream says so. Nothing is lost."""
    db = database
    stream(db)
    pad = " || ".join(f"md5((sum(x) + {i})::text)" for i in range(24))
    minute = f"SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, {pad} AS pad FROM s GROUP BY k, w"
    continuous(db, "minute", minute, ", streamext.retention = '1 h'")
    continuous(db, "hour", "SELECT k, date_trunc('hour', w) AS h, sum(n) AS n, max(pad) AS pad FROM minute GROUP BY k, h")
    trouble = "SELECT max(last_error) FROM streamext.streams WHERE stream = 's'::regclass AND NOT last_error_past"
    db.execute("ALTER SYSTEM SET streamext.journal_limit = '64MB'")
    try:
        db.server.reload()
        db.flush("s")
        db.execute("SELECT streamext.pause('hour')")
        day = 0
        while not db.value(trouble):
            assert day < 20
            values = f"SELECT k, k * 1000 + m, timestamptz '2024-05-01 00:00+00' + interval '{day} days' + m * interval '1 min' FROM generate_series(1, 20) AS k, generate_series(0, 1439) AS m ORDER BY m, k"
            db.execute(f"INSERT INTO o {values}; INSERT INTO s {values}")
            day += 1
            wait_for(lambda: db.value(trouble) or db.value(f"SELECT max(written_until) >= timestamptz '2024-05-01 23:00+00' + interval '{day - 1} days' FROM streamext_internal.flow"), what="the windows")
        assert db.value(trouble) == 'closed windows of continuous view "public.minute" wait: the journal of stream "hour" is full'
        assert db.value("SELECT count(DISTINCT w) > 60 FROM minute"), "retention waits"
        for more in range(2):
            values = f"SELECT 1, m, timestamptz '2024-05-01 00:00+00' + interval '{day + more} days' + m * interval '1 min' FROM generate_series(0, 99) AS m"
            db.execute(f"INSERT INTO o {values}; INSERT INTO s {values}")
            assert told_by_flush(db) == ['continuous view "hour" is paused and was not waited for']
        db.execute("SELECT streamext.resume('hour')")
        close_all(db, 40)
        db.assert_same("SELECT k, h, n FROM hour", "SELECT k, date_trunc('hour', ts), count(*) FROM o GROUP BY 1, 2")
        assert db.value(trouble) is None
        assert db.value("SELECT count(DISTINCT w) <= 61 FROM minute")
        assert db.rows("SELECT late, rejected FROM streamext.continuous_views") == [(0, 0)] * 2
    finally:
        db.execute("ALTER SYSTEM RESET streamext.journal_limit")
        db.server.reload()


def test_windows_that_cannot_be_given_away_are_told(database: Database) -> None:
    """By the stream, whatever keeps them; what a view's expressions say stays in the log. Flush waits, until that is mended."""
    db = database
    stream(db)
    minute = "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, 100 / {x} AS share FROM s GROUP BY k, w"
    trouble = "SELECT max(last_error) FROM streamext.streams WHERE stream = 's'::regclass AND NOT last_error_past"
    continuous(db, "minute", minute.format(x="sum(x)"))
    continuous(db, "hour", "SELECT date_trunc('hour', w) AS h, sum(n) AS n, max(share) AS share FROM minute GROUP BY h")
    insert(db, "s", [(1, 0, BEGIN), (1, 5, BEGIN + timedelta(minutes=2)), (1, 1, BEGIN + timedelta(days=1))])
    wait_for(lambda: db.value(trouble), what="it is told")
    assert db.value(trouble) == 'closed windows of continuous view "public.minute" wait: error 22012, which the server\'s log tells'
    with pytest.raises(psycopg.errors.QueryCanceled) as raised:
        db.execute("SELECT streamext.flush('s', '10 ms')")
    assert "closed windows" in str(raised.value.diag.message_detail)
    db.execute(f"CREATE OR REPLACE VIEW minute WITH (streamext.continuous) AS {minute.format(x='nullif(sum(x), 0)')}")
    db.flush("s")
    assert db.value(trouble) is None
    db.assert_same("SELECT h, n, share FROM hour", f"VALUES (timestamptz '{BEGIN}', 2::numeric, 20::bigint)")


INNERS = {
    "tumble": ("streamext.tumble('1 min', ts)", "{s}"),
    "hop": ("streamext.hop('2 min', '1 min', ts)", "{s}"),
    "sparse": ("streamext.hop('20 s', '45 s', ts)", "{s}"),
    "trunc": ("date_trunc('minute', ts)", "{s}"),
    "bin": ("date_bin('90 s', ts, '2024-01-01 00:00:07+00')", "{s}"),
}
# what the first view reads; d is a derived stream, of the table an ordinary view
SOURCES = [
    "{s}",
    "(SELECT k, x, ts FROM {s} WHERE x < 6 UNION ALL SELECT k, x, ts FROM {s} WHERE x > 3) q",
    "(SELECT k, x, ts FROM {d} UNION ALL SELECT k + 1, x * 2, ts FROM {s}) q",
]
DERIVED = "SELECT k, x + 1 AS x, ts FROM {s} WHERE x <> 4"
# sessions have no form that runs over a table: gaps and islands
SESSION = """SELECT k, streamext.session('20 s', ts) AS w, count(*) AS n, sum(x) AS total, max(x) AS peak FROM s GROUP BY k, w"""
SESSION_ORACLE = """SELECT k, min(ts) AS w, count(*) AS n, sum(x) AS total, max(x) AS peak
    FROM (SELECT *, sum(opens::int) OVER (PARTITION BY k ORDER BY ts) AS session
          FROM (SELECT *, (ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) <= interval '20 s') IS NOT TRUE AS opens FROM o) r) n
    GROUP BY k, session"""
OUTERS = [
    "SELECT k, date_trunc('hour', w) AS w, sum(n) AS n, sum(total) AS total, max(peak) AS peak FROM {m} GROUP BY 1, 2",
    "SELECT k, streamext.tumble('10 min', w) AS w, count(*) AS n, sum(total) AS total, min(peak) AS peak FROM {m} WHERE n > 1 GROUP BY k, streamext.tumble('10 min', w)",
    "SELECT k % 2 AS k, streamext.hop('30 min', '10 min', w) AS w, sum(n) AS n, max(total) AS total, (avg(peak) * 10)::int AS peak FROM {m} GROUP BY 1, streamext.hop('30 min', '10 min', w)",
    "SELECT q.k, date_bin('7 min', q.w, '2024-01-01') AS w, count(*) AS n, sum(q.n) AS total, max(q.peak) AS peak FROM (SELECT k, w, n, peak + 1 AS peak FROM {m} WHERE total > 3) q GROUP BY 1, 2 HAVING count(*) > 1",
]
LAST = [
    *OUTERS,
    "SELECT avg(n), max(total), count(DISTINCT peak) FROM {m}",
    "SELECT k, array_agg(total ORDER BY w, total, n, peak), stddev(n) FROM {m} GROUP BY k",
    "SELECT GROUPING(k), k, streamext.tumble('20 min', w) AS w, sum(n), percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM {m} GROUP BY ROLLUP (k), streamext.tumble('20 min', w)",
    "SELECT n.name, count(*), sum(m.total) FROM {m} m JOIN names n USING (k) WHERE m.peak > 2 GROUP BY n.name",
]


def chains(db: Database, rng: random.Random, count: int, depths: tuple[int, ...] = (2, 3)) -> dict[str, str]:
    """Random chains; the last view's name with its oracle. Names are of depth and number."""
    continuous(db, "d", DERIVED.format(s="s"))
    db.execute(f"CREATE VIEW d_o AS {DERIVED.format(s='o')}")
    result = {}
    for i in range(count):
        kind = rng.choice([*INNERS, "session"])
        if kind == "session":
            definition, oracle = SESSION, SESSION_ORACLE
        else:
            window = INNERS[kind][0]
            first = f"SELECT k, {window} AS w, count(*) AS n, sum(x) AS total, max(x) AS peak FROM {rng.choice(SOURCES)} WHERE x <> {rng.randrange(10)} GROUP BY k, {window}"
            definition, oracle = first.format(s="s", d="d"), first.format(s="o", d="d_o")
        name = f"c{i}_1"
        continuous(db, name, definition)
        depth = rng.choice(depths)
        for level in range(2, depth + 1):
            query = rng.choice(LAST if level == depth else OUTERS)
            oracle = query.format(m=f"({oracle}) AS m" if " m " not in query else f"({oracle})")
            definition = query.format(m=name)
            name = f"c{i}_{level}"
            continuous(db, name, definition)
        result[name] = oracle
    return result


def names_table(db: Database) -> None:
    db.execute("CREATE TABLE names (k int, name text); INSERT INTO names SELECT i, 'name ' || i % 3 FROM generate_series(0, 3) AS i")


def assert_chains(db: Database, views: dict[str, str]) -> None:
    """The far row's key is in no oracle; and nothing of it is closed."""
    for name, oracle in views.items():
        db.assert_same(f"TABLE {name}", oracle)
    lost = db.rows("SELECT view::text, accepted, late, rejected FROM streamext.continuous_views WHERE late > 0 OR rejected > 0")
    assert not lost, lost


@pytest.mark.parametrize("round_", range((CHAINS + 7) // 8))
def test_random_chains(database: Database, round_: int) -> None:
    db = database
    stream(db)
    names_table(db)
    views = chains(db, random.Random(SEED + round_), 8)
    feed(db, SEED + round_)
    assert_chains(db, views)
    assert sum(db.value(f"SELECT count(*) > 0 FROM {name}") for name in views) > 4, "not because all is empty"


@pytest.mark.parametrize("fault", ["into-before-commit", "into-after-commit", "checkpoint-before-commit", "checkpoint-after-commit"])
@pytest.mark.parametrize("round_", range((CHAINS + 7) // 8))
def test_closed_windows_arrive_once_whatever_crashes(database: Database, fault: str, round_: int) -> None:
    db = database
    stream(db)
    names_table(db)
    views = chains(db, random.Random(f"{fault} {SEED + 2 + round_}"), 2, (3,))
    rng = random.Random(f"{fault} {round_}")
    for step in range(4):
        if step in (1, 2):
            before = set_fault(db, fault if step == 1 else "none")
        insert_both(db, rows(rng, 600, 1200 * step, 1200))
        until_quiet(db)
        if step == 1:
            wait_for_crash(db, fault, before)
    close_all(db)
    assert_chains(db, views)


def test_the_watermark_is_the_inner_ones_less_its_window(database: Database) -> None:
    """Windows without rows close the outer ones too."""
    db = database
    stream(db)
    db.execute("CREATE TABLE hours (h timestamptz, n numeric)")
    continuous(db, "minute", "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s WHERE k = 1 GROUP BY w")
    continuous(db, "hour", "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minute GROUP BY h", ", streamext.into = 'hours'")
    insert(db, "s", [(1, 1, BEGIN), (1, 1, BEGIN + timedelta(seconds=70))])
    for offset, closed in ((60, 0), (3600 + 59 + 5, 0), (3600 + 60 + 5, 1)):
        insert(db, "s", [(2, 1, BEGIN + timedelta(seconds=offset))])
        db.flush("s")
        assert db.value("SELECT count(*) FROM hours") == closed, offset
    assert db.rows("TABLE hours") == [(BEGIN, 2)]


def test_other_definitions_begin_anew(database: Database) -> None:
    db = database
    stream(db)
    continuous(db, "minute", MINUTE.format(s="s"))
    continuous(db, "hour", "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minute GROUP BY h")
    feed(db)
    o = MINUTE.format(s="o")

    def check(query: str) -> None:
        db.flush("s")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'hour'::regclass") == "running", what="running")
        db.flush("s")
        db.assert_same("TABLE hour", query)

    check(f"SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM ({o}) q GROUP BY h")
    db.execute("CREATE OR REPLACE VIEW hour WITH (streamext.continuous) AS SELECT date_trunc('hour', w) AS h, sum(total) AS n FROM minute WHERE k > 1 GROUP BY h")
    check(f"SELECT date_trunc('hour', w) AS h, sum(total) AS n FROM ({o}) q WHERE k > 1 GROUP BY h")
    inner = MINUTE.replace("FROM", "FROM").replace("max(x)", "min(x)").replace("sum(x)", "sum(x + 1)")
    db.execute(f"CREATE OR REPLACE VIEW minute WITH (streamext.continuous) AS {inner.format(s='s')}")
    db.execute("DROP TABLE o; CREATE TABLE o (k int, x int, ts timestamptz)")
    feed(db, 2)  # a local stream's view that is replaced counts from then on
    assert db.value("SELECT count(*) FROM minute WHERE k <> 99") >= 0
    db.flush("s")
    db.assert_same("TABLE hour", "SELECT date_trunc('hour', w) AS h, sum(total) AS n FROM minute WHERE k > 1 AND k < 99 GROUP BY h")
    db.execute("SELECT streamext.rebuild('hour')")
    check("SELECT date_trunc('hour', w) AS h, sum(total) AS n FROM minute WHERE k > 1 AND k < 99 GROUP BY h")


def test_circles_and_dependants(database: Database) -> None:
    db = database
    stream(db)
    local_stream(db, BY_TS, COLUMNS, name="s2")
    continuous(db, "a", MINUTE.format(s="s"))
    continuous(db, "b", "SELECT k, streamext.tumble('1 h', w) AS w, sum(n) AS n, sum(total) AS total, max(peak) AS peak FROM a GROUP BY k, streamext.tumble('1 h', w)")
    assert db.value("SELECT count(*) FROM streamext.workers") == 3
    for replaced in ("a", "b"):
        refusal = db.refusal(f"CREATE OR REPLACE VIEW {replaced} WITH (streamext.continuous) AS SELECT k, streamext.tumble('1 h', w) AS w, sum(n)::bigint AS n, sum(total)::bigint AS total, max(peak) AS peak FROM b GROUP BY k, streamext.tumble('1 h', w)")
        assert refusal[:5] in ("42P17", "42P16"), refusal
    assert "depends" in db.refusal("DROP VIEW a")
    # by way of a stream
    assert "circle" in db.refusal("CREATE VIEW c WITH (streamext.continuous, streamext.into = 's') AS SELECT k, 1 AS x, streamext.tumble('2 h', w) AS ts FROM b GROUP BY k, streamext.tumble('2 h', w)")
    db.execute("DROP VIEW a CASCADE")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.workers") == 2, what="the views' workers have gone")


REFUSED = {
    "SELECT date_trunc('hour', max) AS h, count(*) FROM plain GROUP BY 1": "aggregate without a window",
    "SELECT count(*) FROM sliding": "slide over now()",
    "SELECT count(*) FROM limited": "LIMIT in FROM",
    "SELECT count(*) FROM ranked": "window functions in FROM",
    "SELECT count(*) FROM aged": "in the output of a continuous view in FROM",
    "SELECT streamext.tumble('1 h', u) AS w, count(*) FROM unnamed GROUP BY w": "on anything but the stream's event time",
    "SELECT count(*) FROM minute m JOIN s USING (k)": "joined continuous views",
    "SELECT count(*) FROM minute a JOIN minute b USING (k)": "joined continuous views",
    "SELECT count(*) FROM written": "keep no rows",
}


def test_refused(database: Database) -> None:
    db = database
    stream(db)
    continuous(db, "minute", MINUTE.format(s="s"))
    continuous(db, "plain", "SELECT k, max(ts) FROM s GROUP BY k")
    continuous(db, "sliding", "SELECT k, count(*) FROM s WHERE ts > now() - interval '1 min' GROUP BY k")
    continuous(db, "limited", "SELECT date_trunc('minute', ts) AS w, count(*) FROM s GROUP BY w LIMIT 3")
    continuous(db, "ranked", "SELECT date_trunc('minute', ts) AS w, rank() OVER (ORDER BY count(*)) FROM s GROUP BY w")
    continuous(db, "aged", "SELECT date_trunc('minute', ts) AS w, now() - date_trunc('minute', ts) AS age, count(*) FROM s GROUP BY w")
    continuous(db, "unnamed", "SELECT date_trunc('minute', ts) + interval '1 min' AS u, count(*) FROM s GROUP BY date_trunc('minute', ts)")
    continuous(db, "written", "SELECT k, x FROM s", ", streamext.into = 'o'")
    for query, reason in REFUSED.items():
        refusal = db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
        assert refusal.startswith("0A000") and reason in refusal and "HINT: " in refusal, (query, refusal)


def test_rights(database: Database) -> None:
    """Who may read the inner view may make one over it, without rights on the stream."""
    db = database
    stream(db)
    db.execute("CREATE ROLE over; GRANT CREATE ON SCHEMA public TO over")
    try:
        continuous(db, "minute", MINUTE.format(s="s"))
        hour = "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minute GROUP BY h"
        db.execute("SET ROLE over")
        assert db.refusal(f"CREATE VIEW hour WITH (streamext.continuous) AS {hour}").startswith("42501")
        db.execute("RESET ROLE; GRANT SELECT ON minute TO over; SET ROLE over")
        continuous(db, "hour", hour)
        db.execute("RESET ROLE")
        feed(db)
        db.execute("SET ROLE over")
        db.assert_same("TABLE hour", "SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM minute WHERE k < 99 GROUP BY h")
        db.execute("RESET ROLE; REVOKE SELECT ON minute FROM over; SET ROLE over")
        assert db.refusal("TABLE hour").startswith("42501")
        db.execute("RESET ROLE")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'hour'::regclass") == "failed", what="failed")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY over CASCADE; DROP ROLE over")


def test_letters_show_no_more_than_the_views(database: Database) -> None:
    """A row of the inner view that the outer one rejects has columns that who may read the outer one, or makes it, may not read."""
    db = database
    stream(db)
    db.execute("CREATE ROLE over; GRANT CREATE ON SCHEMA public TO over; GRANT USAGE ON SCHEMA streamext TO over")
    try:
        continuous(db, "minute", MINUTE.format(s="s"))
        db.execute("GRANT SELECT (k, w, n) ON minute TO over; SET ROLE over")
        continuous(db, "hour", "SELECT date_trunc('hour', w) AS h, sum(1 / (n - n)) AS n FROM minute GROUP BY h")
        db.execute("RESET ROLE")
        feed(db, count=300)
        letters = "SELECT count(*) > 0, count(payload) > 0, count(payload_text) > 0 FROM streamext.dead_letters WHERE sqlstate = '22012'"
        assert db.rows(letters) == [(True, True, True)]
        db.execute("SET ROLE over")
        assert db.rows(letters) == [(True, False, False)]
    finally:
        db.execute("RESET ROLE; DROP OWNED BY over CASCADE; DROP ROLE over")


def test_a_view_without_aggregates_over_windows(database: Database) -> None:
    """Rows of closed windows as a derived stream, and into a table."""
    db = database
    stream(db)
    db.execute("CREATE TABLE busy (k int, w timestamptz, n bigint)")
    continuous(db, "minute", MINUTE.format(s="s"))
    continuous(db, "d", "SELECT k, w, n * 2 AS twice FROM minute WHERE n > 3")
    continuous(db, "v", "SELECT date_trunc('hour', w) AS h, sum(twice) FROM d GROUP BY h")
    continuous(db, "written", "SELECT k, w, n FROM minute WHERE n > 3", ", streamext.into = 'busy'")
    feed(db)
    inner = f"({MINUTE.format(s='o')}) m"
    db.assert_same("TABLE d", f"SELECT k, w, n * 2 FROM {inner} WHERE n > 3")
    db.assert_same("TABLE v", f"SELECT date_trunc('hour', w) AS h, sum(n * 2) FROM {inner} WHERE n > 3 GROUP BY h")
    db.assert_same("TABLE busy", f"SELECT k, w, n FROM {inner} WHERE n > 3")


def test_the_first_hours_of_all_time(database: Database) -> None:
    """PostgreSQL has no start for the month, the year of 4714 BC: a record of that time is rejected by views that need one, and holds up none."""
    db = database
    stream(db)
    units = {"hour": "'hour', ts", "day": "'day', ts", "year": "'year', ts", "here": "'year', ts, 'Europe/Berlin'", "millennium": "'millennium', ts"}
    for unit, bucket in units.items():
        inner = f"SELECT date_trunc({bucket}) AS w, count(*) AS n FROM s GROUP BY w"
        db.execute(f"CREATE TABLE written_{unit} (w timestamptz, n bigint)")
        continuous(db, f"v_{unit}", inner, ", streamext.lateness = '50 days'")
        continuous(db, f"kept_{unit}", inner, ", streamext.retention = '1 day'")
        continuous(db, f"over_{unit}", f"SELECT streamext.tumble('9 days', w), sum(n) AS n FROM v_{unit} GROUP BY 1")
        continuous(db, f"into_{unit}", inner, f", streamext.into = 'written_{unit}'")
    for at in ("4714-11-24 00:00 BC", "4714-12-31 BC", "4714-12-31 23:06:32 BC", "4713-01-01 BC", "4713-02-25 BC", "4000-01-01 BC", "2024-01-01"):
        db.execute(f"INSERT INTO s VALUES (1, 1, '{at}')")
        db.flush("s")
    rejected = {"hour": 0, "day": 0, "year": 3, "here": 2, "millennium": 5}  # in Berlin clocks were 53 min 28 s ahead
    for unit in units:
        assert counts(db, f"v_{unit}") == (7 - rejected[unit], 0, rejected[unit]), unit
        db.assert_same(f"SELECT w::text, n FROM written_{unit}", f"SELECT w::text, n FROM v_{unit} WHERE w < '2000-01-01'")
        assert db.value(f"SELECT sum(n) FROM over_{unit}") == 6 - rejected[unit], unit
        assert db.value(f"SELECT sum(n) FROM kept_{unit}") == 1, unit
