"""python -m soak.outage: `make soak-outage MINUTES=60`. Rows come in all the time, closed windows go to Kafka, MQTT, a webhook and a table, changes to
a compacted topic. Then every target but the table is away for so many minutes, the webhook for the second half with the answer 503: rows that it answers so too often are dead, and sent again. Ends non-zero if, when
all are back, one of them lacks a window or has one twice (MQTT and the webhook may: at least once), the newest changes are not the view, what changes
wait took more room the longer it lasted, or the memory of the extension's processes grew by more than what waits."""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from confluent_kafka import TopicPartition
from paho.mqtt.enums import CallbackAPIVersion

from harness.database import Database
from harness.hook import Hook
from harness.kafka import Kafka
from harness.meanwhile import meanwhile
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream, local_stream, mqtt_stream
from harness.wait import wait_for

WINDOWS = "SELECT k, streamext.tumble('2 s', ts) AS w, count(*) AS n, sum(x)::bigint AS total FROM {source} GROUP BY k, w"
CHANGES = "SELECT k, x % 10 AS digit, count(*) AS n, sum(x)::bigint AS total FROM {source} GROUP BY k, x % 10"
CLOSED = "w + interval '2 s' <= %s"
KEYS, DIGITS = 5, 10
COLUMNS = "k int, w timestamptz, n bigint, total bigint"
WARM = 20  # seconds
BACK = 600  # until all is out: for what never comes
MEMORY = 64e6  # bytes; by which the processes may differ


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def create(db: Database, kafka: Kafka, mosquitto: Mosquitto, hook: Hook) -> None:
    db.execute("SET timezone = 'UTC'")
    for topic in ("closed", "latest"):
        kafka.create_topic(topic, 1)
    local_stream(db, "event_time 'ts', watermark_delay '0 s'", "k int, x int, ts timestamptz")
    db.execute("CREATE TABLE o (k int, x int, ts timestamptz)")
    db.execute(f"CREATE TABLE in_table ({COLUMNS})")
    kafka_stream(db, kafka, "topic 'closed'", COLUMNS, "in_kafka")
    kafka_stream(db, kafka, "topic 'latest'", "k int, digit int, n bigint, total bigint", "in_topic")
    mqtt_stream(db, mosquitto, "topic 'closed', qos '1'", COLUMNS, "in_mqtt")
    db.execute(f"CREATE SERVER hook FOREIGN DATA WRAPPER webhook OPTIONS (url 'http://127.0.0.1:{hook.port}/')")
    db.execute(f"CREATE FOREIGN TABLE in_hook ({COLUMNS}) SERVER hook OPTIONS (format 'json')")
    for target in ("table", "kafka", "mqtt", "hook"):
        continuous(db, f"to_{target}", WINDOWS.format(source="s"), f", streamext.into = 'in_{target}'")
    continuous(db, "latest", CHANGES.format(source="s"), ", streamext.into = 'in_topic', streamext.emit = 'changes'")


def insert_rows(db: Database, over: threading.Event) -> None:
    """About a hundred a second into the stream and the table."""
    with db.connect() as connection:
        while not over.wait(0.1):
            with connection.transaction():
                connection.execute(f"INSERT INTO o SELECT i % {KEYS}, (random() * 1000)::int, clock_timestamp() FROM generate_series(1, 10) AS i")
                connection.execute("INSERT INTO s SELECT * FROM o WHERE xmin = pg_current_xact_id()::xid")


def read_mqtt(mosquitto: Mosquitto, found: list[dict[str, Any]]) -> mqtt.Client:
    """By a session that outlives any outage."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "reader", clean_session=False, protocol=mqtt.MQTTv311)
    client.on_message = lambda _client, _data, message: found.append(json.loads(message.payload))
    client.reconnect_delay_set(1, 5)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    wait_for(client.is_connected, what="connection to mosquitto")
    client.subscribe("closed", 1)
    return client


def memory(db: Database) -> float:
    """Bytes that the extension's processes have for themselves."""

    def anonymous(pid: int) -> int:
        try:
            ours = b"streamext" in Path(f"/proc/{pid}/cmdline").read_bytes()
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if ours else []
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

    return sum(map(anonymous, db.server.children()))


def from_topic(kafka: Kafka, topic: str) -> list[tuple[bytes, dict[str, Any] | None]]:
    """All that is committed."""
    consumer = kafka.consumer({"isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), 30)[1]
    found = []
    while consumer.position([TopicPartition(topic, 0)])[0].offset < end:
        for message in consumer.consume(1000, 1):
            if not message.error():
                found.append((message.key(), json.loads(message.value()) if message.value() else None))
    consumer.close()
    return found


def keys(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps([r["k"], r["w"].replace("T", " ").replace("+00:00", "+00"), r["n"], r["total"]]) for r in found)


def compare(db: Database, kafka: Kafka, by_mqtt: list[dict[str, Any]], hook: Hook) -> list[str]:
    watermark = db.value("SELECT watermark FROM streamext.streams WHERE stream = 's'::regclass")
    want = keys([row for (row,) in db.rows(f"SELECT jsonb_build_object('k', k, 'w', w::text, 'n', n, 'total', total) FROM ({WINDOWS.format(source='o')}) q WHERE {CLOSED}", watermark)])
    have = {
        "kafka": keys([value for _, value in from_topic(kafka, "closed") if value]),
        "mqtt": keys(by_mqtt),
        "webhook": keys([json.loads(body) for body in hook.taken]),
        "table": keys([row for (row,) in db.rows("SELECT jsonb_build_object('k', k, 'w', w::text, 'n', n, 'total', total) FROM in_table")]),
    }
    wrong = []
    for name, found in have.items():
        twice = found - Counter(set(found))
        say(f"{name}: {sum(found.values())} windows, {len(want)} wanted, {sum(twice.values())} more than once")
        wrong += [f"{name} lacks {window}" for window in (want - found)][:3]
        wrong += [f"{name} has {window}" for window in set(found) - set(want)][:3]
        if twice and name in ("kafka", "table"):
            wrong.append(f"{name} has windows twice: {list(twice)[:3]}")
    newest = {key: value for key, value in from_topic(kafka, "latest")}
    want_latest = Counter(json.dumps(row, sort_keys=True) for (row,) in db.rows(f"SELECT to_jsonb(q) FROM ({CHANGES.format(source='o')}) q"))
    have_latest = Counter(json.dumps(value, sort_keys=True) for value in newest.values() if value)
    say(f"changes: {len(have_latest)} keys of {len(want_latest)} in {len(from_topic(kafka, 'latest'))} messages")
    return wrong + ["the newest changes are not the view"] * (have_latest != want_latest)


def outage(db: Database, minutes: float, targets: tuple[Kafka, Mosquitto], hook: Hook) -> list[str]:
    wrong: list[str] = []
    for target in targets:
        target.stop()
    hook.stop()
    begin, before = time.monotonic(), memory(db)
    while (past := time.monotonic() - begin) < minutes * 60:
        time.sleep(min(60, minutes * 60 - past))
        past = time.monotonic() - begin
        if hook.away and past > minutes * 30:
            hook.otherwise = 503
            hook.start()
        sinks = {view: (state, waiting) for view, state, waiting in db.rows("SELECT view::text, state, waiting FROM streamext.sinks ORDER BY 1")}
        say(f"{past / 60:5.1f} min: {sinks}, memory {memory(db) / 1e6:.0f} MB (before {before / 1e6:.0f})")
        if sinks["latest"][1] > 2 * KEYS * DIGITS:
            wrong.append(f"{sinks['latest'][1]} changes wait of {KEYS * DIGITS} keys")
        wrong += [f"{view} is {state} while its target is away" for view, (state, _) in sinks.items() if state != "stalled" and past > 60 and (view != "to_hook" or hook.away)]
    if memory(db) > before + MEMORY:
        wrong.append("memory has grown")
    if hook.away:
        hook.start()
    hook.otherwise = 204
    for target in targets:
        target.start()
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak-outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    hook = Hook()
    by_mqtt: list[dict[str, Any]] = []
    with Kafka() as kafka, Mosquitto() as mosquitto, Postgres(settings={"streamext.checkpoint_interval": 1000}) as pg:
        pg.psql("CREATE DATABASE outage")
        pg.psql("CREATE EXTENSION streamext", "outage")
        db = Database(pg, "outage")
        create(db, kafka, mosquitto, hook)
        reader = read_mqtt(mosquitto, by_mqtt)
        with meanwhile(partial(insert_rows, db)):
            time.sleep(WARM)
            wrong = outage(db, minutes, (kafka, mosquitto), hook)
            time.sleep(WARM)
        db.flush("s")
        out: Callable[[], bool] = lambda: db.value("SELECT sum(waiting) FROM streamext.sinks") == 0
        begin = time.monotonic()
        dead = db.value("SELECT streamext.retry_deliveries('in_hook')")
        say(f"{dead} dead rows of the webhook are sent again")
        wait_for(out, BACK, "all that waits")
        say(f"all was out {time.monotonic() - begin:.0f} s after the rows ended")
        try:
            wait_for(lambda: len(by_mqtt) >= db.value("SELECT count(*) FROM in_table"), 60, "what the reader of MQTT gets")
        except TimeoutError as error:
            wrong.append(str(error))
        wrong += compare(db, kafka, by_mqtt, hook)
        reader.loop_stop()
        db.connection.close()
    print("\n".join(wrong) or "nothing is missing, nothing twice where it must not be")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
