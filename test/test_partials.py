"""streamext.partial and streamext.merge over partials: aggregates of a view finished elsewhere, and bytes that are no partials."""

import random
import struct
from collections.abc import Iterator

import psycopg
import pytest

from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, error_of, local_stream
from test_merge import AGGREGATES, COLUMNS, OUTPUTS, ROWS

LONGEST = """CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS
    'SELECT CASE WHEN $1 IS NULL OR length($2) > length($1) OR length($2) = length($1) AND $2 > $1 THEN $2 ELSE $1 END';
    CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text, COMBINEFUNC = longer)"""
PARTIALS = ", ".join(f"streamext.partial({name}) AS {name}" for name in AGGREGATES)
# of a user's aggregate the query has to say what it is
DEFINED = "SELECT public.longest(c1) FROM (SELECT NULL::text AS c1) r"


@pytest.fixture
def servers(db: Database) -> Iterator[list[Database]]:
    """Each with a half of the rows; the first has all of them in `o` too."""
    with Postgres() as other:
        other.psql("CREATE EXTENSION streamext")
        both = [db, Database(other, "postgres")]
        for i, server in enumerate(both):
            server.execute(LONGEST)
            local_stream(server, "event_time 'ts'", COLUMNS)
            continuous(server, "v", f"SELECT k, streamext.hop('30 s', '10 s', ts) AS w, {OUTPUTS} FROM s GROUP BY k, w")
            server.execute(f"INSERT INTO s SELECT * FROM ({ROWS}) r (k, ts) WHERE extract(second FROM ts)::int % 2 = {i}")
            server.flush("s")
        db.execute(f"CREATE TABLE o ({COLUMNS})")
        db.execute(f"INSERT INTO o {ROWS}")
        yield both


def collect(servers: list[Database], query: str, columns: str) -> None:
    """What the query gives on each server, in table p of the first."""
    servers[0].execute(f"CREATE TABLE p ({columns})")
    for server in servers:
        with server.connection.cursor() as out, out.copy(f"COPY ({query}) TO STDOUT") as source:
            lines = [bytes(data) for data in source]
        with servers[0].connection.cursor() as into, into.copy("COPY p FROM STDIN") as target:
            for line in lines:
                target.write(line)


def test_two_servers(servers: list[Database]) -> None:
    """Every aggregate, whichever way it is kept, over both servers' rows."""
    db = servers[0]
    collect(servers, f"SELECT k, w, {PARTIALS} FROM v", "k text, w timestamptz, " + ", ".join(f"{name} bytea" for name in AGGREGATES))
    types = dict(db.rows("SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'v'::regclass"))
    typed = ", ".join(
        f"streamext.merge({name}, NULL::{types[name]}" + (f", '{DEFINED}')" if name == "lo" else ")") + f" AS {name}" for name in AGGREGATES
    )
    expected = f"SELECT k, streamext.hop('30 s', '10 s', ts) AS w, {OUTPUTS} FROM o GROUP BY k, w"
    db.assert_same(f"SELECT k, w, {typed} FROM p GROUP BY k, w", expected)
    texts = ", ".join(f"streamext.merge({name})::{types[name]} AS {name}" for name in AGGREGATES if name != "lo")
    plain = ", ".join(f"{call} AS {name}" for name, call in AGGREGATES.items() if name != "lo")
    db.assert_same(f"SELECT k, {texts} FROM p GROUP BY k", f"SELECT k, {plain} FROM o, streamext.hop('30 s', '10 s', ts) GROUP BY k")
    assert db.value("SELECT streamext.merge(n) FROM p WHERE false") is None
    assert db.rows("SELECT streamext.merge(n), streamext.merge(NULL::bytea) FROM p") == [("4500", None)]
    with pytest.raises(psycopg.Error) as error:
        db.rows("SELECT streamext.merge(lo) FROM p")
    assert error_of(error)[0] == "0A000" and "longest" in error_of(error)[1]


def test_client_encoding_is_not_in_a_partial(servers: list[Database]) -> None:
    db = servers[0]
    db.execute("INSERT INTO s (k, ts, t) VALUES ('ä', '2024-05-02 00:00:00Z', 'täxt')")
    db.flush("s")
    db.execute("SET client_encoding = latin1")
    db.execute("CREATE TABLE p AS SELECT streamext.partial(st) AS st, streamext.partial(mt) AS mt FROM v WHERE k = 'ä'")
    db.execute("SET client_encoding = utf8")
    assert db.rows("SELECT streamext.merge(st), streamext.merge(mt) FROM p") == [("täxt,täxt,täxt", "täxt")]


@pytest.mark.parametrize(
    "query",
    ["SELECT streamext.partial(n + 1) FROM v", "SELECT streamext.partial(k) FROM v", "SELECT streamext.partial(1)", "SELECT k FROM v WHERE streamext.partial(n) IS NULL"],
)
def test_what_is_refused(db: Database, query: str) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("INSERT INTO s (k, ts) VALUES ('a', now())")
    db.flush("s")
    with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
        db.rows(query)
    assert error.value.diag.message_hint


def test_rights(db: Database) -> None:
    """A state tells what the column does not: who may read the view alone gets none, not even below a view of his own."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "v", "SELECT k, avg(i) AS mean FROM s GROUP BY k")
    db.execute("INSERT INTO s (k, ts, i) VALUES ('a', now(), 1)")
    db.flush("s")
    db.execute("CREATE ROLE curious; GRANT SELECT ON v TO curious; GRANT CREATE ON SCHEMA public TO curious; CREATE VIEW mine AS SELECT streamext.partial(mean) AS p FROM v")
    try:
        db.execute("SET ROLE curious; CREATE VIEW his AS SELECT streamext.partial(mean) AS p FROM v")
        for query in ("SELECT streamext.partial(mean) FROM v", "TABLE his"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.rows(query)
        db.execute("RESET ROLE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.rows("TABLE his")
        db.execute("GRANT SELECT ON mine TO curious; SET ROLE curious")
        assert db.rows("SELECT streamext.merge(p) FROM mine") == [("1.00000000000000000000",)]
        db.execute("RESET ROLE; GRANT SELECT ON s TO curious; SET ROLE curious")
        assert len(db.rows("TABLE his")) == 1
    finally:
        db.execute("RESET ROLE; DROP OWNED BY curious; DROP ROLE curious")


def test_bytes_of_anybody(db: Database) -> None:
    """Partials that were cut, changed or made up are refused, whatever their checksum says; the server goes on."""
    db.execute(LONGEST)
    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "v", f"SELECT {OUTPUTS} FROM s")
    db.execute(f"INSERT INTO s {ROWS} LIMIT 20")
    db.flush("s")
    [row] = db.rows("SELECT " + ", ".join(f"streamext.partial({name})" for name in AGGREGATES) + " FROM v")
    pid = db.value("SELECT pg_backend_pid()")
    pick = random.Random(15)
    refused = 0
    for good in row:
        for _ in range(12):
            bad = bytearray(good)
            if pick.random() < 0.3:
                del bad[pick.randrange(len(bad)) :]
            elif pick.random() < 0.5:
                for _ in range(pick.randrange(1, 4)):
                    bad[pick.randrange(len(bad))] ^= 1 << pick.randrange(8)
            else:
                at = pick.randrange(24, len(bad))
                bad[at : at + 4] = pick.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b""])
            if bytes(bad) == good:
                continue
            if pick.random() < 0.7 and len(bad) > 24:
                bad[4:8] = crc32c(bytes(bad[8:])).to_bytes(4, "little")
            try:
                db.rows("SELECT streamext.merge(%s::bytea)", bytes(bad))
            except psycopg.Error as error:
                assert error.diag.sqlstate[:2] in ("22", "0A", "42", "08", "54", "53", "XX"), error
                refused += 1
    assert db.value("SELECT pg_backend_pid()") == pid
    assert refused > 200
    for made_up in (b"", b"x" * 23, b"x" * 64):
        with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
            db.rows("SELECT streamext.merge(%s::bytea)", made_up)


@pytest.mark.parametrize(
    "number",
    [
        struct.pack(">iiiih", 1, -(2**31), 0, 0, 1),
        struct.pack(">iiiih", 1, 2**31 - 1, 0, 0, 1),
        struct.pack(">iiiih", 1, -200_000_000, 0, 0, 1),
        struct.pack(">iiiih", 1, 0, 1, 0, 1),
        struct.pack(">iiiih", 1, 0, 0, -1, 1),
        struct.pack(">iiiih", 1, 0, 0, 0, -1),
        struct.pack(">iiiih", 1, 0, 0, 0, 10000),
        struct.pack(">iiiih", -1, 0, 0, 0, 1),
        struct.pack(">iiiih", 1000, 0, 0, 0, 1),
    ],
)
def test_numbers_of_anybody(db: Database, number: bytes) -> None:
    """PostgreSQL's deserialise functions believe a numeric's weight, and write where it says."""
    local_stream(db, "event_time 'ts'", "ts timestamptz, b numeric")
    continuous(db, "v", "SELECT sum(b) AS one, stddev(b) AS two FROM s")
    db.execute("INSERT INTO s VALUES (now(), 2)")
    db.flush("s")
    pid = db.value("SELECT pg_backend_pid()")
    one, two = db.rows("SELECT streamext.partial(one), streamext.partial(two) FROM v")[0]
    good = struct.pack(">iiiih", 1, 0, 0, 0, 2)
    for partial, numbers in ((one, number), (two, number + good), (two, good + number)):
        head = bytes(partial[8 : 24 + int.from_bytes(partial[12:16], "little")])
        state = struct.pack(">q", 1) + numbers + bytes(36)
        rest = head + b"\0" + len(state).to_bytes(4, "little") + state
        with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
            db.rows("SELECT streamext.merge(%s::bytea)", b"SXP1" + crc32c(rest).to_bytes(4, "little") + rest)
    assert db.rows("SELECT streamext.merge(%s::bytea)::numeric, streamext.merge(%s::bytea)", one, two) == [(2, None)]
    assert db.value("SELECT pg_backend_pid()") == pid


@pytest.mark.parametrize(
    "definition",
    [
        "DROP TABLE o",
        "SELECT pg_sleep(1000)",
        "SELECT count(*) FROM pg_class",
        "SELECT max(c1) FROM (SELECT pg_read_file('PG_VERSION') AS c1 FROM pg_class) r",
        "SELECT max((SELECT 1)) FROM (SELECT 1 AS c1) r",
        "SELECT max(pg_read_file('PG_VERSION')) FROM (SELECT 1 AS c1) r",
        "SELECT percentile_cont(length(pg_read_file('PG_VERSION'))) WITHIN GROUP (ORDER BY c1) FROM (SELECT NULL::float8 AS c1) r",
        "SELECT public.longest(c1) AS value FROM ( SELECT NULL::text AS c1) r",
        "SELECT max(c1) FROM (SELECT NULL::int AS c1) r; DROP TABLE o",
        "SELECT max(c1) FROM (SELECT NULL::int AS c1, '{1}'::public.trap[] AS c2) r",
        "SELECT array_agg(c1) FROM (SELECT NULL::public.trap AS c1) r",
        "SELECT max(c1) FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS c1 int DEFAULT '{1}'::public.trap[]) r",
    ],
)
def test_definitions_of_anybody(db: Database, definition: str) -> None:
    """What a partial says of itself is looked at and never run, nor what its constants are checked by."""
    db.execute(LONGEST)
    db.execute("CREATE TABLE o (); CREATE SEQUENCE sprung; CREATE DOMAIN trap AS int CHECK (nextval('public.sprung') > 0)")
    text = definition.encode()
    fingerprint = db.value("SELECT hashtextextended(%s, 0)", definition)
    rest = bytes([0, 1, 6, 0]) + len(text).to_bytes(4, "little") + fingerprint.to_bytes(8, "little", signed=True) + text + bytes(8)
    with pytest.raises(psycopg.Error) as error:
        db.rows("SELECT streamext.merge(%s::bytea)", b"SXP1" + crc32c(rest).to_bytes(4, "little") + rest)
    assert error_of(error)[0] in ("22P03", "0A000")
    assert "checksum" not in error_of(error)[1]
    assert not db.value("SELECT is_called FROM sprung")
    db.execute("DROP TABLE o")


def test_internal_states_of_extensions(db: Database) -> None:
    """What makes them of bytes trusts them, so only a superuser gives it a partial."""
    if not db.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'hll'"):
        pytest.skip("no postgresql-15-hll")
    db.execute("CREATE EXTENSION hll; CREATE ROLE anybody")
    try:
        local_stream(db, "event_time 'ts'", "ts timestamptz, a int")
        continuous(db, "v", "SELECT hll_add_agg(hll_hash_integer(a)) AS h FROM s")
        db.execute("INSERT INTO s SELECT now(), i FROM generate_series(1, 3) i")
        db.flush("s")
        partial = db.value("SELECT streamext.partial(h) FROM v")
        with pytest.raises(psycopg.errors.FeatureNotSupported) as unnamed:
            db.rows("SELECT streamext.merge(%s::bytea)", partial)
        definition = (unnamed.value.diag.message_detail or "").removeprefix("It is of: ")
        merge = "SELECT hll_cardinality(streamext.merge(%s::bytea, NULL::hll, %s))"
        assert db.value(merge, partial, definition) == 3
        db.execute("SET ROLE anybody")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="hll_add_agg"):
            db.rows(merge, partial, definition)
    finally:
        db.execute("RESET ROLE; DROP ROLE anybody")


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF
