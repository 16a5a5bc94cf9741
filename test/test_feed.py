"""Feeds: endless HTTP answers and websockets, from a server on loopback with the habits of the real ones."""

import gzip
import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from harness.database import Database, temporary_database
from harness.feed import FeedServer
from harness.postgres import Postgres
from harness.streams import continuous, state, worker_pid
from harness.wait import wait_for


@pytest.fixture(scope="module")
def lonely() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


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
    """What the other side still sends, or has in its buffers, nobody knows, a flush neither."""
    db.flush("s")
    wait_for(lambda: db.rows("TABLE v") == [(end - start, sum(range(start, end)))], what="the records, once each")
    db.flush("s")  # now it has all, and writes what it has held


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
    feed(db, server.url(), "idle_timeout '4 s'")  # longer than anything else wakes the worker for, and than we may be held up
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
    pg.start()
    db.connection = pg.connect(db.name)
    second = server.take()
    last = int(second.headers["last-event-id"])
    assert 999 <= last <= 1499
    second.begin("text/event-stream")
    second.send(events(last + 1, 2000))
    assert_counted(db, 0, 2000)
    assert worker_pid(db) != pid


@pytest.mark.parametrize("resume", ["last_event_id", "query"])
def test_the_token_is_in_checkpoints(lonely: Postgres, server: FeedServer, resume: str) -> None:
    """A server that has the checkpoint and not the journal, as one that was promoted, goes on where it has counted."""
    with temporary_database(lonely) as db:
        if resume == "query":
            feed(db, server.url(), "resume 'query', resume_parameter 'since', resume_path 'a'")
        else:
            feed(db, server.url(), "framing 'sse', resume 'last_event_id'")
        count(db)

        def play(start: int, end: int) -> None:
            connection = server.take()
            if start:
                assert (connection.query.get("since") or [connection.headers.get("last-event-id")]) == [str(start - 1)]
            connection.begin()
            connection.send(lines(start, end) if resume == "query" else events(start, end))
            assert_counted(db, start and 0, end)

        play(0, 1000)
        lonely.stop()  # with a checkpoint
        for journal in (lonely.data / "streamext").glob("*/*"):
            shutil.rmtree(journal)
        lonely.start()
        db.connection = lonely.connect(db.name)
        play(1000, 2000)
        assert [kind for kind, _ in event_kinds(db)].count("live") == 1
        db.connection.close()


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


def test_websocket(db: Database, server: FeedServer) -> None:
    """Hello, fragments with a ping in between, binary and long messages, a close that is answered, a new connection."""
    feed(db, server.url("/ws?x=1", "ws"), "hello '{\"subscribe\": \"ü\"}', resume 'query', resume_parameter 'since', resume_path 'a', dedupe_path 'a'",
         "a bigint, id text OPTIONS (metadata 'id')", mapping="bearer_token 'hush'")
    count(db)
    connection = server.take()
    assert connection.path == "/ws?x=1"
    assert connection.headers["authorization"] == "Bearer hush"
    assert connection.headers["host"] == f"127.0.0.1:{server.port}"
    connection.accept()
    assert connection.read_frame() == (1, '{"subscribe": "ü"}'.encode())
    connection.frame('{"a":', final=False)
    connection.frame("are you there", opcode=9)
    connection.frame("", opcode=0, final=False)
    connection.frame("0}", opcode=0)
    assert connection.read_frame() == (10, b"are you there")
    for i in range(1, 300):
        connection.frame(json.dumps({"a": i, "pad": "x" * i}), opcode=1 + i % 2)
    connection.frame(json.dumps({"a": 300, "pad": "x" * 100_000}))
    connection.frame("", opcode=1)
    assert_counted(db, 0, 301)
    assert db.value("SELECT max(id::int) FROM s") == 300
    connection.frame(b"\x03\xe9bye", opcode=8)
    assert connection.read_frame() == (8, b"\x03\xe9")
    second = server.take()
    assert second.query == {"x": ["1"], "since": ["300"]}
    second.accept()
    for i in range(298, 310):
        second.frame(f'{{"a":{i}}}')
    assert_counted(db, 0, 310)
    assert "1001 bye" in last_error(db)


def test_websocket_that_is_none(db: Database, server: FeedServer) -> None:
    """An answer to another key, an answer that is no handshake, a frame that is masked."""
    feed(db, server.url("/ws", "ws"))
    count(db)
    server.take().accept("another key")
    wait_for(lambda: "not one to ours" in last_error(db), what="the error")
    connection = server.take()
    connection.accept()
    connection.raw(b"\x81\x81\x00\x00\x00\x00x")
    wait_for(lambda: "is masked" in last_error(db), what="the error")
    server.take().answer("429 Too Many Requests", "Retry-After: 0\r\n", "not now")
    connection = server.take()
    assert "429: not now" in last_error(db)
    connection.accept()
    connection.frame('{"a":1}')
    assert_counted(db, 1, 2)


def test_array(db: Database, server: FeedServer) -> None:
    feed(db, server.url(), "framing 'array'")
    count(db)
    connection = server.take()
    connection.begin("application/json")
    connection.send('[\n{"a":0,"b":"]}"}\n,{"a":')
    assert_counted(db, 0, 1)
    connection.send("1}")
    assert_counted(db, 0, 2)
    connection.send("," + ",".join(f'{{"a":{i}}}' for i in range(2, 5000)) + "]")
    assert_counted(db, 0, 5000)
    connection.send("what")
    wait_for(lambda: "not a JSON array" in last_error(db), what="the error")
    second = server.take()
    second.begin("application/json")
    second.send('[{"a":5000},')
    assert_counted(db, 0, 5001)


def test_profile_x(db: Database, server: FeedServer) -> None:
    """Keep-alives, errors beside data, an operational disconnect in the stream, repeats of a backfill."""
    feed(db, server.url(), "profile 'x'", "a bigint OPTIONS (path 'data.a'), id text OPTIONS (metadata 'id')")
    count(db)

    def post(i: int, more: str = "") -> str:
        return f'{{"data":{{"id":"{1000 + i}","a":{i}}}{more}}}\r\n'

    connection = server.take()
    connection.begin()
    connection.send("\r\n" + "".join(map(post, range(50))) + "\r\n" + post(50, ',"errors":[{"title":"Not Found Error"}]'))
    assert_counted(db, 0, 51)
    assert db.value("SELECT min(id) FROM s") == "1000"
    connection.send('{"errors":[{"title":"operational-disconnect","disconnect_type":"OperationalDisconnect"}]}\r\n')
    second = server.take()  # the first one is left open, and silent
    second.begin()
    second.send("".join(map(post, range(40, 60))))
    assert_counted(db, 0, 60)
    assert "operational-disconnect" in last_error(db)
    wait_for(lambda: "refused" in dict(event_kinds(db)), what="the event")
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 0


def test_profile_mastodon(db: Database, server: FeedServer) -> None:
    feed(db, server.url(), "profile 'mastodon'", "a bigint, event text OPTIONS (metadata 'event')")
    count(db)
    for start in (0, 10):
        connection = server.take()
        connection.begin("text/event-stream")
        connection.send(":thump\n\n")
        connection.send("event: delete\ndata: 107\n\n" + events(start, start + 10, "update"))
        wait_for(lambda: db.rows("SELECT n FROM v") == [(start + 10,)], what="records")
        connection.finish()
    server.take()
    assert db.value("SELECT count(*) FROM streamext.dead_letters") == 0
    wait_for(lambda: [kind for kind, _ in event_kinds(db)].count("live") == 2, what="two events")


def test_profile_bluesky(db: Database, server: FeedServer) -> None:
    """Goes on 5 s before the last record; what comes again is left out."""
    feed(db, server.url("/subscribe", "ws"), "profile 'bluesky'")
    count(db)
    connection = server.take()
    assert connection.query == {}
    connection.accept()
    begin = 1_700_000_000_000_000
    records = [f'{{"a":{i},"kind":"commit","time_us":{begin + i * 100_000}}}' for i in range(300)]
    for record in records[:200]:
        connection.frame(record)
    connection.frame("", opcode=9)
    assert_counted(db, 0, 200)
    connection.close()
    second = server.take()
    cursor = int(second.query["cursor"][0])
    assert cursor == begin + 199 * 100_000 - 5_000_000
    second.accept()
    for record in records[(cursor - begin) // 100_000 :]:
        second.frame(record)
    assert_counted(db, 0, 300)


def test_profile_wikimedia(db: Database, server: FeedServer) -> None:
    feed(db, server.url(), "profile 'wikimedia'", "a bigint, id text OPTIONS (metadata 'id')")
    count(db)

    def change(i: int, domain: str = "en.wikipedia.org") -> str:
        return f'event: message\nid: [{{"topic":"t","offset":{i}}}]\ndata: {{"a":{i},"meta":{{"domain":"{domain}"}}}}\n\n'

    connection = server.take()
    connection.begin("text/event-stream", packed=True)
    connection.send(":ok\n\n" + change(0) + change(99, "canary") + change(1))
    assert_counted(db, 0, 2)
    connection.send(change(100, "canary"))
    db.flush("s")
    connection.finish()
    second = server.take()
    assert second.headers["last-event-id"] == '[{"topic":"t","offset":100}]'
    second.begin("text/event-stream")
    second.send(change(2))
    assert_counted(db, 0, 3)


def test_a_pause_holds_the_server_back(db: Database, server: FeedServer) -> None:
    """A paused stream takes nothing in, and nothing is lost."""
    feed(db, server.url())
    count(db)
    connection = server.take()
    connection.begin()
    connection.send(lines(0, 10))
    assert_counted(db, 0, 10)
    db.execute("SELECT streamext.pause('s')")
    connection.send(lines(10, 1000))
    db.execute("SELECT streamext.resume('s')")
    wait_for(lambda: db.rows("TABLE v") == [(1000, sum(range(1000)))], what="records")


def test_too_long_a_record_is_a_dead_letter(db: Database, server: FeedServer) -> None:
    feed(db, server.url())
    count(db)
    connection = server.take()
    connection.begin()
    piece = "x" * (1 << 20)
    connection.send('{"a":1,"b":"')
    for _ in range(20):
        connection.send(piece)
    connection.send('"}\n' + lines(2, 4))
    assert_counted(db, 2, 4)
    assert "larger than 16777216 bytes" in db.value("SELECT reason FROM streamext.dead_letters")


def test_packed_bytes_do_not_come_all_at_once(db: Database, server: FeedServer) -> None:
    """A read's worth of gzip may hold a thousand times as much: 160 MB of records came to 2.4 GB of the worker."""
    feed(db, server.url())
    count(db)
    connection = server.take()
    connection.begin(packed=True, chunked=False)
    for _ in range(8):
        connection.send(b'{"a":1}\n' * (1 << 18))
    connection.finish()
    wait_for(lambda: db.value("SELECT n FROM v") == 8 << 18, what="the records")
    peak = next(line for line in Path(f"/proc/{worker_pid(db)}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 150_000, peak


def test_packed_bytes_that_are_not_whole_end_no_record(db: Database, server: FeedServer) -> None:
    """The answer ends in good order, its gzip does not: of 12345 the view counted 12."""
    feed(db, server.url(), table="format 'csv'")
    count(db)
    connection = server.take()
    connection.begin(packed=True)
    connection.send("1\n2\n12")
    connection.finish()
    server.take().begin()
    db.flush("s")
    assert db.rows("TABLE v") == [(2, 3)]
    assert last_error(db) == "the server ended the feed within what it has packed"


def test_an_endless_record_is_told(db: Database, server: FeedServer) -> None:
    """Nothing told of it before it ended."""
    feed(db, server.url())
    count(db)
    connection = server.take()
    connection.begin(chunked=False)
    for _ in range(20):
        connection.send("x" * (1 << 20))
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.dead_letters") == 1, what="a dead letter")
    connection.send("\n" + lines(2, 4))
    assert_counted(db, 2, 4)
    assert "larger than 16777216 bytes" in db.value("SELECT reason FROM streamext.dead_letters")


GZIP = gzip.compress(lines(0, 1000).encode())
ODD_ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n" + GZIP, "in another way than by gzip"),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(GZIP), "in another way than by gzip"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n" + GZIP, "in another way than by gzip"),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + GZIP[:30] + b"xxxxxxxx" + GZIP[30:], "that the server has packed are damaged"),
    (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000, "head of the server's answer is longer than 65536 bytes"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "head of the server's answer is longer than 65536 bytes"),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a":1}\n\r\n0\r\n' + b"X-A: b\r\n" * 20_000, "head of the server's answer is longer"),
    (b"HTTP/1.1 500 No\r\n\r\n" + b"\x1b[31mr\xff\x7f\x00\n" * 1_000_000, "answers 500:  [31mr?"),
]  # fmt: skip


@pytest.mark.parametrize("answer, error", ODD_ANSWERS)
def test_odd_answers(db: Database, server: FeedServer, answer: bytes, error: str) -> None:
    """Each ends the connection at once, and is told without what a terminal would obey."""
    feed(db, server.url())
    connection = server.take()
    try:
        connection.raw(answer)
    except OSError:
        pass  # reset meanwhile
    wait_for(lambda: error in last_error(db), what="the error")
    assert last_error(db).isprintable()


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that the server's user may read: tmp_path is below a directory that only its owner enters."""
    with tempfile.TemporaryDirectory(prefix="streamext-tls-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_tls(db: Database, directory: Path) -> None:
    """The certificate must be the host's."""
    certificate, key = directory / "certificate", directory / "key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate.chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = FeedServer(context)
    for scheme in ("https", "wss"):
        feed(db, server.url(scheme=scheme), f"ssl_ca_location '{certificate}'")
        count(db)
        connection = server.take()
        if scheme == "https":
            connection.begin()
            connection.send(lines(0, 10))
        else:
            connection.accept()
            for i in range(10):
                connection.frame(json.dumps({"a": i, "pad": "x" * 100_000}))
        assert_counted(db, 0, 10)
        db.execute("DROP SERVER feed_server CASCADE")
    feed(db, server.url(scheme="https"))
    wait_for(lambda: "certificate" in last_error(db), what="the error")
    server.close()


REFUSED = [
    ("url 'ftp://127.0.0.1/'", "with http, https, ws or wss"),
    ("url 'file:///etc/passwd'", "with http, https, ws or wss"),
    ("url 'http://me:secret@127.0.0.1/'", "credentials belong in a user mapping"),
    ("url 'http://127.0.0.1/', profile 'y'", "Valid values are: x, mastodon, bluesky, wikimedia."),
    ("url 'http://127.0.0.1/', framing 'lines'", "Valid values are: ndjson, sse, websocket, array."),
    ("url 'ws://127.0.0.1/', framing 'sse'", 'option "url" needs framing websocket'),
    ("url 'http://127.0.0.1/', hello 'x'", 'option "hello" needs framing websocket'),
    ("url 'http://127.0.0.1/', events 'x'", 'option "events" needs framing sse'),
    ("url 'http://127.0.0.1/', resume 'last_event_id'", 'option "resume" needs framing sse'),
    ("url 'http://127.0.0.1/', resume 'query'", "resume_parameter"),
    ("url 'http://127.0.0.1/', resume 'query', resume_parameter 'x'", "resume_path"),
    ("url 'http://127.0.0.1/', rewind '1 s'", 'option "rewind" needs resume query'),
    ("url 'http://127.0.0.1/', skip_value 'x'", "skip_path"),
    ("url 'http://127.0.0.1/', dedupe_path 'a[*]'", "A path is like"),
    ("url 'http://127.0.0.1/', nothing 'x'", "url, profile, framing"),
]


@pytest.mark.parametrize("options, message", REFUSED)
def test_refused(db: Database, options: str, message: str) -> None:
    assert message in db.refusal(f"CREATE SERVER x FOREIGN DATA WRAPPER feed OPTIONS ({options})")


def test_refused_headers_and_who_may_make_servers(db: Database) -> None:
    db.execute("CREATE SERVER x FOREIGN DATA WRAPPER feed OPTIONS (url 'http://127.0.0.1:1/')")
    for option in ('"header Host" \'x\'', '"header a b" \'x\'', "header 'x'", "bearer_token 'x', bearer_token_file 'y'"):
        assert db.refusal(f"CREATE USER MAPPING FOR CURRENT_USER SERVER x OPTIONS ({option})").startswith("HV00D"), option
    assert "control characters" in db.refusal("CREATE USER MAPPING FOR CURRENT_USER SERVER x OPTIONS (\"header A\" E'x\\ny')")
    db.execute("CREATE ROLE feed_nobody LOGIN")
    try:
        with db.connect("feed_nobody") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE SERVER y FOREIGN DATA WRAPPER feed OPTIONS (url 'http://127.0.0.1:1/')")
    finally:
        db.execute("DROP ROLE feed_nobody")
