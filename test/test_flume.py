"""The receiver flume: a batch that is acknowledged is in its streams, whatever happens; and events in Flume's envelope from Kafka."""

import contextlib
import json
import resource
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from harness.database import Database, temporary_database
from harness.flume import Agent, AvroSender, Event, Sender, Tier, avro_batch, avro_event, avro_long, thrift_bytes
from harness.kafka import Kafka
from harness.meanwhile import meanwhile
from harness.postgres import Postgres
from harness.server import free_port
from harness.streams import continuous
from harness.wait import wait_for

COUNT = "SELECT count(*) AS c, sum(n)::bigint AS total FROM s"


def events(first: int, last: int, **headers: str) -> list[Event]:
    return [(headers, json.dumps({"n": n}).encode()) for n in range(first, last + 1)]


@pytest.fixture(params=["avro", "thrift"])
def tier(db: Database, request: pytest.FixtureRequest) -> Tier:
    """A stream s of all events, and the view v (c, total) over it."""
    server = Tier(db, request.param)
    server.stream()
    continuous(db, "v", COUNT)
    return server


def counted(tier: Tier) -> tuple[int, int | None]:
    tier.db.flush("s")
    return tier.db.rows("SELECT c, total FROM v")[0]


@pytest.fixture
def lonely() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


# ---- batches ----


def test_batches_are_counted(tier: Tier) -> None:
    with tier.sender() as sender:
        assert sender.batch(events(1, 3)) is None
        assert sender.batch(events(4, 100)) is None
        assert sender.batch([]) is None
        assert sender.batch(events(4, 100)) is None  # on one connection it is another batch
    assert counted(tier) == (197, 5050 + 5050 - 6)


def test_calls_that_do_not_wait_and_calls_in_pieces(tier: Tier) -> None:
    with tier.sender() as sender:
        assert sender.batch(events(0, 0)) is None
        calls = [sender.call(events(n, n)) for n in range(1, 31)]
        sender.serial -= len(calls)
        for byte in calls[0]:
            sender.socket.sendall(bytes([byte]))
        sender.socket.sendall(b"".join(calls[1:]))
        for _ in calls:
            sender.serial += 1
            assert sender.answer() is None
        large = sender.call([({}, json.dumps({"n": 5, "t": "x" * 3_000_000}).encode())])
        sender.socket.sendall(large)
        sender.socket.shutdown(socket.SHUT_WR)  # it says nothing more and waits for the answer
        assert sender.answer() is None
    assert counted(tier) == (32, 470)


def test_headers(tier: Tier) -> None:
    db = tier.db
    db.execute("DROP VIEW v; DROP FOREIGN TABLE s")
    tier.stream(
        """n int, site text OPTIONS (metadata 'header site'), weight float8 OPTIONS (metadata 'header Weight'),
        h jsonb OPTIONS (metadata 'headers'), at timestamptz OPTIONS (metadata 'timestamp')""",
        "event_time 'at'",
    )
    with tier.sender() as sender:
        batch: list[Event] = [
            ({"site": "nörd", "Weight": "1.5", "timestamp": "1700000000123", "": ""}, b'{"n": 1}'),
            ({"weight": "2", "timestamp": "1700000000124"}, b'{"n": 2}'),
            ({"timestamp": "soon"}, b'{"n": 3}'),
            ({"Weight": "much"}, b'{"n": 4}'),
            ({}, b"no json"),
            ({"site": "a\0b"}, b'{"n": 5}'),
        ]
        assert sender.batch(batch) is None
    db.flush("s")
    rows = {n: rest for n, *rest in db.rows("SELECT n, site, weight, h, at FROM s ORDER BY n")}
    moment = datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)
    assert rows[1] == ["nörd", 1.5, {"site": "nörd", "Weight": "1.5", "timestamp": "1700000000123", "": ""}, moment]
    assert rows[2][:2] == [None, None] and rows[2][3] == moment.replace(microsecond=124_000)
    now = datetime.now(UTC)
    assert set(rows) == {1, 2, 3} and abs((rows[3][3] - now).total_seconds()) < 3600
    letters = db.rows("SELECT sqlstate, convert_from(payload, 'UTF8'), headers FROM streamext.dead_letters ORDER BY position")
    assert [letter[:2] for letter in letters] == [("22P02", '{"n": 4}'), ("22P02", "no json"), ("22021", '{"n": 5}')]
    assert letters[0][2] == {"Weight": "much"}
    db.execute("ALTER FOREIGN TABLE s ALTER weight TYPE text")
    db.execute("SELECT streamext.retry_dead_letters('s')")
    wait_for(lambda: len(db.rows("SELECT 1 FROM streamext.dead_letters")) == 2)


BODIES = {
    "csv": ("n int, t text", b'1,"a,b"', (1, "a,b")),
    "text": ("n numeric", b"1.5", (1.5,)),
    "raw": ("b bytea", b"\x00\xff", (b"\x00\xff",)),
    "json": ("n int OPTIONS (path 'a.b')", b'{"a": {"b": 1}}', (1,)),
}


def test_bodies(db: Database) -> None:
    tier = Tier(db)
    for format, (columns, _, _) in BODIES.items():
        tier.stream(columns, f"topic '{format}', body_format '{format}'", f"s_{format}")
    with tier.sender() as sender:
        wait_for(lambda: sender.batch([({"topic": format}, body) for format, (_, body, _) in BODIES.items()]) is None)
    for format, (_, _, expected) in BODIES.items():
        db.flush(f"s_{format}")
        assert db.rows(f"SELECT * FROM s_{format}") == [expected]
    assert sorted(format for (format,) in db.rows("SELECT format FROM streamext.streams")) == sorted(BODIES)


# ---- topics ----


def test_topics(tier: Tier) -> None:
    db = tier.db
    tier.stream("n int", "topic 'a'", "a")
    continuous(db, "va", "SELECT count(*) AS c, sum(n)::bigint AS total FROM a")
    with tier.sender() as sender:
        mixed = events(1, 2, topic="a") + events(10, 20, topic="other") + events(3, 3, topic="a") + events(30, 30)
        wait_for(lambda: sender.batch(events(0, 0, topic="a")) is None and db.flush("a") is None and db.value("SELECT c FROM va") > 0)
        before = db.value("SELECT c FROM va")
        assert sender.batch(mixed) is None
        db.flush("a")
        assert db.rows("SELECT c, total FROM va") == [(before + 3, 6)]
        assert counted(tier)[0] >= 12
        db.execute("DROP VIEW v; DROP FOREIGN TABLE s")
        wait_for(lambda: "no stream takes" in (sender.batch(events(1, 1, topic="no\none")) or ""))
        for batch in (mixed, events(1, 1)):
            error = sender.batch(batch)
            assert error and "no stream takes events" in error
        assert "header topic" in (tier.gateway("last_error") or "")
        db.flush("a")
        assert db.rows("SELECT c FROM va") == [(before + 3,)]  # none of the batch
        tier.stream("n int", "topic 'other'", "other")
        tier.stream("n int", "", "rest")
        wait_for(lambda: sender.batch(mixed) is None)
        db.flush("a")
        assert db.rows("SELECT c FROM va") == [(before + 6,)]


def test_definitions(db: Database) -> None:
    Tier(db)
    table = "CREATE FOREIGN TABLE {} (n int {}) SERVER tier {}"
    db.execute(table.format("one", "", "OPTIONS (topic 'a')"))
    db.execute(table.format("all_others", "", ""))
    for options, state in (
        ("OPTIONS (topic 'a')", "42710"),
        ("OPTIONS (body_format 'json')", "42710"),
        ("OPTIONS (topic 'b', format 'json')", "HV00D"),
        ("OPTIONS (topic 'b', body_format 'flume')", "HV024"),
        ("OPTIONS (topic 'b', body_format 'xml')", "HV024"),
        ("OPTIONS (topic 'b', delimiter ';')", "HV00D"),
        ("OPTIONS (topic 'b', body_format 'csv', fields 'nocase')", "HV00D"),
        ("OPTIONS (topic 'b', workers '2')", "HV00D"),
        ("OPTIONS (topic '')", "HV024"),
        (f"OPTIONS (topic '{'x' * 256}')", "HV024"),
    ):
        assert db.refusal(table.format("two", "", options)).startswith(state), options
    assert db.refusal(table.format("two", "OPTIONS (metadata 'topic')", "OPTIONS (topic 'b')")).startswith("HV024")
    db.execute(table.format("two", "OPTIONS (metadata 'header topic')", "OPTIONS (topic 'b', body_format 'csv', delimiter ';')"))
    assert db.refusal("ALTER FOREIGN TABLE two OPTIONS (SET topic 'a')").startswith("42710")
    assert db.refusal("ALTER FOREIGN TABLE two OPTIONS (DROP topic)").startswith("42710")
    assert db.refusal("INSERT INTO one VALUES (1)").startswith("0A000")
    server = "CREATE SERVER other FOREIGN DATA WRAPPER flume OPTIONS ({})"
    for options, state in (("protocol 'avro'", "HV002"), ("listen 'x'", "HV024"), ("listen '127.0.0.1:1', protocol 'http'", "HV024")):
        assert db.refusal(server.format(options)).startswith(state), options
    dump = db.server.run("pg_dump", "-d", db.name)
    assert "metadata 'header topic'" in dump and "body_format 'csv'" in dump


def test_the_server_is_altered(tier: Tier) -> None:
    with tier.sender() as sender:
        assert sender.batch(events(1, 1)) is None
        tier.protocol = "thrift" if tier.protocol == "avro" else "avro"
        tier.db.execute(f"ALTER SERVER tier OPTIONS (SET protocol '{tier.protocol}')")
        assert ends(sender.socket)
    wait_for(lambda: tier.gateway("connections") == "0")
    with tier.sender() as sender:
        assert sender.batch(events(2, 2)) is None
    assert counted(tier) == (2, 3)
    tier.db.execute("DROP SERVER tier CASCADE")
    wait_for(lambda: tier.db.rows("SELECT 1 FROM streamext.gateways") == [])


# ---- answers that are lost ----


def lose_answer(sender: Sender, batch: Sequence[Event], tier: Tier, count: int) -> None:
    """Sends and ends the connection when the events are in the views."""
    sender.send(batch)
    wait_for(lambda: counted(tier)[0] >= count)
    sender.close()


def test_a_batch_whose_answer_was_lost_counts_once(tier: Tier) -> None:
    first, second, third = tier.sender(), tier.sender(), tier.sender()
    lose_answer(first, events(1, 10), tier, 10)
    assert second.batch(events(1, 10)) is None  # again
    assert counted(tier) == (10, 55)
    assert second.batch(events(1, 10)) is None  # another one with the same events
    assert counted(tier) == (20, 110)
    lose_answer(second, events(11, 11), tier, 21)
    assert third.batch(events(12, 12)) is None  # something else came first
    assert third.batch(events(11, 11)) is None
    assert counted(tier) == (23, 144)
    third.close()
    with tier.sender() as fourth:
        lose_answer(fourth, events(11, 11), tier, 23)  # known from the third; its answer is lost too
    with tier.sender() as fifth:
        assert fifth.batch(events(11, 11)) is None
    assert counted(tier) == (23, 144)


def test_a_batch_whose_answer_a_crash_took_counts_once(lonely: Postgres) -> None:
    """In two streams, of which the gateway has to know again; the connection's batch before it is another one."""
    with temporary_database(lonely) as db:
        tier = Tier(db)
        tier.stream()
        tier.stream("n int", "topic 'a'", "a")
        continuous(db, "v", COUNT)
        continuous(db, "va", "SELECT count(*) AS c FROM a")
        mixed = events(1, 3) + events(4, 4, topic="a")
        sender = tier.sender()
        wait_for(lambda: sender.batch(events(9, 9, topic="a")) is None and db.flush("a") is None and db.value("SELECT c FROM va") > 0)
        before = counted(tier)[0], db.value("SELECT c FROM va")
        assert sender.batch(mixed) is None
        assert counted(tier)[0] == before[0] + 3
        lonely.kill_backend(db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext gateway'"))
        db.connection = lonely.connect(db.name)
        tier.wait("listening")
        with tier.sender() as second:
            wait_for(lambda: second.batch(mixed) is None)  # refused while a stream is not ready
            assert second.batch(events(9, 9, topic="a")) is None
        db.flush("s", "a")
        assert (counted(tier)[0], db.value("SELECT c FROM va")) == (before[0] + 3, before[1] + 2)
        db.connection.close()


def test_two_senders_with_the_same_events(tier: Tier) -> None:
    """Both are there: none is the other's successor."""
    with tier.sender() as one, tier.sender() as other:
        assert one.batch(events(1, 4)) is None
        assert other.batch(events(1, 4)) is None
        assert counted(tier) == (8, 20)


def test_a_stream_that_does_not_take_its_part(db: Database) -> None:
    tier = Tier(db)
    tier.stream("n int, t text")
    tier.stream("n int, t text", "topic 'full'", "full_one")
    continuous(db, "v", COUNT)
    continuous(db, "w", "SELECT count(*) AS c FROM full_one WHERE n > 0")
    db.configure("streamext.journal_limit", "64")
    db.execute("SELECT streamext.pause('full_one')")
    filler: list[Event] = [({"topic": "full"}, json.dumps({"n": 0, "t": "x" * 8_000_000}).encode())]
    mixed = events(1, 2) + events(3, 3, topic="full")
    with tier.sender() as sender:
        wait_for(lambda: sender.batch(filler) is not None)
        assert "full" in (sender.batch(mixed) or "")
        assert "full" in (sender.batch(mixed) or "")
    with tier.sender() as sender:
        assert "full" in (sender.batch(mixed) or "")
        assert counted(tier) == (2, 3)
        db.execute("SELECT streamext.resume('full_one')")
        wait_for(lambda: sender.batch(mixed) is None)
    db.flush("full_one")
    assert counted(tier) == (2, 3) and db.rows("SELECT c FROM w") == [(1,)]
    db.execute("ALTER SYSTEM RESET streamext.journal_limit")
    db.server.reload()


# ---- hostile senders ----


def ends(connection: socket.socket) -> bool:
    """Whether the server ends it, whatever it says before."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


NO_CALLS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    b"\xff" * 64,
    struct.pack("!III", 1, 1, 65 << 20),
    struct.pack("!III", 1, 1, 3) + b"\0\0\0",
    struct.pack("!I", 5) + b"\x82\x21\x01\x00\x00",
    struct.pack("!II", 1, 0),
]


def test_what_is_no_call_ends_its_connection(tier: Tier) -> None:
    for data in NO_CALLS:
        with socket.create_connection(("127.0.0.1", tier.port), timeout=30) as connection:
            connection.sendall(data)
            assert ends(connection), data
    assert tier.gateway("last_error") != "None"
    with tier.sender() as sender:
        assert sender.batch(events(1, 1)) is None
    assert counted(tier) == (1, 1)


def test_silent_and_half_calls_hold_up_nobody(tier: Tier) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with tier.sender() as sender:
        half = sender.call(events(1, 50))[:-1]
    idle = [socket.create_connection(("127.0.0.1", tier.port), timeout=30) for _ in range(1100)]
    try:
        for connection in idle[-90:]:
            connection.sendall(half)
        with tier.sender() as sender:
            assert sender.batch(events(1, 1)) is None
            assert int(tier.gateway("connections") or 0) <= 1000
            idle[-1].sendall(sender.call(events(1, 50))[-1:])
        wait_for(lambda: counted(tier) == (51, 1276))
    finally:
        for connection in idle:
            connection.close()


def half_of(sender: Sender, megabytes: int, port: int) -> socket.socket:
    """A connection with a call of so many MB that is not whole."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(sender.call([({}, b"x" * (megabytes << 20))])[:-1])
    return connection


def test_a_large_call_that_comes_is_not_given_up_for_smaller_ones_that_do_not(tier: Tier) -> None:
    """256 MB of calls that never became whole: the largest one was given up, which was the one that came, each time it came again."""
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(tier.sender())
        assert sender.batch(events(1, 1)) is None
        silent = [stack.enter_context(half_of(sender, 9, tier.port)) for _ in range(15)]
        large = stack.enter_context(tier.sender())
        assert large.batch([({}, json.dumps({"n": 2, "t": "x" * 1_000_000}).encode())] * 36) is None
        assert ends(silent[0])
        assert counted(tier) == (37, 73)
        assert "silent for longest" in (tier.gateway("last_error") or "")


def test_senders_that_say_nothing_are_not_ended_for_what_they_said(tier: Tier) -> None:
    """The buffers of calls that had been answered were taken for calls that are not whole, from about 256 senders on."""
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(tier.sender()) for _ in range(280)]
        for _ in range(2):
            for sender in senders:
                assert sender.batch([({}, b'{"n": 1, "t": "%s"}' % (b"x" * 600_000))]) is None
        assert tier.gateway("last_error") == "None"
    assert counted(tier) == (560, 560)


def test_headers_of_an_event_have_their_limit_in_all(tier: Tier) -> None:
    """The last header might have any size: 60 MB of one took a gigabyte of the stream's worker."""
    for header in ({"a": "x" * (1 << 20)}, {"x" * (1 << 20): "a"}, {"a": "a", "b": "x" * (1 << 20)}):
        with tier.sender() as sender:
            assert "headers are too large" in (sender.batch([(header, b'{"n": 1}')]) or "")
    with tier.sender() as sender:
        assert sender.batch([({"a": "x" * 1_000_000}, b'{"n": 2}')]) is None
    assert counted(tier) == (1, 2)


def test_a_name_that_is_not_known_is_not_repeated_whole(db: Database) -> None:
    """Answers of 60 MB that their senders did not take left no room for anybody's calls."""
    tier = Tier(db, "thrift")
    tier.stream()
    message = b"\x82\x21\x01" + thrift_bytes(b"n" * 1_000_000)
    with socket.create_connection(("127.0.0.1", tier.port), timeout=30) as connection:
        connection.sendall(struct.pack("!I", len(message)) + message)
        (size,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
        assert size < 200 and b"none of append" in connection.recv(size, socket.MSG_WAITALL)
        assert ends(connection)


def test_many_small_calls_hold_up_nobody(db: Database) -> None:
    """A million calls of a connection, answered as they come: they were all answered before anybody else had a turn."""
    tier = Tier(db)
    tier.stream()
    with tier.sender() as flood, tier.sender() as sender:
        assert flood.batch(events(1, 1)) is None
        nothing = struct.pack("!III", 7, 1, 2) + bytes(2)  # no metadata, no name: to be answered
        talk = [threading.Thread(target=shout, args=(flood.socket, nothing * 1_000_000)), threading.Thread(target=hear, args=(flood.socket,))]
        for thread in talk:
            thread.start()
        assert all(sender.batch(events(i, i)) is None for i in range(2, 12))
        flood.socket.shutdown(socket.SHUT_RDWR)
        for thread in talk:
            thread.join()


def shout(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)


def hear(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


def test_avro_in_every_way(db: Database) -> None:
    """append, blocks with their sizes, a handshake alone, many small buffers."""
    tier = Tier(db)
    tier.stream()
    continuous(db, "v", COUNT)
    event = avro_event(({"a": "b"}, b'{"n": 1}'))
    with AvroSender(tier.port) as sender:
        sender.socket.sendall(sender.frame(sender.request("", b"")))
        assert sender.answer() is None
        for name, arguments, pieces in (
            ("append", event, 1),
            ("appendBatch", avro_long(-1) + avro_long(len(event)) + event + avro_long(1) + event + b"\0", 20),
            ("appendBatch", avro_batch([({}, b'{"n": 1}')] * 200), 400),
        ):
            sender.socket.sendall(sender.frame(sender.request(name, arguments), pieces))
            assert sender.answer() is None
        sender.socket.sendall(sender.frame(sender.request("remove", event)))
        assert "append" in (sender.answer() or "")
        assert ends(sender.socket)
    assert counted(tier) == (203, 203)


# ---- crashes ----


def send_until(tier: Tier, stop: threading.Event, acknowledged: list[int]) -> None:
    """Each number as a batch of three, again on a new connection until it is acknowledged, as a sink does."""
    sender: Sender | None = None
    n = 0
    while not stop.is_set():
        try:
            if sender is None:
                sender = tier.sender()
            if sender.batch(events(n, n) * 3) is None:
                acknowledged.append(n)
                n += 1
        except OSError:
            if sender is not None:
                sender.close()
            sender = None


def test_acknowledged_events_survive_kill9(lonely: Postgres) -> None:
    with temporary_database(lonely) as db:
        tier = Tier(db)
        tier.stream()
        continuous(db, "v", "SELECT n, count(*) AS c FROM s GROUP BY n")
        acknowledged: list[int] = []
        with meanwhile(lambda stop: send_until(tier, stop, acknowledged)):
            wait_for(lambda: len(acknowledged) >= 200)
            lonely.kill_backend(db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext gateway'"))
            before = len(acknowledged)
            wait_for(lambda: len(acknowledged) >= before + 200, what="more after the crash")
        db.connection = lonely.connect(db.name)
        db.flush("s")
        counts = dict(db.rows("SELECT n, c FROM v"))
        assert [n for n in acknowledged if n not in counts] == []
        assert [n for n, c in counts.items() if c != 3] == []  # the batch whose answer the crash took came again, and is known
        db.connection.close()


# ---- Flume's envelope in Kafka ----


def test_envelopes(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    db.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
    table = "CREATE FOREIGN TABLE {} ({}) SERVER k OPTIONS (topic '" + topic + "', format 'flume' {})"
    columns = "n int OPTIONS (path 'a.b'), site text OPTIONS (metadata 'header site'), h jsonb OPTIONS (metadata 'headers'), o bigint OPTIONS (metadata 'offset')"
    db.execute(table.format("s", columns, ", trim 'payload'"))
    db.execute(table.format("c", "n int, t text, size int OPTIONS (metadata 'header size')", ", body_format 'csv', delimiter ';', on_error 'skip'"))
    db.execute(table.format("r", "body bytea, h text OPTIONS (metadata 'headers')", ", body_format 'raw'"))
    continuous(db, "v", "SELECT site, count(*) AS c, sum(n) AS total FROM s GROUP BY site")
    good = avro_event(({"site": "a", "x": "\u00e4"}, b'{"a": {"b": 1}}'))
    blocks = avro_long(-1) + avro_long(6) + b"\x08site\x00" + avro_long(1) + b"\x08site\x02b" + b"\x00" + avro_long(15) + b'{"a": {"b": 2}}'
    kafka.produce(
        topic,
        [
            good,
            blocks,  # a name twice, in two blocks: the last counts
            avro_event(({}, b'{"a": {"b": 3}}\r\n')),
            good + b"x",
            good[:-1],
            b"",
            b'{"a": {"b": 1}}',
            avro_event(({"site": "a"}, b"no json")),
            avro_event(({"size": "much"}, b"1;a")),
            avro_event(({"size": "7"}, b'1;"a;b"')),
        ],
    )
    db.flush("s", "c", "r")
    assert sorted(db.rows("SELECT site, c, total FROM v"), key=str) == [("a", 1, 1), ("b", 1, 2), (None, 1, 3)]
    assert db.rows("SELECT o, h FROM s ORDER BY o") == [(0, {"site": "a", "x": "\u00e4"}), (1, {"site": "b"}), (2, {})]
    assert db.rows("SELECT n, t, size FROM c") == [(1, "a;b", 7)]
    assert len(db.rows("SELECT 1 FROM r")) == 6 and db.rows("SELECT h FROM r WHERE body = '1;a'") == [('{"size": "much"}',)]
    letters = db.rows("SELECT position, reason FROM streamext.dead_letters WHERE stream = 's'::regclass ORDER BY position")
    assert [position for position, _ in letters] == [3, 4, 5, 6, 7, 8, 9]
    assert all("not a Flume event" in reason for _, reason in letters[:4]) and "not a Flume event" not in letters[4][1]
    assert db.value("SELECT DISTINCT format FROM streamext.streams") == "flume"


def test_definitions_of_envelopes(db: Database) -> None:
    db.execute("CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    table = "CREATE FOREIGN TABLE t ({}) SERVER k OPTIONS (topic 't', {})"
    for columns, options, state in (
        ("n int", "format 'json', body_format 'csv'", "HV00D"),
        ("n int", "format 'flume', body_format 'flume'", "HV024"),
        ("n int", "format 'flume', delimiter ';'", "HV00D"),
        ("n int", "format 'flume', body_format 'raw'", "42P16"),
        ("n int OPTIONS (path 'x')", "format 'flume', body_format 'csv'", "HV024"),
        ("n int OPTIONS (path 'x')", "format 'flume', body_format 'text'", "HV00D"),
        ("n int, h text OPTIONS (metadata 'header h')", "format 'json'", "HV00D"),
    ):
        assert db.refusal(table.format(columns, options)).startswith(state), (columns, options)
    db.execute(table.format("n int OPTIONS (path '2')", "format 'flume', body_format 'csv', quote ''''"))
    assert db.refusal("ALTER FOREIGN TABLE t OPTIONS (SET format 'json')").startswith("HV00D")


# ---- a real agent ----

SINKS = ("avro", "thrift", "http", "plain", "envelope")
AGENT = """
a.sources = in
a.sources.in.type = netcat
a.sources.in.bind = 127.0.0.1
a.sources.in.port = {netcat}
a.sources.in.max-line-length = 4096
a.sources.in.interceptors = time site
a.sources.in.interceptors.time.type = timestamp
a.sources.in.interceptors.site.type = static
a.sources.in.interceptors.site.key = site
a.sources.in.interceptors.site.value = north
"""


def agent(sinks: dict[str, str], channels: dict[str, str]) -> Agent:
    """Each sink has the channel of its name; a channel may have none."""
    lines = [AGENT, f"a.sources.in.channels = {' '.join(channels)}", f"a.channels = {' '.join(channels)}", f"a.sinks = {' '.join(sinks)}"]
    for name, text in channels.items():
        lines += [f"a.channels.{name}.{line.strip()}" for line in text.split(";")]
    for name, text in sinks.items():
        lines += [f"a.sinks.{name}.channel = {name}"] + [f"a.sinks.{name}.{line.strip()}" for line in text.split(";")]
    return Agent("\n".join(lines) + "\n")


MEMORY = "type = memory; capacity = 100000; transactionCapacity = 1000"
HEADERS = "n int, site text OPTIONS (metadata 'header site'), h jsonb OPTIONS (metadata 'headers')"


def test_every_sink_of_a_real_agent(db: Database, kafka: Kafka, topic: str) -> None:
    names = [*SINKS, "kafkachannel"]
    ports = {name: free_port() for name in SINKS[:3]}
    db.execute(f"CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
    for name in SINKS[:2]:
        db.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER flume OPTIONS (listen '127.0.0.1:{ports[name]}', protocol '{name}')")
        db.execute(f"CREATE FOREIGN TABLE s_{name} ({HEADERS}) SERVER {name}")
    db.execute(f"""DO $$ BEGIN CREATE ROLE flume_http; EXCEPTION WHEN duplicate_object THEN END $$;
        CREATE SERVER http FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{ports["http"]}', anonymous_role 'flume_http');
        CREATE FOREIGN TABLE s_http (n int) SERVER http OPTIONS (path '/events'); GRANT INSERT ON s_http TO flume_http""")
    for name in names[3:]:
        kafka.create_topic(f"{topic}-{name}")
        columns, format = ("n int", "json") if name == "plain" else (HEADERS, "flume")
        db.execute(f"CREATE FOREIGN TABLE s_{name} ({columns}) SERVER k OPTIONS (topic '{topic}-{name}', format '{format}')")
    for name in names:
        continuous(db, f"v_{name}", f"SELECT count(*) AS c, sum(n)::bigint AS total FROM s_{name}")
    hop = "type = {}; hostname = 127.0.0.1; port = {}; request-timeout = 20000"
    sink = f"type = org.apache.flume.sink.kafka.KafkaSink; kafka.bootstrap.servers = {kafka.brokers}; flumeBatchSize = 100"
    sinks = {
        "avro": hop.format("avro", ports["avro"]),
        "thrift": hop.format("thrift", ports["thrift"]),
        "http": f"type = http; endpoint = http://127.0.0.1:{ports['http']}/events; contentTypeHeader = application/json;"
        "acceptHeader = application/json; defaultBackoff = true; defaultRollback = true; defaultIncrementMetrics = false;"
        "backoff.2XX = false; rollback.2XX = false; incrementMetrics.2XX = true; backoff.4XX = false; rollback.4XX = false",
        "plain": f"{sink}; kafka.topic = {topic}-plain",
        "envelope": f"{sink}; kafka.topic = {topic}-envelope; useFlumeEventFormat = true",
    }
    channel = f"type = org.apache.flume.channel.kafka.KafkaChannel; kafka.bootstrap.servers = {kafka.brokers}; kafka.topic = {topic}-kafkachannel"
    with agent(sinks, {name: MEMORY for name in SINKS} | {"kafkachannel": channel}) as flume:
        flume.feed(["no json", *(json.dumps({"n": n}) for n in range(1, 1001))])  # of http it is a 400, and the sink goes on
        for name in names:
            wait_for(lambda view=f"v_{name}": (db.value(f"SELECT c FROM {view}") or 0) >= 1000, what=f"events by {name}")
        flume.stop()
    for name in names:
        db.flush(f"s_{name}")
        assert db.rows(f"SELECT c, total FROM v_{name}") == [(1000, 500500)], name
        letters = db.rows("SELECT payload_text FROM streamext.dead_letters WHERE stream = %s::regclass", f"s_{name}")
        assert len(letters) == (name != "http") and all("no json" in text for (text,) in letters), name
        if name not in ("http", "plain"):
            assert db.rows(f"SELECT DISTINCT site, h ? 'timestamp' FROM s_{name}") == [("north", True)], name


class Thief:
    """Between the agent and the server: passes all on, but takes two of the answers and ends the connection instead."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.answers = 0
        self.stolen = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self.back, args=(client, server), daemon=True).start()

    def forward(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
        except OSError:
            pass
        self.end(client, server)

    def back(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                self.answers += 1
                if self.answers in (2, 7):
                    self.stolen += 1
                    break
                client.sendall(data)
        except OSError:
            pass
        self.end(client, server)

    def end(self, *sockets: socket.socket) -> None:
        for each in reversed(sockets):  # the server's first: who sends again comes after
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_an_agent_that_gets_no_answer_and_is_killed(db: Database) -> None:
    """Its timestamps make its batches differ; what it sends again is counted once, and what it had when it was killed at least once."""
    tier = Tier(db)
    tier.stream()
    continuous(db, "v", COUNT)
    thief = Thief(tier.port)
    hop = f"type = {tier.protocol}; hostname = 127.0.0.1; port = {thief.port}; batch-size = 20; maxBackoff = 100; connect-timeout = 2000"
    file = "type = file; checkpointDir = {dir}/check; dataDirs = {dir}/data"
    with agent({"out": hop}, {"out": file}) as flume:
        flume.feed([json.dumps({"n": n}) for n in range(1, 101)])
        wait_for(lambda: thief.stolen >= 1 and (db.value("SELECT c FROM v") or 0) >= 100)
        assert counted(tier) == (100, 5050)
        wait_for(lambda: thief.answers >= 6, what="the answer to the last batch")
        flume.feed([json.dumps({"n": n}) for n in range(101, 151)])
        flume.kill9()
        flume.start()
        flume.feed([json.dumps({"n": n}) for n in range(151, 201)])
        wait_for(lambda: len(db.rows("SELECT DISTINCT n FROM s")) == 200, what="all events")
    assert thief.stolen == 2 and counted(tier)[0] >= 200
    thief.listener.close()
