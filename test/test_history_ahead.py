"""A long read of history is unpacked and summed up ahead in a thread of the session's process (src/durable/history_ahead.c): the same rows, the same errors,
and no thread left.

streamext.fault_point = 'history-ahead' has the thread from the first row on."""

import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, local_stream
from harness.wait import wait_for
from test_history import COLUMNS, SEALING, START, VIEWS, compare, insert, wait_sealed

MERGED = {
    "tumbled": "streamext.merge(c), streamext.merge(s), streamext.merge(a), streamext.merge(m), count(*)",
    "binned": "streamext.merge(n), streamext.merge(t), streamext.merge(l), count(*)",
    "truncated": "streamext.merge(c), streamext.merge(a), sum(c), count(*)",
    "numbers": "streamext.merge(a), streamext.merge(g), count(*)",
}
EACH = "SELECT w, streamext.merge(c), max(m) FROM tumbled GROUP BY 1"  # each window's as soon as the next one begins
KEYS = {"tumbled": "k", "binned": "k", "numbers": "r"}


@pytest.fixture
def kept(db: Database) -> Iterator[Database]:
    """A stream s and a table o of the same rows, VIEWS, and of them 20 minutes that are nearly all in history."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name, query in VIEWS.items():
        continuous(db, name, query.format(s="s"))
    insert(db, 0, 1200)
    db.flush("s")
    for name in SEALING:
        wait_sealed(db, name, START + timedelta(minutes=18))
    yield db


def ahead(db: Database, on: bool = True) -> None:
    db.execute("SET streamext.fault_point = 'history-ahead'" if on else "RESET streamext.fault_point")


def threads(pid: int) -> list[str]:
    return [name.read_text().strip() for name in Path(f"/proc/{pid}/task").glob("*/comm")]


def has_thread(pid: int) -> bool:
    return "history ahead" in threads(pid)


def session(db: Database) -> int:
    return db.value("SELECT pg_backend_pid()")


def grouped(view: str) -> list[str]:
    """Its hours and its keys' hours."""
    queries = [f"SELECT date_trunc('hour', w), {MERGED[view]} FROM {view} GROUP BY 1", f"SELECT {MERGED[view]} FROM {view}"]
    if view in KEYS:
        key = KEYS[view]
        queries += [
            f"SELECT {key}, date_trunc('hour', w), {MERGED[view]} FROM {view} GROUP BY 1, 2",
            f"SELECT date_trunc('minute', w), {MERGED[view]} FROM {view} WHERE {key}::text LIKE '%1' GROUP BY 1",
        ]
    return queries


def test_the_same_rows(kept: Database) -> None:
    """As PostgreSQL's, and coarser ones as without the thread."""
    db = kept
    coarser = [query for view in MERGED for query in grouped(view)]
    before = [sorted(map(str, db.rows(query))) for query in coarser]
    ahead(db)
    compare(db)
    assert [sorted(map(str, db.rows(query))) for query in coarser] == before
    db.assert_same("SELECT * FROM tumbled WHERE k = 'k3'", f"SELECT * FROM ({VIEWS['tumbled'].format(s='o')}) AS q WHERE k = 'k3'")
    with db.connection.transaction():
        db.execute("DECLARE c CURSOR FOR " + EACH)
        db.rows("FETCH 20 FROM c")
        assert has_thread(session(db))


def test_sums_of_panes(kept: Database) -> None:
    """Where windows alone are grouped by, a slice is summed up where it is unpacked: as PostgreSQL's own GROUP BY, with thread and without."""
    query = "SELECT date_trunc('minute', w) AS m, streamext.merge(c) AS c, sum(c) AS c2, streamext.merge(s) AS s, streamext.merge(a) AS a, max(m) AS x, count(*) AS n FROM tumbled {} GROUP BY 1"
    wanted = """SELECT date_trunc('minute', ts) AS m, count(*) AS c, count(*)::numeric AS c2, sum(i) AS s, avg(f) AS a, max(ts) AS x,
        count(DISTINCT (k, date_bin('10 s', ts, '2000-01-01'))) AS n FROM o {} GROUP BY 1"""
    for on in (False, True):
        ahead(kept, on)
        kept.assert_same(query.format(""), wanted.format(""))
        some = f"{START + timedelta(minutes=3)}"
        kept.assert_same(query.format(f"WHERE w >= '{some}'"), wanted.format(f"WHERE ts >= '{some}'"))
        explain = str(kept.rows("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) " + query.format("")))
        groups = kept.value("SELECT count(*) FROM tumbled") - kept.value("SELECT count(*) FROM tumbled WHERE w > (SELECT sealed_until - interval '10 s' FROM streamext.continuous_views WHERE view = 'tumbled'::regclass)")
        assert f"History Groups: {groups}" in explain, explain


def test_slices_of_many_rows(db: Database) -> None:
    """Slices of several rows of the table, and rows that PostgreSQL keeps in its TOAST table, beside small ones."""
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, t text")
    db.execute("CREATE TABLE o (k int, ts timestamptz, t text)")
    query = "SELECT k, streamext.tumble('10 s', ts) AS w, string_agg(t, ',' ORDER BY t) AS t, count(*) AS n FROM {s} GROUP BY k, w"
    continuous(db, "long", query.format(s="s"))
    db.execute(f"""INSERT INTO o SELECT g % 3, timestamptz '{START}' + g % 40 * interval '3 s',
        (SELECT string_agg(md5((g * x)::text), '') FROM generate_series(1, CASE WHEN g % 40 = 7 THEN 30000 WHEN g % 5 = 0 THEN 2000 ELSE 2 END) AS x)
        FROM generate_series(1, 120) AS g""")
    db.execute("INSERT INTO s SELECT * FROM o ORDER BY ts")
    db.flush("s")
    wait_sealed(db, "long", START + timedelta(seconds=110), timedelta(seconds=10))
    assert db.value("SELECT max(part) FROM streamext_internal.history") > 1
    ahead(db)
    db.assert_same("TABLE long", query.format(s="o"))
    db.assert_same("SELECT date_trunc('minute', w) AS m, streamext.merge(t) AS t, streamext.merge(n) AS n FROM long GROUP BY 1",
                   "SELECT date_trunc('minute', ts) AS m, string_agg(t, ',' ORDER BY t) AS t, count(*) AS n FROM o GROUP BY 1")  # fmt: skip


def error_of(db: Database, query: str) -> tuple[str, str | None]:
    with pytest.raises(psycopg.Error) as error:
        db.rows(query)
    return error.value.sqlstate or "", error.value.diag.message_primary


QUERIES_OF_DAMAGE = [
    EACH, "TABLE hopped", "SELECT date_trunc('hour', w), streamext.merge(c), max(m) FROM tumbled GROUP BY 1", "SELECT k, streamext.merge(s) FROM tumbled GROUP BY 1",
]  # fmt: skip


def test_a_damaged_slice(kept: Database) -> None:
    """A bit that changed, a part that is missing: the same error as without the thread, which ends."""
    db = kept
    for view, query in zip(("tumbled", "hopped", "tumbled", "tumbled"), QUERIES_OF_DAMAGE):
        before = db.rows(query)
        where = f"""WHERE view = '{view}'::regclass AND pane = (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY pane)
            FROM streamext_internal.history WHERE view = '{view}'::regclass)"""
        for damage in (f"data = set_bit(data, {8 * 150}, 1 - get_bit(data, {8 * 150}))", "data = substr(data, 1, 40)", "data = ''", "part = part + 1"):
            with db.connection.transaction(force_rollback=True):
                db.execute(f"UPDATE streamext_internal.history SET {damage} {where}")
                found = []
                for on in (False, True):
                    with db.connection.transaction(force_rollback=True):
                        ahead(db, on)
                        found.append(error_of(db, query))
                        assert not has_thread(session_of(db))
                assert found[0] == found[1] and found[0][0] == "XX001", (damage, found)
        ahead(db)
        assert sorted(db.rows(query)) == sorted(before)
        assert not has_thread(session(db))
        ahead(db, False)


def session_of(db: Database) -> int:
    return db.connection.info.backend_pid


def place(page: bytes, line: int) -> tuple[int, int]:
    """Where a tuple is in its page, and its length."""
    (item,) = struct.unpack_from("<I", page, 24 + 4 * (line - 1))
    return item & 0x7FFF, item >> 17


def test_a_damaged_block() -> None:
    """Bytes of the table's file that changed while they were compressed."""
    with Postgres() as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        if "lz4" not in db.value("SELECT enumvals::text FROM pg_settings WHERE name = 'default_toast_compression'"):
            pytest.skip("this build of PostgreSQL has no LZ4")
        check_damaged_block(server, db)


def check_damaged_block(server: Postgres, own: Database) -> None:
    local_stream(own, "event_time 'ts'", COLUMNS)
    continuous(own, "tumbled", VIEWS["tumbled"].format(s="s"))
    own.execute(f"INSERT INTO s SELECT 'k' || g % 200, timestamptz '{START}' + g * interval '10 ms', g % 23, 0.5, 1, 't' FROM generate_series(0, 29999) AS g")
    own.flush("s")
    wait_sealed(own, "tumbled", START + timedelta(minutes=4), timedelta(seconds=10))
    own.execute("CHECKPOINT")
    path = server.data / own.value("SELECT pg_relation_filepath('streamext_internal.history')")
    block, line = own.rows("""SELECT (ctid::text::point)[0]::int, (ctid::text::point)[1]::int FROM streamext_internal.history
        WHERE pg_column_compression(data) = 'lz4' AND pg_column_size(data) > 1000 ORDER BY pane OFFSET 10 LIMIT 1""")[0]
    own.connection.close()
    server.stop()
    with path.open("r+b") as file:
        file.seek(block * 8192)
        at, length = place(file.read(8192), line)
        file.seek(block * 8192 + at + length // 2)
        file.write(b"\xff" * 64)
    server.start()
    db = Database(server, "postgres")
    query = "SELECT date_trunc('hour', w), streamext.merge(c) FROM tumbled GROUP BY 1"
    for query in ("TABLE tumbled", EACH, query):
        plain = error_of(db, query)
        ahead(db)
        assert error_of(db, query) == plain and plain[0] == "XX001", plain
        assert not has_thread(session(db))
        ahead(db, False)


def test_no_thread_is_left(kept: Database) -> None:
    """By the end, LIMIT, a closed cursor, an error above, ROLLBACK TO; and without much to read there is none."""
    db = kept
    pid = session(db)
    alone = len(threads(pid))

    def is_alone() -> bool:
        return len(threads(pid)) == alone and db.value("SELECT 1") == 1

    with db.connection.transaction():
        db.execute("DECLARE c CURSOR FOR " + EACH)
        db.rows("FETCH 20 FROM c")
        assert is_alone()
    ahead(db)
    db.rows(EACH)
    assert is_alone()
    db.rows(EACH + " LIMIT 20")
    assert is_alone()
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.rows(f"SELECT 1 / (extract(epoch FROM w) - extract(epoch FROM timestamptz '2024-03-01 00:08+00'))::int FROM ({EACH}) AS q")
    assert is_alone()
    with db.connection.transaction():
        db.execute("DECLARE c CURSOR FOR " + EACH)
        db.rows("FETCH 20 FROM c")
        assert has_thread(pid)
        db.execute("CLOSE c")
        assert is_alone()
        db.execute("SAVEPOINT p")
        db.execute("DECLARE c CURSOR FOR " + EACH)
        db.rows("FETCH 20 FROM c")
        assert has_thread(pid)
        db.execute("ROLLBACK TO p")
        assert is_alone()
        db.execute("DECLARE c CURSOR FOR " + EACH)
        db.rows("FETCH 20 FROM c")
        assert has_thread(pid)
    assert is_alone()
    compare(db, ["tumbled"])


def test_cursors_do_not_take_all_threads(kept: Database) -> None:
    """A session with a thousand cursors had a thousand threads, of which the system has a limit for all of the server's processes together."""
    db = kept
    whole = sorted(db.rows(EACH))
    ahead(db)
    for _ in range(2):
        with db.connection.transaction():
            for i in range(20):
                db.execute(f"DECLARE c{i} SCROLL CURSOR FOR {EACH}")
                db.rows(f"FETCH 5 FROM c{i}")
            assert threads(session(db)).count("history ahead") == 4
            for i in range(20):
                db.execute(f"MOVE ABSOLUTE 0 IN c{i}")
                assert sorted(db.rows(f"FETCH ALL FROM c{i}")) == whole
    assert not has_thread(session(db))


def begin_slowly(db: Database) -> psycopg.Connection:
    """A session in the middle of history, with its thread."""
    other = db.connect()
    other.execute("SET streamext.fault_point = 'history-ahead'")
    other.pgconn.send_query(f"SELECT pg_sleep(0.1) FROM ({EACH} OFFSET 20) AS q".encode())
    wait_for(lambda: has_thread(other.info.backend_pid), what="the thread")
    return other


def test_cancelled(kept: Database) -> None:
    with begin_slowly(kept) as other:
        pid = other.info.backend_pid
        assert kept.value(f"SELECT pg_cancel_backend({pid})")
        result = other.pgconn.get_result()
        assert result is not None and result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
        while other.pgconn.get_result() is not None:
            pass
        assert not has_thread(pid)
        assert other.execute("SELECT count(*) FROM tumbled").fetchone() == kept.rows("SELECT count(*) FROM tumbled")[0]


def test_ended(kept: Database) -> None:
    other = begin_slowly(kept)
    pid = other.info.backend_pid
    assert kept.value(f"SELECT pg_terminate_backend({pid})")
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the session's end")
    result = other.pgconn.get_result()
    assert result is not None and result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57P01"
    other.close()
    compare(kept, ["tumbled"])


def test_code_that_fails_in_between(db: Database) -> None:
    """A view's own combine function raises in the middle of history."""
    db.execute("""CREATE FUNCTION adds(bigint, bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
        IF $1 > coalesce(nullif(current_setting('ahead.most', true), ''), '1000000')::bigint THEN RAISE EXCEPTION 'enough'; END IF; RETURN $1 + $2; END $$""")
    db.execute("CREATE AGGREGATE total(bigint) (SFUNC = adds, STYPE = bigint, INITCOND = 0, COMBINEFUNC = adds)")
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, n bigint")
    continuous(db, "v", "SELECT k, streamext.tumble('10 s', ts) AS w, total(n) AS t FROM s GROUP BY k, w")
    db.execute(f"INSERT INTO s SELECT g % 5, timestamptz '{START}' + g * interval '1 s', 1 FROM generate_series(0, 1199) AS g")
    db.flush("s")
    wait_sealed(db, "v", START + timedelta(minutes=19))
    ahead(db)
    query = "SELECT date_trunc('hour', w), streamext.merge(t) FROM v GROUP BY 1"
    db.execute("SET ahead.most = '600'")
    with pytest.raises(psycopg.errors.RaiseException, match="enough"):
        db.rows(query)
    assert not has_thread(session(db))
    db.execute("RESET ahead.most")
    assert db.rows(query)[0][1] == 1200
