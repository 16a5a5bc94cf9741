"""What an operator does to streams and views that run: pause and resume, from Kafka and from a local stream."""

import threading
from collections.abc import Iterator

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.postgres import FAST, Postgres
from harness.streams import continuous, counts, error_of, kafka_stream, local_stream, state, worker_pid
from harness.wait import wait_for

COLUMNS = "a bigint, g int, ts timestamptz"
VIEWS = {
    "grouped": "SELECT g, count(*) AS n, sum(a)::bigint AS total, bit_xor(a) AS x FROM {} GROUP BY g",
    "windowed": "SELECT streamext.tumble('1 min', ts) AS w, g, count(*) AS n, max(a) AS peak FROM {} GROUP BY w, g",
}


class Source:
    """The numbers from 0 on as rows of the stream `s` and of the table `o`; number i is i / 10 seconds after ten o'clock."""

    def __init__(self, db: Database, kafka: Kafka | None = None, topic: str = "") -> None:
        self.db, self.kafka, self.topic, self.next = db, kafka, topic, 0
        if kafka:
            kafka.create_topic(topic, 2)
            kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', watermark_delay '5 s'", COLUMNS)
        else:
            local_stream(db, "event_time 'ts', watermark_delay '5 s'", COLUMNS)
        db.execute(f"CREATE TABLE o ({COLUMNS})")

    def produce(self, n: int) -> None:
        rows = (
            "SELECT i, i % 7, timestamptz '2024-05-01 10:00:00Z' + i * interval '0.1 s'"
            f" FROM generate_series({self.next}, {self.next + n - 1}) AS i"
        )
        if self.kafka:
            numbers = self.db.rows(f"SELECT a, g, ts::text FROM ({rows}) AS r (a, g, ts)")
            self.kafka.produce(
                self.topic, (Message(f'{{"a":{a},"g":{g},"ts":"{ts}"}}', a // 100 % 2) for a, g, ts in numbers)
            )
        else:
            self.db.execute(f"INSERT INTO s {rows}")
        self.db.execute(f"INSERT INTO o {rows}")
        self.next += n


def source_of(request: pytest.FixtureRequest, db: Database, topic: str) -> Source:
    kafka = request.getfixturevalue("kafka") if request.param == "kafka" else None
    return Source(db, kafka, topic)


@pytest.fixture(params=["kafka", "local"])
def source(request: pytest.FixtureRequest, db: Database, topic: str) -> Source:
    return source_of(request, db, topic)


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server that tests may crash."""
    with Postgres() as server:
        yield server


@pytest.fixture
def own_db(own: Postgres) -> Iterator[Database]:
    own.psql("CREATE DATABASE own")
    own.psql("CREATE EXTENSION streamext", "own")
    database = Database(own, "own")
    yield database
    database.connection.close()
    own.psql("DROP DATABASE own WITH (FORCE)")


@pytest.fixture(params=["kafka", "local"])
def own_source(request: pytest.FixtureRequest, own_db: Database, topic: str) -> Source:
    return source_of(request, own_db, topic)


def crash(db: Database) -> None:
    """kill -9 of the stream's worker; the connection is a new one."""
    pid = worker_pid(db)
    db.connection.close()
    db.server.kill_backend(pid)
    db.connection = db.connect()


def view_state(db: Database, view: str) -> str:
    return db.value("SELECT state FROM streamext.continuous_views WHERE view = %s::regclass", view)


def create_views(db: Database) -> None:
    for name, query in VIEWS.items():
        continuous(db, name, query.format("s"))


def assert_exact(db: Database, rows: int, *views: str, table: str = "o") -> None:
    """Each of the views holds the table's rows, and has counted so many."""
    for view in views or VIEWS:
        db.assert_same(f"TABLE {view}", VIEWS[view].format(table))
        assert counts(db, view) == (rows, 0, 0), view


# ---------------------------------------------------------------- pause


def test_a_view_is_paused_alone(db: Database, source: Source) -> None:
    create_views(db)
    source.produce(1000)
    db.flush("s")
    db.execute("CREATE TABLE before AS TABLE o")
    db.execute("SELECT streamext.pause('grouped')")
    wait_for(lambda: view_state(db, "grouped") == "paused", what="state paused")
    source.produce(2000)
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    db.flush("s")
    assert notices == ['continuous view "grouped" is paused and was not waited for']
    assert state(db) == "running"
    assert_exact(db, 3000, "windowed")
    assert_exact(db, 1000, "grouped", table="before")
    db.execute("SELECT streamext.resume('grouped')")
    db.flush("s")
    assert view_state(db, "grouped") == "running"
    assert_exact(db, 3000)


def test_a_windowed_view_loses_no_row_by_a_pause(db: Database, source: Source) -> None:
    """Windows that were open are not sealed while the stream's watermark moves on."""
    create_views(db)
    source.produce(700)
    db.flush("s")
    db.execute("SELECT streamext.pause('windowed')")
    wait_for(lambda: view_state(db, "windowed") == "paused", what="state paused")
    source.produce(3000)
    db.flush("s")
    wait_for(lambda: db.value("SELECT watermark > '2024-05-01 10:05Z' FROM streamext.streams"), what="the watermark")
    db.execute("SELECT streamext.resume('windowed')")
    db.flush("s")
    assert_exact(db, 3700)


def test_pauses_outlive_a_crash(own_db: Database, own_source: Source) -> None:
    db, source = own_db, own_source
    create_views(db)
    source.produce(1000)
    db.flush("s")
    db.execute("SELECT streamext.pause('grouped')")
    wait_for(lambda: view_state(db, "grouped") == "paused", what="state paused")
    db.execute("SELECT streamext.pause('s')")
    assert state(db) == "paused"
    source.produce(1000)
    crash(db)
    wait_for(lambda: state(db) == "paused" and view_state(db, "grouped") == "paused", what="paused after the crash")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="paused"):
        db.flush("s")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert_exact(db, 2000, "windowed")
    assert counts(db, "grouped")[0] <= 1000
    db.execute("SELECT streamext.resume('grouped')")
    crash(db)
    db.flush("s")
    assert_exact(db, 2000)


def test_a_pause_that_is_rolled_back(db: Database) -> None:
    source = Source(db)
    create_views(db)
    for end, expected in (("ROLLBACK", "running"), ("ROLLBACK TO SAVEPOINT here; COMMIT", "running"), ("COMMIT", "paused")):
        db.execute("BEGIN; SAVEPOINT here")
        db.execute("SELECT streamext.pause('s')")
        wait_for(lambda: state(db) == "paused", what="its pause")  # its worker may be waited for yet
        db.execute("SELECT streamext.pause('grouped')")
        db.execute(end)
        wait_for(lambda: state(db) == expected, what=f"the stream {expected} after {end}")
    source.produce(10)
    db.execute("SELECT streamext.resume('s'), streamext.resume('grouped')")
    db.flush("s")
    assert_exact(db, 10)


def test_only_owners_pause(db: Database) -> None:
    Source(db)
    create_views(db)
    db.execute("CREATE ROLE stranger; CREATE ROLE keeper; GRANT SELECT ON s, grouped TO stranger")
    db.execute("ALTER FOREIGN TABLE s OWNER TO keeper; ALTER VIEW grouped OWNER TO keeper")
    try:
        db.execute("SET ROLE stranger")
        for name in ("s", "grouped"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute("SELECT streamext.pause(%s::regclass)", name)
        db.execute("SET ROLE keeper")
        db.execute("SELECT streamext.pause('s'), streamext.pause('grouped')")
        db.execute("SELECT streamext.resume('s'), streamext.resume('grouped')")
        with pytest.raises(psycopg.errors.WrongObjectType):
            db.execute("SELECT streamext.pause('pg_class')")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY stranger, keeper CASCADE; DROP ROLE stranger, keeper")


# ---------------------------------------------------------------- rebuild and replace

NAMED = "SELECT name, count(*) AS n FROM {} AS readings JOIN labels USING (g) GROUP BY name"




def test_a_rebuilt_view_shows_what_it_held(db: Database, source: Source) -> None:
    """A joined view by the table as it is now, and a windowed one whose windows are in history."""
    db.execute("CREATE TABLE labels AS SELECT g, 'name ' || g % 3 AS name FROM generate_series(0, 6) AS g")
    create_views(db)
    continuous(db, "named", NAMED.format("s"))
    source.produce(3000)
    db.flush("s")
    wait_for(lambda: db.value("SELECT history_panes FROM streamext.continuous_views WHERE view = 'windowed'::regclass"))
    former = db.rows("SELECT * FROM named ORDER BY 1")
    db.execute("UPDATE labels SET name = 'all'")
    db.execute("SELECT streamext.pause('s')")
    for view in ("named", "windowed"):
        db.execute("SELECT streamext.rebuild(%s::regclass)", view)
    wait_for(lambda: counts(db, "named") == counts(db, "windowed") == (0, 0, 0), what="views begun anew")
    assert db.rows("SELECT * FROM named ORDER BY 1") == former
    db.assert_same("TABLE windowed", VIEWS["windowed"].format("o"))
    db.assert_same("SELECT * FROM windowed WHERE g = 3", VIEWS["windowed"].format("o WHERE g = 3"))
    db.execute("SELECT streamext.resume('s')")
    source.produce(1000)
    db.flush("s")
    db.assert_same("TABLE named", NAMED.format("o"))
    assert counts(db, "named") == (4000, 0, 0)
    assert_exact(db, 4000)


def test_a_view_is_rebuilt_again_and_again(own_db: Database, own_source: Source) -> None:
    """Before it has caught up, with crashes in between: it shows what it held at first."""
    db, source = own_db, own_source
    create_views(db)
    source.produce(3000)
    db.flush("s")
    wait_for(lambda: db.value("SELECT history_panes FROM streamext.continuous_views WHERE view = 'windowed'::regclass"))
    wait_for(lambda: not db.value("SELECT bool_or(checkpoint_pending) FROM streamext.workers"), what="a checkpoint")
    db.execute("SELECT streamext.pause('s')")
    for _ in range(2):
        for view in VIEWS:
            db.execute("SELECT streamext.rebuild(%s::regclass)", view)
        wait_for(lambda: {counts(db, view) for view in VIEWS} == {(0, 0, 0)}, what="views begun anew")
        for view in VIEWS:
            db.assert_same(f"TABLE {view}", VIEWS[view].format("o"))
        crash(db)
        wait_for(lambda: state(db) == "paused", what="the worker")
        assert {counts(db, view) for view in VIEWS} == {(0, 0, 0)}
        for view in VIEWS:
            db.assert_same(f"TABLE {view}", VIEWS[view].format("o"))
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert_exact(db, 3000)
    source.produce(1000)
    crash(db)
    db.flush("s")
    assert_exact(db, 4000)


def test_a_rebuilt_view_in_a_process_of_its_own(own_db: Database, kafka: Kafka, topic: str) -> None:
    """The catch-up worker counts; one crash."""
    db = own_db
    db.server.configure({"streamext.catchup_min_rows": 100})
    db.server.reload()
    wait_for(lambda: db.value("SHOW streamext.catchup_min_rows") == "100", what="the setting")
    source = Source(db, kafka, topic)
    create_views(db)
    source.produce(3000)
    db.flush("s")
    db.execute("SELECT streamext.rebuild('windowed')")
    db.flush("s")
    assert_exact(db, 3000)
    db.execute("SELECT streamext.rebuild('grouped'), streamext.rebuild('windowed')")
    crash(db)
    db.flush("s")
    assert_exact(db, 3000)
    db.server.configure({"streamext.catchup_min_rows": 100_000})
    db.server.reload()


def test_a_replaced_view_shows_what_it_held(db: Database, source: Source) -> None:
    """As long as it is made of the same; a change of what is made of it at reading keeps what is counted."""
    create_views(db)
    source.produce(1000)
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    replaced = "CREATE OR REPLACE VIEW grouped WITH (streamext.continuous) AS "
    more = VIEWS["grouped"].replace(" FROM", ", sum(a) / count(*) AS mean FROM") + " HAVING count(*) > 1 ORDER BY g"
    db.execute(replaced + more.format("s"))
    db.assert_same("TABLE grouped", more.format("o"))
    db.execute(replaced + more.format("s WHERE a % 2 = 0"))
    wait_for(lambda: counts(db, "grouped") == (0, 0, 0), what="the view begun anew")
    db.assert_same("TABLE grouped", more.format("o"))
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    db.assert_same("TABLE grouped", more.format("o WHERE a % 2 = 0"))
    assert counts(db, "grouped") == (1000, 0, 0)


def test_a_view_moves_to_another_stream(db: Database) -> None:
    """It counts what the other local stream gets from then on, as a new view would."""
    source = Source(db)
    create_views(db)
    local_stream(db, columns=COLUMNS, name="other")
    continuous(db, "others", "SELECT count(*) AS n FROM other")
    db.execute("INSERT INTO other SELECT 1, 1, now() FROM generate_series(1, 100)")
    source.produce(10)
    db.flush("s", "other")
    db.execute("CREATE OR REPLACE VIEW grouped WITH (streamext.continuous) AS " + VIEWS["grouped"].format("other"))
    db.execute("INSERT INTO other VALUES (5, 1, now())")
    db.flush("s", "other")
    assert db.rows("TABLE grouped") == [(1, 1, 5, 5)]
    assert db.rows("TABLE others") == [(101,)]
    assert counts(db, "grouped") == (1, 0, 0)


def test_what_cannot_be_rebuilt(db: Database) -> None:
    Source(db)
    db.execute("CREATE TABLE target (a bigint); CREATE VIEW plain AS SELECT 1")
    continuous(db, "copied", "SELECT a FROM s", ", streamext.into = 'target'")
    for view, error in (("copied", psycopg.errors.FeatureNotSupported), ("plain", psycopg.errors.WrongObjectType)):
        with pytest.raises(error):
            db.execute("SELECT streamext.rebuild(%s::regclass)", view)


# ---------------------------------------------------------------- seek


def seeks(db: Database) -> list[tuple[int, str]]:
    return db.rows("SELECT missed, detail FROM streamext.stream_events WHERE kind = 'seek' ORDER BY id")


def test_seek_forward_skips(db: Database, source: Source) -> None:
    create_views(db)
    source.produce(1000)
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    db.execute("CREATE TABLE counted AS TABLE o")
    source.produce(500)
    db.execute("SELECT streamext.seek('s', 'latest')")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    ((skipped, detail),) = wait_for(lambda: seeks(db), what="the event")
    assert skipped == 500 if source.kafka else skipped > 0
    assert "to latest" in detail
    db.execute("TRUNCATE o; INSERT INTO o TABLE counted")
    assert_exact(db, 1000)
    source.produce(300)
    db.flush("s")
    assert_exact(db, 1300)
    if source.kafka:  # a new view begins at the stream's start
        continuous(db, "later", "SELECT count(*) AS n FROM s")
        db.flush("s")
        assert db.value("SELECT n FROM later") == 1800


def test_seek_back_counts_nothing_twice(db: Database, source: Source) -> None:
    """Without rebuild nothing happens; with it all views begin anew, and show what they held until then."""
    create_views(db)
    source.produce(1000)
    db.flush("s")
    db.execute("SELECT streamext.seek('s', 'earliest')")
    source.produce(100)
    db.flush("s")
    assert_exact(db, 1100)
    ((skipped, detail),) = wait_for(lambda: seeks(db), what="the event")
    assert skipped == 0 and "0 partitions moved" in detail
    db.execute("SELECT streamext.pause('s')")
    db.execute("SELECT streamext.seek('s', 'earliest', rebuild => true)")
    wait_for(lambda: counts(db, "grouped") == (0, 0, 0), what="views begun anew")
    for view in VIEWS:
        db.assert_same(f"TABLE {view}", VIEWS[view].format("o"))
    db.execute("SELECT streamext.resume('s')")
    source.produce(100)
    db.flush("s")
    assert_exact(db, 1200)
    assert db.value("SELECT rows_in FROM streamext.streams") == 1200


def test_seek_an_offset_and_a_time(db: Database, kafka: Kafka, topic: str) -> None:
    source = Source(db, kafka, topic)
    create_views(db)
    source.produce(1000)
    db.flush("s")
    # of partition 0, which has 500 of them, from the 200th on; of the other from the beginning
    db.execute("SELECT streamext.seek('s', %s, 0, 200, rebuild => true)", topic)
    db.flush("s")
    db.execute("DELETE FROM o WHERE a IN (SELECT a FROM o WHERE a / 100 %% 2 = 0 ORDER BY a LIMIT 200)".replace("%%", "%"))
    assert_exact(db, 800)
    continuous(db, "later", "SELECT count(*) AS n FROM s")
    db.flush("s")
    assert db.value("SELECT n FROM later") == 800
    db.execute("SELECT streamext.pause('s')")
    db.execute("CREATE TABLE counted AS TABLE o")
    source.produce(100)
    db.execute("SELECT streamext.seek('s', now() + interval '1 hour')")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    db.execute("TRUNCATE o; INSERT INTO o TABLE counted")
    source.produce(100)
    db.flush("s")
    assert_exact(db, 900)


def test_seek_while_the_worker_starts(own_db: Database, own_source: Source) -> None:
    """It has not looked yet what its source is. Nor is a seek passed over that another session commits first."""
    db, source = own_db, own_source
    create_views(db)
    source.produce(100)
    db.flush("s")
    db.configure("streamext.fault_point", "wait pause-read")
    db.server.restart(FAST)
    db.connection = db.connect()
    db.execute("SELECT streamext.seek('s', 'earliest')")
    with db.connect() as other:
        other.execute("SET lock_timeout = 100")
        db.execute("BEGIN; SELECT streamext.seek('s', 'earliest')")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("SELECT streamext.seek('s', 'earliest')")
        db.execute("COMMIT")
    db.configure("streamext.fault_point", "")
    db.flush("s")
    assert_exact(db, 100)
    wait_for(lambda: len(seeks(db)) == 2, what="the events")


@pytest.mark.parametrize("undone", [False, True])
def test_resume_while_the_worker_starts(own_db: Database, own_source: Source, undone: bool) -> None:
    """The worker has looked into the catalogue before the stream was resumed, and goes on after it."""
    db, source = own_db, own_source
    create_views(db)
    db.execute("SELECT streamext.pause('s')")
    source.produce(100)
    db.configure("streamext.fault_point", "wait pause-read")
    crash(db)
    wait_for(
        lambda: db.value(
            "SELECT bool_or(backend_xmin IS NOT NULL AND wait_event = 'Extension')"
            " FROM pg_stat_activity JOIN streamext.workers USING (pid)"
        ),
        what="the worker at the fault point",
    )
    db.execute("BEGIN; SELECT streamext.resume('s'); " + ("ROLLBACK" if undone else "COMMIT"))
    db.configure("streamext.fault_point", "")
    if undone:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is paused"):
            db.flush("s")
        wait_for(lambda: state(db) == "paused", what="state paused")
    else:
        db.flush("s")
        assert_exact(db, 100)


def test_pause_while_the_worker_starts(own_db: Database, own_source: Source) -> None:
    """It takes effect before it is committed, although the worker finds nothing of it in the table."""
    db, source = own_db, own_source
    create_views(db)
    source.produce(100)
    db.flush("s")
    db.configure("streamext.fault_point", "wait refresh-begin")
    crash(db)
    waits = "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = %s"
    wait_for(lambda: db.rows(waits, worker_pid(db)) == [(True,)], what="the worker at the fault point")
    other = db.connect()
    pausing = threading.Thread(target=lambda: other.execute("BEGIN; SELECT streamext.pause('s')"))
    pausing.start()
    wait_for(lambda: db.value(waits, other.info.backend_pid), what="the call that waits for the worker")
    db.configure("streamext.fault_point", "")
    pausing.join()
    assert state(db) == "paused"
    other.execute("COMMIT")
    other.close()
    assert state(db) == "paused"


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_seek_outlives_a_crash(own_db: Database, own_source: Source, rebuild: bool) -> None:
    db, source = own_db, own_source
    create_views(db)
    source.produce(1000)
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    db.execute("CREATE TABLE counted AS TABLE o")
    source.produce(500)
    db.execute("SELECT streamext.seek('s', %s, %s)", "earliest" if rebuild else "latest", rebuild)
    crash(db)
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    crash(db)
    source.produce(10)
    db.flush("s")
    if not rebuild:
        db.execute("INSERT INTO counted SELECT * FROM o WHERE a >= 1500; TRUNCATE o; INSERT INTO o TABLE counted")
    assert_exact(db, 1510 if rebuild else 1010)


def test_a_new_source_is_accepted(db: Database, kafka: Kafka, topic: str) -> None:
    """The topic was made anew, with fewer partitions: views keep what they have and go on with what it holds."""
    source = Source(db, kafka, topic)
    create_views(db)
    source.produce(1000)
    db.flush("s")
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 1)
    kafka.produce(topic, [f'{{"a":{a},"g":0,"ts":"2024-05-01 10:05:00Z"}}' for a in range(1000, 1100)])
    wait_for(lambda: state(db) == "diverged", what="state diverged")
    db.execute("SELECT streamext.seek('s', 'earliest')")
    db.flush("s")
    db.execute("INSERT INTO o SELECT a, 0, '2024-05-01 10:05:00Z' FROM generate_series(1000, 1099) AS a")
    assert state(db) == "running"
    assert_exact(db, 1100)
    kafka.produce(topic, ['{"a":1100,"g":0,"ts":"2024-05-01 10:05:00Z"}'])
    db.flush("s")
    assert counts(db, "grouped") == (1101, 0, 0)


def test_what_cannot_be_sought(db: Database, kafka: Kafka, topic: str) -> None:
    source = Source(db, kafka, topic)
    source.produce(10)
    db.flush("s")
    local_stream(db, name="here")
    for call, error in (
        ("'s', 'sometime'", psycopg.errors.InvalidDatetimeFormat),
        (f"'s', '{topic}', 0, -1", psycopg.errors.InvalidParameterValue),
        (f"'s', '{topic}', 7, 1", psycopg.errors.InvalidParameterValue),
        (f"'s', '{topic}', 0, 1000", psycopg.errors.InvalidParameterValue),
        ("'s', 'other', 0, 1", psycopg.errors.InvalidParameterValue),
        ("'here', now()", psycopg.errors.FeatureNotSupported),
        ("'pg_class', 'latest'", psycopg.errors.WrongObjectType),
    ):
        with pytest.raises(error):
            db.execute(f"SELECT streamext.seek({call})")


def test_a_position_that_is_none_is_told_which_there_are(db: Database) -> None:
    local_stream(db, "", "a int")
    for position in ("begin", "2026-13-01"):
        with pytest.raises(psycopg.errors.DataError) as error:
            db.execute("SELECT streamext.seek('s', %s)", position)
        assert "'earliest', 'latest' or a time" in error_of(error)[2]
