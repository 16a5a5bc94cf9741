"""What a stream tells about itself before it is right: columns, newest records, what it has not got; flush with a timeout."""

from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.streams import continuous, kafka_stream, local_stream, mqtt_stream
from harness.wait import wait_for

TOP = Path(__file__).parents[1]

COLUMNS = 'SELECT "column", present, missing, "null", rejected FROM streamext.stream_columns WHERE stream = \'s\'::regclass'


def test_columns_are_counted(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, b int, c numeric, d int OPTIONS (on_bad_value 'null'), part int OPTIONS (metadata 'partition')")
    continuous(db, "v", "SELECT count(*) FROM s")
    kafka.produce(topic, ['{"a":1,"b":2,"c":3,"d":4}', '{"a":null,"c":null}', '{"a":"x"}', '{"a":1,"b":"x","c":1}', '{"a":1,"c":"x"}', '{"d":"x"}', "no", Message(None)])
    db.flush("s")
    assert db.rows(COLUMNS) == [("a", 3, 1, 1, 1), ("b", 1, 4, 0, 1), ("c", 2, 2, 1, 1), ("d", 1, 4, 0, 1), ("part", None, None, None, None)]
    db.execute("ALTER FOREIGN TABLE s OPTIONS (ADD fields 'nocase')")
    kafka.produce(topic, ['{"A":1}'])
    db.flush("s")
    assert db.rows(COLUMNS)[0] == ("a", 1, 0, 0, 0)


def hints(db: Database) -> dict[str, str]:
    return dict(db.rows('SELECT "column", hint FROM streamext.stream_columns WHERE hint IS NOT NULL'))


def test_fields_that_never_match(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "deviceId text, temperature float8, unit text OPTIONS (path 'data.unit'), gone text, fine int, at timestamptz")
    continuous(db, "v", "SELECT count(*) FROM s")
    kafka.produce(topic, ['{"deviceId":"a","data":{"Temperature":1,"units":{"unit":"C"}},"fine":1}'] * 2)
    db.flush("s")
    assert hints(db) == {
        "deviceid": """the payload has "deviceId": write OPTIONS (path 'deviceId')""",
        "temperature": """the payload has "data.Temperature": write OPTIONS (path 'data.Temperature')""",
        "unit": """the payload has "data.units.unit": write OPTIONS (SET path 'data.units.unit')""",
        "gone": 'no payload has the field; the newest one has "data", "fine", "deviceId"',
        "at": 'no payload has the field; the newest one has "data", "fine", "deviceId"',
    }
    db.execute("ALTER FOREIGN TABLE s ALTER deviceid OPTIONS (path 'deviceId')")
    kafka.produce(topic, ['{"deviceId":"a","at":1714561231}'])
    db.flush("s")
    assert "deviceid" not in hints(db) and "time_format" in hints(db)["at"]


def test_dates_that_can_be_read_two_ways(db: Database, kafka: Kafka, topic: str) -> None:
    """The first of May in Germany is the fifth of January in America, and valid there: nothing would be said."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "zeit timestamptz, tag date OPTIONS (path 'in.tag'), iso timestamptz, stand jsonb")
    continuous(db, "v", "SELECT count(*) FROM s")
    kafka.produce(topic, ['{"zeit":"01.05.2024 14:00","in":{"tag":"1/5/2024"},"iso":"2024-05-01"}'])
    db.flush("s")
    told = hints(db)
    assert set(told) == {"zeit", "tag", "stand"} and 'times like "1/5/2024" are read with the month first' in told["tag"]
    assert told["stand"].endswith("path '$' is the whole of it")
    db.execute("ALTER FOREIGN TABLE s OPTIONS (ADD datestyle 'ISO, DMY')")
    kafka.produce(topic, ['{"zeit":"01.05.2024 14:00","in":{"tag":"1/5/2024"},"iso":"2024-05-01","stand":1}'])
    db.flush("s")
    assert hints(db) == {}


def test_constraints_and_savepoints(db: Database) -> None:
    """A constraint that comes later is told of, too; flush speaks of rows that still wait for the commit, not of those that were rolled back."""
    local_stream(db, columns="a int")
    told: list[str] = []
    db.connection.add_notice_handler(lambda diagnostic: told.append(diagnostic.message_primary or ""))
    db.execute("ALTER FOREIGN TABLE s ADD CONSTRAINT positive CHECK (a > 0)")
    assert told == ['stream "s" does not check its constraint "positive"']
    db.execute("ALTER FOREIGN TABLE s DROP CONSTRAINT positive")
    with db.connection.transaction():
        with db.connection.transaction(force_rollback=True):
            db.execute("INSERT INTO s VALUES (1)")
        db.flush("s")
        db.execute("INSERT INTO s VALUES (2)")
        db.flush("s")
    db.flush("s")
    assert told[1:] == ['rows that this transaction has inserted into stream "s" are not waited for']


def test_a_hint_when_every_record_is_rejected(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "ts timestamptz")
    kafka.produce(topic, ['{"TS":"2024-05-01"}'])
    db.flush("s")
    assert hints(db) == {"ts": """the payload has "TS": write OPTIONS (path 'TS')"""}
    check = {what: (ok, detail, hint) for what, ok, detail, hint in db.rows("SELECT * FROM streamext.check('s')")}
    assert check["columns"][0] is False and "path 'TS'" in check["columns"][2]
    assert check["values"][:2] == (False, "1 of 1 records rejected")
    assert [what for what, (ok, _, _) in check.items() if not ok] == ["sample", "values", "columns"]


def test_names_of_fields_are_for_readers(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "secret text")
    kafka.produce(topic, ['{"seCret":1}'])
    db.flush("s")
    db.execute("CREATE ROLE watcher_h LOGIN IN ROLE pg_read_all_stats; CREATE ROLE nobody_h LOGIN")
    try:
        with db.connect("watcher_h") as watcher:
            assert watcher.execute("SELECT missing, hint FROM streamext.stream_columns").fetchall() == [(1, None)]
        with db.connect("nobody_h") as nobody:
            assert nobody.execute("TABLE streamext.stream_columns").fetchall() == []
            for call in ("peek", "check"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    nobody.execute(f"SELECT * FROM streamext.{call}('s')")
                nobody.rollback()
    finally:
        db.execute("DROP ROLE watcher_h, nobody_h")


def test_peek(db: Database, kafka: Kafka, topic: str) -> None:
    """Accepted and rejected ones, with key and headers as far as they are kept."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, h jsonb OPTIONS (metadata 'headers')")
    kafka.produce(topic, [Message(f'{{"a":{i}}}', key=f"k{i}", headers=[("n", str(i).encode())]) for i in range(20)])
    db.flush("s")
    kafka.produce(topic, [Message(b"\xffno", key="bad")])
    db.flush("s")
    rows = db.rows("SELECT topic, partition, position, key, headers->>'n', payload, payload_text FROM streamext.peek('s', 3)")
    assert rows == [(topic, 0, 20, b"bad", None, b"\xffno", "\\xffno"), (topic, 0, 19, b"k19", "19", b'{"a":19}', '{"a":19}'),
                    (topic, 0, 18, b"k18", "18", b'{"a":18}', '{"a":18}')]  # fmt: skip
    assert db.value("SELECT count(*) FROM streamext.peek('s')") == 10
    assert db.value("SELECT count(*) FROM streamext.peek('s', 100)") == 21
    assert db.value("SELECT count(*) FROM streamext.peek('s', 0)") == 0


def test_peek_and_check_of_a_local_stream(db: Database) -> None:
    local_stream(db, columns="a int, ts timestamptz")
    db.execute("INSERT INTO s VALUES (1, '2024-05-01 00:00+00')")
    db.flush("s")
    assert db.rows("SELECT payload_text FROM streamext.peek('s')") == [('{"a":1,"ts":"2024-05-01T00:00:00+00:00"}',)]
    assert db.rows("SELECT what, ok FROM streamext.check('s') WHERE NOT ok") == []
    assert db.rows("SELECT DISTINCT present, hint FROM streamext.stream_columns") == [(None, None)]


def test_check_of_a_source_that_is_not_there(db: Database) -> None:
    db.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    db.execute("CREATE FOREIGN TABLE s (a int) SERVER nowhere OPTIONS (topic 'x')")
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "stalled", what="stalled")
    bad = {what: (detail, hint) for what, ok, detail, hint in db.rows("SELECT * FROM streamext.check('s')") if not ok}
    assert set(bad) == {"state", "source", "broker", "partitions", "records"}
    assert bad["source"][0] and "127.0.0.1:1" in bad["source"][0]


def test_check_of_a_paused_stream(db: Database) -> None:
    local_stream(db)
    db.execute("SELECT streamext.pause('s')")
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "paused", what="paused")
    assert db.rows("SELECT what, detail, hint FROM streamext.check('s') WHERE what = 'state'") == [("state", "paused", "Call streamext.resume.")]


def test_flush_with_a_timeout(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a int")
    db.execute("SELECT streamext.flush('s', timeout => '1 min')")
    db.execute("SELECT streamext.flush('s', NULL)")
    db.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    db.execute("CREATE FOREIGN TABLE away (a int) SERVER nowhere OPTIONS (topic 'x')")
    with pytest.raises(psycopg.errors.QueryCanceled) as error:
        db.execute("SELECT streamext.flush('away', timeout => '300 ms')")
    assert error.value.diag.message_primary == 'stream "away" was not flushed within the timeout'
    assert error.value.diag.message_detail
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.execute("SELECT streamext.flush('s', '-1 s')")


def test_flush_ends_when_its_client_is_gone(db: Database) -> None:
    db.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    db.execute("CREATE FOREIGN TABLE away (a int) SERVER nowhere OPTIONS (topic 'x')")
    client = db.connect()
    pid = client.info.backend_pid
    notices: list[object] = []
    client.pgconn.notice_handler = notices.append
    client.pgconn.send_query(b"SELECT streamext.flush('away')")
    client.pgconn.flush()
    # whoever is told something finds out that nobody listens: from here on nothing is told
    wait_for(lambda: (client.pgconn.consume_input(), client.pgconn.is_busy(), notices)[2], what="the notice that the source is away")
    client.pgconn.finish()
    wait_for(lambda: db.rows("SELECT FROM pg_stat_activity WHERE pid = %s", pid) == [], what="its end")


def test_everything_has_a_comment(db: Database) -> None:
    """psql's \\d+, \\df+ and every tool shows them."""
    members = "SELECT objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'streamext') AND classid = "
    bare = f"""SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.oid IN ({members} 'pg_proc'::regclass) AND obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid IN ({members} 'pg_class'::regclass) AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL SELECT c.oid::regclass || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.oid IN ({members} 'pg_class'::regclass) AND c.relkind IN ('r', 'v') AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL SELECT t.oid::regtype::text FROM pg_type t WHERE t.oid IN ({members} 'pg_type'::regclass) AND t.typrelid = 0 AND t.typelem = 0 AND obj_description(t.oid, 'pg_type') IS NULL"""
    assert [name for (name,) in db.rows(bare)] == []
    assert db.value(f"SELECT count(*) FROM pg_proc WHERE oid IN ({members} 'pg_proc'::regclass)") > 50


def test_functions_that_psql_completes(db: Database) -> None:
    """After "\\df streamext." psql offers what there is in the schema: of internal ones only those that dumps of users' views, or a wrapper, name."""
    internal = db.rows("""SELECT DISTINCT proname FROM pg_proc AS p WHERE pronamespace = 'streamext'::regnamespace
        AND obj_description(p.oid, 'pg_proc') LIKE 'internal%' ORDER BY 1""")
    of_exports = ["export_moments", "export_now", "export_regression", "export_rows", "export_set", "export_spread"]
    of_shards = ["shard_key", "shard_last", "shard_partial", "shard_rows_of", "shard_up", "shards_away"]
    assert [name for (name,) in internal] == sorted([*of_exports, "fdw_handler", *of_shards])
    there = "SELECT count(*) FROM pg_proc AS p WHERE pronamespace = 'streamext_internal'::regnamespace"
    assert db.value(there) > 50
    assert db.value(f"{there} AND obj_description(p.oid, 'pg_proc') NOT LIKE 'internal%'") == 0


def test_relations_that_psql_completes(db: Database) -> None:
    """After "FROM streamext." psql offers tables, views and sequences of the schema: those that the reference has a section of, and no others."""
    reference = (TOP / "docs/reference.md").read_text()
    offered = [name for (name,) in db.rows("SELECT relname FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')")]
    assert [name for name in offered if f"\n### `streamext.{name}`\n" not in reference] == []
    assert len(offered) == 18
    # and of the others none may be read, whatever the rights on their schema, which has functions too
    db.execute("CREATE ROLE curious")
    try:
        inside = "SELECT count(*) FROM pg_class WHERE relnamespace = 'streamext_internal'::regnamespace AND relkind IN ('r', 'S')"
        assert db.value(inside) == 28
        readable = "(has_table_privilege('curious', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') OR has_any_column_privilege('curious', oid, 'SELECT, INSERT, UPDATE'))"
        assert db.value(f"{inside} AND CASE relkind WHEN 'S' THEN has_sequence_privilege('curious', oid, 'USAGE, SELECT, UPDATE') ELSE {readable} END") == 0
    finally:
        db.execute("DROP ROLE curious")


def test_since_when_and_what_is_over(db: Database, topic: str) -> None:
    with Mosquitto() as broker:
        mqtt_stream(db, broker, f"topic '{topic}'", "a int")
        db.flush("s")
        of = "SELECT state, state_since, last_error_past FROM streamext.streams"
        wait_for(lambda: db.rows(of)[0][0] == "running", what="running")
        running = db.rows(of)[0][1]
        assert running is not None
        broker.stop()
        wait_for(lambda: db.rows(of)[0][0] == "stalled" and db.value("SELECT last_error IS NOT NULL FROM streamext.streams"), what="stalled")
        stalled, past = db.rows(of)[0][1:]
        assert stalled > running and past is False
        broker.start()
        wait_for(lambda: db.rows(of)[0][0] == "running", what="running")
        again, past = db.rows(of)[0][1:]
        assert again > stalled and past is True
        assert db.value("SELECT ok FROM streamext.check('s') WHERE what = 'past error'")


def test_flush_raises_what_the_source_refuses(db: Database) -> None:
    with Mosquitto(users={"poor": "p"}, acl="user poor\ntopic readwrite plant/#\n") as broker:
        db.execute(f"CREATE SERVER mqtt_server FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        db.execute("CREATE USER MAPPING FOR postgres SERVER mqtt_server OPTIONS (username 'poor', password 'p')")
        mqtt_stream(db, broker, "topic 'plant/a'", "a int", name="m")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
            db.flush("m")
        assert "publish flush markers" in (error.value.diag.message_detail or "") and "streamext.check" in (error.value.diag.message_hint or "")


def test_a_jump_is_told(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "ts timestamptz")
    continuous(db, "v", "SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY m")
    events = "SELECT detail FROM streamext.stream_events WHERE kind = 'jump'"

    def insert(time: str) -> None:
        db.execute(f"INSERT INTO s VALUES ('2024-05-01 {time}+00')")
        db.flush("s")

    insert("12:00")
    insert("12:50")
    insert("12:55")
    assert db.rows(events) == []  # nothing is late for them
    insert("13:30")
    insert("12:56")
    assert wait_for(lambda: db.rows(events), what="the event")[0][0].startswith("the watermark has moved by 2100 s with a record (partition 0, position ")
    insert("12:57")
    insert("11:00")
    assert len(db.rows(events)) == 1
    (advice,) = db.rows("SELECT setting, present, why FROM streamext.advise() WHERE object = 'public.s' AND setting = 'max_ahead'")
    assert advice[1] == "1 h" and "1 records of the last day" in advice[2] and "the watermark has moved by 2100 s" in advice[2]
