"""Servers that crash at a fault point (streamext.fault_point) while a test goes on. Connections are made anew, with UTC."""

from collections.abc import Callable

import psycopg

from harness.database import Database
from harness.wait import wait_for


def reconnect(db: Database) -> None:
    """Returns when the server answers again."""

    def again() -> bool:
        try:
            db.connection = db.connect()
            db.execute("SET timezone = 'UTC'")
        except psycopg.OperationalError:
            return False
        return True

    wait_for(again, what="the server")


def commit_once(db: Database, table: str, insert: Callable[[], None]) -> None:
    """A transaction that puts rows into the table, once: again when the server has crashed, but not if it was committed without an answer."""
    before: int | None = None
    while True:
        try:
            rows = db.value(f"SELECT count(*) FROM {table}")
            if before is None:
                before = rows
            if rows > before:
                return
            with db.connection.transaction():
                insert()
        except psycopg.OperationalError:
            reconnect(db)


def _shows(db: Database, fault: str) -> bool:
    """The fault may be there before the answer."""
    try:
        return db.value("SHOW streamext.fault_point") == fault
    except psycopg.OperationalError:
        reconnect(db)
        return False


def set_fault(db: Database, fault: str) -> int:
    """Where the server's log ended before."""
    before = db.server.log_file.stat().st_size
    db.execute(f"ALTER SYSTEM SET streamext.fault_point = '{fault}'")
    db.server.reload()
    wait_for(lambda: _shows(db, fault), what="the setting")
    return before


def wait_for_crash(db: Database, fault: str, before: int) -> None:
    """Returns when the server has crashed there since, and answers again."""
    wait_for(lambda: f'fault point "{fault}" reached' in db.server.log(before), what=fault)
    wait_for(lambda: "all server processes terminated" in db.server.log(before), what="the crash")
    reconnect(db)


def until_quiet(db: Database) -> None:
    """Flushes; a worker may be at its end only now."""

    def flushed() -> bool:
        try:
            db.flush("s")
        except psycopg.OperationalError:
            reconnect(db)
            return False
        return True

    wait_for(flushed, what="a flush")
