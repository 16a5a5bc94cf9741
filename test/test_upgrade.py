"""Version 1.0's SQL objects below the library of 1.1, the update, and restoring into a database that has the extension."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, error_of, local_stream
from harness.wait import wait_for

COLUMNS = "k text, ts timestamptz, x int NOT NULL"
VIEWS = {
    "v": "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) AS total FROM {} GROUP BY 1, 2",
    "total": "SELECT count(*) AS n, array_agg(x ORDER BY x) AS a FROM {}",
}


@pytest.fixture
def old(pg: Postgres) -> Iterator[Database]:
    """A database with the objects of 1.0."""
    pg.psql("CREATE DATABASE old")
    pg.psql("CREATE EXTENSION streamext VERSION '1.0'", "old")
    db = Database(pg, "old")
    yield db
    db.connection.close()
    pg.psql("DROP DATABASE old WITH (FORCE)")


def fill(db: Database, day: int) -> None:
    rows = f"SELECT 'k' || i % 3, timestamptz '2024-01-0{day}' + i * interval '1 s', i % 7 FROM generate_series(1, 200) AS i"
    db.execute(f"INSERT INTO s {rows}; INSERT INTO o {rows}; INSERT INTO s VALUES ('bad', '2024-01-0{day}', NULL)")
    db.flush("s")


def check(db: Database) -> None:
    for name, query in VIEWS.items():
        db.assert_same(f"TABLE {name}", query.format("o"))
    states = db.rows("SELECT state, last_error FROM streamext.streams UNION ALL SELECT state, last_error FROM streamext.continuous_views")
    assert set(states) == {("running", None)}


def use_catalogue(db: Database) -> None:
    for view in "streams", "stream_partitions", "continuous_views", "workers", "dead_letters", "late_rows", "stream_events":
        db.rows(f"TABLE streamext.{view}")
    db.execute("SELECT streamext.pause('s'); SELECT streamext.resume('s'); SELECT streamext.retry_dead_letters('s')")
    db.flush("s")
    db.rows("SELECT * FROM streamext.view_positions('v')")


def update(db: Database) -> None:
    """Once more if a worker's transaction and it have waited for each other, as a DBA would."""
    for _ in range(10):
        try:
            db.execute("ALTER EXTENSION streamext UPDATE")
            return
        except psycopg.errors.DeadlockDetected as error:
            print("deadlock", error)
    raise AssertionError("each time a deadlock")


def test_streams_of_1_0_go_on_before_and_after_the_update(old: Database) -> None:
    db = old
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name, query in VIEWS.items():
        continuous(db, name, query.format("s"))
    fill(db, 1)
    check(db)
    use_catalogue(db)
    db.execute("SELECT streamext.rebuild('v')")
    fill(db, 2)
    check(db)
    db.execute("ALTER EXTENSION streamext UPDATE")
    fill(db, 3)
    check(db)
    use_catalogue(db)
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 3
    assert db.value("SELECT extversion FROM pg_extension WHERE extname = 'streamext'") == "1.1"


def test_the_update_while_workers_write(old: Database) -> None:
    """Rows, dead letters, late rows, windows that are sealed and rows for a table go on through it, each once."""
    db, names, before = old, ("s0", "s1", "s2"), old.server.log_file.stat().st_size
    for name in names:
        local_stream(db, "event_time 'ts'", COLUMNS, name)
        db.execute(f"CREATE TABLE o_{name} ({COLUMNS}); CREATE TABLE written_{name} (x int)")
        for view, query in VIEWS.items():
            continuous(db, f"{view}_{name}", query.format(name), ", streamext.keep_late" if view == "v" else "")
        continuous(db, f"into_{name}", f"SELECT x FROM {name}", f", streamext.into = 'written_{name}'")
    stop = threading.Event()

    def insert(name: str) -> int:
        with db.server.connect("old", autocommit=True) as connection:
            for n in itertools.count():
                if stop.is_set():
                    return n
                values = f"""('k', timestamptz '2024-01-01' + interval '{n} min', {n}), ('k', timestamptz '2024-01-01' + interval '{n} min 1 s', 1)"""
                connection.execute(f"INSERT INTO {name} VALUES {values}, ('bad', now(), NULL), ('late', '2020-01-01', {n})")
                connection.execute(f"INSERT INTO o_{name} VALUES {values}")
        raise AssertionError

    def counted(least: int) -> bool:
        return all(db.value(f"SELECT n FROM total_{name}") >= least for name in names)

    with ThreadPoolExecutor(len(names)) as pool:
        rounds = [pool.submit(insert, name) for name in names]
        try:
            wait_for(lambda: counted(300), what="some of it")
            update(db)
            more = min(db.value(f"SELECT n FROM total_{name}") for name in names) + 300
            wait_for(lambda: counted(more), what="more of it")
        finally:
            stop.set()
    for name, done in zip(names, rounds, strict=True):
        n = done.result()
        db.flush(name)
        db.assert_same(f"SELECT * FROM v_{name} WHERE w > '2023-01-01'", VIEWS["v"].format(f"o_{name}"))
        assert db.value(f"SELECT n FROM total_{name}") == 3 * n
        assert db.value(f"SELECT count(*) FROM written_{name}") == 3 * n
        assert db.rows(f"SELECT count(*), count(DISTINCT position) FROM streamext.dead_letters WHERE stream = '{name}'::regclass") == [(n, n)]
        late = db.value(f"SELECT late FROM streamext.continuous_views WHERE view = 'v_{name}'::regclass")
        assert db.value(f"SELECT count(*) FROM streamext.late_rows WHERE stream = '{name}'::regclass") == late > 0
        assert db.value(f"SELECT coalesce(sum(n), 0) FROM v_{name} WHERE w < '2023-01-01'") == n - late
    assert set(db.rows("SELECT state FROM streamext.streams UNION SELECT state FROM streamext.continuous_views")) == {("running",)}
    assert "does not exist" not in db.server.log(before)


def test_both_ways_to_1_1_make_the_same(old: Database, db: Database) -> None:
    old.execute("ALTER EXTENSION streamext UPDATE")
    listing = r"""SELECT d.type, d.identity, obj_description(p.objid, p.classid::regclass::text), a.acl
        FROM pg_depend AS p, pg_identify_object(p.classid, p.objid, p.objsubid) AS d,
        LATERAL (SELECT coalesce((SELECT array_agg(x::text ORDER BY x::text) FROM pg_proc, unnest(proacl) AS x WHERE oid = p.objid AND p.classid = 'pg_proc'::regclass),
                                 (SELECT array_agg(x::text ORDER BY x::text) FROM pg_class, unnest(relacl) AS x WHERE oid = p.objid AND p.classid = 'pg_class'::regclass)) AS acl) AS a
        WHERE p.deptype = 'e' AND p.refclassid = 'pg_extension'::regclass
        UNION ALL SELECT 'column', attrelid::regclass || '.' || attname || ' ' || attnum, col_description(attrelid, attnum), attacl::text[]
        FROM pg_attribute WHERE attrelid::regclass::text ~ '^streamext(_internal)?\.' AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT 'trigger', pg_get_triggerdef(oid), tgenabled::text, NULL FROM pg_trigger WHERE tgrelid::regclass::text ~ '^streamext(_internal)?\.'
        UNION ALL SELECT 'view', oid::regclass::text, pg_get_viewdef(oid), reloptions FROM pg_class WHERE relkind = 'v' AND oid::regclass::text ~ '^streamext(_internal)?\.'"""
    key = lambda row: repr(row)  # noqa: E731
    assert sorted(old.rows(listing), key=key) == sorted(db.rows(listing), key=key)


def test_somebody_elses_schema_in_the_way(old: Database) -> None:
    """Functions that 1.1 keeps in streamext_internal are not looked for in a schema of this name that is not the extension's."""
    db = old
    db.execute("CREATE ROLE squatter; GRANT CREATE ON DATABASE old TO squatter; SET ROLE squatter; CREATE SCHEMA streamext_internal")
    db.execute("""CREATE FUNCTION streamext_internal.view_rows(oid) RETURNS SETOF record LANGUAGE sql AS 'SELECT ''squatter''::text, 1::bigint';
        CREATE FUNCTION streamext_internal.tumble(interval, timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT $2'; RESET ROLE""")
    try:
        local_stream(db, "event_time 'ts'", COLUMNS)
        db.execute(f"CREATE TABLE o ({COLUMNS})")
        for name, query in VIEWS.items():
            continuous(db, name, query.format("s"))
        fill(db, 1)
        check(db)
        with pytest.raises(psycopg.Error) as error:
            db.execute("ALTER EXTENSION streamext UPDATE")
        assert error_of(error)[0] == "42P06"
        check(db)
        db.execute("DROP SCHEMA streamext_internal CASCADE; ALTER EXTENSION streamext UPDATE")
        fill(db, 2)
        check(db)
        db.execute("DROP EXTENSION streamext CASCADE")
        assert db.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'streamext%'") in ([], [("streamext",)])
    finally:
        db.execute("RESET ROLE; DROP OWNED BY squatter CASCADE; DROP ROLE squatter")


def test_there_is_no_way_back(db: Database) -> None:
    with pytest.raises(psycopg.Error) as error:
        db.execute("ALTER EXTENSION streamext UPDATE TO '1.0'")
    assert error_of(error)[0] == "22023" and "no update path" in error_of(error)[1]


@pytest.mark.parametrize("format", ["plain", "custom"])
def test_a_dump_into_a_database_that_has_the_extension(db: Database, format: str, tmp_path: object) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    for name, query in VIEWS.items():
        continuous(db, name, query.format("s"))
    fill(db, 1)
    file = f"{tmp_path}/dump"
    db.server.run("pg_dump", f"--format={format}", f"--file={file}", db.name)
    for prepare in "CREATE EXTENSION streamext", "":
        db.server.psql("CREATE DATABASE restored")
        db.server.psql(prepare, "restored")
        if format == "plain":
            db.server.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", file)
        else:
            db.server.run("pg_restore", "--exit-on-error", "-d", "restored", file)
        restored = Database(db.server, "restored")
        restored.execute("DELETE FROM o")
        fill(restored, 2)
        check(restored)
        restored.connection.close()
        db.server.psql("DROP DATABASE restored WITH (FORCE)")


def test_flush_in_a_trigger_is_an_error(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(
        """CREATE TABLE big (LIKE s);
        CREATE FUNCTION flush_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM streamext.flush(''public.s''); RETURN NEW; END';
        CREATE TRIGGER t BEFORE INSERT ON big FOR EACH ROW EXECUTE FUNCTION flush_it()"""
    )
    continuous(db, "rows", "SELECT * FROM s", ", streamext.into = 'big'")
    continuous(db, "total", "SELECT count(*) AS n FROM s")
    db.execute("INSERT INTO s VALUES ('a', '2024-01-01', 1)")
    wait_for(lambda: db.value("SELECT n FROM total") == 1, what="the record in the other view")
    said = "SELECT reason FROM streamext.dead_letters UNION ALL SELECT last_error FROM streamext.continuous_views WHERE last_error IS NOT NULL"
    wait_for(lambda: any("cannot be flushed by a stream's worker" in reason for (reason,) in db.rows(said)), what="the error")
