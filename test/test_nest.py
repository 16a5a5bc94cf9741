"""Queries in FROM and WITH that group by a window: each becomes a continuous view, whose closed windows are read, against PostgreSQL's own nested query."""

import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from harness.database import Database
from harness.streams import continuous
from harness.wait import wait_for
from test_chains import BEGIN, SETTINGS, TIMEZONE, close_all, feed, stream  # noqa: F401  (SETTINGS are the server's)
from test_dump import dump

PEAKS = "SELECT streamext.tumble('1 min', ts) AS w, k, max(x) AS peak, count(*) AS n FROM {s} GROUP BY 1, 2"
HOURS = f"SELECT date_trunc('hour', w) AS h, avg(peak) AS mean, sum(n) AS n FROM ({PEAKS}) x GROUP BY 1"

# {s}: the stream, or the table with the same rows.
QUERIES = {
    "hours": HOURS,
    "no window above": f"SELECT k, avg(peak), count(*) FROM ({PEAKS}) x WHERE n > 1 GROUP BY k HAVING count(*) > 2",
    "unshown window": "SELECT k, avg(peak) FROM (SELECT k, max(x) FROM {s} GROUP BY k, date_trunc('minute', ts)) q(k, peak) GROUP BY k",
    "with": f"WITH q AS ({PEAKS}), few AS (SELECT * FROM q WHERE k < 3) SELECT date_bin('30 min', w, '2024-01-01 00:00+00') AS h, max(n) FROM few GROUP BY h",
    "distinct": "SELECT date_trunc('hour', w) AS h, count(*) FROM (SELECT DISTINCT k, streamext.tumble('1 min', ts) AS w FROM {s}) q GROUP BY h",
    "with distinct": "WITH q AS (SELECT DISTINCT streamext.tumble('1 min', ts) AS w, x FROM (SELECT * FROM {s} WHERE k <> 2) a) SELECT x, count(*) FROM q GROUP BY x",
    "depth 3": f"SELECT date_trunc('day', h) AS d, max(mean), sum(n) FROM ({HOURS}) y GROUP BY 1",
    "depth 4": f"SELECT max(m), sum(n) FROM (SELECT date_trunc('day', h) AS d, max(mean) AS m, sum(n) AS n FROM ({HOURS}) y GROUP BY 1) z",
    "columns of one name": "SELECT date_trunc('hour', w), max(x) FROM (SELECT streamext.tumble('1 min', ts) AS w, count(*), count(x), max(x) AS x FROM {s} GROUP BY w) q GROUP BY 1",
    "names": "SELECT a, sum(c) FROM (SELECT k + 1, streamext.tumble('1 min', ts), count(*) FROM {s} GROUP BY 1, 2) AS q(a, b, c) GROUP BY a",
    "joined": f"SELECT l.name, sum(q.n) FROM ({PEAKS}) q JOIN lines l USING (k) GROUP BY l.name",
    "joined below": "SELECT name, max(n) FROM (SELECT l.name, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM {s} AS s JOIN lines l USING (k) GROUP BY 1, 2) q GROUP BY name",
    "sorted": "SELECT k, sum(n) FROM (SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM {s} GROUP BY 1, 2 ORDER BY max(x), k) q GROUP BY k ORDER BY 2",
    "hop": "SELECT k, max(n) FROM (SELECT k, streamext.hop('4 min', '2 min', ts) AS w, count(*) AS n FROM {s} GROUP BY k, w) q GROUP BY k",
    "session": "SELECT k, count(*), max(n) FROM (SELECT k, streamext.session('1 min', ts) AS w, count(*) AS n FROM {s} GROUP BY k, w) q GROUP BY k",
    "rows": f"SELECT h, n FROM ({HOURS}) q WHERE n > 10",
    "odd names": 'SELECT "A b" AS "Ä", count(*) FROM (SELECT k AS "A b", streamext.tumble(\'1 min\', ts) FROM {s} GROUP BY 1, 2) "x y" GROUP BY 1',
    "joined with itself": "SELECT count(*), sum(q.n) FROM (SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM {s} GROUP BY w HAVING count(*) > 5) q, LATERAL generate_series(1, q.n % 3) AS g",
    "union below": "SELECT date_trunc('hour', w), max(n) FROM (SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM (SELECT ts FROM {s} UNION ALL SELECT ts FROM {s}) u GROUP BY w) q GROUP BY 1",
    "subquery beside": f"SELECT k, sum(n), (SELECT min(name) FROM lines) AS first FROM ({PEAKS}) x WHERE k IN (SELECT k FROM lines) GROUP BY k",
}  # fmt: skip


def tables(db: Database) -> None:
    stream(db)
    db.execute("CREATE TABLE lines (k int, name text)")
    db.execute("INSERT INTO lines VALUES (0, 'a'), (1, 'b'), (2, 'b'), (3, 'c')")


def views(db: Database) -> list[str]:
    return [name for (name,) in db.rows("SELECT view::text FROM streamext.continuous_views ORDER BY 1")]


def options(db: Database, view: str) -> dict[str, str]:
    return dict(option.split("=", 1) for (option,) in db.rows("SELECT unnest(options) FROM streamext.continuous_views WHERE view = %s::regclass", view))


def test_every_shape(database: Database) -> None:
    db = database
    tables(db)
    db.execute("SET client_min_messages = warning")
    # PostgreSQL has no sessions.
    by_hand = "SELECT k, streamext.session('1 min', ts) AS w, count(*) AS n FROM s GROUP BY k, w"
    continuous(db, "sessions", by_hand)
    continuous(db, "of_sessions", "SELECT k, count(*), max(n) FROM sessions GROUP BY k")
    for name, query in QUERIES.items():
        continuous(db, f'"{name}"', query.format(s="s"))
    feed(db)
    for name, query in QUERIES.items():
        expected = "TABLE of_sessions" if name == "session" else query.format(s="o")
        db.assert_same(f'TABLE "{name}"', expected)
        assert db.value(f'SELECT count(*) FROM "{name}"') > 0, name
    assert db.rows("SELECT DISTINCT late, rejected FROM streamext.continuous_views WHERE view NOT IN ('sessions'::regclass)") == [(0, 0)]


def test_what_is_told_of_an_outer_view_without_a_window(database: Database) -> None:
    db = database
    stream(db)
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(f"{notice.message_primary} {notice.message_hint}"))
    counts = "(SELECT k, streamext.tumble('1 min', ts) AS w, max(ts) AS newest, count(*) AS n FROM s GROUP BY k, w) q"
    # the inner view has windows that retention ends
    continuous(db, "of_key", f"SELECT k, max(n) FROM {counts} GROUP BY k", ", streamext.retention = '1 day', streamext.lateness = '1 s'")
    assert len(notices) == 1 and "became" in notices.pop(), notices
    continuous(db, "of_time", f"SELECT w, max(n) FROM {counts} GROUP BY w")
    assert 'key "w" goes on' in notices[0] and "streamext.tumble(size, w)" in notices[0] and "became" in notices[1], notices
    notices.clear()
    continuous(db, "of_another", f"SELECT date_trunc('hour', newest) AS hour, max(n) FROM {counts} GROUP BY hour")
    assert 'of column "newest"' in notices[0] and 'Windows are of column "w"' in notices[0] and "became" in notices[1], notices
    notices.clear()
    continuous(db, "of_windows", f"SELECT streamext.tumble('1 min', w) AS w1, max(n) AS n FROM {counts} GROUP BY w1")
    assert len(notices) == 1 and "became" in notices[0], notices
    continuous(db, "over_it", "SELECT max(n) FROM of_windows")
    # DISTINCT groups, and what goes into a table is in no view
    db.execute("CREATE TABLE kept (k int, n bigint)")
    for choice, into, newest in ("", "", True), ("DISTINCT ", "", False), ("", ", streamext.into = 'kept'", False):
        notices.clear()
        continuous(db, "of_rows", f"SELECT {choice}k, n FROM {counts}", into)
        db.execute("DROP VIEW of_rows")
        assert ["shows its newest rows" in notice for notice in notices] == [newest], notices


def test_the_inner_view_lives_with_the_outer_one(database: Database) -> None:
    db = database
    stream(db)
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(f"{notice.message_primary} {notice.message_detail}"))
    continuous(db, "h", QUERIES["depth 3"].format(s="s"))
    assert notices == [f'a query in FROM became continuous view "{name}" Its closed windows are read in the query\'s place. It is dropped with view "h".' for name in ("h_inner", "h_inner1")]
    assert views(db) == ["h", "h_inner", "h_inner1"]
    for behaviour in "", " CASCADE":
        refusal = db.refusal(f"DROP VIEW h_inner{behaviour}")
        assert "view h_inner1 requires it" in refusal, refusal
        refusal = db.refusal(f"DROP VIEW h_inner1{behaviour}")
        assert "view h requires it" in refusal and "You can drop view h instead" in refusal, refusal
    feed(db, minutes=60, count=500)
    db.execute("ALTER VIEW h RENAME TO g")
    db.assert_same("TABLE g", QUERIES["depth 3"].format(s="o"))
    # who reads the inner one as well holds it
    continuous(db, "other", "SELECT k, sum(n) AS n FROM h_inner GROUP BY k")
    assert "view other depends on view h_inner" in db.refusal("DROP VIEW g")
    db.execute("DROP VIEW g CASCADE")
    assert views(db) == []
    continuous(db, "h", HOURS.format(s="s"))
    db.execute("DROP FOREIGN TABLE s CASCADE")
    assert db.value("SELECT count(*) FROM pg_class WHERE relname IN ('h', 'h_inner')") == 0


def test_replaced(database: Database) -> None:
    db = database
    stream(db)
    query = QUERIES["depth 3"]
    continuous(db, "h", query.format(s="s"), ", streamext.lateness = '1 s', streamext.max_groups = 100000")
    assert [options(db, view) for view in views(db)] == [
        {"streamext.max_groups": "100000"}, {"streamext.max_groups": "100000", "streamext.lateness": "1 s"}, {"streamext.max_groups": "100000"}]  # fmt: skip
    oids = db.rows("SELECT 'h_inner'::regclass::oid::int, 'h_inner1'::regclass::oid::int")
    feed(db, minutes=60, count=500)
    # as it was
    db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}")
    assert oids == db.rows("SELECT 'h_inner'::regclass::oid::int, 'h_inner1'::regclass::oid::int")
    db.flush("s")
    db.assert_same("TABLE h", query.format(s="o"))
    # what is between is another one of the same columns, then the innermost is: they go on where they stand
    for old, new in ("sum(n) AS n FROM (", "sum(n) + 1 AS n FROM ("), ("max(x)", "min(x)"):
        query = query.replace(old, new)
        db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}")
        assert oids == db.rows("SELECT 'h_inner'::regclass::oid::int, 'h_inner1'::regclass::oid::int")
        db.flush("s")
        db.assert_same("TABLE h", query.format(s="o"))
    # another one of other columns; it takes the lateness
    assert options(db, "h_inner") == {"streamext.max_groups": "100000", "streamext.lateness": "1 s"}
    query = query.replace("count(*) AS n", "count(*)::int AS n")
    db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}")
    assert views(db) == ["h", "h_inner2", "h_inner3"]
    assert options(db, "h_inner2") == {"streamext.max_groups": "100000", "streamext.lateness": "1 s"}
    # none inside any more, and as an ordinary view
    close_all(db, 20)
    flat = "SELECT date_trunc('day', ts) AS d, avg(x)::numeric AS max, count(*)::numeric AS sum FROM {s} GROUP BY 1"
    db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {flat.format(s='s')}")
    assert views(db) == ["h"] and options(db, "h")["streamext.lateness"] == "1 s"
    db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}")
    assert views(db) == ["h", "h_inner", "h_inner1"] and "streamext.lateness" not in options(db, "h")
    db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous = false) AS {query.format(s='o')}")
    assert views(db) == []
    # what is there is by its own name as good as any
    continuous(db, "g", HOURS.format(s="s"))
    db.execute("CREATE OR REPLACE VIEW g WITH (streamext.continuous) AS SELECT date_trunc('hour', w) AS h, avg(peak) AS mean, sum(n) AS n FROM g_inner WHERE k > 0 GROUP BY 1")
    assert views(db) == ["g", "g_inner"]
    db.execute("CREATE OR REPLACE VIEW g_inner WITH (streamext.continuous) AS " + PEAKS.format(s="s") + " HAVING max(x) > 0")
    db.execute("DROP VIEW g")
    assert views(db) == []


ALIKE = (
    "SELECT streamext.tumble('1 min', ts) AS w, k, count(*) AS n FROM {s} WHERE k > @ GROUP BY 1, 2",
    "SELECT streamext.tumble('10 min', w) AS w, k, sum(n)::bigint AS n FROM ({}) a GROUP BY 1, 2",
    "SELECT streamext.tumble('30 min', w) AS w, k, max(n) AS n FROM ({}) b GROUP BY 1, 2",
)


def alike(depth: int, above: int) -> str:
    query = ALIKE[0].replace("@", str(above))
    for outer in ALIKE[1:depth]:
        query = outer.replace("{}", query)
    return f"SELECT k, count(*) AS c, max(n) AS n FROM ({query}) q GROUP BY k"


def test_replaced_where_levels_look_alike(database: Database) -> None:
    """What has the columns of another level is not taken for it; what one level has left goes, and is not looked at any more."""
    db = database
    stream(db)
    continuous(db, "h", alike(2, 0).format(s="s"))
    feed(db, minutes=60, count=400)
    for depth, above in (2, 1), (3, 2), (2, 0), (3, 0):
        query = alike(depth, above)
        db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}")
        assert views(db) == ["h", "h_inner", "h_inner1", "h_inner2"][: depth + 1]
        db.flush("s")
        close_all(db, 20 + depth + above)
        db.assert_same("SELECT * FROM h WHERE k <> 99", query.format(s="o"))
    query = alike(3, 0).replace("AS n FROM {s}", "AS n, 1 AS one FROM {s}")
    db.execute(f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}")
    assert views(db) == ["h", "h_inner", "h_inner1", "h_inner3"] or views(db) == ["h", "h_inner1", "h_inner2", "h_inner3"]


def test_replaced_by_two_at_once(database: Database) -> None:
    """Who comes second waits for the view itself, so that both see the same inner views."""
    db = database
    stream(db)
    other = HOURS.replace("max(x) AS peak", "1 AS one, max(x) AS peak")
    statements = [f"CREATE OR REPLACE VIEW h WITH (streamext.continuous) AS {query.format(s='s')}" for query in (HOURS, HOURS.replace("max(x)", "min(x)"), other)]
    db.execute(statements[0])
    sessions = [db.connect(), db.connect()]
    with ThreadPoolExecutor(2) as pool:
        with db.connection.transaction():
            db.execute("SELECT * FROM h_inner LIMIT 0")
            done = []
            for session, statement in zip(sessions, statements[1:]):
                done.append(pool.submit(session.execute, statement))
                pid = session.info.backend_pid
                wait_for(lambda pid=pid: db.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", pid), what="wait for the lock")
        for replaced in done:
            replaced.result()
    for session in sessions:
        session.close()
    assert len(views(db)) == 2
    feed(db)
    db.assert_same("TABLE h", other.format(s="o"))


def test_the_text_means_the_same(database: Database) -> None:
    """The query is a text on its way: no value is rounded or in another time zone in it, no name cut within a character."""
    db = database
    stream(db)
    db.execute("SET timezone = 'Asia/Kolkata'; SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = 0")
    noon = "timestamptz '2024-05-01 12:00+05:30'"
    name = "日本語の列の名前がとても長いのですよ日本"
    continuous(db, "h", f"""SELECT date_bin('30 min', w, {noon}) AS at, max(f) FROM (SELECT streamext.tumble('1 min', ts) AS w, sum(x) AS "{name}", max(x) AS "{name}",
        max(x * float8 '0.30000000000000004') FILTER (WHERE ts > {noon}) AS f, max(interval '-1 day 2 hours') AS i FROM s GROUP BY w) q GROUP BY at""")  # fmt: skip
    db.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1")
    texts = [db.value("SELECT pg_get_viewdef(%s::regclass)", view) for view in ("h", "h_inner")]
    assert all("2024-05-01 06:30:00+00" in text for text in texts), texts
    assert "0.30000000000000004" in texts[1] and "-1 days -02:00:00" in texts[1] and f'"{name}"' in texts[1]


def test_options(database: Database) -> None:
    db = database
    stream(db)
    continuous(db, "h", HOURS.format(s="s"), ", streamext.retention = '1 day', streamext.keep_late")
    assert options(db, "h") == {"streamext.retention": "1 day"}
    assert options(db, "h_inner") == {"streamext.retention": str(86400 + 86400 + 3600 + 1) + " s", "streamext.keep_late": "true"}
    db.execute("ALTER VIEW h SET (streamext.lateness = '5 s', streamext.max_groups = 9, streamext.notify)")
    assert options(db, "h") == {"streamext.retention": "1 day", "streamext.max_groups": "9", "streamext.notify": "true"}
    assert options(db, "h_inner") | {"streamext.retention": ""} == {"streamext.retention": "", "streamext.keep_late": "true", "streamext.lateness": "5 s", "streamext.max_groups": "9"}
    db.execute("ALTER VIEW h RESET (streamext.lateness, streamext.retention, streamext.keep_late, streamext.max_groups, streamext.notify)")
    assert options(db, "h") == options(db, "h_inner") == {}
    assert db.refusal("ALTER VIEW h SET (streamext.lateness = 'soon')").startswith("22007")
    assert db.refusal(f"CREATE VIEW g WITH (streamext.continuous, streamext.lateness = 'soon') AS {HOURS.format(s='s')}").startswith("22007")
    db.execute("SET timezone = 'Asia/Kolkata'")
    continuous(db, "zoned", HOURS.format(s="s"), ", streamext.timezone = 'Asia/Tokyo'")
    assert db.rows("SELECT timezone FROM streamext.continuous_views WHERE view::text ~ 'zoned'") == [("Asia/Tokyo",)] * 2
    # a target of the outer one, whose windows are closed when the inner ones are
    db.execute("CREATE TABLE t (h timestamptz, mean numeric, n numeric)")
    continuous(db, "written", HOURS.format(s="s"), ", streamext.into = 't', streamext.lateness = '2 s'")
    feed(db)
    db.execute("SET timezone = 'UTC'")
    assert db.value("SELECT count(*) FROM t") > 0
    db.assert_same("TABLE t", "TABLE written")


def test_owners_and_schemas(database: Database) -> None:
    db = database
    stream(db)
    db.execute("CREATE ROLE nest_maker; CREATE ROLE nest_other; CREATE ROLE nest_reader; CREATE SCHEMA a; CREATE SCHEMA b")
    db.execute("GRANT CREATE, USAGE ON SCHEMA a, b TO nest_maker, nest_other; GRANT USAGE ON SCHEMA a, b TO nest_reader; GRANT SELECT ON s TO nest_maker")

    def owners() -> list[tuple[str, str]]:
        return db.rows("SELECT relnamespace::regnamespace::text || '.' || relname, relowner::regrole::text FROM pg_class WHERE relname ~ '^(h|h_inner.*|hook|hers)$' ORDER BY 1")

    db.execute("SET ROLE nest_maker")
    db.execute(f"CREATE VIEW a.h WITH (streamext.continuous) AS {HOURS.format(s='s')}; GRANT SELECT ON a.h TO nest_reader")
    assert owners() == [("a.h", "nest_maker"), ("a.h_inner", "nest_maker")]
    db.execute("RESET ROLE")
    feed(db)
    db.execute("SET ROLE nest_reader")
    db.assert_same("TABLE a.h", "TABLE a.h")
    assert db.value("SELECT count(*) FROM a.h") > 2
    assert db.refusal("TABLE a.h_inner").startswith("42501")
    db.execute("SET ROLE nest_other")
    assert db.refusal(f"CREATE VIEW a.g WITH (streamext.continuous) AS {HOURS.format(s='s')}").startswith("42501")
    assert db.refusal("DROP VIEW a.h").startswith("42501")
    db.execute("RESET ROLE")
    db.execute("ALTER VIEW a.h SET SCHEMA b")
    assert owners() == [("b.h", "nest_maker"), ("b.h_inner", "nest_maker")]
    # replaced by a superuser it stays the owner's, and its inner views are
    db.execute(f"CREATE OR REPLACE VIEW b.h WITH (streamext.continuous) AS {HOURS.replace('max(x)', 'min(x)').format(s='s')}")
    assert owners() == [("b.h", "nest_maker"), ("b.h_inner", "nest_maker")]
    db.flush("s")
    db.assert_same("TABLE b.h", HOURS.replace("max(x)", "min(x)").format(s="o"))
    db.execute("GRANT SELECT ON s TO nest_other; ALTER VIEW b.h OWNER TO nest_other")
    assert owners() == [("b.h", "nest_other"), ("b.h_inner", "nest_other")]
    # whoever marks a view as one that lives with its reader gives it to nobody, and takes nothing of theirs along
    db.execute("SET ROLE nest_maker")
    db.execute(f"CREATE VIEW a.hook WITH (streamext.continuous, streamext.inner) AS {PEAKS.format(s='s')}; GRANT SELECT ON a.hook TO nest_other")
    db.execute("SET ROLE nest_other")
    continuous(db, "b.hers", "SELECT count(*) FROM a.hook")
    db.execute("SET ROLE nest_maker")
    assert "view b.hers depends on view a.hook" in db.refusal("DROP VIEW a.hook")
    db.execute("RESET ROLE")
    db.execute("DROP VIEW b.hers")
    continuous(db, "b.hers", "SELECT count(*) FROM a.hook")
    db.execute("SET ROLE nest_maker")
    assert "view b.hers depends on view a.hook" in db.refusal("DROP VIEW a.hook")
    db.execute("RESET ROLE; DROP VIEW b.hers")
    assert ("a.hook", "nest_maker") in owners()
    continuous(db, "b.hers", "SELECT count(*) FROM a.hook")
    db.execute("ALTER VIEW b.hers OWNER TO nest_other")
    assert ("a.hook", "nest_maker") in owners()
    db.execute("REASSIGN OWNED BY nest_other TO nest_maker; DROP OWNED BY nest_maker, nest_other CASCADE")
    assert owners() == []


def test_dump_and_restore(database: Database) -> None:
    db = database
    stream(db)
    db.execute("CREATE ROLE nest_keeper; GRANT SELECT ON s TO nest_keeper; GRANT CREATE ON SCHEMA public TO nest_keeper; SET ROLE nest_keeper")
    continuous(db, "h", QUERIES["depth 3"].format(s="s"), ", streamext.lateness = '1 s', streamext.retention = '60 days'")
    db.execute("RESET ROLE")
    script = dump(db)
    name = f"{db.name}_restored"
    db.server.psql(f"CREATE DATABASE {name}")
    try:
        db.server.psql(script, name)
        copy = Database(db.server, name)
        assert dump(copy) == script
        assert "view h requires it" in copy.refusal("DROP VIEW h_inner1")
        insert_query = "INSERT INTO s SELECT i % 3, i, timestamptz '2024-05-01 12:00+00' + i * interval '7 s' FROM generate_series(1, 2000) AS i"
        for of in copy, db:
            of.execute(insert_query)
            close_all(of)
        db.assert_same("TABLE h", "TABLE h")
        assert copy.rows("TABLE h") == db.rows("TABLE h") != []
        copy.execute("DROP VIEW h")
        assert views(copy) == []
        copy.connection.close()
    finally:
        db.execute("DROP VIEW h")
        db.server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_hint_names_no_view_that_is_gone_with_the_statement(database: Database) -> None:
    """What was made of the innermost query is undone where the one around it is refused."""
    db = database
    stream(db)
    minutes = f"WITH a AS ({PEAKS.format(s='s')}), b AS (SELECT a.k, max(n) AS n FROM a GROUP BY a.k), c AS (SELECT date_trunc('hour', w) AS h, k, sum(n) AS n FROM a GROUP BY 1, 2)"
    for outer in "SELECT avg(n) FROM b", "SELECT sum(q.n) FROM (SELECT k, max(n) AS n FROM c GROUP BY k) q":
        refusal = db.refusal(f"CREATE VIEW h WITH (streamext.continuous) AS {minutes} {outer}")
        made = re.search(r"CREATE VIEW inner_view WITH [^;]*", refusal)
        assert made and "public.h_inner" not in refusal, refusal
        db.execute(made[0])
        db.execute("CREATE VIEW w AS SELECT avg(n) FROM inner_view b")
        db.execute("DROP VIEW w, inner_view")
        assert views(db) == []


REFUSED = {
    "SELECT max(n) FROM (SELECT k, count(*) AS n FROM s GROUP BY k) q": "without a window nothing of it is ever final",
    "SELECT max(n) FROM (SELECT k, count(*) AS n FROM s WHERE ts > now() - interval '1 min' GROUP BY k) q": "an ordinary view",
    f"SELECT max(n) FROM ({PEAKS.format(s='s')} LIMIT 5) q": "LIMIT",
    f"SELECT max(n) FROM (SELECT n FROM ({PEAKS.format(s='s')}) a UNION ALL SELECT n FROM ({PEAKS.format(s='s')}) b) q": "",
    f"WITH q AS ({PEAKS.format(s='s')}) SELECT max(a.n) FROM q a JOIN q b USING (k)": "",
    f"SELECT max(n) FROM ({PEAKS.format(s='s')}) q JOIN s USING (k)": "",
    "SELECT max(x) FROM (SELECT DISTINCT ON (k) k, x, ts FROM s ORDER BY k, ts) q": "streamext.first",
    f"SELECT max(r) FROM (SELECT row_number() OVER () AS r FROM ({PEAKS.format(s='s')}) a) q": "without them",
    f"SELECT max(t) FROM (SELECT streamext.tumble('1 min', ts) AS w, now() - max(ts) AS t FROM s GROUP BY w) q": "",
}  # fmt: skip


def test_refused_leaves_nothing(database: Database) -> None:
    db = database
    stream(db)
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    for query, hint in REFUSED.items():
        refusal = db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
        assert refusal.startswith("0A000") and "HINT" in refusal and hint in refusal, (query, refusal)
        print(refusal)
    refusal = db.refusal(f"CREATE VIEW v WITH (streamext.continuous, security_invoker) AS {HOURS.format(s='s')}")
    assert refusal.startswith("0A000") and "of its own" in refusal
    refusal = db.refusal(f"CREATE TEMP VIEW v WITH (streamext.continuous) AS {HOURS.format(s='s')}")
    assert "cannot be temporary" in refusal
    refusal = db.refusal(f"CREATE VIEW v WITH (streamext.continuous) AS {HOURS.format(s='s').replace('avg(peak)', 'avg(peek)')}")
    assert refusal.startswith("42703") and "LINE 1" in refusal and "peek" in refusal
    assert views(db) == []
    assert [notice for notice in notices if "became" in notice] == []  # the outer one is refused after its inner ones were made
    continuous(db, "v", HOURS.format(s="s"))
    for alter in "ALTER VIEW v SET (security_invoker)", "ALTER TABLE v SET (streamext.max_groups = 5, security_invoker = on)":
        refusal = db.refusal(alter)
        assert refusal.startswith("0A000") and "security_invoker" in refusal and "of your own" in refusal
    db.execute("ALTER VIEW v SET (security_invoker = off); DROP VIEW v")
    with pytest.raises(psycopg.errors.RaiseException), db.connection.transaction():
        continuous(db, "v", HOURS.format(s="s"))
        db.execute("DO 'BEGIN RAISE ''no''; END'")
    assert db.value("SELECT count(*) FROM pg_class WHERE relname IN ('v', 'v_inner')") == 0


def test_what_another_worker_deletes_is_left_to_it(database: Database) -> None:
    """Workers of a chain start at once, and each forgets what is dropped: none waits for another one's rows."""
    db = database
    stream(db)
    continuous(db, "kept", PEAKS.format(s="s"))
    continuous(db, "gone", PEAKS.format(s="s"))
    feed(db, minutes=5, count=50)
    log = db.server.log_file.stat().st_size
    with db.connect() as other, other.transaction():
        other.execute("SELECT * FROM streamext_internal.content FOR UPDATE")
        db.execute("DROP VIEW gone")
        continuous(db, "more", PEAKS.format(s="s"))
        close_all(db, 20)
        assert "lock timeout" not in db.server.log(log)
    other.close()
    close_all(db, 30)


def test_views_that_would_live_with_each_other(database: Database) -> None:
    """One that is named in an expression and not read any more lives with the other still: looking for what lives with it ended the server."""
    db = database
    stream(db)
    shape = "SELECT k, streamext.tumble('1 min', {}) AS w, max(x) AS x FROM {} GROUP BY 1, 2"
    continuous(db, "b", shape.format("ts", "s"), ", streamext.inner")
    continuous(db, "a", shape.format("w", "b"), ", streamext.inner")
    replace = "CREATE OR REPLACE VIEW {} WITH (streamext.continuous, streamext.inner) AS {}"
    db.execute(replace.format("a", shape.format("ts", "s WHERE (NULL::b).x IS NULL")))
    db.execute(replace.format("b", shape.format("w", "a")))
    db.execute(replace.format("b", shape.format("ts", "s")))
    assert views(db) == ["a", "b"]
    db.execute("DROP VIEW a CASCADE")
    assert views(db) == []
