"""A broker that does not keep to the protocol: what it sends is a trouble of its stream, which tells it, and at most three times one of the server."""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from harness.database import Database, temporary_database
from harness.odd_kafka import OddKafka, batch
from harness.postgres import Postgres
from harness.streams import continuous, state
from harness.wait import wait_for

GOOD = batch(b'{"a":1}', b'{"a":2}')


def odd_stream(db: Database, broker: OddKafka) -> None:
    db.execute(f"CREATE SERVER odd FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{broker.brokers}')")
    db.execute("CREATE FOREIGN TABLE s (a int) SERVER odd OPTIONS (format 'json', topic 't')")
    continuous(db, "v", "SELECT count(*), sum(a) FROM s")


def last_error(db: Database) -> str:
    return db.value("SELECT coalesce(last_error, '') FROM streamext.streams")


def test_one_that_keeps_to_it(db: Database) -> None:
    with OddKafka(2, GOOD) as broker:
        odd_stream(db, broker)
        db.flush("s")
        assert db.rows("TABLE v") == [(2, 3)]
        assert state(db) == "running"


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD[:-1], id="a part", marks=pytest.mark.slow),
        pytest.param(GOOD[:8] + b"\xff\xff\xff\xff" + GOOD[12:], id="a negative length", marks=pytest.mark.slow),
    ],
)
def test_answers_of_which_nothing_comes(db: Database, records: bytes) -> None:
    """The client says nothing of them and asks again; when something comes the stream runs again."""
    with OddKafka(2, records) as broker:
        odd_stream(db, broker)
        wait_for(lambda: state(db) == "stalled", what="the standstill to be told")
        assert 'nothing comes from topic "t" partition 0 at offset 0, which ends at 2' in last_error(db)
        broker.records = GOOD
        wait_for(lambda: state(db) == "running", what="the stream to run")
        assert db.rows("TABLE v") == [(2, 3)]
        assert db.rows("SELECT kind FROM streamext.stream_events ORDER BY id") == [("stalled",), ("recovered",)]


def test_a_batch_that_ends_before_it_begins(db: Database) -> None:
    """It is asked for again as often as a consumer is made anew, which is once in a second; it was without a pause."""
    with OddKafka(2, batch(b'{"a":1}', last_offset_delta=-7)) as broker:
        odd_stream(db, broker)
        wait_for(lambda: "at offset" in last_error(db), what="the trouble to be told")
        wait_for(lambda: broker.fetches >= 8, what="some fetches")
        events = db.value("SELECT count(*) FROM streamext.stream_events")
        before = broker.fetches
        broker.records = GOOD
        wait_for(lambda: state(db) == "running", what="the stream to run")
        assert events <= 1 and before < 2000
        assert db.rows("TABLE v") == [(2, 3)]


@pytest.fixture
def own() -> Iterator[Database]:
    with Postgres() as server, temporary_database(server) as db:
        yield db


def test_an_answer_that_ends_the_client(own: Database) -> None:
    """librdkafka 2.0.2 aborts on this record of format 0, which ends before its header says; later ones may only be unable to read it."""
    db = own
    with OddKafka(1, bytes(47)) as broker:
        with contextlib.suppress(psycopg.OperationalError):
            odd_stream(db, broker)

        def stopped() -> bool:
            try:
                return state(db) in ("failed", "stalled") and last_error(db) != ""
            except psycopg.Error:
                with contextlib.suppress(psycopg.OperationalError):
                    db.connection = db.connect()
                return False

        wait_for(stopped, what="the stream to stop")
        assert db.server.log().count("was terminated by signal") <= 3
