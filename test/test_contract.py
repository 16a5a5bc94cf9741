"""What DESIGN.md promises, where people write things otherwise than the examples do."""

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, counts, error_of, kafka_stream, local_stream, state
from harness.wait import wait_for

COLUMNS = "k text, i int, ts timestamptz"

# Spellings of windows, and what the catalogue makes of them. The origins mean the view's TimeZone.
WINDOWS = [
    ("streamext.tumble(size => '10 s', ts => s.ts)", "tumble"),
    ("streamext.tumble(ts => s.ts, size => interval '10 s')", "tumble"),
    ("streamext.tumble('10 s', ts => s.ts)", "tumble"),
    ("date_bin('15 s', ts, timestamp '2001-01-01 00:00:07')", "tumble"),
    ("date_bin('1 day', ts, date '2024-03-01')", "tumble"),
    ("date_bin('1 day', ts, '2024-03-01')", "tumble"),
    ("date_trunc('DAY', ts, 'Asia/Tokyo')", "trunc"),
]  # fmt: skip


def test_spellings_of_windows(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE t ({COLUMNS})")
    db.execute("SET timezone = 'Europe/Berlin'")
    for i, (window, kind) in enumerate(WINDOWS):
        continuous(db, f"v{i}", f"SELECT {window} AS w, count(*) AS n, sum(i) AS total FROM s GROUP BY w")
        assert db.value("SELECT window_kind FROM streamext.continuous_views WHERE view = %s::regclass", f"v{i}") == kind, window
    db.execute("INSERT INTO t SELECT 'a', i, '2024-03-30 20:00+00'::timestamptz + i * interval '37.5 s' FROM generate_series(1, 2000) AS i")
    db.execute("INSERT INTO s TABLE t")
    db.flush("s")
    for zone in ("Europe/Berlin", "America/New_York"):
        for i, (window, _) in enumerate(WINDOWS):
            db.execute("SET timezone = 'Europe/Berlin'")
            db.execute(f"CREATE TABLE expected AS SELECT {window} AS w, count(*) AS n, sum(i) AS total FROM t AS s GROUP BY w")
            db.execute(f"SET timezone = '{zone}'")
            db.assert_same(f"TABLE v{i}", "TABLE expected")
            db.execute("DROP TABLE expected")


# Columns of the catalogue that the contract names, in its order: who unpacks rows or writes SELECT * relies on it.
CATALOGUE = {
    "streams": "stream connector format state rows_in bytes_in rate watermark lag_rows lag_seconds rejected last_error",
    "continuous_views": "view definition state groups open_windows state_bytes accepted late rejected last_checkpoint",
    "dead_letters": "id stream view topic partition position received_at sqlstate reason payload",
    "gateways": "server listen state connections requests last_error",
    "alerts": "view key state since row",
    "alert_events": "id view key kind at row",
    "sinks": "view target state delivered waiting dead lag_seconds last_error",
    "stream_columns": "stream column present missing null rejected hint",
    "metrics": "name kind unit labels value help",
    "exports": "view engine run state positions watermark delivered accepted late rejected last_merge_at merge_ms rows_merged",
}
FUNCTIONS = {
    "changes('v')": "op token at row",
    "view_positions('v')": "partition next_offset",
    "check('s')": "what ok detail hint",
    "peek('s', 1)": "topic partition position timestamp key headers payload payload_text",
}


def test_columns_of_the_catalogue(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    for name, columns in (CATALOGUE | FUNCTIONS).items():
        found = [column.name for column in db.connection.execute(f"SELECT * FROM streamext.{name} LIMIT 0").description or []]
        assert [column for column in found if column in columns.split()] == columns.split(), (name, found)


# Spellings of a sliding window; each is compared with PostgreSQL's answer at times on, before and between the edges of a step.
SLIDING = [
    "ts > {now} - interval '1 minute'", "ts >= {now} - interval '1 minute'", "ts > {now} + interval '-1 minute'",
    "{now} - interval '1 minute' < ts", "{now} < ts + interval '1 minute'", "ts + interval '1 minute' >= {now} AND ts < {now}",
    "{now} - ts < interval '1 minute'", "interval '1 minute' >= {now} - ts AND {now} >= ts", "{now} - ts <= interval '1 day' AND i % 2 = 0",
    "ts BETWEEN {now} - make_interval(mins => 1) AND {now}",
]  # fmt: skip


def test_spellings_of_the_sliding_predicate(db: Database) -> None:
    local_stream(db, "event_time 'ts', max_ahead '1 day'", COLUMNS)
    db.execute(f"CREATE TABLE t ({COLUMNS}); SET timezone = 'UTC'")
    query = "SELECT count(*) AS n, sum(i) AS total, min(ts), max(ts) FROM {s} WHERE "
    for i, where in enumerate(SLIDING):
        continuous(db, f"v{i}", query.format(s="s") + where.format(now="now()"), ", streamext.step = '10 s'")
    try:
        db.execute("SELECT streamext.set_clock('2024-05-01 12:00Z')")
        db.execute("""INSERT INTO t SELECT 'a', i, '2024-05-01 11:58Z'::timestamptz + i * interval '0.5 s' FROM generate_series(0, 500) AS i
            UNION ALL SELECT 'a', i, '2024-04-30 11:59:50Z'::timestamptz + i * interval '1 s' FROM generate_series(0, 20) AS i""")
        db.execute("INSERT INTO s TABLE t")
        db.flush("s")
        for clock, step in (("12:00", "12:00"), ("11:59:59.99", "11:59:50"), ("12:00:10", "12:00:10"), ("12:00:17.5", "12:00:10")):
            db.execute(f"SELECT streamext.set_clock('2024-05-01 {clock}Z')")
            for i, where in enumerate(SLIDING):
                db.assert_same(f"TABLE v{i}", query.format(s="t") + where.format(now=f"timestamptz '2024-05-01 {step}Z'"))
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
    for where in ("ts + interval '1 day' > now()", "now() - ts < interval '1 month'", "now() - ts > interval '1 minute'", "NOT ts < now() - interval '1 minute'"):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            continuous(db, "x", f"SELECT count(*) FROM s WHERE {where}")
            pytest.fail(where)


def test_the_owner_of_a_view_must_be_allowed_to_read_the_stream(db: Database) -> None:
    """A view whose owner may not read the stream any more does not run the owner's expressions; what it missed is counted
    when the right comes back."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute("CREATE ROLE keeper; CREATE ROLE guest; GRANT CREATE ON SCHEMA public TO keeper, guest; GRANT SELECT ON s TO keeper")
    try:
        for name, options in (("v", ""), ("w", ", security_invoker")):
            continuous(db, name, "SELECT upper(k) AS k, count(*) AS n FROM s GROUP BY 1", options)
            db.execute(f"ALTER VIEW {name} OWNER TO keeper")
        db.execute("INSERT INTO s VALUES ('a', 1, now())")
        db.flush("s")
        assert db.rows("TABLE v") == [("A", 1)]

        db.execute("REVOKE SELECT ON s FROM keeper")
        state = "SELECT state, last_error FROM streamext.continuous_views WHERE view = %s::regclass"
        for name in ("v", "w"):
            wait_for(lambda: db.rows(state, name)[0][0] == "failed", what="failed view")
            assert db.rows(state, name) == [("failed", "permission denied for foreign table s")]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.rows("TABLE v")
        db.execute("INSERT INTO s VALUES ('a', 1, now()), ('b', 1, now())")

        db.execute("GRANT SELECT ON s TO keeper")
        for name in ("v", "w"):
            wait_for(lambda: db.rows(state, name)[0][0] != "failed", what="view")
        db.flush("s")
        for name in ("v", "w"):
            assert sorted(db.rows(f"TABLE {name}")) == [("A", 2), ("B", 1)]

        db.execute("ALTER VIEW v OWNER TO guest")
        wait_for(lambda: db.rows(state, "v")[0][0] == "failed", what="failed view")
    finally:
        db.execute("DROP OWNED BY keeper, guest; DROP ROLE keeper, guest")


def test_rights_by_role_and_by_schema(db: Database) -> None:
    """The owner's right to read the stream comes and goes with a role, and with all tables of a schema."""
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute("CREATE ROLE keeper; CREATE ROLE readers; GRANT CREATE ON SCHEMA public TO keeper; GRANT SELECT ON s TO readers")
    try:
        db.execute("GRANT readers TO keeper")
        continuous(db, "v", "SELECT upper(k) AS k, count(*) AS n FROM s GROUP BY 1")
        db.execute("ALTER VIEW v OWNER TO keeper")
        state = "SELECT state FROM streamext.continuous_views"
        db.execute("INSERT INTO s VALUES ('a', 1, now())")
        db.flush("s")
        for take, give in (
            ("REVOKE readers FROM keeper", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO keeper"),
            ("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM keeper", "GRANT readers TO keeper"),
            ("DROP OWNED BY readers", "GRANT SELECT (k) ON s TO readers"),
            ("REVOKE readers FROM keeper", "ALTER ROLE keeper SUPERUSER"),
            ("ALTER ROLE keeper NOSUPERUSER", "GRANT readers TO keeper"),
        ):
            db.execute(take)
            wait_for(lambda: db.value(state) == "failed", what="failed view")
            db.execute(give)
            wait_for(lambda: db.value(state) == "running", what="view")
        assert db.rows("TABLE v") == [("A", 1)]

        # a role is the same in all databases, and what is read after a REVOKE was committed is not read for the view
        for number in (2, 3, 4):
            db.server.psql("REVOKE readers FROM keeper")
            db.execute("INSERT INTO s VALUES ('a', 1, now())")
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="failed"):
                db.flush("s")
            assert db.value("SELECT accepted FROM streamext.continuous_views") == number - 1
            db.server.psql("GRANT readers TO keeper")
            db.flush("s")
            assert db.rows("TABLE v") == [("A", number)]
    finally:
        db.execute("DROP OWNED BY keeper, readers; DROP ROLE keeper, readers")


# Below the aggregation: what depends on the moment, the session or the catalogue. PostgreSQL calls all of them STABLE.
DEPENDS = [
    "k::regclass IS NULL", "i::regclass::text = k", "'{pg_class}'::text::regclass[] IS NULL", "to_regclass(k) IS NULL",
    "k::regtype IS NULL", "k::regrole IS NULL", "k = format_type(i, NULL)", "version() = k", "k @@ k",
    "ts > 'now'::text::timestamptz", "ts::date = ' Today'::text::date", "ts > CAST('tomorrow 10:00' AS text)::timestamp",
]  # fmt: skip
SAME_FOR_ALL = ["'pg_class'::regclass IS NOT NULL", "to_tsvector('english', k) @@ 'a'", "ts > '2024-05-01'::text::timestamptz", "k::date > '2024-05-01'"]


def test_what_depends_on_the_session_or_the_catalogue_is_refused(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    depends = [*DEPENDS, "k = system_user"] if db.connection.info.server_version >= 160000 else DEPENDS
    for condition in depends:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="continuous views do not support .* in WHERE"):
            continuous(db, "v", f"SELECT count(*) FROM s WHERE {condition}")
            pytest.fail(condition)
    for i, condition in enumerate(SAME_FOR_ALL):
        continuous(db, f"v{i}", f"SELECT count(*) FROM s WHERE {condition}")


def test_what_would_reject_each_row_is_refused(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS + ", p point, ps point[]")
    for aggregate in ("approx_count_distinct(p)", "sketch_distinct(p)", "approx_count_distinct(ps)"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"on type point.*"):
            continuous(db, "v", f"SELECT streamext.{aggregate} FROM s")
    for query in (
        "SELECT date_trunc('day', ts, 'Nowhere/X') AS w, count(*) FROM s GROUP BY w",
        "SELECT count(*) FROM s WHERE date_trunc('day', ts, 'Nowhere/X') > '2024-05-01'",
        "SELECT max(date_trunc('day', ts + interval '1 h', 'Nowhere/X')) FROM s",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match='time zone "Nowhere/X" not recognized'):
            continuous(db, "v", query)
    continuous(db, "v", "SELECT date_trunc('day', ts, 'Asia/Tokyo') AS w, streamext.approx_count_distinct(k) AS n FROM s GROUP BY w")


def test_errors_say_what_to_do(db: Database) -> None:
    local_stream(db, "event_time 'ts', on_error 'stop'", COLUMNS)
    local_stream(db, columns=COLUMNS, name="n")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    for statement, sqlstate, hint in (
        ("SELECT streamext.flush('v')", "42809", 'reads: "s"'),
        ("CREATE VIEW x WITH (streamext.continuous) AS SELECT count(*) FROM n WHERE ts > now() - interval '1 min'", "0A000", "option event_time"),
        ("SELECT streamext.seek('v', 'latest')", "42809", 'reads: "s"'),
        ("CREATE VIEW x WITH (streamext.continuous, streamext.step = '1 s') AS SELECT count(*) FROM s WHERE ts > now() - interval '1 day'", "22023", "such as '10 s'"),
        ("CREATE VIEW x WITH (streamext.continuous) AS SELECT sum(n) FROM v", "0A000", "ordinary view"),
        ("CREATE VIEW x WITH (streamext.continuous) AS SELECT sum(n) FROM s JOIN v USING (k)", "0A000", "query over this view"),
    ):
        with pytest.raises(psycopg.Error) as error:
            db.execute(statement)
        assert (error_of(error)[0], hint in error_of(error)[2]) == (sqlstate, True), statement
    db.execute("INSERT INTO s VALUES ('a', 1, NULL)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
        db.flush("s")
    assert "the event time is null" in error_of(error)[1] and "streamext.resume" in error_of(error)[2]
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert db.rows("SELECT accepted, late, rejected FROM streamext.continuous_views") == [(0, 0, 1)]


def test_flush_says_that_the_source_is_away(db: Database, kafka: Kafka) -> None:
    notices: list[str] = []

    def take(notice: psycopg.errors.Diagnostic) -> None:
        notices.append(f"{notice.message_primary}: {notice.message_detail}")
        if 'stream "t"' in notices[-1]:
            db.connection.cancel()

    db.connection.add_notice_handler(take)
    kafka_stream(db, kafka, "topic 'no-such-topic'", "a int")
    wait_for(lambda: "does not exist" in (db.value("SELECT last_error FROM streamext.streams") or ""), what="the reason")
    wait_for(lambda: state(db) == "stalled", what="state stalled")
    db.flush("s")
    (notice,) = notices
    assert notice.startswith('stream "s" is stalled') and notice.endswith('topic "no-such-topic" does not exist')
    db.execute("CREATE SERVER gone FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    db.execute("CREATE FOREIGN TABLE t (a int) SERVER gone OPTIONS (topic 't')")
    db.execute("SET statement_timeout = '60 s'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.flush("t")
    assert [notice.partition(":")[0] for notice in notices[1:]] == ['stream "t" is stalled; flush waits for its source']
    assert "127.0.0.1:1" in notices[1]


def test_boundaries(db: Database) -> None:
    """What is exactly at a limit: max_ahead takes it, a session goes on at the gap, a window is closed at its end, the lower edge of a window is in it."""
    local_stream(db, "event_time 'ts', max_ahead '1 h'", COLUMNS)
    continuous(db, "sessions", "SELECT streamext.session('10 s', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "minutes", "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY w")
    continuous(db, "hops", "SELECT streamext.hop('1 min', '1 min', ts) AS w, count(*) AS n FROM s GROUP BY w", ", streamext.lateness = '1 us'")
    try:
        db.execute("SET timezone = 'UTC'; SELECT streamext.set_clock('2024-02-29 23:00Z')")
        for at in ("23:58:50", "23:59:00", "23:59:10.000001", "23:58:59.999999", "23:59:59.999999"):
            db.execute("INSERT INTO s VALUES ('a', 1, %s)", f"2024-02-29 {at}Z")
            db.flush("s")
        db.execute("INSERT INTO s VALUES ('a', 1, '2024-03-01 00:00Z'), ('ahead', 1, '2024-03-01 00:00:00.000001Z')")
        db.flush("s")
        db.execute("INSERT INTO s VALUES ('late', 1, '2024-02-29 23:59:59.999999Z')")
        db.flush("s")
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
    times = "SELECT to_char(w, 'HH24:MI:SS'), n FROM {} ORDER BY w"
    assert db.rows(times.format("minutes")) == [("23:58:00", 1), ("23:59:00", 3), ("00:00:00", 1)]
    assert db.rows(times.format("hops")) == [("23:58:00", 1), ("23:59:00", 4), ("00:00:00", 1)]
    assert db.rows(times.format("sessions")) == [("23:58:50", 2), ("23:59:10", 1), ("23:59:59", 3)]
    assert [counts(db, name) for name in ("minutes", "hops", "sessions")] == [(5, 2, 1), (6, 1, 1), (6, 1, 1)]
    assert db.rows("SELECT view, sqlstate FROM streamext.dead_letters") == [(None, "22008")]
