"""streamext.emit = 'changes': who applies the topic's messages by their keys has the view, whatever was restarted meanwhile."""

import json
import random
from datetime import datetime
from typing import Any

from confluent_kafka import TopicPartition
from crash.faults import kill_all

from harness.database import Database
from harness.faults import reconnect
from harness.kafka import Kafka
from harness.streams import continuous, kafka_stream, local_stream
from harness.wait import wait_for

VIEW = "SELECT k, tag, count(*) AS n, sum(x)::int AS total, max(ts) AS newest FROM s GROUP BY k, tag HAVING sum(x) >= 0"
COLUMNS = "k int, tag text, n bigint, total int, newest timestamptz"


def emitting(db: Database, kafka: Kafka, topic: str) -> None:
    db.execute("SET timezone = 'UTC'")
    local_stream(db, "", "k int, tag text, x int, ts timestamptz")
    kafka.create_topic(topic, 2)
    kafka_stream(db, kafka, f"topic '{topic}'", COLUMNS, name="latest")
    continuous(db, "v", VIEW, ", streamext.into = 'latest', streamext.emit = 'changes', streamext.emit_interval = '20 ms'")


def insert(db: Database, rng: random.Random, n: int) -> None:
    with db.connection.transaction():
        for _ in range(n):
            db.execute("INSERT INTO s VALUES (%s, %s, %s, now())", rng.randrange(6), rng.choice(["a", "ü \"'", None]), rng.randrange(-20, 25))
    db.flush("s")


class Topic:
    """What a reader of the whole topic has."""

    def __init__(self, kafka: Kafka, topic: str, key: tuple[str, ...] = ("k", "tag")) -> None:
        self.key = key
        self.consumer = kafka.consumer({"isolation.level": "read_committed"})
        self.consumer.assign([TopicPartition(topic, p, 0) for p in kafka.end_offsets(topic)])
        self.rows: dict[bytes, Any] = {}
        self.versions: dict[bytes, int] = {}
        self.received: dict[bytes, int] = {}  # messages
        self.tombstones = 0

    def take(self) -> None:
        while (message := self.consumer.poll(0.05)) is not None:
            assert message.error() is None
            key, version = message.key(), int(dict(message.headers())["version"])
            assert version >= self.versions.get(key, 0), "the version goes back"
            self.versions[key] = version
            self.received[key] = self.received.get(key, 0) + 1
            if message.value() is None:
                self.tombstones += 1
                assert key in self.rows or version > 1
                self.rows.pop(key, None)
            else:
                self.rows[key] = json.loads(message.value())
                assert json.loads(key) == {name: self.rows[key][name] for name in self.key}

    def take_all(self, n: int) -> None:
        """So many messages, and what may be behind them."""

        def there() -> bool:
            self.take()
            return sum(self.received.values()) >= n

        wait_for(there, what=f"{n} messages")

    def wait(self, db: Database) -> None:
        def same() -> bool:
            self.take()
            return sorted(map(shape, self.rows.values())) == sorted(map(shape, view(db)))

        wait_for(same, what="the topic to be as the view")


def shape(row: dict[str, Any]) -> str:
    return json.dumps({**row, "newest": datetime.fromisoformat(row["newest"]).timestamp()}, sort_keys=True)


def view(db: Database) -> list[dict[str, Any]]:
    return [row for (row,) in db.rows("SELECT to_jsonb(v.*) FROM v")]


def test_the_topic_becomes_the_view(database: Database, kafka: Kafka, topic: str) -> None:
    db, rng = database, random.Random(topic)
    emitting(db, kafka, topic)
    reader = Topic(kafka, topic)
    for _ in range(5):
        insert(db, rng, 40)
        reader.wait(db)
    leaving, before = db.value("SELECT count(*) FROM v WHERE tag = 'a'"), reader.tombstones
    db.execute("INSERT INTO s SELECT k, 'a', -100000, now() FROM generate_series(0, 5) AS k")
    db.flush("s")
    reader.wait(db)
    assert reader.tombstones - before == leaving
    assert db.rows("SELECT view::text, target::text, state, dead FROM streamext.sinks") == [("v", "latest", "running", 0)]
    again = Topic(kafka, topic)
    again.wait(db)
    assert len(again.rows) == db.value("SELECT count(*) FROM streamext_internal.emitted")


def test_an_outage_takes_no_more_room_the_longer_it_lasts(database: Database, kafka: Kafka, topic: str) -> None:
    """What changes while rows wait goes out as one set, each key once."""
    db, rng = database, random.Random(topic)
    emitting(db, kafka, topic)
    reader = Topic(kafka, topic)
    insert(db, rng, 60)
    reader.wait(db)
    before = dict(reader.received)
    db.execute("SELECT streamext.pause('latest')")
    for _ in range(8):
        db.execute("INSERT INTO s SELECT k, 'much', 1, now() FROM generate_series(0, 5) AS k")
        insert(db, rng, 30)
        wait_for(lambda: db.value("SELECT waiting FROM streamext.sinks") > 0, what="rows that wait")
    assert db.value("SELECT state FROM streamext.sinks") == "paused"
    assert db.value("SELECT waiting FROM streamext.sinks") <= 24  # keys that there are
    db.execute("SELECT streamext.resume('latest')")
    reader.wait(db)
    assert max(n - before.get(key, 0) for key, n in reader.received.items()) <= 2


def test_a_refused_row_goes_when_a_newer_one_of_its_key_comes(database: Database, kafka: Kafka, topic: str) -> None:
    """Sent again it would be the newest of its key."""
    db = database
    local_stream(db, "", "k int")
    kafka.create_topic(topic, config={"max.message.bytes": "1000"})
    kafka_stream(db, kafka, f"topic '{topic}'", "k int, n bigint, pad text", name="latest")
    pad = " || ".join(f"md5((k + {i})::text)" for i in range(60))
    continuous(db, "v", f"SELECT k, count(*) AS n, CASE WHEN count(*) = 1 THEN {pad} END AS pad FROM s GROUP BY k",
               ", streamext.into = 'latest', streamext.emit = 'changes', streamext.emit_interval = '20 ms'")  # fmt: skip
    shown = "SELECT delivered, waiting, dead FROM streamext.sinks"
    db.execute("INSERT INTO s VALUES (1), (2)")
    wait_for(lambda: db.rows(shown) == [(0, 0, 2)], what="two rows that are too large")
    db.execute("INSERT INTO s VALUES (1)")
    wait_for(lambda: db.rows(shown) == [(1, 0, 1)], what="the newer row")
    assert db.value("SELECT streamext.retry_deliveries('latest')") == 1
    wait_for(lambda: db.rows(shown) == [(1, 0, 1)], what="that the other one is refused again")
    db.execute("INSERT INTO s VALUES (2)")
    wait_for(lambda: db.rows(shown) == [(2, 0, 0)], what="its newer row")
    reader = Topic(kafka, topic, ("k",))
    reader.take_all(2)
    assert reader.rows == {b'{"k": 1}': {"k": 1, "n": 2, "pad": None}, b'{"k": 2}': {"k": 2, "n": 2, "pad": None}}


def test_what_left_while_the_server_was_away(database: Database, kafka: Kafka, topic: str) -> None:
    """A restart loses what was told last; the keys that are in the topic it does not."""
    db, rng = database, random.Random(topic)
    emitting(db, kafka, topic)
    reader = Topic(kafka, topic)
    insert(db, rng, 60)
    reader.wait(db)
    for kill in (True, False):
        leaves = 10 + kill
        db.execute("INSERT INTO s VALUES (%s, 'a', 5, now())", leaves)
        db.flush("s")
        reader.wait(db)
        db.execute("INSERT INTO s VALUES (%s, 'a', -100, now()), (2, 'new', 5, now())", leaves)
        if kill:
            kill_all(db.server)
            db.server.start()
        else:
            db.server.restart()
        reconnect(db)
        db.flush("s")
        reader.wait(db)
    assert reader.tombstones >= 2


def test_alerts_go_to_a_foreign_table(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    local_stream(db, "", "k int, x int")
    local_stream(db, "", "id bigint, kind text, k int, total int, key jsonb", name="heard")
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", 'id bigint, view text, key jsonb, kind text, at timestamptz, "row" jsonb', name="pager")
    continuous(db, "v", "SELECT k, sum(x)::int AS total FROM s GROUP BY k")
    continuous(db, "by_kind", "SELECT kind, count(*) AS n, max(total) AS total FROM heard GROUP BY kind")
    db.execute("CREATE VIEW high WITH (streamext.alert, streamext.to = 'pager', streamext.every = '50 ms') AS SELECT k, total FROM v WHERE total > 10")
    db.execute("CREATE VIEW higher WITH (streamext.alert, streamext.to = 'public.heard', streamext.every = '50 ms') AS SELECT k, total FROM v WHERE total > 10")
    assert "streamext.to=public.pager" in db.value("SELECT reloptions FROM pg_class WHERE relname = 'high'")
    db.execute("INSERT INTO s VALUES (1, 20), (2, 3)")
    db.flush("s")
    db.execute("INSERT INTO s VALUES (1, -20)")
    db.flush("s", "heard")
    wait_for(lambda: db.rows("SELECT kind, n, total FROM by_kind ORDER BY kind") == [("cleared", 1, 20), ("fired", 1, 20)])
    events = db.rows("SELECT id, kind FROM streamext.alert_events WHERE view = 'high'::regclass ORDER BY id")
    consumer = kafka.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])
    sent = [json.loads(consumer.poll(60).value()) for _ in events]
    assert [(event["id"], event["kind"], event["key"], event["row"]) for event in sent] == [(id, kind, {"k": 1}, {"k": 1, "total": 20}) for id, kind in events]

    assert db.refusal("DROP FOREIGN TABLE pager").startswith("2BP01")
    db.execute("ALTER FOREIGN TABLE heard RENAME TO ear")  # the dependency is what counts
    db.execute("INSERT INTO s VALUES (1, 20)")
    db.flush("s", "ear")
    wait_for(lambda: db.value("SELECT n FROM by_kind WHERE kind = 'fired'") == 2)
    db.execute("CREATE FOREIGN TABLE other (what int) SERVER local_server")
    alert = "CREATE VIEW third WITH (streamext.alert, streamext.to = 'other') AS SELECT k, total FROM v"
    assert db.refusal(alert).startswith("42703")
    db.execute("DO $$ BEGIN CREATE ROLE warden; EXCEPTION WHEN duplicate_object THEN END $$; GRANT SELECT ON v TO warden; GRANT CREATE ON SCHEMA public TO warden")
    db.execute("SET ROLE warden")
    assert db.refusal(alert.replace("other", "pager")).startswith("42501")
    db.execute("RESET ROLE")
    db.execute("ALTER VIEW high SET (streamext.to = 'channel')")
    db.execute("DROP FOREIGN TABLE pager")


def test_what_is_refused(database: Database, kafka: Kafka, topic: str) -> None:
    db = database
    emitting(db, kafka, topic)
    db.execute("ALTER FOREIGN TABLE latest DROP COLUMN total")
    db.execute("INSERT INTO s VALUES (1, 'a', 1, now())")
    wait_for(lambda: db.rows("SELECT state, last_error FROM streamext.sinks") == [("failed", 'column "total" of relation "latest" does not exist')])
    db.execute("CREATE TABLE plain (k int, n bigint)")
    emit = "WITH (streamext.continuous, streamext.emit = 'changes'"
    query = "AS SELECT k, count(*) AS n FROM s GROUP BY k"
    assert db.refusal(f"CREATE VIEW w {emit}) {query}").startswith("22023")
    assert db.refusal(f"CREATE VIEW w {emit}, streamext.into = 'plain') {query}").startswith("0A000")
    assert db.refusal(f"CREATE VIEW w WITH (streamext.continuous, streamext.emit = 'often') {query}").startswith("22023")
    assert db.refusal(f"CREATE VIEW w {emit}, streamext.into = 'latest') AS SELECT count(*) AS n FROM s GROUP BY k").startswith("0A000")
    assert db.refusal(f"CREATE VIEW w {emit}, streamext.into = 'latest') AS SELECT k, count(*) AS absent FROM s GROUP BY k").startswith("42703")
    db.execute(f"CREATE FOREIGN TABLE keyed (key text OPTIONS (metadata 'key'), k int, n bigint) SERVER kafka_server OPTIONS (topic '{topic}', format 'json')")
    assert db.refusal(f"CREATE VIEW w {emit}, streamext.into = 'keyed') {query}").startswith("0A000")
    assert db.refusal("ALTER VIEW v SET (streamext.emit = 'windows')").startswith("0A000")
    assert db.refusal("DROP FOREIGN TABLE latest").startswith("2BP01")
    assert "streamext.emit=changes" in db.value("SELECT options FROM streamext.continuous_views WHERE view = 'v'::regclass")
    db.execute("DROP VIEW v")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext_internal.emitted_view") == 0)
