"""What an MQTT broker remembers of a stream: it is the stream's present configuration, and nothing of an earlier one."""

import json
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.streams import continuous, error_of, mqtt_stream, state, worker_pid
from harness.wait import wait_for

VERSIONS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])
EXPECTED = "SELECT kind FROM streamext.stream_events WHERE stream = 's'::regclass ORDER BY id"


@pytest.fixture
def other() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker


def stream(db: Database, mosquitto: Mosquitto, filter: str, options: str = "") -> None:
    mqtt_stream(db, mosquitto, f"topic '{filter}'" + options, "a bigint, kept bool OPTIONS (metadata 'retained')")


def count(db: Database) -> None:
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.flush("s")


def numbers(topic: str, start: int, end: int) -> list[tuple[str, str]]:
    return [(topic, json.dumps({"a": i})) for i in range(start, end)]


def counted(db: Database) -> tuple[int, int]:
    db.flush("s")
    return db.rows("TABLE v")[0]


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_earlier_filter_is_no_more(db: Database, mosquitto: Mosquitto, topic: str, qos: int, protocol: str) -> None:
    """Widened, overlapping and narrowed: each message counts once, by the last filter."""
    stream(db, mosquitto, f"{topic}/a/b", f", qos '{qos}', protocol '{protocol}'")
    db.flush("s")
    for filter in ("a/+", "+/b", "#", "a/#"):
        db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET topic '{topic}/{filter}')")
        db.flush("s")
    count(db)
    mosquitto.publish(numbers(f"{topic}/a/b", 0, 20) + numbers(f"{topic}/c/b", 20, 30), qos=qos)
    assert counted(db) == (20, sum(range(20)))
    assert db.rows(EXPECTED) == []


@VERSIONS
def test_a_filter_that_was_changed_while_the_server_was_away(mosquitto: Mosquitto, topic: str, protocol: str) -> None:
    """The process that changes it is another one than that which had subscribed."""
    with Postgres() as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        stream(db, mosquitto, f"{topic}/a/b", f", protocol '{protocol}', client_id 'first-{topic}'")
        db.flush("s")
        server.stop()
        server.start()
        db = Database(server, "postgres")
        db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET topic '{topic}/#')")
        db.flush("s")
        count(db)
        mosquitto.publish(numbers(f"{topic}/a/b", 0, 20))
        assert counted(db) == (20, sum(range(20)))


@VERSIONS
def test_retained_messages_come_once(db: Database, topic: str, protocol: str) -> None:
    """Not again with each connection, be it the broker, the worker or the server that was away."""
    with Mosquitto() as broker:
        broker.publish([(f"{topic}/a", '{"a":1}'), (f"{topic}/b", '{"a":2}')], retain=True)
        stream(db, broker, f"{topic}/#", f", protocol '{protocol}'")
        count(db)
        broker.publish(numbers(f"{topic}/c", 3, 4))
        assert counted(db) == (3, 6)
        for _ in range(2):
            broker.stop()
            wait_for(lambda: state(db) == "stalled", what="state stalled")
            broker.start()
            wait_for(lambda: state(db) == "running", what="state running")
            assert counted(db) == (3, 6)
            pid = worker_pid(db)
            db.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
            worker_pid(db, besides=pid)
            assert counted(db) == (3, 6)
        # a retained message that is published now is one, and one more at the broker
        broker.publish([(f"{topic}/a", '{"a":4}')], retain=True)
        assert counted(db) == (4, 10)
        for qos in (2, 0, 1):
            option = "SET" if qos < 2 else "ADD"
            db.execute(f"ALTER FOREIGN TABLE s OPTIONS ({option} qos '{qos}')")
            assert counted(db) == (4, 10)
        broker.publish(numbers(f"{topic}/c", 5, 6))
        assert counted(db) == (5, 15)


@VERSIONS
def test_a_broker_that_lost_only_the_subscription(db: Database, topic: str, protocol: str) -> None:
    """flush finds out that nothing comes, and the stream subscribes anew."""
    with Mosquitto() as broker:
        stream(db, broker, f"{topic}/#", f", protocol '{protocol}', client_id 'mine'")
        count(db)
        pid = worker_pid(db)
        os.kill(pid, signal.SIGSTOP)
        try:
            broker.stop()
            for file in broker.dir.glob("*.db"):
                file.unlink()
            broker.start()
            assert not broker.has_session("mine")  # it is made by that, with no subscription
        finally:
            os.kill(pid, signal.SIGCONT)
        db.flush("s")
        broker.publish(numbers(f"{topic}/c", 0, 10))
        assert counted(db) == (10, 45)


@VERSIONS
def test_another_client_id(db: Database, mosquitto: Mosquitto, topic: str, protocol: str) -> None:
    """The session of the former one ends."""
    first, second = f"first-{topic}", f"second-{topic}"
    stream(db, mosquitto, f"{topic}/#", f", protocol '{protocol}', client_id '{first}'")
    count(db)
    mosquitto.publish(numbers(f"{topic}/c", 0, 10))
    assert counted(db) == (10, 45)
    db.execute(f"ALTER FOREIGN TABLE s OPTIONS (SET client_id '{second}')")
    db.flush("s")
    assert not mosquitto.has_session(first)
    mosquitto.publish(numbers(f"{topic}/c", 10, 11))
    assert counted(db) == (11, 55)
    db.execute("DROP FOREIGN TABLE s CASCADE")
    wait_for(lambda: not db.rows("TABLE streamext.workers"), what="the end of the worker")


@VERSIONS
def test_another_broker(db: Database, mosquitto: Mosquitto, other: Mosquitto, topic: str, protocol: str) -> None:
    """At the former one nothing is left; another name of the same one changes nothing."""
    client = f"client-{topic}"
    stream(db, mosquitto, f"{topic}/#", f", protocol '{protocol}', client_id '{client}'")
    count(db)
    mosquitto.publish(numbers(f"{topic}/c", 0, 10))
    assert counted(db) == (10, 45)
    db.execute("BEGIN")
    db.execute(f"ALTER SERVER mqtt_server OPTIONS (SET uri 'mqtt://127.0.0.1:{mosquitto.port}')")
    mosquitto.publish(numbers(f"{topic}/c", 10, 11))
    db.execute("COMMIT")
    mosquitto.publish(numbers(f"{topic}/c", 11, 12))
    assert counted(db) == (12, 66)
    db.execute(f"ALTER SERVER mqtt_server OPTIONS (SET uri '{other.uri}')")
    db.flush("s")
    assert not mosquitto.has_session(client)
    other.publish(numbers(f"{topic}/c", 12, 13))
    assert counted(db) == (13, 78)


def test_what_is_refused(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    for filter in ("$queue/", "$exclusive/", "$q/", "$share/x/", "$share/x"):
        with pytest.raises(psycopg.Error) as error:
            stream(db, mosquitto, filter)
        assert error_of(error)[0] == "HV024", filter
    with pytest.raises(psycopg.Error) as error:
        stream(db, mosquitto, f"$exclusive/{topic}", ", workers '2'")
    assert error_of(error)[0] == "HV00D" and "$exclusive/" in error_of(error)[2]
