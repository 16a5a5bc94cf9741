"""Rows of a local stream are read by the layout that they were inserted with, whatever has become of columns and types."""

import struct
import threading
from pathlib import Path

import psycopg
import pytest

from crash.faults import kill_all
from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, counts, kafka_stream, local_stream, state
from harness.wait import wait_for


def altering(db: Database, stand_ins: str, *types: str, alter: str) -> None:
    """Alters types that columns of s have; PostgreSQL wants the columns to have others meanwhile."""
    columns = [column.split() for column in stand_ins.split(", ")]
    for name, stand_in in columns:
        db.execute(f"ALTER FOREIGN TABLE s ALTER COLUMN {name} TYPE {stand_in}")
    db.execute(alter)
    for (name, _), type in zip(columns, types):
        db.execute(f"ALTER FOREIGN TABLE s ALTER COLUMN {name} TYPE {type}")


def letters(db: Database) -> list[tuple[str, str]]:
    return db.rows("SELECT sqlstate, encode(payload, 'escape') FROM streamext.dead_letters ORDER BY position")


def test_columns_change_under_load(db: Database) -> None:
    """ADD, DROP and ALTER TYPE while rows come that nobody has read yet: all that was committed is counted."""
    local_stream(db, columns="k int, a int, t text")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    inserted = [0, 0]

    def insert(number: int) -> None:
        with db.connect() as connection:
            for _ in range(150):
                connection.execute("INSERT INTO s (k, a) SELECT i % 7, i FROM generate_series(1, 100) i")
                inserted[number] += 100

    writers = [threading.Thread(target=insert, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for i in range(6):
        db.execute(f"ALTER FOREIGN TABLE s ADD COLUMN c{i} int")
        db.execute(f"ALTER FOREIGN TABLE s ALTER COLUMN a TYPE {['bigint', 'numeric', 'text', 'bigint', 'int', 'text'][i]}")
        if i > 2:
            db.execute(f"ALTER FOREIGN TABLE s DROP COLUMN c{i - 3}")
    for writer in writers:
        writer.join()
    db.flush("s")
    assert letters(db) == []
    assert db.value("SELECT sum(n) FROM v") == sum(inserted) == 30000


def test_rows_not_read_yet_are_read_by_their_own_layout(database: Database) -> None:
    """Through a crash, too: columns added with and without a default, dropped, of other types, types that were altered inside."""
    db = database
    db.execute("""CREATE TYPE inner_type AS (x int, y text); CREATE TYPE pair AS (p int, q inner_type);
        CREATE DOMAIN pairs AS pair[]; CREATE TABLE o (k int, a int, b text, ps pair[], q pairs, gone text, w varchar(20))""")
    local_stream(db, columns="k int, a int, b text, ps pair[], q pairs, gone text, w varchar(20)")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("SELECT streamext.pause('s')")

    def insert(first: int, a: str = "i", b: str = "i::text") -> None:
        for relation in ["o", "s"]:
            db.execute(f"""INSERT INTO {relation} (k, a, b, ps, q, w) SELECT i % 3, {a}, {b},
                ARRAY[ROW(i, ROW(i, 'y')), NULL, ROW(NULL, ROW(7, NULL))]::pair[], ARRAY[ROW(i, ROW(1, 'z'))]::pair[], repeat('w', i % 20)
                FROM generate_series({first}, {first + 99}) i""")  # fmt: skip

    def both(statement: str) -> None:
        db.execute("ALTER FOREIGN TABLE s " + statement)
        db.execute("ALTER TABLE o " + statement.replace("TYPE int", "TYPE int USING b::int"))

    insert(0)
    both("ADD COLUMN plain int")
    both("ADD COLUMN filled int DEFAULT 42")
    both("DROP COLUMN gone")
    insert(100)
    both("ALTER COLUMN a TYPE text")
    both("ALTER COLUMN b TYPE int")
    both("ALTER COLUMN w TYPE text")
    kill_all(db.server)
    db.server.start()
    db = Database(db.server, db.name)
    insert(200, "i::text", "i")
    # what a table forbids
    db.execute("CREATE TABLE kept AS SELECT k, a, b, plain, filled, w, ps::text, q::text FROM o; DROP TABLE o")
    altering(db, "ps text, q text", "pair[]", "pairs", alter="""ALTER TYPE inner_type ALTER ATTRIBUTE x TYPE text;
        ALTER TYPE pair ALTER ATTRIBUTE p TYPE numeric; ALTER TYPE inner_type ADD ATTRIBUTE z int""")
    continuous(db, "w", "SELECT k, a, b, plain, filled, w, ps::text, q::text, count(*) AS n FROM s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert letters(db) == []
    db.assert_same("TABLE v", "SELECT k, count(*) FROM kept GROUP BY k")
    db.assert_same("SELECT k, a, b, plain, filled, w FROM s", "SELECT k, a, b, plain, filled, w FROM kept")
    assert db.value("SELECT count(*) FROM s WHERE (ps[1]).p = a::numeric AND (ps[1]).q.x = a AND (ps[3]).q.x = '7' AND (q[1]).q.y = 'z'") == 300


def test_a_value_that_cannot_be_cast_is_a_dead_letter(db: Database) -> None:
    local_stream(db, columns="k int, t text, p point")
    db.execute("CREATE DOMAIN needed AS int NOT NULL")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("SELECT streamext.pause('s'); INSERT INTO s VALUES (1, '12', '(1,2)'), (2, 'x', NULL), (3, '14', NULL)")
    db.execute("ALTER FOREIGN TABLE s ALTER COLUMN t TYPE int, ALTER COLUMN p TYPE uuid")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert letters(db) == [("42846", '{"k":1,"t":"12","p":"(1,2)"}'), ("22P02", '{"k":2,"t":"x","p":null}')]
    assert db.rows("TABLE v") == [(1,)]
    db.execute("ALTER FOREIGN TABLE s DROP COLUMN p")
    db.execute("SELECT streamext.retry_dead_letters('s')")
    db.flush("s")
    wait_for(lambda: db.rows("TABLE v") == [(2,)], what="the letter that can be read now")
    assert letters(db) == [("22P02", '{"k":2,"t":"x","p":null}')]


def test_types_altered_inside_are_never_misread(db: Database) -> None:
    """A forged pointer, as one may make of an int: the hash of the columns' types was the same as before."""
    db.execute("CREATE TYPE pair AS (a bigint, b bigint)")
    local_stream(db, columns="k int, p pair")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("INSERT INTO s SELECT i, ROW(i + 3, -i * 12345)::pair FROM generate_series(1, 50) i")
    db.flush("s")
    db.execute("SELECT streamext.pause('s'); INSERT INTO s SELECT i, ROW(i + 3, -i * 12345)::pair FROM generate_series(51, 100) i")
    altering(db, "p text", "pair", alter="ALTER TYPE pair ALTER ATTRIBUTE a TYPE text, ALTER ATTRIBUTE b TYPE text")
    assert db.value("SELECT count(*) FROM s WHERE (p).a = (k + 3)::text AND (p).b = (-k * 12345)::text") == 50
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert db.value("SELECT count(*) FROM s WHERE (p).a = (k + 3)::text AND (p).b = (-k * 12345)::text") == 100
    assert db.value("SELECT sum(n) FROM v") == 100
    assert state(db) == "running"


SAMPLES = {
    "int8": "1234567890123", "text": "'text'", "int4": "7", "int2": "3", "float8": "1.5", "bytea": "'\\xff00'", "date": "'2024-01-01'",
    "time": "'12:00'", "timestamp": "'2024-01-01'", "uuid": "gen_random_uuid()", "bool": "true", "float4": "2.5", "numeric": "12.34", "json": "'{}'",
    "oid": "1259", "varchar": "'varchar'",
}  # fmt: skip

# By value and by reference, of all lengths: what one is read as another is a forged pointer or a length out of nowhere.
COLLIDING = ["int8", "text", "int4", "int2", "float8", "bytea", "date", "time", "timestamp", "uuid", "bool", "float4", "numeric", "json", "oid", "varchar"]


def test_layouts_of_one_hash(db: Database) -> None:
    """The hash that vouched for a row before is the same for others, which are found in a moment."""
    hashes = {name: db.value(f"SELECT hashoid('{name}'::regtype)") % 2**32 for name in COLLIDING}
    numbers = [db.value(f"SELECT hashoid({i}::oid)") % 2**32 for i in range(6)]

    def combine(a: int, b: int) -> int:
        return a ^ ((b + 0x9E3779B9 + (a << 6) + (a >> 2)) & 0xFFFFFFFF) & 0xFFFFFFFF

    level: list[tuple[int, tuple[str, ...]]] = [(numbers[0], ())]
    for column in range(1, 6):
        level = [
            (combine(start, hash) & 0xFFFFFFFF, (*types, name))
            for begin, types in level
            for start in [combine(begin, numbers[column]) & 0xFFFFFFFF]
            for name, hash in hashes.items()
        ]
    seen: dict[int, tuple[str, ...]] = {}
    pairs = [(seen[hash], types) for hash, types in level if seen.setdefault(hash, types) != types]
    assert pairs
    local_stream(db, columns="k int")
    for n, (one, other) in enumerate(pairs[:12]):
        columns = [f"c{i} {name}" for i, name in enumerate(one)]
        local_stream(db, columns=", ".join(columns), name=f"s{n}")
        continuous(db, f"v{n}", f"SELECT count(*) AS n FROM s{n}")
        db.execute(f"INSERT INTO s{n} SELECT {', '.join(SAMPLES[name] for name in one)} FROM generate_series(1, 5)")
        db.flush(f"s{n}")
        db.execute(f"SELECT streamext.pause('s{n}')")
        db.execute(f"INSERT INTO s{n} SELECT {', '.join(SAMPLES[name] for name in one)} FROM generate_series(1, 5)")
        for i, name in enumerate(other):
            db.execute(f"ALTER FOREIGN TABLE s{n} ALTER COLUMN c{i} TYPE {name}")
        db.rows(f"SELECT s{n}::text FROM s{n}")  # rows whose values can be cast, and nothing else
        db.execute(f"SELECT streamext.resume('s{n}')")
        db.flush(f"s{n}")
        rejected = db.value("SELECT count(*) FROM streamext.dead_letters WHERE stream = %s::regclass", f"s{n}")
        assert db.value(f"SELECT n FROM v{n}") + rejected == 10
        assert state(db, f"s{n}") == "running"


def test_a_letter_is_read_by_its_own_layout(db: Database) -> None:
    db.execute("CREATE TYPE pair AS (a int, b int)")
    local_stream(db, columns="k int, p pair")
    continuous(db, "v", "SELECT count(*) AS n, sum(10 / k) AS total FROM s")
    db.execute("INSERT INTO s VALUES (0, ROW(1, 2)), (5, ROW(3, 4))")
    db.flush("s")
    assert [row[0] for row in letters(db)] == ["22012"]
    altering(db, "p text", "pair", alter="ALTER TYPE pair ALTER ATTRIBUTE a TYPE text")
    db.execute("ALTER FOREIGN TABLE s ADD COLUMN x int")
    db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS SELECT count(*) AS n, sum(k) AS total FROM s")
    continuous(db, "w", "SELECT count(*) AS n FROM s")
    db.flush("s")
    db.execute("SELECT streamext.retry_dead_letters('s')")
    wait_for(lambda: letters(db) == [], what="the letter to be read")
    assert db.value("SELECT n FROM v") >= 1
    assert state(db) == "running"


def test_a_type_altered_by_the_statement_that_inserts(db: Database) -> None:
    db.execute("CREATE TYPE pair AS (a int, b int)")
    local_stream(db, columns="k int, p pair")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("""CREATE FUNCTION meddle(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        IF i = 3 THEN ALTER TYPE pair ADD ATTRIBUTE c text; END IF; RETURN i; END $$""")
    message = db.refusal("INSERT INTO s SELECT meddle(i), ROW(1, 2)::pair FROM generate_series(1, 5) i")
    assert "altered while rows were inserted" in message, message
    db.flush("s")
    assert db.rows("TABLE v") == [(0,)]


def test_other_sessions_cannot_alter_a_type_that_a_transaction_has_rows_of(db: Database) -> None:
    db.execute("CREATE TYPE pair AS (a int, b int)")
    local_stream(db, columns="k int, p pair")
    with db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO s VALUES (1, ROW(1, 2))")
        message = db.refusal("SET lock_timeout = '10ms'; ALTER TYPE pair ADD ATTRIBUTE c text")
        assert message.startswith("55P03"), message


def test_each_segment_carries_the_layouts_of_its_rows(database: Database) -> None:
    """Layouts come and go in the middle of files, files are trimmed, rows larger than a file; a writer that is new finds what is there."""
    db = database
    local_stream(db, columns="k int, t text")
    continuous(db, "v", "SELECT k, count(*) AS n, sum(length(t)) AS bytes FROM s GROUP BY k")
    expected = [0, 0]
    for i in range(12):
        with db.connect() as connection:
            for size, n in [(10, 20), (3_000_000, 2), (16_777_000 if i % 6 == 0 else 7, 1)]:
                connection.execute(f"INSERT INTO s (k, t) SELECT 1, repeat('x', {size}) FROM generate_series(1, {n})")
                expected = [expected[0] + n, expected[1] + n * size]
        if i % 3 == 1:
            db.execute(f"ALTER FOREIGN TABLE s ADD COLUMN c{i} int")
        if i == 7:
            db.flush("s")
            kill_all(db.server)
            db.server.start()
            db = Database(db.server, db.name)
    db.flush("s")
    assert letters(db) == []
    assert db.rows("TABLE v") == [(1, *expected)]


def test_a_row_of_more_types_than_anybody_thought_of(db: Database) -> None:
    """What INSERT takes the worker reads, however large the layout; rows that were there before the type grew, too."""
    columns = "SELECT string_agg(format('c%s d%s[]', i, i), ', ') FROM generate_series({}, {}) i"
    db.execute("DO $$ BEGIN FOR i IN 1..5200 LOOP EXECUTE format('CREATE DOMAIN d%s AS int', i); END LOOP; END $$")
    for part in range(4):
        db.execute(f"CREATE TYPE part{part} AS ({db.value(columns.format(1300 * part + 1, 1300 * (part + 1)))})")
    db.execute("CREATE TYPE wide AS (p0 part0)")
    local_stream(db, columns="k int, w wide")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    row = "INSERT INTO s VALUES (1, ROW({})), (1, NULL)"
    db.execute(row.format("NULL"))
    altering(db, "w int", "wide", alter="ALTER TYPE wide ADD ATTRIBUTE p1 part1, ADD ATTRIBUTE p2 part2, ADD ATTRIBUTE p3 part3")
    db.execute(row.format("NULL, NULL, NULL, NULL"))
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert letters(db) == []
    assert db.rows("TABLE v") == [(1, 4)]


def test_types_whose_ways_double_with_each_level(db: Database, kafka: Kafka, topic: str) -> None:
    """2 to the 40th ways lead to the innermost type; each type is looked at once. PostgreSQL walks them all when such a type is made, so it is made behind its back."""
    for i in range(41):
        db.execute(f"CREATE TYPE level{i} AS (a int, b int)")
    local_stream(db, columns="k int, v level40")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", columns="k int, v level40", name="other")
    db.flush("s", "other")
    db.execute("SELECT streamext.pause('s'), streamext.pause('other')")
    db.execute("INSERT INTO s VALUES (1, NULL)")
    db.execute(
        """SET allow_system_table_mods = on; UPDATE pg_attribute AS a
        SET atttypid = inner_.oid, attlen = -1, attbyval = false, attalign = 'd', attstorage = 'x'
        FROM pg_type AS outer_, pg_type AS inner_ WHERE a.attrelid = outer_.typrelid AND outer_.typname ~ '^level'
        AND inner_.typname = 'level' || substr(outer_.typname, 6)::int - 1"""
    )
    for stream in ("s", "other"):
        db.execute(f"ALTER FOREIGN TABLE {stream} ADD COLUMN more int; SELECT streamext.resume('{stream}')")
        db.flush(stream)
    assert db.rows("TABLE v") == [(1, 1)]
    assert letters(db) == []


# ---- journals of versions that kept no layouts ----


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def old_hash(db: Database, relation: str) -> int:
    """Of the live columns' numbers and types."""
    result = db.value("SELECT hashoid(0::oid)") % 2**32
    for (one,) in db.rows(
        f"""SELECT hashoid(u::oid) FROM pg_attribute, unnest(ARRAY[attnum::oid, atttypid]) WITH ORDINALITY AS n(u, i)
        WHERE attrelid = '{relation}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum, i"""
    ):
        result ^= (one % 2**32 + 0x9E3779B9 + (result << 6) + (result >> 2)) % 2**32
        result %= 2**32
    return result


def as_written_before(file: Path, row_hash: int) -> None:
    """Rows of the journal as a version before 1.1 wrote them."""
    data, out = file.read_bytes(), b""
    at = 0
    while at < len(data):
        (magic, _, size, rest, fxid, stamp, _, payload, topic, packet, _) = struct.unpack_from("<4sIIIQqQIHHq", data, at)
        assert magic == b"SXJ2"
        body = data[at + 56 : at + 56 + payload + topic + 1]
        body += b"\0" * (-(len(body)) % 8)
        head = struct.pack("<IIQqQIHHq", 56 + len(body), rest & 0xFFFF00FF, fxid, stamp, row_hash, payload, topic, packet, len(out))
        out += b"SXJ1" + struct.pack("<I", crc32c(head + body)) + head + body
        at += size
    file.write_bytes(out)


@pytest.mark.parametrize(
    "columns, row, change, expected",
    [
        ("k int, t text, n numeric, d date, b bool", "7, 'ab', 12345.678, '2024-01-01', true", None, None),
        ("k int, t text, m mood", "7, 'ab', 'ok'", None, None),
        ("k int, t text", "7, 'ab'", "ADD COLUMN c int", "42804"),
        ("k int, p pair", "7, ROW(1, 2)", None, "42804"),  # nothing says that it still is such a pair
        ("k int, j jsonb", "7, '{}'", None, "42804"),
    ],
)
def test_rows_of_versions_before(database: Database, columns: str, row: str, change: str | None, expected: str | None) -> None:
    """Read if what their bytes are can be seen in them, else told."""
    db = database
    db.execute("CREATE TYPE pair AS (a int, b int); CREATE TYPE mood AS ENUM ('sad', 'ok')")
    local_stream(db, columns=columns)
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.flush("s")
    db.execute(f"SELECT streamext.pause('s'); INSERT INTO s VALUES ({row}), ({row})")
    row_hash = old_hash(db, "s")
    relid, dboid = db.rows("SELECT 's'::regclass::oid, oid FROM pg_database WHERE datname = current_database()")[0]
    if change:
        db.execute(f"ALTER FOREIGN TABLE s {change}")
    kill_all(db.server)
    (file,) = (db.server.data / "streamext" / str(dboid) / f"{relid}.0").iterdir()
    as_written_before(file, row_hash)
    db.server.start()
    db = Database(db.server, db.name)
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert [row[0] for row in letters(db)] == ([] if expected is None else [expected] * 2)
    assert db.rows("TABLE v") == ([(7, 2)] if expected is None else [])
    if expected is None:
        db.assert_same("TABLE s", f"SELECT * FROM json_populate_recordset(NULL::s, (SELECT json_agg(r) FROM (VALUES ({row}), ({row})) AS r({', '.join(c.split()[0] for c in columns.split(', '))})))")
    assert counts(db, "v")[0] == (2 if expected is None else 0)


# ---- what kept state is of ----


def test_state_of_types_that_were_altered_inside_begins_anew(database: Database) -> None:
    """What its bytes were is in the definition, compared in full: nothing of them is read as what it is not."""
    db = database
    db.execute("CREATE TYPE pair AS (a bigint, b bigint)")
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    continuous(db, "by_key", "SELECT ROW(k % 3, k)::pair AS p, count(*) AS n FROM s GROUP BY 1")
    continuous(db, "by_value", "SELECT k % 3 AS k, array_agg(ROW(k, k)::pair) AS ps, streamext.last(ROW(k, 1)::pair, ts) AS p FROM s GROUP BY 1")
    continuous(db, "by_window", "SELECT ROW(k % 3, 7)::pair AS p, date_trunc('minute', ts) AS w, count(*) AS n FROM s GROUP BY 1, 2")
    insert = "INSERT INTO s SELECT i, timestamptz '2024-01-01' + i * interval '20 s' FROM generate_series(1, 30) i"
    db.execute(insert)
    db.flush("s")
    assert db.value("SELECT sum((p).b) FROM by_key") == sum(range(1, 31))
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history") > 0, what="history")
    try:
        db.execute("ALTER TYPE pair ALTER ATTRIBUTE a TYPE text, ALTER ATTRIBUTE b TYPE text")
    except psycopg.errors.FeatureNotSupported:  # so minor versions of 2026
        db.execute("ALTER TYPE pair ADD ATTRIBUTE d text")
    for view in ["by_key", "by_value", "by_window"]:
        db.rows(f"SELECT v::text FROM {view} v")
    db.execute("DROP VIEW by_key, by_value, by_window")
    db.execute("DROP TYPE pair; CREATE TYPE pair AS (a bigint, b bigint)")
    continuous(db, "by_text", "SELECT ROW(k % 3, k)::pair AS p, count(*) AS n, array_agg(ROW(k, 1)::pair) AS ps FROM s GROUP BY 1")
    db.execute(insert)
    db.flush("s")
    db.execute("ALTER TYPE pair ADD ATTRIBUTE c int")
    kill_all(db.server)
    db.server.start()
    db = Database(db.server, db.name)
    db.execute(insert)
    db.flush("s")
    assert db.value("SELECT sum(n) FROM by_text") == 60
    assert db.value("SELECT count(*) FROM by_text") == 30
    assert state(db) == "running"


def test_numbers_stand_for_contents_in_full(database: Database) -> None:
    """A number that is another definition's, as a hash made to collide would be, brings nothing of its state along."""
    db = database
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    continuous(db, "v", "SELECT k, date_trunc('minute', ts) AS w, count(*) AS n FROM s GROUP BY 1, 2")
    insert = "INSERT INTO s SELECT i % 3, timestamptz '2024-01-01' + i * interval '20 s' FROM generate_series(1, 30) i"
    db.execute(insert)
    db.flush("s")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.history") > 0, what="history")
    kinds = "SELECT split_part(convert_from(content, 'UTF8'), E'\\n', 1) FROM streamext_internal.content WHERE object = 'v'::regclass ORDER BY 1"
    wait_for(lambda: db.rows(kinds) == [("definition",), ("history",), ("layout",)], what="the contents")
    assert db.value("SELECT count(*) FROM streamext_internal.content WHERE object = 's'::regclass") == 1

    def restarted() -> Database:
        db.execute("CHECKPOINT")
        kill_all(db.server)
        db.server.start()
        again = Database(db.server, db.name)
        again.flush("s")
        return again

    db = restarted()
    assert db.value("SELECT sum(n) FROM v") == 30
    db.execute("DELETE FROM streamext_internal.content")  # as version 1.0 leaves it
    db = restarted()
    assert db.value("SELECT sum(n) FROM v") == 30
    wait_for(lambda: len(db.rows(kinds)) == 3, what="the contents again")
    log = db.server.log_file.stat().st_size
    db.execute("UPDATE streamext_internal.content SET content = 'another one''s' WHERE object = 'v'::regclass")
    db = restarted()
    assert db.value("SELECT sum(n) FROM v") == 30  # the journal still has them all
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.content WHERE object = 'v'::regclass") == 6, what="contents of its own")
    assert "is not the one of the last checkpoint and is counted anew" in db.server.log(log)
    db.execute("DROP VIEW v; DROP FOREIGN TABLE s")
    db = Database(db.server, db.name)
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.content") == 0, what="contents of what is dropped to go")
