"""streamext.retry_dead_letters: what was rejected and has been repaired counts once, whatever crashes in between."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.postgres import FAST, IMMEDIATE
from harness.streams import continuous, counts, error_of, kafka_stream, local_stream, mqtt_stream, state, worker_pid
from harness.wait import wait_for
from test_checkpoint import forget, set_fault
from test_kafka_edges import pause_without_client

COLUMNS = "a int, k text, ts timestamptz"
RAISES = """CREATE OR REPLACE FUNCTION half(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN IF a % 5 = 0 THEN RAISE ''no %'', a; END IF; RETURN a / 2; END'"""
RAISES_LESS = RAISES.replace("5 = 0", "10 = 0").replace("no ", "still no ")
REPAIRED = "CREATE OR REPLACE FUNCTION half(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a / 2'"
# The first two call half(); each is kept in another way.
VIEWS = {
    "halves": "SELECT k, count(*) AS n, sum(half(a)) AS total, array_agg(half(a) ORDER BY a) AS list FROM {} GROUP BY k",
    "windows": "SELECT streamext.tumble('10 s', ts) AS w, sum(half(a)) AS total, max(k) AS k FROM {} GROUP BY w",
    "plain": "SELECT k, count(*) AS n, sum(a) AS total FROM {} GROUP BY k",
}

# Only what asks for a checkpoint gets one soon.
SETTINGS = {"streamext.checkpoint_interval": 60_000, "streamext.catchup_min_rows": 1000}


Row = tuple[int | None, str | None, str]


def create_views(db: Database, source: str = "s") -> None:
    db.execute(RAISES)
    for name, query in VIEWS.items():
        continuous(db, name, query.format(source))


def rows(start: int, end: int, seconds: int = 0) -> list[Row]:
    return [(a, f"k{a % 3}", f"2024-05-01 12:00:{seconds + a % 30:02d}+00") for a in range(start, end)]


def messages(data: list[Row]) -> list[bytes]:
    return [json.dumps({"a": a, "k": k, "ts": ts}).encode() for a, k, ts in data]


def oracle(db: Database, *data: Row) -> None:
    db.execute(f"CREATE TABLE IF NOT EXISTS o ({COLUMNS})")
    with db.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO o VALUES (%s, %s, %s)", data)


def assert_views(db: Database, *names: str) -> None:
    """They hold what PostgreSQL returns over all rows, now that nothing raises."""
    for name in names or VIEWS:
        db.assert_same(f"TABLE {name}", VIEWS[name].format("o"))


def retry(db: Database, arguments: str = "'s'") -> int:
    """Returns when it is done."""
    n: int = db.value(f"SELECT streamext.retry_dead_letters({arguments})")
    db.flush("s")
    return n


def letters(db: Database) -> int:
    n: int = db.value("SELECT count(*) FROM streamext.dead_letters")
    return n


def insert(db: Database, data: list[Row]) -> None:
    with db.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO s VALUES (%s, %s, %s)", data)
    db.flush("s")


def test_expressions_that_raised(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    insert(db, rows(0, 100))
    assert counts(db, "halves") == counts(db, "windows") == (80, 0, 20)
    assert retry(db) == 40
    assert counts(db, "halves") == (80, 0, 20)

    db.execute(RAISES_LESS)
    assert retry(db) == 40
    assert counts(db, "halves") == counts(db, "windows") == (90, 0, 10)
    assert counts(db, "plain") == (100, 0, 0)
    assert sorted(db.rows("SELECT view::text, reason, count(*) FROM streamext.dead_letters WHERE position = 0 GROUP BY 1, 2")) == [
        ("halves", "still no 0", 1), ("windows", "still no 0", 1)
    ]  # fmt: skip
    assert letters(db) == 20

    db.execute(REPAIRED)
    some = db.value("SELECT array_agg(id) FROM (SELECT id FROM streamext.dead_letters WHERE view = 'windows'::regclass LIMIT 4) l")
    assert retry(db, f"'s', ids => '{{{','.join(map(str, some))}}}'") == 4
    assert counts(db, "windows") == (94, 0, 6)
    assert retry(db, "'s', 'halves'") == 10
    assert (counts(db, "halves"), letters(db)) == ((100, 0, 0), 6)
    assert retry(db) == 6
    assert (retry(db), letters(db)) == (0, 0)
    oracle(db, *rows(0, 100))
    assert_views(db)
    insert(db, rows(100, 130))
    oracle(db, *rows(100, 130))
    assert_views(db)
    assert db.value("SELECT detail FROM streamext.stream_events WHERE kind = 'retry' ORDER BY id LIMIT 1") == (
        "40 dead letters tried again, 40 of them rejected again"
    )
    assert db.value("SELECT count(*) FROM streamext_internal.retry_request") == 0


def test_who_flushes_finds_the_event(db: Database) -> None:
    """It is written before the flush is answered."""
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    insert(db, rows(0, 20))
    pid = worker_pid(db)
    with db.connect() as locker, db.connect() as flusher, ThreadPoolExecutor(1) as pool:
        with locker.transaction():
            locker.execute("LOCK TABLE streamext_internal.stream_event")
            db.execute("SELECT streamext.retry_dead_letters('s')")
            flushed = pool.submit(flusher.execute, "SELECT streamext.flush('s')")
            locked = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s AND relation = 'streamext_internal.stream_event'::regclass"
            wait_for(lambda: db.rows(locked, pid), what="the worker to write the event")
            assert not flushed.done()
        flushed.result()
    assert db.value("SELECT count(*) FROM streamext.stream_events WHERE kind = 'retry'") == 1


def test_a_function_of_another_language(db: Database) -> None:
    """PL/pgSQL's handler crashed the server when it was called again for a function that had become SQL's."""
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    signature = "FUNCTION plus(s int, a int) RETURNS int IMMUTABLE PARALLEL SAFE LANGUAGE"
    db.execute(f"CREATE {signature} plpgsql AS 'BEGIN RETURN s + a; END'")
    db.execute("CREATE AGGREGATE total (int) (SFUNC = plus, STYPE = int, COMBINEFUNC = plus, INITCOND = 0, PARALLEL = SAFE)")
    for view in ("one", "other"):
        continuous(db, view, f"SELECT k, total(a) AS {view} FROM s GROUP BY k")
    insert(db, rows(0, 20))
    db.execute(REPAIRED)
    db.execute(f"CREATE OR REPLACE {signature} sql AS 'SELECT s + a'")
    insert(db, rows(20, 40))
    assert counts(db, "halves") == counts(db, "windows") == (36, 0, 4)
    assert (retry(db), letters(db)) == (8, 0)
    oracle(db, *rows(0, 40))
    assert_views(db)
    for view in ("one", "other"):
        db.assert_same(f"TABLE {view}", "SELECT k, sum(a) FROM o GROUP BY k")


def test_records_that_could_not_be_decoded(db: Database, kafka: Kafka, topic: str) -> None:
    """Each view gets them once: those that read the topic before the repair, by the retry, and one made later as it reads."""
    kafka.create_topic(topic, 2)
    columns = "a int NOT NULL, k text NOT NULL, ts timestamptz, key text OPTIONS (metadata 'key'), h jsonb OPTIONS (metadata 'headers'), p int OPTIONS (metadata 'partition')"
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", columns)
    create_views(db)
    continuous(db, "keys", "SELECT key, p, count(*) AS n, count(h) AS h FROM s GROUP BY key, p")
    data = [(a if a > 10 else None, k if a % 7 else None, ts) for a, k, ts in rows(1, 71)]
    kafka.produce(topic, [Message(json.dumps({"a": a, "k": k, "ts": ts}), i % 2, key=f"key{i % 4}", headers=[("x", "y")]) for i, (a, k, ts) in enumerate(data)])
    kafka.produce(topic, ["no json"])
    db.flush("s")
    bad = 10 + 9 + 1
    assert counts(db, "plain") == (71 - bad, 0, bad)
    assert db.value("SELECT rejected FROM streamext.streams") == bad
    assert retry(db) == letters(db)

    db.execute("ALTER FOREIGN TABLE s ALTER a DROP NOT NULL, ALTER k DROP NOT NULL")
    db.flush("s")
    continuous(db, "later", VIEWS["plain"].format("s"))
    db.execute(REPAIRED)
    db.flush("s")
    assert counts(db, "later") == (70, 0, 1)
    before = letters(db)
    assert retry(db) == before
    oracle(db, *data)
    assert_views(db)
    db.assert_same("TABLE later", VIEWS["plain"].format("o"))
    assert sorted(db.rows("TABLE keys")) == [("key0", 0, 18, 18), ("key1", 1, 18, 18), ("key2", 0, 17, 17), ("key3", 1, 17, 17)]
    assert [counts(db, v) for v in ("plain", "halves", "windows", "keys", "later")] == [(70, 0, 1)] * 5
    assert db.rows("SELECT payload, view FROM streamext.dead_letters") == [(b"no json", None)]
    assert db.value("SELECT rejected FROM streamext.streams") == 1
    assert retry(db) == 1
    assert_views(db)


def test_a_record_that_a_view_rejects_next(db: Database) -> None:
    """The stream takes it now, and one of the views does not: the letter is that view's."""
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", "a int, k text NOT NULL, ts timestamptz")
    create_views(db)
    data = [(5, None, "2024-05-01 12:00+00"), (6, "k", "2024-05-01 12:00+00"), (7, None, "2024-05-01 12:00+00")]
    insert(db, data)
    assert counts(db, "plain") == counts(db, "halves") == (1, 0, 2)
    db.execute("ALTER FOREIGN TABLE s ALTER k DROP NOT NULL")
    assert retry(db) == 2
    assert (counts(db, "plain"), counts(db, "halves"), counts(db, "windows")) == ((3, 0, 0), (2, 0, 1), (2, 0, 1))
    assert sorted(db.rows("SELECT view::text, reason FROM streamext.dead_letters")) == [("halves", "no 5"), ("windows", "no 5")]
    db.execute(REPAIRED)
    assert retry(db) == 2
    oracle(db, *data)
    assert_views(db)


def test_two_sessions(db: Database) -> None:
    """The one that comes second is numbered when the first has committed, so that no worker passes over the first."""
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    insert(db, rows(0, 20))
    db.execute(REPAIRED)
    some = [one for (one,) in db.rows("SELECT id FROM streamext.dead_letters ORDER BY id LIMIT 3")]
    with psycopg.connect(db.connection.info.dsn) as other:
        other.execute("SELECT streamext.retry_dead_letters('s', ids => %s)", (some[:2],))
        db.execute("SET lock_timeout = 100")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            retry(db, f"'s', ids => ARRAY[{some[2]}]")
    db.execute("RESET lock_timeout")
    assert retry(db, f"'s', ids => ARRAY[{some[2]}]") == 1
    assert letters(db) == 8 - 3


def test_late_by_now(db: Database) -> None:
    local_stream(db, "event_time 'ts'", COLUMNS)
    create_views(db)
    insert(db, [(5, "k", "2024-05-01 12:00:01+00"), (6, "k", "2024-05-01 12:00:02+00")])
    insert(db, [(7, "k", "2024-05-01 12:00:30+00")])
    db.execute(REPAIRED)
    assert retry(db) == 2
    assert (counts(db, "halves"), counts(db, "windows"), letters(db)) == ((3, 0, 0), (2, 1, 0), 0)
    assert db.rows("SELECT total FROM windows ORDER BY w") == [(3,), (3,)]


def test_a_paused_view_keeps_its_letters(db: Database) -> None:
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    insert(db, rows(0, 20))
    db.execute(REPAIRED)
    db.execute("SELECT streamext.pause('windows')")
    retry(db)
    assert (counts(db, "halves"), counts(db, "windows"), letters(db)) == ((20, 0, 0), (16, 0, 4), 4)
    db.execute("SELECT streamext.resume('windows')")
    db.flush("s")
    assert retry(db) == 4
    oracle(db, *rows(0, 20))
    assert_views(db)


def test_rows_into_a_table(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", COLUMNS)
    db.execute("CREATE TABLE target (a int, h int CHECK (a <> 3))")
    create_views(db)
    continuous(db, "transformed", "SELECT a, half(a) AS h FROM s", ", streamext.into = target")
    kafka.produce(topic, messages(rows(0, 50)))
    db.flush("s")
    assert counts(db, "transformed") == (39, 0, 11)
    db.execute(REPAIRED)
    db.execute("ALTER TABLE target DROP CONSTRAINT target_a_check")
    assert (retry(db), retry(db)) == (31, 0)
    oracle(db, *rows(0, 50))
    assert_views(db)
    db.assert_same("TABLE target", "SELECT a, a / 2 FROM o")
    assert counts(db, "transformed") == (50, 0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_mqtt(db: Database, mosquitto: Mosquitto, topic: str, workers: int) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', event_time 'ts', watermark_delay '1 h', workers '{workers}'", COLUMNS + ", t text OPTIONS (metadata 'topic')")
    create_views(db)
    db.flush("s")
    mosquitto.publish([(f"{topic}/{i % 3}", m) for i, m in enumerate(messages(rows(0, 60)))])
    db.flush("s")
    assert letters(db) == 24
    db.execute(REPAIRED)
    assert (retry(db), letters(db)) == (24, 0)
    oracle(db, *rows(0, 60))
    assert_views(db)


def test_more_than_a_batch(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, 3)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h', workers '2'", COLUMNS)
    create_views(db)
    data = [(a * 5, k, ts) for a, k, ts in rows(0, 700)] + rows(0, 5000)
    kafka.produce(topic, [Message(m, i % 3) for i, m in enumerate(messages(data))])
    db.flush("s")
    db.execute(REPAIRED)
    assert (retry(db), letters(db)) == (2 * 1700, 0)
    oracle(db, *data)
    assert_views(db)


def restart(db: Database, how: signal.Signals = IMMEDIATE) -> Database:
    db.server.restart(how)
    return Database(db.server, db.name)


@pytest.mark.parametrize("fault", ["retry-before-commit", "retry-after-commit", "checkpoint-before-commit", "checkpoint-after-commit"])
def test_a_crash_in_the_retry(database: Database, kafka: Kafka, topic: str, fault: str) -> None:
    """The topic has forgotten the records, so that what the crash takes can come from the letters alone."""
    db = database
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", "a int, k text NOT NULL, ts timestamptz")
    db.execute("CREATE TABLE target (a int, h int)")
    create_views(db)
    continuous(db, "transformed", "SELECT a, half(a) AS h FROM s", ", streamext.into = target")
    data = rows(0, 40) + [(a, None, ts) for a, _, ts in rows(40, 50)]
    kafka.produce(topic, messages(data))
    db.flush("s")
    db = restart(db, FAST)
    forget(kafka, topic)
    db.execute(REPAIRED)
    db.execute("ALTER FOREIGN TABLE s ALTER k DROP NOT NULL")
    db.flush("s")
    pid = worker_pid(db)
    before = db.server.log_file.stat().st_size
    set_fault(db, fault)
    with pytest.raises(psycopg.OperationalError):
        retry(db)
    wait_for(db.server.is_ready, what="recovery")
    assert f'fault point "{fault}" reached' in db.server.log(before)
    db = Database(db.server, db.name)
    assert worker_pid(db) != pid
    db.execute("ALTER SYSTEM RESET streamext.fault_point")
    db.flush("s")
    oracle(db, *data)
    assert_views(db)
    db.assert_same("TABLE target", "SELECT a, a / 2 FROM o")
    assert letters(db) == 0
    assert [counts(db, v) for v in (*VIEWS, "transformed")] == [(50, 0, 0)] * 4
    assert db.value("SELECT rejected FROM streamext.streams") == 0
    db = restart(db)
    db.flush("s")
    assert_views(db)
    assert (retry(db), [counts(db, v) for v in VIEWS]) == (0, [(50, 0, 0)] * 3)


UNION = "SELECT a, k, ts, 'x' AS src FROM {x} UNION ALL SELECT a, k, ts, 'y' FROM {y} UNION ALL SELECT a + 1000, k, ts, 'z' FROM {y} WHERE a < 20"
UNIONS = {
    "u_windows": f"SELECT src, streamext.tumble('10 s', ts) AS w, sum(half(a)) AS total, array_agg(half(a) ORDER BY half(a)) AS list FROM ({UNION}) q GROUP BY src, w",
    "u_plain": f"SELECT src, count(*) AS n FROM ({UNION}) q GROUP BY src",
}


@pytest.mark.parametrize("fault", ["retry-before-commit", "retry-after-commit", "checkpoint-before-commit", "checkpoint-after-commit"])
def test_parts_of_union_all(database: Database, kafka: Kafka, topic: str, fault: str) -> None:
    """Their letters are the view's. The sources have forgotten the records, parts have the same positions, one stream is in two parts."""
    db = database
    kafka.create_topic(topic)
    columns = "a int, k text NOT NULL, ts timestamptz"
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", columns, "x")
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", columns, "y")
    db.execute(RAISES)
    db.execute(f"CREATE TABLE copies (a int, h int); CREATE TABLE x_o ({COLUMNS}); CREATE TABLE y_o ({COLUMNS})")
    for name, query in UNIONS.items():
        continuous(db, name, query.format(x="x", y="y"))
    continuous(db, "u_copies", f"SELECT a, half(a) AS h FROM ({UNION}) q".format(x="x", y="y"), ", streamext.into = copies")
    data = rows(0, 40) + [(a, None, ts) for a, _, ts in rows(40, 50)]
    kafka.produce(topic, messages(data))
    with db.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO y VALUES (%s, %s, %s)", data)
        cursor.executemany("INSERT INTO x_o VALUES (%s, %s, %s)", data)
        cursor.executemany("INSERT INTO y_o VALUES (%s, %s, %s)", data)

    def flush() -> None:
        db.flush("x")
        db.flush("y")

    flush()
    assert counts(db, "u_plain") == (120, 0, 30)
    assert counts(db, "u_windows") == counts(db, "u_copies") == (100, 0, 50)
    db = restart(db, FAST)
    forget(kafka, topic)
    db.execute(REPAIRED)
    for stream in ("x", "y"):  # one at a time: a worker that reads both may wait for the other
        db.execute(f"ALTER FOREIGN TABLE {stream} ALTER k DROP NOT NULL")
    flush()
    assert db.value("SELECT streamext.retry_dead_letters('x', 'u_plain')") == 10
    flush()
    assert counts(db, "u_plain") == (130, 0, 20)
    before = db.server.log_file.stat().st_size
    set_fault(db, fault)
    with pytest.raises(psycopg.OperationalError):
        for view in ("u_windows", "u_plain", "u_copies"):
            db.execute(f"SELECT streamext.retry_dead_letters('{view}')")
        flush()
        flush()
    wait_for(db.server.is_ready, what="recovery")
    assert f'fault point "{fault}" reached' in db.server.log(before)
    db = Database(db.server, db.name)
    db.execute("ALTER SYSTEM RESET streamext.fault_point")
    db.server.reload()
    flush()
    for view in ("u_windows", "u_plain", "u_copies"):
        db.execute(f"SELECT streamext.retry_dead_letters('{view}')")
    flush()
    for name, query in UNIONS.items():
        db.assert_same(f"TABLE {name}", query.format(x="x_o", y="y_o"))
    db.assert_same("TABLE copies", f"SELECT a, half(a) FROM ({UNION}) q".format(x="x_o", y="y_o"))
    assert [counts(db, v) for v in (*UNIONS, "u_copies")] == [(150, 0, 0)] * 3
    assert db.value("SELECT count(*) FROM streamext.dead_letters WHERE view IS NOT NULL OR stream NOT IN ('x'::regclass, 'y'::regclass)") == 0
    db = restart(db)
    flush()
    for name, query in UNIONS.items():
        db.assert_same(f"TABLE {name}", query.format(x="x_o", y="y_o"))
    assert db.value("SELECT count(*) FROM streamext_internal.retry_request") == 0


INNER = "SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n, sum(a)::int AS total FROM {} GROUP BY w"
OUTER = "SELECT streamext.tumble('1 min', w) AS m, sum(half(total)) AS halves, count(*) AS n FROM {} GROUP BY m"


def test_a_view_over_a_view(database: Database) -> None:
    """Its letters are rows of the inner one's windows, and whoever owns it may retry them."""
    db = database
    local_stream(db, "event_time 'ts'", COLUMNS)
    db.execute(RAISES)
    continuous(db, "i", INNER.format("s"))
    continuous(db, "u", OUTER.format("i"))
    data = [(a, "k", f"2024-05-01 12:{a // 6:02}:{a % 6 * 10:02}+00") for a in range(60)]
    insert(db, data)
    insert(db, [(1, "k", "2024-05-01 14:00+00")])
    assert counts(db, "u") == (48, 0, 12)
    db.execute(REPAIRED)
    db.execute("CREATE ROLE other; GRANT SELECT ON s, u TO other; SET ROLE other")
    for call in ("'u'", "'s', 'u'", "'u', 'u'"):
        assert db.refusal(f"SELECT streamext.retry_dead_letters({call})").startswith("42501"), call
    db.execute("RESET ROLE; DROP OWNED BY other; DROP ROLE other")
    assert db.refusal("SELECT streamext.retry_dead_letters('i')").startswith("42809")
    some = db.value("SELECT array_agg(id) FROM (SELECT id FROM streamext.dead_letters WHERE stream = 'u'::regclass LIMIT 5) l")
    assert retry(db, f"'u', ids => ARRAY{some}") == 5
    assert counts(db, "u") == (53 - (late := counts(db, "u")[1]), late, 7)
    db = restart(db, FAST)
    db.flush("s")
    assert retry(db, "'s', 'u'") == 7
    accepted, late, rejected = counts(db, "u")
    assert (accepted + late, rejected, letters(db)) == (60, 0, 0)


# An error of the system is not laid to a row's charge: the view fails.
GATE = """CREATE TABLE closed (); CREATE TABLE names (k text, name text); INSERT INTO names VALUES ('k0', 'a'), ('k1', 'b'), ('k2', 'c');
    CREATE FUNCTION gate(k text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN IF EXISTS (TABLE public.closed) THEN RAISE ''closed'' USING ERRCODE = ''XX000''; END IF; RETURN true; END'"""
GATED = "SELECT name, count(*) AS n, sum(half(a)) AS total FROM {} AS x JOIN names USING (k) WHERE gate(name) GROUP BY name"


@pytest.mark.parametrize("crash", [False, True])
def test_a_view_that_is_set_aside_before_the_checkpoint(database: Database, crash: bool) -> None:
    """It has counted its letters, and the checkpoint has it as it was before. It keeps what it has counted, and a later one has that."""
    db = database
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    db.execute(RAISES)
    db.execute(GATE)
    continuous(db, "v", GATED.format("s"))
    insert(db, rows(0, 20))
    db = restart(db, FAST)
    db.execute(REPAIRED)
    db.flush("s")
    some = db.value("SELECT array_agg(id) FROM (SELECT id FROM streamext.dead_letters ORDER BY id LIMIT 3) l")
    db.configure("streamext.fault_point", "wait retry-after-commit")
    db.rows("SELECT streamext.retry_dead_letters('s', ids => %s)", some)
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.dead_letter WHERE retry > 0") == 3, what="the retry")
    db.execute("INSERT INTO closed DEFAULT VALUES")
    db.execute("INSERT INTO s VALUES (20, 'k0', '2024-05-01 12:00+00')")
    db.configure("streamext.fault_point", "")
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views") == "failed", what="the view to fail")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.retry_request") == 0, what="the end of the request")
    wait_for(lambda: letters(db) == 1, what="the letters to go")
    db.execute("DELETE FROM closed")
    oracle(db, *rows(0, 20), (20, "k0", "2024-05-01 12:00+00"))
    if crash:
        db = restart(db)
    else:
        db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS {GATED.format('s')}")
    db.flush("s")
    assert counts(db, "v") == (20, 0, 1)
    if not crash:
        db = restart(db, FAST)
    assert retry(db) == 1
    assert (counts(db, "v"), letters(db)) == ((21, 0, 0), 0)
    db.assert_same("TABLE v", GATED.format("o"))


def test_while_the_worker_starts(database: Database) -> None:
    """It has not looked yet what its source is."""
    db = database
    local_stream(db, "event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    insert(db, rows(0, 20))
    db.execute(REPAIRED)
    db.execute("ALTER SYSTEM SET streamext.fault_point = 'wait pause-read'")
    db = restart(db, FAST)
    assert db.value("SELECT streamext.retry_dead_letters('s')") == 8
    db.configure("streamext.fault_point", "")
    db.flush("s")
    oracle(db, *rows(0, 20))
    assert_views(db)
    assert letters(db) == 0


def one_without_key(db: Database, kafka: Kafka, topic: str) -> list[Row]:
    """The views over 30 records, of which the stream takes all but one."""
    data = rows(0, 30)
    data[11] = (11, None, data[11][2])
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", "a int, k text NOT NULL, ts timestamptz")
    create_views(db)
    kafka.produce(topic, messages(data))
    db.flush("s")
    return data


def test_read_again_after_a_crash(database: Database, kafka: Kafka, topic: str) -> None:
    """What the crash undid is read again and counts now, so its letters go: a retry must not count it twice."""
    db = database
    data = one_without_key(db, kafka, topic)
    assert letters(db) == 2 * 6 + 1
    db.execute(REPAIRED)
    db.execute("ALTER FOREIGN TABLE s ALTER k DROP NOT NULL")
    db = restart(db)
    oracle(db, *data)
    assert retry(db) <= 13  # it may be asked before they have been read again
    assert letters(db) == 0
    assert_views(db)
    assert [counts(db, v) for v in VIEWS] == [(30, 0, 0)] * 3


def test_read_again_and_still_bad(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    db.configure("streamext.checkpoint_interval", "0")  # none
    try:
        kafka.produce(topic, messages(rows(0, 30)) + [b"no json"])
        db.flush("s")
        db.execute(RAISES_LESS)
        db = restart(db)
        db.flush("s")
    finally:
        db.configure("streamext.checkpoint_interval", "1000")
    assert (counts(db, "halves"), letters(db)) == ((27, 0, 4), 2 * 3 + 1)
    assert db.value("SELECT count(*) FROM streamext.dead_letters WHERE reason LIKE 'still%%'") == 6
    db.execute(REPAIRED)
    assert (retry(db), letters(db)) == (7, 1)
    oracle(db, *rows(0, 30))
    assert_views(db)
    db = restart(db)
    db.flush("s")
    assert_views(db)


def test_rebuilt_views(db: Database, kafka: Kafka, topic: str) -> None:
    """A view that has read a record again and counted it is in no letter any more, and the others are."""
    data = one_without_key(db, kafka, topic)
    db.execute(REPAIRED)
    db.execute("ALTER FOREIGN TABLE s ALTER k DROP NOT NULL")
    for name in ("halves", "plain"):
        db.execute(f"SELECT streamext.rebuild('{name}')")
    db.flush("s")
    assert [counts(db, v) for v in VIEWS] == [(30, 0, 0), (23, 0, 7), (30, 0, 0)]
    assert sorted(db.rows("SELECT view::text, count(*) FROM streamext.dead_letters GROUP BY 1"), key=str) == [("windows", 6), (None, 1)]
    assert retry(db) == 7
    oracle(db, *data)
    assert_views(db)
    assert ([counts(db, v) for v in VIEWS], letters(db)) == ([(30, 0, 0)] * 3, 0)


def test_while_a_view_catches_up(database: Database, kafka: Kafka, topic: str) -> None:
    """It reads the records in a process of its own, and is not given them by the retry."""
    db = database
    kafka.create_topic(topic, 2)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", "a int, k text NOT NULL, ts timestamptz")
    create_views(db)
    data = [(a, k if a % 50 else None, ts) for a, k, ts in rows(1, 20_001)]
    kafka.produce(topic, [Message(m, i % 2) for i, m in enumerate(messages(data))])
    db.flush("s")
    assert counts(db, "plain") == (19_600, 0, 400)
    db.execute(REPAIRED)
    db.execute("ALTER FOREIGN TABLE s ALTER k DROP NOT NULL")
    continuous(db, "later", VIEWS["halves"].format("s"))
    retry(db)
    retry(db)
    oracle(db, *data)
    assert_views(db)
    db.assert_same("TABLE later", VIEWS["halves"].format("o"))
    assert [counts(db, v) for v in (*VIEWS, "later")] == [(20_000, 0, 0)] * 4
    assert letters(db) == 0


def test_what_the_stream_took_before(db: Database, kafka: Kafka, topic: str) -> None:
    """A view that is begun anew rejects what the column does not take any more, and only that view: it has the letter."""
    data = rows(0, 30)
    data[11] = (11, None, data[11][2])
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '1 h'", COLUMNS)
    create_views(db)
    db.execute(REPAIRED)
    kafka.produce(topic, [*messages(data), b"no json"])
    db.flush("s")
    db.execute("ALTER FOREIGN TABLE s ALTER k SET NOT NULL")
    db.execute("SELECT streamext.rebuild('plain')")
    db.flush("s")
    assert [counts(db, v) for v in VIEWS] == [(30, 0, 1), (30, 0, 1), (29, 0, 2)]
    assert db.rows("SELECT view::text, position FROM streamext.dead_letters ORDER BY position") == [("plain", 11), (None, 30)]
    assert db.value("SELECT rejected FROM streamext.streams") == 1
    assert (retry(db), letters(db)) == (2, 2)
    db.execute("ALTER FOREIGN TABLE s ALTER k DROP NOT NULL")
    assert (retry(db), letters(db)) == (2, 1)
    oracle(db, *data)
    assert_views(db)
    assert [counts(db, v) for v in VIEWS] == [(30, 0, 1)] * 3
    assert db.value("SELECT rejected FROM streamext.streams") == 1


def test_letters_of_a_source_left_behind(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int NOT NULL")
    continuous(db, "v", "SELECT count(*) AS n, sum(a) AS total FROM s")
    kafka.produce(topic, ['{"a":1}', '{"b":2}', '{"a":3}', '{"a":4}', '{"a":5}'])
    db.flush("s")
    pause_without_client(db)
    kafka.delete_topic(topic)
    kafka.create_topic(topic)
    kafka.produce(topic, ['{"a":10}', '{"b":20}'])
    db.execute("SELECT streamext.resume('s')")
    wait_for(lambda: state(db) == "diverged", what="diverged")
    db.execute("SELECT streamext.seek('s', 'earliest')")
    db.flush("s")
    assert db.rows("SELECT position, convert_from(payload, 'UTF8') FROM streamext.dead_letters ORDER BY id") == [
        (1, '{"b":2}'), (1, '{"b":20}')
    ]  # fmt: skip
    old = db.value("SELECT min(id) FROM streamext.dead_letters")
    db.execute("ALTER FOREIGN TABLE s ALTER a DROP NOT NULL")
    with pytest.raises(psycopg.Error) as error:
        retry(db, f"'s', ids => ARRAY[{old}]")
    assert error_of(error.value)[0] == "0A000"
    assert (retry(db), letters(db), counts(db, "v")) == (1, 1, (6, 0, 1))
    assert db.rows("TABLE v") == [(6, 23)]


def test_refusals(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    local_stream(db, columns="a int", name="other")
    continuous(db, "w", "SELECT count(*) AS n FROM other")
    kafka.produce(topic, ["x"])
    db.flush("s")
    db.execute("UPDATE streamext_internal.dead_letter SET whole = false")
    one = db.value("SELECT id FROM streamext.dead_letters")
    for arguments, sqlstate in {
        "NULL": "22004", "'v'": "42809", "'s', 'w'": "42809", "'s', ids => '{0}'": "22023", f"'s', ids => '{{{one}}}'": "0A000",
        f"'other', ids => '{{{one}}}'": "22023",
    }.items():  # fmt: skip
        with pytest.raises(psycopg.Error) as error:
            retry(db, arguments)
        assert error_of(error.value)[0] == sqlstate, arguments
    assert retry(db) == 0
    db.execute("CREATE ROLE somebody; GRANT SELECT ON s TO somebody; SET ROLE somebody")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("SELECT streamext.retry_dead_letters('s')")
    db.execute("RESET ROLE; REVOKE ALL ON s FROM somebody; DROP ROLE somebody")
