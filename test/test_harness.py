"""The harness itself: each server does what the tests rely on, without the extension."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.postgres import IMMEDIATE, Postgres
from harness.sensors import Plant
from harness.wait import wait_for


@pytest.fixture(scope="module")
def plain() -> Iterator[Postgres]:
    with Postgres(preload="") as server:
        yield server


def test_postgres_recovers_from_a_killed_backend(plain: Postgres) -> None:
    plain.psql("CREATE TABLE t AS SELECT 1 AS a")
    victim = plain.connect()
    plain.kill_backend(victim.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        victim.execute("SELECT 1")
    assert plain.psql("TABLE t") == "1"


def test_postgres_restarts_with_its_settings(plain: Postgres) -> None:
    plain.configure({"work_mem": "5MB"})
    plain.restart(IMMEDIATE)
    assert plain.psql("SHOW work_mem") == "5MB"


def test_a_server_that_cannot_start_says_why() -> None:
    server = Postgres(preload="no_such_library")
    with pytest.raises(RuntimeError, match="no_such_library"), server:
        pass
    assert not server.dir.exists()


def test_the_oracle_sees_each_difference(plain: Postgres) -> None:
    db = Database(plain, "postgres")
    db.assert_same("VALUES (1, 0.1::float8 + 0.2), (2, NULL)", "VALUES (2, NULL), (1, 0.3::float8)")
    for other in ("VALUES (1, 2.5)", "VALUES (1, 2.5), (1, 2.5), (1, 2.5)", "VALUES (1, 2.5), (1, 2.5001)"):
        with pytest.raises(AssertionError, match="differs"):
            db.assert_same("VALUES (1, 2.5::float8), (1, 2.5)", other)


def test_kafka_keeps_messages_over_kill_and_restart(kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, partitions=2)
    kafka.produce(topic, [Message("a", 1, key="k", timestamp=1000, headers=[("h", b"v")]), Message("b", 0)])
    kafka.kill9()
    kafka.start()
    assert kafka.end_offsets(topic) == {0: 1, 1: 1}
    kafka.delete_topic(topic)
    with pytest.raises(KafkaException) as caught:
        kafka.delete_topic(topic)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_kafka_transactions(kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    producer = kafka.producer({"transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, "aborted")
    producer.abort_transaction()
    consumer = kafka.consumer({"auto.offset.reset": "earliest", "isolation.level": "read_committed"})
    consumer.subscribe([topic])
    kafka.produce(topic, ["plain"])
    message = wait_for(lambda: consumer.poll(1), what="a message")
    assert message.value() == b"plain"
    consumer.close()


def test_mosquitto_keeps_a_session_over_a_restart(mosquitto: Mosquitto) -> None:
    subscriber = mosquitto.client("subscriber", keep_session=True)
    subscriber.subscribe("plant/#", qos=1)
    subscriber.disconnect()
    mosquitto.publish([("plant/a", "1"), ("plant/b", "2")])
    mosquitto.restart()
    received: list[bytes] = []
    mosquitto.client("subscriber", keep_session=True, on_message=lambda *args: received.append(args[2].payload))
    wait_for(lambda: received == [b"1", b"2"], what="the messages of the session")


def test_mosquitto_with_users() -> None:
    with Mosquitto(users={"app": "secret"}, acl="user app\ntopic readwrite plant/#\n") as broker:
        broker.publish([("plant/a", "1")], user="app")
        with pytest.raises(TimeoutError):
            broker.client(timeout=1)


def test_a_stopped_broker_goes_on(mosquitto: Mosquitto) -> None:
    mosquitto.send(signal.SIGSTOP)
    mosquitto.send(signal.SIGCONT)
    mosquitto.publish([("plant/a", "1")], qos=2)


def test_sensors_are_deterministic() -> None:
    first, second = (list(Plant(devices=10, seed=7).readings(100)) for _ in range(2))
    assert first == second
    assert first != list(Plant(devices=10, seed=8).readings(100))


def test_a_killed_run_leaves_no_server() -> None:
    script = """if True:
        from harness.mosquitto import Mosquitto
        broker = Mosquitto()
        broker.start()
        print(broker.process.pid, broker.dir, flush=True)
        input()
    """
    run = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pid, directory = run.stdout.readline().split()
    assert _is_alive(int(pid))
    run.kill()
    run.wait()
    wait_for(lambda: not _is_alive(int(pid)), what="end of the broker")
    shutil.rmtree(directory)


def _is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
