"""Format csv: a record is one line, and holds what COPY ... (FORMAT csv) makes of the same bytes."""

import random

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.streams import continuous, counts, kafka_stream, mqtt_stream

TYPES = {
    "t": "text", "i": "int", "l": "bigint", "s": "smallint", "f": "real", "n": "float8", "b": "bool", "m": "numeric",
    "ts": "timestamptz", "d": "date", "y": "bytea", "v": "varchar(5)",
}  # fmt: skip
COLUMNS = ", ".join(f"{name} {type}" for name, type in TYPES.items())
NAMES = ", ".join(TYPES)

# Delimiter, quote, escape, null.
DIALECTS = {
    "default": (",", '"', '"', ""),
    "semicolon": (";", "'", "\\", "NULL"),
    "tab": ("\t", '"', "%", "-"),
    "letters": ("x", "q", "e", ""),
}


def options(dialect: str) -> str:
    """As a stream has them, and COPY."""
    names = ("delimiter", "quote", "escape", "null")
    values = (value.replace("'", "''") for value in DIALECTS[dialect])
    return ", ".join(f"{name} '{value}'" for name, value in zip(names, values, strict=True))


def quoted(text: str, dialect: str, always: bool = False) -> str:
    delimiter, quote, escape, null = DIALECTS[dialect]
    if not always and text != null and not set(text) & {delimiter, quote, "\n", "\r"}:
        return text
    inner = "".join(escape + c if c in (quote, escape) else c for c in text)
    return quote + inner + quote


def some_value(rng: random.Random, type: str) -> str | None:
    """Such as the type takes; None: NULL."""
    if rng.random() < 0.1:
        return None
    number = rng.choice([0, 1, -1, 7, -0, 32767, -32768, rng.randrange(-(10**4), 10**4)])
    real = rng.choice(["0", "-0", "1.5", "0.1", "007.250", ".5", "5.", "1e10", "-2.5e-3", "NaN", "-Infinity", " 3.25 "])
    real = rng.choice([real, f"{rng.uniform(-1000, 1000):.{rng.randrange(1, 18)}f}", str(rng.randrange(10**17))])
    time = f"{rng.randrange(1000, 9999)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    letters = rng.choice(["abc", "\"',;\t\\%-\n\rxqe", "é€😀 \"\n", "NULL-"])
    return {
        "text": "".join(rng.choices(letters, k=rng.randrange(8))),
        "varchar(5)": "".join(rng.choices(letters, k=rng.randrange(6))),
        "int": rng.choice([str(number), f" {number} ", "+5", "007", "-2147483648", "2147483647"]),
        "bigint": rng.choice([str(number), "-9223372036854775808", "9223372036854775807", "1234567890123456"]),
        "smallint": str(number),
        "real": real,
        "float8": real,
        "numeric": rng.choice(["1.50", "-0.001", "NaN", "1e-20", "9" * 40]),
        "bool": rng.choice(["t", "f", "true", "FALSE", "yes", "0", "on", " t "]),
        "timestamptz": time + rng.choice([" 12:34:56", "T23:59:59.999999Z", " 00:00:00.5+02", " 12:00 PST", "", " 24:00:00"]),
        "date": rng.choice([time, "infinity", "3 May 2024"]),
        "bytea": rng.choice(["\\x00ff", "abc", "\\\\", ""]),
    }[type]


def some_line(rng: random.Random, dialect: str) -> str:
    fields = []
    for type in TYPES.values():
        value = some_value(rng, type)
        fields.append(DIALECTS[dialect][3] if value is None else quoted(value, dialect, always=rng.random() < 0.3))
    return DIALECTS[dialect][0].join(fields)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_copy_makes_of_it(db: Database, kafka: Kafka, topic: str, dialect: str) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lines = [some_line(rng, dialect) for _ in range(3000)]
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', {options(dialect)}", f"{COLUMNS}, pos bigint OPTIONS (metadata 'offset')", format="csv")
    continuous(db, "w", f"SELECT pos, {NAMES}, count(*) FROM s GROUP BY pos, {NAMES}")
    kafka.produce(topic, [line + rng.choice(["", "\n", "\r\n", "\r"]) for line in lines])
    db.execute("SET timezone = 'UTC'")
    db.execute(f"CREATE TABLE o ({COLUMNS}, pos bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0))")
    with db.connection.cursor() as cursor, cursor.copy(f"COPY o ({NAMES}) FROM STDIN (FORMAT csv, {options(dialect)})") as copy:
        copy.write("".join(line + "\n" for line in lines))
    db.flush("s")
    assert db.rows("SELECT position, reason, payload FROM streamext.dead_letters") == []
    db.assert_same("TABLE w", f"SELECT pos, {NAMES}, 1 FROM o", tolerance=0)
    assert db.value("SELECT count(*) FROM s") == 1000, "the buffer"


FUZZ = [b'"', b"'", b"\\", b",", b";", b"x", b"e", b"q", b"%", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"\xc3\xa9", b"1", b"-", b" ", b"NULL"]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["default", "semicolon", "letters"])
def test_fuzz(db: Database, kafka: Kafka, topic: str, dialect: str) -> None:
    """Any bytes: accepted as the row that COPY makes of them, or a dead letter where COPY makes an error, no row or several."""
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    payloads = []
    for _ in range(1500):
        payload = DIALECTS[dialect][0].join(quoted(rng.choice(["", "1", "ab", "a\nb", "q'\"e"]), dialect) for _ in range(2)).encode()
        for _ in range(rng.choice([0, 1, 2, 5])):
            at = rng.randrange(len(payload) + 1)
            payload = payload[:at] + rng.choice([*FUZZ, bytes([rng.randrange(256)])]) + payload[at + rng.randrange(2) :]
        payloads.append(payload.replace(b"\\.", b"\\"))  # to COPY the end
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', {options(dialect)}", "a text, b text, pos bigint OPTIONS (metadata 'offset')", format="csv")
    continuous(db, "w", "SELECT pos, a, b, count(*) FROM s GROUP BY pos, a, b")
    kafka.produce(topic, [Message(payload) for payload in payloads])
    db.execute("SET test.pos = 0")
    db.execute("CREATE TABLE o (a text, b text, pos bigint DEFAULT current_setting('test.pos')::bigint)")
    with db.connection.cursor() as cursor:
        for pos, payload in enumerate(payloads):
            cursor.execute("SELECT set_config('test.pos', %s, false)", [str(pos)])
            try:
                with cursor.copy(f"COPY o (a, b) FROM STDIN (FORMAT csv, {options(dialect)})") as copy:
                    copy.write(payload)
                if cursor.rowcount != 1:
                    cursor.execute("DELETE FROM o WHERE pos = %s", [pos])
            except psycopg.Error:
                pass
    db.flush("s")
    db.assert_same("TABLE w", "SELECT pos, a, b, 1 FROM o")
    letters = db.rows("SELECT position, payload, reason FROM streamext.dead_letters")
    assert all(payloads[position] == payload and reason for position, payload, reason in letters)
    accepted = db.value("SELECT count(*) FROM o")
    assert counts(db, "w") == (accepted, 0, len(letters)) and accepted + len(letters) == len(payloads)
    assert accepted > 200 and len(letters) > 200


BAD = {
    "tombstone": (None, "22004"),
    "empty": (b"", "22P04"),
    "too few": (b"1", "22P04"),
    "too many": (b"1,2,2024-01-01,4", "22P04"),
    "two lines": (b"1,x,2024-01-01\n1,x,2024-01-01", "22P04"),
    "an empty line behind": (b"1,x,2024-01-01\n\n", "22P04"),
    "not closed": (b'1,"x,2024-01-01', "22P04"),
    "escape at the end": (b'1,x,"""', "22P04"),
    "nul": (b"1,a\0b,2024-01-01", "22021"),
    "invalid utf-8": (b"1,\xff,2024-01-01", "22021"),
    "cut off utf-8": (b"1,x,\xc3", "22021"),
    "no number": (b"one,x,2024-01-01", "22P02"),
    "quoted and empty": (b'"",x,2024-01-01', "22P02"),
    "out of range": (b"2147483648,x,2024-01-01", "22003"),
    "no time": (b"1,x,noon", "22007"),
    "not null": (b"1,,2024-01-01", "23502"),
    "null time": (b"1,x,", "23502"),
    "header": (b"i,t,ts", "22P02"),
}  # fmt: skip


def test_bad_records(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', tombstones 'reject'", "i int, t text NOT NULL, ts timestamptz", format="csv")
    continuous(db, "w", "SELECT i, t, count(*) FROM s GROUP BY i, t")
    good = Message(b"1,x,2024-01-01T00:00:00Z")
    kafka.produce(topic, [message for payload, _ in BAD.values() for message in (Message(payload), good)])
    db.flush("s")
    assert db.rows("TABLE w") == [(1, "x", len(BAD))]
    letters = db.rows("SELECT sqlstate, payload FROM streamext.dead_letters ORDER BY position")
    assert dict(zip(BAD, letters, strict=True)) == {name: (sqlstate, payload) for name, (payload, sqlstate) in BAD.items()}


def test_paths_are_field_numbers(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    """With one a record may have more fields than are taken."""
    columns = "a int OPTIONS (path '3'), l text OPTIONS (metadata 'topic_level 2'), b text, c text OPTIONS (path '3')"
    mqtt_stream(db, mosquitto, f"topic '{topic}/+'", columns, format="csv")
    continuous(db, "w", "SELECT a, l, b, c, count(*) FROM s GROUP BY a, l, b, c")
    db.flush("s")
    mosquitto.publish([(f"{topic}/x", b"no,yes,3"), (f"{topic}/y", b',"",3,"four",5\r\n'), (f"{topic}/z", b"1,2")])
    db.flush("s")
    assert sorted(db.rows("TABLE w")) == [(3, "x", "yes", "3", 1), (3, "y", "", "3", 1)]
    assert db.rows("SELECT topic, reason FROM streamext.dead_letters") == [(f"{topic}/z", "the payload has 2 fields, not at least 3")]
    db.execute("ALTER FOREIGN TABLE s RENAME COLUMN b TO d")
    assert sorted(db.rows("SELECT d FROM s")) == [("",), ("yes",)]


def test_header_lines(db: Database, kafka: Kafka, topic: str) -> None:
    """Passed over wherever they stand, in whatever case, quoted or not; what is nearly one is a record."""
    kafka.create_topic(topic)
    lines = ["Device;T", '\ufeff"device";"t"\r\n', "a;1", "device;t\n", "device;tt", "device", "device;t;more", "b;2"]
    kafka_stream(db, kafka, f"topic '{topic}', delimiter ';', header 'true'", "device text, t int, part int OPTIONS (metadata 'partition')", format="csv")
    kafka_stream(db, kafka, f"topic '{topic}', delimiter ';', header 'true'", "t int OPTIONS (path '2')", format="csv", name="p")
    kafka_stream(db, kafka, f"topic '{topic}', delimiter ';'", "device text, t text", format="csv", name="without")
    for stream in ("s", "p", "without"):
        continuous(db, f"v_{stream}", f"SELECT count(*) AS n FROM {stream}")
    kafka.produce(topic, lines)
    db.flush("s", "p", "without")
    numbers = "SELECT rows_in, rejected, tombstones FROM streamext.streams WHERE stream = %s::regclass"
    assert db.rows(numbers, "s") == [(8, 2, 4)] and db.value("TABLE v_s") == 2 and counts(db, "v_s") == (2, 0, 2)
    assert db.rows(numbers, "p") == [(8, 2, 4)] and db.value("TABLE v_p") == 2
    assert db.value("TABLE v_without") == 6
    for options in ("header 'true'", "format 'csv', header 'yes'"):
        with pytest.raises(psycopg.Error):
            db.execute(f"CREATE FOREIGN TABLE no (a int) SERVER kafka_server OPTIONS (topic 'x', {options})")
