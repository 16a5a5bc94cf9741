"""A topic before there is a stream: streamext.peek of it, and IMPORT FOREIGN SCHEMA, which guesses the columns."""

import json
import threading

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.server import free_port
from harness.streams import continuous, error_of

COLUMNS = """SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || coalesce(' ' || array_to_string(a.attfdwoptions, ' '), '')
    FROM pg_attribute a WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"""


def columns(db: Database, table: str) -> list[str]:
    return [text for (text,) in db.rows(COLUMNS, table)]


def options(db: Database, table: str) -> list[str]:
    return db.value("SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = %s::regclass", table)


def kafka_server(db: Database, kafka: Kafka) -> None:
    db.execute(f"CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")


def mqtt_server(db: Database, mosquitto: Mosquitto) -> None:
    db.execute(f"CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{mosquitto.uri}')")


def test_columns_types_and_paths(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, 2)
    kafka_server(db, kafka)
    record = {
        "deviceId": "a", "ts": "2024-05-01T12:00:00Z", "n": 1, "level": 1, "big": 10**20, "ok": True, "day": "2024-05-01", "sent_at": 1714561231123,
        "heat": 1714561231123, "data": {"temp": 1.5, "Unit": "C", "deep": {"a": {"b": 1}}}, "tags": ["x"], "mixed": 1, "part": {"a": 1}, "empty": None, "none": {},
        "select": 1, "a.b": 1, "ctid": 1, "DEVICEID": 2, "zones": {"x": 1},
    }  # fmt: skip
    other = record | {"level": 1.5, "mixed": "x", "part": 3, "data": {"temp": 2}, "ts": "2024-05-01 12:00:01.5+02", "more": False}
    kafka.produce(topic, [Message(json.dumps(record), timestamp=1_700_000_000_001), Message(json.dumps(other), 1, timestamp=1_700_000_000_000), Message(None)])
    db.execute(f'IMPORT FOREIGN SCHEMA "{topic}" FROM SERVER plant INTO public')
    assert columns(db, f'"{topic}"') == [
        "deviceid text path=deviceId", "ts timestamp with time zone", "n bigint", "level double precision", "big numeric", "ok boolean", "day date",
        "sent_at timestamp with time zone time_format=unix_ms", "heat bigint", "data_temp double precision path=data.temp",
        "data_unit text path=data.Unit", "data_deep_a jsonb path=data.deep.a", "tags jsonb", "mixed text", "part jsonb", "empty text", "none jsonb", "select bigint",
        'a_b bigint path="a.b"', "ctid_2 bigint path=ctid", "deviceid_2 bigint path=DEVICEID", "zones_x bigint path=zones.x", "more boolean",
    ]  # fmt: skip
    assert options(db, f'"{topic}"') == [f"topic={topic}", "format=json", "event_time=ts"]
    continuous(db, "v", f'SELECT count(*) AS n, sum(data_temp) AS t, count(sent_at) AS s, min(a_b) AS a, min(deviceid) AS d FROM "{topic}"')
    db.flush(f'"{topic}"')
    assert db.rows("TABLE v") == [(2, 3.5, 2, 1, "a")]
    assert db.rows("SELECT * FROM streamext.dead_letters") == []


def test_names_and_options(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_server(db, kafka)
    kafka.produce(topic, ['{"a":1,"x":"2024-01-01T00:00Z","y":"2024-01-01T00:00Z"}', "no json"])
    notices: list[str] = []
    db.connection.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
    db.execute(f"IMPORT FOREIGN SCHEMA \"{topic}\" LIMIT TO (readings) FROM SERVER plant INTO public OPTIONS (start 'latest', event_time 'y')")
    assert options(db, "readings") == [f"topic={topic}", "format=json", "start=latest", "event_time=y"]
    assert notices == ['1 of the 2 records looked at for stream "readings" are no JSON objects', 'no column of stream "readings" is its event time']
    db.execute(f"IMPORT FOREIGN SCHEMA \"{topic}\" FROM SERVER plant INTO public OPTIONS (\"table\" 'other', sample '1')")
    assert columns(db, "other") == ["payload text"]  # the newest one
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"IMPORT FOREIGN SCHEMA \"{topic}\" FROM SERVER plant INTO public OPTIONS (wiat '1 s')")
    assert error_of(error)[0] == "HV00D" and "wiat" in error_of(error)[1]
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"IMPORT FOREIGN SCHEMA \"{topic}\" FROM SERVER plant INTO public OPTIONS (sample '0')")
    assert error_of(error)[0] == "HV024"


def test_a_key_twice(db: Database, kafka: Kafka, topic: str) -> None:
    """The stream reads the last of them, so columns are guessed from it."""
    kafka.create_topic(topic)
    kafka_server(db, kafka)
    payloads = ['{"a":"x","a":1,"b":{"c":1,"d":2},"b":{"d":"y"},"e":{"f":1},"e":2.5,"g":1,"g":{"h":true},"ts":1,"ts":"2024-05-01T12:00:00Z"}', '{"i":1,"\\u0069":null}']
    kafka.produce(topic, payloads)
    db.execute(f'IMPORT FOREIGN SCHEMA "{topic}" FROM SERVER plant INTO public')
    assert columns(db, f'"{topic}"') == [
        "i text", "a bigint", "b_d text path=b.d", "e double precision", "g_h boolean path=g.h", "ts timestamp with time zone"]  # fmt: skip
    continuous(db, "v", f'SELECT count(*) AS n, sum(a) AS a, min(b_d) AS d, sum(e) AS e, bool_and(g_h) AS h, max(ts) AS ts, count(i) AS i FROM "{topic}"')
    db.flush(f'"{topic}"')
    assert db.rows("SELECT n, a, d, e, h, i FROM v") == [(2, 1, "y", 2.5, True, 0)]
    assert db.rows("SELECT * FROM streamext.dead_letters") == []


def test_payloads_that_are_no_objects(db: Database, kafka: Kafka, topic: str) -> None:
    kafka_server(db, kafka)
    cases: dict[str, tuple[list[bytes | str], list[str], str]] = {
        "numbers": (["1", "2.5\n", "-3e2"], ["value double precision"], "text"),
        "texts": (["1", "open"], ["payload text"], "text"),
        "bytes": ([b"\xff\x00", "x"], ["payload bytea"], "raw"),
        "objects": (["{}"], ["payload jsonb path=$"], "json"),
        "control": (['{"a\\nb":1,"c\x7fd":2,"e":3}'], ['a_b bigint path="a\\nb"', 'c_d bigint path="c\\u007fd"', "e bigint"], "json"),
        "hostile": (['{"a\\u0000b":1,"c":2}', '{"d":"\\ud800"}', "[" * 100_000, '{"e":' * 70 + "1" + "}" * 70], [], ""),
    }
    for name, (records, expected, format) in cases.items():
        kafka.create_topic(f"{topic}-{name}")
        kafka.produce(f"{topic}-{name}", records)
        db.execute(f'IMPORT FOREIGN SCHEMA "{topic}-{name}" LIMIT TO ({name}) FROM SERVER plant INTO public')
        if expected:
            assert columns(db, name) == expected and f"format={format}" in options(db, name), name
    continuous(db, "v", "SELECT sum(a_b) AS a, sum(c_d) AS c FROM control")
    db.flush("control")
    assert db.rows("TABLE v") == [(1, 2)]


def test_what_there_is_not(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_server(db, kafka)
    db.execute(f"CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:{free_port()}')")
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    for statement, state, words in [
        (f'IMPORT FOREIGN SCHEMA "{topic}" FROM SERVER plant INTO public', "02000", "no record"),
        ("IMPORT FOREIGN SCHEMA nope FROM SERVER plant INTO public", "HV00R", "does not exist"),
        ("SELECT * FROM streamext.peek('plant', 'nope')", "HV00R", "does not exist"),
        ("SELECT * FROM streamext.peek('nowhere', 'x')", "HV00N", "refused"),
        ("SELECT * FROM streamext.peek('here', 'x')", "0A000", "cannot be asked"),
        ("SELECT * FROM streamext.peek('plant', 'no topic')", "HV024", "topic"),
        ("SELECT * FROM streamext.peek('none', 'x')", "42704", "does not exist"),
    ]:
        with pytest.raises(psycopg.Error) as error:
            db.execute(statement)
        assert error_of(error)[0] == state and words in error_of(error)[1], statement


def test_peek_of_a_topic(db: Database, kafka: Kafka, topic: str) -> None:
    """The newest of all partitions, with key and headers; nothing of a group is left at the broker."""
    kafka.create_topic(topic, 3)
    kafka_server(db, kafka)
    kafka.produce(topic, [Message(str(i), partition=i % 3, key=f"k{i}", timestamp=1_700_000_000_000 + i, headers=[("n", str(i).encode())]) for i in range(30)])
    rows = db.rows("SELECT topic, partition, key, headers->>'n', payload_text FROM streamext.peek('plant', %s, 4)", topic)
    assert rows == [(topic, i % 3, f"k{i}".encode(), str(i), str(i)) for i in (29, 28, 27, 26)]
    assert db.value("SELECT count(*) FROM streamext.peek('plant', %s, 1000)", topic) == 30
    assert db.value("SELECT count(*) FROM streamext.peek('plant', %s, 0)", topic) == 0
    assert db.rows("TABLE streamext.streams") == []


def test_who_may_look(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_server(db, kafka)
    kafka.produce(topic, ["x"])
    db.execute("CREATE ROLE looker LOGIN")
    try:
        with db.connect("looker") as looker:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                looker.execute("SELECT * FROM streamext.peek('plant', %s)", (topic,))
            looker.rollback()
            db.execute("GRANT USAGE ON FOREIGN SERVER plant TO looker")
            assert looker.execute("SELECT payload_text FROM streamext.peek('plant', %s)", (topic,)).fetchall() == [("x",)]
    finally:
        db.execute("DROP OWNED BY looker; DROP ROLE looker")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mqtt(db: Database, mosquitto: Mosquitto, topic: str, protocol: str) -> None:
    """Retained messages are there at once; the others come while it waits."""
    mqtt_server(db, mosquitto)
    mosquitto.publish([(f"{topic}/a", '{"temp":1.5}'), (f"{topic}/b", '{"temp":2,"at":"2024-05-01T12:00:00Z"}')], retain=True)
    if protocol == "5":
        assert sorted(db.rows("SELECT topic, payload_text FROM streamext.peek('floor', %s, 2, '1 min')", f"{topic}/#")) == [
            (f"{topic}/a", '{"temp":1.5}'), (f"{topic}/b", '{"temp":2,"at":"2024-05-01T12:00:00Z"}')]  # fmt: skip
    db.execute(f"IMPORT FOREIGN SCHEMA \"{topic}/+\" LIMIT TO (r) FROM SERVER floor INTO public OPTIONS (protocol '{protocol}', sample '2', wait '1 min')")
    assert columns(db, "r") == ["temp double precision", "at timestamp with time zone", "topic text metadata=topic"]
    db.execute("DROP FOREIGN TABLE r")


def test_mqtt_that_comes_meanwhile(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_server(db, mosquitto)
    found: list[object] = []
    look = threading.Thread(target=lambda: found.extend(db.rows("SELECT payload_text FROM streamext.peek('floor', %s, 1, '1 min')", topic)))
    look.start()
    while look.is_alive():
        mosquitto.publish([(topic, "21.5")])
        look.join(0.05)
    assert found == [("21.5",)]
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"IMPORT FOREIGN SCHEMA \"{topic}\" FROM SERVER floor INTO public OPTIONS (wait '0 s')")
    assert error_of(error)[0] in ("02000", "HV00N")


def test_a_look_ends_when_it_is_cancelled(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """And when its session is ended: no thread of a client outlives it, the server goes on."""
    mqtt_server(db, mosquitto)
    started = db.value("SELECT pg_postmaster_start_time()")
    db.execute("SET statement_timeout = '300 ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.execute("SELECT * FROM streamext.peek('floor', %s, 1, '10 min')", topic)
    db.execute("RESET statement_timeout")
    with db.connect() as other:
        pid = other.info.backend_pid
        look = threading.Thread(target=lambda: pytest.raises(psycopg.Error, other.execute, "SELECT * FROM streamext.peek('floor', 'x', 1, '10 min')"))
        look.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'Extension'"
        while not db.rows(waiting, pid):
            look.join(0.01)
        assert db.value("SELECT pg_terminate_backend(%s, 90000)", pid)
        look.join()
    assert db.value("SELECT pg_postmaster_start_time()") == started
