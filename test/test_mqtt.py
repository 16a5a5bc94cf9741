"""MQTT end to end: each message that the broker promised to deliver is in the views."""

import json
from pathlib import Path

import psycopg
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.sensors import Plant
from harness.streams import (
    BY_TS, VIEWS, assert_views, continuous, counts, create_views, mqtt_stream, state, table_of, worker_pid,
)  # fmt: skip
from harness.wait import wait_for


def numbers(topic: str, start: int, end: int) -> list[tuple[str, str]]:
    return [(f"{topic}/x", f'{{"a":{i}}}') for i in range(start, end)]


def count_stream(db: Database, mosquitto: Mosquitto, topic: str, options: str = "") -> None:
    """A stream of {"a": number} below `topic` and the view v (n, total); subscribed when this returns."""
    mqtt_stream(db, mosquitto, f"topic '{topic}/#'" + options, "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.flush("s")


def assert_counted(db: Database, start: int, end: int) -> None:
    """Each of the numbers is counted, once."""
    db.flush("s")
    assert db.rows("TABLE v") == [(end - start, sum(range(start, end)))]


VERSIONS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


def test_views_hold_postgresqls_own_answer(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    columns = "device text, site text OPTIONS (metadata 'topic_level 3'), ts timestamptz, temperature float8, humidity float8"
    mqtt_stream(db, mosquitto, f"topic '{topic}/plant/+/+', {BY_TS}", columns)
    create_views(db)
    db.flush("s")
    readings = list(Plant(devices=40, sites=5).readings(3000))
    mosquitto.publish([(f"{topic}/{r.mqtt_topic()}", r.json().replace(r.site, "elsewhere")) for r in readings])
    db.flush("s")
    table_of(db, readings)
    views = {name: query for name, query in VIEWS.items() if name != "sliding"}
    assert_views(db, "o", views=views)
    assert {counts(db, name) for name in views} == {(3000, 0, 0)}


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_quality_of_service(db: Database, mosquitto: Mosquitto, topic: str, qos: int, protocol: str) -> None:
    count_stream(db, mosquitto, topic, f", qos '{qos}', protocol '{protocol}'")
    mosquitto.publish(numbers(topic, 0, 2000), qos=qos)
    assert_counted(db, 0, 2000)
    assert state(db) == "running"


def test_metadata_columns(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', qos '1'", """a int, t text OPTIONS (metadata 'topic'),
        two text OPTIONS (metadata 'topic_level 2'), four text OPTIONS (metadata 'topic_level 4'),
        qos int OPTIONS (metadata 'qos'), kept bool OPTIONS (metadata 'retained'), at timestamptz OPTIONS (metadata 'timestamp')""")
    continuous(db, "v", "SELECT a, t, two, four, qos, kept, count(*) AS n, max(at) AS at FROM s GROUP BY a, t, two, four, qos, kept")
    db.flush("s")
    mosquitto.publish([(f"{topic}/x", '{"a":1}'), (f"{topic}/x//ü", '{"a":2}')], qos=1)
    mosquitto.publish([(topic, '{"a":3}')], qos=0)
    db.flush("s")
    assert db.rows("SELECT a, t, two, four, qos, kept, n FROM v ORDER BY a") == [
        (1, f"{topic}/x", "x", None, 1, False, 1),
        (2, f"{topic}/x//ü", "x", "ü", 1, False, 1),
        (3, topic, None, None, 0, False, 1),
    ]
    assert db.value("SELECT bool_and(at BETWEEN now() - interval '1 minute' AND now()) FROM v")
    assert db.rows("SELECT a, t, two, four, qos, kept FROM s ORDER BY a") == db.rows(
        "SELECT a, t, two, four, qos, kept FROM v ORDER BY a"
    )


# User properties, and the JSON that the metadata column `headers` shows.
PROPERTIES: list[tuple[list[tuple[str, str]], object]] = [
    ([], None), ([("unit", "°C")], {"unit": "°C"}), ([("", "")], {"": ""}), ([("a", ""), ("b", "1")], {"a": "", "b": "1"}),
    ([("a", "1"), ("a", "2")], {"a": "2"}), ([('q"', "\\{}")], {'q"': "\\{}"}), ([("x", "y" * 60_000)], {"x": "y" * 60_000}),
    ([("x", "y" * 33_000), ("z", "y" * 33_000)], None),  # more than the journal takes with a topic
]  # fmt: skip


def test_user_properties_are_headers(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    for name, protocol, workers in (("s", "5", 1), ("w", "5", 2), ("old", "3.1.1", 1)):
        columns = "a int, t text OPTIONS (metadata 'topic'), h jsonb OPTIONS (metadata 'headers'), k text OPTIONS (metadata 'key')"
        mqtt_stream(db, mosquitto, f"topic '{topic}/#', protocol '{protocol}', workers '{workers}'", columns, name)
        continuous(db, f"v_{name}", f"SELECT a, t, h, k, count(*) FROM {name} GROUP BY a, t, h, k")
        db.flush(name)
    client = mosquitto.client()
    for i, (pairs, _) in enumerate(PROPERTIES):
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = pairs
        properties.ContentType = "application/json"
        client.publish(f"{topic}/x", f'{{"a":{i}}}', i % 3, properties=properties).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()
    expected = [(i, f"{topic}/x", headers, None, 1) for i, (_, headers) in enumerate(PROPERTIES)]
    for name in ("s", "w"):
        wait_for(lambda: db.value("SELECT rows_in FROM streamext.streams WHERE stream = %s::regclass", name) == len(PROPERTIES), what="messages")
        db.flush(name)  # the buffer follows the views
        assert db.rows(f"TABLE v_{name} ORDER BY a") == expected
        db.assert_same(f"SELECT a, t, h, k, 1::bigint FROM {name}", f"TABLE v_{name}")
    db.flush("old")
    assert db.value("SELECT count(*) FROM v_old WHERE h IS NULL") == len(PROPERTIES)


def test_only_the_filters_topics(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """A stream takes the topics of its own filter; two streams may take the same message."""
    for name, filter in {"one": f"{topic}/+/temperature", "all": f"{topic}/#"}.items():
        mqtt_stream(db, mosquitto, f"topic '{filter}'", "a int", f'"{name}"')
        continuous(db, f"v_{name}", f'SELECT count(*) AS n, sum(a) AS total FROM "{name}"')
        db.flush(f'"{name}"')
    paths = ["d1/temperature", "d2/temperature", "d1/humidity", "d1/x/temperature", "temperature"]
    mosquitto.publish([(f"{topic}/{path}", json.dumps({"a": 10**i})) for i, path in enumerate(paths)])
    db.flush("one", '"all"')
    assert db.rows("TABLE v_one") == [(2, 11)]
    assert db.rows("TABLE v_all") == [(5, 11111)]


def test_everything_by_one_filter(db: Database) -> None:
    """flush's own traffic is no message of the stream."""
    with Mosquitto() as broker:
        mqtt_stream(db, broker, "topic '#'", "a int")
        continuous(db, "v", "SELECT count(*) AS n FROM s")
        for i in range(3):
            db.flush("s")
            broker.publish([(f"t{i}", '{"a":1}')])
        db.flush("s")
        assert db.rows("TABLE v") == [(3,)]
        assert db.rows("SELECT rows_in, rejected FROM streamext.streams") == [(3, 0)]


@VERSIONS
def test_retained_messages(db: Database, mosquitto: Mosquitto, topic: str, protocol: str) -> None:
    mosquitto.publish([(f"{topic}/a", '{"a":1}'), (f"{topic}/b", '{"a":2}')], retain=True)
    mqtt_stream(db, mosquitto, f"topic '{topic}/#', protocol '{protocol}'", "a int, kept bool OPTIONS (metadata 'retained')")
    continuous(db, "v", "SELECT kept, count(*) AS n, sum(a) AS total FROM s GROUP BY kept")
    db.flush("s")
    mosquitto.publish([(f"{topic}/a", '{"a":4}')])
    db.flush("s")
    assert sorted(db.rows("TABLE v")) == [(False, 1, 4), (True, 2, 3)]


@VERSIONS
@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_broker_restart(db: Database, topic: str, how: str, protocol: str) -> None:
    """Reconnects and is subscribed again by itself; what is published after the restart arrives, once."""
    with Mosquitto() as broker:
        count_stream(db, broker, topic, f", protocol '{protocol}'")
        broker.publish(numbers(topic, 0, 500))
        assert_counted(db, 0, 500)
        getattr(broker, how)()
        wait_for(lambda: state(db) == "stalled", what="state stalled")
        broker.start()
        wait_for(lambda: state(db) == "running", what="state running")
        broker.publish(numbers(topic, 500, 1000))
        assert_counted(db, 0, 1000)


def test_outages_are_events(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """Also one from the beginning; a stream that had none has none. The error has the address."""
    events = "SELECT kind FROM streamext.stream_events WHERE stream = %s::regclass ORDER BY id"
    count_stream(db, mosquitto, topic)
    assert db.rows(events, "s") == []
    with Mosquitto() as broker:
        broker.stop()
        db.execute(f"CREATE SERVER away FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        db.execute(f"CREATE FOREIGN TABLE t (a int) SERVER away OPTIONS (topic '{topic}')")
        wait_for(lambda: db.rows(events, "t") == [("stalled",)], what="event")
        assert broker.uri in db.value("SELECT last_error FROM streamext.streams WHERE stream = 't'::regclass")
        broker.start()
        db.flush("t")
        wait_for(lambda: db.rows(events, "t") == [("stalled",), ("recovered",)], what="event")


def test_a_broker_that_forgot_the_session(db: Database, topic: str) -> None:
    """The subscription is made anew."""
    with Mosquitto() as broker:
        count_stream(db, broker, topic)
        broker.stop()
        for file in Path(broker.dir).glob("*.db"):
            file.unlink()
        broker.start()
        wait_for(lambda: state(db) == "running", what="state running")
        db.flush("s")
        broker.publish(numbers(topic, 0, 10))
        assert_counted(db, 0, 10)


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_published_while_the_worker_is_away(
    db: Database, mosquitto: Mosquitto, topic: str, qos: int, protocol: str
) -> None:
    count_stream(db, mosquitto, topic, f", qos '{qos}', protocol '{protocol}'")
    mosquitto.publish(numbers(topic, 0, 100), qos=qos)
    db.flush("s")
    pid = worker_pid(db)
    db.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
    mosquitto.publish(numbers(topic, 100, 300), qos=qos)
    worker_pid(db, besides=pid)
    assert_counted(db, 0, 300)


def test_published_while_the_server_is_down(mosquitto: Mosquitto, topic: str) -> None:
    with Postgres() as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        count_stream(db, mosquitto, topic)
        mosquitto.publish(numbers(topic, 0, 100))
        db.flush("s")
        server.stop()
        mosquitto.publish(numbers(topic, 100, 200))
        server.start()
        assert_counted(Database(server, "postgres"), 0, 200)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("fault", ["mqtt-before-append", "mqtt-after-append"])
def test_killed_between_journal_and_acknowledgement(mosquitto: Mosquitto, topic: str, qos: int, fault: str) -> None:
    """The broker sends the message again: it is counted once, also when the next one is the same."""
    with Postgres() as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        count_stream(db, mosquitto, topic, f", qos '{qos}'")
        mosquitto.publish(numbers(topic, 0, 10), qos=qos)
        db.flush("s")
        worker_pid(db)
        db.execute(f"ALTER SYSTEM SET streamext.fault_point = '{fault}'")
        server.reload()
        wait_for(lambda: db.value("SELECT setting FROM pg_settings WHERE name = 'streamext.fault_point'") == fault)
        before = server.log_file.stat().st_size
        mosquitto.publish([(f"{topic}/x", '{"a":7}')] * 3, qos=qos)
        wait_for(lambda: "all server processes terminated" in server.log(before), what="crash")
        wait_for(server.is_ready, what="recovery")
        db = Database(server, "postgres")
        db.flush("s")
        assert db.rows("TABLE v") == [(13, sum(range(10)) + 21)]
        mosquitto.publish([(f"{topic}/x", '{"a":7}')] * 3, qos=qos)
        db.flush("s")
        assert db.rows("TABLE v") == [(16, sum(range(10)) + 42)]


def test_a_view_counts_from_its_creation(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    count_stream(db, mosquitto, topic)
    mosquitto.publish(numbers(topic, 0, 10))
    db.flush("s")
    continuous(db, "later", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    mosquitto.publish(numbers(topic, 10, 15))
    assert_counted(db, 0, 15)
    assert db.rows("TABLE later") == [(5, sum(range(10, 15)))]


def test_text_and_a_large_payload(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a text", format="text")
    continuous(db, "v", "SELECT count(*) AS n, max(length(a)) AS longest FROM s")
    db.flush("s")
    mosquitto.publish([(topic, "x" * 2_000_000), (topic, ""), (topic, "äöü")])
    db.flush("s")
    assert db.rows("TABLE v") == [(3, 2_000_000)]


def test_users_and_passwords(db: Database, topic: str) -> None:
    """The owner's user mapping is used; a wrong password shows in the catalogue, without the password."""
    with Mosquitto(users={"app": "right-one"}) as broker:
        db.execute(f"CREATE SERVER mqtt_server FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        for name in ("right", "wrong"):
            (db.server.data / name).write_text(f"{name}-one")
            (db.server.data / name).chmod(0o644)
        db.execute("CREATE USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (username 'app', password_file 'wrong')")
        mqtt_stream(db, broker, f"topic '{topic}/#'", "a bigint")
        continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
        wait_for(lambda: state(db) in ("stalled", "failed"), what="state stalled or failed")
        error = wait_for(lambda: db.value("SELECT last_error FROM streamext.streams"), what="an error text")
        assert "wrong-one" not in error
        db.execute("ALTER USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (SET password_file 'right')")
        wait_for(lambda: state(db) == "running", what="state running")
        db.flush("s")
        broker.publish(numbers(topic, 0, 3), user="app")
        assert_counted(db, 0, 3)


def test_a_password_that_is_not_there(db: Database, topic: str) -> None:
    """The worker waits for its file, and does not ask for it all the time: nothing it waits on stays readable."""
    with Mosquitto(users={"app": "right-one"}) as broker:
        db.execute(f"CREATE SERVER mqtt_server FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        db.execute("CREATE USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (username 'app', password_file 'late')")
        mqtt_stream(db, broker, f"topic '{topic}/#'", "a bigint")
        continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
        wait_for(lambda: "password_file" in (db.value("SELECT last_error FROM streamext.streams") or ""), what="the error")
        wait_for(lambda: event_counts(worker_pid(db)) == [0], what="a descriptor that is not readable")
        (db.server.data / "late").write_text("right-one")
        (db.server.data / "late").chmod(0o644)
        wait_for(lambda: state(db) == "running", what="state running")
        db.flush("s")
        broker.publish(numbers(topic, 0, 3), user="app")
        assert_counted(db, 0, 3)


def event_counts(pid: int) -> list[int]:
    """The counters of a process's eventfds."""
    texts = [file.read_text() for file in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return [int(line.split()[1], 16) for text in texts for line in text.splitlines() if line.startswith("eventfd-count")]


def test_a_full_journal(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """At streamext.journal_limit the broker keeps what is not acknowledged; it comes when the journal is trimmed."""
    count_stream(db, mosquitto, topic)
    db.execute("ALTER SYSTEM SET streamext.journal_limit = '64MB'")
    try:
        db.server.reload()
        wait_for(lambda: db.value("SHOW streamext.journal_limit") == "64MB", what="the setting")
        db.execute("SELECT streamext.pause('s')")
        padding = "x" * 1_000_000
        mosquitto.publish([(f"{topic}/x", f'{{"a":{i},"t":"{padding}"}}') for i in range(90)])
        wait_for(
            lambda: "journal_limit" in (db.value("SELECT last_error FROM streamext.streams WHERE stream = 's'::regclass") or ""),
            what="the full journal in the catalogue",
        )
        db.execute("SELECT streamext.resume('s')")
        wait_for(lambda: db.rows("TABLE v") == [(90, sum(range(90)))], what="all messages")
        assert_counted(db, 0, 90)
        wait_for(lambda: state(db) == "running", what="running")
    finally:
        db.execute("ALTER SYSTEM RESET streamext.journal_limit")
        db.server.reload()
