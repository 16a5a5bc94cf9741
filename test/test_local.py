"""Local streams: rows enter with the commit of the transaction that inserted them, and only with it."""

import psycopg
import pytest

from harness.database import Database
from harness.streams import continuous, local_stream
from harness.wait import wait_for


@pytest.fixture
def counted(db: Database) -> Database:
    """A stream s of numbers and the view v (n, total)."""
    local_stream(db, columns="a bigint, t text")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    return db


def total(db: Database) -> tuple[int, int | None]:
    db.flush("s")
    return db.rows("SELECT n, total FROM v")[0]


def test_only_what_is_committed(counted: Database) -> None:
    db = counted
    writer = db.connect(autocommit=False)
    writer.execute("INSERT INTO s VALUES (1), (2)")
    assert total(db) == (0, None)
    writer.commit()
    assert total(db) == (2, 3)
    writer.execute("INSERT INTO s VALUES (100)")
    writer.rollback()
    writer.execute("INSERT INTO s VALUES (4)")
    writer.commit()
    assert total(db) == (3, 7)
    assert db.rows("SELECT a FROM s ORDER BY a") == [(1,), (2,), (4,)]


def test_savepoints(counted: Database) -> None:
    db = counted
    db.execute("""DO $$
        BEGIN
            INSERT INTO s VALUES (1);
            FOR i IN 1..50 LOOP
                BEGIN
                    INSERT INTO s VALUES (10), (100);
                    IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
                EXCEPTION WHEN division_by_zero THEN INSERT INTO s VALUES (1000);
                END;
            END LOOP;
        END $$""")
    assert total(db) == (1 + 50 + 25, 1 + 25 * 110 + 25 * 1000)
    with db.connection.transaction():
        db.execute("INSERT INTO s VALUES (10000)")
        db.execute("SAVEPOINT one")
        db.execute("INSERT INTO s VALUES (1)")
        db.execute("SAVEPOINT two")
        db.execute("INSERT INTO s VALUES (2)")
        db.execute("RELEASE two")
        db.execute("ROLLBACK TO one")
        db.execute("INSERT INTO s VALUES (20000)")
    assert total(db) == (78, 1 + 25 * 110 + 25 * 1000 + 30000)


def test_copy_without_a_column_list(counted: Database) -> None:
    db = counted
    with db.connection.cursor() as cursor:
        with cursor.copy("COPY s FROM STDIN") as copy:
            copy.write("1\tone\n2\t\\N\n3\tthree\n")
        with cursor.copy("COPY s (t, a) FROM STDIN (FORMAT csv)") as copy:
            copy.write("four,4\n")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), cursor.copy("COPY s FROM STDIN") as copy:
            copy.write("5\tfive\nsix\tsix\n")
    assert total(db) == (4, 10)
    assert db.rows("SELECT * FROM s ORDER BY a") == [(1, "one"), (2, None), (3, "three"), (4, "four")]


def test_insert_select_returning_and_defaults(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "a int, ts timestamptz DEFAULT now(), t text DEFAULT 'none'")
    continuous(db, "v", "SELECT t, count(*) AS n, sum(a) AS total FROM s GROUP BY t")
    returned = db.rows("INSERT INTO s (a) SELECT generate_series(1, 4) RETURNING a, t")
    assert returned == [(i, "none") for i in range(1, 5)]
    db.flush("s")
    assert db.rows("TABLE v") == [("none", 4, 10)]


def test_a_trigger_of_an_ordinary_table_feeds_the_stream(counted: Database) -> None:
    db = counted
    db.execute("CREATE TABLE orders (a bigint CHECK (a < 100), UNIQUE (a) DEFERRABLE INITIALLY DEFERRED)")
    db.execute("""CREATE FUNCTION feed() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO s VALUES (NEW.a, ''order''); RETURN NULL; END'""")
    db.execute("CREATE TRIGGER feed AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION feed()")
    db.execute("INSERT INTO orders VALUES (1), (2)")
    for refused in ("(3), (300)", "(4), (4)"):  # the second only at its commit
        with pytest.raises(psycopg.errors.IntegrityError):
            db.execute(f"INSERT INTO orders VALUES {refused}")
    assert total(db) == (2, 3)


def test_prepare_transaction_is_refused(counted: Database) -> None:
    db = counted
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="PREPARE"), db.connection.transaction():
        db.execute("INSERT INTO s VALUES (1)")
        db.execute("PREPARE TRANSACTION 'x'")
    assert total(db) == (0, None)


def test_rights_may_change_in_a_prepared_transaction(db: Database) -> None:
    """The workers are told at COMMIT PREPARED, by whichever session."""
    db.execute("CREATE ROLE viewer; GRANT CREATE ON SCHEMA public TO viewer")
    try:
        local_stream(db, columns="a bigint")
        db.execute("GRANT SELECT ON s TO viewer; SET ROLE viewer")
        continuous(db, "his", "SELECT count(*) AS n FROM s")
        db.execute("RESET ROLE")
        db.execute("INSERT INTO s VALUES (1)")
        db.flush("s")
        state = "SELECT state FROM streamext.continuous_views WHERE view = 'his'::regclass"
        for change, after in (("REVOKE SELECT ON s FROM", "failed"), ("GRANT SELECT ON s TO", "running")):
            before = db.value(state)
            db.execute("BEGIN")
            db.execute(f"{change} viewer")
            db.execute("PREPARE TRANSACTION 'rights'")
            assert db.value(state) == before
            with db.connect() as other:
                other.execute("COMMIT PREPARED 'rights'")
            wait_for(lambda after=after: db.value(state) == after, what=after)
    finally:
        db.execute("RESET ROLE; DROP OWNED BY viewer CASCADE; DROP ROLE viewer")


def test_a_large_transaction(counted: Database) -> None:
    db, rows = counted, 200_000
    insert = f"INSERT INTO s SELECT i, repeat('x', 20) FROM generate_series(1, {rows}) AS i"
    with db.connection.transaction(force_rollback=True):
        db.execute(insert)
    assert total(db) == (0, None)
    db.execute(insert)
    assert total(db) == (rows, rows * (rows + 1) // 2)


def test_interleaved_sessions(counted: Database) -> None:
    """Who commits first is counted first, and nobody waits for an open transaction."""
    db = counted
    one, two, three = (db.connect(autocommit=False) for _ in range(3))
    one.execute("INSERT INTO s VALUES (1)")
    two.execute("INSERT INTO s VALUES (2)")
    three.execute("INSERT INTO s VALUES (4)")
    one.execute("INSERT INTO s VALUES (10)")
    two.commit()
    assert total(db) == (1, 2)
    three.rollback()
    one.commit()
    assert total(db) == (3, 13)


def test_each_stream_has_its_own_rows(db: Database) -> None:
    for name in ("s", "other"):
        local_stream(db, columns="a int", name=name)
        continuous(db, f"v_{name}", f"SELECT count(*) AS n, sum(a) AS total FROM {name}")
    with db.connection.transaction():
        db.execute("INSERT INTO s VALUES (1), (2)")
        db.execute("INSERT INTO other SELECT a * 10 FROM generate_series(1, 3) AS a")
    db.flush("s", "other")
    assert db.rows("TABLE v_s") == [(2, 3)]
    assert db.rows("TABLE v_other") == [(3, 60)]


def test_a_view_counts_from_its_creation(counted: Database) -> None:
    db = counted
    db.execute("INSERT INTO s VALUES (1)")
    continuous(db, "later", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.execute("INSERT INTO s VALUES (2)")
    assert total(db) == (2, 3)
    assert db.rows("TABLE later") == [(1, 2)]


def test_columns_added_and_dropped(counted: Database) -> None:
    db = counted
    db.execute("INSERT INTO s VALUES (1, 'old')")
    assert total(db) == (1, 1)
    db.execute("ALTER FOREIGN TABLE s ADD COLUMN b int")
    db.execute("ALTER FOREIGN TABLE s DROP COLUMN t")
    continuous(db, "w", "SELECT sum(b) AS b FROM s")
    db.execute("INSERT INTO s VALUES (2, 20)")
    assert total(db) == (2, 3)
    assert db.rows("TABLE w") == [(20,)]


def test_every_type_survives(db: Database) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('ok', 'sad')")
    db.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    local_stream(db, columns="a int[], b mood, c jsonb, d positive, e numeric(10, 2), f int4range, g uuid, h bytea, i text")
    row = """'{1,NULL,3}', 'sad', '{"k": [1]}', 5, 1.5, '[1,5)', '6a0f5f2e-0c1d-4a3f-9d5e-000000000001', '\\x00ff', NULL"""
    keys = "a, b, c, d, e, f, g, h, i"
    continuous(db, "v", f"SELECT {keys}, count(*) AS n FROM s GROUP BY {keys}")
    db.execute(f"INSERT INTO s VALUES ({row}), ({row})")
    db.execute(f"INSERT INTO s (i, c) SELECT repeat('long ', 100000), NULL")
    db.flush("s")
    db.execute(f"CREATE TABLE o ({'a int[], b mood, c jsonb, d positive, e numeric(10, 2), f int4range, g uuid, h bytea, i text'})")
    db.execute(f"INSERT INTO o VALUES ({row}), ({row})")
    db.execute(f"INSERT INTO o (i) SELECT repeat('long ', 100000)")
    db.assert_same("TABLE v", f"SELECT {keys}, count(*) FROM o GROUP BY {keys}")
    db.assert_same("SELECT * FROM s", "TABLE o")


def test_rows_that_cannot_count_are_rejected(db: Database) -> None:
    """Such a row does not undo the transaction of the others."""
    local_stream(db, "event_time 'ts'", "ts timestamptz, a int NOT NULL, d int")
    continuous(db, "v", "SELECT count(*) AS n, sum(100 / d) AS total FROM s")
    db.execute("""INSERT INTO s VALUES (now(), 1, 1), (NULL, 2, 1), ('infinity', 3, 1), (now(), NULL, 1),
        (now() + interval '2 hours', 5, 1), (now(), 6, 0), (now(), 7, 4)""")
    db.flush("s")
    assert db.rows("TABLE v") == [(2, 125)]
    letters = db.rows("SELECT sqlstate, view IS NOT NULL FROM streamext.dead_letters ORDER BY position")
    assert letters == [("23502", False), ("22008", False), ("23502", False), ("22008", False), ("22012", True)]


@pytest.mark.parametrize("statement", ["UPDATE s SET a = 1", "DELETE FROM s", "TRUNCATE s"])
def test_rows_stay_as_they_are(counted: Database, statement: str) -> None:
    with pytest.raises(psycopg.Error):
        counted.execute(statement)


def test_views_made_one_after_another_begin_where_they_were_made(db: Database) -> None:
    """Although the worker, told of the first, may look while the second's transaction ends."""
    local_stream(db, "", "a int")
    for _ in range(100):
        for view in ("v", "w"):
            continuous(db, view, "SELECT count(*) AS n FROM s")
        db.execute("INSERT INTO s SELECT generate_series(1, 1000)")
        db.flush("s")
        assert db.rows("SELECT v.n, w.n FROM v, w") == [(1000, 1000)]
        db.execute("DROP VIEW v, w")


def test_a_full_journal(db: Database) -> None:
    """At streamext.journal_limit (64 MB is the least) a transaction fails as a whole; trimmed, the journal takes rows again."""
    local_stream(db, columns="a bigint, t text")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.flush("s")
    db.execute("ALTER SYSTEM SET streamext.journal_limit = '64MB'")
    try:
        db.server.reload()
        wait_for(lambda: db.value("SHOW streamext.journal_limit") == "64MB", what="the setting")
        db.execute("SELECT streamext.pause('s')")
        db.execute("INSERT INTO s SELECT i, repeat('x', 1000000) FROM generate_series(1, 50) i")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as error:
            db.execute("INSERT INTO s SELECT i, repeat('x', 1000000) FROM generate_series(1, 50) i")
        assert "streamext.journal_limit" in (error.value.diag.message_detail or "")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
            db.execute("INSERT INTO s VALUES (1)")
        db.execute("SELECT streamext.resume('s')")

        def taken() -> bool:
            try:
                db.execute("INSERT INTO s VALUES (1000)")
            except psycopg.errors.ConfigurationLimitExceeded:
                return False
            return True

        wait_for(taken, what="the journal to be trimmed")
        assert total(db) == (51, 50 * 51 // 2 + 1000)
    finally:
        db.execute("ALTER SYSTEM RESET streamext.journal_limit")
        db.server.reload()
