"""What DDL refuses, with SQLSTATE and a hint, and what it may change while streams run."""

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, error_of, local_stream, state, worker_pid
from harness.wait import wait_for

SERVERS = """
    CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:9');
    CREATE SERVER m FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'tcp://127.0.0.1:9');
    CREATE SERVER l FOREIGN DATA WRAPPER local;
"""


@pytest.fixture(scope="module")
def ddl(pg: object) -> Database:
    """One server of each kind, a local stream s, an ordinary table and a continuous view v; tests leave it as it is."""
    pg.psql("CREATE DATABASE ddl")
    pg.psql("CREATE EXTENSION streamext", "ddl")
    db = Database(pg, "ddl")
    db.execute(SERVERS)
    db.execute("""CREATE FOREIGN TABLE s (k text, i int, f float8, ts timestamptz, other timestamptz, list int[], p point, j json)
        SERVER l OPTIONS (event_time 'ts')""")
    db.execute("CREATE TABLE t (k text, ts timestamptz)")
    db.execute("CREATE FUNCTION reads(text) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM t WHERE k = $1'")
    db.execute("CREATE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM s GROUP BY k")
    yield db
    db.connection.close()
    pg.psql("DROP DATABASE ddl WITH (FORCE)")


def kafka_table(options: str = "", columns: str = "a int, ts timestamptz") -> str:
    return f"CREATE FOREIGN TABLE x ({columns}) SERVER k OPTIONS (topic 't', format 'json'{options})"


def mqtt_table(options: str = "topic 't'", columns: str = "a int") -> str:
    return f"CREATE FOREIGN TABLE x ({columns}) SERVER m OPTIONS ({options})"


def local_table(options: str = "", columns: str = "a int, ts timestamptz") -> str:
    return f"CREATE FOREIGN TABLE x ({columns}) SERVER l" + (f" OPTIONS ({options})" if options else "")


def error_from(db: Database, statement: str) -> tuple[str, str, str]:
    """SQLSTATE, message and hint of a statement that must fail; it is undone if it does not."""
    with pytest.raises(psycopg.Error) as error, db.connection.transaction(force_rollback=True):
        db.execute(statement)
    return error_of(error)


NAME, VALUE, NEEDED = "HV00D", "HV024", "HV002"

# Statement, SQLSTATE, what the error names, what its hint says.
OPTIONS = [
    ("CREATE SERVER x FOREIGN DATA WRAPPER kafka", NEEDED, "brokers", ""),
    ("CREATE SERVER x FOREIGN DATA WRAPPER kafka OPTIONS (broker 'x')", NAME, "broker", "brokers"),
    ("CREATE SERVER x FOREIGN DATA WRAPPER kafka OPTIONS (brokers '')", VALUE, "brokers", "empty"),
    ("CREATE SERVER x FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'x', \"sasl.kerberos.kinit.cmd\" 'touch /tmp/x')", NAME, "kinit", "brokers"),
    ("CREATE SERVER x FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'x', security_protocol 'tls')", VALUE, "security_protocol", "ssl"),
    ("CREATE SERVER x FOREIGN DATA WRAPPER mqtt", NEEDED, "uri", ""),
    ("CREATE SERVER x FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'http://x')", VALUE, "uri", "tcp://"),
    ("CREATE SERVER x FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'tcp://user:pw@x')", VALUE, "uri", "user mapping"),
    ("CREATE SERVER x FOREIGN DATA WRAPPER local OPTIONS (brokers 'x')", NAME, "brokers", "no valid options"),
    ("CREATE USER MAPPING FOR postgres SERVER k OPTIONS (username 'x')", NAME, "username", "sasl_username"),
    ("CREATE USER MAPPING FOR postgres SERVER k OPTIONS (sasl_password_file '/etc/passwd')", VALUE, "sasl_password_file", "data directory"),
    ("CREATE USER MAPPING FOR postgres SERVER m OPTIONS (password_file '../x')", VALUE, "password_file", "data directory"),
    ("CREATE FOREIGN TABLE x (a int) SERVER k OPTIONS (format 'json')", NEEDED, "topic", "topics"),
    (kafka_table(", topics 'a,b'"), NAME, "topics", ""),
    ("CREATE FOREIGN TABLE x (a int) SERVER k OPTIONS (topic 'a b')", VALUE, "topic", "letters"),
    ("CREATE FOREIGN TABLE x (a int) SERVER k OPTIONS (topics 'a,,b')", VALUE, "topics", ""),
    ("CREATE FOREIGN TABLE x (a int) SERVER k OPTIONS (topic 't', format 'xml')", VALUE, "format", "json"),
    (kafka_table(", topik 'x'"), NAME, "topik", "watermark_delay"),
    (kafka_table(", qos '1'"), NAME, "qos", "topic"),
    (kafka_table(", event_time 'nothing'"), "42703", "nothing", ""),
    (kafka_table(", event_time 'a'"), "42804", "event_time", "timestamp with time zone"),
    (kafka_table(", watermark_delay 'soon'"), "22007", "soon", "watermark_delay"),
    (kafka_table(", watermark_delay '-1 s'"), VALUE, "watermark_delay", "interval"),
    (kafka_table(", watermark_delay '1 month'"), VALUE, "watermark_delay", "days"),
    (kafka_table(", idle_timeout '0'"), VALUE, "idle_timeout", "interval"),
    (kafka_table(", start 'sometimes'"), VALUE, "start", "earliest"),
    (kafka_table(", start '12:00 today'"), "22007", "another time", ""),
    (kafka_table(", buffer_size '-1'"), VALUE, "buffer_size", "whole number"),
    (kafka_table(", buffer_size '10x'"), VALUE, "buffer_size", "whole number"),
    (kafka_table(", buffer_size '99999999999999999999'"), VALUE, "buffer_size", "whole number"),
    (kafka_table(", on_error 'panic'"), VALUE, "on_error", "dead_letter"),
    (kafka_table(", workers '0'"), VALUE, "workers", "whole number"),
    (kafka_table(", journal 'os'"), NAME, "journal", "topic"),
    (kafka_table("", "a int OPTIONS (metadata 'colour')"), VALUE, "metadata", "partition"),
    (kafka_table("", "a int OPTIONS (metadata 'topic_level 1')"), VALUE, "metadata", "partition"),
    (kafka_table("", "a text OPTIONS (metadata 'partition')"), "42804", "partition", "integer"),
    (kafka_table("", "a int OPTIONS (path 'a..b')"), VALUE, "path", "a.b[0].c"),
    (kafka_table("", "a int OPTIONS (path 'a[0]b')"), VALUE, "path", "a.b[0].c"),
    (kafka_table("", "a int OPTIONS (path 'a[ 1]')"), VALUE, "path", "a.b[0].c"),
    (kafka_table("", "a int OPTIONS (path 'a[99999999999999999999]')"), VALUE, "path", "a.b[0].c"),
    (kafka_table("", "a int OPTIONS (path 'a', metadata 'key')"), NAME, "path", ""),
    (kafka_table("", "a int OPTIONS (colour 'red')"), NAME, "colour", "path"),
    (kafka_table("", "a int, b int GENERATED ALWAYS AS (a + 1) STORED"), "0A000", "generated", "view"),
    ("CREATE FOREIGN TABLE x (a int OPTIONS (metadata 'partition')) SERVER k OPTIONS (topic 't', format 'text')", "42P16", "text", ""),
    ("CREATE FOREIGN TABLE x (a int) SERVER k OPTIONS (topic 't', format 'raw')", "42P16", "bytea", ""),
    (mqtt_table("qos '1'"), NEEDED, "topic", ""),
    (mqtt_table("topic 'a/#/b'"), VALUE, "topic", "#"),
    (mqtt_table("topic 'a+/b'"), VALUE, "topic", "+"),
    (mqtt_table("topic '$share/group'"), VALUE, "topic", "$share/group/filter"),
    (mqtt_table("topic '$share//t'"), VALUE, "topic", "$share/group/filter"),
    (mqtt_table("topic '$share/group/'"), VALUE, "topic", "$share/group/filter"),
    (mqtt_table("topic 't', qos '3'"), VALUE, "qos", "0 to 2"),
    (mqtt_table("topic 't', protocol '4'"), VALUE, "protocol", "3.1.1"),
    (mqtt_table("topic 't', start 'latest'"), NAME, "start", "topic"),
    (mqtt_table(columns="a text OPTIONS (metadata 'topic_level 0')"), VALUE, "metadata", "topic_level"),
    (local_table("topic 't'"), NAME, "topic", "event_time"),
    (local_table("journal 'none'"), VALUE, "journal", "os"),
    ("ALTER SERVER k OPTIONS (DROP brokers)", NEEDED, "brokers", ""),
    ("ALTER FOREIGN TABLE s OPTIONS (ADD topic 'x')", NAME, "topic", "event_time"),
    ("ALTER FOREIGN TABLE s OPTIONS (ADD buffer_size 'x')", VALUE, "buffer_size", "whole number"),
    ("ALTER FOREIGN TABLE s ADD COLUMN g int GENERATED ALWAYS AS (1) STORED", "0A000", "generated", ""),
]  # fmt: skip


@pytest.mark.parametrize("statement, sqlstate, names, hint", OPTIONS)
def test_options_refused(ddl: Database, statement: str, sqlstate: str, names: str, hint: str) -> None:
    found, message, given_hint = error_from(ddl, statement)
    assert (found, names in message, hint in given_hint) == (sqlstate, True, True), (found, message, given_hint)


def test_capitals_of_kafkas_own_documentation(ddl: Database) -> None:
    for protocol in ("SASL_SSL", "sasl_ssl", "Sasl_Plaintext"):
        ddl.execute(f"CREATE SERVER capitals FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'x', security_protocol '{protocol}', sasl_mechanism 'PLAIN')")
        ddl.execute("DROP SERVER capitals")
    found, message, hint = error_from(ddl, "CREATE SERVER x FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'x', security_protocol 'SASL_SSL')")
    assert (found, "sasl_mechanism" in message) == (NEEDED, True), (found, message, hint)


def test_an_interval_that_is_none_is_told_with_its_option(ddl: Database) -> None:
    for option in ("retention", "lateness", "step", "emit_interval"):
        found, _, hint = error_from(ddl, f"CREATE VIEW x WITH (streamext.continuous, streamext.{option} = 'soon') AS SELECT count(*) FROM s")
        assert (found, f"streamext.{option}" in hint) == ("22007", True), (found, hint)


def test_secrets_are_in_no_message(ddl: Database) -> None:
    for options in ("sasl_password E'geheim\\n'", "sasl_password 'geheim', sasl_password_file 'x'"):
        with pytest.raises(psycopg.Error) as error:
            ddl.execute(f"CREATE USER MAPPING FOR postgres SERVER k OPTIONS ({options})")
        assert "geheim" not in str(error_of(error)) + str(error.value)


def test_files_of_the_server_are_for_who_may_read_them(ddl: Database) -> None:
    ddl.execute("CREATE ROLE plain; GRANT USAGE ON FOREIGN DATA WRAPPER kafka TO plain; GRANT USAGE ON FOREIGN SERVER k TO plain")
    ddl.execute("GRANT CREATE ON DATABASE ddl TO plain; SET ROLE plain")
    try:
        for statement in (
            "CREATE SERVER x FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'x', ssl_ca_location '/etc/passwd')",
            "CREATE USER MAPPING FOR plain SERVER k OPTIONS (sasl_password_file 'postgresql.conf')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ddl.execute(statement)
    finally:
        ddl.execute("RESET ROLE; DROP OWNED BY plain; DROP ROLE plain")


# ---- what a continuous view may not be ----

# The query, and what the error names.
REFUSED = [
    ("SELECT k, i FROM s ORDER BY k", "GROUP BY"),
    ("SELECT DISTINCT ON (k) k, i FROM s", "GROUP BY"),
    ("SELECT count(*) FROM s UNION SELECT 1", "UNION"),
    ("WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 3) SELECT count(*) FROM s, x", "WITH"),
    ("SELECT count(*) FROM (SELECT k FROM s LIMIT 1) AS x", "LIMIT"),
    ("SELECT count(*) FROM s AS x, s AS y", "joins"),
    ("SELECT count(*) FROM s FULL JOIN t USING (k)", "outer joins"),
    ("SELECT count(*) FROM s TABLESAMPLE system (10)", ""),
    ("SELECT k, count(*) FILTER (WHERE i IN (SELECT 1)) FROM s GROUP BY k", "subqueries"),
    ("SELECT sum((SELECT 1)) FROM s", "subqueries"),
    ("SELECT k, count(*) FROM s WHERE random() < 0.5 GROUP BY k", "random"),
    ("SELECT sum(i * random()) FROM s", "random"),
    ("SELECT count(*) FILTER (WHERE random() < 0.5) FROM s", "random"),
    ("SELECT current_user AS who, count(*) FROM s GROUP BY who", "current_user"),
    ("SELECT count(*) FROM s WHERE k = current_user", "current_user"),
    ("SELECT count(*) FROM s WHERE k = current_setting('application_name')", "current_setting"),
    ("SELECT count(*) FROM s WHERE ts::date = current_date", "current_date"),
    ("SELECT max(now() - ts) FROM s", "now"),
    ("SELECT count(*) FROM s WHERE clock_timestamp() > ts", "clock_timestamp"),
    ("SELECT sum(reads(k)) FROM s", "reads"),
    ("SELECT unnest(list) AS x, streamext.hop('1 min', '10 s', ts) AS w, count(*) FROM s GROUP BY x, w", "set-returning"),
    ("SELECT streamext.hop('1 min', '10 s', ts) AS a, streamext.tumble('1 min', ts) AS b, count(*) FROM s GROUP BY a, b", "windows"),
    ("SELECT streamext.tumble('1 min', other) AS w, count(*) FROM s GROUP BY w", "event time"),
    ("SELECT streamext.hop('1 min', '10 s', other) AS w, count(*) FROM s GROUP BY w", "event time"),
    ("SELECT streamext.tumble('1 min', ts + interval '1 s') AS w, count(*) FROM s GROUP BY w", "event time"),
    ("SELECT streamext.tumble(i * interval '1 s', ts) AS w, count(*) FROM s GROUP BY w", "constant"),
    ("SELECT streamext.session('1 min', other) AS w, count(*) FROM s GROUP BY w", "event time"),
    ("SELECT count(*) FROM s WHERE ts > now() - interval '1 min' AND ts > now() - interval '2 min'", "sliding"),
    ("SELECT k::tsvector AS x, count(*) FROM s GROUP BY x", "tsvector"),
    ("SELECT s.tableoid, count(*) FROM s GROUP BY s.tableoid", "system column"),
    ("SELECT count(s) FROM s", "whole-row"),
]  # fmt: skip


@pytest.mark.parametrize("query, names", REFUSED)
def test_constructs_refused(ddl: Database, query: str, names: str) -> None:
    found, message, _ = error_from(ddl, f"CREATE VIEW x WITH (streamext.continuous) AS {query}")
    assert found == "0A000", (found, message)
    assert names.lower() in message.lower()


# Statement, SQLSTATE, what the error names.
VIEW_DDL = [
    ("CREATE VIEW x WITH (streamext.continuous) AS SELECT k, count(*) FROM t GROUP BY k", "42809", "t"),
    ("CREATE VIEW x WITH (streamext.continuous) AS SELECT k, sum(n) FROM v GROUP BY k", "0A000", "continuous views in FROM"),
    ("CREATE VIEW x WITH (streamext.continuous, streamext.retentoin = '1 h') AS SELECT count(*) FROM s", "22023", "retentoin"),
    ("CREATE VIEW x WITH (streamext.continuous, streamext.retention = 'x') AS SELECT count(*) FROM s", "22007", "x"),
    ("CREATE VIEW x WITH (streamext.continuous, streamext.lateness = '-1 s') AS SELECT count(*) FROM s", "22023", "lateness"),
    ("CREATE VIEW x WITH (streamext.continuous, streamext.max_groups = '-1') AS SELECT count(*) FROM s", "22023", "max_groups"),
    ("CREATE VIEW x WITH (streamext.continuous = maybe) AS SELECT count(*) FROM s", "42601", "continuous"),
    ("CREATE VIEW x WITH (streamext.continuous, streamext.step = '1 s') AS SELECT count(*) FROM s", "22023", "step"),
    ("CREATE VIEW x WITH (streamext.continuous) AS SELECT streamext.tumble('1 month', ts) AS w, count(*) FROM s GROUP BY w", "0A000", "onth"),
    ("CREATE VIEW x WITH (streamext.continuous) AS SELECT count(*) FROM s WHERE ts > now() - interval '1 month'", "0A000", "onth"),
    ("CREATE VIEW x WITH (other.continuous) AS SELECT count(*) FROM s", "22023", "other"),
    ("CREATE TEMP VIEW x WITH (streamext.continuous) AS SELECT count(*) FROM s", "0A000", "emporary"),
    ("CREATE MATERIALIZED VIEW x WITH (streamext.continuous) AS SELECT count(*) FROM s", "22023", "streamext"),
    ("CREATE TABLE x (a int) WITH (streamext.continuous)", "22023", "streamext"),
    ("CREATE VIEW x WITH (streamext.continuous) AS SELECT streamext.hop('1 day', '1 ms', ts) AS w, count(*) FROM s GROUP BY w", None, "10000"),
    ("CREATE VIEW x WITH (streamext.continuous) AS SELECT streamext.tumble('0', ts) AS w, count(*) FROM s GROUP BY w", "22023", "positive"),
    ("CREATE OR REPLACE VIEW v AS SELECT k, count(*) AS n FROM s GROUP BY k", None, "continuous"),
    ("CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS SELECT k, 1::bigint AS n FROM s LIMIT 1", "0A000", "GROUP BY"),
    ("ALTER VIEW v SET (streamext.step = '1 s')", "0A000", "step"),
    ("ALTER VIEW v SET (streamext.nothing = '1 s')", None, "nothing"),
    ("CREATE RULE r AS ON INSERT TO v DO INSTEAD NOTHING", "0A000", "rule"),
    ("CREATE TABLE x () INHERITS (s)", "0A000", "inheritance"),
    ("CREATE TABLE x (LIKE s); ALTER TABLE x INHERIT s", "0A000", "inheritance"),
    ("DROP FOREIGN TABLE s", "2BP01", "s"),
    ("ALTER FOREIGN TABLE s DROP COLUMN k", "2BP01", "k"),
    ("ALTER FOREIGN TABLE s ALTER COLUMN k TYPE varchar(10)", "0A000", ""),
    ("ALTER FOREIGN TABLE s OPTIONS (SET event_time 'other')", None, "event_time"),
    ("ALTER FOREIGN TABLE s OPTIONS (DROP event_time)", None, "event_time"),
]  # fmt: skip


@pytest.mark.parametrize("statement, sqlstate, names", VIEW_DDL)
def test_view_ddl_refused(ddl: Database, statement: str, sqlstate: str | None, names: str) -> None:
    found, message, hint = error_from(ddl, statement)
    assert sqlstate in (None, found), (found, message)
    assert not found.startswith("XX"), message
    assert names in message + hint


@pytest.mark.parametrize("statement", [
    "CREATE VIEW x WITH (continuous) AS SELECT count(*) FROM s", "ALTER VIEW v SET (retention = '1 h')", "ALTER VIEW v RESET (retention)",
    "CREATE VIEW x WITH (streamext.continuous, retention = '1 h') AS SELECT count(*) FROM s",
])  # fmt: skip
def test_a_view_option_without_its_prefix(ddl: Database, statement: str) -> None:
    sqlstate, message, hint = error_from(ddl, statement)
    assert sqlstate == "22023" and hint.startswith("Write streamext."), (message, hint)


def test_the_hint_lists_view_options(ddl: Database) -> None:
    _, _, hint = error_from(ddl, "CREATE VIEW x WITH (streamext.continuous, streamext.x = 1) AS SELECT count(*) FROM s")
    assert all(name in hint for name in ("continuous", "retention", "lateness", "keep_late", "step", "max_groups"))


def test_grouping_by_the_raw_time_by_accident(db: Database) -> None:
    local_stream(db, "event_time 'ts'")
    notices: list[str | None] = []
    db.connection.add_notice_handler(lambda notice: notices.append(notice.severity))
    continuous(db, "fine", "SELECT date_trunc('minute', ts) AS minute, count(*) FROM s GROUP BY minute")
    assert notices == []
    continuous(db, "accident", "SELECT date_trunc('minute', ts) AS ts, count(*) FROM s GROUP BY ts")
    assert notices == ["WARNING"]


# ---- what may change ----


@pytest.fixture
def counted(db: Database) -> Database:
    """A local stream s (k, i, ts) with three rows and the view v (k, n)."""
    local_stream(db, "event_time 'ts'", "k text, i int, ts timestamptz DEFAULT now()")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("INSERT INTO s VALUES ('a', 1), ('a', 2), ('b', 3)")
    db.flush("s")
    return db


def after(db: Database) -> list[tuple[object, ...]]:
    """v after one more row of 'a'."""
    db.execute("INSERT INTO s (k, i) VALUES ('a', 9)")
    db.flush("s")
    return sorted(db.rows("TABLE v"))


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER VIEW v SET (streamext.retention = '1 day')",
        "ALTER VIEW v SET (streamext.lateness = '1 min', security_barrier = true)",
        "ALTER VIEW v RESET (streamext.retention)",
        "ALTER VIEW v OWNER TO CURRENT_USER",
        "COMMENT ON VIEW v IS 'x'",
        "CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM s GROUP BY k",
        "ALTER FOREIGN TABLE s OPTIONS (ADD buffer_size '5')",
        "ALTER FOREIGN TABLE s ADD COLUMN more int",
        "CREATE SCHEMA elsewhere; ALTER FOREIGN TABLE s SET SCHEMA elsewhere; SET search_path = elsewhere, public",
    ],
)
def test_changes_that_keep_the_state(counted: Database, statement: str) -> None:
    counted.execute(statement)
    assert after(counted) == [("a", 3), ("b", 1)]


def test_renames(counted: Database) -> None:
    db = counted
    db.execute("ALTER FOREIGN TABLE s RENAME TO s2")
    db.execute("ALTER FOREIGN TABLE s2 RENAME COLUMN k TO key")
    db.execute("ALTER FOREIGN TABLE s2 RENAME COLUMN ts TO at")
    db.execute("ALTER VIEW v RENAME TO v2")
    db.execute("ALTER VIEW v2 RENAME COLUMN n TO number")
    db.execute("INSERT INTO s2 (key, i) VALUES ('a', 9)")
    db.flush("s2")
    assert sorted(db.rows("SELECT k, number FROM v2")) == [("a", 3), ("b", 1)]
    assert db.rows("SELECT view::text FROM streamext.continuous_views") == [("v2",)]


def test_a_renamed_key_is_known_by_its_new_name(counted: Database) -> None:
    db = counted
    db.execute("ALTER VIEW v RENAME COLUMN k TO key")
    rows = db.rows("SELECT op, row FROM streamext.changes('v')")
    assert rows[0] == ("reset", None)
    assert sorted(row["key"] for _, row in rows[1:]) == ["a", "b"]
    assert "hash look-up on (key)" in "".join(line for (line,) in db.rows("EXPLAIN SELECT * FROM v WHERE key = 'a'"))
    assert after(db) == [("a", 3), ("b", 1)]


def test_what_options_name_is_renamed_in_them(db: Database) -> None:
    """Else the view fails later on, and its dump cannot be restored."""
    db.execute(SERVERS)
    local_stream(db, "event_time 'ts'", "k text, ts timestamptz")
    local_stream(db, "", "k text, w timestamptz, n bigint, kind text", "on_to")
    db.execute("CREATE SCHEMA old; CREATE TABLE old.t (k text, w timestamptz, n bigint); CREATE TABLE old.plain (k text, ts timestamptz)")
    db.execute("CREATE FOREIGN TABLE sent (k text, \"N\" int) SERVER m OPTIONS (topic 't/#', publish_topic 't/{k}/{N}/{k}')")
    by_minute = "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY k, w"
    continuous(db, "windows", by_minute, ", streamext.into = 'old.t'")
    continuous(db, "rows", "SELECT k, ts FROM s", ", streamext.into = 'old.plain'")
    continuous(db, "flows", by_minute, ", streamext.into = 'on_to'")
    continuous(db, "total", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("""CREATE VIEW many WITH (streamext.alert, streamext.key = 'k', streamext.clear = $$(N) < 2 OR "n" IS NULL OR k = 'n' -- n$$,
        streamext.to = 'on_to') AS SELECT k, n FROM total WHERE n > 1""")
    db.execute("""ALTER TABLE old.t RENAME TO "T"; ALTER TABLE old.plain SET SCHEMA public; ALTER SCHEMA old RENAME TO new;
        ALTER FOREIGN TABLE on_to RENAME TO further; ALTER VIEW many RENAME n TO "N"; ALTER VIEW many RENAME COLUMN k TO key;
        ALTER FOREIGN TABLE sent RENAME k TO device""")
    assert dict(db.rows("SELECT view::text, options[1] FROM streamext.continuous_views WHERE options <> '{}'")) == {
        "windows": 'streamext.into=new."T"', "rows": "streamext.into=public.plain", "flows": "streamext.into=public.further"}  # fmt: skip
    assert db.value("SELECT reloptions FROM pg_class WHERE relname = 'many'") == [
        "streamext.alert=true", "streamext.key=key", """streamext.clear=("N") < 2 OR "N" IS NULL OR key = 'n' -- n""", "streamext.to=public.further",
    ]  # fmt: skip
    assert "publish_topic=t/{device}/{N}/{device}" in db.value("SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'sent'::regclass")

    db.execute("INSERT INTO s VALUES ('a', '2024-05-01'), ('a', '2024-05-01'), ('a', '2024-05-02')")
    db.flush("s")
    assert db.value('SELECT n FROM new."T"') == 2
    assert db.value("SELECT count(*) FROM plain") == 3
    assert db.rows("SELECT key, kind FROM streamext.alert_events") == [({"key": "a"}, "fired")]
    assert db.rows("SELECT last_error FROM streamext.alert_views") == [(None,)]
    other = f"{db.name}_restored"
    db.server.psql(f"CREATE DATABASE {other}")
    try:
        db.server.psql(db.server.run("pg_dump", db.name, "-U", "postgres"), other)
        assert db.server.psql("SELECT count(*) FROM streamext.continuous_views", other) == "4"
    finally:
        db.server.psql(f"DROP DATABASE {other} WITH (FORCE)")


def test_a_rename_waits_for_no_view_that_it_does_not_concern(db: Database) -> None:
    local_stream(db, "", "k int")
    db.execute("CREATE TABLE t (k int); CREATE TABLE other (k int)")
    continuous(db, "rows", "SELECT k FROM s", ", streamext.into = 't'")
    with db.connect() as holder, holder.transaction():
        holder.execute("COMMENT ON VIEW rows IS 'held'")
        db.execute("SET lock_timeout = '5 s'; ALTER TABLE other RENAME TO another; RESET lock_timeout")


def test_a_rename_in_a_session_that_quotes_all_names_leaves_others_views_alone(db: Database) -> None:
    """It took every view with a target for one with a stale name: it wrote them anew, and waited for who held one."""
    local_stream(db, "", "k int")
    db.execute("CREATE TABLE t (k int); CREATE TABLE other (k int)")
    continuous(db, "rows", "SELECT k FROM s", ", streamext.into = 't'")
    options = "SELECT reloptions FROM pg_class WHERE relname = 'rows'"
    before = db.rows(options)
    with db.connect() as holder, holder.transaction(), db.connect() as renamer:
        holder.execute("COMMENT ON VIEW rows IS 'held'")
        renamer.execute("SET quote_all_identifiers = on; SET lock_timeout = '5 s'; ALTER TABLE other RENAME TO another")
    assert db.rows(options) == before


def test_a_renamed_column_in_a_condition_of_any_spelling(db: Database) -> None:
    """In a query of its own the name is that of what it reads; behind an identifier with escapes stands what the escape is."""
    local_stream(db, "", "k text")
    db.execute("CREATE TABLE other (n int)")
    continuous(db, "total", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("""CREATE VIEW many WITH (streamext.alert, streamext.key = 'k',
        streamext.clear = $$U&"\\006e" < 2 OR u&"!006e"  uescape '!' > 9 OR n IN (SELECT n FROM public.other WHERE n > 5)$$)
        AS SELECT k, n FROM total WHERE n > 1""".replace("\\\\", "\\"))
    db.execute("ALTER VIEW many RENAME n TO m")
    assert db.value("SELECT reloptions[3] FROM pg_class WHERE relname = 'many'") == \
        "streamext.clear=m < 2 OR m > 9 OR m IN (SELECT n FROM public.other WHERE n > 5)"  # fmt: skip


def test_an_alert_keeps_its_target_whose_name_needs_quotes(db: Database) -> None:
    """It became a channel of that name when the view was altered, or its dump restored."""
    db.execute('CREATE SCHEMA "My Schema"')
    local_stream(db, "", "k text")
    local_stream(db, "", "k text, n bigint", "on_to")
    continuous(db, "total", "SELECT k, count(*) AS n FROM s GROUP BY k")
    db.execute("CREATE VIEW many WITH (streamext.alert, streamext.key = 'k', streamext.to = 'on_to') AS SELECT k, n FROM total WHERE n > 1")
    db.execute('ALTER FOREIGN TABLE on_to SET SCHEMA "My Schema"; ALTER VIEW many SET (streamext.every = \'2 s\')')
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute('DROP FOREIGN TABLE "My Schema".on_to')


def test_a_renamed_column_keeps_its_name_in_the_payload(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    db.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
    db.execute(f"CREATE FOREIGN TABLE s (a int, b int OPTIONS (path 'x.y')) SERVER k OPTIONS (topic '{topic}', format 'json')")
    continuous(db, "v", "SELECT sum(a) AS a, sum(b) AS b FROM s")
    kafka.produce(topic, ['{"a":1,"x":{"y":10}}'])
    db.flush("s")
    db.execute("ALTER FOREIGN TABLE s RENAME COLUMN a TO z; ALTER FOREIGN TABLE s RENAME COLUMN b TO a")
    kafka.produce(topic, ['{"a":2,"x":{"y":20}}'])
    db.flush("s")
    assert db.rows("TABLE v") == [(3, 30)]
    assert db.rows("SELECT z, a FROM s ORDER BY z") == [(1, 10), (2, 20)]


def test_replacing_the_query_counts_anew(counted: Database) -> None:
    """All rows since the view was first created."""
    db = counted
    db.execute("CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS SELECT k, count(*) FILTER (WHERE i > 5) AS n FROM s GROUP BY k")
    assert after(db) == [("a", 1), ("b", 0)]


def test_ordinary_to_continuous_and_back(counted: Database) -> None:
    db = counted
    query = "SELECT k, count(*) AS n FROM s GROUP BY k"
    db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous = false) AS {query}")
    assert db.rows("TABLE streamext.continuous_views") == []
    assert after(db) == [("a", 3), ("b", 1)]  # the buffer still holds all
    db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS {query}")
    assert after(db) == [("a", 1)]


def test_an_ordinary_view_reads_the_buffer(counted: Database) -> None:
    db = counted
    db.execute("CREATE VIEW plain AS SELECT k, max(i) AS i FROM s GROUP BY k")
    assert sorted(db.rows("TABLE plain")) == [("a", 2), ("b", 3)]
    assert db.rows("SELECT s.k, n FROM s JOIN v USING (k) WHERE i = 3") == [("b", 1)]


def test_event_time_may_change_without_views(counted: Database) -> None:
    db = counted
    db.execute("DROP VIEW v")
    db.execute("ALTER FOREIGN TABLE s OPTIONS (DROP event_time)")
    db.execute("INSERT INTO s VALUES ('x', 1, NULL)")
    db.flush("s")
    assert db.value("SELECT count(*) FROM s WHERE ts IS NULL") == 1


def test_the_time_zone_of_create_view_stays(db: Database) -> None:
    db.execute("SET timezone = 'Asia/Kolkata'")
    local_stream(db, "event_time 'ts'", "ts timestamptz, t text")
    continuous(db, "v", "SELECT date_trunc('day', ts) AS day, t::timestamptz AS at, to_char(ts, 'HH24:MI') AS hour, count(*) AS n FROM s GROUP BY 1, 2, 3")
    db.execute("SET timezone = 'America/New_York'")
    db.execute("INSERT INTO s VALUES ('2024-05-01 20:00+00', '2024-05-02 01:00')")
    db.flush("s")
    db.execute("SET timezone = 'UTC'")
    assert db.rows("SELECT day::text, at::text, hour, n FROM v") == [("2024-05-01 18:30:00+00", "2024-05-01 19:30:00+00", "01:30", 1)]


@pytest.mark.parametrize("zone", ["CET", "EET", "MET", "WET"])
def test_a_time_zone_is_not_the_abbreviation_of_its_name(db: Database, zone: str) -> None:
    """These zones have daylight saving time, the abbreviations of the same name are fixed offsets."""
    db.execute(f"SET timezone = '{zone}'")
    local_stream(db, "event_time 'ts', watermark_delay '1000 days', max_ahead '1000 days'", "ts timestamptz")
    query = "SELECT date_trunc('{}', ts) AS day, count(*) AS n FROM {} GROUP BY 1"
    for unit in ("day", "hour"):
        continuous(db, unit, query.format(unit, "s"))
    db.execute("""CREATE TABLE o AS SELECT ts FROM generate_series(timestamptz '2024-03-29', '2024-04-02', '7 min') ts
        UNION ALL SELECT ts FROM generate_series(timestamptz '2024-10-25', '2024-10-29', '7 min') ts""")
    db.execute("INSERT INTO s SELECT * FROM o")
    db.flush("s")
    for unit in ("day", "hour"):
        db.execute(f"CREATE TABLE o_{unit} AS {query.format(unit, 'o')}")
    for reader in (zone, "UTC", "America/New_York"):
        db.execute(f"SET timezone = '{reader}'")
        for unit in ("day", "hour"):
            db.assert_same(f"TABLE {unit}", f"TABLE o_{unit}")
            day = f"(SELECT max(day) - interval '1 day' FROM o_{unit})"
            db.assert_same(f"SELECT * FROM {unit} WHERE day = {day}", f"SELECT * FROM o_{unit} WHERE day = {day}")
        (line,) = [line for (line,) in db.rows("EXPLAIN SELECT * FROM day") if "Window" in line]
        assert line.endswith(f"by calendar day in {zone}")


def test_max_groups_is_a_limit(db: Database) -> None:
    """Beyond it the stream takes no further batch and says so; raising it lets the stream go on, and nothing is lost."""
    local_stream(db, columns="a int")
    continuous(db, "v", "SELECT a, count(*) AS n FROM s GROUP BY a", ", streamext.max_groups = 10")
    db.execute("INSERT INTO s SELECT generate_series(1, 15)")
    db.flush("s")
    db.execute("INSERT INTO s SELECT generate_series(10, 20)")
    wait_for(lambda: state(db) == "full", what="state full")
    assert '"v" has more groups than its streamext.max_groups, 10' in db.value("SELECT last_error FROM streamext.streams")
    db.execute("ALTER VIEW v SET (streamext.max_groups = 100)")
    wait_for(lambda: state(db) == "running", what="state running")
    db.flush("s")
    assert db.value("SELECT count(*) FROM v") == 20


def test_clock_is_given_back(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "ts timestamptz")
    continuous(db, "v", "SELECT count(*) AS n FROM s WHERE ts > now() - interval '1 minute'", ", streamext.step = '1 s'")
    try:
        db.execute("SELECT streamext.set_clock('2024-05-01 12:00+00')")
        db.execute("INSERT INTO s SELECT timestamptz '2024-05-01 12:00+00' - i * interval '10 s' FROM generate_series(0, 9) AS i")
        db.flush("s")
        assert db.rows("TABLE v") == [(6,)]
        db.execute("SELECT streamext.set_clock('2024-05-01 12:00:25+00')")
        assert db.rows("TABLE v") == [(4,)]
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
    assert db.rows("TABLE v") == [(0,)]
    assert worker_pid(db)


def test_a_view_that_a_transaction_holds_stops_nothing_else(db: Database) -> None:
    local_stream(db, columns="a int")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    pid = worker_pid(db)
    with db.connect() as other, other.transaction():
        other.execute("ALTER VIEW v RENAME TO former")
        continuous(db, "w", "SELECT count(*) AS n FROM s")
        db.execute("INSERT INTO s VALUES (2), (3)")
        wait_for(lambda: db.rows("TABLE w") == [(2,)], what="the other view")
        assert state(db) == "running"
    db.flush("s")
    assert db.rows("SELECT former.n, w.n FROM former, w") == [(3, 2)]
    assert worker_pid(db) == pid


def test_the_hint_is_of_the_call_that_is_wrong(db: Database) -> None:
    """A window that is written as it should be stands beside most other mistakes."""
    local_stream(db, "event_time 'ts'", "name text, ts timestamptz")
    window = "'ü' AS u, streamext.tumble('1 min', ts) AS w"
    for wrong, hint in ("sum(name)", "No function matches"), ("max(name) > 5", "No operator matches"), ("last(name, 1)", "Write streamext.last(value, event_time)."):
        for query in f"SELECT {window}, {wrong} AS x FROM s GROUP BY w", f"SELECT max(x) FROM (SELECT {window}, {wrong} AS x FROM s GROUP BY w) q":
            refusal = db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
            assert refusal.startswith("42883") and hint in refusal and refusal.count("Write") == hint.count("Write"), refusal


def test_ordinary_views_of_temporary_tables_need_no_rights_on_a_schema(db: Database) -> None:
    """CREATE OR REPLACE makes them beside what has the same name in the schema, and asks nobody's leave."""
    db.execute("CREATE VIEW same AS SELECT 1 AS a; CREATE ROLE guest; GRANT guest TO CURRENT_USER")
    try:
        with db.connection.transaction():
            db.execute("SET LOCAL ROLE guest; CREATE TEMP TABLE t (a int) ON COMMIT DROP")
            for name in "same", "other":
                db.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT a FROM t")
                assert db.value(f"SELECT pg_my_temp_schema() = relnamespace FROM pg_class WHERE oid = '{name}'::regclass")
            db.execute("DROP VIEW pg_temp.same, pg_temp.other")
    finally:
        db.execute("DROP ROLE guest")
