"""What the runner takes for plain has the values that PostgreSQL has decoded; make spark runs it."""

import json
import os
import subprocess

import pytest
from cluster import PYTHON, RUNNER
from nasty import COLUMNS, NASTY, PLAIN, PLAN_COLUMNS

from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, kafka_stream

PLAN = {"columns": PLAN_COLUMNS, "event_time": "ts", "keys": [], "partials": [], "stages": [], "source": {"tombstones": "reject"}}


def _in_spark(records: list[bytes | None]) -> list[list[str | None] | None]:
    given = {"plan": PLAN, "latest_us": 1893456000_000000, "records": [None if r is None else r.hex() for r in records]}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": str(PYTHON)}
    out = subprocess.run([PYTHON, RUNNER.parents[2] / "test/spark/decode_in_spark.py", RUNNER], input=json.dumps(given), text=True, capture_output=True, env=environment)
    assert out.returncode == 0, out.stderr[-3000:]
    return [json.loads(line) for line in out.stdout.splitlines()]


@pytest.mark.timeout(1800)  # a JVM on a busy machine
def test_values(db: Database, kafka: Kafka, topic: str) -> None:
    records = PLAIN + NASTY
    kafka.create_topic(topic)
    kafka.produce(topic, records)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts', buffer_size '10000', tombstones 'reject', max_ahead '36500 days'", COLUMNS)
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.flush("s")
    db.execute("SET extra_float_digits = 1; SET timezone = 'UTC'")
    here = dict(db.rows("SELECT o, ROW(s.*)::text FROM s"))
    there = _in_spark(records)
    plain = 0
    for offset, (record, values) in enumerate(zip(records, there, strict=True)):
        if values is None:
            continue
        plain += 1
        assert offset in here, f"rejected by PostgreSQL, taken by Spark: {record!r}"
        there_ = db.value(
            "SELECT ROW(%s::text, %s::int2, %s::int4, %s::int8, %s::float8, %s::bool, %s::numeric(10,2), (%s || '+00')::timestamptz, %s::date, %s::interval, %s::int, %s::int8)::text",
            *values)  # fmt: skip
        assert there_ == here[offset], f"{record!r}: {there_} in Spark, {here[offset]} in PostgreSQL"
    sent = [record for record, values in zip(PLAIN, there) if values is None]
    print(f"{len(records)} records, {len(here)} accepted, {plain} plain; of those meant to be plain sent: {sent}")
    assert len(sent) <= 6
