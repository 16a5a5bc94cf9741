"""Whose eyes the reasons are for, and how long they get."""

import psycopg
import pytest
from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, counts, kafka_stream, local_stream
from harness.wait import wait_for

HIDDEN = "the reason is for who may read all that the view reads"


def letters_of(db: Database, user: str) -> list[tuple[str, str]]:
    with db.connect(user=user) as session:
        return session.execute("SELECT sqlstate, reason FROM streamext.dead_letters ORDER BY id").fetchall()


@pytest.fixture
def joined(db: Database) -> Database:
    """A view that fails on data of a table which most may not read. Roles are the server's: made once."""
    for role in ("reason_owner", "reason_reader", "reason_insider"):
        db.execute(f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    db.execute("GRANT CREATE, USAGE ON SCHEMA public TO reason_owner; GRANT USAGE ON SCHEMA public TO reason_reader, reason_insider")
    local_stream(db, columns="k int")
    db.execute("CREATE TABLE secrets (k int, word text)")
    db.execute("INSERT INTO secrets VALUES (1, '7'), (2, 'swordfish')")
    db.execute("GRANT SELECT ON s, secrets TO reason_owner; GRANT SELECT ON s TO reason_reader; GRANT SELECT ON s, secrets TO reason_insider")
    with db.connect(user="reason_owner") as owner:
        owner.execute("""CREATE VIEW v WITH (streamext.continuous) AS
            SELECT x.word::int AS n, count(*) FROM s JOIN secrets x ON x.k = s.k GROUP BY 1""")
        owner.execute("GRANT SELECT ON v TO reason_reader, reason_insider")
    db.execute("INSERT INTO s VALUES (1), (2)")
    db.flush("s")
    return db


def test_a_reason_of_a_view(joined: Database) -> None:
    db = joined
    shown = [("22P02", 'invalid input syntax for type integer: "swordfish"')]
    assert letters_of(db, "postgres") == letters_of(db, "reason_owner") == letters_of(db, "reason_insider") == shown
    assert letters_of(db, "reason_reader") == [("22P02", HIDDEN)]
    db.execute("GRANT SELECT (k, word) ON secrets TO reason_reader")
    assert letters_of(db, "reason_reader") == shown
    db.execute("ALTER TABLE secrets ENABLE ROW LEVEL SECURITY")
    assert letters_of(db, "reason_reader") == letters_of(db, "reason_insider") == [("22P02", HIDDEN)]
    assert letters_of(db, "postgres") == shown


def test_a_reason_of_the_stream(db: Database) -> None:
    local_stream(db, columns="k int NOT NULL, ts timestamptz", options="event_time 'ts'")
    db.execute("DO $$ BEGIN CREATE ROLE reason_reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    db.execute("GRANT SELECT ON s TO reason_reader")
    db.execute("INSERT INTO s VALUES (1, 'infinity')")
    db.flush("s")
    assert letters_of(db, "reason_reader") == [("22008", "the event time is infinite")]


def test_the_error_of_a_view(joined: Database) -> None:
    """last_error and what flush says show no more than the letters do."""
    db = joined
    db.execute("""CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'it is %', (SELECT max(word) FROM public.secrets) USING ERRCODE = '58030'; END $$""")
    db.execute("CREATE TABLE target (k int); GRANT INSERT, SELECT ON target TO reason_owner")
    db.execute("CREATE TRIGGER tell BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION tell()")
    with db.connect(user="reason_owner") as owner:
        owner.execute("CREATE VIEW w WITH (streamext.continuous, streamext.into = 'target') AS SELECT s.k FROM s JOIN secrets x ON x.k = s.k")
        owner.execute("GRANT SELECT ON w TO reason_reader, reason_insider")
    db.execute("INSERT INTO s VALUES (1)")
    query = "SELECT last_error FROM streamext.continuous_views WHERE view = 'w'::regclass AND state = 'failed'"
    wait_for(lambda: db.rows(query) == [("it is swordfish",)], what="the failure")
    for user, text in {"reason_insider": "it is swordfish", "reason_reader": "the error is for who may read all that the view reads"}.items():
        with db.connect(user=user) as session:
            row = session.execute("SELECT last_error FROM streamext.continuous_views WHERE view = 'w'::regclass").fetchone()
            assert row == (text,)
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
                session.execute("SELECT streamext.flush('s')")
            assert error.value.diag.message_detail == text


def test_a_stop_names_no_reason_of_a_view(joined: Database) -> None:
    db = joined
    db.execute("ALTER FOREIGN TABLE s OPTIONS (ADD on_error 'stop')")
    db.flush("s")
    db.execute("INSERT INTO s VALUES (2)")
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "failed", what="the stop")
    assert "swordfish" not in db.value("SELECT last_error FROM streamext.streams")


def test_a_reason_is_cut_at_a_character(db: Database) -> None:
    local_stream(db, columns="t text")
    continuous(db, "v", "SELECT t::int, count(*) FROM s GROUP BY 1")
    db.execute("INSERT INTO s SELECT repeat('x', i) || repeat('€', 1000000) FROM generate_series(0, 2) i")
    db.flush("s")
    assert counts(db, "v") == (0, 0, 3)
    reasons = [reason for (reason,) in db.rows("SELECT reason FROM streamext.dead_letters")]
    assert len(reasons) == 3
    assert all(1000 < len(reason.encode()) <= 1024 and reason.rstrip("€").endswith(("x", '"')) for reason in reasons)


def test_what_a_view_between_hides(db: Database, kafka: Kafka, topic: str) -> None:
    """Letters and late rows of a part of UNION ALL are of its stream's whole records."""
    kafka.create_topic(topic, 1)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "k int, secret int, ts timestamptz")
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz", "c")
    db.execute("CREATE VIEW shown WITH (security_barrier) AS SELECT k, ts FROM s WHERE secret > 0")
    db.execute("CREATE ROLE reason_between LOGIN; GRANT SELECT ON c, shown TO reason_between; GRANT CREATE ON SCHEMA public TO reason_between")
    owner = db.connect("reason_between", autocommit=True)
    owner.execute("""CREATE VIEW u WITH (streamext.continuous, streamext.keep_late) AS SELECT k, streamext.tumble('1 min', ts) AS w, count(*)
        FROM (SELECT k, ts FROM shown UNION ALL SELECT k, ts FROM c) q GROUP BY k, w""")
    kafka.produce(topic, ['{"k": 1, "secret": "swordfish", "ts": "2024-01-01T00:00:00Z"}', '{"k": 1, "secret": 7, "ts": "2024-01-01T05:00:00Z"}'])
    db.execute("INSERT INTO c VALUES (2, '2024-01-01T05:00:00Z')")
    db.flush("s", "c")
    kafka.produce(topic, ['{"k": 1, "secret": 4711, "ts": "2024-01-01T01:00:00Z"}'])
    db.flush("s")
    letters = "SELECT reason, payload, payload_text, key, headers FROM streamext.dead_letters WHERE stream = 'u'::regclass"
    late = "SELECT payload FROM streamext.late_rows WHERE stream = 'u'::regclass"
    assert owner.execute(letters).fetchall() == [(HIDDEN, None, None, None, None)]
    assert owner.execute(late).fetchall() == [(None,)]
    assert "swordfish" in db.rows(letters)[0][0] and b"4711" in db.rows(late)[0][0]
    owner.close()
