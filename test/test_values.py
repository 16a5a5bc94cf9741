"""Values of columns: JSON becomes what json_populate_record makes of it, or the record is rejected."""

import json

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous, counts, kafka_stream

# Column and a JSON text; the value is PostgreSQL's own.
ACCEPTED = [
    ("list", "[1, 2]"), ("list", "[]"), ("list", '[null, "3"]'), ("list", "[[1, 2], [3, 4]]"), ("list", '"{5,6}"'), ("list", "null"),
    ("words", '["a b", "c\\"d", null, "NULL", "{}", "\\\\", "ä"]'), ("words", '[1, true, {"a": 1}]'),
    ("few", "[7]"), ("docs", '[{"a": 1}, [1], "x", null]'), ("pair", '{"a": 1, "b": "x"}'), ("pair", '"(2,y)"'), ("pair", '{"b": ["z"]}'),
    ("pairs", '[{"a": 1}, {"b": "y"}]'), ("days", '["2024-02-29", "infinity"]'), ("at", '"2024-05-01T10:00:00+05:30"'),
    ("mood", '"ok"'), ("positive", "5"), ("price", "1.005"), ("during", '"[2024-05-01,2024-05-02)"'),
]  # fmt: skip

# Column, JSON text and SQLSTATE.
REJECTED = [
    ("list", "[[1], [2, 3]]", "22P02"), ("list", "[1.5]", "22P02"), ("list", "5", "22P02"), ("list", '{"a": 1}', "22P02"), ("words", '"x"', "22P02"),
    ("few", "[1, 2, 3]", "23514"), ("pair", "[1]", "22023"), ("pair", '{"a": "x"}', "22P02"), ("pairs", "[1]", "22023"), ("words", '["\\u0000"]', "22P05"),
    ("at", '"now"', "22007"), ("day", '"Today"', "22007"), ("days", '["2024-02-29", "yesterday"]', "22007"), ("during", '"[now,infinity)"', "22007"),
    ("mood", '"Ok"', "22P02"), ("positive", "0", "23514"), ("needed", "null", "23502"),
]  # fmt: skip


def test_json_becomes_what_postgresql_makes_of_it(db: Database, kafka: Kafka, topic: str) -> None:
    db.execute("""CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN few AS int[] CHECK (cardinality(VALUE) < 3);
        CREATE DOMAIN needed AS int NOT NULL""")
    kafka.create_topic(topic)
    kafka_stream(
        db, kafka, f"topic '{topic}'",
        """id int, list int[], words text[], few few, docs jsonb[], pair pair, pairs pair[], day date, days date[], at timestamptz, mood mood,
        positive positive, price numeric(6,2), during daterange, needed needed""",
    )  # fmt: skip
    continuous(db, "v", "SELECT words, count(*) AS n, max(list) AS top, count(DISTINCT pair) AS pairs FROM s GROUP BY words")
    cases = ACCEPTED + [case[:2] for case in REJECTED]
    payloads = [
        "{" + ", ".join([f'"id": {i}', *['"needed": 1'] * (column != "needed"), f'"{column}": {value}']) + "}"
        for i, (column, value) in enumerate(cases)
    ]
    kafka.produce(topic, [Message(payload) for payload in payloads])
    db.flush("s")

    db.execute("CREATE TABLE o (LIKE s)")
    for payload in payloads[: len(ACCEPTED)]:
        json.loads(payload)
        db.execute("INSERT INTO o SELECT (json_populate_record(NULL::s, %s)).*", payload)
    db.assert_same("SELECT * FROM s", "SELECT * FROM o")
    db.assert_same("TABLE v", "SELECT words, count(*) AS n, max(list) AS top, count(DISTINCT pair) AS pairs FROM o GROUP BY words")
    rejected = db.rows("SELECT position, sqlstate, reason FROM streamext.dead_letters ORDER BY position")
    assert [row[:2] for row in rejected] == [(len(ACCEPTED) + i, case[2]) for i, case in enumerate(REJECTED)], rejected
    assert all(REJECTED[row[0] - len(ACCEPTED)][0] in row[2] for row in rejected), rejected
    assert counts(db, "v") == (len(ACCEPTED), 0, len(REJECTED))


def test_select_from_a_stream_shows_headers(db: Database, kafka: Kafka, topic: str) -> None:
    """As the views have them, also of a record whose neighbours have none."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int, h jsonb OPTIONS (metadata 'headers'), k text OPTIONS (metadata 'key')")
    continuous(db, "v", "SELECT a, max(h::text)::jsonb AS h, max(k) AS k FROM s GROUP BY a")
    messages = [Message(f'{{"a":{i}}}', key=f"k{i}", headers=[("n", str(i).encode()), ("x", b"y" * i)] if i % 3 else None) for i in range(40)]
    kafka.produce(topic, messages[:30])
    db.flush("s")
    kafka.produce(topic, messages[30:])
    db.flush("s")
    db.assert_same("SELECT a, h, k FROM s", "TABLE v")
    assert db.value("SELECT h->>'n' FROM s WHERE a = 37") == "37"
