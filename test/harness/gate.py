"""A place in a view's own expressions where a worker stands still for as long as a test wants."""

from typing import Self

from harness.database import Database
from harness.wait import wait_for

_KEY = 7_001
_FUNCTION = """CREATE OR REPLACE FUNCTION gate(passes boolean) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF NOT passes THEN
        PERFORM pg_advisory_lock_shared(7001), pg_advisory_unlock_shared(7001);
    END IF;
    RETURN true;
END $$"""


class Gate:
    """Inside the block, whoever evaluates `passes(condition)` for a row without the condition waits; afterwards nobody does."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def passes(self, condition: str) -> str:
        """An expression that is true, sooner or later."""
        return f"gate({condition})"

    def wait_until_held(self) -> int:
        """Returns when a process waits; its pid."""
        query = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
        return wait_for(lambda: next((pid for (pid,) in self.db.rows(query, _KEY)), 0), what="a process at the gate")

    def __enter__(self) -> Self:
        self.db.execute(_FUNCTION)
        self.holder = self.db.connect()
        self.holder.execute("SELECT pg_advisory_lock(%s)", (_KEY,))
        return self

    def __exit__(self, *_: object) -> None:
        self.holder.close()
