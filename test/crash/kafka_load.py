"""Kafka: an idempotent producer at a steady rate, and views of every kind of window and aggregate. The recount is made
by a consumer of its own that copies the topic into an ordinary table."""

import random
import time
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer as KafkaProducer
from confluent_kafka import TopicPartition

from crash.load import DELIVERY, Load, Producer, compare, counted, same
from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, kafka_stream
from harness.views import sessions

COLUMNS = "n bigint, device text, site text, ts timestamptz, temperature float8"
RETENTION = "15 s"

# {source} is the stream or the table of the recount; n is unique, so a record lost or counted twice shows in sum and bit_xor.
VIEWS = {
    "tumbled": """SELECT device, streamext.tumble('2 s', ts) AS w, count(*) AS c, sum(n) AS s, bit_xor(n) AS x,
        max(temperature) AS peak FROM {source} GROUP BY device, w""",
    "truncated": "SELECT date_trunc('minute', ts) AS w, site, count(*) AS c, sum(n) AS s, bit_xor(n) AS x FROM {source} GROUP BY 1, 2",
    "binned": """SELECT date_bin('5 s', ts, '2024-01-01 00:00:02+00') AS w, site, sum(n::numeric) AS s, count(DISTINCT device) AS d,
        stddev(temperature) AS t FROM {source} GROUP BY 1, 2""",
    "hopped": """SELECT site, streamext.hop('10 s', '2 s', ts) AS w, count(*) AS c, sum(n) AS s, bit_xor(n) AS x,
        avg(temperature) AS t FROM {source} WHERE n % 2 = 0 GROUP BY site, w""",
    "listed": """SELECT site, streamext.tumble('2 s', ts) AS w, array_agg(n ORDER BY n) AS list,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY n) AS middle FROM {source} WHERE n % 20 = 0 GROUP BY site, w""",
    "total": "SELECT count(*) AS c, sum(n) AS s, bit_xor(n) AS x, min(n) AS low, max(n) AS high FROM {source}",
    "by_device": "SELECT device, count(*) AS c, sum(n::numeric) AS s, bit_xor(n) AS x, max(ts) AS last FROM {source} GROUP BY device",
}
SESSIONS = "SELECT device, {start} AS w, count(*) AS c, sum(n) AS s, min(ts) AS low, max(ts) AS high FROM {source} GROUP BY device, w"
SOME = "{source} WHERE n % 50 = 0"
SLIDING = "SELECT site, count(*) AS c, sum(n) AS s, bit_xor(n) AS x, max(ts) AS last FROM {source} WHERE ts > {now} - interval '20 s' GROUP BY site"
NOW = "date_bin('1 s', statement_timestamp(), '2000-01-01 00:00+00')"
RETAINED = "SELECT site, streamext.tumble('2 s', ts) AS w, count(*) AS c, sum(n) AS s, bit_xor(n) AS x FROM {source} GROUP BY site, w"
INTO = "SELECT n, device, temperature * 2 AS doubled, ts FROM {source} WHERE n % 4 = 1"


class KafkaLoad(Load):
    name = "kafka"
    streams = ["k"]

    def __init__(self, kafka: Kafka, rng: random.Random, rate: int, partitions: int = 3, devices: int = 500) -> None:
        self.kafka = kafka
        self._rng = rng
        self._rate = rate
        self._partitions = partitions
        self._devices = devices
        self._begun = 0
        self._n = 0  # sent, ever
        self._failed: list[object] = []

    def begin(self, db: Database) -> None:
        self._begun += 1
        self._topic = f"crash-{self._begun}"
        self.kafka.create_topic(self._topic, self._partitions)
        self._read = dict.fromkeys(range(self._partitions), 0)
        self._producer: KafkaProducer = self.kafka.producer({"acks": "all", "delivery.timeout.ms": DELIVERY * 1000})
        self._consumer = self.kafka.consumer({"group.id": "recount", "auto.offset.reset": "error"})
        self._create(db)
        self._thread = Producer(self._produce)

    def _create(self, db: Database) -> None:
        kafka_stream(db, self.kafka, f"topic '{self._topic}', event_time 'ts', watermark_delay '5 s', idle_timeout '1 h'",
                     COLUMNS, "k")  # fmt: skip
        for name, query in VIEWS.items():
            continuous(db, name, query.format(source="k"))
        continuous(db, "sessioned", SESSIONS.format(start="streamext.session('1 s', ts)", source=SOME.format(source="k")))
        continuous(db, "sliding", SLIDING.format(source="k", now="now()"), ", streamext.step = '1 s'")
        continuous(db, "retained", RETAINED.format(source="k"), f", streamext.retention = '{RETENTION}'")
        db.execute("CREATE TABLE target (n bigint, device text, doubled float8, ts timestamptz)")
        continuous(db, "copied", INTO.format(source="k"), ", streamext.into = 'target'")
        db.execute(f"CREATE TABLE recount ({COLUMNS})")

    def resume(self) -> None:
        self._since, self._due = time.monotonic(), self._n
        self._thread.resume()

    def _produce(self) -> None:
        end = self._due + int((time.monotonic() - self._since) * self._rate)
        now, uniform = datetime.now(UTC), self._rng.random
        for n in range(self._n, end):
            device = int(uniform() * self._devices)
            ts = (now - timedelta(seconds=2 * uniform())).isoformat(timespec="milliseconds")
            text = f'{{"n":{n},"device":"device-{device}","site":"site-{device % 10}","ts":"{ts}","temperature":{device % 80 / 8}}}'
            self._producer.produce(self._topic, text, partition=n % self._partitions, on_delivery=self._delivered)
        self._n = max(self._n, end)
        self._producer.poll(0)

    def _delivered(self, error: object, _: object) -> None:
        if error:
            self._failed.append(error)

    def pause(self) -> None:
        self._thread.pause()
        if self._producer.flush(DELIVERY) or self._failed:
            raise RuntimeError(f"Kafka did not take everything: {self._failed[:1]}")

    def end(self) -> None:
        self._thread.end()
        self._consumer.close()

    def sent(self) -> int:
        return self._n

    def _recount(self, db: Database) -> int:
        """Brings the table up to the topic's end."""
        ends = self.kafka.end_offsets(self._topic)
        with db.connection.transaction():
            db.execute("CREATE TEMP TABLE fetched (record jsonb) ON COMMIT DROP")
            with db.connection.cursor() as cursor, cursor.copy("COPY fetched FROM STDIN") as copy:
                self._consumer.assign([TopicPartition(self._topic, p, at) for p, at in self._read.items() if at < ends[p]])
                at = dict(self._read)
                while any(at[p] < ends[p] for p in at):
                    for message in self._consumer.consume(10_000, 10):
                        if message.error():
                            raise RuntimeError(message.error())
                        copy.write(message.value() + b"\n")
                        at[message.partition()] = message.offset() + 1
            db.execute("INSERT INTO recount SELECT r.* FROM fetched, jsonb_populate_record(NULL::recount, record) AS r")
        self._read = at
        db.execute("ANALYZE recount")
        return db.value("SELECT count(*) FROM recount")

    def check(self, db: Database) -> list[str]:
        n = self._recount(db)
        wrong = [] if n == sum(self._read.values()) else [f"the recount has {n} of {sum(self._read.values())} records"]
        for name, query in VIEWS.items():
            wrong += compare(db, name, f"TABLE {name}", query.format(source="recount"))
        rows = sessions(SOME.format(source="recount"), ["device"], "'1 s'")
        wrong += compare(db, "sessioned", "TABLE sessioned", SESSIONS.format(start="session_start", source=rows))
        wrong += same(db, "sliding", "TABLE sliding", SLIDING.format(source="recount", now=NOW))
        wrong += compare(db, "copied", "TABLE target", INTO.format(source="recount"))
        floor = f"'{db.value('SELECT watermark FROM streamext.streams WHERE stream = %s::regclass', 'k')}'::timestamptz - interval '{RETENTION}'"
        wrong += compare(db, "retained", "TABLE retained",
                         f"SELECT * FROM ({RETAINED.format(source='recount')}) AS q WHERE w + interval '2 s' > {floor}")  # fmt: skip
        for view in [*VIEWS, "sessioned", "sliding", "retained", "copied"]:
            wrong += counted(db, view, n)
        return wrong
