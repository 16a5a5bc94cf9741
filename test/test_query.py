"""The query that people have: subqueries, WITH, ordinary views and DISTINCT are only spelling; semi-joins are joins."""

import re
from datetime import timedelta
from pathlib import Path

from harness.database import Database
from harness.sensors import START, Plant
from harness.streams import COLUMNS, continuous, copy_into, counts, local_stream, worker_pid
from harness.wait import wait_for

NOW = START + timedelta(minutes=10)

QUERIES = {
    "subquery": "SELECT d, count(*), sum(t) FROM (SELECT device AS d, temperature * 2 AS t, site FROM {s} WHERE humidity > 20) AS q WHERE site <> 'site-1' GROUP BY d",
    "deep": """SELECT b, c, count(*) FROM (SELECT a AS b, c FROM (SELECT site AS a, date_trunc('minute', ts) AS c FROM {s}
        WHERE temperature > 0) AS one WHERE a IS NOT NULL) AS two GROUP BY b, c""",
    "with": "WITH warm AS (SELECT * FROM {s} WHERE temperature > 10), few AS (SELECT site, ts FROM warm) SELECT site, max(ts) FROM few GROUP BY 1",
    "with twice": """WITH l AS (SELECT device, line FROM lines) SELECT a.line, count(*) FROM {s} JOIN l a USING (device)
        LEFT JOIN l b ON b.line = a.line AND b.device = 'device-0001' GROUP BY a.line""",
    "view": "SELECT site, count(*), avg(kelvin) FROM kelvin_{s} GROUP BY site",
    "view of view": "SELECT site, count(*), min(kelvin) FROM cold_{s} GROUP BY site",
    "hop inside": """SELECT site, w, count(*) FROM (SELECT site, streamext.hop('2 min', '30 s', ts) AS w FROM {s}) AS q GROUP BY site, w""",
    "hop deep": """SELECT w, count(*) FROM (SELECT w FROM (SELECT streamext.hop('2 min', '30 s', time) AS w FROM
        (SELECT ts AS time FROM {s}) AS a) AS b) AS c GROUP BY w""",
    "joined inside": """SELECT line, count(*), sum(rank) FROM (SELECT x.*, l.line, l.rank FROM {s} AS x JOIN lines l USING (device)
        WHERE x.temperature > 1) AS q WHERE rank < 4 GROUP BY line""",
    "comma inside left": """SELECT o.name, count(*) FROM (SELECT l.line, x.site FROM {s} AS x, lines l WHERE l.device = x.device) AS q
        LEFT JOIN owners o ON o.line = q.line GROUP BY o.name""",
    "joined view": "SELECT l.line, count(*) FROM cold_{s} AS c JOIN lines l ON l.device = c.device GROUP BY l.line",
    "lateral": """SELECT kind, count(*) FROM (SELECT 5 AS least UNION ALL SELECT 15) AS v,
        LATERAL (SELECT site || least AS kind FROM {s} WHERE temperature > least) AS q GROUP BY kind""",
    "distinct": "SELECT DISTINCT site, device FROM {s} WHERE humidity < 60",
    "distinct window": "SELECT DISTINCT site, streamext.tumble('1 min', ts) AS w FROM (SELECT * FROM {s}) AS q ORDER BY w",
    "distinct hop": "SELECT DISTINCT site, streamext.hop('1 min', '20 s', ts) AS w FROM {s}",
    "in": "SELECT site, count(*) FROM {s} WHERE device IN (SELECT device FROM lines WHERE rank > 1) GROUP BY site",
    "not in": "SELECT site, count(*) FROM {s} WHERE device NOT IN (SELECT device FROM lines WHERE rank > 1) GROUP BY site",
    "exists": """SELECT x.site, streamext.tumble('1 min', x.ts) AS w, count(*) FROM {s} AS x
        WHERE EXISTS (SELECT FROM lines l JOIN owners USING (line) WHERE l.device = x.device AND l.rank < x.temperature) GROUP BY 1, 2""",
    "not exists": "SELECT x.site, count(*) FROM {s} AS x WHERE NOT EXISTS (SELECT FROM lines l WHERE l.device = x.device) GROUP BY 1",
    "scalar": "SELECT site, count(*) FROM {s} AS x WHERE temperature > (SELECT avg(rank) FROM lines l WHERE l.device <= x.device) GROUP BY 1",
    "semi in subquery": """SELECT site, count(*) FROM (SELECT * FROM {s} WHERE device IN (SELECT device FROM lines)) AS q
        WHERE humidity > 20 GROUP BY site""",
    "semi in view": "SELECT site, count(*) FROM known_{s} GROUP BY site",
    "semi sliding": """SELECT site, count(*) FROM {s} WHERE ts > {now} - interval '1 minute' AND device IN (SELECT device FROM lines)
        GROUP BY site""",
    "whole row": "SELECT q.site, count(*) FROM (SELECT site, device FROM {s}) AS q WHERE (q.*) IS NOT NULL GROUP BY 1",
    "output sublink": """WITH p AS (SELECT * FROM owners) SELECT line, count(*), (SELECT max(name) FROM p WHERE p.line = q.line) AS owner
        FROM (SELECT * FROM {s} JOIN lines l USING (device)) AS q GROUP BY line""",
    "set": "SELECT regexp_split_to_table(site, '') AS letter, count(*) FROM {s} GROUP BY letter",
    "set in expression": """SELECT upper(regexp_split_to_table(site, '')) || 'x' AS letter, count(*), generate_series(1, 2) AS twice FROM {s}
        WHERE temperature > 1 GROUP BY letter""",
    "sets side by side": "SELECT unnest(ARRAY[site, device]) AS a, generate_series(1, 3) AS i, count(*) FROM {s} GROUP BY a, i",
    "set in subquery": """SELECT streamext.hop('2 min', '1 min', ts) AS w, part, count(*) FROM (SELECT ts, unnest(string_to_array(device, '-')) AS part
        FROM {s} WHERE humidity > 20) AS q WHERE part <> 'device' GROUP BY w, part""",
    "set distinct": "SELECT DISTINCT unnest(ARRAY[site, device]) FROM {s}",
    "json elements": """SELECT e ->> 'k' AS k, count(*), sum((e ->> 'v')::float8) FROM {s},
        LATERAL jsonb_array_elements(jsonb_build_array(jsonb_build_object('k', site, 'v', temperature), '{{"k": "b", "v": 1}}'::jsonb)) AS e GROUP BY k""",
    "having": "WITH q AS (SELECT * FROM {s}) SELECT site, count(*) AS n FROM q GROUP BY site HAVING count(*) > (SELECT min(rank) FROM lines) ORDER BY n",
}  # fmt: skip

REFUSED = {
    "SELECT site, count(*) FROM (SELECT DISTINCT site, device FROM s) AS q GROUP BY site": "DISTINCT over the stream in FROM",
    "SELECT n, count(*) FROM (SELECT site, count(*) AS n FROM s GROUP BY site) AS q GROUP BY n": "GROUP BY and aggregates over the stream in FROM",
    "SELECT site, count(*) FROM (SELECT * FROM s LIMIT 5) AS q GROUP BY site": "LIMIT over the stream",
    "SELECT n, count(*) FROM (SELECT row_number() OVER () AS n FROM s) AS q GROUP BY n": "window functions over the stream",
    "SELECT site, count(*) FROM (SELECT * FROM s UNION SELECT * FROM s) AS q GROUP BY site": "UNION",
    "WITH RECURSIVE w AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM w WHERE n < 3) SELECT n, count(*) FROM s, w GROUP BY n": "WITH RECURSIVE",
    "WITH w AS (SELECT random() AS r) SELECT site, count(*) FROM s, w WHERE r < 0.5 GROUP BY site": "volatile functions in WITH",
    "SELECT count(*) FROM (SELECT streamext.hop('2 min', '1 min', ts) FROM s) AS q": "without GROUP BY on it",
    "SELECT w, max(w) FROM (SELECT streamext.hop('2 min', '1 min', ts) AS w FROM s) AS q GROUP BY w": "a window function in an aggregate's arguments",
    "SELECT site, count(*) FROM s WHERE device IN (SELECT device FROM s) GROUP BY site": "joins of two streams",
    "SELECT a.site, count(*) FROM (SELECT * FROM s) a JOIN (SELECT * FROM s) b USING (device) GROUP BY 1": "joins of two streams",
    "WITH w AS (SELECT * FROM s) SELECT a.site, count(*) FROM w a JOIN w b USING (device) GROUP BY 1": "joins of two streams",
    "SELECT l.rank, count(*) FROM lines l LEFT JOIN (SELECT * FROM s) AS q USING (device) GROUP BY 1": "outer joins that keep rows",
    "SELECT site, count(*) FROM s WHERE ts > (SELECT now()) GROUP BY site": "in FROM",
    "SELECT site, count(*) FROM s GROUP BY site, (SELECT max(rank) FROM lines)": "subqueries in GROUP BY",
    "SELECT DISTINCT ON (site) site, device FROM s": "DISTINCT ON without GROUP BY or an aggregate",
    "SELECT site FROM s ORDER BY ts": "ORDER BY without GROUP BY or an aggregate",
    "SELECT site FROM s LIMIT 3": "LIMIT without GROUP BY or an aggregate",
    "SELECT site, row_number() OVER () FROM s": "window functions without GROUP BY or an aggregate",
    "SELECT site FROM s WHERE ts > now() - interval '1 min'": "function now() in WHERE",
    "SELECT generate_series(1, generate_series(1, 2)) AS n, count(*) FROM s GROUP BY n": "set-returning functions within each other",
    "SELECT generate_series(1, 2) AS n, streamext.hop('2 min', '1 min', ts) AS w, count(*) FROM s GROUP BY n, w": "streamext.hop beside other",
    "SELECT (jsonb_each(to_jsonb(site))).key AS k, count(*) FROM s GROUP BY k": "functions that return sets of rows outside of FROM",
    "SELECT n, count(*) FROM counted GROUP BY n": "continuous views in FROM that aggregate without a window",
    "SELECT site, count(*) FROM barred JOIN lines USING (device) GROUP BY site": "security_barrier views over the stream in a join",
}  # fmt: skip


def tables(db: Database) -> None:
    db.execute("CREATE TABLE lines (device text, line text, rank int)")
    db.execute("""INSERT INTO lines SELECT 'device-' || lpad(i::text, 4, '0'), 'line ' || i % 4, i % 5
        FROM generate_series(0, 15) AS i""")
    db.execute("CREATE TABLE owners (line text, name text)")
    db.execute("INSERT INTO owners VALUES ('line 0', 'ada'), ('line 1', 'bob'), ('line 1', 'cyd'), ('line 2', 'nobody')")


def views(db: Database, source: str) -> None:
    db.execute(f"CREATE VIEW kelvin_{source} AS SELECT *, temperature + 273.15 AS kelvin FROM {source}")
    db.execute(f"CREATE VIEW cold_{source} WITH (security_barrier = {'false' if source == 's' else 'true'}) AS SELECT kelvin, site, device FROM kelvin_{source} WHERE kelvin < 290")
    db.execute(f"CREATE VIEW known_{source} AS SELECT * FROM {source} WHERE device IN (SELECT device FROM lines)")


def stream(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h', max_ahead '1 h'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")


def feed(db: Database, readings: int = 2000) -> None:
    copy_into(db, "o", Plant(devices=30, sites=5).readings(readings))
    db.execute("INSERT INTO o SELECT NULL, NULL, ts, temperature, humidity FROM o LIMIT 10")
    db.execute("INSERT INTO s SELECT * FROM o")
    db.flush("s")


def test_every_spelling(db: Database) -> None:
    stream(db)
    tables(db)
    views(db, "s")
    views(db, "o")
    db.execute("SELECT streamext.set_clock(%s)", NOW)
    try:
        for name, query in QUERIES.items():
            continuous(db, f'"{name}"', query.format(s="s", now="now()"))
        feed(db)
        for name, query in QUERIES.items():
            db.assert_same(f'TABLE "{name}"', query.format(s="o", now=f"timestamptz '{NOW}'"))
            assert counts(db, f'"{name}"') == (2010, 0, 0), name
            assert db.value(f'SELECT count(*) FROM "{name}"') > 0 or name == "not in", name
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


def test_refused(db: Database) -> None:
    stream(db)
    tables(db)
    continuous(db, "counted", "SELECT site, count(*) AS n FROM s GROUP BY site")
    db.execute("CREATE VIEW barred WITH (security_barrier) AS SELECT * FROM s")
    for query, reason in REFUSED.items():
        refusal = db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
        assert refusal.startswith("0A000") and reason in refusal, (query, refusal)
        assert "HINT: " in refusal, (query, refusal)


def test_forms_of_the_sliding_predicate(db: Database) -> None:
    stream(db)
    length = "interval '1 minute'"
    forms = [
        f"ts > now() - {length}", f"now() - {length} < ts", f"ts + {length} > now()", f"now() - ts < {length}",
        "ts - now() > interval '-1 minute'", "interval '-00:01' < ts - now()", f"ts >= now() - {length}", "ts - now() >= - interval '1 minute'",
        "date_trunc('minute', ts) > now() - interval '3 min'", "now() - interval '2 min' <= date_trunc('minute', ts)",
        "date_trunc('second', ts) > now() - interval '30 s' AND ts <= now()",
        f"ts BETWEEN now() - {length} AND now()", f"NOT (ts <= now() - {length})",
    ]  # fmt: skip
    db.execute("SELECT streamext.set_clock(%s)", NOW)
    try:
        for i, form in enumerate(forms):
            if "NOT" in form:
                assert "now() in WHERE" in db.refusal(f"CREATE VIEW v{i} WITH (streamext.continuous) AS SELECT count(*) FROM s WHERE {form}")
                continue
            continuous(db, f"v{i}", f"SELECT site, count(*) FROM s WHERE {form} GROUP BY site")
        feed(db)
        db.execute("INSERT INTO o SELECT 'edge', 'edge', %s - interval '1 minute' * i, 1, 1 FROM generate_series(0, 2) AS i", NOW)
        db.execute("INSERT INTO s SELECT * FROM o WHERE device = 'edge'")
        db.flush("s")
        for i, form in enumerate(forms[:-1]):
            db.assert_same(f"TABLE v{i}", f"SELECT site, count(*) FROM o WHERE {form} GROUP BY site".replace("now()", f"timestamptz '{NOW}'"))
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


def test_stored_rule_is_the_users_own(db: Database) -> None:
    stream(db)
    query = "SELECT q.site, count(*) AS n FROM ( SELECT s.site FROM s WHERE (s.temperature > (0)::double precision)) q GROUP BY q.site"
    continuous(db, "v", query)
    db.execute(f"CREATE VIEW ordinary AS {query}")
    assert db.value("SELECT pg_get_viewdef('v')") == db.value("SELECT pg_get_viewdef('ordinary')")


def test_an_ordinary_view_below_is_replaced(db: Database) -> None:
    """The view is counted anew, as CREATE OR REPLACE of itself would have it; what is not supported is said in its state."""
    stream(db)
    db.execute("CREATE VIEW warm AS SELECT site, temperature FROM s WHERE temperature > 10")
    db.execute("CREATE VIEW warmer AS SELECT * FROM warm")
    continuous(db, "v", "SELECT temperature, count(*) FROM warmer GROUP BY temperature")
    values = "INSERT INTO s SELECT 'd', 'a', now(), temperature, 1 FROM unnest(ARRAY[5, 11, 15]) AS temperature"
    db.execute(values)
    db.flush("s")
    assert sorted(db.rows("SELECT temperature FROM v")) == [(11,), (15,)]
    db.execute("CREATE OR REPLACE VIEW warm AS SELECT site, temperature FROM s WHERE temperature < 12")
    db.execute(values)
    db.flush("s")
    assert sorted(db.rows("SELECT temperature FROM v")) == [(5,), (11,)]

    db.execute("CREATE OR REPLACE VIEW warm AS SELECT site, temperature FROM s LIMIT 5")
    assert "LIMIT over the stream" in db.refusal("TABLE v")
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views") == "failed", what="failed")
    assert "LIMIT" in db.value("SELECT last_error FROM streamext.continuous_views")
    db.execute("CREATE OR REPLACE VIEW warm AS SELECT site, temperature FROM s WHERE temperature > 14")
    db.execute(values)
    db.flush("s")
    assert sorted(db.rows("SELECT temperature FROM v")) == [(15,)]


def test_rights_are_those_of_the_views_below(db: Database) -> None:
    """Who may read an ordinary view may count it, without rights on the stream; its owner's rights are asked for the stream."""
    stream(db)
    db.execute("CREATE ROLE keeper; CREATE ROLE counter; GRANT CREATE ON SCHEMA public TO keeper, counter; GRANT SELECT ON s TO keeper")
    try:
        db.execute("SET ROLE keeper; CREATE VIEW shown AS SELECT site FROM s WHERE temperature > 0; RESET ROLE")
        db.execute("SET ROLE counter")
        assert db.refusal("CREATE VIEW v WITH (streamext.continuous) AS SELECT site, count(*) FROM shown GROUP BY site").startswith("42501")
        db.execute("RESET ROLE; GRANT SELECT ON shown TO counter; SET ROLE counter")
        continuous(db, "v", "SELECT site, count(*) FROM shown GROUP BY site")
        db.execute("RESET ROLE")
        feed(db)
        db.execute("SET ROLE counter")
        db.assert_same("TABLE v", "TABLE v")
        assert db.value("SELECT sum(count) > 0 FROM v")
        db.execute("RESET ROLE; REVOKE SELECT ON s FROM keeper; SET ROLE counter")
        assert db.refusal("TABLE v").startswith("42501")
        db.execute("RESET ROLE")
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views") == "failed", what="failed")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY keeper CASCADE; DROP OWNED BY counter CASCADE; DROP ROLE keeper; DROP ROLE counter")


def test_a_barrier_hides_rows_from_the_query_around_it(db: Database) -> None:
    stream(db)
    db.execute("CREATE VIEW shown WITH (security_barrier) AS SELECT site, temperature FROM s WHERE site <> 'secret'")
    db.execute("""CREATE FUNCTION cheap(site text) RETURNS bool IMMUTABLE LANGUAGE plpgsql COST 0.0001 AS
        $$BEGIN IF site = 'secret' THEN RAISE 'seen'; END IF; RETURN true; END$$""")
    continuous(db, "v", "SELECT site, count(*) FROM shown WHERE cheap(site) GROUP BY site")
    db.execute("INSERT INTO s SELECT 'd', site, now(), 1, 1 FROM unnest(ARRAY['secret', 'a']) AS site")
    db.flush("s")
    assert db.rows("TABLE v") == [("a", 1)]
    assert counts(db, "v") == (2, 0, 0)


def test_semi_joins_see_the_table_as_it_is(db: Database) -> None:
    stream(db)
    db.execute("CREATE TABLE allowed (site text)")
    continuous(db, "v", "SELECT site, count(*) FROM s WHERE site IN (SELECT site FROM allowed) GROUP BY site")
    for sites in (["a"], ["a", "b"]):
        db.execute("TRUNCATE allowed")
        db.execute("INSERT INTO allowed SELECT unnest(%s::text[])", sites)
        db.execute("INSERT INTO s SELECT 'd', site, now(), 1, 1 FROM unnest(ARRAY['a', 'b']) AS site")
        db.flush("s")
    assert sorted(db.rows("TABLE v")) == [("a", 2), ("b", 1)]


def test_views_that_come_from_each_other(db: Database) -> None:
    """PostgreSQL lets them be made and refuses to read them; a worker must not go round in them."""
    stream(db)
    db.execute("CREATE VIEW a AS SELECT site FROM s; CREATE VIEW b AS SELECT site FROM a")
    continuous(db, "v", "SELECT site, count(*) FROM b GROUP BY site")
    continuous(db, "w", "SELECT count(*) FROM s")
    db.execute("CREATE OR REPLACE VIEW a AS SELECT site FROM b")
    feed(db)
    assert db.value("TABLE w") == 2010
    assert "42" in db.refusal("CREATE VIEW x WITH (streamext.continuous) AS SELECT site, count(*) FROM b GROUP BY site")[:2]


DERIVED = "SELECT device, ts, temperature + 273.15 AS kelvin, upper(site) AS site FROM {s} WHERE humidity > 20"


def test_a_derived_stream(db: Database) -> None:
    """It shows its rows, and others read it as they read a stream; a row that raises is rejected for it alone, and is not shown."""
    local_stream(db, "event_time 'ts', watermark_delay '1 h', max_ahead '1 h', buffer_size '5000'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    continuous(db, "d", DERIVED.format(s="s"))
    continuous(db, "v", "SELECT site, streamext.tumble('1 min', ts) AS w, count(*), max(kelvin) FROM d GROUP BY site, w")
    continuous(db, "dd", "SELECT site, 1000 / (kelvin - 273.15)::int AS inverse FROM d WHERE kelvin < 300")
    continuous(db, "vv", "SELECT inverse, count(*) FROM dd GROUP BY inverse")
    feed(db)
    db.execute("CREATE VIEW od AS " + DERIVED.format(s="o"))
    db.execute("CREATE VIEW odd AS SELECT site, 1000 / (kelvin - 273.15)::int AS inverse FROM od WHERE kelvin < 300 AND (kelvin - 273.15)::int <> 0")
    db.assert_same("TABLE d", "TABLE od")
    db.assert_same("SELECT site, max(kelvin) FROM d GROUP BY site", "SELECT site, max(kelvin) FROM od GROUP BY site")
    db.assert_same("TABLE v", "SELECT site, streamext.tumble('1 min', ts) AS w, count(*), max(kelvin) FROM od GROUP BY site, w")
    db.assert_same("TABLE dd", "TABLE odd")
    db.assert_same("TABLE vv", "SELECT inverse, count(*) FROM odd GROUP BY inverse")
    db.assert_same("SELECT a.site, b.site FROM d a JOIN dd b USING (site)", "SELECT a.site, b.site FROM od a JOIN odd b USING (site)")
    assert counts(db, "d") == (2010, 0, 0)
    zeros = db.value("SELECT count(*) FROM od WHERE kelvin < 300 AND (kelvin - 273.15)::int = 0")
    assert counts(db, "dd") == (2010 - zeros, 0, zeros) == counts(db, "vv")
    assert db.value("SELECT count(*) FROM streamext.dead_letters WHERE reason LIKE '%division by zero%'") == 2 * zeros
    assert "DerivedStream" in str(db.rows("EXPLAIN SELECT * FROM d WHERE site = 'x'"))


def test_a_derived_stream_explodes(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h', max_ahead '1 h', buffer_size '5000'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    query = "SELECT ts, unnest(string_to_array(device, '-')) AS part FROM {s} WHERE humidity > 20"
    continuous(db, "d", query.format(s="s"))
    continuous(db, "v", "SELECT part, streamext.tumble('1 min', ts) AS w, count(*) FROM d GROUP BY part, w")
    feed(db)
    db.execute("CREATE VIEW od AS " + query.format(s="o"))
    db.assert_same("TABLE v", "SELECT part, streamext.tumble('1 min', ts) AS w, count(*) FROM od GROUP BY part, w")
    db.assert_same("TABLE d", "TABLE od")
    assert counts(db, "d") == (2010, 0, 0)


def test_a_long_sliding_window_takes_a_coarser_step(db: Database) -> None:
    stream(db)
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    continuous(db, "v", "SELECT site, count(*), max(ts) FROM s WHERE ts > now() - interval '7 days' GROUP BY site")
    continuous(db, "w", "SELECT site, count(*) FROM s WHERE ts > now() - interval '2 hours' GROUP BY site")
    assert notices == ["the window slides in steps of 00:02:00"]
    db.execute("SELECT streamext.set_clock(%s)", NOW)
    try:
        feed(db)
        db.assert_same("TABLE v", f"SELECT site, count(*), max(ts) FROM o WHERE ts > timestamptz '{NOW}' - interval '7 days' GROUP BY site")
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")


def test_a_derived_stream_keeps_its_last_rows(db: Database) -> None:
    local_stream(db, "event_time 'ts', buffer_size '10'")
    db.execute("CREATE TABLE names (device text, name text)")
    db.execute("INSERT INTO names VALUES ('7', 'seven'), ('8', 'eight'), ('8', 'acht')")
    continuous(db, "d", "SELECT device::int AS n, repeat(device, 3) AS t FROM s WHERE device::int % 2 = 0")
    continuous(db, "j", "SELECT device::int AS n, name FROM s LEFT JOIN names USING (device)")
    for i in range(3):
        db.execute("INSERT INTO s SELECT (%s + i)::text, 'a', now(), 1, 1 FROM generate_series(0, 19) AS i", 20 * i)
        db.flush("s")
        assert db.rows("TABLE d") == [(n, f"{n}" * 3) for n in range(20 * i + 19 - 19, 20 * i + 20) if n % 2 == 0]
    db.execute("UPDATE names SET name = 'later'")
    db.execute("INSERT INTO s SELECT i::text, 'a', now(), 1, 1 FROM generate_series(7, 8) AS i")
    db.flush("s")
    assert sorted(db.rows("SELECT * FROM j WHERE name IS NOT NULL")) == [(7, "later"), (8, "later"), (8, "later")]
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    worker_pid(db, besides=pid)
    assert len(db.rows("TABLE d")) == 10
    db.execute("CREATE OR REPLACE VIEW d WITH (streamext.continuous) AS SELECT device::int AS n, 'x' AS t FROM s WHERE device::int = 8")
    db.execute("INSERT INTO s VALUES ('8', 'a', now(), 1, 1)")
    db.flush("s")
    assert set(db.rows("TABLE d")) == {(8, "x")}


def test_a_derived_stream_of_other_settings_is_not_read(db: Database) -> None:
    stream(db)
    continuous(db, "d", "SELECT site, ts::text AS t FROM s")
    db.execute("SET timezone = 'Asia/Tokyo'")
    assert "under other settings" in db.refusal("CREATE VIEW v WITH (streamext.continuous) AS SELECT t, count(*) FROM d GROUP BY t")


def test_a_derived_stream_is_replaced_below_others(db: Database) -> None:
    stream(db)
    continuous(db, "d", "SELECT temperature FROM s WHERE temperature > 10")
    continuous(db, "v", "SELECT temperature, count(*) FROM d GROUP BY temperature")
    db.execute("CREATE OR REPLACE VIEW d WITH (streamext.continuous) AS SELECT temperature FROM s WHERE temperature < 12")
    db.execute("INSERT INTO s SELECT 'd', 'a', now(), temperature, 1 FROM unnest(ARRAY[5, 11, 15]) AS temperature")
    db.flush("s")
    assert sorted(db.rows("SELECT temperature FROM v")) == [(5,), (11,)]
    assert "depend" in db.refusal("DROP VIEW d")


def test_a_derived_stream_into_a_table(db: Database) -> None:
    stream(db)
    db.execute("CREATE TABLE t (site text, kelvin float8)")
    continuous(db, "d", "SELECT site, temperature + 273.15 AS kelvin FROM s")
    db.execute("CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT * FROM d WHERE kelvin > 280")
    feed(db)
    db.assert_same("TABLE t", "SELECT site, temperature + 273.15 FROM o WHERE temperature + 273.15 > 280")
