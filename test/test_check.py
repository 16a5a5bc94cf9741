"""streamext.check asks the source, and CREATE FOREIGN TABLE tells what cannot work."""

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.server import free_port
from harness.streams import continuous, kafka_stream, local_stream, mqtt_stream
from harness.wait import wait_for

Finding = tuple[bool, str, str | None]


def check(db: Database, stream: str = "s") -> dict[str, Finding]:
    return {what: (ok, detail, hint) for what, ok, detail, hint in db.rows("SELECT * FROM streamext.check(%s)", stream)}


def bad(db: Database, stream: str = "s") -> dict[str, Finding]:
    return {what: finding for what, finding in check(db, stream).items() if not finding[0]}


def notices(db: Database, sql: str) -> list[str]:
    found: list[str] = []

    def take(diag: object) -> None:
        found.append(getattr(diag, "message_primary"))

    db.connection.add_notice_handler(take)
    db.execute(sql)
    db.connection.remove_notice_handler(take)
    return found


def test_views_that_count_nothing(db: Database) -> None:
    local_stream(db, "", "a int")
    db.execute("CREATE TABLE t (a int)")
    continuous(db, "good", "SELECT count(*) AS n FROM s")
    continuous(db, "held", "SELECT count(*) AS n FROM s")
    continuous(db, "broken", "SELECT a FROM s", ", streamext.into = 't'")
    db.flush("s")
    assert check(db)["views"] == (True, "3 continuous views read the stream", None)
    db.execute("SELECT streamext.pause('held')")
    db.execute("ALTER TABLE t RENAME COLUMN a TO b; ALTER VIEW broken RENAME COLUMN a TO c")
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'broken'::regclass") == "failed", what="the view fails")
    ok, detail, hint = check(db)["views"]
    assert not ok and detail.startswith("3 continuous views read the stream: ") and hint and "last_error" in hint
    assert '"held" is paused' in detail and '"broken" is failed' in detail and "good" not in detail


def test_kafka(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, 2)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int")
    kafka.produce(topic, ['{"a":1}'])
    db.flush("s")
    found = check(db)
    assert [what for what in found if what in ("broker", "login", "topic", "sample")] == ["broker", "login", "topic", "sample"]
    assert found["broker"][:2] == (True, kafka.brokers) and "2 partitions" in found["topic"][1] and bad(db) == {}
    kafka.produce(topic, ['{"a":"x"}'])
    assert "invalid input syntax" in bad(db)["sample"][1] or '"x"' in bad(db)["sample"][1]
    kafka_stream(db, kafka, "topic 'nope'", "a int", name="n")
    assert bad(db, "n")["topic"][1] == 'topic "nope" does not exist' and "sample" not in check(db, "n")


def test_kafka_that_is_not_there(db: Database) -> None:
    brokers = f"127.0.0.1:{free_port()}"
    db.execute(f"CREATE SERVER away FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{brokers}')")
    db.execute("CREATE FOREIGN TABLE s (a int) SERVER away OPTIONS (topic 'x')")
    assert "Nothing listens there" in (bad(db)["broker"][2] or "") and brokers in bad(db)["broker"][1]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mqtt(db: Database, topic: str, protocol: str) -> None:
    """Login, and the marker's topic, which mosquitto's ACL grants and then drops in silence."""
    acl = "user good\ntopic readwrite #\nuser poor\ntopic readwrite plant/#\n"
    with Mosquitto(users={"good": "g", "poor": "p"}, acl=acl) as broker:
        db.execute(f"CREATE SERVER mqtt_server FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        db.execute("CREATE USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (username 'good', password 'g')")
        broker.publish([("plant/a", '{"a":"x"}')], retain=True, user="good")
        mqtt_stream(db, broker, f"topic 'plant/#', protocol '{protocol}'", "a int")
        found = check(db)
        assert (found["broker"][0], found["login"][:2], found["topic"][0], found["marker"][0]) == (True, (True, 'as "good"'), True, True)
        db.execute("ALTER USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (SET username 'poor', SET password 'p')")
        found = bad(db)
        assert "marker" in found and "streamext/flush/" in (found["marker"][2] or "") and "topic" not in found
        db.execute("ALTER USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (SET password 'wrong')")
        found = bad(db)
        assert "broker" not in found and "not authorised" in found["login"][1]
        assert not any("wrong" in str(finding) for finding in found.values())
        broker.stop()
        assert "broker" in bad(db)


def test_a_sample_of_mqtt(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mosquitto.publish([(topic, "21.5")], retain=True)
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a int")
    db.execute("SELECT streamext.pause('s')")
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "paused", what="paused")
    if db.value("SELECT rows_in FROM streamext.streams") == 0:
        assert "sample" in bad(db)
    else:
        assert "values" in bad(db)


def test_others_do_not_ask_the_source(db: Database, kafka: Kafka, topic: str) -> None:
    """It is asked as the owner, so for who has his rights; others get what the workers know."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int")
    db.execute("CREATE ROLE reader_c LOGIN; GRANT SELECT ON s TO reader_c")
    try:
        with db.connect("reader_c") as reader:
            found = {row[0] for row in reader.execute("SELECT what FROM streamext.check('s')").fetchall()}
            assert "source" in found and not found & {"broker", "login", "topic", "sample"}
    finally:
        db.execute("DROP OWNED BY reader_c; DROP ROLE reader_c")


def test_what_cannot_work_is_told(db: Database) -> None:
    db.execute("CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    db.execute("CREATE SERVER high FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:9092,[::1]:90920')")
    db.execute("CREATE SERVER m FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'tcp://127.0.0.1:1')")
    db.execute("CREATE SERVER two FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'tcp://127.0.0.1:1,127.0.0.1:2')")
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    told = {
        "(a int) SERVER k OPTIONS (topic 'x')": [],
        "() SERVER k OPTIONS (topic 'x')": ['stream "x" has no columns'],
        "(id serial, a int) SERVER k OPTIONS (topic 'x')": ['records without "id" will be rejected by stream "x"'],
        "(id smallserial, a int) SERVER m OPTIONS (topic 'x')": ['records without "id" will be rejected by stream "x"'],
        "(id bigserial, a int) SERVER here": [],
        "(a int) SERVER high OPTIONS (topic 'x')": ['stream "x" cannot reach port 90920'],
        "(a int) SERVER m OPTIONS (topic 'plant/*/temp')": ['stream "x" takes messages of topics with a * in their names only'],
        "(a int) SERVER m OPTIONS (topic 'plant/+/temp')": [],
        "(a int) SERVER two OPTIONS (topic 'x')": ['option "uri" of the server of stream "x" names several addresses'],
    }
    for definition, expected in told.items():
        assert notices(db, f"CREATE FOREIGN TABLE x {definition}") == expected, definition
        db.execute("DROP FOREIGN TABLE x")


def test_no_worker_left() -> None:
    with Postgres(settings={"max_worker_processes": 3, "max_logical_replication_workers": 0}) as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
        assert notices(db, "CREATE FOREIGN TABLE a (a int) SERVER here") == []
        found = sum((notices(db, f"CREATE FOREIGN TABLE {name} (a int) SERVER here") for name in "bcd"), [])
        assert 'there may be no worker for stream "d"' in found
        db.connection.close()
