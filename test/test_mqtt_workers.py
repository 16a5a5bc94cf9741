"""Several workers on one MQTT stream: the broker gives each message to one of them, and a view is the sum of all."""

import threading

import psycopg
import pytest

from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.sensors import Plant
from harness.streams import (
    BY_TS, VIEWS, assert_views, continuous, counts, create_views, error_of, is_alive, mqtt_stream, table_of, worker_pids,
)  # fmt: skip
from harness.wait import wait_for

COLUMNS = "device text, site text OPTIONS (metadata 'topic_level 3'), ts timestamptz, temperature float8, humidity float8"


def numbers(topic: str, start: int, end: int) -> list[tuple[str, str]]:
    return [(f"{topic}/x{i % 7}", f'{{"a":{i}}}') for i in range(start, end)]


def count_stream(db: Database, mosquitto: Mosquitto, topic: str, options: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', {options}", "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.flush("s")


def assert_counted(db: Database, end: int) -> None:
    """Each of the numbers is counted, once."""
    db.flush("s")
    assert db.rows("TABLE v") == [(end, sum(range(end)))]


def rows_by_shard(db: Database) -> list[int]:
    return [n for (n,) in db.rows("SELECT rows_in FROM streamext.stream_partitions WHERE stream = 's'::regclass ORDER BY shard")]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_views_are_the_same(db: Database, mosquitto: Mosquitto, topic: str, workers: int) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/plant/+/+', {BY_TS}, workers '{workers}'", COLUMNS)
    create_views(db)
    db.flush("s")
    readings = list(Plant(devices=40, sites=5).readings(2000))
    mosquitto.publish([(f"{topic}/{r.mqtt_topic()}", r.json()) for r in readings])
    db.flush("s")
    table_of(db, readings)
    views = {name: query for name, query in VIEWS.items() if name != "sliding"}
    assert_views(db, "o", views=views)
    assert {counts(db, name) for name in views} == {(2000, 0, 0)}
    shares = rows_by_shard(db)
    assert len(shares) == workers and sum(shares) == 2000 and min(shares) > 0
    assert db.rows("SELECT shard, partition FROM streamext.stream_partitions ORDER BY shard") == [(i, i) for i in range(workers)]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_worker_is_away(db: Database, mosquitto: Mosquitto, topic: str, qos: int) -> None:
    """Its share waits in its session at the broker; nothing is lost, nothing comes twice."""
    count_stream(db, mosquitto, topic, f"qos '{qos}', workers '2'")
    mosquitto.publish(numbers(topic, 0, 300), qos=qos)
    for end in (600, 900):
        pid = worker_pids(db)[end // 900]
        db.execute("SELECT pg_terminate_backend(%s)", pid)
        mosquitto.publish(numbers(topic, end - 300, end), qos=qos)
        wait_for(lambda: pid not in worker_pids(db) and len(worker_pids(db)) == 2, what="another worker")
    assert_counted(db, 900)


def test_more_workers(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """They join, while messages flow, and the views go on."""
    count_stream(db, mosquitto, topic, "workers '2'")
    mosquitto.publish(numbers(topic, 0, 300))
    db.flush("s")
    db.execute("ALTER FOREIGN TABLE s OPTIONS (SET workers '4')")
    mosquitto.publish(numbers(topic, 300, 600))
    db.flush("s")
    mosquitto.publish(numbers(topic, 600, 1000))
    assert_counted(db, 1000)
    shares = rows_by_shard(db)
    assert len(shares) == 4 and min(shares) > 0


def test_a_subscription_that_is_shared_already(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """The workers are members of that group, beside others."""
    others: list[bytes] = []
    subscribed = threading.Event()
    client = mosquitto.client(on_message=lambda *arguments: others.append(arguments[2].payload))
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe(f"$share/team/{topic}/#", 1)
    assert subscribed.wait(30)
    mqtt_stream(db, mosquitto, f"topic '$share/team/{topic}/#', workers '2'", "a bigint")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.flush("s")
    mosquitto.publish(numbers(topic, 0, 300))
    db.flush("s")
    n = db.value("SELECT n FROM v")
    assert 0 < n < 300
    wait_for(lambda: len(others) >= 300 - n, what="the others")
    assert len(others) == 300 - n
    client.disconnect()
    client.loop_stop()


def test_what_is_refused(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    with pytest.raises(psycopg.Error, match="needs protocol 5"):
        mqtt_stream(db, mosquitto, f"topic '{topic}', workers '2', protocol '3.1.1'", "a int")
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a int", name="one")
    mqtt_stream(db, mosquitto, f"topic '{topic}', workers '4'", "a int", name="four")
    for change in (
        "one OPTIONS (ADD workers '2')", "four OPTIONS (SET workers '2')", "four OPTIONS (DROP workers)", "four OPTIONS (ADD protocol '3.1.1')",
    ):  # fmt: skip
        with pytest.raises(psycopg.Error) as error:
            db.execute(f"ALTER FOREIGN TABLE {change}")
        assert error_of(error)[0] in ("0A000", "HV00D"), change
    db.execute("ALTER FOREIGN TABLE one OPTIONS (ADD workers '1')")


@pytest.mark.parametrize("workers, protocol", [(1, "5"), (2, "5"), (1, "3.1.1")])
def test_a_dropped_stream_leaves_no_session(db: Database, mosquitto: Mosquitto, topic: str, workers: int, protocol: str) -> None:
    """It would hold messages for a client that never comes again."""
    app = f"app-{topic}"
    count_stream(db, mosquitto, topic, f"client_id '{app}', workers '{workers}', protocol '{protocol}'")
    pids = worker_pids(db)
    db.execute("DROP FOREIGN TABLE s CASCADE")
    wait_for(lambda: not any(map(is_alive, pids)), what="end of the workers")
    for client_id in [app] if workers == 1 else [f"{app}-{i}" for i in range(workers)]:
        assert not mosquitto.has_session(client_id)
