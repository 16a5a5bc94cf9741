"""Group keys: what is equal to PostgreSQL is one group, however its bytes were made and whatever became of its type."""

from collections.abc import Iterator

import pytest

from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, local_stream

LARGE = 3_000_000_000  # above 2^31


@pytest.fixture
def large_oids() -> Iterator[Database]:
    """A database of a server whose new objects have OIDs above 2^31."""
    with Postgres() as server:
        server.stop()
        server._run_as_owner("pg_resetwal", "-o", str(LARGE), "-D", str(server.data))
        server.start()
        server.psql("CREATE DATABASE d")
        server.psql("CREATE EXTENSION streamext", "d")
        yield Database(server, "d")


def test_unsigned_keys_of_four_bytes_and_less(large_oids: Database) -> None:
    """Out of a row, from a function, from a text and from a constant of the query: one group for one value."""
    db = large_oids
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE moods AS RANGE (subtype = mood); CREATE TYPE oids AS RANGE (subtype = oid)")
    assert db.value("SELECT min(oid)::bigint FROM pg_enum") > 2**31
    db.execute("CREATE TABLE far (i int)")
    columns = 'i int, o oid, m mood, c "char", r regclass, x xid, ms mood[], os oid[], mr moods, orr oids, b bigint, t text'
    local_stream(db, columns=columns)
    keys = {
        "o": "CASE WHEN i % 2 = 0 THEN o ELSE b::oid END", "m": "CASE WHEN i % 2 = 0 THEN m ELSE t::mood END", "c": "c", "r": "r",
        "c2": "CASE WHEN i % 2 = 0 THEN c ELSE c::text::\"char\" END", "r2": "CASE WHEN i % 2 = 0 THEN r ELSE b::regclass END",
        "x": "x", "ms": "CASE WHEN i % 2 = 0 THEN ms ELSE ARRAY[m, t::mood] END", "os": "CASE WHEN i % 2 = 0 THEN os ELSE ARRAY[b::oid, 1] END",
        "mr": "mr", "orr": "CASE WHEN i % 2 = 0 THEN orr ELSE oids(1, b::oid) END",
    }  # fmt: skip
    queries = {f"v_{name}": f"SELECT {key} AS k, count(*) AS n FROM s GROUP BY 1" for name, key in keys.items()}
    queries["v_two"] = f"SELECT {keys['o']} AS k, {keys['m']} AS m, {keys['c']} AS c, count(*) AS n FROM s GROUP BY 1, 2, 3"
    queries["v_mixed"] = f"SELECT {keys['o']} AS k, {keys['ms']} AS m, count(*) AS n FROM s GROUP BY 1, 2"
    for view, query in queries.items():
        continuous(db, view, query)
    db.execute(f"CREATE TABLE t ({columns})")
    far = db.value("SELECT 'far'::regclass::oid::bigint")
    assert far > 2**31
    for i, (b, m, c) in enumerate([(LARGE, "ok", "\\377"), (LARGE, "ok", "\\377"), (far, "sad", "a"), (far, "sad", "\\200"), (7, "ok", "\\200")]):
        db.execute(
            f"""INSERT INTO t SELECT {i}, '{b}', '{m}', '{c}', '{far}', '{b}', ARRAY['{m}', '{m}']::mood[], ARRAY['{b}', '1']::oid[],
            '[{m},ok]', '[1,{b})', {b}, '{m}'"""
        )
    db.execute("INSERT INTO s TABLE t")
    db.flush("s")
    for view, query in queries.items():
        db.assert_same(f"TABLE {view}", query.replace("FROM s", "FROM t"))
    for view, look in [
        ("v_o", f"k = {LARGE}"), ("v_o", f"k = '{LARGE}'::oid"), ("v_m", "k = 'ok'"), ("v_m", "k = 'ok'::text::mood"), ("v_c", "k = '\\377'"),
        ("v_c2", "k = '\\200'"), ("v_r", "k = 'far'::regclass"), ("v_r2", f"k = {far}"), ("v_os", f"k = ARRAY[{LARGE}, 1]::oid[]"),
        ("v_two", f"k = {LARGE} AND m = 'ok' AND c = '\\377'"), ("v_mixed", f"k = {LARGE} AND m = '{{ok,ok}}'"),
    ]:  # fmt: skip
        assert db.value(f"SELECT count(*) FROM {view} WHERE {look}") == 1, (view, look)
        db.assert_same(f"SELECT * FROM {view} WHERE {look}", f"SELECT * FROM ({queries[view].replace('FROM s', 'FROM t')}) AS q WHERE {look}")


def test_anonymous_records_are_kept_by_content_or_refused(db: Database) -> None:
    """The number of an anonymous row type means something in one process only."""
    local_stream(db, columns="k int, a int, b text, ts timestamptz")
    db.execute("CREATE TABLE t (k int, a int, b text, ts timestamptz)")
    query = "SELECT k, first(ROW(a, b), ts)::text AS f, last(ROW(a, b, k), ts)::text AS l, count(ROW(a, b)) AS n FROM {} GROUP BY k"
    query = query.replace("first(", "streamext.first(").replace("last(", "streamext.last(")
    continuous(db, "v", query.format("s"))
    db.execute("INSERT INTO t SELECT i % 3, i, 'x' || i, timestamptz '2024-01-01' + i * interval '1 s' FROM generate_series(1, 30) i")
    db.execute("INSERT INTO s TABLE t")
    db.flush("s")
    db.assert_same("TABLE v", query.format("t"))
    with db.connect() as other:  # its own numbers for other row types
        for n in range(3, 9):
            other.execute(f"SELECT ROW({', '.join(['1'] * n)})")
        assert sorted(other.execute("TABLE v").fetchall()) == sorted(db.rows(query.format("t")))
    for refused in [
        "SELECT k, streamext.last(ARRAY[ROW(a, b)], ts)::text FROM s GROUP BY k",
        "SELECT k, streamext.last(ROW(a, ROW(b)), ts)::text FROM s GROUP BY k",
        "SELECT k, streamext.last(CASE WHEN a > 0 THEN ROW(a, b) END, ts)::text FROM s GROUP BY k",
        "SELECT ROW(a, b)::text, count(*) FROM s GROUP BY ROW(a, b)",
        "SELECT count(*) FROM s GROUP BY ARRAY[ROW(a, b)]",
        "SELECT array_agg(ARRAY[ROW(a)])::text FROM s",
    ]:
        message = db.refusal(f"CREATE VIEW w WITH (streamext.continuous) AS {refused}")
        assert message.startswith("0A000"), message


TYPES = """CREATE TYPE inner_pair AS (x int, y text); CREATE TYPE pair AS (a int, b inner_pair); CREATE TABLE rowed (a int, b text);
    CREATE DOMAIN pairish AS pair; CREATE TYPE pairs AS RANGE (subtype = pair)"""
KEYS = {
    "composite": "ROW(k % 5, ROW(k, 'y'))::pair", "of_a_table": "ROW(k % 5, 't')::rowed", "array": "ARRAY[ROW(k % 5, NULL), NULL]::pair[]",
    "domain": "ROW(k % 5, ROW(1, 'd'))::pairish", "range": "pairs(ROW(1, NULL)::pair, ROW(2 + k % 5, NULL)::pair)", "nested": "ARRAY[ROW(k % 3, ROW(k % 2, 'n'))]::pairish[]",
}  # fmt: skip


def test_keys_whose_types_change(db: Database) -> None:
    """ADD and DROP ATTRIBUTE, ADD COLUMN: what PostgreSQL groups together afterwards is one group; look-ups find it."""
    db.execute(TYPES)
    local_stream(db, columns="k int, ts timestamptz")
    db.execute("CREATE TABLE t (k int, ts timestamptz)")
    queries = {}
    for name, key in KEYS.items():
        queries["v_" + name] = f"SELECT {key} AS key, count(*) AS n, array_agg(k ORDER BY k) AS ks FROM {{}} GROUP BY 1"
        queries["w_" + name] = f"SELECT {key} AS key, date_trunc('minute', ts) AS w, sum(k) AS total FROM {{}} GROUP BY 1, 2"
    for name, query in queries.items():
        continuous(db, name, query.format("s"))
        db.execute(f"CREATE VIEW o_{name} AS {query.format('t')}")

    def insert(first: int) -> None:
        db.execute(f"INSERT INTO t SELECT i % 11, timestamptz '2024-01-01' + i * interval '10 s' FROM generate_series({first}, {first + 49}) i")
        db.execute(f"INSERT INTO s SELECT i % 11, timestamptz '2024-01-01' + i * interval '10 s' FROM generate_series({first}, {first + 49}) i")
        db.flush("s")

    def same() -> None:
        for name in queries:
            db.assert_same(f"SELECT key::text, to_jsonb(v) - 'key' FROM {name} v", f"SELECT key::text, to_jsonb(v) - 'key' FROM o_{name} v")
            for key, type in db.rows(f"SELECT key::text, pg_typeof(key)::text FROM o_{name} LIMIT 2"):
                found = [db.rows(f"SELECT to_jsonb(v) - 'key' FROM {view} v WHERE key = %s::{type}", key) for view in [name, "o_" + name]]
                assert sorted(found[0], key=repr) == sorted(found[1], key=repr), (name, key)

    insert(0)
    same()
    for change in ["TYPE pair ADD ATTRIBUTE c int", "TYPE inner_pair ADD ATTRIBUTE z text", "TABLE rowed ADD COLUMN c int", "TYPE pair DROP ATTRIBUTE b", "TABLE rowed DROP COLUMN a"]:
        db.execute("ALTER " + change)
        same()
        insert(50)
        same()
