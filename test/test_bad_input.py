"""Whatever bytes arrive: a bad record is counted, kept and explained, the others count, and no process ends."""

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.streams import continuous, counts, kafka_stream, mqtt_stream, worker_pid
from harness.wait import wait_for

GOOD = b'{"i":1,"n":1.5,"t":"good","ts":"2024-05-01T12:00:00Z"}'


def with_value(name: str, value: str) -> bytes:
    """GOOD with one value replaced by this JSON text."""
    values = {"i": "1", "n": "1.5", "t": '"good"', "ts": '"2024-05-01T12:00:00Z"', name: value}
    return ("{" + ",".join(f'"{key}":{text}' for key, text in values.items()) + "}").encode()


# Name to payload and the classes of its SQLSTATE.
BAD: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "22004"),
    "empty": (b"", "22P02"),
    "blank": (b" \n\t ", "22P02"),
    "no json": (b"hello", "22P02"),
    "truncated": (GOOD[:-10], "22P02"),
    "truncated in a number": (b'{"i":', "22P02"),
    "truncated in a string": (b'{"t":"abc', "22P02"),
    "truncated in an escape": (b'{"t":"abc\\', "22P02"),
    "trailing": (GOOD + b"}", "22P02"),
    "two documents": (GOOD + GOOD, "22P02"),
    "array": (b"[" + GOOD + b"]", "22P02"),
    "number": (b"7", "22P02"),
    "string": (b'"x"', "22P02"),
    "null": (b"null", "22P02"),
    "deep": (b'{"x":' * 10_000 + b"1" + b"}" * 10_000, "22P02"),
    "deep arrays": (b'{"x":' + b"[" * 200 + b"]" * 200 + b"," + GOOD[1:], "22P02"),
    "unclosed": (b"[" * 900_000, "22P02"),
    "invalid utf-8": (with_value("t", '"x"').replace(b"x", b"\xff\xfe"), "22P02"),
    "overlong utf-8": (with_value("t", '"x"').replace(b"x", b"\xc0\x80"), "22P02"),
    "surrogate in utf-8": (with_value("t", '"x"').replace(b"x", b"\xed\xa0\x80"), "22P02"),
    "invalid utf-8 in another field": (b'{"other":"\xff",' + GOOD[1:], "22P02"),
    "lone surrogate": (with_value("t", '"\\ud800"'), "22P02"),
    "nul": (with_value("t", '"a\\u0000b"'), "22P05"),
    "nul in a time": (with_value("ts", '"2024\\u0000"'), "22P05"),
    "nul byte": (with_value("t", '"a\0b"'), "22P02"),
    "nul byte after a number": (with_value("n", "1\0"), "22P02"),
    "nul byte after an atom": (with_value("t", "true\0"), "22P02"),
    "nul byte in another field": (b'{"other":1\0,' + GOOD[1:], "22P02"),
    "nul byte between fields": (GOOD.replace(b",", b"\0,", 1), "22P02"),
    "control character": (with_value("t", '"a\nb"'), "22P02"),
    "bad escape": (with_value("t", '"\\x"'), "22P02"),
    "single quotes": (b"{'i':1}", "22P02"),
    "comment": (b"{/* */" + GOOD[1:], "22P02"),
    "trailing comma": (GOOD[:-1] + b",}", "22P02"),
    "no colon": (b'{"i" 1}', "22P02"),
    "bom": (b"\xef\xbb\xbf" + GOOD, "22P02"),
    "utf-16": (GOOD.decode().encode("utf-16"), "22P02"),
    "nan": (with_value("n", "NaN"), "22P02"),
    "infinity": (with_value("n", "-Infinity"), "22P02"),
    "leading zero": (with_value("i", "01"), "22P02"),
    "plus": (with_value("i", "+1"), "22P02"),
    "bad number in another field": (b'{"other":1.2.3,' + GOOD[1:], "22P02"),
    "bad atom in another field": (b'{"other":nul,' + GOOD[1:], "22P02"),
    "string for an int": (with_value("i", '"x"'), "22P02"),
    "empty string for an int": (with_value("i", '""'), "22P02"),
    "fraction for an int": (with_value("i", "1.5"), "22P02"),
    "true for an int": (with_value("i", "true"), "22P02"),
    "object for an int": (with_value("i", "{}"), "22P02"),
    "array for an int": (with_value("i", "[1]"), "22P02"),
    "int out of range": (with_value("i", "2147483648"), "22003"),
    "int far out of range": (with_value("i", "9" * 5000), "22003"),
    "float out of range": (with_value("n", "1e400"), "22003"),
    "float far out of range": (with_value("n", "9" * 5000), "22003"),
    "float too small": (with_value("n", "1e-400"), "22003"),
    "no time": (with_value("ts", '"noon"'), "22007"),
    "time out of range": (with_value("ts", '"2024-13-01T00:00:00Z"'), "22008"),
    "time beyond the end": (with_value("ts", '"294277-01-01T00:00:00Z"'), "22008"),
    "time as a number": (with_value("ts", "1714564800"), "22008"),
    "time null": (with_value("ts", "null"), "23502"),
    "time missing": (b'{"i":1,"t":"x"}', "23502"),
    "time infinite": (with_value("ts", '"infinity"'), "22008"),
    "time far ahead": (with_value("ts", '"2999-01-01T00:00:00Z"'), "22008"),
    "not null": (with_value("t", "null"), "23502"),
}  # fmt: skip

# What a strict reader might trip over, but counts.
FINE: dict[str, tuple[bytes, tuple[int | None, float | None, str]]] = {
    "as it is": (GOOD, (1, 1.5, "good")),
    "white space": (b" \r\n" + GOOD.replace(b",", b" ,\t") + b"\n\n", (1, 1.5, "good")),
    "nulls": (with_value("i", "null").replace(b"1.5", b"null"), (None, None, "good")),
    "missing": (b'{"t":"x","ts":"2024-05-01T12:00:00Z"}', (None, None, "x")),
    "more fields": (b'{"x":{"i":7,"t":[{"t":"no"}]},' + GOOD[1:], (1, 1.5, "good")),
    "last of two": (GOOD[:-1] + b',"i":2,"t":"second"}', (2, 1.5, "second")),
    "number in a string": (with_value("i", '"42"'), (42, 1.5, "good")),
    "int for a float": (with_value("n", "3"), (1, 3.0, "good")),
    "many digits": (with_value("n", "0." + "3" * 3000), (1, 1 / 3, "good")),
    "more digits than 64 bits hold": (with_value("n", "-0.1000000000000000055511151231257827"), (1, -0.1, "good")),
    "more digits behind zeros": (with_value("n", "0.00012345678901234567890123e-2"), (1, 0.00012345678901234567890123e-2, "good")),
    "big exponent": (with_value("n", "12345e300"), (1, 12345e300, "good")),
    "number for a text": (with_value("t", "12.50"), (1, 1.5, "12.50")),
    "bool for a text": (with_value("t", "true"), (1, 1.5, "true")),
    "object for a text": (with_value("t", '{"a": [1]}'), (1, 1.5, '{"a": [1]}')),
    "escapes": (with_value("t", '"\\u00e9\\n\\"\\/\\ud83d\\ude00"'), (1, 1.5, 'é\n"/😀')),
    "escaped name": (GOOD.replace(b'"t"', b'"\\u0074"'), (1, 1.5, "good")),
    "utf-8": (with_value("t", '"ü€😀"'), (1, 1.5, "ü€😀")),
    "empty text": (with_value("t", '""'), (1, 1.5, "")),
    "long text": (with_value("t", '"' + "y" * 500_000 + '"'), (1, 1.5, "y" * 500_000)),
    "60 deep": (b'{"x":' + b"[" * 60 + b"]" * 60 + b"," + GOOD[1:], (1, 1.5, "good")),
    "time with a zone": (with_value("ts", '"2024-05-01 14:00:00.5+02"'), (1, 1.5, "good")),
    "time in words": (with_value("ts", '"1 May 2024 12:00 UTC"'), (1, 1.5, "good")),
}

COLUMNS = "i int, n float8, t text NOT NULL, ts timestamptz, pos bigint OPTIONS (metadata 'offset')"


@pytest.fixture(autouse=True)
def no_process_ends(db: Database) -> Iterator[None]:
    """Neither a crash of the server nor a restart of a worker."""
    server_started = "SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    before = db.value(server_started)
    yield
    assert db.value(server_started) == before
    assert db.rows("SELECT stream FROM streamext.workers WHERE restarts > 0") == []


def test_bad_records_are_kept_and_explained(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, partitions=2)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', tombstones 'reject'", COLUMNS)
    continuous(db, "v", "SELECT pos, i, n, t, count(*) FROM s GROUP BY pos, i, n, t")
    messages: list[Message] = []
    for payload, _ in BAD.values():
        messages += [Message(payload, 0, key="bad"), Message(GOOD, 1)]
    db.flush("s")
    pid = worker_pid(db)
    kafka.produce(topic, messages)
    db.flush("s")
    assert counts(db, "v") == (len(BAD), 0, len(BAD))
    assert db.rows("SELECT rows_in, rejected FROM streamext.streams") == [(2 * len(BAD), len(BAD))]
    assert db.value("SELECT count(*) FROM v WHERE t = 'good'") == len(BAD)
    letters = db.rows("""SELECT position, sqlstate, reason, payload, view, received_at > now() - interval '1 minute'
        FROM streamext.dead_letters WHERE stream = 's'::regclass AND topic = %s AND partition = 0 ORDER BY position""", topic)
    assert [position for position, *_ in letters] == list(range(len(BAD)))
    wrong = []
    for (name, (payload, sqlstate)), (_, found, reason, kept, view, recent) in zip(BAD.items(), letters, strict=True):
        complete = kept == payload if payload is None or len(payload) <= 1 << 20 else payload.startswith(kept)
        if found != sqlstate or not complete or not reason or view is not None or not recent:
            wrong.append((name, found, reason, kept and kept[:50]))
    assert not wrong
    assert worker_pid(db) == pid


def test_tombstones(db: Database, kafka: Kafka, topic: str) -> None:
    """They are passed over, counted, and push no letter out; a letter keeps the key and the headers of its record."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "i int, k text OPTIONS (metadata 'key')")
    continuous(db, "v", "SELECT k, count(*) FROM s GROUP BY k")
    messages = [Message(b'{"i":1}', key="a"), Message(None, key="a"), Message(None, key="b"),
                Message(b"no", key=b"\x00\xff", headers=[("h", b"1"), ("g", b"x")])]  # fmt: skip
    kafka.produce(topic, messages)
    db.flush("s")
    assert counts(db, "v") == (1, 0, 1)
    assert db.rows("SELECT rows_in, rejected, tombstones FROM streamext.streams") == [(4, 1, 2)]
    assert db.rows("SELECT k, count FROM v") == [("a", 1)]
    assert db.rows("SELECT position, key, headers->>'h', headers->>'g' FROM streamext.dead_letters") == [(3, b"\x00\xff", "1", "x")]
    assert db.value("SELECT count(*) FROM s") == 1
    db.execute("ALTER FOREIGN TABLE s OPTIONS (ADD tombstones 'reject')")
    kafka.produce(topic, [Message(None, key="c"), Message(b"no")])
    db.flush("s")
    assert counts(db, "v") == (1, 0, 3)
    assert db.rows("SELECT rejected, tombstones FROM streamext.streams") == [(3, 2)]
    assert db.rows("SELECT position, sqlstate, key, headers FROM streamext.dead_letters WHERE position > 3 ORDER BY 1") == [
        (4, "22004", b"c", None), (5, "22P02", None, None)]  # fmt: skip


def test_what_counts(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS)
    continuous(db, "v", "SELECT pos, i, n, t, count(*) FROM s GROUP BY pos, i, n, t")
    kafka.produce(topic, [payload for payload, _ in FINE.values()])
    db.flush("s")
    assert db.rows("SELECT reason FROM streamext.dead_letters") == []
    found = dict(zip(FINE, db.rows("SELECT i, n, t FROM v ORDER BY pos"), strict=True))
    assert found == {name: values for name, (_, values) in FINE.items()}


# Payload and what the columns n.b, l[0] and l[1].c hold: of a field that comes twice the last counts, with all that is in it.
TWICE = [
    ('{"n":{"b":1,"b":2}}', (2, None, None)), ('{"n":{"b":1},"n":{}}', (None, None, None)), ('{"n":{"b":1},"n":5}', (None, None, None)),
    ('{"n":{"b":1},"n":null}', (None, None, None)), ('{"n":{"b":1},"x":{"b":2},"n":{"b":3}}', (3, None, None)),
    (r'{"n":{"b":1},"\u006e":{}}', (None, None, None)), ('{"l":["x",{"c":1}],"l":[]}', (None, None, None)),
    ('{"l":["x",{"c":1}],"l":["y"]}', (None, "y", None)), ('{"l":["x",{"c":1,"c":2}]}', (None, "x", 2)),
]  # fmt: skip


def test_a_field_that_comes_twice(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    columns = "pos bigint OPTIONS (metadata 'offset'), b int OPTIONS (path 'n.b'), l text OPTIONS (path 'l[0]'), c int OPTIONS (path 'l[1].c'), f real"
    kafka_stream(db, kafka, f"topic '{topic}'", columns)
    continuous(db, "v", "SELECT pos, b, l, c, count(*) FROM s GROUP BY pos, b, l, c")
    kafka.produce(topic, [payload for payload, _ in TWICE] + [r'{"f":"1\u0000x"}'])
    db.flush("s")
    assert dict(zip([payload for payload, _ in TWICE], db.rows("SELECT b, l, c FROM v ORDER BY pos"), strict=True)) == dict(TWICE)
    assert db.rows("SELECT sqlstate FROM streamext.dead_letters") == [("22P05",)]


def test_a_view_that_cannot_take_a_row(db: Database, kafka: Kafka, topic: str) -> None:
    """The row is rejected for that view alone."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, t text")
    continuous(db, "quotient", "SELECT count(*) AS n, sum(100 / a) AS total FROM s")
    continuous(db, "filtered", "SELECT count(*) AS n FROM s WHERE t::int > 0")
    continuous(db, "keyed", "SELECT sqrt(a) AS k, count(*) AS n FROM s GROUP BY k")
    continuous(db, "all_", "SELECT count(*) AS n, sum(a) AS total FROM s")
    kafka.produce(topic, [f'{{"a":{i % 5},"t":"{i % 7 or "x"}"}}' for i in range(700)])
    db.flush("s")
    assert db.rows("TABLE all_") == [(700, 1400)]
    assert db.rows("TABLE quotient") == [(560, 140 * (100 + 50 + 33 + 25))]
    assert db.rows("TABLE filtered") == [(600,)]
    assert (counts(db, "quotient"), counts(db, "filtered")) == ((560, 0, 140), (600, 0, 100))
    assert counts(db, "keyed") == counts(db, "all_") == (700, 0, 0)
    assert sorted(db.rows("SELECT view::text, sqlstate, count(*) FROM streamext.dead_letters GROUP BY 1, 2")) == [
        ("filtered", "22P02", 100), ("quotient", "22012", 140)
    ]  # fmt: skip


@pytest.mark.parametrize("format, type, bad", [("text", "int", b"x"), ("text", "text", b"\xff"), ("text", "text", b"a\0b")])
def test_bad_text(db: Database, kafka: Kafka, topic: str, format: str, type: str, bad: bytes) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', tombstones 'reject'", f"a {type}", format=format)
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, ["1", Message(bad), Message(None), "2"])
    db.flush("s")
    assert db.rows("TABLE v") == [(2,)]
    assert db.rows("SELECT position, payload FROM streamext.dead_letters ORDER BY 1") == [(1, bad), (2, None)]


def test_on_error_skip(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', on_error 'skip'", "a int")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, ["x", '{"a":1}'])
    db.flush("s")
    assert db.rows("TABLE v") == [(1,)]
    assert db.rows("SELECT rejected FROM streamext.streams") == [(1,)]
    assert db.rows("TABLE streamext.dead_letters") == []


def test_error_texts_are_cut_between_characters(db: Database, kafka: Kafka, topic: str) -> None:
    """Wherever a text of two-byte characters meets the end of its room, at an even or an odd byte."""
    for prefix in ("", "x"):
        kafka.create_topic(topic + prefix)
        kafka_stream(db, kafka, f"topic '{topic + prefix}', on_error 'stop'", "a int", name=f"s{prefix}")
        db.execute(f"CREATE VIEW v{prefix} WITH (streamext.continuous) AS SELECT count(*) AS n FROM s{prefix}")
        kafka.produce(topic + prefix, [json.dumps({"a": prefix + "ä" * 300}, ensure_ascii=False)])
        error = wait_for(lambda p=prefix: db.value("SELECT last_error FROM streamext.streams WHERE stream = %s::regclass", f"s{p}"), what="the error")
        assert "stopped at a rejected record" in error and error.endswith("ää")
        assert len(error.encode()) in (254, 255)


def test_bad_messages_of_mqtt(db: Database, mosquitto: Mosquitto, topic: str) -> None:
    mqtt_stream(db, mosquitto, f"topic '{topic}/+'", "i int, n float8, t text NOT NULL, ts timestamptz, l text OPTIONS (metadata 'topic_level 2')")
    continuous(db, "v", "SELECT l, count(*) AS n FROM s GROUP BY l")
    db.flush("s")
    bad = [b"", b"x", b"\xff" * 100, b"[]", GOOD[:-1]]
    mosquitto.publish([(f"{topic}/x", payload) for payload in bad] + [(f"{topic}/y", GOOD)])
    db.flush("s")
    assert db.rows("TABLE v") == [("y", 1)]
    assert db.rows("SELECT topic, payload FROM streamext.dead_letters ORDER BY position") == [(f"{topic}/x", payload) for payload in bad]


# ---- fuzzing ----

TOKENS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"false", b"-", b"e", b".", b"0", b"9" * 20, b"1e308",
    b"1e-308", b"\\u0000", b"\\ud800", b"\\udc00", b"\xff", b"\xc3", b"\x00", b" ", b"\n", b'"n":2', b'"t":"z",', b"\xef\xbb\xbf",
]  # fmt: skip


def seed_document(rng: random.Random) -> bytes:
    values: dict[str, Any] = {
        "t": rng.choice(["plain", "é", 'quo"te', "", None, 12, 1.25, True, [1, "x"], {"k": None}]),
        "n": rng.choice([0, 1, -2.5, 1e100, 123456789012345678, None, "3.5"]),
        "x": rng.choice([{"y": [1, {"z": "w"}]}, [], "…"]),
    }
    return json.dumps(values, ensure_ascii=rng.random() < 0.5).encode()


def mutate(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 6])):
        at, end = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
        data = rng.choice([
            lambda: data[:at],
            lambda: data[at:],
            lambda: data[:at] + data[at + 1 :],
            lambda: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
            lambda: data[:at] + rng.choice(TOKENS) + data[at:],
            lambda: data[:at] + rng.choice(TOKENS) + data[at + 1 :],
            lambda: data[: max(at, end)] + data[min(at, end) :],
        ])()  # fmt: skip
    return data


def no_constant(name: str) -> None:
    raise ValueError(name)


def loads(payload: bytes) -> dict[str, Any] | None:
    """The document as Python understands it, which takes lone surrogates; None: no JSON object."""
    try:
        document = json.loads(payload.decode(), parse_constant=no_constant)
        return document if isinstance(document, dict) else None
    except ValueError:
        return None


def same_text(text: str | None, value: Any) -> bool:
    return text == value if value is None or isinstance(value, str) else json.loads(text or "null") == value


def same_number(number: float | None, value: Any) -> bool:
    return number is None if value is None else number == float(value)


def must_be_accepted(document: dict[str, Any]) -> bool:
    """Beyond doubt."""
    text, number = document.get("t"), document.get("n")
    is_number = number is None or (type(number) in (int, float) and (number == 0) is False and math.isfinite(float(number)))
    try:
        json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return is_number and "\0" not in json.dumps(text, ensure_ascii=False).replace("\\u0000", "\0")


def test_fuzz(db: Database, kafka: Kafka, topic: str) -> None:
    """Mutations of valid JSON: all are accepted or rejected, and what is accepted is what Python's parser reads."""
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    payloads = [mutate(rng, seed_document(rng)) for _ in range(5000)]
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "t text, n float8, pos bigint OPTIONS (metadata 'offset')")
    continuous(db, "v", "SELECT pos, t, n, count(*) AS times FROM s GROUP BY pos, t, n")
    kafka.produce(topic, payloads)
    db.flush("s")
    accepted = {pos: (t, n) for pos, t, n, times in db.rows("TABLE v") if times == 1}
    letters = {pos: (payload, reason) for pos, payload, reason in db.rows("SELECT position, payload, reason FROM streamext.dead_letters")}
    assert counts(db, "v") == (len(accepted), 0, len(letters))
    assert sorted([*accepted, *letters]) == list(range(len(payloads)))
    assert all(letters[pos][0] == payloads[pos] for pos in letters)
    assert len(accepted) > 500 and len(letters) > 500
    for pos, (t, n) in accepted.items():
        document = loads(payloads[pos])
        assert document is not None, (payloads[pos], t, n)
        assert same_text(t, document.get("t")) and same_number(n, document.get("n")), (payloads[pos], t, n)
    for pos, (payload, reason) in letters.items():
        document = loads(payload)
        assert document is None or not must_be_accepted(document), (payload, reason)
