"""Values as the world writes them: column options time_format, time_zone, on_bad_value, encoding; stream options fields, trim, datestyle."""

import json

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.streams import continuous, counts, kafka_stream, mqtt_stream

MOMENT = "2024-05-01 11:00:31.5+00"
UNIX = 1714561231


# time_format, and JSON texts that mean MOMENT.
SAME = {
    "unix": ["1714561231.5", '"1714561231.5"', "1.7145612315e9", "17145612315E-1", '" 1714561231.50 "', "1714561231.5000004"],
    "unix_ms": ["1714561231500", '"1714561231500"', "1714561231500.0", "1.7145612315e12", "1714561231499.9996"],
    "unix_us": ["1714561231500000", '"1714561231500000"'],
    "unix_ns": ["1714561231500000000", '"1714561231500000123"', "1714561231499999501"],
    "DD.MM.YYYY HH24:MI:SS.MS TZH": ['"01.05.2024 11:00:31.500 +00"', '"01.05.2024 13:00:31.500 +02"'],
    "iso": ['"2024-05-01T11:00:31.5Z"', '"2024-05-01 13:00:31.5+02:00"'],
}  # fmt: skip


@pytest.mark.parametrize("format", SAME)
def test_time_format_is_the_event_time(db: Database, kafka: Kafka, topic: str, format: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", f"ts timestamptz OPTIONS (time_format '{format}')")
    continuous(db, "v", "SELECT streamext.tumble('1 s', ts) AS w, count(*) AS n, min(ts), max(ts) FROM s GROUP BY w")
    kafka.produce(topic, [Message(f'{{"ts":{text}}}') for text in SAME[format]])
    db.flush("s")
    assert db.rows("SELECT reason FROM streamext.dead_letters") == []
    assert db.rows(f"SELECT n, min = '{MOMENT}', max = '{MOMENT}' FROM v") == [(len(SAME[format]), True, True)]


def test_types_and_time_zones(db: Database, kafka: Kafka, topic: str) -> None:
    """A zone holds where the text names none; without one it is UTC."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", """
        a timestamp OPTIONS (time_format 'unix'), b timestamp OPTIONS (time_format 'unix', time_zone 'Europe/Berlin'),
        c date OPTIONS (time_format 'unix_ms', time_zone 'Asia/Tokyo'), d timestamptz(0) OPTIONS (time_format 'unix'),
        e timestamptz OPTIONS (time_zone 'Europe/Berlin'), f timestamptz OPTIONS (time_zone 'Europe/Berlin'),
        g timestamptz OPTIONS (time_format 'DD.MM.YYYY HH24:MI', time_zone 'Europe/Berlin'), h date OPTIONS (time_format 'DD.MM.YY'),
        i timestamptz OPTIONS (time_zone 'Europe/Berlin'), j date OPTIONS (time_format 'YYYYMMDD'), k timestamptz""")  # fmt: skip
    continuous(db, "v", "SELECT a, b, c, d, e, f, g, h, i, j, k, count(*) FROM s GROUP BY a, b, c, d, e, f, g, h, i, j, k")
    row = {"a": 1714561231.5, "b": 1714561231.5, "c": "1714575600000", "d": 1714561231.7, "e": "2024-05-01T13:00:31", "f": "2024-05-01T13:00:31Z",
           "g": "01.05.2024 13:00", "h": "01.05.24", "i": "1 May 2024 13:00", "j": 20240501, "k": "20240501"}  # fmt: skip
    kafka.produce(topic, [json.dumps(row), '{"a":-0.5,"c":-86400000}'])
    db.flush("s")
    assert db.rows("SELECT reason FROM streamext.dead_letters") == []
    assert db.rows("""SELECT * FROM v WHERE e IS NOT NULL EXCEPT SELECT '2024-05-01 11:00:31.5', '2024-05-01 13:00:31.5', '2024-05-02', '2024-05-01 11:00:32+00',
        '2024-05-01 11:00:31+00', '2024-05-01 13:00:31+00', '2024-05-01 11:00+00', '2024-05-01', '2024-05-01 11:00+00', '2024-05-01', '2024-05-01+00', 1""") == []
    assert db.rows("SELECT a::text, c::text FROM v WHERE e IS NULL") == [("1969-12-31 23:59:59.5", "1969-12-31")]


def test_the_first_hours_of_all_time(db: Database, kafka: Kafka, topic: str) -> None:
    """Where clocks showed a day that there is not: one such record made the view unreadable for everybody."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", """
        a timestamp OPTIONS (time_format 'unix', time_zone 'America/New_York'), b date OPTIONS (time_format 'unix', time_zone 'America/New_York')""")
    continuous(db, "v", "SELECT min(a) AS a, min(b) AS b, count(*) AS n FROM s")
    first = -210866803200
    kafka.produce(topic, [f'{{"a":{first}}}', f'{{"b":{first}}}', f'{{"a":{first + 86400}}}', f'{{"b":{first + 86400}}}'])
    db.flush("s")
    assert db.rows("SELECT a::text, b::text, n FROM v") == [("4714-11-24 19:03:58 BC", "4714-11-24 BC", 2)]
    assert db.rows("SELECT sqlstate FROM streamext.dead_letters") == [("22008",)] * 2


NO_TIMES = [("k", "1714561231"), ("k", "1714561231.5"), ("k", "20240501"), ("k", '"1714561231"'), ("k", '"1714561231500"'), ("d", "20240501"), ("t", "1200"),
            ("p", "1714561231")]  # fmt: skip


def test_numbers_are_no_times_without_it(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    db.execute("CREATE DOMAIN past AS timestamp CHECK (VALUE < '2100-01-01')")
    kafka_stream(db, kafka, f"topic '{topic}'", "k timestamptz, d date, t time, p past")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, [f'{{"{column}": {text}}}' for column, text in NO_TIMES])
    db.flush("s")
    letters = db.rows("SELECT sqlstate, reason FROM streamext.dead_letters ORDER BY position")
    assert [sqlstate for sqlstate, _ in letters] == ["22008"] * len(NO_TIMES)
    for (column, _), (_, reason) in zip(NO_TIMES, letters, strict=True):
        assert reason.startswith(f'column "{column}": ') and "time_format" in reason
    assert db.rows("TABLE v") == [(0,)]


def test_what_is_no_number_of_seconds(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "k timestamptz OPTIONS (time_format 'unix')")
    bad = {"true": "22007", '"noon"': "22007", '"2024-05-01"': "22007", "1e30": "22008", "1e400": "22008", "-1e400": "22008",
           '""': "22007", '"NaN"': "22007", '"1e"': "22007", "9223372036854775807": "22008"}  # fmt: skip
    kafka.produce(topic, [f'{{"k":{text}}}' for text in bad])
    db.flush("s")
    assert db.rows("SELECT sqlstate FROM streamext.dead_letters ORDER BY position") == [(sqlstate,) for sqlstate in bad.values()]


def test_on_bad_value_null(db: Database, kafka: Kafka, topic: str) -> None:
    """Whoever reads the value: the parser, a type's input function, a domain. NOT NULL and event times are as ever."""
    kafka.create_topic(topic)
    db.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN needed AS int NOT NULL CHECK (VALUE > 0)")
    option = "OPTIONS (on_bad_value 'null')"
    kafka_stream(db, kafka, f"topic '{topic}'", f"""i int {option}, n float8 {option}, p positive {option}, b bool {option}, t text {option},
        d numeric(3,1) {option}, ts timestamptz OPTIONS (on_bad_value 'null', time_format 'unix'), k timestamptz {option},
        l int[] {option}, must int {option} NOT NULL, dom needed {option}, strict int""")  # fmt: skip
    continuous(db, "v", "SELECT i, n, p, b, t, d, ts, k, l, count(*) FROM s GROUP BY i, n, p, b, t, d, ts, k, l")
    good = {"must": 1, "dom": 1}
    bad = {"i": "x", "n": "y", "p": -1, "b": "maybe", "t": "a\0b", "d": 1000, "ts": "noon", "k": 1714561231, "l": [[1], [2, 3]]}
    kafka.produce(topic, [json.dumps(good | bad), json.dumps(good | {"must": "x"}), json.dumps(good | {"dom": -1}), json.dumps(good | {"i": "x", "strict": "x"})])
    db.flush("s")
    assert db.rows("TABLE v") == [(None,) * 9 + (1,)]
    assert db.rows("SELECT position, sqlstate FROM streamext.dead_letters ORDER BY 1") == [(1, "23502"), (2, "23502"), (3, "22P02")]


def test_options_that_change_hold_from_then_on(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "k timestamptz")
    continuous(db, "v", "SELECT k, count(*) FROM s GROUP BY k")
    kafka.produce(topic, [f'{{"k":{UNIX}.5}}'])
    db.flush("s")
    db.execute("ALTER FOREIGN TABLE s ALTER k OPTIONS (ADD time_format 'unix')")
    kafka.produce(topic, [f'{{"k":{UNIX}.5}}'])
    db.flush("s")
    assert db.rows(f"SELECT k = '{MOMENT}', count FROM v") == [(True, 1)]
    db.execute("ALTER FOREIGN TABLE s ALTER k OPTIONS (SET time_format 'unix_ms')")
    kafka.produce(topic, [f'{{"k":{UNIX}500}}'])
    db.flush("s")
    assert db.rows(f"SELECT k = '{MOMENT}', count FROM v") == [(True, 2)]


def test_encoding(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", r"""a bytea OPTIONS (encoding 'base64'), b bytea OPTIONS (encoding 'hex'), c bytea""")
    continuous(db, "v", "SELECT a, b, c, count(*) FROM s GROUP BY a, b, c")
    kafka.produce(topic, [r'{"a":"/wB4","b":"ff0078","c":"\\xff0078"}', '{"a":"*"}', '{"b":"0g"}'])
    db.flush("s")
    assert db.rows("TABLE v") == [(b"\xff\x00x",) * 3 + (1,)]
    assert [sqlstate for (sqlstate,) in db.rows("SELECT sqlstate FROM streamext.dead_letters")] == ["22023", "22023"]


def test_fields_nocase(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', fields 'nocase'", "deviceId text, temp float8 OPTIONS (path 'Data.temp')")
    continuous(db, "v", "SELECT deviceid, temp, count(*) AS n FROM s GROUP BY deviceid, temp")
    kafka.produce(topic, ['{"deviceId":"a","data":{"TEMP":1}}', r'{"DEVICEID":"a","data":{"temp":1},"x":"\n"}', r'{"device\u0049d":"a","data":{"temp":1}}'])
    db.flush("s")
    assert db.rows("TABLE v") == [("a", 1.0, 3)]
    with pytest.raises(psycopg.Error) as error:
        kafka_stream(db, kafka, f"topic '{topic}', fields 'nocase'", "a int", name="c", format="csv")
    assert error.value.diag.message_primary == 'option "fields" needs format json'


def test_trim(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    payloads = [b'\xef\xbb\xbf{"a":1}', b'{"a":1}\0', b'{"a":1}\r\n\0', b'{"a":1}\n']
    for name, options in (("s", ""), ("trimmed", ", trim 'payload'")):
        kafka_stream(db, kafka, f"topic '{topic}'{options}", "a int", name=name)
        continuous(db, f"v_{name}", f"SELECT a, count(*) AS n FROM {name} GROUP BY a")
    kafka.produce(topic, payloads)
    db.flush("s")
    db.flush("trimmed")
    assert db.rows("TABLE v_s") == [(1, 1)]
    assert db.rows("TABLE v_trimmed") == [(1, 4)]
    assert db.rows("SELECT payload, payload_text FROM streamext.dead_letters ORDER BY position") == [
        (payloads[0], '\ufeff{"a":1}'), (payloads[1], '{"a":1}\\x00'), (payloads[2], '{"a":1}\r\n\\x00')]  # fmt: skip


def test_datestyle_is_kept(db: Database, kafka: Kafka, topic: str) -> None:
    """Of CREATE FOREIGN TABLE, whatever the worker's, or the reader's, is."""
    kafka.create_topic(topic)
    for name, datestyle in (("s", "German"), ("us", "ISO, MDY"), ("asked", "SQL, DMY")):
        options = ", datestyle 'ISO, YMD'" if name == "asked" else ""
        db.execute(f"SET datestyle = '{datestyle}'")
        kafka_stream(db, kafka, f"topic '{topic}'{options}", "d timestamptz, n date", name=name)
    db.execute("RESET datestyle")
    continuous(db, "v", "SELECT d, count(*) FROM s GROUP BY d")
    kafka.produce(topic, ['{"d":"01.05.2024 12:00"}'])
    db.flush("s")
    db.flush("us")
    assert db.rows("SELECT d = '2024-05-01 12:00+00' FROM v") == [(True,)]
    assert db.rows("SELECT d = '2024-05-01 12:00+00' FROM s") == [(True,)]
    assert db.rows("SELECT d = '2024-01-05 12:00+00' FROM us") == [(True,)]
    assert db.rows("SELECT stream::text, datestyle FROM streamext.streams ORDER BY 1") == [("asked", "ISO, YMD"), ("s", "ISO, DMY"), ("us", "ISO, MDY")]


def test_bare_numbers_name_the_format(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a float8")
    db.flush("s")
    mosquitto.publish([(topic, b"21.5"), (topic, b"[1]")])
    db.flush("s")
    assert db.rows("SELECT reason, payload_text FROM streamext.dead_letters ORDER BY position") == [
        ("the payload is not a JSON object; of bare values the option format is 'text'", "21.5"), ("the payload is not a JSON object", "[1]")]  # fmt: skip


def test_csv_and_text(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.create_topic(topic + "t")
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "ts timestamptz OPTIONS (time_format 'unix_ms'), i int OPTIONS (on_bad_value 'null')", format="csv")
    kafka_stream(db, kafka, f"topic '{topic}t'", "ts timestamptz OPTIONS (time_format 'unix', on_bad_value 'null')", name="t", format="text")
    continuous(db, "v", "SELECT ts, i, count(*) FROM s GROUP BY ts, i")
    continuous(db, "w", "SELECT ts, count(*) FROM t GROUP BY ts")
    kafka.produce(topic, [f"{UNIX}500,x"])
    kafka.produce(topic + "t", [f"{UNIX}.5", "off"])
    db.flush("s")
    db.flush("t")
    assert db.rows(f"SELECT ts = '{MOMENT}', i, count FROM v") == [(True, None, 1)]
    assert db.rows(f"SELECT ts = '{MOMENT}', count FROM w ORDER BY ts") == [(True, 1), (None, 1)]
    assert counts(db, "v") == (1, 0, 0)


@pytest.mark.parametrize("column, sqlstate, words", [
    ("a timestamptz OPTIONS (time_format 'epoch')", "HV024", "unix_ms"), ("a timestamptz OPTIONS (time_format 'unix_s')", "HV024", "unix_ms"),
    ("a timestamptz OPTIONS (time_format 'HH24:MI')", "HV024", "year"), ("a timestamptz OPTIONS (time_zone 'Mars')", "HV024", "pg_timezone_names"),
    ("a int OPTIONS (time_format 'unix')", "42804", "timestamp with time zone"), ("a text OPTIONS (time_zone 'UTC')", "42804", "date"),
    ("a text OPTIONS (encoding 'hex')", "42804", "bytea"), ("a bytea OPTIONS (encoding 'base32')", "HV024", "base64, hex"),
    ("a int OPTIONS (on_bad_value 'skip')", "HV024", "reject, null"), ("a timestamptz OPTIONS (time_format 'unix', metadata 'timestamp')", "HV00D", ""),
])  # fmt: skip
def test_refusals(db: Database, kafka: Kafka, column: str, sqlstate: str, words: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        kafka_stream(db, kafka, "topic 'x'", column)
    assert error.value.sqlstate == sqlstate
    assert words in (error.value.diag.message_hint or "")
