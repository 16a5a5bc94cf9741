"""The receiver flume: a batch that is acknowledged is in its streams, whatever happens; and events in Flume's envelope from Kafka."""

import json
import struct

import pytest

from harness.database import Database
from harness.flume import AvroSender, Event, Tier, avro_event
from harness.streams import continuous
from harness.wait import wait_for


def events(first: int, last: int, **headers: str) -> list[Event]:
    return [(headers, json.dumps({"n": n}).encode()) for n in range(first, last + 1)]


@pytest.fixture(params=["avro", "thrift"])
def tier(db: Database, request: pytest.FixtureRequest) -> Tier:
    """A stream s of all events, and the view v (c, total) over it."""
    server = Tier(db, request.param)
    server.stream()
    continuous(db, "v", "SELECT count(*) AS c, sum(n)::bigint AS total FROM s")
    return server


def counted(tier: Tier) -> tuple[int, int | None]:
    tier.db.flush("s")
    return tier.db.rows("SELECT c, total FROM v")[0]


def test_batches_are_counted(tier: Tier) -> None:
    with tier.sender() as sender:
        assert sender.batch(events(1, 3)) is None
        assert sender.batch(events(4, 100)) is None
        assert sender.batch([]) is None
        assert sender.batch(events(4, 100)) is None  # on one connection it is another batch
    assert counted(tier) == (197, 5050 + 5050 - 6)
    assert tier.gateway("requests") == "4"
