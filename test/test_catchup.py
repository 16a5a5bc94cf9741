"""A new view on a long stream catches up in a process of its own, and the views that run do not notice."""

import threading

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka, Message
from harness.postgres import Postgres
from harness.gate import Gate
from harness.streams import continuous, is_alive, kafka_stream, local_stream, state, worker_pid
from harness.wait import wait_for

PARTITIONS = 3
ROWS = 2_000_000
COLUMNS = "a bigint, g int, ts timestamptz"
RUNNING = "SELECT count(*) AS n, sum(a)::bigint AS total FROM {}"
# Of each way to keep a state: native, by PostgreSQL's own functions, as values.
GROUPED = "SELECT g, count(*) AS n, sum(a)::bigint AS total, bit_xor(a) AS x, max(a) AS peak FROM {} GROUP BY g"
WINDOWED = "SELECT g, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(a)::bigint AS total FROM {} GROUP BY g, w"
CALLS = "SELECT g, count(*) AS n, sum(length(repeat('x', 1 + (a % 3)::int))) AS chars FROM {} GROUP BY g"


def number(i: int) -> Message:
    seconds = i // 2000
    text = f'{{"a":{i},"g":{i % 10},"ts":"2024-05-01 {10 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"}}'
    return Message(text, i % PARTITIONS)


@pytest.fixture(scope="module")
def history(kafka: Kafka) -> str:
    """A topic with the numbers below ROWS."""
    kafka.create_topic("history", PARTITIONS)
    kafka.produce("history", (number(i) for i in range(ROWS)))
    return "history"


@pytest.fixture
def stream(db: Database, kafka: Kafka, history: str) -> str:
    """`s` over the topic, which is returned, and the view `running` that has counted all of it."""
    kafka_stream(db, kafka, f"topic '{history}', event_time 'ts', watermark_delay '1 min'", COLUMNS)
    continuous(db, "running", RUNNING.format("s"))
    db.flush("s")
    return history


def end_of(kafka: Kafka, topic: str) -> int:
    """The number that comes next."""
    return sum(kafka.end_offsets(topic).values())


class Production:
    """The numbers that come next, some 20,000 a second, until stop()."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.kafka, self.topic, self.next = kafka, topic, end_of(kafka, topic)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        producer = self.kafka.producer()
        while not self.stopped.is_set():
            for i in range(self.next, self.next + 1000):
                message = number(i)
                producer.produce(self.topic, message.value, partition=message.partition)
            self.next += 1000
            producer.poll(0)
            self.stopped.wait(0.05)
        producer.flush()

    def stop(self) -> int:
        self.stopped.set()
        self.thread.join()
        return self.next


def catchup_pid(db: Database) -> int:
    return next((pid for (pid,) in db.rows("SELECT pid FROM streamext.workers WHERE task = 'catch_up'")), 0)


def view_state(db: Database, view: str) -> str:
    return db.value("SELECT state FROM streamext.continuous_views WHERE view = %s::regclass", view)


def progress(db: Database, view: str) -> tuple[int, int]:
    query = "SELECT catchup_rows, catchup_total, catchup_until > now() FROM streamext.continuous_views WHERE view = %s::regclass"
    rows, total, _ = db.rows(query, view)[0]
    return rows or 0, total or 0


def assert_exact(db: Database, end: int, *views: str) -> None:
    """Each of the numbers below `end` is counted, once."""
    db.execute("DROP TABLE IF EXISTS o")
    db.execute(
        "CREATE TABLE o AS SELECT i::bigint AS a, i %% 10 AS g, timestamptz '2024-05-01 10:00:00Z' + (i / 2000) * interval '1 s' AS ts"
        " FROM generate_series(0, %s::int - 1) AS i", end
    )  # fmt: skip
    definitions = {"running": RUNNING, "grouped": GROUPED, "windowed": WINDOWED, "calls": CALLS}
    for view in views:
        db.assert_same(f"TABLE {view}", definitions[view].format("o"))
    counts = db.rows("SELECT view::text, accepted, late, rejected FROM streamext.continuous_views")
    assert {row[1:] for row in counts} == {(end, 0, 0)}, counts


def test_running_views_do_not_wait(db: Database, kafka: Kafka, stream: str) -> None:
    """Two views over two million records, with production going on."""
    production = Production(kafka, stream)
    try:
        continuous(db, "grouped", GROUPED.format("s"))
        continuous(db, "windowed", WINDOWED.format("s"))
        wait_for(lambda: catchup_pid(db), what="the catch-up worker")
        assert view_state(db, "grouped") == "catching_up"
        assert view_state(db, "running") == "running"
        rows, total = wait_for(lambda: progress(db, "grouped")[0] and progress(db, "grouped"), what="progress")
        assert 0 < rows <= total and total >= ROWS
        assert 0 < wait_for(lambda: db.value("SELECT sum(n)::bigint FROM grouped"), what="what is there") < ROWS
        # does it wait for views that catch up
        db.flush("s")
        assert db.value("SELECT sum(n)::bigint FROM grouped") >= ROWS
        wait_for(lambda: not catchup_pid(db), what="the end of the catch-up worker")
    finally:
        end = production.stop()
    db.flush("s")
    assert {view_state(db, view) for view in ("running", "grouped", "windowed")} == {"running"}
    assert progress(db, "grouped") == (0, 0)
    assert_exact(db, end, "running", "grouped", "windowed")


def test_running_views_go_on_while_one_is_held(db: Database, kafka: Kafka, stream: str) -> None:
    """The view that catches up stands still in the midst of a batch; all that comes meanwhile is counted in the other one."""
    with Gate(db) as gate:
        continuous(db, "grouped", GROUPED.format(f"s WHERE {gate.passes('a <> 1000')}"))
        gate.wait_until_held()
        end = end_of(kafka, stream)
        kafka.produce(stream, (number(i) for i in range(end, end + 10_000)))
        wait_for(lambda: db.value("SELECT n FROM running") == end + 10_000, what="the running view")
        assert view_state(db, "running") == "running"
        assert view_state(db, "grouped") == "catching_up"
    db.flush("s")
    assert_exact(db, end + 10_000, "running", "grouped")


def test_processes_are_terminated(db: Database, kafka: Kafka, stream: str) -> None:
    """The catch-up worker and the stream's, again and again; a view of each way to keep a state."""
    production = Production(kafka, stream)
    try:
        continuous(db, "calls", CALLS.format("s"))
        continuous(db, "grouped", GROUPED.format("s"))
        for i in range(4):
            last = progress(db, "calls")[0]
            pid = wait_for(lambda: catchup_pid(db), what="a catch-up worker")
            wait_for(lambda: progress(db, "calls")[0] > last, what="progress")
            victims = [pid, worker_pid(db)][: 1 + i % 2]
            for victim in victims:
                db.execute("SELECT pg_terminate_backend(%s)", victim)
            wait_for(lambda: not any(map(is_alive, victims)), what="their end")
        assert progress(db, "calls")[1] > 0
        db.flush("s")
        wait_for(lambda: view_state(db, "calls") == view_state(db, "grouped") == "running", what="state running")
    finally:
        end = production.stop()
    db.flush("s")
    assert_exact(db, end, "running", "calls", "grouped")


def test_a_view_is_dropped_while_it_catches_up(db: Database, kafka: Kafka, stream: str) -> None:
    for _ in range(5):
        continuous(db, "calls", CALLS.format("s"))
        wait_for(lambda: progress(db, "calls")[0], what="progress")
        db.execute("DROP VIEW calls")
    continuous(db, "calls", CALLS.format("s"))
    continuous(db, "grouped", GROUPED.format("s"))
    wait_for(lambda: progress(db, "calls")[0], what="progress")
    db.execute("DROP VIEW calls")
    db.flush("s")
    assert_exact(db, end_of(kafka, stream), "running", "grouped")
    wait_for(lambda: not catchup_pid(db), what="the end of the catch-up worker")


def test_a_view_is_replaced_while_it_catches_up(db: Database, kafka: Kafka, stream: str) -> None:
    continuous(db, "grouped", GROUPED.format("s WHERE a % 2 = 0"))
    wait_for(lambda: progress(db, "grouped")[0], what="progress")
    db.execute("CREATE OR REPLACE VIEW grouped WITH (streamext.continuous) AS " + GROUPED.format("s"))
    db.flush("s")
    assert_exact(db, end_of(kafka, stream), "running", "grouped")


def test_rights_are_revoked_meanwhile(db: Database, stream: str) -> None:
    """What catches up stops, too, and goes on when the right is back."""
    db.execute("CREATE ROLE catcher; GRANT CREATE ON SCHEMA public TO catcher; GRANT SELECT ON s TO catcher")
    try:
        with db.connection.transaction():
            continuous(db, "v", CALLS.format("s"))
            db.execute("ALTER VIEW v OWNER TO catcher")
        state = "SELECT state FROM streamext.continuous_views WHERE view = 'v'::regclass"
        wait_for(lambda: progress(db, "v")[0], what="progress")
        db.execute("REVOKE SELECT ON s FROM catcher")
        wait_for(lambda: db.value(state) == "failed", what="failed view")
        db.execute("GRANT SELECT ON s TO catcher")
        db.flush("s")
        assert db.value("SELECT sum(n)::bigint FROM v") == db.value("SELECT n FROM running")
    finally:
        db.execute("DROP OWNED BY catcher CASCADE; DROP ROLE catcher")


def test_the_stream_is_dropped_or_altered_meanwhile(db: Database, kafka: Kafka, stream: str) -> None:
    continuous(db, "calls", CALLS.format("s"))
    wait_for(lambda: progress(db, "calls")[0], what="progress")
    db.execute("ALTER FOREIGN TABLE s OPTIONS (ADD idle_timeout '10 s')")
    db.execute("SELECT streamext.pause('s')")
    before = progress(db, "calls")[0]
    db.execute("SELECT streamext.resume('s')")
    db.flush("s")
    assert 0 < before < ROWS
    assert_exact(db, end_of(kafka, stream), "running", "calls")
    continuous(db, "grouped", GROUPED.format("s"))
    pid = wait_for(lambda: catchup_pid(db), what="the catch-up worker")
    db.execute("DROP FOREIGN TABLE s CASCADE")
    wait_for(lambda: not is_alive(pid), what="its end")
    wait_for(lambda: db.rows("TABLE streamext.workers") == [], what="the end of all")


def test_drop_database_meanwhile(pg: Postgres, kafka: Kafka, stream: str, db: Database) -> None:
    pg.psql("CREATE DATABASE leaving")
    pg.psql("CREATE EXTENSION streamext", "leaving")
    other = Database(pg, "leaving")
    kafka_stream(other, kafka, f"topic '{stream}', event_time 'ts'", COLUMNS)
    continuous(other, "running", RUNNING.format("s"))
    other.flush("s")
    continuous(other, "calls", CALLS.format("s"))
    pid = wait_for(lambda: catchup_pid(other), what="the catch-up worker")
    other.connection.close()
    pg.psql("DROP DATABASE leaving")
    assert not is_alive(pid)


def test_a_short_way_is_rewound(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic, PARTITIONS)
    kafka.produce(topic, (number(i) for i in range(1000)))
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS)
    continuous(db, "running", RUNNING.format("s"))
    db.flush("s")
    continuous(db, "grouped", GROUPED.format("s"))
    db.flush("s")
    assert_exact(db, 1000, "running", "grouped")


def test_no_process_left_to_catch_up_in(kafka: Kafka, history: str) -> None:
    """The view says so and flush does; it gets the next process that is free, or is read by the stream's worker once it is alone."""
    settings = {"max_worker_processes": 3, "max_logical_replication_workers": 0, "max_parallel_workers": 0}
    with Postgres(settings=settings) as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        kafka_stream(db, kafka, f"topic '{history}', event_time 'ts'", COLUMNS)
        continuous(db, "running", RUNNING.format("s"))
        db.flush("s")
        local_stream(db, columns="a bigint", name="other")
        db.flush("other")
        continuous(db, "grouped", GROUPED.format("s"))
        wait_for(lambda: view_state(db, "grouped") == "waiting", what="state waiting")
        assert view_state(db, "running") == "running"
        assert "max_worker_processes" in db.value(
            "SELECT last_error FROM streamext.continuous_views WHERE view = 'grouped'::regclass"
        )
        with pytest.raises(psycopg.Error, match="waiting for a worker"):
            db.flush("s")
        db.execute("DROP FOREIGN TABLE other")
        wait_for(lambda: view_state(db, "grouped") == "running", what="state running")
        db.flush("s")
        assert db.value("SELECT sum(n)::bigint FROM grouped") == db.value("SELECT n FROM running")
        local_stream(db, columns="a bigint", name="other")
        # the place of the process that caught up is free a moment later
        wait_for(lambda: state(db, "other") == "running", what="a process for the stream")
        continuous(db, "calls", CALLS.format("s"))
        wait_for(lambda: view_state(db, "calls") == "waiting", what="state waiting")
        db.execute("DROP VIEW running, grouped")
        wait_for(lambda: view_state(db, "calls") != "waiting", what="the stream's worker to take it")
        db.flush("s")
        assert view_state(db, "calls") == "running"


def test_rows_go_into_a_table_once(db: Database, kafka: Kafka, stream: str) -> None:
    """A view without aggregates, and one whose windows move to history: the catch-up worker is terminated in the midst."""
    db.execute("CREATE TABLE target (a bigint)")
    production = Production(kafka, stream)
    try:
        continuous(db, "copied", "SELECT a FROM s WHERE a % 10 = 3", ", streamext.into = 'target'")
        continuous(db, "windowed", WINDOWED.format("s"))
        for _ in range(2):
            last = progress(db, "copied")[0]
            pid = wait_for(lambda: catchup_pid(db), what="a catch-up worker")
            wait_for(lambda: progress(db, "copied")[0] > last, what="progress")
            db.execute("SELECT pg_terminate_backend(%s)", pid)
            wait_for(lambda: not is_alive(pid), what="its end")
        db.flush("s")
        wait_for(lambda: view_state(db, "copied") == view_state(db, "windowed") == "running", what="state running")
    finally:
        end = production.stop()
    db.flush("s")
    expected = len(range(3, end, 10))
    assert db.rows("SELECT count(*), count(DISTINCT a), min(a), max(a) FROM target") == [
        (expected, expected, 3, 3 + 10 * (expected - 1))
    ]
    assert_exact(db, end, "running", "windowed")
