"""One million records of 1,000 devices in four partitions: the views are PostgreSQL's own answer."""

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.sensors import Plant
from harness.streams import BY_TS, COLUMNS, continuous, counts, kafka_stream

RECORDS = 1_000_000
PARTITIONS = 4

VIEWS = {
    "tumbling": """SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean,
        min(temperature) AS low, max(temperature) AS peak FROM {} GROUP BY device, w""",
    "hopping": """SELECT device, streamext.hop('1 min', '10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean,
        sum(humidity) AS humidity FROM {} GROUP BY device, w""",
}


def produce(db: Database, kafka: Kafka, topic: str) -> None:
    """Into the topic, and the same rows into the table o."""
    db.execute(f"CREATE UNLOGGED TABLE o ({COLUMNS})")
    producer = kafka.producer({"queue.buffering.max.messages": 10_000_000, "linger.ms": 50, "batch.num.messages": 50_000})
    with db.connection.cursor() as cursor, cursor.copy("COPY o FROM STDIN") as copy:
        for i, reading in enumerate(Plant(devices=1000, sites=20).readings(RECORDS)):
            device, site, _, temperature, humidity = reading
            text = reading.json()
            producer.produce(topic, text, partition=int(device[-4:]) % PARTITIONS)
            copy.write(f"{device}\t{site}\t{text[47:76]}\t{temperature}\t{humidity}\n")
            if i % 10_000 == 0:
                producer.poll(0)
    assert producer.flush(200) == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_million_records(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, PARTITIONS)
    produce(db, kafka, topic)
    with db.connection.transaction():
        kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}")
        for name, query in VIEWS.items():
            continuous(db, name, query.format("s"))
    db.flush("s")
    assert {counts(db, name) for name in VIEWS} == {(RECORDS, 0, 0)}
    for name, query in VIEWS.items():
        db.execute(f"CREATE TABLE o_{name} AS {query.format('o')}")
        db.assert_same(f"TABLE {name}", f"TABLE o_{name}")
