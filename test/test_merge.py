"""streamext.merge(column): aggregates of a continuous view aggregated further, as PostgreSQL would over all rows."""

from datetime import UTC, datetime

import psycopg
import pytest

from harness.database import Database
from harness.streams import continuous, local_stream
from harness.wait import wait_for

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
COLUMNS = "k text, ts timestamptz, i int, b bigint, f float8, r real, n numeric, t text, v boolean, d interval"
ROWS = f"""SELECT 'k' || g % 5, timestamptz '{START}' + g * interval '1 second', g % 23, g % 17, g % 11 + 0.5, g % 7, (g % 13)::numeric / 4,
    't' || g % 5, g % 3 = 0, g % 9 * interval '1 minute' FROM generate_series(0, 1499) g"""

# An aggregate each, of every way of keeping them.
AGGREGATES = {
    "n": "count(*)", "ni": "count(i)", "si": "sum(i)", "sb": "sum(b)", "sf": "sum(f)", "sn": "sum(n)", "ai": "avg(i)", "ab": "avg(b)", "af": "avg(f)",
    "an": "avg(n)", "sr": "sum(r)", "sd": "stddev(i)", "sp": "stddev_pop(f)", "vn": "variance(n)", "vb": "var_pop(b)", "mi": "min(i)", "mf": "max(f)",
    "mn": "max(n)", "mt": "min(t)", "mts": "max(ts)", "ba": "bool_and(v)", "bo": "bool_or(v)", "di": "avg(d)", "cf": "corr(f, i)", "sl": "regr_slope(f, i)",
    "bi": "bit_or(i)", "dk": "count(DISTINCT i)", "ar": "array_agg(i ORDER BY i)", "st": "string_agg(t, ',' ORDER BY t, i)",
    "pc": "percentile_cont(0.5) WITHIN GROUP (ORDER BY f)", "mo": "mode() WITHIN GROUP (ORDER BY i)", "fl": "count(*) FILTER (WHERE i > 10)",
    "la": "streamext.last(i, ts)", "jb": "jsonb_agg(i ORDER BY i)", "lo": "longest(t)", "fi": "streamext.first(i, ts)", "bx": "bit_xor(i)",
    "bn": "bit_and(i)", "cs": "covar_samp(f, i)", "ri": "regr_intercept(f, i)", "rc": "regr_count(f, i)",
    "pd": "percentile_disc(0.9) WITHIN GROUP (ORDER BY i)", "ad": "streamext.approx_count_distinct(i)", "ap": "streamext.approx_percentile(0.5, f)",
}  # fmt: skip
OUTPUTS = ", ".join(f"{call} AS {name}" for name, call in AGGREGATES.items())


@pytest.fixture
def merged(db: Database) -> Database:
    db.execute(
        """CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS
        'SELECT CASE WHEN $1 IS NULL OR length($2) > length($1) OR length($2) = length($1) AND $2 > $1 THEN $2 ELSE $1 END'"""
    )
    db.execute("CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text, COMBINEFUNC = longer)")
    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "fine", f"SELECT k, streamext.tumble('10 s', ts) AS w, {OUTPUTS} FROM s GROUP BY k, w")
    continuous(db, "hopping", f"SELECT k, streamext.hop('30 s', '10 s', ts) AS w, {OUTPUTS} FROM s GROUP BY k, w")
    continuous(db, "plain", f"SELECT k, {OUTPUTS} FROM s GROUP BY k")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for relation in ("s", "o"):
        db.execute(f"INSERT INTO {relation} {ROWS}")
    db.flush("s")
    # some windows in history, some in memory
    wait_for(lambda: db.value("SELECT history_panes FROM streamext.continuous_views WHERE view = 'fine'::regclass") > 0, what="history")
    return db


CALLS = ", ".join(f"streamext.merge({name}) AS {name}" for name in AGGREGATES)


def test_coarser_windows(merged: Database) -> None:
    db = merged
    minute = "date_bin('1 min', {}, '2024-01-01 00:00+00')"
    db.assert_same(f"SELECT k, {minute.format('w')} AS m, {CALLS} FROM fine GROUP BY k, m", f"SELECT k, {minute.format('ts')} AS m, {OUTPUTS} FROM o GROUP BY k, m")
    db.assert_same(f"SELECT {minute.format('w')} AS m, {CALLS} FROM fine GROUP BY m", f"SELECT {minute.format('ts')} AS m, {OUTPUTS} FROM o GROUP BY m")
    db.assert_same(f"SELECT {CALLS} FROM fine", f"SELECT {OUTPUTS} FROM o")
    db.assert_same(f"SELECT {CALLS} FROM plain", f"SELECT {OUTPUTS} FROM o")
    db.assert_same(f"SELECT k, {CALLS} FROM fine WHERE k = 'k1' GROUP BY k", f"SELECT k, {OUTPUTS} FROM o WHERE k = 'k1' GROUP BY k")
    # of hopping windows a row counts once for each
    db.assert_same(f"SELECT k, {CALLS} FROM hopping GROUP BY k", f"SELECT k, {OUTPUTS} FROM o, streamext.hop('30 s', '10 s', ts) GROUP BY k")


def test_in_queries_of_every_shape(merged: Database) -> None:
    db = merged
    db.assert_same("SELECT k, streamext.merge(ai) FROM (SELECT k, ai FROM fine) q GROUP BY k", "SELECT k, avg(i) FROM o GROUP BY k")
    db.assert_same("SELECT streamext.merge(ai), avg(ai), ai AS a FROM fine WHERE k = 'k1' GROUP BY ai", "SELECT ai, avg(ai), ai AS a FROM (SELECT avg(i) AS ai FROM o WHERE k = 'k1' GROUP BY streamext.tumble('10 s', ts)) q GROUP BY ai")
    db.execute("CREATE VIEW ordinary AS SELECT k, n AS many, an FROM fine")
    db.assert_same("SELECT k, streamext.merge(many), streamext.merge(an) FROM ordinary GROUP BY k", "SELECT k, count(*), avg(n) FROM o GROUP BY k")
    db.assert_same("SELECT k FROM fine GROUP BY k HAVING streamext.merge(n) > 100", "SELECT k FROM o GROUP BY k HAVING count(*) > 100")
    db.assert_same("SELECT a.k, streamext.merge(a.n) FROM fine a JOIN plain p ON p.k = a.k GROUP BY a.k", "SELECT k, count(*) FROM o GROUP BY k")
    db.assert_same(
        "SELECT k, w, streamext.merge(sn) FROM fine GROUP BY GROUPING SETS ((k), (w), ())",
        "SELECT k, w, sum(n) FROM (SELECT *, streamext.tumble('10 s', ts) AS w FROM o) q GROUP BY GROUPING SETS ((k), (w), ())",
    )
    db.assert_same("SELECT streamext.merge(n), streamext.merge(si) FROM fine WHERE false", "SELECT count(*), sum(i) FROM o WHERE false")
    db.assert_same("SELECT k, (SELECT streamext.merge(n) FROM fine f WHERE f.k = p.k) FROM plain p", "SELECT k, count(*) FROM o GROUP BY k")
    db.assert_same("SELECT streamext.merge(n) FILTER (WHERE k > 'k2') FROM fine", "SELECT count(*) FILTER (WHERE k > 'k2') FROM o")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT streamext.merge(n + 1) FROM fine",
        "SELECT streamext.merge(k) FROM fine",
        "SELECT streamext.merge(w) FROM fine",
        "SELECT streamext.merge(i) FROM o",
        "SELECT streamext.merge(DISTINCT n) FROM fine",
        "SELECT streamext.merge(n ORDER BY w) FROM fine",
        "SELECT streamext.merge(n) FROM (SELECT DISTINCT n FROM fine) q",
        "SELECT streamext.merge(n) FROM (SELECT n FROM fine UNION ALL SELECT n FROM fine) q",
        "SELECT streamext.merge(1) OVER () FROM fine",
        "SELECT streamext.merge(n) OVER () FROM fine",
    ],
)
def test_what_is_refused(merged: Database, query: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
        merged.rows(query)
    assert error.value.diag.message_hint


def test_states_from_elsewhere_are_not_taken(merged: Database) -> None:
    for state in ("''", "'\\x00'", "decode(repeat('00', 64), 'hex')"):
        with pytest.raises(psycopg.errors.InvalidBinaryRepresentation):
            merged.rows(f"SELECT streamext_internal.merge_states({state}::bytea, 'fine'::regclass::oid, 0, NULL::bigint)")


WHOLE_ROWS = (
    "SELECT streamext.merge(q.n), max(q::text) FROM (SELECT k, n FROM fine) q",
    "SELECT streamext.merge(q.n), max(to_json(q)::text) FROM (SELECT k, n FROM fine OFFSET 0) q",
    "SELECT streamext.merge(q.n) FROM (SELECT k, n FROM fine OFFSET 0) q GROUP BY q",
    "SELECT streamext.merge(q.n) FROM (SELECT k, n, x::text FROM (SELECT k, n FROM fine OFFSET 0) x) q",
    "SELECT streamext.merge(q.n), max(r) FROM (SELECT k, n FROM fine OFFSET 0) q, LATERAL (SELECT q::text AS r) l",
    "SELECT streamext.merge(q.n) FROM (SELECT k, n FROM fine OFFSET 0) q WHERE (SELECT q::text) <> ''",
    "SELECT streamext.merge(fine.n), max(to_json(fine)::text) FROM fine",
    "SELECT streamext.merge(barred.n), max(barred::text) FROM barred",
)


def test_no_query_shows_a_state(merged: Database) -> None:
    """It would be a column of a whole row. Who can see one could make one, and what is in it is trusted like memory."""
    merged.execute("CREATE VIEW barred WITH (security_barrier) AS SELECT k, n FROM fine WHERE k = 'k1'")
    for query in WHOLE_ROWS:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="beside a whole row"):
            merged.rows(query)
    assert merged.rows("SELECT streamext.merge(barred.n) FROM barred") == [(300,)]
