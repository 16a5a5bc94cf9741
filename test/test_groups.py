"""GROUP BY above a continuous view is done in its scan (src/read/groups.c); the same query with a volatile condition is PostgreSQL's own plan."""

import random
from datetime import UTC, datetime

import psycopg
import pytest

from harness.database import Database
from harness.streams import continuous, local_stream
from harness.wait import wait_for

NODE = "ContinuousViewGroups"
COLUMNS = "k text, m numeric, ts timestamptz, i int, f float8, t text"
MERGED = {
    "n": "count(*)", "ni": "count(i)", "si": "sum(i)", "af": "avg(f)", "mi": "min(i)", "mf": "max(f)", "mt": "max(t)", "sd": "stddev(f)",
    "ar": "array_agg(i ORDER BY i)", "dk": "count(DISTINCT i)", "pc": "percentile_cont(0.5) WITHIN GROUP (ORDER BY f)", "fl": "count(*) FILTER (WHERE i > 5)",
}  # fmt: skip
OUTPUTS = ", ".join(f"{call} AS {name}" for name, call in MERGED.items())
NATIVE = "count(*) AS n, count(i) AS ni, sum(i) AS si, min(i) AS mi, max(f) AS mf, avg(f) AS af"
# New York's clocks are set back on 3 November, 06:00 UTC
BEGIN = datetime(2024, 11, 1, tzinfo=UTC)
ROWS = f"""SELECT 'k' || g % 7, (g % 4)::numeric(6, 2) / (CASE WHEN g % 2 = 0 THEN 1 ELSE 1.000 END), timestamptz '{BEGIN}' + g * interval '3 min',
    nullif(g % 13, 3), g % 11 + 0.5, 't' || g % 5 FROM generate_series({{}}, {{}}) g"""
LAST = 2400  # of the rows: five days
VIEWS = {"native": NATIVE, "mixed": OUTPUTS}
WINDOWS = {
    "tumble": "streamext.tumble('10 min', ts)", "trunc": "date_trunc('hour', ts)", "hop": "streamext.hop('30 min', '10 min', ts)", "session": "streamext.session('2 min', ts)",
}  # fmt: skip
GROUPS = [
    "date_trunc('hour', w)", "date_trunc('day', w)", "date_trunc('day', w, 'America/New_York')", "date_trunc('month', w)", "date_bin('45 min', w, '2024-01-01')",
    "streamext.tumble('2 h', w)", "w", "extract(hour FROM w)", "to_char(w, 'Dy')", "date_trunc('hour', w) > '2024-11-03'",
]  # fmt: skip
WHERES = [
    "w >= '2024-11-02'", "w < '2024-11-04 07:30+00'", "w = '2024-11-03 05:00+00'", "k = 'k1'", "k <> 'k2'", "m > 1", "extract(hour FROM w) BETWEEN 3 AND 20", "k > 'k3' AND w > '2024-11-03'",
]  # fmt: skip
HAVINGS = ["streamext.merge(n) > 10", "count(*) > 3", "max(mf) < 9", "true"]
ZONES = ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]


def feed(db: Database) -> None:
    """Most windows are in history, some in memory."""
    local_stream(db, "event_time 'ts', watermark_delay '6 h'", COLUMNS)
    for view, outputs in VIEWS.items():
        for window, call in WINDOWS.items():
            keys = "m" if window == "trunc" else "k, m"
            continuous(db, f"{view}_{window}", f"SELECT {keys}, {call} AS w, {outputs} FROM s GROUP BY {keys}, w", ", streamext.retention = '4 days'" if window == "trunc" else "")
    continuous(db, "whole", f"SELECT k, m, {OUTPUTS} FROM s GROUP BY k, m")
    for begin in range(0, LAST, 600):
        db.execute(f"INSERT INTO s {ROWS.format(begin, begin + 599)}")
        db.flush("s")
    wait_for(lambda: db.value("SELECT min(history_panes) FROM streamext.continuous_views WHERE view::text ~ 'tumble|trunc'") > 10, what="history")


@pytest.fixture
def fed(db: Database) -> Database:
    feed(db)
    return db


def aggregates(rng: random.Random, view: str) -> list[str]:
    names = list(MERGED) if view.startswith(("mixed", "whole")) else ["n", "ni", "si", "mi", "mf", "af"]
    calls = [f"streamext.merge({name})" for name in names] + ["sum(n)", "sum(ni)", "max(mf)", "min(mi)", "count(*)", "coalesce(sum(n), 0) + 1"]
    return rng.sample(calls, rng.randrange(1, 6))


def query(rng: random.Random) -> tuple[str, str]:
    """In the scan, and by PostgreSQL's own plan."""
    view = rng.choice([f"{v}_{w}" for v in VIEWS for w in WINDOWS] + ["whole"])
    keys = ["m"] if view.endswith("trunc") else ["k", "m"]
    groups = [key for key in keys if rng.random() < 0.5]
    conditions = []
    for condition in rng.sample(WHERES, rng.randrange(3)):
        if (view == "whole" and "w" in condition) or ("k " in condition and "k" not in keys):
            continue
        conditions.append(condition)
    if view != "whole":
        groups += rng.sample(GROUPS, rng.randrange(3))
    having = f" HAVING {rng.choice(HAVINGS)}" if rng.random() < 0.3 else ""
    body = f"SELECT {', '.join([*groups, *aggregates(rng, view)])} FROM {view} WHERE {{}}"
    tail = (f" GROUP BY {', '.join(groups)}" if groups else "") + having
    return body.format(" AND ".join(conditions) or "true") + tail, body.format(" AND ".join([*conditions, "random() >= 0"])) + tail


def plan(db: Database, text: str) -> str:
    return "\n".join(line for (line,) in db.rows("EXPLAIN " + text))


def test_the_same_as_the_plain_plan(fed: Database) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(60):
        fed.execute(f"SET timezone = '{rng.choice(ZONES)}'")
        ours, theirs = query(rng)
        assert NODE in plan(fed, ours), ours
        assert NODE not in plan(fed, theirs), theirs
        fed.assert_same(ours, theirs)


# Clocks are set back in the middle of a day, and from one minute past midnight into the day before.
@pytest.mark.parametrize("zone, begin", [("America/St_Johns", "2006-10-28"), ("Australia/Lord_Howe", "2024-04-05")])
def test_clocks_that_are_set(db: Database, zone: str, begin: str) -> None:
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    continuous(db, "fine", "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, max(ts) AS last FROM s GROUP BY k, w")
    db.execute(f"INSERT INTO s SELECT g % 3, timestamptz '{begin} 00:00+00' + g * interval '1 min' FROM generate_series(0, 4000) g")
    db.flush("s")
    wait_for(lambda: db.value("SELECT history_panes FROM streamext.continuous_views WHERE view = 'fine'::regclass") == 4000, what="history")
    db.execute(f"SET timezone = '{zone}'")
    for unit in ("minute", "hour", "day", "month"):
        body = f"SELECT k, date_trunc('{unit}', w) AS t, streamext.merge(n), sum(n), max(last), count(*) FROM fine WHERE {{}} GROUP BY 1, 2"
        assert NODE in plan(db, body.format("true"))
        db.assert_same(body.format("true"), body.format("random() >= 0"))


PLAIN = [
    "SELECT k, streamext.merge(n) FILTER (WHERE k > 'k1') FROM native_tumble GROUP BY k",
    "SELECT k, sum(si) FROM native_tumble GROUP BY k",
    "SELECT k || 'x' AS x, streamext.merge(n) FROM native_tumble GROUP BY x",
    "SELECT k, streamext.merge(n) FROM native_tumble WHERE n > 1 GROUP BY k",
    "SELECT k, streamext.merge(n) FROM native_tumble WHERE k = w::text GROUP BY k",
    "SELECT k, w, streamext.merge(n) FROM native_tumble GROUP BY GROUPING SETS ((k), (w))",
    "SELECT a.k, streamext.merge(a.n) FROM native_tumble a JOIN whole b USING (k) GROUP BY a.k",
    "SELECT count(DISTINCT k), streamext.merge(n) FROM native_tumble",
]


def test_what_is_around_it(fed: Database) -> None:
    db = fed
    for text in PLAIN:
        assert NODE not in plan(db, text), text
    inner = "SELECT k, date_trunc('hour', w) AS h, streamext.merge(n) AS n FROM native_tumble WHERE {} GROUP BY 1, 2"
    for above in ("SELECT k, max(n), avg(n) FROM ({}) q GROUP BY k", "SELECT * FROM ({}) q JOIN whole USING (k) WHERE h > '2024-11-02'", "SELECT k, n, rank() OVER (ORDER BY n) FROM ({}) q ORDER BY h LIMIT 1000000",
                  "SELECT (SELECT max(n) FROM ({}) q WHERE q.k = o.k AND q.h > o.since) FROM (VALUES ('k1', timestamptz '2024-11-02'), ('k2', '2024-11-03'), ('none', '2024-11-03')) o (k, since)"):  # fmt: skip
        assert NODE in plan(db, above.format(inner.format("true")))
        db.assert_same(above.format(inner.format("true")), above.format(inner.format("random() >= 0")))
    # one node run again and again with another parameter, and prepared
    lateral = "SELECT * FROM generate_series(timestamptz '2024-11-01', '2024-11-06', '1 day') d, LATERAL (SELECT k, streamext.merge(n), count(*) FROM native_tumble WHERE w >= d AND {} GROUP BY k) q"
    db.assert_same(lateral.format("true"), lateral.format("random() >= 0"))
    db.execute("PREPARE p (text) AS SELECT date_trunc('day', w), streamext.merge(n) FROM native_tumble WHERE k = $1 GROUP BY 1")
    for mode in ("force_custom_plan", "force_generic_plan"):
        db.execute(f"SET plan_cache_mode = {mode}")
        assert sorted(db.rows("EXECUTE p ('k1')")) == sorted(db.rows("SELECT date_trunc('day', w), streamext.merge(n) FROM native_tumble WHERE k = 'k1' AND random() >= 0 GROUP BY 1"))
    # nothing at all
    assert db.rows("SELECT streamext.merge(n), sum(n), count(*), max(mf), streamext.merge(af) FROM native_tumble WHERE k = 'none'") == [(0, None, 0, None, None)]
    assert db.rows("SELECT k, streamext.merge(n) FROM native_tumble WHERE k = 'none' GROUP BY k") == []


def test_whose_code_runs(fed: Database) -> None:
    """Aggregates of the view's owner run as he, conditions and GROUP BY as the reader."""
    db = fed
    db.execute("CREATE ROLE keeper; CREATE ROLE reader; GRANT USAGE, CREATE ON SCHEMA public TO keeper, reader; GRANT SELECT ON s TO keeper; SET ROLE keeper")
    db.execute("CREATE FUNCTION keeps(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END'")
    db.execute("ALTER FUNCTION keeps IMMUTABLE; CREATE AGGREGATE who(text) (SFUNC = keeps, STYPE = text, COMBINEFUNC = keeps)")
    continuous(db, "owned", "SELECT k, streamext.tumble('10 min', ts) AS w, who(t) AS who FROM s GROUP BY k, w")
    db.execute("GRANT SELECT ON owned TO reader; RESET ROLE; SET ROLE reader")
    db.execute("CREATE FUNCTION me(text) RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END'")
    text = "SELECT me(w::text), streamext.merge(who) FROM owned WHERE me(k) = 'reader' GROUP BY 1"
    assert NODE in plan(db, text)
    db.execute("RESET ROLE")
    db.execute("INSERT INTO s SELECT 'k', 1, '2024-11-06 12:00+00'::timestamptz + g * interval '1 min', 1, 1, 'x' FROM generate_series(0, 100) g")
    db.flush("s")
    db.execute("SET ROLE reader")
    assert db.rows(text) == [("reader", "keeper")]
    db.execute("RESET ROLE; REVOKE SELECT ON owned FROM reader; SET ROLE reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.rows(text)
    db.execute("RESET ROLE; DROP OWNED BY reader, keeper CASCADE; DROP ROLE reader, keeper")


def test_panes_of_many_groups(db: Database) -> None:
    """They are combined some hundred entries at a time, those of memory and of history's buckets alike."""
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    continuous(db, "fine", "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, max(k) AS mk, min(ts) AS first FROM s GROUP BY k, w")
    db.execute("INSERT INTO s SELECT g % 1100, timestamptz '2024-01-01' + g * interval '20 ms' FROM generate_series(1, 33000) g")
    db.flush("s")
    wait_for(lambda: db.value("SELECT history_panes FROM streamext.continuous_views WHERE view = 'fine'::regclass") == 11, what="history")
    for outputs in ("date_trunc('hour', w) AS h", "w", "k, date_trunc('hour', w) AS h", "k"):
        for where in ("true", "k > 300", "w > '2024-01-01 00:03' AND k % 3 = 1"):
            groups = ", ".join(str(i + 1) for i in range(outputs.count(",") + 1 - outputs.count("trunc(")))
            body = f"SELECT {outputs}, streamext.merge(n), sum(n), count(*), max(mk), min(first) FROM fine WHERE {where} AND {{}} GROUP BY {groups}"
            assert NODE in plan(db, body.format("true"))
            db.assert_same(body.format("true"), body.format("random() >= 0"))
