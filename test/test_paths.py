"""The option path, and JSON that PostgreSQL takes in values which are not wanted, or wanted as they are."""

import json
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, error_of, kafka_stream

# A path that jsonpath has too, and one without `$.` or quotes that means the same.
PATHS = [
    ("$.a", "a"),
    ("$.a.b", "a.b"),
    ("$.l[1]", "l[1]"),
    ("$.l[0].x", "l[0].x"),
    ("$.m[1][0]", "m[1][0]"),
    ('$."id.orig_h"', '"id.orig_h"'),
    ('$."a"."b"', 'a."b"'),
    ('$."l"[0]."x"', "l[0].x"),
    ('$."with ""quotes"""'.replace('""', '\\"'), '"with \\"quotes\\""'),
    ('$."back\\\\slash"', '"back\\\\slash"'),
    ('$."tab\\there"', '"tab\\u0009here"'),
    # keys whose escapes, or whose end and value, look like another key
    ('$."bs\\b"', '"bs\\u0008"'),
    ('$."bs\\\\b"', '"bs\\\\b"'),
    ('$."end\\": \\"here"', '"end\\": \\"here"'),
    ('$."\\u00fcber"', "über"),
    ('$."\\x61"', "a"),
    ('$."\\u{1F600}"', '"\\ud83d\\ude00"'),
    ('$."a key"', "a key"),
    ('$."$ref"', '"$ref"'),
    ('$."@timestamp"', "@timestamp"),
    ('$."a-b"', "a-b"),
    ('$."temp (C)"', '"temp (C)"'),
    ('$.""', '""'),
    ('$."a*"', '"a*"'),
    ('$."l[0]"', '"l[0]"'),
]

RECORDS: list[dict[str, Any]] = [
    {"a": "A", "l": ["x", "y"], "m": [[1], ["two"]], "id.orig_h": "10.0.0.1", 'with "quotes"': "q", "back\\slash": "b",
     "tab\there": "t", "über": "u", "😀": "smile", "a key": "k", "$ref": "r", "@timestamp": "ts", "a-b": "ab",
     "temp (C)": "21", "": "empty", "a*": "star", "l[0]": "literal", "bs\b": "backspace", "end": "here"},
    {"bs\\b": "backslash", 'end": "here': "quotes"},
    {"a": {"b": "B"}, "l": [{"x": "deep"}], "id": {"orig_h": "not this one"}},
    {"m": [], "l": []},
]  # fmt: skip


def test_paths_find_what_jsonpath_finds(db: Database, kafka: Kafka, topic: str) -> None:
    columns = "n int"
    for i, (quoted, bare) in enumerate(PATHS):
        columns += "".join(f", {name}{i} text OPTIONS (path '{path}')" for name, path in (("q", quoted), ("b", bare)))
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', buffer_size '100'", columns)
    db.execute("CREATE TABLE o (n int, doc jsonb)")
    for n, record in enumerate(RECORDS):
        kafka.produce(topic, [json.dumps({"n": n} | record)])
        db.execute("INSERT INTO o VALUES (%s, %s)", n, json.dumps(record))
    db.flush("s")
    for i, (quoted, _) in enumerate(PATHS):
        expected = f"SELECT n, jsonb_path_query_first(doc, 'strict {quoted}', silent => true) #>> '{{}}' FROM o"
        for name in "q", "b":
            db.assert_same(f"SELECT n, {name}{i} FROM s", expected)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("strict $.a", "modes"),
        ("lax $.a", "modes"),
        ("$.a.size()", "methods"),
        ("a.*", "wildcards"),
        ("$.*", "wildcards"),
        ("$.**", "wildcards"),
        ("a[*]", "index"),
        ("a[-1]", "negative"),
        ("a[last]", "last"),
        ("a[0 to 1]", "range"),
        ("a[0,1]", "range"),
        ("a[0", "index"),
        ("a[0]b", "step"),
        ("[0]", "object"),
        ("$[0].a", "object"),
        ('$."a', "no end"),
        ('$.a"', "quotes"),
        ('"a"b', "step"),
        ('"\\ud83d"', "escape"),
        ('"\\u0000"', "escape"),
        ('"\\xz1"', "escape"),
        ('"\\u12"', "escape"),
        ("$.a ? (@ > 1)", "filters"),
        ("$a", "step"),
        ("$.", "missing"),
        ("a..b", "missing"),
        ("a.", "missing"),
        ("$. a", "space"),
        ("$" + ".a" * 65, "deeper"),
        ("a" + "[0]" * 64, "deeper"),
    ],
)
def test_a_path_that_never_matches_is_refused(db: Database, path: str, why: str) -> None:
    db.execute("CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"CREATE FOREIGN TABLE s (a text OPTIONS (path '{path}')) SERVER k OPTIONS (topic 't')")
    state, message, hint = error_of(error)
    assert state == "HV024" and "path" in message, (state, message)
    assert why in hint and "a.b[0].c" in hint, hint


def test_a_renamed_column_keeps_a_name_that_needs_quotes(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", '"id.orig_h" text, "$x" text, "say ""hi""" text, "a b" text')
    for old, new in ("id.orig_h", "h"), ("$x", "x"), ('say ""hi""', "y"), ("a b", "ab"):
        db.execute(f'ALTER FOREIGN TABLE s RENAME COLUMN "{old}" TO {new}')
    kafka.produce(topic, [json.dumps({"id.orig_h": "1", "$x": "2", 'say "hi"': "3", "a b": "4"})])
    db.flush("s")
    assert db.rows("TABLE s") == [("1", "2", "3", "4")]
    dump = db.server.run("pg_dump", "--schema-only", db.name)
    assert """path '"id.orig_h"'""" in dump and "path 'a b'" in dump


def test_what_is_not_wanted_is_judged_by_the_grammar_alone(db: Database, kafka: Kafka, topic: str) -> None:
    """Whatever PostgreSQL's json takes counts; what it does not take is a dead letter."""
    strings = [
        r'"\ud83d"', r'"\ude00\ud83d"', r'"\ud83d\u0041"', r'"\u0000"', r'"\ud83d\ude00"', r'"\"\\\/\b\f\n\r\t"',
        r'"\x41"', r'"\u12"', r'"\u12g4"', r'"\u"', r'"\'"', r'"\ud83d\u"',
    ]  # fmt: skip
    payloads: list[tuple[str, str | None, str | None, int | None]] = []  # and the columns j, w, u
    for text in strings:
        w = f'{{"t":{text},"u":1}}'
        for rest, j in ((f'"note":{text}', None), (f'"deep":{{"l":[{text}]}}', None), (f"{text}:1", None), (f'"j":{text}', text),
                        (f'"j":{{"x":[1,{text}]}}', f'{{"x":[1,{text}]}}'), (f'"deep":{{{text}:{text}}}', None)):  # fmt: skip
            payloads.append((f'{{"id":{len(payloads)},{rest}}}', j, None, None))
        payloads.append((f'{{"id":{len(payloads)},"w":{w}}}', None, w, 1))
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', buffer_size '1000'", "id int, j json, w json, u int OPTIONS (path 'w.u')")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, [payload for payload, *_ in payloads])
    db.flush("s")

    def takes(payload: str) -> bool:
        try:
            db.value("SELECT %s::json IS NOT NULL", payload)
            return True
        except psycopg.errors.InvalidTextRepresentation:
            return False

    good = [(n, *values) for n, (payload, *values) in enumerate(payloads) if takes(payload)]
    assert 0 < len(good) < len(payloads)
    assert db.rows("SELECT id, j::text, w::text, u FROM s ORDER BY id") == good
    assert db.value("TABLE v") == len(good)
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == len(payloads) - len(good)


def test_text_and_jsonb_need_surrogates_in_pairs(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "id int, t text, b jsonb")
    kafka.produce(topic, [r'{"id":1,"t":"\ud83d"}', r'{"id":2,"b":"\ud83d"}', r'{"id":3,"t":"\ud83d\ude00","b":"\ud83d\ude00"}'])
    db.flush("s")
    assert db.rows("TABLE s") == [(3, "😀", "😀")]
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 2
