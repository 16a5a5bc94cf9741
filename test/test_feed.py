"""Feeds: endless HTTP answers and websockets, from a server on loopback with the habits of the real ones."""

from collections.abc import Iterator

import pytest

from harness.database import Database
from harness.feed import FeedServer
from harness.postgres import Postgres
from harness.streams import continuous, is_alive, state, worker_pid
from harness.wait import wait_for


@pytest.fixture
def server() -> Iterator[FeedServer]:
    server = FeedServer()
    yield server
    server.close()


def feed(db: Database, url: str, options: str = "", columns: str = "a bigint", table: str = "format 'json'", mapping: str = "") -> None:
    """The stream s of a server with these options, and the view v (n, total) over its column a."""
    db.execute(f"CREATE SERVER feed_server FOREIGN DATA WRAPPER feed OPTIONS (url '{url}'{', ' + options if options else ''})")
    if mapping:
        db.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER feed_server OPTIONS ({mapping})")
    db.execute(f"CREATE FOREIGN TABLE s ({columns}) SERVER feed_server OPTIONS ({table})")


def count(db: Database) -> None:
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")


def lines(start: int, end: int) -> str:
    return "".join(f'{{"a":{i}}}\n' for i in range(start, end))


def events(start: int, end: int, name: str = "") -> str:
    event = f"event: {name}\n" if name else ""
    return "".join(f'{event}id: {i}\ndata: {{"a":{i}}}\n\n' for i in range(start, end))


def assert_counted(db: Database, start: int, end: int) -> None:
    db.flush("s")
    assert db.rows("TABLE v") == [(end - start, sum(range(start, end)))]


def last_error(db: Database) -> str:
    return db.value("SELECT last_error FROM streamext.streams WHERE stream = 's'::regclass") or ""


def event_kinds(db: Database) -> list[tuple[str, str]]:
    return db.rows("SELECT kind, detail FROM streamext.stream_events WHERE stream = 's'::regclass ORDER BY id")


def test_lines(db: Database, server: FeedServer) -> None:
    """CRLF, blank lines as keep-alives, records cut anywhere, and one that is no JSON."""
    feed(db, server.url())
    count(db)
    connection = server.take()
    assert connection.headers["accept"].startswith("application/x-ndjson")
    connection.begin()
    connection.send(lines(0, 1000).replace("\n", "\r\n") + "\r\n\n  \r\n")
    for character in lines(1000, 1010):
        connection.send(character)
    assert_counted(db, 0, 1010)
    connection.send("not json\n" + lines(1010, 1011) + '{"a":')
    assert_counted(db, 0, 1011)
    assert state(db) == "running"
    assert db.value("SELECT count(*) FROM streamext.dead_letters WHERE payload = 'not json'") == 1
    wait_for(lambda: event_kinds(db), what="event")
    assert event_kinds(db)[0][0] == "live" and "may be missing" in event_kinds(db)[0][1]


def test_half_a_line_then_silence(db: Database, server: FeedServer) -> None:
    feed(db, server.url(), "idle_timeout '500 ms'")
    count(db)
    connection = server.take()
    connection.begin()
    connection.send(lines(0, 5) + '{"a":5')
    second = server.take()
    second.begin()
    second.send(lines(5, 9))
    wait_for(lambda: db.rows("TABLE v") == [(9, 36)], what="records")
    assert "has been silent" in last_error(db)


def test_gzip_and_headers(db: Database, server: FeedServer) -> None:
    feed(db, server.url("/x?a=b"), mapping="bearer_token 'hush', \"header X-Api-Key\" 'k y', \"header User-Agent\" 'me'")
    count(db)
    connection = server.take()
    assert connection.path == "/x?a=b"
    assert connection.headers["authorization"] == "Bearer hush"
    assert (connection.headers["x-api-key"], connection.headers["user-agent"]) == ("k y", "me")
    connection.begin(packed=True)
    connection.send(lines(0, 3))
    assert_counted(db, 0, 3)
    connection.send(lines(3, 5000))
    assert_counted(db, 0, 5000)
    assert "hush" not in str(db.rows("SELECT * FROM streamext.streams"))


def test_server_sent_events(db: Database, server: FeedServer) -> None:
    feed(
        db, server.url(), "framing 'sse', resume 'last_event_id'",
        "a bigint, id text OPTIONS (metadata 'id'), event text OPTIONS (metadata 'event'), at timestamptz OPTIONS (metadata 'timestamp')",
    )  # fmt: skip
    continuous(db, "w", "SELECT a, id, event, count(*) AS n, max(at) AS at FROM s GROUP BY a, id, event")
    count(db)
    connection = server.take()
    assert "last-event-id" not in connection.headers
    connection.begin("text/event-stream")
    connection.send(':)\n\nevent: update\r\nid: 1\r\ndata: {"a":\r\ndata:1}\r\n\r\n:thump\ndata: {"a":2}\n\nid:[{"x":3}]\rdata:{"a":3}\r\r')
    db.flush("s")
    assert db.rows("SELECT a, id, event, n FROM w ORDER BY a") == [(1, "1", "update", 1), (2, "1", None, 1), (3, '[{"x":3}]', None, 1)]
    assert db.value("SELECT bool_and(at BETWEEN now() - interval '1 minute' AND now()) FROM w")
    connection.send('id: 4\ndata: {"a":4}\n')  # has not ended
    connection.close()
    second = server.take()
    assert second.headers["last-event-id"] == '[{"x":3}]'
    second.begin("text/event-stream")
    second.send('data: {"a":4}\n\n')
    db.flush("s")
    assert db.rows("SELECT a, id FROM w WHERE a = 4") == [(4, '[{"x":3}]')]


def test_killed_server_goes_on_at_the_token(pg: Postgres, db: Database, server: FeedServer) -> None:
    feed(db, server.url(), "framing 'sse', resume 'last_event_id'", table="format 'json', journal 'os'")
    count(db)
    connection = server.take()
    connection.begin("text/event-stream")
    connection.send(events(0, 1000))
    assert_counted(db, 0, 1000)
    connection.send(events(1000, 1500))
    pid = worker_pid(db)
    pg.kill9()
    wait_for(lambda: not is_alive(pid), what="end of the worker")
    pg.start()
    db.connection = pg.connect(db.name)
    second = server.take()
    last = int(second.headers["last-event-id"])
    assert 999 <= last <= 1499
    second.begin("text/event-stream")
    second.send(events(last + 1, 2000))
    assert_counted(db, 0, 2000)
    assert worker_pid(db) != pid


def test_rate_limit_and_errors(db: Database, server: FeedServer) -> None:
    """A storm of 429 is waited out as it asks, and told."""
    feed(db, server.url())
    count(db)
    server.take().answer("429 Too Many Requests", "Retry-After: 1\r\n", "slow\ndown")
    wait_for(lambda: "429" in last_error(db), what="the error")
    assert "slow down" in last_error(db)
    assert state(db) == "stalled"
    server.take().answer("503 Service Unavailable", "Retry-After: 0\r\n")
    connection = server.take()
    connection.begin()
    connection.send(lines(0, 10))
    assert_counted(db, 0, 10)
    assert state(db) == "running"


def test_redirects(db: Database, server: FeedServer) -> None:
    """To another path of the same host; to no other host and port."""
    other = FeedServer()
    feed(db, server.url("/one"))
    count(db)
    server.take().answer("302 Found", "Location: /two?x=1\r\n")
    connection = server.take()
    assert connection.path == "/two?x=1"
    connection.answer("307 Temporary Redirect", f"Location: {other.url('/three')}\r\n")
    wait_for(lambda: "redirects to another host" in last_error(db), what="the error")
    connection = server.take()
    assert connection.path == "/one"
    connection.begin()
    connection.send(lines(0, 10))
    assert_counted(db, 0, 10)
    assert other.connections == []
    other.close()
