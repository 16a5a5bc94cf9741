"""Calls that wait while what they were given is dropped: an error that names it, or it is not shown."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.streams import continuous, error_of, local_stream
from harness.wait import wait_for

CALLS = {
    "flush": "SELECT streamext.flush({s})",
    "pause": "SELECT streamext.pause({s})",
    "resume": "SELECT streamext.resume({s})",
    "pause of a view": "SELECT streamext.pause({v})",
    "resume of a view": "SELECT streamext.resume({v})",
    "seek": "SELECT streamext.seek({s}, 'latest')",
    "seek and rebuild": "SELECT streamext.seek({s}, 'earliest', true)",
    "seek of a time": "SELECT streamext.seek({s}, now())",
    "seek of an offset": "SELECT streamext.seek({s}, '', 0, 0)",
    "retry_dead_letters": "SELECT streamext.retry_dead_letters({s})",
    "retry_dead_letters of a view": "SELECT streamext.retry_dead_letters({s}, {v})",
    "rebuild": "SELECT streamext.rebuild({v})",
    "view_positions": "SELECT * FROM streamext.view_positions({v})",
}

# Of the call above, what an error names. A call for a view waits for the stream first.
NAMES = {"pause of a view": "v", "resume of a view": "v", "rebuild": "v", "view_positions": "v"}

TABLES = [
    "streams", "stream_partitions", "continuous_views", "workers", "dead_letters", "late_rows", "stream_events",
]  # fmt: skip


def setup(db: Database) -> dict[str, str]:
    """A stream s with a view v and some of everything that the catalogue shows; their OIDs, as regclass."""
    local_stream(db, "event_time 'ts'", "k text, ts timestamptz, x int NOT NULL")
    continuous(
        db, "v", "SELECT k, streamext.tumble('1 s', ts) AS w, count(*) AS n FROM s GROUP BY 1, 2", ", streamext.keep_late"
    )
    db.execute("INSERT INTO s VALUES ('a', '2024-01-02', 1), ('a', '2024-01-02', NULL)")
    db.flush("s")
    db.execute("INSERT INTO s VALUES ('a', '2024-01-01', 1)")
    db.flush("s")
    return {name: f"{db.value('SELECT %s::regclass::oid', name)}::regclass" for name in ("s", "v")}


def run_behind(db: Database, sql: str, ddl: str, end: str) -> Future[Any]:
    """Runs `sql` while a transaction that has done `ddl` is open, and that ends by `end` once `sql` waits for it, or is done."""
    with db.connect() as caller, db.connect(autocommit=False) as changer, ThreadPoolExecutor(1) as pool:
        changer.execute(ddl)
        result: Future[Any] = pool.submit(lambda: caller.execute(sql).fetchall())
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
        wait_for(lambda: result.done() or db.value(waiting, caller.info.backend_pid), what="a lock to wait for")
        changer.execute(end)
        wait_for(result.done, what=sql)
        return result


@pytest.mark.parametrize("ddl", ["DROP FOREIGN TABLE s CASCADE", "DROP VIEW v; DROP FOREIGN TABLE s"])
@pytest.mark.parametrize("call", CALLS)
def test_dropped_while_a_call_waits(db: Database, call: str, ddl: str) -> None:
    objects = setup(db)
    with pytest.raises(psycopg.Error) as error:
        run_behind(db, CALLS[call].format(**objects), ddl, "COMMIT").result()
    state, message, _ = error_of(error)
    assert (state, message) == ("42P01", f'relation "{NAMES.get(call, "s")}" does not exist It was dropped meanwhile.')


@pytest.mark.parametrize("call", [name for name in CALLS if name not in ("seek of a time", "seek of an offset")])
def test_not_dropped_after_all(db: Database, call: str) -> None:
    objects = setup(db)
    run_behind(db, CALLS[call].format(**objects), "DROP FOREIGN TABLE s CASCADE", "ROLLBACK").result()


@pytest.mark.parametrize("ddl", ["DROP FOREIGN TABLE s CASCADE", "DROP VIEW v; DROP FOREIGN TABLE s"])
@pytest.mark.parametrize("table", TABLES)
def test_dropped_while_the_catalogue_is_read(db: Database, table: str, ddl: str) -> None:
    setup(db)
    local_stream(db, "", "k text", "other")
    continuous(db, "w", "SELECT count(*) AS n FROM other")
    db.flush("other")
    rows = run_behind(db, f"TABLE streamext.{table}", ddl, "COMMIT").result()
    if table == "continuous_views":
        assert [row[0] for row in rows] == ["w"]
    assert db.rows(f"SELECT * FROM streamext.{table} AS t WHERE t::text ~ '[(,][sv],'") == []


def test_an_owner_that_loses_the_stream_while_he_waits(db: Database) -> None:
    objects = setup(db)
    db.execute("CREATE ROLE former; GRANT CREATE ON SCHEMA public TO former; ALTER FOREIGN TABLE s OWNER TO former")
    caller = f"SET LOCAL ROLE former; SELECT streamext.seek({objects['s']}, 'latest')"
    with db.connect(autocommit=False) as other, db.connect(autocommit=False) as changer, ThreadPoolExecutor(1) as pool:
        changer.execute("ALTER FOREIGN TABLE s OWNER TO postgres")
        result = pool.submit(lambda: other.execute(caller))
        wait_for(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", other.info.backend_pid))
        changer.execute("COMMIT")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            result.result()


def test_a_stream_that_is_dropped_while_flush_waits_for_its_worker(db: Database) -> None:
    """flush holds no lock then: DROP need not wait for it."""
    objects = setup(db)
    with db.connect() as caller, ThreadPoolExecutor(1) as pool:
        db.configure("streamext.fault_point", "wait batch-after-commit")
        db.execute("INSERT INTO s VALUES ('a', '2024-01-03', 1)")
        result = pool.submit(lambda: caller.execute(f"SELECT streamext.flush({objects['s']})"))
        waits = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
        wait_for(lambda: db.value(waits, caller.info.backend_pid) == "Extension", what="flush to wait")
        db.execute("DROP FOREIGN TABLE s CASCADE")
        db.execute("ALTER SYSTEM RESET streamext.fault_point")
        db.server.reload()
        with pytest.raises(psycopg.errors.UndefinedTable, match='"s" does not exist'):
            result.result()
