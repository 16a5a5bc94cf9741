"""streamext.changes: applying what has changed, by the view's keys, gives the view."""

import json
import os
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.streams import continuous, error_of, local_stream, worker_pid
from harness.wait import wait_for

SETTINGS = {"streamext.checkpoint_interval": 200}
COLUMNS = "k int, grade numeric, x int, ts timestamptz"
BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
SEED = int(os.environ.get("STREAMEXT_CHANGES_SEED", random.randrange(1_000_000)))

WINDOWS = {
    "none": ("", ""),
    "tumbling": ("streamext.tumble('10 s', ts) AS w", ""),
    "hopping": ("streamext.hop('10 s', '4 s', ts) AS w", ""),
    "truncated": ("date_trunc('minute', ts) AS w", ""),
    "session": ("streamext.session('2 s', ts) AS w", ""),
    "sliding": ("", "WHERE ts > now() - interval '20 s'"),
    "sliding and tumbling": ("streamext.tumble('5 s', ts) AS w", "WHERE ts >= now() - interval '30 s'"),
}
KEYS = [["k"], ["grade"], ["k", "grade"], ["k % 3 AS thirds"], []]
VALUES = ["count(*) AS n", "sum(x) AS total", "max(x) AS peak", "min(ts) AS since", "array_agg(x ORDER BY x, ts) AS xs", "avg(x::numeric) AS mean"]
HAVINGS = ["", "", "HAVING count(*) < 12", "HAVING sum(x) % 2 = 0", "HAVING max(x) > 5", "HAVING count(*) > 2 AND min(x) < 3"]
TOPS = ["", "", "", "rank() OVER (ORDER BY count(*) DESC) AS place", "now() > timestamptz '2000-01-01' AS late"]


class Copy:
    """What a client has that applies changes by key, and sometimes stops in the middle of them."""

    def __init__(self, db: Database, view: str, keys: list[str], rng: random.Random) -> None:
        self.db, self.view, self.keys, self.rng = db, view, keys, rng
        self.rows: dict[str, Any] = {}
        self.token: str | None = None
        self.ops: list[str] = []

    def key(self, row: dict[str, Any]) -> str:
        return json.dumps([float(row[key]) if key == "grade" and row[key] is not None else row[key] for key in self.keys])

    def poll(self, stop: bool = False) -> int:
        changes = self.db.rows("SELECT op, token, row FROM streamext.changes(%s, %s)", self.view, self.token)
        if stop and changes:
            changes = changes[: self.rng.randrange(len(changes) + 1)]
        for op, token, row in changes:
            self.token = token
            self.ops.append(op)
            if op == "reset":
                assert row is None
                self.rows.clear()
            elif op == "delete":
                self.rows.pop(self.key(row), None)
            else:
                assert op == "upsert"
                self.rows[self.key(row)] = row
        return len(changes)

    def _view(self) -> list[dict[str, Any]]:
        return [row for (row,) in self.db.rows(f"SELECT to_jsonb(v) FROM {self.view} v")]

    def assert_current(self) -> None:
        """Between two readings of the view that are the same: retention may take rows at any moment."""
        while True:
            before = self._view()
            self.poll()
            told = sorted(map(repr, self.rows.values()))
            more = self.poll()
            expected = self._view()
            if sorted(map(repr, before)) == sorted(map(repr, expected)):
                break
        assert told == sorted(map(repr, expected)) == sorted(map(repr, self.rows.values())), self.view
        assert len({self.key(row) for row in expected}) == len(expected)
        # which of 1.0 and 1.00 is shown for both may be another one when a pane goes into history
        assert more == 0 or "grade" in self.keys, self.view


def rows(rng: random.Random, count: int, begin: float, seconds: float) -> str:
    result = []
    for i in range(count):
        at = BEGIN + timedelta(milliseconds=int(1000 * (begin + seconds * i / count - rng.random() * 4)))
        grade = rng.choice(["1.0", "1.00", "2.5", "NULL"])
        result.append(f"({rng.choice(['NULL', *range(5)])}, {grade}, {rng.randrange(10)}, '{at.isoformat()}')")
    return ", ".join(result)


def create_random_view(db: Database, rng: random.Random, name: str, window: str) -> Copy:
    expression, where = WINDOWS[window]
    keys = list(rng.choice(KEYS))
    outputs = [*keys, *([expression] if expression else [])]
    names = [output.rpartition(" ")[2] for output in outputs]
    values = rng.sample(VALUES, rng.randint(1, 3)) + [top for top in [rng.choice(TOPS)] if top]
    group = f"GROUP BY {', '.join(names)}" if names else ""
    tail = ""
    if rng.random() < 0.2 and names:
        tail = f"ORDER BY count(*) DESC, {', '.join(names)} LIMIT 4"
    options = ", streamext.retention = '25 s'" if expression and rng.random() < 0.5 else ""
    query = f"SELECT {', '.join([*outputs, *values])} FROM s {where} {group} {rng.choice(HAVINGS)} {tail}"
    print(name, query, options)
    continuous(db, name, query, options)
    return Copy(db, name, names, rng)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("round_", range(2))
def test_changes_applied_by_key_are_the_view(database: Database, round_: int) -> None:
    """Random views of all kinds of windows, whatever happens to them."""
    db, rng = database, random.Random(SEED + round_)
    print(f"seed {SEED + round_}")
    local_stream(db, "event_time 'ts', watermark_delay '5 s'", COLUMNS)
    db.execute("SELECT streamext.set_clock(%s)", BEGIN)
    copies = [create_random_view(db, rng, f"v{i}", window) for i, window in enumerate([*WINDOWS, *WINDOWS])]
    seconds = 0.0
    for step in range(14):
        for _ in range(rng.randint(1, 3)):
            step_seconds = rng.choice([1, 5, 15])
            db.execute(f"INSERT INTO s VALUES {rows(rng, rng.choice([1, 5, 60]), seconds, step_seconds)}")
            seconds += step_seconds
            db.execute("SELECT streamext.set_clock(%s)", BEGIN + timedelta(seconds=seconds))
            db.flush("s")
            for copy in copies:
                if rng.random() < 0.5:
                    copy.poll(stop=True)
        event = rng.choice(["", "", "rebuild", "worker", "restart", "alter"])
        if event == "rebuild":
            db.execute("SELECT streamext.rebuild(%s)", rng.choice(copies).view)
        elif event == "worker":
            pid = worker_pid(db)
            db.server.kill_backend(pid)
            db.connection = db.server.connect(db.name)
            worker_pid(db, besides=pid)
        elif event == "restart":
            db.connection.close()
            db.server.stop()
            db.server.start()
            db.connection = db.server.connect(db.name)
            db.execute("SELECT streamext.set_clock(%s)", BEGIN + timedelta(seconds=seconds))
        elif event == "alter":
            db.execute(f"ALTER VIEW {rng.choice(copies).view} SET (streamext.emit_interval = '{rng.randint(1, 900)} ms')")
        db.flush("s")
        for copy in copies:
            copy.assert_current()
    ops = [op for copy in copies for op in copy.ops]
    assert {"upsert", "delete", "reset"} == set(ops)


FEW = {
    "plain": ("SELECT k, count(*) AS n, sum(x) AS total FROM s GROUP BY k HAVING sum(x) % 3 <> 0", ""),
    "minutes": ("SELECT k, streamext.tumble('20 s', ts) AS w, sum(x) AS total FROM s GROUP BY k, w HAVING sum(x) % 3 <> 0", ", streamext.retention = '1 min'"),
    "hops": ("SELECT k, streamext.hop('40 s', '15 s', ts) AS w, sum(x) AS total, array_agg(x) AS xs FROM s GROUP BY k, w", ", streamext.retention = '1 min'"),
    "truncs": ("SELECT date_trunc('minute', ts) AS w, k, sum(x) AS total FROM s GROUP BY k, w HAVING sum(x) > 4", ""),
    "slides": ("SELECT k, sum(x) AS total FROM s WHERE ts > now() - interval '50 s' GROUP BY k", ""),
    "slides_too": ("SELECT k, streamext.tumble('20 s', ts) AS w, max(x) AS peak FROM s WHERE ts > now() - interval '50 s' GROUP BY k, w HAVING max(x) > 1", ""),
}  # fmt: skip


@pytest.mark.timeout(300)
def test_few_of_many_groups(database: Database) -> None:
    """Few keys change between two looks, which then read these alone; and all of a window, where a pane went into history."""
    db, rng = database, random.Random(SEED)
    print(f"seed {SEED}")
    local_stream(db, "event_time 'ts', watermark_delay '10 s'", COLUMNS)
    db.execute("SELECT streamext.set_clock(%s)", BEGIN)
    for name, (query, options) in FEW.items():
        continuous(db, name, query, options)
    copies = [Copy(db, name, ["k", "w"] if " AS w" in query else ["k"], rng) for name, (query, _) in FEW.items()]
    insert = "INSERT INTO s SELECT k, 1, {x}, timestamptz '{at}' + k * interval '1 ms' FROM generate_series(1, {n}) AS k {where}"
    seconds = 0
    for step in range(24):
        moment = BEGIN + timedelta(seconds=seconds - rng.choice([0, 0, 8]))
        if step % 10 == 0:
            db.execute(insert.format(x="k % 3", at=moment, n=400, where=""))
        else:
            db.execute(insert.format(x=rng.randint(-2, 3), at=moment, n=400, where=f"WHERE k % 97 = {rng.randrange(97)}"))
        seconds += rng.choice([0, 0, 1, 1, 12])
        db.execute("SELECT streamext.set_clock(%s)", BEGIN + timedelta(seconds=seconds))
        db.flush("s")
        for copy in copies:
            copy.poll(stop=rng.random() < 0.3)
            if step % 3 == 0:
                copy.assert_current()
    for copy in copies:
        copy.assert_current()
    later = BEGIN + timedelta(seconds=seconds + 600)
    db.execute(insert.format(x=1, at=later, n=1, where=""))
    db.execute("SELECT streamext.set_clock(%s)", later)
    db.flush("s")
    for copy in copies:
        copy.assert_current()
        assert copy.ops.count("reset") == 1, copy.view
        assert "delete" in copy.ops or copy.view in ("plain", "truncs"), copy.view


def simple(db: Database, query: str = "SELECT k, count(*) AS n FROM s GROUP BY k", options: str = "") -> None:
    local_stream(db, "", "k int, x int")
    continuous(db, "v", query, options)


def changes(db: Database, token: str | None = None, view: str = "v", wait: str = "0") -> list[tuple[Any, ...]]:
    return db.rows("SELECT op, row, token FROM streamext.changes(%s, after => %s, wait => %s)", view, token, wait)


def test_only_what_has_changed(db: Database) -> None:
    simple(db, "SELECT k, count(*) AS n FROM s GROUP BY k HAVING count(*) < 3")
    continuous(db, "total", "SELECT count(*) AS n FROM s")
    (reset,) = changes(db)
    assert reset[:2] == ("reset", None)
    assert changes(db, reset[2]) == []
    db.execute("INSERT INTO s VALUES (1), (2), (2)")
    db.flush("s")
    first = changes(db, reset[2])
    assert sorted((op, row["k"], row["n"]) for op, row, _ in first) == [("upsert", 1, 1), ("upsert", 2, 2)]
    db.execute("INSERT INTO s VALUES (2)")
    db.flush("s")
    (delete,) = changes(db, first[-1][2])
    assert delete[:2] == ("delete", {"k": 2, "n": 2})  # the last row that was told
    assert changes(db, delete[2]) == []
    # another session goes on with the token
    with db.connect() as other:
        other.execute("INSERT INTO s VALUES (1)")
        db.flush("s")
        (upsert,) = other.execute("SELECT op, row FROM streamext.changes('v', %s)", (delete[2],)).fetchall()
        assert upsert == ("upsert", {"k": 1, "n": 2})
    # who is behind gets the latest of each key, once
    late = changes(db, reset[2])
    assert [row[:2] for row in late] == [("delete", {"k": 2, "n": 2}), ("upsert", {"k": 1, "n": 2})]
    # of a view without GROUP BY the key is empty
    _, row = changes(db, view="total")
    assert row[:2] == ("upsert", {"n": 5})


def test_rows_are_as_to_jsonb_writes_them(db: Database) -> None:
    """Byte for byte, whatever the values: digits of any number, NULLs, escapes, more columns than an object's entries have offsets."""
    values = ["x::float8 / 7", "x / 1000.0", "x * 1e-9::float8", "x * 1e300::float8", "'-0'::float8", "'NaN'::float8 * x", "(x::float8 / 3)::float4", "0.00 * x",
              "x::numeric ^ 20", "1.50 * x", "-x", "x::bigint << 40", "x % 2 = 0", "NULL::int", "repeat('a', x)", "E'a\"b\\\\c\\n' || x", "'é' || x",
              "make_interval(secs => x)", "ARRAY[x]", "jsonb_build_object('a', x)"]  # fmt: skip
    outputs = ", ".join(f"max({value}) AS c{i}" for i, value in enumerate(values) if not re.search("ARRAY|jsonb| = ", value))
    outputs += ", bool_or(x % 2 = 0) AS even, array_agg(x) AS xs, " + ", ".join(f"min(x) AS filler{i}" for i in range(20))
    simple(db, f"SELECT k, {outputs} FROM s GROUP BY k")
    flat = ", ".join(f"max({value}) AS c{i}" for i, value in enumerate(values) if not re.search("ARRAY|jsonb| = |E'", value))
    continuous(db, "flat", f"SELECT k, {flat}, bool_or(x % 2 = 0) AS even, {', '.join(f'min(x) AS filler{i}' for i in range(20))} FROM s GROUP BY k")
    db.execute("INSERT INTO s SELECT k, k * 37 - 100 FROM generate_series(1, 300) AS k WHERE k * 37 - 100 < 2000 UNION ALL VALUES (1000, 0)")
    db.flush("s")
    image = "SELECT k, row::text, hash, size FROM (SELECT {row} AS row, jsonb_hash_extended({row}, 0) AS hash, pg_column_size({row}) AS size, {row} ->> 'k' AS k FROM {source}) i ORDER BY k"
    for view in ("v", "flat"):
        told = db.rows(image.format(row="c.row", source=f"streamext.changes('{view}') c WHERE op = 'upsert'"))
        assert told == db.rows(image.format(row="to_jsonb(t)", source=f"{view} t")), view
        assert len(told) == 57
        for (same,) in db.rows(f"SELECT c.row = to_jsonb(t) FROM streamext.changes('{view}') c JOIN {view} t ON t.k = (c.row ->> 'k')::int"):
            assert same


@pytest.mark.parametrize("token", ["", "nonsense", "0123456789abcdef-1", "-", "1-99999999999999999999999"])
def test_unknown_tokens_begin_anew(db: Database, token: str) -> None:
    simple(db)
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    assert [row[0] for row in changes(db, token)] == ["reset", "upsert"]


def test_tokens_are_of_one_view(db: Database) -> None:
    simple(db)
    continuous(db, "v2", "SELECT k, max(x) FROM s GROUP BY k")
    assert [row[0] for row in changes(db, changes(db)[-1][2], "v2")] == ["reset"]


def test_waits_for_a_change(db: Database) -> None:
    simple(db, options=", streamext.emit_interval = '10 ms'")
    token = changes(db)[-1][2]
    found: list[tuple[Any, ...]] = []
    with db.connect() as other:
        pid = other.info.backend_pid

        def wait() -> None:
            found.extend(other.execute("SELECT op, row FROM streamext.changes('v', %s, '1 min')", (token,)).fetchall())

        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(lambda: db.value("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s", pid), what="the wait")
        db.execute("INSERT INTO s VALUES (7)")
        thread.join(60)
    assert found == [("upsert", {"k": 7, "n": 1})]
    assert changes(db, changes(db)[-1][2], wait="30 ms") == []


def test_is_read_once_in_an_interval(db: Database) -> None:
    """However soon a client comes back."""
    simple(db, options=", streamext.emit_interval = '1 h'")
    token = changes(db)[-1][2]
    db.execute("INSERT INTO s VALUES (7)")
    db.flush("s")
    with db.connect() as other, ThreadPoolExecutor(1) as pool:
        told = pool.submit(lambda: other.execute("SELECT op, row FROM streamext.changes('v', %s, '1 h')", (token,)).fetchall())
        waits = "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s"
        wait_for(lambda: told.done() or db.value(waits, other.info.backend_pid), what="the wait")
        other.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            told.result()
    assert [row[:2] for row in changes(db, token, wait="1 ms")] == [("upsert", {"k": 7, "n": 1})]


def test_waiting_can_be_cancelled(db: Database) -> None:
    simple(db)
    token = changes(db)[-1][2]
    with db.connect() as other:
        other.execute("SET statement_timeout = '200 ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            other.execute("SELECT * FROM streamext.changes('v', %s, '1 h')", (token,))
    assert changes(db, token) == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM s GROUP BY k",
        "SELECT k + 0 AS k, count(*) FROM s GROUP BY s.k",
        "SELECT k, x, count(*) FROM s GROUP BY GROUPING SETS ((k), (x))",
    ],
)
def test_refuses_views_that_do_not_output_their_keys(db: Database, query: str) -> None:
    simple(db, query)
    with pytest.raises(psycopg.Error) as error:
        changes(db)
    assert error.value.sqlstate == "0A000" and error_of(error)[2]


def test_refuses_what_is_no_continuous_view(db: Database) -> None:
    simple(db)
    db.execute("CREATE VIEW ordinary AS SELECT 1 AS a")
    for name, sqlstate in {"ordinary": "42809", "s": "42809", "pg_class": "42809"}.items():
        with pytest.raises(psycopg.Error) as error:
            changes(db, view=name)
        assert error.value.sqlstate == sqlstate
    for wait, sqlstate in {"-1 s": "22023", "1 month": "0A000"}.items():
        with pytest.raises(psycopg.Error) as error:
            changes(db, wait=wait)
        assert error.value.sqlstate in (sqlstate, "22023"), wait
    with pytest.raises(psycopg.Error) as error:
        changes(db, view=None)  # type: ignore[arg-type]
    assert error.value.sqlstate == "22004"


def test_needs_the_rights_of_a_select(db: Database) -> None:
    """Also where another has read the view already."""
    simple(db)
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    changes(db)
    role = f"r{os.urandom(4).hex()}"
    db.execute(f"CREATE ROLE {role} LOGIN")
    try:
        with db.connect(role) as other:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("SELECT * FROM streamext.changes('v')")
            db.execute(f"GRANT SELECT (k) ON v TO {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("SELECT * FROM streamext.changes('v')")
            db.execute(f"GRANT SELECT ON v TO {role}")
            assert other.execute("SELECT count(*) FROM streamext.changes('v')").fetchone() == (2,)
            db.execute("CREATE SCHEMA hidden; ALTER VIEW v SET SCHEMA hidden")
            oid = db.value("SELECT 'hidden.v'::regclass::oid")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(f"SELECT * FROM streamext.changes({oid})")
    finally:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_output_is_the_readers_own(db: Database) -> None:
    """Settings and roles that the output depends on: nobody gets what another's reading has left."""
    simple(db, "SELECT k, current_user::text AS who, count(*) AS n FROM s GROUP BY k")
    continuous(db, "times", "SELECT k, to_char(max(x) * interval '1 s' + timestamptz 'epoch', 'HH24') AS hour FROM s GROUP BY k")
    db.execute("INSERT INTO s VALUES (1, 1)")
    db.flush("s")
    changes(db)
    db.execute("SET timezone = 'UTC'")
    assert changes(db, view="times")[1][1]["hour"] == "00"
    role = f"r{os.urandom(4).hex()}"
    db.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON v, times TO {role}")
    try:
        with db.connect(role) as other:
            other.execute("SET timezone = 'Asia/Tokyo'")
            assert other.execute("SELECT row ->> 'who' FROM streamext.changes('v') WHERE op = 'upsert'").fetchone() == (role,)
            assert other.execute("SELECT row ->> 'hour' FROM streamext.changes('times') WHERE op = 'upsert'").fetchone() == ("09",)
    finally:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_path_of_ones_own_is_nobody_elses(db: Database) -> None:
    """What a function's names mean depends on search_path: who calls with schemas of his own has the others told nothing of it."""
    db.execute("CREATE FUNCTION named(k text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower(k); END'")
    simple(db, "SELECT k, named('N' || count(*)) AS t FROM s GROUP BY k")
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    token = changes(db)[-1][2]
    role = f"r{os.urandom(4).hex()}"
    db.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}; GRANT SELECT ON v TO {role}")
    try:
        with db.connect(role) as other, ThreadPoolExecutor() as pool:
            other.execute(f"CREATE FUNCTION {role}.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'forged' $$")
            other.execute(f"SET search_path = {role}, pg_catalog, public")
            # who waits is told what others have found meanwhile
            waiting = pool.submit(changes, db, token, "v", "2 s")
            while not waiting.done():
                assert other.execute("SELECT DISTINCT row ->> 't' FROM streamext.changes('public.v') WHERE row IS NOT NULL").fetchall() == [("forged",)]
            assert waiting.result() == []
    finally:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_memory_is_bounded(database: Database) -> None:
    """Of keys that are gone a bounded number is kept; tokens from before that begin anew."""
    db = database
    simple(db, "SELECT k, count(*) AS n FROM s GROUP BY k HAVING count(*) % 2 = 1")
    copy = Copy(db, "v", ["k"], random.Random(1))
    copy.poll()
    early = copy.token
    for i in range(6):
        db.execute("INSERT INTO s SELECT g FROM generate_series(%s::int, %s::int) g", i * 1000, i * 1000 + 999)
        db.flush("s")
        copy.assert_current()
        db.execute("INSERT INTO s SELECT g FROM generate_series(%s::int, %s::int) g", i * 1000, i * 1000 + 999)
        db.flush("s")
        copy.assert_current()
    assert copy.ops.count("reset") == 1
    assert [row[0] for row in changes(db, early)] == ["reset"]
