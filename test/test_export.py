"""The merge protocol without an engine: plans of the dialect postgres, which PostgreSQL computes itself from raw records in random batches.

STREAMEXT_EXPORT_VIEWS sets how many generated definitions there are (7), STREAMEXT_ORACLE_SEED repeats a run."""

import contextlib
import json
import os
import random
import time
from typing import Any

import psycopg
import pytest

from harness import views
from harness.database import Database, Row
from harness.server import free_port
from harness.streams import continuous, error_of

SEED = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
VIEWS = int(os.environ.get("STREAMEXT_EXPORT_VIEWS", "7"))
RECORDS = 'topic text, partition int, "position" bigint, "timestamp" timestamptz, key bytea, payload bytea'
COLUMNS = "k text, ts timestamptz NOT NULL, n int, x float8"


def kafka_stream(db: Database, columns: str = COLUMNS, options: str = "watermark_delay '1 day'") -> None:
    """Nobody has to be there: records come by export_merge."""
    db.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:{free_port()}')")
    db.execute(f"CREATE FOREIGN TABLE s ({columns}) SERVER k OPTIONS (topic 's', format 'json', event_time 'ts', {options})")


class Engine:
    """One session that reads `records` (as a topic) and merges into a view."""

    def __init__(self, db: Database, view: str = "v", user: str = "postgres", topic: str = "s") -> None:
        self.view, self.topic = view, topic
        self.connection = db.connect(user, autocommit=True)
        self.connection.execute(f"CREATE TEMP TABLE batch ({RECORDS})")
        self.begin()

    def one(self, sql: str, *parameters: Any) -> Row:
        row = self.connection.execute(sql, parameters or None).fetchone()
        assert row is not None
        return row

    def begin(self) -> None:
        self.run, self.plan, self.positions, self.watermark = self.one("SELECT * FROM streamext.export_begin(%s)", self.view)

    def next(self, partition: int) -> int:
        return int(self.positions.get(self.topic, {}).get(str(partition), 0))

    def stage(self, upto: dict[int, int], raw: bool = False) -> tuple[Any, ...]:
        """The batch from where the view is up to these offsets into the stage tables; what export_merge is given."""
        self.connection.execute("DELETE FROM batch")
        for partition, end in upto.items():
            self.connection.execute(
                "INSERT INTO batch SELECT * FROM records WHERE partition = %s AND position >= %s AND position < %s",
                (partition, self.next(partition), end),
            )
        for stage in self.plan["stages"]:
            self.connection.execute(stage["create"])
        if raw:
            self.connection.execute(f"INSERT INTO {self.plan['stages'][1]['table']} TABLE batch")
            newest: Any = {}
        else:
            for stage in self.plan["stages"]:
                self.connection.execute(stage["fill"])
            newest = self.one(self.plan["newest"])[0]
        (counts,) = self.one(self.plan["counts"])
        positions = {self.topic: {str(partition): end for partition, end in upto.items()}}
        return self.view, self.run, json.dumps(positions), json.dumps(newest), json.dumps(counts)

    def merge(self, arguments: tuple[Any, ...]) -> None:
        (self.watermark,) = self.one("SELECT streamext.export_merge(%s, %s, %s, %s, %s)", *arguments)
        for partition, end in json.loads(arguments[2])[self.topic].items():
            self.positions.setdefault(self.topic, {})[partition] = end

    def batch(self, upto: dict[int, int], raw: bool = False) -> None:
        with self.connection.transaction():
            self.merge(self.stage(upto, raw))


def put(db: Database, *payloads: Any, partition: int = 0) -> None:
    for payload in payloads:
        body = payload if isinstance(payload, str) else json.dumps(payload)
        db.execute(
            "INSERT INTO records SELECT 's', %s, count(*), now(), NULL, convert_to(%s, 'UTF8') FROM records WHERE partition = %s",
            partition, body, partition,
        )  # fmt: skip


@pytest.fixture
def stream(db: Database) -> Database:
    kafka_stream(db)
    db.execute(f"CREATE TABLE records ({RECORDS})")
    return db


def row(k: str | None, second: float, n: int | None = 1, x: float | None = 1) -> dict[str, Any]:
    return {"k": k, "ts": f"2024-05-01T11:{int(second // 60):02}:{second % 60:06.3f}Z", "n": n, "x": x}


def exported(db: Database, query: str, options: str = "") -> None:
    continuous(db, "v", query, options)
    db.execute("SELECT streamext.export('v', 'postgres')")


def refused(connection: psycopg.Connection, sql: str, *parameters: Any) -> tuple[str, str, str]:
    with pytest.raises(psycopg.Error) as error:
        connection.execute(sql, parameters or None)
    return error_of(error)


# ---------------------------------------------------------------- generated definitions


def is_exported(db: Database, reasons: dict[str, int]) -> bool:
    """Exports v; a refusal is counted by its reason."""
    try:
        db.execute("SELECT streamext.export('v', 'postgres')")
    except psycopg.errors.FeatureNotSupported as error:
        reason = str(error.diag.message_primary).split(": ")[1]
        reasons[reason] = reasons.get(reason, 0) + 1
        return False
    return True


def feed(db: Database, rng: random.Random) -> None:
    """Ordinary rows in o, and as JSON records of two partitions in records."""
    for count in (1, 30, 400):
        db.execute(f"INSERT INTO o VALUES {', '.join(views.rows(rng, count, views.NOW))}")
    db.execute("""INSERT INTO records SELECT 's', p, row_number() OVER (PARTITION BY p ORDER BY r) - 1, now(), NULL, body
        FROM (SELECT convert_to(row_to_json(o)::text, 'UTF8') AS body, (random() < 0.3)::int AS p, random() AS r FROM o) q""")


def disturb(engine: Engine, rng: random.Random, arguments: tuple[Any, ...]) -> None:
    """What must change nothing: the batch once more, a run that is over, positions that go back."""
    what = rng.choice(["again", "begin", "stale", "back", "lost"])
    if what in ("again", "lost"):
        engine.merge(arguments)
    elif what == "begin":
        engine.begin()
    elif what == "stale":
        stale = engine.run
        engine.begin()
        assert refused(engine.connection, "SELECT streamext.export_merge(%s, %s, %s, '{}', '{}')", engine.view, stale, json.dumps({engine.topic: {"0": 999999}}))[0] == "55000"
    elif engine.next(0) > 0:
        assert refused(engine.connection, "SELECT streamext.export_merge(%s, %s, %s, '{}', '{}')", engine.view, engine.run, json.dumps({engine.topic: {"0": 0}}))[0] == "22023"


def run_all(engine: Engine, db: Database, rng: random.Random) -> None:
    ends = dict(db.rows("SELECT partition, max(position) + 1 FROM records GROUP BY 1"))
    while any(engine.next(p) < end for p, end in ends.items()):
        upto = {p: min(end, engine.next(p) + rng.randint(0, 200)) for p, end in ends.items()}
        with engine.connection.transaction():
            arguments = engine.stage(upto, rng.random() < 0.3)
            died = rng.random() < 0.2  # before its commit
            if died:
                raise psycopg.Rollback
            engine.merge(arguments)
        if not died and rng.random() < 0.4:
            disturb(engine, rng, arguments)


@pytest.mark.timeout(900)
def test_spread_is_rounded_once(db: Database) -> None:
    """Standard deviations just below a half of their last digit are PostgreSQL's own."""
    db.execute("CREATE TABLE samples (k int, x numeric)")
    db.execute("INSERT INTO samples VALUES (0, 0), (0, 2147483647), (1, 5), (2, 3), (2, 3), (3, 'NaN'), (3, 1), (4, 'Infinity'), (5, 1e-20), (5, 2e-20), (6, 123456789.5), (6, -1)")
    db.execute("SELECT setseed(0.4)")
    db.execute("INSERT INTO samples SELECT 10 + i % 400, round((random() * 10 ^ (i % 21 - 9))::numeric, i % 5) FROM generate_series(1, 2000) i")
    db.execute("INSERT INTO samples SELECT 500 + i, v FROM generate_series(1, 300) i, unnest(ARRAY[0, i * 7158278]) v")
    spread = ", ".join(f"streamext.export_spread(count(x), sum(x), sum(x * x), {sample}, {root})::text AS {name}" for name, sample, root in SPREADS)
    db.assert_same(f"SELECT k, {spread} FROM samples GROUP BY k", f"SELECT k, {', '.join(f'{name}(x)::text AS {name}' for name, _, _ in SPREADS)} FROM samples GROUP BY k")


SPREADS = (("var_pop", False, False), ("var_samp", True, False), ("stddev_pop", False, True), ("stddev_samp", True, True))


def test_generated_definitions(db: Database, request: pytest.FixtureRequest) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    kafka_stream(db, views.COLUMN_LIST)
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    db.execute(f"CREATE TABLE records ({RECORDS})")
    feed(db, rng)
    total = db.value("SELECT count(*) FROM records")
    reasons: dict[str, int] = {}
    db.execute("SELECT streamext.set_clock(%s)", views.NOW)
    try:
        for _ in range(VIEWS):
            definition = views.definition(rng, views.KEPT if rng.random() < 0.5 else ())
            db.execute(f"CREATE VIEW v WITH (streamext.continuous{definition.options}) AS {definition.view('s')}")
            columns = db.rows("SELECT attname, atttypid, atttypmod, attcollation FROM pg_attribute WHERE attrelid = 'v'::regclass")
            if not is_exported(db, reasons):
                db.execute("DROP VIEW v")
                continue
            engine = Engine(db)
            db.assert_same("TABLE v", f"SELECT * FROM ({definition.query('(SELECT * FROM o LIMIT 0) AS o', views.NOW)}) q")
            run_all(engine, db, rng)
            db.assert_same("TABLE v", definition.query("o", views.NOW))
            assert columns == db.rows("SELECT attname, atttypid, atttypmod, attcollation FROM pg_attribute WHERE attrelid = 'v'::regclass")
            assert db.rows("SELECT delivered, accepted, late, rejected FROM streamext.exports") == [(total, total, 0, 0)]
            engine.connection.close()
            db.execute("DROP VIEW v")
            assert db.rows("SELECT to_regclass('v_export'), count(*) FROM streamext.exported") == [(None, 0)]
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
    done = VIEWS - sum(reasons.values())
    print(f"exported {done} of {VIEWS}; refused: {reasons}")
    assert done * 3 >= VIEWS * 2


# ---------------------------------------------------------------- plans


REFUSED = {
    "SELECT array_agg(n) FROM s": "array_agg",
    "SELECT array_agg(DISTINCT n) FROM s": "array_agg",
    "SELECT count(DISTINCT (k, n)) FROM s": "count over type record",
    "SELECT count(DISTINCT ARRAY[n]) FROM s": "count over type integer[]",
    "SELECT count(DISTINCT 5) FROM s": "count(DISTINCT) of a constant",
    "SELECT corr(DISTINCT x, n) FROM s": "corr(DISTINCT)",
    "SELECT streamext.first(k, ts ORDER BY n) FROM s": "first with ORDER BY",
    "SELECT corr(x, n ORDER BY k) FROM s": "corr with ORDER BY",
    "SELECT streamext.approx_percentile(x, x) FROM s": "a fraction that is no constant",
    "SELECT streamext.approx_percentile(NULL, x) FROM s": "a fraction that is no constant",
    "SELECT streamext.approx_percentile(1.5, x) FROM s": "not between 0 and 1",
    "SELECT k, n FROM s": "without aggregates",
    "SELECT count(*) FROM s JOIN other USING (k)": "joins",
}


def test_refused(stream: Database) -> None:
    stream.execute("CREATE TABLE other (k text)")
    for query, what in REFUSED.items():
        continuous(stream, "v", query)
        sqlstate, message, hint = refused(stream.connection, "SELECT streamext.export_plan('v', 'postgres')")
        assert sqlstate == "0A000" and what in message and hint
        stream.execute("DROP VIEW v")


# Of rows with as many equal times as there are rows of a key: among them the first of its partition counts, and it is of that partition alone.
KEPT = {
    "first": "streamext.first(n, ts) AS f, streamext.last(n, ts) AS l, streamext.first(x, ts) FILTER (WHERE n > 3) AS fx, streamext.last(k, ts) AS lk",
    "distinct": """count(DISTINCT n) AS n, count(DISTINCT k) AS k, sum(DISTINCT n) AS s, avg(DISTINCT x) AS a, count(DISTINCT ts) FILTER (WHERE n < 9) AS t,
        var_pop(DISTINCT n) AS v, bit_xor(DISTINCT n) AS b, max((k || n)::char(4)) AS c, count(DISTINCT (k || n)::char(4)) AS d""",
    "sketches": """streamext.approx_count_distinct(n) AS n, streamext.cardinality(streamext.sketch_distinct(k)) AS k, streamext.approx_percentile(0.5, x) AS p,
        streamext.approx_percentile(0.9, n) FILTER (WHERE x > 0) AS q, streamext.percentile(streamext.sketch_percentile(x), 0.2) AS r,
        streamext.sketch_distinct(n) FILTER (WHERE n > 1000) IS NULL AS none, streamext.sketch_distinct(x) FILTER (WHERE n = 3) IS NULL AS some""",
}
GROUPS = {
    "none": ("", "GROUP BY k"),
    "all": ("", ""),
    "tumble": ("streamext.tumble('10 s', ts) AS w, ", "GROUP BY k, w"),
    "hop": ("streamext.hop('20 s', '10 s', ts) AS w, ", "GROUP BY k, w"),
    "sets": ("", "GROUP BY GROUPING SETS ((k), ())"),
}


@pytest.mark.parametrize("what", KEPT)
def test_values_that_are_kept(stream: Database, what: str) -> None:
    """In any batches, raw or not, late or again: as PostgreSQL has it over the rows in the order of their partition."""
    db, rng = stream, random.Random(SEED)
    print(f"seed {SEED}")
    rows = [row(rng.choice(["a", "b", None]), rng.randrange(30), rng.choice([None, *range(12)]), rng.choice([None, 0.5, -2.25, 1e9, 7, 0])) for _ in range(120)]
    put(db, *rows)
    db.execute("""CREATE TABLE o AS SELECT r.* FROM records, json_to_record(convert_from(payload, 'UTF8')::json) AS r(k text, ts timestamptz, n int, x float8) ORDER BY position""")
    for name, (window, by) in GROUPS.items():
        query = f"SELECT {window}{'k AS key, ' if 'k' in by else ''}{KEPT[what]} FROM %s {by}"
        exported(db, query % "s")
        db.assert_same("TABLE v", query % "(SELECT * FROM o LIMIT 0) AS o")
        engine = Engine(db)
        run_all(engine, db, rng)
        db.assert_same("TABLE v", query % "o")
        assert db.rows("SELECT accepted, late, rejected FROM streamext.exports") == [(120, 0, 0)], name
        engine.connection.close()
        db.execute("DROP VIEW v")


def test_values_that_are_late(db: Database) -> None:
    """What counts in some windows of a pane, or in none, is the same for all aggregates: here each value comes once."""
    kafka_stream(db, options="watermark_delay '5 s', idle_timeout '1 hour'")
    db.execute(f"CREATE TABLE records ({RECORDS})")
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    order = sorted(range(120), key=lambda second: second + rng.uniform(0, 35))
    put(db, *[row("a", second, second, second) for second in order])
    exported(db, """SELECT streamext.hop('20 s', '10 s', ts) AS w, count(*) AS c, count(DISTINCT n) AS dc, sum(n) AS s, sum(DISTINCT n) AS ds, min(n) AS low, streamext.first(n, ts) AS f,
        max(n) AS high, streamext.last(n, ts) AS l, streamext.approx_count_distinct(n) AS ac, streamext.approx_percentile(1, x) AS p FROM s GROUP BY w""")
    engine = Engine(db)
    while (at := engine.next(0)) < len(order):
        engine.batch({0: min(at + rng.randint(1, 6), len(order))}, raw=rng.random() < 0.3)
    engine.connection.close()
    assert db.value("SELECT late FROM streamext.exports") > 0 and db.value("SELECT count(*) FROM v_export WHERE opens IS NOT NULL") > 0
    assert db.rows("SELECT * FROM v WHERE (c, s, low, high, c) <> (dc, ds, f, l, ac) OR abs(p - high) > high * 0.011") == []


def test_sets_of_anything(db: Database) -> None:
    """Whoever reads the database may call what stands in exported views."""
    one = "SELECT streamext.export_set(a)::text FROM (VALUES {}) v(a)"
    assert db.value(one.format("('{3,1,NULL}'::int[]), (NULL), ('[0:1][5:6]={{1,2},{7,3}}'), ('{}')")) == "{1,2,3,7}"
    assert db.value(one.format("('{}'::text[])")) == "{}" and db.value(one.format("(NULL::text[])")) is None
    assert db.value(one.format("('{NaN,1.0,1.00}'::numeric[]), ('{-Infinity,NaN}')")) == "{-Infinity,1.0,NaN}"
    assert db.value("SELECT streamext_internal.export_set_merge(NULL, '{b,a,b}'::text[])::text") == "{a,b}"
    mixed = "(SELECT most_common_vals AS a FROM pg_stats WHERE attname IN ('relnatts', 'relpages')) v"
    db.execute("ANALYZE pg_catalog.pg_class")
    for call in ("streamext.export_set(a)", "streamext_internal.export_distinct(a)"):
        state, message, _ = refused(db.connection, f"SELECT {call} FROM {mixed}")
        assert state == "42804", message
    assert refused(db.connection, one.format("(ARRAY[point '(1,1)'])"))[0] == "42883"
    for sql in ("SELECT streamext_internal.export_set_add(NULL, '{1}'::int[])", "SELECT streamext_internal.export_set_final(NULL, '{1}'::int[])"):
        assert refused(db.connection, sql)[0] in ("42883", "0A000")  # by PostgreSQL from 15.20 on, or by the function


def test_first_among_equal_times(stream: Database) -> None:
    """Also where one batch has them decoded and raw, and the later one is merged first."""
    exported(stream, "SELECT streamext.first(n, ts) AS f, streamext.last(n, ts) AS l FROM s")
    put(stream, *[row("a", 5, n) for n in range(4)])
    engine = Engine(stream)
    arguments = engine.stage({0: 4})
    partial, raw = (stage["table"] for stage in engine.plan["stages"])
    engine.connection.execute(f"INSERT INTO {raw} SELECT * FROM batch WHERE position < 2; DELETE FROM batch WHERE position < 2; DELETE FROM {partial}")
    engine.connection.execute(engine.plan["stages"][0]["fill"])
    engine.merge(arguments)
    assert stream.rows("TABLE v") == [(0, 0)]


def test_other_sources_and_options_are_refused(db: Database) -> None:
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    db.execute(f"CREATE FOREIGN TABLE s ({COLUMNS}) SERVER here OPTIONS (event_time 'ts')")
    continuous(db, "v", "SELECT count(*) FROM s")
    assert "wrapper local" in refused(db.connection, "SELECT streamext.export('v', 'postgres')")[1]
    assert refused(db.connection, "SELECT streamext.export_plan('v', 'nothing')")[0] == "22023"
    assert refused(db.connection, "SELECT streamext.export_begin('v')")[0] == "55000"
    assert refused(db.connection, "SELECT streamext.export_plan('streamext.exports', 'postgres')")[0] == "42809"
    db.execute("CREATE VIEW plain AS SELECT 1 AS one")
    assert refused(db.connection, "SELECT streamext.export('plain', 'postgres')")[0] == "42809"
    assert refused(db.connection, "SELECT streamext.import('v')")[0] == "55000"


def test_what_is_over_it(stream: Database) -> None:
    """A continuous view or an alert over an exported view would wait for ever."""
    continuous(stream, "v", "SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY k, w")
    continuous(stream, "over_v", "SELECT date_trunc('minute', w) AS m, sum(n) AS n FROM v GROUP BY m")
    assert '"over_v" is over it' in refused(stream.connection, "SELECT streamext.export('v', 'postgres')")[1]
    stream.execute("DROP VIEW over_v; CREATE VIEW much WITH (streamext.alert, streamext.key = 'k') AS SELECT k, n FROM v WHERE n > 3")
    assert '"much" is over it' in refused(stream.connection, "SELECT streamext.export('v', 'postgres')")[1]
    stream.execute("DROP VIEW much; SELECT streamext.export('v', 'postgres')")


def test_no_secret_is_in_a_plan(stream: Database) -> None:
    stream.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER k OPTIONS (sasl_username 'u', sasl_password 'hidden')")
    continuous(stream, "v", "SELECT k, count(*) AS n FROM s WHERE n > 3 GROUP BY k")
    plan = stream.value("SELECT streamext.export_plan('v', 'postgres')")
    assert "hidden" not in json.dumps(plan)
    assert plan["where"] == "(n > 3)" and plan["keys"] == [{"name": "k1", "type": "text", "sql": "k"}]
    assert [column["name"] for column in plan["columns"]] == ["k", "ts", "n", "x"]


# ---------------------------------------------------------------- exporting


def test_the_view_stays_what_it_is(stream: Database) -> None:
    """OID, grants, comments, what depends on it; and back again."""
    stream.execute("CREATE ROLE reader")
    continuous(stream, "v", "SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY k, w", ", streamext.lateness = '3 s'")
    stream.execute("GRANT SELECT ON v TO reader; COMMENT ON VIEW v IS 'mine'; CREATE VIEW over_v AS SELECT sum(n) AS n FROM v")
    look = "SELECT oid, relacl::text, obj_description(oid), pg_get_viewdef(oid), reloptions FROM pg_class WHERE relname = 'v'"
    (before,) = stream.rows(look)
    put(stream, row("a", 1), row("b", 2), row("a", 11))
    try:
        told: list[str] = []
        stream.connection.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
        stream.execute("SELECT streamext.export('v', 'postgres')")
        assert refused(stream.connection, "SELECT streamext.export('v', 'postgres')")[0] == "55000"
        assert stream.rows("SELECT state, delivered FROM streamext.exports") == [("never_started", 0)]
        Engine(stream).batch({0: 3})
        assert sorted(stream.rows("SELECT k, n FROM v")) == [("a", 1), ("a", 1), ("b", 1)]
        with stream.connection.transaction():
            stream.execute("SET LOCAL ROLE reader")
            assert stream.value("SELECT sum(n) FROM v") == 3
        (exported_,) = stream.rows(look)
        assert exported_[:3] == before[:3] and exported_[4] is None
        stream.execute("SELECT streamext.import('v')")
        assert stream.rows(look) == [before]
        assert told == [] and sorted(stream.rows("SELECT k, n FROM v")) == [("a", 1), ("a", 1), ("b", 1)]
        assert stream.rows("SELECT view FROM streamext.exports") == [] and stream.value("SELECT to_regclass('v_export')") is None
    finally:
        stream.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_records_that_are_not_good(stream: Database) -> None:
    """Malformed ones, those on which an expression raises, and those that WHERE leaves out, however they are sent."""
    exported(stream, "SELECT k, count(*) AS n, sum(10 / n) AS s FROM s WHERE x > 0 GROUP BY k")
    put(stream, row("a", 1), "{bad", row("a", 2, n=0), row("b", 3, x=-1), {"k": "c", "n": 1}, row("b", 4, n=5), row("a", 5, n=None))
    engine = Engine(stream)
    engine.batch({0: 4})
    engine.batch({0: 7}, raw=True)
    assert sorted(stream.rows("TABLE v")) == [("a", 2, 10), ("b", 1, 2)]
    assert stream.rows("SELECT delivered, accepted, late, rejected FROM streamext.exports") == [(7, 4, 0, 3)]
    letters = stream.rows("SELECT position, sqlstate, view IS NULL, payload_text FROM streamext.dead_letters ORDER BY position")
    assert [letter[:3] for letter in letters] == [(1, "22P02", False), (2, "22012", False), (4, "23502", False)]
    assert letters[0][3] == "{bad"


def test_late_records(stream: Database) -> None:
    """Judged by the watermark of the batches before, for each window."""
    stream.execute("ALTER FOREIGN TABLE s OPTIONS (SET watermark_delay '5 s')")
    exported(stream, "SELECT streamext.hop('20 s', '10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    engine = Engine(stream)
    put(stream, row("a", 12), row("a", 36), row("a", 5))
    engine.batch({0: 3})  # the watermark is 31 s: windows that end by 30 are closed
    assert engine.watermark.second == 31
    put(stream, row("a", 15), row("a", 25), row("a", 32))
    engine.batch({0: 6}, raw=True)
    found = {w.minute * 60 + w.second: n for w, n in stream.rows("TABLE v")}
    # 15 s is in the windows of 0 and 10, both closed; 25 s counts in that of 20 alone
    assert found == {3590: 1, 0: 2, 10: 1, 20: 3, 30: 2}
    assert stream.rows("SELECT delivered, accepted, late FROM streamext.exports") == [(6, 5, 1)]


def test_a_silent_partition_does_not_hold_the_watermark(stream: Database) -> None:
    stream.execute("ALTER FOREIGN TABLE s OPTIONS (SET watermark_delay '0', ADD idle_timeout '10 s')")
    exported(stream, "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    try:
        stream.execute("SELECT streamext.set_clock('2024-05-01 11:10:00Z')")
        engine = Engine(stream)
        put(stream, row("a", 60))
        put(stream, row("a", 5), partition=1)
        engine.batch({0: 1, 1: 1})
        assert (engine.watermark.minute, engine.watermark.second) == (0, 5)
        stream.execute("SELECT streamext.set_clock('2024-05-01 11:10:20Z')")
        put(stream, row("a", 70))
        engine.batch({0: 2})
        assert (engine.watermark.minute, engine.watermark.second) == (1, 10)
    finally:
        stream.execute("SELECT streamext.set_clock(NULL)")


def test_other_names(stream: Database) -> None:
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    put(stream, row("a", 1), row("a", 2))
    engine = Engine(stream)
    engine.batch({0: 1})
    stream.execute('CREATE SCHEMA there; ALTER VIEW v RENAME TO "View"; ALTER VIEW "View" SET SCHEMA there; ALTER TABLE v_export RENAME TO "Parts"')
    engine.view = 'there."View"'
    engine.begin()
    engine.batch({0: 2})
    assert stream.rows('TABLE there."View"') == [("a", 2)]
    stream.execute("SELECT streamext.import('there.\"View\"')")
    assert stream.value("SELECT to_regclass('\"Parts\"')") is None


def nothing_left(db: Database, *relations: str) -> None:
    assert db.value("SELECT count(*) FROM streamext.exported") == 0
    for relation in relations:
        assert db.value("SELECT to_regclass(%s)", relation) is None, relation


def test_a_dropped_view_leaves_nothing(stream: Database) -> None:
    """Its table and its row go with it, by whatever statement; what others have over the table holds it."""
    query = "SELECT k, count(*) AS n FROM s WHERE n > 0 GROUP BY k"
    exported(stream, query)
    stream.execute("CREATE VIEW looks AS SELECT * FROM v_export")
    assert refused(stream.connection, "DROP VIEW v")[0] == "2BP01"
    assert refused(stream.connection, "DROP TABLE v_export")[0] == "2BP01"
    stream.execute("DROP VIEW looks; DROP VIEW v")
    nothing_left(stream, "v", "v_export")
    exported(stream, query)  # the names are free
    put(stream, row("a", 1))
    Engine(stream).batch({0: 1})
    assert stream.rows("TABLE v") == [("a", 1)]
    stream.execute("DROP TABLE v_export CASCADE")
    nothing_left(stream, "v", "v_export")
    exported(stream, query)
    stream.execute("CREATE SCHEMA there; ALTER VIEW v SET SCHEMA there; DROP SCHEMA there CASCADE")
    nothing_left(stream, "v", "v_export")
    exported(stream, query)
    with stream.connection.transaction(force_rollback=True):
        stream.execute("DROP VIEW v")
        nothing_left(stream, "v", "v_export")
    assert stream.rows("SELECT view::text FROM streamext.exports") == [("v",)]
    stream.execute("SELECT streamext.import('v'); DROP VIEW v")
    nothing_left(stream, "v", "v_export")


def test_drop_and_merge_wait_for_each_other(stream: Database) -> None:
    """In one order: the view, then its row."""
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    put(stream, row("a", 1))
    engine = Engine(stream)
    stream.execute("SET lock_timeout = '100 ms'")
    with engine.connection.transaction():
        arguments = engine.stage({0: 1})
        engine.merge(arguments)
        for sql in ("DROP VIEW v", "SELECT streamext.import('v')"):
            assert refused(stream.connection, sql)[0] == "55P03", sql
    stream.execute("RESET lock_timeout")
    with stream.connection.transaction():
        stream.execute("DROP VIEW v")
        engine.connection.execute("SET lock_timeout = '100 ms'")
        assert refused(engine.connection, "SELECT streamext.export_begin('v')")[0] == "55P03"
        engine.connection.execute("RESET lock_timeout")
    nothing_left(stream, "v", "v_export")
    assert refused(engine.connection, "SELECT streamext.export_merge(%s, %s, %s, %s, %s)", *arguments)[0] == "42P01"
    engine.connection.close()


def test_dropped_with_its_owner_and_with_the_extension(stream: Database) -> None:
    stream.execute("CREATE ROLE owner; GRANT CREATE ON SCHEMA public TO owner; GRANT SELECT ON s TO owner")
    try:
        with stream.connection.transaction():
            stream.execute("SET LOCAL ROLE owner")
            exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
        stream.execute("DROP OWNED BY owner")
        nothing_left(stream, "v", "v_export")
    finally:
        stream.execute("DROP OWNED BY owner CASCADE; DROP ROLE owner")
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    assert refused(stream.connection, "DROP EXTENSION streamext")[0] == "2BP01"
    with stream.connection.transaction(force_rollback=True):
        stream.execute("DROP EXTENSION streamext CASCADE")
        assert stream.rows("SELECT to_regclass('s'), to_regclass('v'), to_regclass('v_export')") == [(None, None, None)]


def test_what_an_exported_view_needs_stays(stream: Database) -> None:
    """Its stream, the stream's columns and functions below the aggregation, as a continuous view's."""
    stream.execute("CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 2")
    exported(stream, "SELECT k, sum(twice(n)) AS n FROM s GROUP BY k")
    for sql in ("DROP FOREIGN TABLE s", "DROP FUNCTION twice", "ALTER FOREIGN TABLE s DROP COLUMN n"):
        assert refused(stream.connection, sql)[0] == "2BP01", sql
    assert refused(stream.connection, "ALTER FOREIGN TABLE s ALTER COLUMN n TYPE bigint")[0] == "0A000"
    # as pg_upgrade leaves it
    stream.execute("""SET allow_system_table_mods = on; DELETE FROM pg_depend WHERE classid = 'pg_rewrite'::regclass AND refobjid = 's'::regclass;
        DELETE FROM pg_depend WHERE objid = 'v_export'::regclass AND refobjid = 'v'::regclass; RESET allow_system_table_mods""")
    for _ in range(2):
        Engine(stream).connection.close()
        assert stream.rows("""SELECT count(*), count(*) FILTER (WHERE deptype = 'a') FROM pg_depend
            WHERE refobjid = 's'::regclass AND classid = 'pg_rewrite'::regclass OR refobjid = 'v'::regclass AND classid = 'pg_class'::regclass""") == [(3, 1)]
    stream.execute("ALTER FOREIGN TABLE s RENAME TO t")
    assert refused(stream.connection, "SELECT streamext.import('v')")[1].startswith('relation "public.s" does not exist')
    stream.execute("ALTER FOREIGN TABLE t RENAME TO s; SELECT streamext.import('v'); SELECT streamext.export('v', 'postgres')")
    stream.execute("DROP FOREIGN TABLE s CASCADE")
    nothing_left(stream, "v", "v_export")


def test_another_table_is_not_taken_for_the_views(stream: Database) -> None:
    """The view's table can be gone if somebody has made the view another one."""
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    put(stream, row("a", 1))
    engine = Engine(stream)
    arguments = engine.stage({0: 1})
    stream.execute("CREATE OR REPLACE VIEW v AS SELECT 'x'::text AS k, 1::bigint AS n; DROP TABLE v_export; CREATE TABLE v_export (k1 text, p1 bigint, h bigint)")
    assert refused(stream.connection, "DROP FOREIGN TABLE s")[0] == "2BP01"
    assert refused(engine.connection, "SELECT streamext.export_merge(%s, %s, %s, %s, %s)", *arguments)[0] == "55000"
    stream.execute("SELECT streamext.import('v')")
    assert stream.value("SELECT count(*) FROM v_export") == 0
    stream.execute("DROP VIEW v")


def test_a_dump_has_all_of_it(stream: Database) -> None:
    exported(stream, "SELECT k, streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY k, w")
    put(stream, row("a", 1), row("b", 2), row("a", 3))
    Engine(stream).batch({0: 2})
    name = f"{stream.name}_restored"
    stream.server.psql(f"CREATE DATABASE {name}")
    try:
        stream.server.psql(stream.server.run("pg_dump", stream.name), name)
        copy = Database(stream.server, name)
        assert sorted(copy.rows("SELECT k, n FROM v")) == [("a", 1), ("b", 1)]
        Engine(copy).batch({0: 3})
        assert sorted(copy.rows("SELECT k, n FROM v")) == [("a", 2), ("b", 1)]
        copy.execute("SELECT streamext.import('v')")
        copy.connection.close()
        stream.server.psql(f"DROP DATABASE {name} WITH (FORCE)")
        stream.server.psql(f"CREATE DATABASE {name}")
        stream.server.psql(stream.server.run("pg_dump", stream.name), name)
        copy = Database(stream.server, name)
        assert refused(copy.connection, "DROP FOREIGN TABLE s")[0] == "2BP01"
        copy.execute("DROP VIEW v")
        nothing_left(copy, "v", "v_export")
        copy.connection.close()
    finally:
        stream.server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_merge_of_nothing_tells_that_the_engine_is_there(stream: Database) -> None:
    exported(stream, "SELECT count(*) AS n FROM s")
    engine = Engine(stream)
    put(stream, row("a", 1))
    engine.batch({0: 1})
    look = "SELECT state, delivered, positions FROM streamext.exports"
    stream.execute("UPDATE streamext.exported SET seen_at = now() - interval '2 minutes'")
    assert stream.rows(look) == [("silent", 1, {"s": {"0": 1}})]
    engine.connection.execute("SELECT streamext.export_merge('v', %s, '{}', '{}', '{}')", (engine.run,))
    assert stream.rows(look) == [("running", 1, {"s": {"0": 1}})]
    Engine(stream)
    assert refused(engine.connection, "SELECT streamext.export_merge('v', %s, '{}', '{}', '{}')", engine.run)[0] == "55000"


def test_code_of_the_owner_runs_as_the_owner(stream: Database) -> None:
    """An engine that is a superuser is no way for a view's owner to become one: constants, expressions, and triggers on his table."""
    stream.execute("CREATE ROLE owner; GRANT CREATE ON SCHEMA public TO owner; GRANT USAGE ON FOREIGN SERVER k TO owner; CREATE TABLE seen (who text); GRANT ALL ON seen TO owner")
    try:
        with stream.connection.transaction():
            stream.execute("SET LOCAL ROLE owner")
            stream.execute("""CREATE FUNCTION tell(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
                BEGIN IF current_user <> 'owner' THEN RAISE 'as %', current_user; END IF; RETURN true; END $$;
                CREATE DOMAIN told AS int CHECK (tell(VALUE)); CREATE TYPE told_range AS RANGE (SUBTYPE = told)""")
            stream.execute(f"CREATE FOREIGN TABLE own ({COLUMNS}) SERVER k OPTIONS (topic 's', format 'json', event_time 'ts', watermark_delay '1 day')")
            stream.execute("""CREATE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM own
                WHERE '[1,5)'::told_range IS NOT NULL AND tell(n) AND n::told > 0 GROUP BY k""")
            stream.execute("SELECT streamext.export('v', 'postgres')")
            stream.execute("""CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NEW; END';
                CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON v_export FOR EACH ROW EXECUTE FUNCTION tell()""")
        put(stream, row("a", 1), row("b", 2))
        engine = Engine(stream)
        engine.batch({0: 1})
        engine.batch({0: 2}, raw=True)
        assert sorted(stream.rows("TABLE v")) == [("a", 1), ("b", 1)]
        assert stream.rows("SELECT DISTINCT who FROM seen") == [("owner",)]
        engine.connection.close()
    finally:
        stream.execute("DROP OWNED BY owner CASCADE; DROP ROLE owner")


def test_rights(stream: Database) -> None:
    """INSERT on the view is all that an engine needs, and it may not do anything else."""
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    put(stream, row("a", 1), row("b", 2))
    stream.execute("CREATE ROLE engine LOGIN; GRANT SELECT ON records TO engine")
    try:
        with stream.connect("engine", autocommit=True) as other:
            assert refused(other, "SELECT streamext.export_begin('v')")[0] == "42501"
            assert refused(other, "SELECT streamext.export_plan('v', 'postgres')")[0] == "42501"
            assert refused(other, "SELECT streamext.export_merge('v', gen_random_uuid(), '{}', '{}', '{}')")[0] == "42501"
            assert refused(other, "SELECT streamext.import('v')")[0] == "42501"
            assert other.execute("SELECT count(*) FROM streamext.exports").fetchall() == [(0,)]
        stream.execute("GRANT INSERT ON v TO engine")
        engine = Engine(stream, user="engine")
        engine.batch({0: 1})
        engine.batch({0: 2}, raw=True)
        assert sorted(stream.rows("TABLE v")) == [("a", 1), ("b", 1)]
        for sql in ("TABLE v", "TABLE v_export", "DELETE FROM v_export", "TABLE streamext.exported", "SELECT streamext.import('v')", "INSERT INTO v VALUES ('x', 1)"):
            assert refused(engine.connection, sql)[0] in ("42501", "55000"), sql
        engine.connection.close()
    finally:
        stream.execute("DROP OWNED BY engine; DROP ROLE engine")


def test_its_table_goes_to_the_owner_of_the_view(stream: Database) -> None:
    exported(stream, "SELECT k::varchar(3) AS k, count(*) AS n FROM s GROUP BY 1")
    put(stream, row("a", 1), row("b", 2))
    stream.execute("CREATE ROLE one; CREATE ROLE two; GRANT one, two TO CURRENT_USER; GRANT SELECT ON s TO one, two; GRANT CREATE ON SCHEMA public TO one")
    owners = "SELECT relname, relowner::regrole::text FROM pg_class WHERE relname IN ('v', 'v_export') ORDER BY 1"
    try:
        stream.execute("ALTER VIEW v OWNER TO one")
        assert stream.rows(owners) == [("v", "one"), ("v_export", "one")]
        engine = Engine(stream)
        engine.connection.execute(f"CREATE TEMP TABLE {engine.plan['stages'][0]['table']} (k1 varchar, rows bigint NOT NULL, p1 bigint)")
        merge = "SELECT streamext.export_merge('v', %s, '{\"s\": {\"0\": 1}}', '{}', '{\"delivered\": 1}')"
        assert refused(engine.connection, merge, engine.run)[0] == "42P16"  # longer keys would go in
        engine.connection.execute(f"DROP TABLE {engine.plan['stages'][0]['table']}")
        engine.batch({0: 2})
        engine.connection.close()
        assert sorted(stream.rows("TABLE v")) == [("a", 1), ("b", 1)]
        # in one's own right only: the schema of the table counts too
        stream.execute("CREATE SCHEMA there; GRANT CREATE, USAGE ON SCHEMA there TO two; ALTER VIEW v SET SCHEMA there; GRANT USAGE ON SCHEMA there TO one; GRANT two TO one")
        with stream.connection.transaction(force_rollback=True):
            stream.execute("SET LOCAL ROLE one")
            assert refused(stream.connection, "ALTER VIEW there.v OWNER TO two")[0] == "42501"
        stream.execute("ALTER TABLE there.v OWNER TO two")
        assert stream.rows(owners) == [("v", "two"), ("v_export", "two")]
        stream.execute("ALTER VIEW there.v OWNER TO CURRENT_USER; SELECT streamext.import('there.v')")
        stream.execute("ALTER VIEW there.v OWNER TO one")
        nothing_left(stream, "v_export")
    finally:
        stream.execute("DROP SCHEMA IF EXISTS there CASCADE; DROP OWNED BY one, two CASCADE; DROP ROLE one, two")


def test_stage_tables_that_are_something_else(stream: Database) -> None:
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    put(stream, row("a", 1))
    engine = Engine(stream)
    merge = "SELECT streamext.export_merge('v', %s, '{\"s\": {\"0\": 1}}', '{}', '{\"delivered\": 1}')"
    table = engine.plan["stages"][0]["table"]
    assert refused(engine.connection, merge, engine.run)[0] == "42P01"
    for wrong in (f"TEMP TABLE {table} (k1 text, rows bigint, p1 text)", f"TEMP VIEW {table} AS SELECT 'a'::text AS k1, 1::bigint AS rows, 1::bigint AS p1"):
        engine.connection.execute(f"CREATE {wrong}")
        assert refused(engine.connection, merge, engine.run)[0] == "42P16"
        engine.connection.execute(f"DROP {wrong.split()[1]} {table}")
    for statement in engine.plan["stages"][0]["create"].split("; "):
        engine.connection.execute(statement)
    engine.connection.execute(f"INSERT INTO {table} VALUES ('a', -1, 1)")
    assert refused(engine.connection, merge, engine.run)[0] == "22023"
    engine.connection.execute(f"UPDATE {table} SET rows = 1")
    assert refused(engine.connection, merge.replace(": 1}')", ": 0, \"rejected\": 5}')"), engine.run)[0] == "22023"
    for positions in ('{"s": {"0": -1}}', '{"s": {"x": 1}}', '{"s": 1}', "[]"):
        state = refused(engine.connection, "SELECT streamext.export_merge('v', %s, %s, '{}', '{}')", engine.run, positions)[0]
        assert state in ("22023", "22P02"), positions
    for newest in ('{"s": {"0": "infinity"}}', '{"s": {"0": "-infinity"}}'):
        assert refused(engine.connection, merge.replace("'{}'", f"'{newest}'"), engine.run)[0] == "22023"
    engine.connection.execute(merge, (engine.run,))
    assert stream.rows("TABLE v") == [("a", 1)]


def test_stage_tables_are_the_callers_own(stream: Database) -> None:
    """Where an engine's calls stand in a function that is its owner's, nothing that the session has made runs as that."""
    db = stream
    exported(db, "SELECT count(*) AS n FROM s")
    (run,) = db.rows("SELECT run FROM streamext.export_begin('v')")[0]
    db.execute("CREATE ROLE mallory LOGIN; CREATE TABLE seen (who text); GRANT INSERT ON seen TO mallory")
    try:
        db.execute(f"""CREATE FUNCTION merge() RETURNS void LANGUAGE sql SECURITY DEFINER AS
            $$ SELECT streamext.export_merge('v', '{run}', '{{"s": {{"0": 1}}}}', '{{}}', '{{"delivered": 1}}') $$""")
        session = db.connect("mallory", autocommit=True)
        oid = db.value("SELECT 'v'::regclass::oid")
        session.execute(f"CREATE TEMP TABLE streamext_partial_{oid} (rows bigint NOT NULL, p1 bigint)")
        session.execute("CREATE FUNCTION pg_temp.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen SELECT current_user; RETURN NULL; END $$")
        session.execute(f"CREATE TRIGGER spy AFTER TRUNCATE ON streamext_partial_{oid} EXECUTE FUNCTION pg_temp.spy()")
        assert refused(session, "SELECT merge()")[0] == "42501"
        session.close()
        assert db.rows("TABLE seen") == []
    finally:
        db.execute("DROP OWNED BY mallory; DROP ROLE mallory")


def test_who_may_not_waits_for_no_lock(stream: Database) -> None:
    """Else who has no right would have all readers wait behind him."""
    continuous(stream, "v", "SELECT count(*) AS n FROM s")
    stream.execute("CREATE ROLE nobody LOGIN")
    try:
        with stream.connect() as reader, stream.connect("nobody", autocommit=True) as other:
            reader.execute("BEGIN; LOCK TABLE v IN ACCESS SHARE MODE")
            other.execute("SET lock_timeout = '20 s'")
            for sql in ("SELECT streamext.export('v', 'postgres')", "SELECT streamext.import('v')"):
                assert refused(other, sql)[0] == "42501"
    finally:
        stream.execute("DROP ROLE nobody")


def test_what_an_engine_says_is_of_its_view_alone(stream: Database) -> None:
    """Who may read the stream may export a view of his own: its letters are not the stream's, and a transaction that he leaves open stops no one else."""
    db = stream
    db.execute("CREATE ROLE other LOGIN; GRANT SELECT ON s, records TO other; GRANT CREATE ON SCHEMA public TO other")
    try:
        put(db, {**row("forged", 1), "ts": "2990-01-01T00:00:00Z"})
        with db.connect("other", autocommit=True) as owner:
            owner.execute("CREATE VIEW theirs WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM s GROUP BY k")
            owner.execute("SELECT streamext.export('theirs', 'postgres')")
        engine = Engine(db, "theirs", "other")
        engine.batch({0: 1}, raw=True)
        assert db.rows("SELECT stream::text, view::text FROM streamext.dead_letters") == [("s", "theirs")]
        continuous(db, "v", "SELECT count(*) AS n FROM s")
        with engine.connection.transaction():
            engine.begin()
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                db.execute("SET lock_timeout = '50 ms'; DROP VIEW theirs CASCADE")
            db.execute("SET lock_timeout = '20 s'; SELECT streamext.export('v', 'postgres')")
        engine.connection.close()
    finally:
        db.execute("DROP OWNED BY other; DROP ROLE other")


def test_an_engine_cannot_close_all_windows(stream: Database) -> None:
    """What it says of event times moves the watermark no further than a record could."""
    exported(stream, "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    engine = Engine(stream)
    put(stream, row("a", 1))
    view, run, positions, _, counts = engine.stage({0: 1})
    engine.merge((view, run, positions, '{"s": {"0": "9000-01-01Z"}}', counts))
    assert stream.value("SELECT watermark < now() FROM streamext.exports")  # an hour ahead, less a day


def test_late_records_that_cannot_be_counted(stream: Database) -> None:
    """An engine's partials are numbers of its choice: the sum of what is late does not turn over."""
    exported(stream, "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.lateness = '0 s'")
    engine = Engine(stream)
    put(stream, {**row("a", 1), "ts": "2024-05-03T00:00:00Z"})
    engine.batch({0: 1})
    table = engine.plan["stages"][0]["table"]
    for statement in engine.plan["stages"][0]["create"].split("; "):
        engine.connection.execute(statement)
    columns = [c for (c,) in engine.connection.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", (table,))]
    values = {"rows": str(2**63 - 1)}
    engine.connection.execute(f"INSERT INTO {table} SELECT {', '.join(values.get(c, '1' if c.startswith('p') else quoted('2024-01-01')) for c in columns)} FROM generate_series(1, 2)")
    merge = "SELECT streamext.export_merge('v', %s, '{\"s\": {\"0\": 2}}', '{}', '{\"delivered\": 1}')"
    assert refused(engine.connection, merge, engine.run)[0] == "22003"
    assert stream.rows("SELECT delivered, accepted, late FROM streamext.exports") == [(1, 1, 0)]


def quoted(text: str) -> str:
    return f"'{text}'"


def test_large_records_are_taken_in_parts(stream: Database) -> None:
    exported(stream, "SELECT k, count(*) AS n FROM s GROUP BY k")
    engine = Engine(stream)
    pad = "x" * 1000
    put(stream, *[row(f"{i % 3}", i) | {"pad": "PAD"} for i in range(12)], "no json")
    stream.execute("UPDATE records SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'PAD', repeat(%s, 12000)), 'UTF8')", pad)
    engine.batch({0: 13}, raw=True)
    assert sorted(stream.rows("TABLE v")) == [("0", 4), ("1", 4), ("2", 4)]
    assert stream.rows("SELECT delivered, accepted, rejected FROM streamext.exports") == [(13, 12, 1)]
