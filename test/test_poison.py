"""Records that stop a stream, or crash its worker: nothing behind them counts before it shall, and nothing crashes for ever."""

import pytest
from harness.database import Database
from harness.kafka import Kafka, Message
from harness.streams import continuous, counts, kafka_stream, local_stream, state
from harness.wait import wait_for


def stop(db: Database) -> str:
    return db.value("SELECT coalesce(last_error, '') FROM streamext.streams")


def positions(db: Database) -> list[int]:
    return [p for (p,) in db.rows("SELECT position FROM streamext.dead_letters ORDER BY position")]


def test_stop_at_the_record(db: Database, kafka: Kafka, topic: str) -> None:
    """Nothing behind it in its batch counts before resume, of the stream or in a view; then all of it, once."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', on_error 'stop'", "v int")
    continuous(db, "v", "SELECT v, count(*) FROM s GROUP BY v")
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    kafka.produce(topic, [b'{"v": %d}' % i if i not in (20, 21, 50) else b"no" for i in range(100)])
    db.execute("SELECT streamext.resume('s')")
    for bad, accepted in ((20, 20), (21, 20), (50, 48)):
        wait_for(lambda: f"position {bad})" in stop(db) and state(db) == "failed", what=f"the stop at {bad}")
        assert positions(db)[-1] == bad
        assert counts(db, "v") == (accepted, 0, len(positions(db)))
        assert db.value("SELECT max(v) FROM v") == (19 if bad < 50 else 49)
        assert db.rows("SELECT rows_in, rejected FROM streamext.streams") == [(bad + 1, len(positions(db)))]
        db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert counts(db, "v") == (97, 0, 3)
    assert db.rows("SELECT rows_in, rejected FROM streamext.streams") == [(100, 3)]
    assert db.value("SELECT count(*) FROM v WHERE count = 1") == 97


def test_stop_at_a_record_of_a_view(db: Database, kafka: Kafka, topic: str) -> None:
    """Partitions stop together, at the first of their batch; a table that a view writes into holds nothing from behind it."""
    kafka.create_topic(topic, partitions=2)
    kafka_stream(db, kafka, f"topic '{topic}', on_error 'stop'", "v int")
    db.execute("CREATE TABLE target (v int CHECK (v <> 30))")
    continuous(db, "v", "SELECT v FROM s", ", streamext.into = 'target'")
    continuous(db, "w", "SELECT count(*) FROM s")
    db.flush("s")
    db.execute("SELECT streamext.pause('s')")
    kafka.produce(topic, [Message(b'{"v": %d}' % i, i % 2) for i in range(100)])
    db.execute("SELECT streamext.resume('s')")
    wait_for(lambda: state(db) == "failed", what="the stop")
    rows = db.value("SELECT rows_in FROM streamext.streams")
    assert 16 <= rows < 100
    assert counts(db, "w") == (rows, 0, 0)
    assert counts(db, "v") == (rows - 1, 0, 1)
    assert db.rows("SELECT count(*), count(*) FILTER (WHERE v % 2 = 0 AND v >= 30) FROM target") == [(rows - 1, 0)]
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert counts(db, "v") == (99, 0, 1)
    assert counts(db, "w") == (100, 0, 0)
    assert db.rows("SELECT count(*), count(DISTINCT v) FROM target") == [(99, 99)]


def test_stop_in_a_local_stream(db: Database) -> None:
    local_stream(db, "on_error 'stop'", "v int")
    continuous(db, "v", "SELECT 10 / v AS q, count(*) FROM s GROUP BY 1")
    db.execute("INSERT INTO s SELECT i - 50 FROM generate_series(0, 99) i")
    wait_for(lambda: state(db) == "failed", what="the stop")
    assert counts(db, "v") == (50, 0, 1)
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert counts(db, "v") == (99, 0, 1)
