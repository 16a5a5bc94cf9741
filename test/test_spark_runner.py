"""contrib/spark/streamext_spark.py without Spark: its patterns, its SQL, its positions. On a cluster: make spark."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = _load(ROOT / "contrib/spark/streamext_spark.py")
NASTY = _load(ROOT / "test/spark/nasty.py")
PLAIN = re.compile(RUNNER.PLAIN.replace(r"\z", r"\Z"))

PLAN = {
    "columns": NASTY.PLAN_COLUMNS, "event_time": "ts", "source": {"connector": "kafka", "topics": ["t"], "options": {"brokers": "b"}},
    "window": {"kind": "tumble"}, "at": "at(`ts`)", "where": "`i` > 0", "raises": ["`i` = 5"], "stages": [],
    "keys": [{"name": "k1", "type": "text", "sql": "`s`"}], "partials": [{"name": "p1", "type": "bigint", "sql": "count(1)"}],
}  # fmt: skip


def _is_plain(record: bytes | None) -> bool:
    return record is not None and len(record) <= RUNNER.PLAIN_BYTES and PLAIN.match(record.decode(errors="replace")) is not None


def test_what_is_json_otherwise_is_not_plain() -> None:
    """What the pattern takes is one flat object that a strict parser takes too."""
    taken = [record for record in [*NASTY.PLAIN, *NASTY.NASTY] if _is_plain(record)]
    assert len(taken) > 60
    for record in taken:
        value = json.loads(record.decode("utf-8"), parse_constant=lambda text: pytest.fail(text))
        assert isinstance(value, dict) and not any(isinstance(v, dict | list) for v in value.values()), record
    for record in (b'{"i":1}{"i":2}', b"{'s':'x'}", b'{"s":"\\ud83d"}', b'{"s":"x",}', b'{"s":"\xff"}', b'{"f":1e-400}', b"[]", b"", b'{"s":"x"} tail'):
        assert not _is_plain(record), record


def test_the_last_of_a_field_counts() -> None:
    found = re.search(r"regexp_extract\(__text, '(.*)', 1\)", RUNNER.token("i"))
    assert found
    pattern = re.compile(found[1].replace("\\\\", "\\"))
    for record, token in [('{"i":1,"i" : 2}', "2"), ('{"ii":1,"i":"x, y"}', '"x, y"'), ('{"i": null}', "null"), ('{"x":"i","i":-1.5}', "-1.5")]:
        match = pattern.search(record)
        assert match and match[1] == token, record
    assert not pattern.search('{"x":"i","ii":1}')


def test_paths() -> None:
    assert [RUNNER.field_of({"name": "n", "path": path}) for path in (None, "a", "$.a_b", "$.a.b", "a[0]", '$."x y"', "$")] == ["n", "a", "a_b", None, None, None, None]


def test_what_it_cannot_decode_it_sends() -> None:
    def certain(**change: object) -> str:
        return RUNNER.decoding(PLAN | change)[2]

    always = "coalesce(false, false)"
    assert always not in certain()
    assert always in certain(format="csv")
    assert always in certain(source=PLAN["source"] | {"fields": "nocase"})
    assert always in certain(columns=[{"name": "x", "path": "$.a.b", "engine_type": "INT"}])
    assert always in certain(columns=[{"name": "x", "engine_type": "INT", "time_format": "unix"}])
    assert RUNNER.value_of({"name": "x", "engine_type": None}, "t")[1] == "false"


def test_sql() -> None:
    shape = RUNNER.Shape(PLAN)
    assert shape.new({"t": {"0": 5, "1": 7}, "it's": {"0": 1}}, "") == (
        "true AND (topic <> 't' OR offset >= coalesce(element_at(map(0, 5L, 1, 7L), partition), 0L))"
        " AND (topic <> 'it\\'s' OR offset >= coalesce(element_at(map(0, 1L), partition), 0L))"
    )
    assert shape.records() == ("value IS NOT NULL", [*(f"{c} AS __{c}" for c in ("topic", "partition", "offset", "timestamp", "key", "value")), "CAST(value AS STRING) AS __text"])
    assert shape.classify(9)[1].endswith("OR coalesce(`i` = 5, false) THEN 2 WHEN coalesce(`i` > 0, false) THEN 0 ELSE 1 END AS __class")
    assert "9L" not in shape.classify(9)[1].replace("element_at(map(0, 9L), least(__partition, 0))", "")  # else each batch is compiled anew
    by, aggregates = shape.groups()
    assert [key.split(" AS ")[-1] for key in by] == ["__class", "__key0", "__at", "__raw"] or by[-1].endswith("AS __raw")
    assert aggregates == ["count(1) AS __rows", "count(1) AS __partial0"]
    assert "pmod(partition, 3) = 1" in RUNNER.Shape(PLAN | {"source": PLAN["source"] | {"partitions": "1/3"}}).records()[0]
    session = RUNNER.Shape(PLAN | {"window": {"kind": "session"}})
    assert session.groups()[1][:2] == ["min(`ts`) AS __first", "max(`ts`) AS __last"]


def test_positions() -> None:
    a, b = {"t": {"0": 5, "1": 9}}, {"t": {"0": 7}, "u": {"0": 1}}
    assert RUNNER.merged(a, b) == {"t": {"0": 7, "1": 9}, "u": {"0": 1}}
    assert RUNNER.least([a, b]) == {"t": {"0": 5, "1": 9}, "u": {"0": 1}}
    assert RUNNER.farthest(a, {"t": {"0": 6, "1": 6, "2": 1}}) == {"t": {"0": 6, "1": 9, "2": 1}}
    assert RUNNER.skipped({"t": {"0": 6, "1": 9}}, a) == ["t 0"]
    assert RUNNER.moment(1_714_564_800_000_005) == "2024-05-01T12:00:00.000005Z"


def test_arguments() -> None:
    options = RUNNER.arguments(["--pg", "dbname=x", "--view", "a", "--view", "b"])
    assert (options.view, options.once, options.failures) == (["a", "b"], False, 10)
    with pytest.raises(SystemExit):
        RUNNER.arguments(["--view", "a"])
    assert "pyspark" not in sys.modules  # it is needed on the cluster only
