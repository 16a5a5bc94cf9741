"""A view that takes too long, or whose owner has enough memory, goes on by itself: the stream and its other views do not wait."""


import psycopg
import pytest

from harness.database import Database
from harness.gate import Gate
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.streams import continuous, is_alive, kafka_stream, local_stream, mqtt_stream, state
from harness.wait import wait_for

COUNTED = "SELECT count(*) AS n, sum(a)::bigint AS total FROM {}"

SETTINGS = {"streamext.view_time_limit": "500ms", "streamext.memory_limit": "64MB"}


@pytest.fixture
def stream(database: Database, kafka: Kafka, topic: str) -> str:
    """`s` over the topic, which is returned, with the numbers below 100, and the view `others` that has counted them."""
    kafka.create_topic(topic)
    kafka_stream(database, kafka, f"topic '{topic}'", "a bigint")
    continuous(database, "others", COUNTED.format("s"))
    produce(kafka, topic, 0, 100)
    database.flush("s")
    return topic


def produce(kafka: Kafka, topic: str, start: int, end: int) -> None:
    kafka.produce(topic, [f'{{"a": {a}}}' for a in range(start, end)])


def numbers(end: int) -> str:
    return COUNTED.format(f"(SELECT a::bigint FROM generate_series(0, {end - 1}) AS a) AS o")


def worker_pid(db: Database, besides: int = 0) -> int:
    """The stream's, not that of views by themselves."""
    query = "SELECT pid FROM streamext.workers WHERE task = 'stream' AND pid IS NOT NULL AND pid <> %s"
    return wait_for(lambda: next((pid for (pid,) in db.rows(query, besides)), 0), what="the stream's worker")


def view(db: Database, name: str) -> tuple[str, str]:
    """State and last error."""
    return db.rows("SELECT state, coalesce(last_error, '') FROM streamext.continuous_views WHERE view = %s::regclass", name)[0]


def wait_alone(db: Database, name: str, reason: str = "streamext.view_time_limit") -> None:
    wait_for(lambda: view(db, name)[0] == "catching_up" and reason in view(db, name)[1], what=f"{name} by itself")


def assert_counted(db: Database, name: str, end: int) -> None:
    """Also by a view that does not happen to be waited for, on a machine that is very busy."""
    wait_for(lambda: (db.value(f"SELECT n FROM {name}") or 0) >= end, what=f"{name} at {end}")
    db.assert_same(f"TABLE {name}", numbers(end))


def wait_back(db: Database, name: str) -> None:
    wait_for(lambda: view(db, name) == ("running", ""), what=f"{name} with the others again")


def test_a_slow_view_goes_on_by_itself(database: Database, kafka: Kafka, stream: str) -> None:
    db = database
    notices: list[str] = []
    with Gate(db) as gate:
        continuous(db, "slow", COUNTED.format(f"s WHERE {gate.passes('a <> 150')}"))
        db.flush("s")
        pid = worker_pid(db)
        produce(kafka, stream, 100, 200)
        wait_alone(db, "slow")
        db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        db.flush("s")  # does not wait for it
        assert 'continuous view "slow" goes on by itself and was not waited for' in notices
        assert_counted(db, "others", 200)
        assert worker_pid(db) == pid
        wait_for(lambda: state(db) == "running", what="the stream running")
        assert 100 <= db.value("SELECT n FROM slow") <= 150
        # on a busy machine the other view may have taken too long as well
        events = db.rows("SELECT kind, detail FROM streamext.stream_events WHERE stream = 's'::regclass AND detail LIKE '%\"slow\"%'")
        assert [kind for kind, _ in events] == ["slow_view"] and "streamext.view_time_limit" in events[0][1]
    wait_back(db, "slow")
    produce(kafka, stream, 200, 300)
    db.flush("s")
    assert_counted(db, "slow", 300)
    assert_counted(db, "others", 300)
    assert db.rows("SELECT DISTINCT accepted, late, rejected FROM streamext.continuous_views") == [(300, 0, 0)]
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 0


@pytest.mark.parametrize("source", ["local", "mqtt"])
def test_of_a_stream_with_a_journal(database: Database, mosquitto: Mosquitto, topic: str, source: str) -> None:
    """It is read from the journal, which is kept for it."""
    db = database
    if source == "local":
        local_stream(db, columns="a bigint")
    else:
        mqtt_stream(db, mosquitto, f"topic '{topic}'", "a bigint")
        wait_for(lambda: state(db) == "running", what="the subscription")

    def send(start: int, end: int) -> None:
        if source == "local":
            db.execute("INSERT INTO s SELECT generate_series(%s::int, %s::int)", start, end - 1)
        else:
            mosquitto.publish((topic, f'{{"a": {a}}}') for a in range(start, end))

    continuous(db, "others", COUNTED.format("s"))
    with Gate(db) as gate:
        continuous(db, "slow", COUNTED.format(f"s WHERE {gate.passes('a <> 150')}"))
        db.flush("s")
        send(0, 100)
        db.flush("s")
        send(100, 200)
        wait_alone(db, "slow")
        assert_counted(db, "others", 200)
        send(200, 300)
        assert_counted(db, "others", 300)
        assert db.value("SELECT n FROM slow") < 200
    wait_back(db, "slow")
    send(300, 400)
    db.flush("s")
    assert_counted(db, "others", 400)
    assert_counted(db, "slow", 400)


def sleeper(db: Database, name: str, body: str) -> None:
    db.execute(f"CREATE FUNCTION {name}(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF $1 = 2 THEN {body} END IF; RETURN true; END $$")


@pytest.mark.slow
def test_a_record_that_takes_an_hour(database: Database, kafka: Kafka, stream: str) -> None:
    """It holds up its view alone, which goes on when it is replaced, and can be dropped."""
    db = database
    sleeper(db, "sleeps", "PERFORM pg_sleep(3600);")
    continuous(db, "slow", COUNTED.format("s WHERE sleeps(a)"))
    wait_for(lambda: "one record" in view(db, "slow")[1], what="a batch of one record")
    continuous(db, "dropped", COUNTED.format("s WHERE sleeps(a)"))
    wait_alone(db, "dropped")
    produce(kafka, stream, 100, 200)
    db.flush("s")
    assert_counted(db, "others", 200)
    wait_for(lambda: state(db) == "running", what="the stream running")
    assert db.value("SELECT n FROM slow") == 2  # what came before has counted
    db.execute("DROP VIEW dropped")
    db.execute("CREATE OR REPLACE VIEW slow WITH (streamext.continuous) AS " + COUNTED.format("s"))
    wait_back(db, "slow")
    db.flush("s")
    assert_counted(db, "slow", 200)


def test_slow_views_take_turns(database: Database, kafka: Kafka, stream: str) -> None:
    """One that gets nowhere does not keep another one from getting on."""
    db = database
    sleeper(db, "sleeps", "PERFORM pg_sleep(3600);")
    continuous(db, "stuck", COUNTED.format("s WHERE sleeps(a)"))
    wait_alone(db, "stuck")
    with Gate(db) as gate:
        continuous(db, "slow", COUNTED.format(f"s WHERE {gate.passes('a <> 20')}"))
        wait_alone(db, "slow")
    wait_back(db, "slow")
    db.flush("s")
    assert_counted(db, "slow", 100)
    assert view(db, "stuck")[0] == "catching_up"
    # neither does it keep a new one
    continuous(db, "fresh", COUNTED.format("s"))
    wait_for(lambda: db.value("SELECT n FROM fresh") == 100, what="the new view")


def test_one_that_will_not_be_cancelled(database: Database, kafka: Kafka, stream: str) -> None:
    """The process ends, and the others go on in the next one."""
    db = database
    sleeper(db, "stays", "LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;")
    pid = worker_pid(db)
    continuous(db, "slow", COUNTED.format("s WHERE stays(a)"))
    wait_for(lambda: not is_alive(pid), what="the end of the worker")
    wait_for(lambda: "could not be cancelled" in view(db, "slow")[1], what="the view by itself")
    pid = worker_pid(db, besides=pid)
    produce(kafka, stream, 100, 200)
    db.flush("s")
    assert_counted(db, "others", 200)
    assert worker_pid(db) == pid
    db.execute("DROP VIEW slow")


def test_a_view_that_does_not_react_to_its_cancel(database: Database, kafka: Kafka, stream: str) -> None:
    """Code in C may take hours without a look for interrupts, and nothing ends it: it is told which view it is while it lasts."""
    db = database
    continuous(db, "slow", COUNTED.format("s WHERE a <> 150 OR strpos(repeat('a', 300000 + a::int), 'b' || repeat('a', 150000)) = 0"))
    db.flush("s")
    produce(kafka, stream, 100, 200)
    wait_for(lambda: state(db) == "stalled", what="the stream that waits for the view")
    assert 'continuous view "slow"' in db.value("SELECT last_error FROM streamext.streams")
    assert "does not react" in view(db, "slow")[1]
    db.execute("DROP VIEW slow")
    stalled = db.rows("SELECT last_error FROM streamext.streams WHERE state = 'stalled'")
    assert all(error.startswith("a continuous view that is dropped has") for (error,) in stalled)
    wait_for(lambda: state(db) == "running", what="the stream without the view")
    db.flush("s")
    assert_counted(db, "others", 200)


def test_a_limit_of_a_part_of_a_millisecond(database: Database, kafka: Kafka, stream: str) -> None:
    """It is one of a millisecond, and not none."""
    db = database
    db.configure("streamext.view_time_limit", "0.1")
    with Gate(db) as gate:
        continuous(db, "slow", COUNTED.format(f"s WHERE {gate.passes('a <> 50')}"))
        wait_alone(db, "slow")
        db.configure("streamext.view_time_limit", "500")
        db.execute("DROP VIEW slow")
    db.flush("s")
    assert_counted(db, "others", 100)


def test_without_a_limit(database: Database, kafka: Kafka, stream: str) -> None:
    db = database
    db.configure("streamext.view_time_limit", "0")
    with Gate(db) as gate:
        continuous(db, "slow", COUNTED.format(f"s WHERE {gate.passes('a <> 150')}"))
        db.flush("s")
        produce(kafka, stream, 100, 200)
        gate.wait_until_held()
        db.configure("streamext.view_time_limit", "500")
        assert view(db, "slow") == ("running", "")
    db.flush("s")
    assert_counted(db, "slow", 200)
    assert_counted(db, "others", 200)


def test_an_owner_has_a_share_of_memory(database: Database, kafka: Kafka, stream: str) -> None:
    db = database
    db.configure("streamext.owner_memory_share", "10")
    db.execute("CREATE ROLE greedy; GRANT CREATE ON SCHEMA public TO greedy; GRANT SELECT ON s TO greedy")
    try:
        with db.connection.transaction():
            continuous(db, "wide", "SELECT a, count(*) AS n, repeat('x', 1000) || a AS t FROM s GROUP BY a, t")
            db.execute("ALTER VIEW wide OWNER TO greedy")
        db.flush("s")
        produce(kafka, stream, 100, 20_000)
        wait_for(lambda: view(db, "wide")[0] == "full", what="the view full")
        assert "streamext.owner_memory_share" in view(db, "wide")[1]
        produce(kafka, stream, 20_000, 20_100)
        db.flush("s")
        assert_counted(db, "others", 20_100)
        wait_for(lambda: state(db) == "running", what="the stream running")
        db.configure("streamext.owner_memory_share", "100")
        wait_back(db, "wide")
        db.assert_same("SELECT a, n FROM wide", "SELECT a::bigint, 1::bigint FROM generate_series(0, 20099) AS a")
    finally:
        db.execute("DROP OWNED BY greedy CASCADE; DROP ROLE greedy")


def test_an_owner_has_a_number_of_workers(database: Database) -> None:
    db = database
    db.configure("streamext.owner_workers", "1")
    local_stream(db, columns="a bigint", name="mine")
    continuous(db, "mine_counted", COUNTED.format("mine"))
    db.flush("mine")
    db.execute("CREATE ROLE greedy; GRANT CREATE ON SCHEMA public TO greedy; GRANT USAGE ON FOREIGN SERVER local_server TO greedy")
    try:
        connection = db.connect()
        connection.execute("SET ROLE greedy")
        for name in ("first", "second"):
            connection.execute(f"CREATE FOREIGN TABLE {name} (a bigint) SERVER local_server")
            # a stream whose worker has not started is waiting too; the second one must come second
            wait_for(lambda name=name: name == "second" or state(db, name) == "running", what="the first one")
        connection.close()
        waiting = "SELECT state FROM streamext.streams WHERE last_error LIKE '%%streamext.owner_workers%%'"
        wait_for(lambda: (state(db, "first"), state(db, "second")) == ("running", "waiting") and db.rows(waiting), what="one that waits")
        db.execute("INSERT INTO mine VALUES (0)")
        db.flush("mine")
        db.execute("DROP FOREIGN TABLE first")
        wait_for(lambda: state(db, "second") == "running", what="the next one")
    finally:
        db.execute("DROP OWNED BY greedy CASCADE; DROP ROLE greedy")


def made(db: Database, statement: str) -> bool:
    """The worker of what was dropped gives the place back."""
    try:
        db.execute(statement)
    except psycopg.errors.ConfigurationLimitExceeded:
        return False
    return True


def test_an_owner_has_a_number_of_streams_and_views(database: Database) -> None:
    """One role could take all places of the server."""
    db = database
    local_stream(db, columns="a bigint", name="mine")
    db.configure("streamext.owner_streams", "2")
    db.configure("streamext.owner_views", "2")
    db.execute("CREATE ROLE greedy; GRANT CREATE ON SCHEMA public TO greedy; GRANT USAGE ON FOREIGN SERVER local_server TO greedy")
    db.execute("SET ROLE greedy")
    stream = "CREATE FOREIGN TABLE {} (a bigint) SERVER local_server"
    try:
        for name in ("first", "second"):
            db.execute(stream.format(name))
            continuous(db, f"{name}_counted", COUNTED.format(name))
        for setting, statement in (
            ("streams", stream.format("third")),
            ("views", "CREATE VIEW third WITH (streamext.continuous) AS SELECT count(*) FROM first"),
        ):
            refusal = db.refusal(statement)
            assert refusal.startswith("53400") and f"streamext.owner_{setting}" in refusal and '"greedy"' in refusal, refusal
            assert setting == "views" or "places are free a second or so later" in refusal, refusal
        db.execute("CREATE OR REPLACE VIEW first_counted WITH (streamext.continuous) AS SELECT count(a) AS n, min(a) AS total FROM first")
        db.execute("RESET ROLE")
        db.execute(stream.format("third"))
        continuous(db, "third_counted", COUNTED.format("third"))  # superusers' are not counted
        assert db.refusal("ALTER FOREIGN TABLE third OWNER TO greedy").startswith("53400")
        db.execute("DROP FOREIGN TABLE first CASCADE")
        db.execute("SET ROLE greedy")
        wait_for(lambda: made(db, stream.format("fourth")), what="the place of the first one")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY greedy CASCADE; DROP ROLE greedy")
        db.configure("streamext.owner_streams", "0")
        db.configure("streamext.owner_views", "0")
