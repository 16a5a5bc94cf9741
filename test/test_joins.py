"""Continuous views that join their stream: each row is enriched with the tables as they are when it arrives. The oracle is the
same query over an ordinary table, as long as the joined tables do not change."""

import random
from datetime import timedelta

import psycopg
import pytest
from harness import views
from harness.database import Database
from harness.sensors import START, Plant
from harness.streams import COLUMNS, continuous, copy_into, counts, error_of, local_stream, worker_pid
from harness.wait import wait_for

NOW = START + timedelta(minutes=10)

QUERIES = {
    "inner": "SELECT l.line, count(*) AS n, sum(s.temperature) AS total FROM {s} JOIN lines l ON l.device = s.device GROUP BY l.line",
    "left": """SELECT l.line, s.site, streamext.tumble('1 min', s.ts) AS w, count(*) AS n, count(l.line) AS known, max(l.rank)
        FROM {s} LEFT JOIN lines l ON l.device = s.device GROUP BY 1, 2, 3""",
    "right": "SELECT l.line, count(*) FROM lines l RIGHT JOIN {s} USING (device) GROUP BY 1 HAVING count(*) > 2",
    "comma": "SELECT line, avg(temperature * l.rank) FROM {s}, lines l WHERE l.device = s.device AND l.rank > 1 GROUP BY line",
    "using": "SELECT device, l.line, count(*) FROM {s} JOIN lines l USING (device) GROUP BY device, l.line",
    "natural": "SELECT line, count(*), min(s.ts) FROM lines NATURAL JOIN {s} GROUP BY line",
    "several": """SELECT o.name, p.name AS plant, count(*) AS n, sum(humidity) FROM {s} JOIN lines l ON l.device = s.device
        JOIN owners o ON o.line = l.line LEFT JOIN plants p ON p.site = s.site AND p.from_temperature < s.temperature
        WHERE o.name <> 'nobody' GROUP BY o.name, p.name""",
    "nested": """SELECT o.name, count(*) FROM {s} LEFT JOIN (lines l JOIN owners o ON o.line = l.line) ON l.device = s.device
        GROUP BY o.name""",
    "fan out": """SELECT streamext.hop('2 min', '30 s', ts) AS w, i, count(*), sum(i * humidity) FROM {s},
        generate_series(1, 3) AS i WHERE i <> 2 GROUP BY w, i""",
    "lateral function": """SELECT letter, count(*) FROM {s}, LATERAL regexp_split_to_table(s.site, '') AS letter
        WHERE letter <> '-' GROUP BY letter""",
    "lateral subquery": """SELECT x.name, count(*) AS n, count(DISTINCT s.device) FROM {s} LEFT JOIN LATERAL
        (SELECT name FROM plants p WHERE p.site = s.site AND p.from_temperature <= s.temperature
        ORDER BY from_temperature DESC LIMIT 1) x ON true GROUP BY x.name""",
    "aggregated subquery": """SELECT t.owners, count(*) FROM {s} JOIN (SELECT l.device, count(*) AS owners FROM lines l
        JOIN owners USING (line) GROUP BY l.device) t ON t.device = s.device GROUP BY t.owners""",
    "values": """SELECT v.kind, count(*) FILTER (WHERE s.temperature > v.floor), max(s.ts)
        FROM {s} JOIN (VALUES ('warm', 10), ('cold', -100)) v (kind, floor) ON true GROUP BY v.kind""",
    "view": "SELECT line, name, count(*) FROM {s} JOIN known k USING (device) GROUP BY line, name",
    "user function": "SELECT f.line, count(*) FROM {s}, line_of(s.device) AS f(line) GROUP BY f.line",
    "sliding": """SELECT l.line, count(*), max(s.ts) FROM {s} JOIN lines l ON l.device = s.device
        WHERE s.ts > {now} - interval '1 minute' AND l.rank < 4 GROUP BY l.line""",
    "hash only": """SELECT l.line, date_trunc('minute', s.ts) AS w, count(*) FROM {s} JOIN lines l ON l.device || '' = s.device
        GROUP BY l.line, w""",
    "no groups": "SELECT count(*), sum(l.rank), string_agg(DISTINCT l.line, ',' ORDER BY l.line) FROM {s} JOIN lines l USING (device)",
    "output sublink": """SELECT l.line, count(*), (SELECT max(name) FROM owners o WHERE o.line = l.line) AS owner
        FROM {s} JOIN lines l USING (device) GROUP BY l.line""",
}


def tables(db: Database) -> None:
    db.execute("CREATE TABLE lines (device text, line text, rank int)")
    db.execute("""INSERT INTO lines SELECT 'device-' || lpad(i::text, 4, '0'), 'line ' || i % 4, i % 5
        FROM generate_series(0, 15) AS i""")
    db.execute("INSERT INTO lines SELECT device, 'twice', 9 FROM lines WHERE rank = 3")
    db.execute("CREATE TABLE owners (line text, name text)")
    db.execute("INSERT INTO owners VALUES ('line 0', 'ada'), ('line 1', 'bob'), ('line 1', 'cyd'), ('line 2', 'nobody')")
    db.execute("CREATE TABLE plants (site text, name text, from_temperature float8)")
    db.execute("""INSERT INTO plants SELECT 'site-' || i % 4, 'plant ' || i, 5 * i FROM generate_series(0, 7) AS i""")
    db.execute("CREATE VIEW known AS SELECT device, line, name FROM lines JOIN owners USING (line)")
    db.execute("""CREATE FUNCTION line_of(d text) RETURNS SETOF text STABLE LANGUAGE sql AS
        'SELECT line FROM public.lines WHERE device = d'""")


def stream(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h', max_ahead '1 h'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")


def feed(db: Database, readings: int = 2000) -> None:
    copy_into(db, "o", Plant(devices=30, sites=5).readings(readings))
    db.execute("INSERT INTO o SELECT NULL, NULL, ts, temperature, humidity FROM o LIMIT 10")
    db.execute("INSERT INTO s SELECT * FROM o")
    db.flush("s")


def create(db: Database, name: str, query: str) -> None:
    continuous(db, name, query.format(s="s", now="now()"))


def test_every_kind_of_join(db: Database) -> None:
    stream(db)
    tables(db)
    db.execute("SELECT streamext.set_clock(%s)", NOW)
    try:
        for name, query in QUERIES.items():
            create(db, f'"{name}"', query)
        feed(db)
        for name, query in QUERIES.items():
            db.assert_same(f'TABLE "{name}"', query.format(s="o AS s", now=f"timestamptz '{NOW}'"))
            assert counts(db, f'"{name}"') == (2010, 0, 0), name
        assert db.value("SELECT count(*) FROM \"inner\"") > 0
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


def test_sessions_of_joined_rows(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    tables(db)
    continuous(db, "v", """SELECT line, streamext.session('2 s', ts) AS start, count(*) AS n, sum(rank) AS ranks
        FROM s JOIN lines USING (device) GROUP BY line, start""")
    feed(db)
    source = views.sessions("(SELECT line, rank, ts FROM o JOIN lines USING (device)) AS rows", ["line"], "'2 s'")
    db.assert_same("TABLE v", f"SELECT line, session_start, count(*), sum(rank) FROM {source} GROUP BY line, session_start")


def test_random_joins(db: Database) -> None:
    """Definitions as the oracle makes them, over the stream joined with a table."""
    rng = random.Random(4)
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    db.execute(f"""CREATE FOREIGN TABLE s ({views.COLUMN_LIST}) SERVER here
        OPTIONS (event_time 'ts', watermark_delay '1 day')""")
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    db.execute("CREATE TABLE names (site int, label text, weight numeric)")
    db.execute("INSERT INTO names VALUES (1, 'one', 0.5), (1, 'uno', 2), (2, 'two', -1), (7, 'none', 1), (NULL, 'null', 3)")
    joins = [
        "{0} AS s NATURAL LEFT JOIN names",
        "{0} AS s NATURAL JOIN names",
        "{0} AS s LEFT JOIN LATERAL (SELECT min(label) AS label, sum(weight) AS weight FROM names m WHERE m.site > s.site) x ON true",
    ]
    extra = [*views.GENERAL, "sum(weight)", "max(label)", "sum(i4 * weight)", "count(label)"]
    db.execute("SELECT streamext.set_clock(%s)", views.NOW)
    try:
        definitions = []
        for i in range(60):
            join = rng.choice(joins)
            definition = views.definition(rng, extra)
            if rng.random() < 0.5 and "GROUP BY" in definition.text and not definition.oracle:
                definition.text = definition.text.replace("SELECT ", "SELECT label, ", 1).replace("GROUP BY ", "GROUP BY label, ")
            db.execute(f"CREATE VIEW v{i} WITH (streamext.continuous{definition.options}) AS {definition.view(join.format('s'))}")
            definitions.append((join, definition))
        for count in (1, 7, 500, 1500):
            values = ", ".join(views.rows(rng, count, views.NOW))
            with db.connection.transaction():
                db.execute(f"INSERT INTO s VALUES {values}")
                db.execute(f"INSERT INTO o VALUES {values}")
            db.flush("s")
            for i, (join, definition) in enumerate(definitions):
                db.assert_same(f"TABLE v{i}", definition.query(join.format("o"), views.NOW))
        for row in db.rows("SELECT view, accepted, late, rejected FROM streamext.continuous_views"):
            assert row[1:] == (2008, 0, 0), row
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


@pytest.fixture
def simple(db: Database) -> Database:
    """A stream s (k, x, ts), a table names (k, name) of 100 and a continuous view v that joins them."""
    local_stream(db, "event_time 'ts', watermark_delay '1 h', max_ahead '1 h'", "k int, x int, ts timestamptz DEFAULT now()")
    db.execute("CREATE TABLE names (k int PRIMARY KEY, name text)")
    db.execute("INSERT INTO names SELECT i, 'name ' || i % 3 FROM generate_series(1, 100) AS i")
    continuous(db, "v", "SELECT name, count(*) AS n, sum(100 / x) AS total FROM s LEFT JOIN names USING (k) GROUP BY name")
    return db


def insert(db: Database, *rows: tuple[int, int]) -> None:
    db.execute(f"INSERT INTO s (k, x) VALUES {', '.join(map(str, rows))}")
    db.flush("s")


def test_a_changed_table_is_seen_by_the_next_batch(simple: Database) -> None:
    db = simple
    insert(db, (1, 1), (2, 1), (200, 1))
    db.execute("UPDATE names SET name = 'changed' WHERE k = 1")
    db.execute("INSERT INTO names VALUES (200, 'new')")
    insert(db, (1, 1), (2, 1), (200, 1))
    assert sorted(db.rows("SELECT name, n FROM v"), key=str) == [("changed", 1), ("name 1", 1), ("name 2", 2), ("new", 1), (None, 1)]
    # One transaction's changes to the table count for its own rows and those after.
    with db.connection.transaction():
        db.execute("TRUNCATE names")
        db.execute("INSERT INTO s (k, x) VALUES (1, 1)")
    db.flush("s")
    assert db.value("SELECT n FROM v WHERE name IS NULL") == 2


def test_ddl_on_the_joined_table(simple: Database) -> None:
    db = simple
    insert(db, (1, 1))
    for ddl in (
        "ALTER TABLE names ADD COLUMN more text DEFAULT 'x'",
        "ALTER TABLE names RENAME COLUMN name TO label",
        "ALTER TABLE names RENAME TO labels",
        "ALTER TABLE labels DROP CONSTRAINT names_pkey",
        "CREATE INDEX ON labels (k)",
        "ALTER TABLE labels DROP COLUMN more",
        "ANALYZE labels",
        "CREATE SCHEMA elsewhere",
        "ALTER TABLE labels SET SCHEMA elsewhere",
        "ALTER FOREIGN TABLE s ADD COLUMN y int",
    ):
        db.execute(ddl)
        insert(db, (1, 1))
    assert db.value("SELECT n FROM v") == 11
    assert counts(db, "v") == (11, 0, 0)
    for ddl in ("DROP TABLE elsewhere.labels", "ALTER TABLE elsewhere.labels DROP COLUMN label"):
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            db.execute(ddl)


def test_a_row_that_raises_is_rejected_alone(simple: Database) -> None:
    db = simple
    continuous(db, "other", "SELECT count(*) FROM s")
    continuous(db, "fan", "SELECT i, sum(x) FROM s, generate_series(1, 3) i WHERE 10 / (x * (i - 2) + 1) >= 0 GROUP BY i")
    rows = [(i % 120, 0 if i % 250 == 0 else 2) for i in range(1000)]
    insert(db, *rows)
    assert counts(db, "v") == (996, 0, 4)
    assert counts(db, "other") == (1000, 0, 0)
    assert db.value("SELECT sum(n) FROM v") == 996
    assert db.rows("SELECT DISTINCT sqlstate FROM streamext.dead_letters WHERE view = 'v'::regclass") == [("22012",)]
    insert(db, (1, 1))  # of its three rows one divides by zero: none counts
    assert counts(db, "fan") == (1000, 0, 1)


def test_errors_in_aggregation_take_all_rows_of_one_away(simple: Database) -> None:
    """The transition function raises for one of the rows that a row of the stream makes."""
    db = simple
    continuous(db, "v2", "SELECT x, sum(CASE WHEN i = 2 AND k = 5 THEN 'NaN'::numeric ELSE i END) AS t, "
               "string_agg(CASE WHEN i = 2 AND k = 7 THEN repeat('x', 10) ELSE 'y' END, '') FROM s, generate_series(1, 3) i GROUP BY x")
    db.execute("""CREATE FUNCTION no_seven(a int, b int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN IF b = 7 THEN RAISE ''seven''; END IF; RETURN coalesce(a, 0) + b; END'""")
    db.execute("CREATE AGGREGATE sum_no_seven(int) (SFUNC = no_seven, STYPE = int, COMBINEFUNC = int4pl)")
    continuous(db, "v3", "SELECT k, count(*) AS n, sum_no_seven(x + i) AS total FROM s, generate_series(1, 3) i GROUP BY k")
    insert(db, (1, 1), (1, 5), (2, 2), (1, 6), (2, 8))
    assert sorted(db.rows("TABLE v3")) == [(1, 3, 9), (2, 6, 42)]
    assert counts(db, "v3") == (3, 0, 2)
    assert counts(db, "v2") == (5, 0, 0)


def test_index_look_ups_serve_small_batches(simple: Database) -> None:
    """A million rows in the joined table cost a batch of one row nothing to speak of."""
    db = simple
    db.execute("INSERT INTO names SELECT i, 'name' FROM generate_series(101, 300000) AS i")
    db.execute("ANALYZE names")
    insert(db, (1, 1))
    before = db.value("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'names'")
    for i in range(20):
        insert(db, (i + 2, 1))
    db.execute("SELECT pg_stat_clear_snapshot()")
    assert db.value("SELECT n FROM v WHERE name = 'name 0'") == 7
    after = db.value("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'names'")
    assert after - before < 300000


def test_rights_are_the_owners(db: Database) -> None:
    local_stream(db, columns="k int, ts timestamptz DEFAULT now()")
    db.execute("CREATE TABLE secret (k int, name text)")
    db.execute("INSERT INTO secret VALUES (1, 'one'), (2, 'two')")
    db.execute("DROP ROLE IF EXISTS joiner")
    db.execute("CREATE ROLE joiner LOGIN")
    db.execute("GRANT SELECT, INSERT ON s TO joiner; GRANT CREATE ON SCHEMA public TO joiner")
    try:
        with db.connect("joiner") as joiner:
            definition = """CREATE VIEW v WITH (streamext.continuous) AS
                SELECT name, count(*) FROM s JOIN secret USING (k) GROUP BY name"""
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                joiner.execute(definition)
            db.execute("GRANT SELECT ON secret TO joiner")
            joiner.execute(definition)
        db.execute("INSERT INTO s VALUES (1)")
        db.flush("s")
        assert db.rows("TABLE v") == [("one", 1)]
        db.execute("REVOKE SELECT ON secret FROM joiner")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("TABLE v")
        db.execute("INSERT INTO s VALUES (2)")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'v'::regclass") == "failed", what="the view to fail")
        assert db.value("SELECT count(*) FROM streamext.dead_letters") == 0
        db.execute("ALTER TABLE secret OWNER TO joiner")
        db.flush("s")
        assert sorted(db.rows("TABLE v")) == [("one", 1), ("two", 1)]
        db.execute("ALTER TABLE secret OWNER TO CURRENT_USER")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views") == "failed", what="the view to fail")
        db.execute("GRANT SELECT ON secret TO joiner")
        db.flush("s")

        # Row security applies to the owner.
        db.execute("ALTER TABLE secret ENABLE ROW LEVEL SECURITY")
        db.execute("CREATE POLICY p ON secret TO joiner USING (k > 1)")
        with db.connect("joiner") as joiner:
            joiner.execute(definition.replace("VIEW v", "VIEW w"))
        db.execute("INSERT INTO s VALUES (1), (2)")
        db.flush("s")
        assert db.rows("TABLE w") == [("two", 1)]

        # A setting by which the same query is an error for clients is none of the worker's.
        db.execute(f"ALTER DATABASE {db.name} SET row_security = off")
        pid = worker_pid(db)
        db.execute("SELECT pg_terminate_backend(%s)", pid)
        worker_pid(db, besides=pid)
        db.execute("INSERT INTO s VALUES (1), (2)")
        db.flush("s")
        assert db.rows("TABLE w") == [("two", 2)]
    finally:
        db.execute("DROP OWNED BY joiner CASCADE; DROP ROLE joiner")


REFUSED = {
    "SELECT count(*) FROM s RIGHT JOIN names USING (k)": "outer joins",
    "SELECT count(*) FROM names LEFT JOIN s USING (k)": "outer joins",
    "SELECT count(*) FROM s FULL JOIN names USING (k)": "outer joins",
    "SELECT count(*) FROM s JOIN s AS t USING (k)": "two streams",
    "SELECT count(*) FROM s, (SELECT k FROM s) t": "two streams",
    "SELECT count(*) FROM names, (SELECT * FROM s) t": None,
    "SELECT count(*) FROM names a JOIN names b USING (k)": "no stream",
    "SELECT count(*) FROM s JOIN v USING (k)": "continuous views in FROM",
    "SELECT count(*) FROM s JOIN (SELECT * FROM v) x USING (k)": "continuous views in FROM",
    "SELECT count(*) FROM s JOIN names ON names.k = s.k AND random() < 0.5": "volatile function random",
    "SELECT count(*) FROM s, (SELECT k, random() FROM names) t": "volatile function random",
    "SELECT count(*) FROM s, (SELECT now()) t": "now",
    "SELECT count(*) FROM s, (SELECT current_user) t": "CURRENT_USER",
    "SELECT count(*) FROM s, names TABLESAMPLE system (10)": "TABLESAMPLE",
    "SELECT count(*) FROM s JOIN names ON names.k IN (SELECT k FROM names)": "subqueries in a JOIN condition",
    "SELECT names.k, names.name, count(*) FROM s JOIN names USING (k) GROUP BY names.k": "primary key",
    "SELECT names, count(*) FROM s JOIN names USING (k) GROUP BY names": "whole-row",
    "SELECT w, count(*) FROM s, streamext.hop('1 min', '10 s', s.ts) AS w GROUP BY w": "window function",
    "SELECT date_bin('1 min', at, '2000-01-01'), count(*) FROM s JOIN times USING (k) GROUP BY 1": None,
    "SELECT streamext.tumble('1 min', at), count(*) FROM s JOIN times USING (k) GROUP BY 1": "event time",
}


def test_what_is_refused(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "k int, x int, ts timestamptz")
    db.execute("CREATE TABLE names (k int PRIMARY KEY, name text)")
    db.execute("CREATE TABLE times (k int, at timestamptz)")
    continuous(db, "v", "SELECT k, count(*) FROM s GROUP BY k")
    for i, (query, message) in enumerate(REFUSED.items()):
        if message is None:
            continuous(db, f"accepted_{i}", query)
            continue
        with pytest.raises(psycopg.Error) as error:
            continuous(db, "refused", query)
        sqlstate, text, _ = error_of(error)
        assert sqlstate == ("42809" if message == "no stream" else "0A000"), (query, text)
        assert message in text, (query, text)


def test_state_stays_and_definitions_are_told_apart(simple: Database) -> None:
    db = simple
    insert(db, (1, 1))
    db.execute("""CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS
        SELECT name, count(*) AS n, sum(100 / x) AS total FROM s JOIN names USING (k) GROUP BY name""")
    db.execute("INSERT INTO s (k, x) VALUES (500, 1), (1, 1)")
    db.flush("s")
    assert db.value("SELECT count(*) FROM v WHERE name IS NULL") == 0


def test_a_locked_table_is_waited_for(simple: Database) -> None:
    db = simple
    insert(db, (1, 1))
    with db.connect() as other, other.transaction():
        other.execute("LOCK TABLE names")
        db.execute("INSERT INTO s (k, x) VALUES (1, 1)")
        other.execute("UPDATE names SET name = 'later' WHERE k = 1")
    db.flush("s")
    assert db.value("SELECT sum(n) FROM v") == 2
    assert db.value("SELECT count(*) FROM v WHERE name = 'later'") == 1
