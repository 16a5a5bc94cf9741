"""Records that stop a stream, or crash its worker: nothing behind them counts before it shall, and nothing crashes for ever."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from harness.database import Database, temporary_database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.streams import continuous, counts, kafka_stream, local_stream, state, worker_pid
from harness.wait import wait_for
from test_checkpoint import saved


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


@pytest.mark.parametrize("kind", ["kafka", "local"])
def test_stop_at_a_record_that_only_one_view_has_not_counted(db: Database, kafka: Kafka, topic: str, kind: str) -> None:
    """A view that reads again what the stream has counted goes on behind the record, and not where the stream stands."""
    if kind == "kafka":
        kafka.create_topic(topic)
        kafka_stream(db, kafka, f"topic '{topic}', on_error 'stop'", "v int")
    else:
        local_stream(db, "on_error 'stop'", "v int")
    continuous(db, "v", "SELECT 10 / v AS q, count(*) FROM s GROUP BY 1")
    continuous(db, "w", "SELECT count(*) FROM s")
    db.execute("SELECT streamext.pause('v')")
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'v'::regclass") == "paused", what="the pause")
    if kind == "kafka":
        kafka.produce(topic, [b'{"v": %d}' % (i - 50) for i in range(100)])
    else:
        db.execute("INSERT INTO s SELECT i - 50 FROM generate_series(0, 99) i")
    db.flush("s")
    assert counts(db, "w") == (100, 0, 0)
    db.execute("SELECT streamext.resume('v')")
    wait_for(lambda: state(db) == "failed", what="the stop")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert counts(db, "v") == (99, 0, 1)
    assert counts(db, "w") == (100, 0, 0)


def test_stop_in_a_local_stream(db: Database) -> None:
    local_stream(db, "on_error 'stop'", "v int")
    continuous(db, "v", "SELECT 10 / v AS q, count(*) FROM s GROUP BY 1")
    db.execute("INSERT INTO s SELECT i - 50 FROM generate_series(0, 99) i")
    wait_for(lambda: state(db) == "failed", what="the stop")
    assert counts(db, "v") == (50, 0, 1)
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert counts(db, "v") == (99, 0, 1)


# ---- records and views that crash the worker ----


@pytest.fixture
def own() -> Iterator[Database]:
    """A server of its own: all of it crashes."""
    with Postgres() as server, temporary_database(server) as db:
        yield db


def again(db: Database, condition: Callable[[], Any], what: str, timeout: float = 120) -> None:
    """Waits for a condition over as many crashes of the server as it takes."""

    def tried() -> Any:
        try:
            return condition()
        except psycopg.OperationalError:
            with contextlib.suppress(psycopg.OperationalError):
                db.connection = db.connect()
            return None

    wait_for(tried, what=what, timeout=timeout)


def crashes(db: Database, since: int = 0) -> int:
    return db.server.log(since).count('fault point "kill')


def configure_fault(db: Database, fault: str) -> None:
    db.configure("streamext.fault_point", fault)


def test_a_record_that_crashes_the_decoder(own: Database, kafka: Kafka, topic: str) -> None:
    db = own
    kafka.create_topic(topic, partitions=2)
    kafka_stream(db, kafka, f"topic '{topic}'", "v int, p int OPTIONS (metadata 'partition')")
    continuous(db, "v", "SELECT v, count(*) FROM s GROUP BY v")
    db.flush("s")
    configure_fault(db, "kill record 777")
    kafka.produce(topic, [Message(b'{"v": %d}' % i, 0) for i in range(2000)])
    again(db, lambda: counts(db, "v") == (1999, 0, 1), "the others to count")
    db.flush("s")
    assert crashes(db) <= 3
    assert db.rows("SELECT partition, position, view, reason FROM streamext.dead_letters") == [(0, 777, None, "crashed the worker")]
    db.assert_same("TABLE v", "SELECT i, 1::bigint FROM generate_series(0, 1999) i WHERE i <> 777")


def test_a_record_that_crashes_in_a_view(own: Database) -> None:
    db = own
    local_stream(db, columns="v int")
    continuous(db, "v", "SELECT v, count(*) FROM s GROUP BY v")
    db.execute("INSERT INTO s SELECT generate_series(1, 10)")
    db.flush("s")
    start = db.value("SELECT position FROM streamext.stream_partitions")
    configure_fault(db, f"kill record-in-view {start}")
    with contextlib.suppress(psycopg.OperationalError):
        db.execute("INSERT INTO s SELECT generate_series(11, 500)")
    again(db, lambda: counts(db, "v") == (499, 0, 1), "the others to count")
    assert crashes(db) <= 3
    wait_for(lambda: db.rows("SELECT position, view::text, reason FROM streamext.dead_letters") == [(start, "v", "crashed the worker")],
             what="the letter")  # fmt: skip


def test_a_view_that_crashes(own: Database) -> None:
    db = own
    local_stream(db, columns="v int")
    continuous(db, "v", "SELECT v, count(*) FROM s GROUP BY v")
    continuous(db, "w", "SELECT count(*) FROM s")
    db.flush("s")
    configure_fault(db, "kill view %s" % db.value("SELECT 'w'::regclass::oid"))
    with contextlib.suppress(psycopg.OperationalError):
        db.execute("INSERT INTO s SELECT generate_series(1, 100)")
    again(db, lambda: counts(db, "v") == (100, 0, 0), "the other view")
    again(db, lambda: db.rows("SELECT state, last_error FROM streamext.continuous_views WHERE view = 'w'::regclass")
          == [("failed", "crashed the worker")], "the view to be set aside")  # fmt: skip
    assert crashes(db) <= 3
    configure_fault(db, "")
    db.execute("ALTER VIEW w SET (streamext.retention = '1 day')")
    db.flush("s")
    assert counts(db, "w") == (100, 0, 0)


def test_a_view_that_crashes_when_it_starts(own: Database) -> None:
    db = own
    local_stream(db, columns="v int")
    continuous(db, "v", "SELECT v, count(*) FROM s GROUP BY v")
    continuous(db, "w", "SELECT count(*) FROM s")
    db.flush("s")
    configure_fault(db, "kill start-view %s" % db.value("SELECT 'w'::regclass::oid"))
    with contextlib.suppress(psycopg.OperationalError):
        db.execute("CREATE VIEW x WITH (streamext.continuous) AS SELECT max(v) FROM s")
    again(db, lambda: db.value("SELECT last_error FROM streamext.continuous_views WHERE view = 'w'::regclass") == "crashed the worker",
          "the view to be set aside")  # fmt: skip
    assert crashes(db) <= 3 and 'continuous view "public.w" has crashed the worker' in db.server.log()
    db.execute("INSERT INTO s VALUES (1)")
    again(db, lambda: counts(db, "v") == (1, 0, 0), "the other view")


def test_a_kill_from_outside_blames_nobody(own: Database) -> None:
    """Each in the midst of a view; the last one goes through."""
    db = own
    local_stream(db, columns="v int")
    db.execute("""CREATE FUNCTION waits(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN IF v = 5 THEN PERFORM pg_advisory_lock_shared(77); PERFORM pg_advisory_unlock_shared(77); END IF; RETURN v; END $$""")
    continuous(db, "v", "SELECT waits(v), count(*) FROM s GROUP BY 1")
    db.flush("s")
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = 77 AND NOT granted"
    for kill in range(2):
        with contextlib.suppress(psycopg.OperationalError), db.connect() as other:
            other.execute("SELECT pg_advisory_lock(77)")
            if kill == 0:
                db.execute("INSERT INTO s SELECT generate_series(1, 10)")
            again(db, lambda: db.rows(waiting), "the worker to wait")
            db.server.kill_backend(db.rows(waiting)[0][0])
            wait_for(lambda: not is_usable(other), what="the crash")
    again(db, lambda: counts(db, "v") == (10, 0, 0), "all rows to count")
    assert db.rows("SELECT reason FROM streamext.dead_letters") == []


def test_a_source_that_crashes_its_client(own: Database) -> None:
    """No record is at hand, so none can be set aside: the stream stops, the server stays, and resume tries again."""
    db = own
    for name in ("s", "other"):
        local_stream(db, columns="v int", name=name)
    continuous(db, "v", "SELECT count(*) FROM s")
    db.execute("INSERT INTO s SELECT generate_series(1, 10)")
    db.flush("s")
    with contextlib.suppress(psycopg.OperationalError):
        configure_fault(db, "kill poll %s" % db.value("SELECT 's'::regclass::oid"))
        db.execute("INSERT INTO s SELECT generate_series(11, 20)")
    again(db, lambda: state(db, "s") == "failed", "the stream to stop")
    assert crashes(db) == 3
    assert "crashed 3 times in a row" in db.value("SELECT last_error FROM streamext.streams WHERE stream = 's'::regclass")
    db.execute("INSERT INTO other VALUES (1)")
    db.flush("other")
    assert crashes(db) == 3
    db.server.kill_backend(worker_pid(db, "other"))
    again(db, lambda: state(db, "other") == "running", "the server to come back")
    wait_for(lambda: state(db, "s") == "failed", what="the stream to be stopped after another's crash")
    configure_fault(db, "")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert db.rows("TABLE v") in ([(10,)], [(20,)])


def kill_behind_a_good_record(db: Database, times: int, how: signal.Signals) -> None:
    """The worker, so often, each time when it has counted one more."""
    local_stream(db, columns="v int")
    continuous(db, "v", "SELECT count(*) FROM s")
    for number in range(1, times + 1):
        again(db, lambda: db.execute("INSERT INTO s VALUES (1)") or True, "the server to come back")
        db.flush("s")
        assert db.rows("TABLE v") == [(number,)]
        db.server.kill_backend(worker_pid(db), how)


def test_workers_killed_while_they_wait_blame_nobody(own: Database) -> None:
    """Each passes where the one before it was."""
    db = own
    kill_behind_a_good_record(db, 5, signal.SIGKILL)
    again(db, lambda: state(db) == "running", "the worker to go on")


def test_a_source_that_crashes_its_client_behind_a_good_record_each_time(own: Database) -> None:
    """It would crash the server for ever, and each crash would be the first."""
    db = own
    kill_behind_a_good_record(db, 3, signal.SIGABRT)
    again(db, lambda: state(db) == "failed", "the stream to stop")
    assert "crashed 3 times in a row" in db.value("SELECT last_error FROM streamext.streams")
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert state(db) == "running"


def test_marks_are_not_given_to_another_stream(own: Database) -> None:
    """However many streams come and go, the marks of one that is there stay its own: another one's worker found them, and wrote into them."""
    db = own
    db.server.configure({"streamext.max_streams": 2})
    db.server.restart()
    db.connection = db.connect()
    local_stream(db, columns="v int")
    continuous(db, "v", "SELECT count(*) FROM s")
    db.flush("s")
    for number in range(3):
        again(db, lambda number=number: local_stream(db, columns="v int", name=f"guest{number}") or True, "a place")
        wait_for(lambda number=number: state(db, f"guest{number}") == "running", what="the guest")
        db.execute(f"DROP FOREIGN TABLE guest{number}")
    with contextlib.suppress(psycopg.OperationalError):
        configure_fault(db, "kill poll %s" % db.value("SELECT 's'::regclass::oid"))
        db.execute("INSERT INTO s VALUES (1)")
    again(db, lambda: state(db, "s") == "failed", "the stream to stop")
    assert crashes(db) == 3


def is_usable(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_a_letter_that_crashes_when_it_is_tried_again(own: Database) -> None:
    """It is rejected again, the other letters count; who asks once more has it tried once more."""
    db = own
    local_stream(db, columns="v int")
    function = "CREATE OR REPLACE FUNCTION half(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN {} RETURN v / 2; END'"
    db.execute(function.format("IF v % 5 = 0 THEN RAISE ''no %'', v; END IF;"))
    continuous(db, "v", "SELECT half(v), count(*) FROM s GROUP BY 1")
    db.execute("INSERT INTO s SELECT generate_series(1, 20)")
    db.flush("s")
    assert counts(db, "v") == (16, 0, 4)
    saved(db, "s")  # else a crash has the record itself read again
    bad = positions(db)[1]
    db.execute(function.format(""))
    db.flush("s")
    configure_fault(db, f"kill record-in-view {bad}")
    with contextlib.suppress(psycopg.OperationalError):
        db.execute("SELECT streamext.retry_dead_letters('s')")
    again(db, lambda: positions(db) == [bad] and counts(db, "v") == (19, 0, 1), "the other letters to count")
    assert 1 <= crashes(db) <= 3
    assert db.rows("SELECT view::text, reason FROM streamext.dead_letters") == [("v", "crashed the worker")]
    configure_fault(db, "")
    db.execute("SELECT streamext.retry_dead_letters('s')")
    db.flush("s")
    wait_for(lambda: positions(db) == [], what="the letter to go")
    assert counts(db, "v") == (20, 0, 0)
