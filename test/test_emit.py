"""streamext.emit = 'changes': who applies the topic's messages by their keys has the view, whatever was restarted meanwhile."""

import json
import random
from datetime import datetime
from typing import Any

import psycopg
from confluent_kafka import TopicPartition
from crash.faults import kill_all

from harness.database import Database
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

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.consumer = kafka.consumer({"isolation.level": "read_committed"})
        self.consumer.assign([TopicPartition(topic, p, 0) for p in kafka.end_offsets(topic)])
        self.rows: dict[bytes, Any] = {}
        self.versions: dict[bytes, int] = {}
        self.tombstones = 0

    def take(self) -> None:
        while (message := self.consumer.poll(0.05)) is not None:
            assert message.error() is None
            key, version = message.key(), int(dict(message.headers())["version"])
            assert version >= self.versions.get(key, 0), "the version goes back"
            self.versions[key] = version
            if message.value() is None:
                self.tombstones += 1
                assert key in self.rows or version > 1
                self.rows.pop(key, None)
            else:
                self.rows[key] = json.loads(message.value())
                assert json.loads(key) == {name: self.rows[key][name] for name in ("k", "tag")}

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
    assert len(again.rows) == db.value("SELECT count(*) FROM streamext.emitted")


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
        wait_for(lambda: reconnected(db))
        db.flush("s")
        reader.wait(db)
    assert reader.tombstones >= 2


def reconnected(db: Database) -> bool:
    try:
        db.connection = db.connect()
        db.execute("SET timezone = 'UTC'")
    except psycopg.OperationalError:
        return False
    return True


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
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.emitted_view") == 0)
