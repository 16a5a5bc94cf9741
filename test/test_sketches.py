"""Approximate aggregates, first and last: over tables, in continuous views, merged, and against garbage."""

import random
import struct

import psycopg
import pytest
from harness.database import Database

STREAM = """CREATE SERVER here FOREIGN DATA WRAPPER local;
    CREATE FOREIGN TABLE s (k text, ts timestamptz, x float8, n int) SERVER here OPTIONS (event_time 'ts', watermark_delay '1 day');
    CREATE TABLE o (k text, ts timestamptz, x float8, n int)"""

ROWS = """SELECT 'k' || i % 3, timestamptz '2024-01-01' + (i * 7919 % 600) * interval '1 s', exp((i * 31 % 1000) / 100.0) - 20, i * 17 % 5000
    FROM generate_series(1, 20000) i"""


@pytest.mark.parametrize("distinct", [0, 1, 256, 257, 1000, 100_000])
def test_count_distinct(db: Database, distinct: int) -> None:
    count = db.value(f"SELECT streamext.approx_count_distinct(i % {max(distinct, 1)}) FROM generate_series(1, {distinct}) i")
    assert count == pytest.approx(distinct, rel=0 if distinct <= 256 else 0.07)
    text = db.value(f"SELECT streamext.approx_count_distinct((i % {max(distinct, 1)})::text) FROM generate_series(1, {distinct}) i")
    assert text == pytest.approx(distinct, rel=0 if distinct <= 256 else 0.07)


@pytest.mark.parametrize("x", ["i::float8", "-i::float8", "i - 5000.0::float8", "exp(i / 200.0)", "i * 1e-30", "1e300 * i", "sin(i) * i"])
def test_percentile(db: Database, x: str) -> None:
    for p in (0, 0.01, 0.5, 0.9, 0.999, 1):
        approx, exact = db.rows(
            f"SELECT streamext.approx_percentile({p}, x), percentile_disc({p}) WITHIN GROUP (ORDER BY x)"
            f" FROM (SELECT ({x})::float8 AS x FROM generate_series(1, 10000) i) t"
        )[0]
        assert approx == pytest.approx(exact, rel=0.0100001, abs=0), p


def test_percentile_of_nothing_and_of_extremes(db: Database) -> None:
    assert db.value("SELECT streamext.approx_percentile(0.5, x) FROM (SELECT NULL::float8 AS x) t") is None
    values = "(VALUES ('-Infinity'::float8), (0), ('Infinity'), ('NaN')) v(x)"
    for p, expected in [(0.25, "-Infinity"), (0.5, "0"), (0.75, "Infinity"), (1, "NaN")]:
        assert db.value(f"SELECT streamext.approx_percentile({p}, x)::text FROM {values}") == expected
    tiny = "(VALUES (1e-300::float8), (1e300)) v(x)"  # beyond the dynamic range: the large one is right
    assert db.value(f"SELECT streamext.approx_percentile(1, x) FROM {tiny}") == pytest.approx(1e300, rel=0.0100001)
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="between 0 and 1"):
        db.value("SELECT streamext.approx_percentile(1.5, 1)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="one percentile"):
        db.value("SELECT streamext.approx_percentile(i / 2.0, 1) FROM generate_series(1, 2) i")


@pytest.mark.parametrize("window", ["streamext.tumble('1 min', ts)", "streamext.hop('1 min', '20 s', ts)", "NULL::timestamptz"])
def test_views_hold_what_tables_give(db: Database, window: str) -> None:
    db.execute(STREAM)
    query = f"""SELECT k, {window} AS w, streamext.approx_count_distinct(n) AS d, streamext.approx_percentile(0.9, x) AS p,
        streamext.first(n, ts) IS NOT NULL AS f, streamext.last(x, ts + n * interval '1 us') AS l, count(*) AS c FROM %s GROUP BY 1, 2"""
    db.execute(f"CREATE VIEW v WITH (streamext.continuous) AS {query % 's'}")
    db.execute(f"INSERT INTO o {ROWS}")
    db.execute("INSERT INTO s SELECT * FROM o")
    db.flush("s")
    db.assert_same("TABLE v", query % "o")


def test_a_coarser_answer_from_a_finer_view(db: Database) -> None:
    db.execute(STREAM)
    db.execute(
        """CREATE VIEW v WITH (streamext.continuous) AS SELECT k, streamext.tumble('10 s', ts) AS w,
        streamext.sketch_distinct(n) AS d, streamext.sketch_percentile(x) AS p FROM s GROUP BY k, w"""
    )
    db.execute(f"INSERT INTO o {ROWS}")
    db.execute("INSERT INTO s SELECT * FROM o")
    db.flush("s")
    db.assert_same(
        "SELECT k, streamext.cardinality(streamext.merge(d)), streamext.percentile(streamext.merge(p), 0.5) FROM v GROUP BY k",
        "SELECT k, streamext.approx_count_distinct(n), streamext.approx_percentile(0.5, x) FROM o GROUP BY k",
    )


@pytest.mark.parametrize("value", ["'late'::text", "7::int", "1.5::numeric", "NULL::text", "'2024-01-01'::date", "'{1,2}'::int[]", "'(1,2)'::point"])
def test_first_and_last(db: Database, value: str) -> None:
    sql = f"SELECT streamext.%s(x, ts)::text FROM (VALUES ({value}, timestamptz '2024-01-02'), (NULL, NULL)) v(x, ts)"
    expected = db.value(f"SELECT ({value})::text")
    assert db.value(sql % "first") == expected
    assert db.value(sql % "last") == expected
    order = "(VALUES ('b', 2), ('a', 1), ('d', 4), ('c', 3), ('never', NULL)) v(x, n)"
    at = "timestamptz '2024-01-01' + n * interval '1 s'"
    assert db.rows(f"SELECT streamext.first(x, {at}), streamext.last(x, {at}) FROM {order}") == [("a", "d")]


@pytest.mark.parametrize("kind", ["distinct", "percentile"])
def test_sketches_survive_storage_and_garbage_is_refused(db: Database, kind: str) -> None:
    read = {"distinct": "streamext.cardinality(%s)", "percentile": "streamext.percentile(%s, 0.5)"}[kind]
    db.execute(f"CREATE TABLE t AS SELECT streamext.sketch_{kind}(i::float8) AS x FROM generate_series(1, 3000) i")
    text, value = db.rows(f"SELECT x::text, {read % 'x'} FROM t")[0]
    assert db.value(f"SELECT {read % f'%s::streamext.{kind}_sketch'}", text) == value
    rng = random.Random(1)
    raw = bytes.fromhex(text[2:])
    for _ in range(300):
        broken = bytearray(raw[: rng.choice([0, 3, 10, len(raw) // 2, len(raw)])])
        for _ in range(rng.randint(0, 3)):
            if broken:
                broken[rng.randrange(min(len(broken), 100))] = rng.randrange(256)
        try:
            db.value(
                f"SELECT {read % 'streamext.merge(x)'} FROM (SELECT %s::streamext.{kind}_sketch AS x UNION ALL SELECT x FROM t) u",
                "\\x" + broken.hex(),
            )
        except psycopg.errors.InvalidBinaryRepresentation:
            pass


def _percentile_sketch(low: int, n: int, counts: list[int], *, has_p: int = 0, p: float = 0, specials: tuple[int, ...] = (0, 0, 0, 0)) -> str:
    """The text of a percentile_sketch with these positive buckets, whether it is one or not."""
    return "\\x" + struct.pack(f"<id4Q4i{len(counts)}Q", has_p, p, *specials, 0, 0, low, n, *counts).hex()


@pytest.mark.parametrize(
    "text",
    [
        _percentile_sketch(-(2**31), 0, []),
        _percentile_sketch(-(2**31), 1, [1]),
        _percentile_sketch(2**31 - 1, 1, [1]),
        _percentile_sketch(39_999, 3, [1, 1, 1]),
        _percentile_sketch(0, -1, []),
        _percentile_sketch(0, 4097, [1] * 4097),
        _percentile_sketch(0, 2, [2**63, 2**63]),
        _percentile_sketch(0, 1, [1], specials=(0, 0, 0, 2**64 - 1)),
        _percentile_sketch(0, 1, [1], has_p=1, p=float("nan")),
    ],
)
def test_bounds_of_a_percentile_sketch(db: Database, text: str) -> None:
    """From a client or a stream: what cannot have been made by the aggregates is refused, however it is spelt."""
    with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
        db.value("SELECT streamext.percentile(%s::streamext.percentile_sketch, 0.5)", text)
    db.execute("""CREATE SERVER here FOREIGN DATA WRAPPER local;
        CREATE FOREIGN TABLE s (x streamext.percentile_sketch) SERVER here;
        CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) AS n, streamext.percentile(streamext.merge(x), 0.5) AS p FROM s""")
    with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
        db.execute("INSERT INTO s VALUES (%s)", text)
    db.execute("INSERT INTO s SELECT streamext.sketch_percentile(i) FROM generate_series(1, 100) i")
    db.flush("s")
    assert db.rows("SELECT n, p BETWEEN 49 AND 51 FROM v") == [(1, True)]


def test_what_is_made_of_valid_sketches_is_valid(db: Database) -> None:
    """Also at the ends of what is allowed, and through text."""
    far = [_percentile_sketch(low, len(counts), counts) for low, counts in ((-40_000, [1]), (40_000, [1]), (0, []), (35_905, [1] * 4096))]
    for a in far:
        for b in far:
            merged = db.value(
                "SELECT streamext.merge(x)::text FROM unnest(ARRAY[%s, %s]::streamext.percentile_sketch[]) x", a, b
            )
            assert db.value("SELECT %s::streamext.percentile_sketch::text", merged) == merged
    full = _percentile_sketch(0, 1, [2**63 - 1])
    assert db.value("SELECT streamext.percentile(%s::streamext.percentile_sketch, 1)", full) == pytest.approx(1, rel=0.02)
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="can count at most"):
        db.value("SELECT streamext.merge(x)::text FROM unnest(ARRAY[%s, %s]::streamext.percentile_sketch[]) x", full, full)
    two = [_percentile_sketch(0, 1, [1], has_p=1, p=p) for p in (0.5, 0.9)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="one percentile"):
        db.value("SELECT streamext.merge(x)::text FROM unnest(ARRAY[%s, %s]::streamext.percentile_sketch[]) x", *two)


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\x01\0" + b"",  # a set that lacks its only element
        b"\0\0\x02\0" + b"\x01\0\0\0" * 2,  # one element twice
        b"\0\0\0\0" + bytes(4 * 257),  # more room than there ever is
        b"\0\0\0\0" + bytes(3),
        b"\x01\0\x01\0" + bytes(4096),
        b"\x01\0\0\0" + bytes(4095) + b"\x20",
        b"\x02\0\0\0" + bytes(4096),
    ],
)
def test_bounds_of_a_distinct_sketch(db: Database, raw: bytes) -> None:
    with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
        db.value("SELECT streamext.cardinality(%s::streamext.distinct_sketch)", "\\x" + raw.hex())


def test_states_of_first_and_last_are_checked(db: Database) -> None:
    """Only a superuser may call these functions with states of his own; nor does he read memory by them."""
    at = "timestamptz '2024-01-01'"
    for raw in (b"", bytes(4), bytes(11), b"\x02" + bytes(11), b"\x01" + bytes(12), bytes(12) + b"\xff\xff\xff\x7f", bytes(12) + b"\x01\x80"):
        with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
            db.value(f"SELECT streamext_internal.first_last_final(%s::bytea, NULL::text, {at})", raw)
        with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
            db.value(f"SELECT streamext_internal.first_last_final(%s::bytea, NULL::int, {at})", raw)
    for raw in (b"", bytes(11)):
        with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
            db.value("SELECT streamext_internal.last_merge(%s::bytea, streamext_internal.first_add(NULL, 1, now()))", raw)
