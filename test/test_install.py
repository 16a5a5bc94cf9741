"""The install script and what it leaves in a database."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.regress import TOP
from harness.streams import continuous, local_stream
from harness.wait import wait_for


WRAPPERS = {"kafka", "mqtt", "http", "flume", "feed", "local", "webhook"}


def test_pgspot_reports_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "pgspot", "--append", *sorted(TOP.glob("streamext--*.sql"), key=lambda p: len(p.name))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Errors: 0 Warnings: 0 Unknown: 0" in done.stdout, done.stdout


def test_everything_is_in_one_schema(db: Database) -> None:
    objects = db.rows("""SELECT type, identity, schema FROM pg_depend, pg_identify_object(classid, objid, 0)
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'streamext')""")
    assert {name for type, name, _ in objects if type == "foreign-data wrapper"} == WRAPPERS
    # what has no use by name stands in streamext_internal: functions, tables with their sequences, and nothing that is read
    inside = {(type, schema) for type, _, schema in objects if schema not in (None, "streamext")}
    inside.discard(("type", "streamext_internal"))  # 17 and later count the tables' row types too
    assert inside == {(type, "streamext_internal") for type in ("aggregate", "function", "sequence", "table")}
    assert db.value("SELECT NOT extrelocatable FROM pg_extension WHERE extname = 'streamext'")


def test_documents_name_what_the_build_needs() -> None:
    needed = set(re.findall(r"\bz?lib(?!clang)[\w-]+-dev", (TOP / "test/deps").read_text()))
    assert len(needed) > 5
    for document in ("docs/operations.md", "debian/control"):
        assert needed - set(re.findall(r"\bz?lib[\w-]+-dev", (TOP / document).read_text())) == set(), document


def test_nothing_is_open_to_everybody(db: Database) -> None:
    """No wrapper may be used without a grant, no table is writable, no search_path decides what a function does."""
    db.execute("CREATE ROLE nobody_special")
    try:
        for wrapper in WRAPPERS:
            assert not db.value("SELECT has_foreign_data_wrapper_privilege('nobody_special', %s, 'USAGE')", wrapper)
        writable = """SELECT relname FROM pg_class WHERE relnamespace IN ('streamext'::regnamespace, 'streamext_internal'::regnamespace) AND relkind IN ('r', 'v')
            AND has_table_privilege('nobody_special', oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"""
        # a request that a trigger answers INSTEAD OF INSERT, as who asks: foreign tables cannot call functions
        assert db.rows(writable) == [("shard_request",)]
        definers = """SELECT proname FROM pg_proc WHERE pronamespace IN ('streamext'::regnamespace, 'streamext_internal'::regnamespace) AND prosecdef
            AND NOT coalesce(proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)"""
        assert db.rows(definers) == []
    finally:
        db.execute("DROP ROLE nobody_special")


def test_only_superusers_install(db: Database) -> None:
    db.execute("DROP EXTENSION streamext CASCADE")
    db.execute("CREATE ROLE installer; CREATE SCHEMA AUTHORIZATION installer")
    try:
        db.execute("SET ROLE installer")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("CREATE EXTENSION streamext")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY installer; DROP ROLE installer")


def test_of_two_that_wait_for_each_other_the_worker_gives_way(db: Database) -> None:
    """DROP EXTENSION, say, takes lock after lock of tables that a worker has in another order: PostgreSQL ends who looks first."""
    local_stream(db, "", "x int")
    db.execute("CREATE FUNCTION patience(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_setting('deadlock_timeout'); END $$")
    continuous(db, "v", "SELECT patience(x) AS patience, count(*) AS n FROM s GROUP BY 1")
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    assert db.rows("SELECT patience::interval < current_setting('deadlock_timeout')::interval / 10, n FROM v") == [(True, 1)]


def test_create_in_another_schema_is_refused(db: Database) -> None:
    db.execute("DROP EXTENSION streamext CASCADE")
    db.execute("CREATE SCHEMA elsewhere")
    with pytest.raises(psycopg.Error):
        db.execute("CREATE EXTENSION streamext SCHEMA elsewhere")
    db.execute("CREATE EXTENSION streamext")


def test_a_database_without_utf8(db: Database) -> None:
    """Streams are refused there, not garbled."""
    db.server.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        db.server.psql("CREATE EXTENSION streamext; CREATE SERVER l FOREIGN DATA WRAPPER local", "latin")
        with pytest.raises(RuntimeError, match="UTF8"):
            db.server.psql("CREATE FOREIGN TABLE s (a int) SERVER l", "latin")
    finally:
        db.server.psql("DROP DATABASE latin WITH (FORCE)")


def test_settings(db: Database) -> None:
    settings = {name for (name,) in db.rows("SELECT name FROM pg_settings WHERE name LIKE 'streamext.%'")}
    assert settings >= {"streamext.memory_limit", "streamext.max_streams", "streamext.max_views", "streamext.dead_letter_limit"}
    with pytest.raises(psycopg.Error):
        db.execute("SET streamext.nothing = 1")


@pytest.mark.parametrize("setting", ["journal_limit", "teller_memory", "view_time_limit", "checkpoint_interval"])
def test_a_part_of_a_unit_is_not_rounded_to_none(db: Database, setting: str) -> None:
    """Zero takes the limit away. What is in force is a whole unit: test_fair.py."""
    unit = "kB" if db.value(f"SHOW streamext.{setting}").endswith("B") else "us"
    try:
        db.execute(f"ALTER SYSTEM SET streamext.{setting} = '100{unit}'")
        db.server.reload()
        wait_for(lambda: db.value(f"SHOW streamext.{setting}") in (f"100{unit}", "0"), what="the setting")
        assert db.value(f"SHOW streamext.{setting}") == f"100{unit}"
    finally:
        db.execute(f"ALTER SYSTEM RESET streamext.{setting}")
        db.server.reload()
