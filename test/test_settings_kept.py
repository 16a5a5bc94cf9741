"""Text that is made below the aggregation follows settings: those of CREATE VIEW, whatever becomes of the server's."""

import pytest
from harness.database import Database
from harness.postgres import Postgres
from harness.streams import local_stream
from harness.wait import wait_for

# Per setting: another value than usual, an expression over the columns below that follows it.
CASES = {
    "extra_float_digits": ("-15", "x::text"),
    "bytea_output": ("escape", "b::text"),
    "xmlbinary": ("hex", "xmlelement(name e, b)::text"),
    "lc_monetary": ("de_DE.UTF-8", "(x::numeric::money)::text"),
    "lc_numeric": ("de_DE.UTF-8", "to_char(x, '9G999D99')"),
    "lc_time": ("de_DE.UTF-8", "to_char(ts, 'TMMonth')"),
    "default_text_search_config": ("pg_catalog.simple", "searched(t)"),
    "IntervalStyle": ("iso_8601", "i::text"),
    "DateStyle": ("German, DMY", "d::text"),
    "TimeZone": ("Asia/Tokyo", "ts::text"),
    "array_nulls": ("off", "(('{NULL,' || t || '}')::text[])[1]"),
    # The last: from then on PostgreSQL quotes the name of a text search configuration when it is set inside of a transaction.
    "quote_all_identifiers": ("on", "quote_ident(t)"),
}
COLUMNS = "x float8, b bytea, t text, i interval, d date, ts timestamptz"
NAMES = ", ".join(column.split()[0] for column in COLUMNS.split(", "))
ROW = "0.1 + 0.2 + g, '\\xff00'::bytea, 'cats', interval '1 day 02:03:04', date '2024-05-06', timestamptz '2024-05-06 07:08:09+00'"


def is_there(db: Database, setting: str, value: str, expression: str) -> bool:
    """The locale, and what of PostgreSQL the expression needs (XML is left out of some builds)."""
    try:
        db.execute(f"SET {setting} = '{value}'; RESET {setting}; SELECT {expression} FROM (SELECT {ROW} FROM (VALUES (1)) AS one (g)) AS o ({NAMES})")
        return True
    except Exception:
        return False


def fill(db: Database) -> None:
    db.execute(f"INSERT INTO s SELECT {ROW} FROM generate_series(1, 2) AS g")
    db.flush("s")


@pytest.mark.parametrize("first", ["usual", "other"])
def test_one_group_whatever_the_server_says(first: str) -> None:
    with Postgres() as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        db.execute(
            "CREATE FUNCTION searched(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN to_tsvector($1)::text; END'"
        )
        cases = {name: case for name, case in CASES.items() if is_there(db, name, *case)}
        assert len(cases) > 6
        local_stream(db, "", COLUMNS)
        db.execute(f"CREATE TABLE o ({COLUMNS})")
        db.execute(f"INSERT INTO o SELECT {ROW} FROM generate_series(1, 2) AS g")
        expected = {}
        for name, (value, expression) in cases.items():
            if first == "other":
                db.execute(f"SET {name} = '{value}'")
            db.execute(
                f"CREATE VIEW v_{name} WITH (streamext.continuous) AS SELECT {expression} AS k, count(*) AS n, "
                f"array_agg(DISTINCT {expression}) AS a FROM s GROUP BY 1"
            )
            query = f"SELECT {expression} AS k, 2 * count(*) AS n, array_agg(DISTINCT {expression}) AS a FROM o GROUP BY 1"
            expected[name] = sorted(db.rows(query))
            db.execute(f"RESET {name}")
        fill(db)
        for name, (value, _) in cases.items():
            db.configure(name, value) if name not in ("DateStyle", "TimeZone", "IntervalStyle") else db.execute(
                f"ALTER SYSTEM SET {name} = '{value}'"
            )
        server.restart()
        db = Database(server, "postgres")
        fill(db)
        for name in cases:
            db.execute(f"RESET {name}")
            assert sorted(db.rows(f"TABLE v_{name}")) == expected[name], name
        dump = server.run("pg_dump", "postgres")
        if first == "other":
            assert "streamext.bytea_output" in dump
            assert ["bytea_output=escape"] in [row[0] for row in db.rows("SELECT settings FROM streamext.continuous_views")]
        else:
            assert "streamext.bytea_output" not in dump
        wait_for(lambda: db.value("SELECT count(*) = 1 FROM streamext.streams WHERE state = 'running'"))


def test_a_dump_brings_the_settings_along(db: Database) -> None:
    """A view that was made under the usual ones keeps them in a database that has others, and the reverse."""
    local_stream(db, "", "b bytea")
    for name, value in ("usual", "hex"), ("other", "escape"):
        db.execute(f"SET bytea_output = {value}")
        db.execute(f"CREATE VIEW {name} WITH (streamext.continuous) AS SELECT b::text AS b, count(*) FROM s GROUP BY 1")
    db.execute("RESET bytea_output")
    dump = db.server.run("pg_dump", db.name)
    db.server.psql("CREATE DATABASE restored; ALTER DATABASE restored SET bytea_output = escape")
    db.server.psql(dump, "restored")
    restored = Database(db.server, "restored")
    restored.execute("INSERT INTO s VALUES ('\\x01')")
    restored.flush("s")
    assert restored.rows("TABLE usual") == [("\\x01", 1)]
    assert restored.rows("TABLE other") == [("\\001", 1)]
    restored.connection.close()
    db.server.psql("DROP DATABASE restored WITH (FORCE)")


def test_a_setting_that_is_none(db: Database) -> None:
    local_stream(db, "", "b bytea")
    query = "AS SELECT b::text, count(*) FROM s GROUP BY 1"
    for option, message in ("bytea_output = 'loud'", "invalid value"), ("work_mem = '1MB'", "unrecognized view option"):
        with pytest.raises(Exception, match=message):
            db.execute(f"CREATE VIEW v WITH (streamext.continuous, streamext.{option}) {query}")
    db.execute(f"CREATE VIEW v WITH (streamext.continuous, streamext.bytea_output = 'escape') {query}")
    with pytest.raises(Exception, match="cannot be changed by ALTER"):
        db.execute("ALTER VIEW v SET (streamext.bytea_output = 'hex')")
