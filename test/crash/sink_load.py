"""Results that go out to Kafka: closed windows, each once for who reads what is committed, and changes, of which the newest by key are
the view."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from crash.kafka_load import COLUMNS, KafkaLoad
from crash.load import counted
from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, kafka_stream
from harness.wait import wait_for

CLOSED = "SELECT device, streamext.tumble('1 s', ts) AS w, count(*) AS c, sum(n)::bigint AS s, bit_xor(n) AS x FROM {source} GROUP BY device, w"
LATEST = """SELECT device, site, count(*) AS c, sum(n)::bigint AS s, bit_xor(n) AS x FROM {source} GROUP BY device, site
    HAVING bit_xor(n) % 4 <> 0"""
RECENT = """SELECT site, streamext.tumble('2 s', ts) AS w, count(*) AS c, sum(n)::bigint AS s FROM {source} GROUP BY site, w"""
NOT_YET = "NOT YET"
SENT = 240  # seconds until everything is out: for what never comes


def _shape(row: dict[str, Any]) -> str:
    return json.dumps({**row, **({"w": datetime.fromisoformat(row["w"]).timestamp()} if "w" in row else {})}, sort_keys=True)


class _Topic:
    """What a reader of all that is committed has, each row by its shape; goes on where it was."""

    def __init__(self, kafka: Kafka, topic: str, partitions: int) -> None:
        self._kafka, self._topic = kafka, topic
        self._parts = [TopicPartition(topic, p, 0) for p in range(partitions)]
        self._begin()

    def _begin(self) -> None:
        self._consumer: Consumer = self._kafka.consumer({"isolation.level": "read_committed", "auto.offset.reset": "error"})
        self._consumer.assign(self._parts)
        self.rows: list[str] = []
        self.latest: dict[bytes, str] = {}
        self.wrong: list[str] = []
        self._versions: dict[bytes, int] = {}

    def again(self) -> None:
        """From the beginning, by a new reader, up to the end as it is now."""
        self.close()
        self._begin()
        ends = self._ends()

        def there() -> bool:
            self.take()
            return all(p.offset >= ends[p.partition][0] for p in self._consumer.position(self._parts) if ends[p.partition][0] > 0)

        wait_for(there, 60, f"the end of {self._topic}")

    def _ends(self) -> dict[int, tuple[int, int]]:
        """Of each partition the end of what is committed, and the end."""
        everything = self._kafka.end_offsets(self._topic)
        return {p.partition: (self._consumer.get_watermark_offsets(p, 10)[1], everything[p.partition]) for p in self._parts}

    def places(self) -> str:
        at = {p.partition: p.offset for p in self._consumer.position(self._parts)}
        return ", ".join(f"partition {p}: reader at {at[p]}, committed end {committed}, end {end}" for p, (committed, end) in self._ends().items())

    def take(self) -> None:
        for message in self._consumer.consume(10_000, 0.3):
            if message.error():
                continue  # the broker may be on its way
            key, version = message.key(), dict(message.headers()).get("version")
            if message.value() is not None:
                self.rows.append(_shape(json.loads(message.value())))
            if version is None:
                continue
            if int(version) < self._versions.get(key, 0):
                self.wrong.append(f"version {version} of {key} after {self._versions[key]}")
            self._versions[key] = int(version)
            if message.value() is None:
                self.latest.pop(key, None)
            else:
                self.latest[key] = self.rows[-1]

    def close(self) -> None:
        self._consumer.close()


def _difference(name: str, actual: list[str], want: list[str]) -> list[str]:
    """`want` is sorted."""
    have = sorted(actual)
    if have == want:
        return []
    twice = [row for i, row in enumerate(have[1:]) if row == have[i]]
    more, less = sorted(set(have) - set(want)), sorted(set(want) - set(have))
    return [f"{name}: {len(more)} not in the answer {more[:2]}, {len(less)} missing {less[:2]}, {len(twice)} twice {twice[:2]}"]


class SinkLoad(KafkaLoad):
    name = "kafka"

    def _create(self, db: Database) -> None:
        kafka_stream(db, self.kafka, f"topic '{self._topic}', event_time 'ts', watermark_delay '5 s', idle_timeout '1 h'",
                     COLUMNS, "k")  # fmt: skip
        self._topics = {}
        for name, columns, query, options in (
            ("closed", "device text, w timestamptz, c bigint, s bigint, x bigint", CLOSED, ""),
            ("latest", "device text, site text, c bigint, s bigint, x bigint", LATEST, ", streamext.emit = 'changes', streamext.emit_interval = '50 ms'"),
            ("recent", "site text, w timestamptz, c bigint, s bigint", RECENT,
             ", streamext.emit = 'changes', streamext.emit_interval = '100 ms', streamext.retention = '10 s'"),
        ):  # fmt: skip
            topic = f"{self._topic}-{name}"
            self.kafka.create_topic(topic, 2)
            kafka_stream(db, self.kafka, f"topic '{topic}'", columns, f"{name}_out")
            continuous(db, name, query.format(source="k"), f", streamext.into = '{name}_out'{options}")
            self._topics[name] = _Topic(self.kafka, topic, 2)
        db.execute(f"CREATE TABLE recount ({COLUMNS})")

    def end(self) -> None:
        super().end()
        for topic in self._topics.values():
            topic.close()

    def _become(self, db: Database, name: str, have: str, expected: list[dict[str, Any]]) -> list[str]:
        """Waits until the topic is what is expected of it; what is wrong when it never is."""
        topic, want = self._topics[name], sorted(map(_shape, expected))

        def difference() -> list[str]:
            return _difference(name, topic.rows if have == "rows" else list(topic.latest.values()), want)

        def same() -> bool:
            topic.take()
            return len(topic.rows) >= len(want) and not difference()

        try:
            wait_for(same, SENT)
        except TimeoutError:
            return self._explain(db, name, difference)
        topic.take()
        return topic.wrong + difference()

    def _explain(self, db: Database, name: str, difference: Callable[[], list[str]]) -> list[str]:
        """What the sink says waits is late, not wrong; and a reader that stands still is replaced by another one before the topic is judged."""
        topic, found = self._topics[name], difference()
        about = [f"{name}: {topic.places()}"]
        columns = "view::text, target::text, state, delivered, waiting, dead, lag_seconds, last_error, last_error_at"
        sinks = db.rows(f"SELECT {columns} FROM streamext.sinks")
        about += [f"sinks: {row}" for row in sinks]
        about += [f"sink_target: {row}" for row in db.rows("SELECT target::regclass::text, batch, cardinality(ids), state FROM streamext_internal.sink_target")]
        if any(view == name and waiting > 0 for view, _, _, _, waiting, *_ in sinks):
            return [f"{NOT_YET} {line}" for line in found] + about + [f"log: {db.server.log()[-3000:]}"]
        topic.again()
        if not difference() and not topic.wrong:
            print("\n".join([f"      {name}: its reader stood still, another one has all", *about]), flush=True)
            return []
        return [*topic.wrong, *difference(), f"the first reader: {found}", *about, f"now: {topic.places()}", f"log: {db.server.log()[-3000:]}"]

    def check(self, db: Database) -> list[str]:
        db.execute("SET timezone = 'UTC'")
        n = self._recount(db)
        watermark = db.value("SELECT watermark FROM streamext.streams WHERE stream = 'k'::regclass")
        closed = f"SELECT to_jsonb(q) FROM ({CLOSED.format(source='recount')}) AS q WHERE w + interval '1 s' <= %s"
        latest = f"SELECT to_jsonb(q) FROM ({LATEST.format(source='recount')}) AS q"
        recent = f"SELECT to_jsonb(q) FROM ({RECENT.format(source='recount')}) AS q WHERE w + interval '2 s' > %s::timestamptz - interval '10 s'"
        wrong = self._become(db, "closed", "rows", [row for (row,) in db.rows(closed, watermark)])
        wrong += self._become(db, "latest", "latest", [row for (row,) in db.rows(latest)])
        wrong += self._become(db, "recent", "latest", [row for (row,) in db.rows(recent, watermark)])
        wrong += [f"{view}: {dead} dead, {error}" for view, dead, error in db.rows("SELECT view::text, dead, last_error FROM streamext.sinks WHERE dead > 0")]
        for view in ("closed", "latest", "recent"):
            wrong += counted(db, view, n)
        return wrong
