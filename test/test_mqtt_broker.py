"""A broker that does not keep to the protocol: what it sends is a trouble of its stream, never one of the server."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from harness.database import Database
from harness.streams import continuous
from harness.wait import wait_for

CONNECT, PUBLISH, PUBREC, SUBSCRIBE, PINGREQ = 1, 3, 5, 8, 12


def sized(body: bytes) -> bytes:
    """Behind its length, in MQTT's way."""
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (128 if size else 0)])
        if not size:
            return length + body


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + sized(body)


def string(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def user_property(name: bytes, value: bytes) -> bytes:
    return b"\x26" + string(name) + string(value)


def publish(topic: bytes, payload: bytes, version: int, properties: bytes = b"") -> bytes:
    """QoS 0."""
    return packet(PUBLISH << 4, string(topic) + (sized(properties) if version == 5 else b"") + payload)


class OddBroker:
    """Accepts connections one by one and grants both topics of a subscription, or answers with `suback` codes; then
    sends `packets`. `subscriptions` counts. A context manager."""

    def __init__(self, version: int, suback: bytes = b"\1\1", packets: bytes = b"") -> None:
        self.version, self.suback, self.packets, self.subscriptions, self.hello = version, suback, packets, 0, b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connection: socket.socket | None = None
        self.uri = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> "OddBroker":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            with connection, contextlib.suppress(OSError):
                for first, body in self._receive(connection):
                    connection.sendall(self._answer(first >> 4, body))

    def _receive(self, connection: socket.socket) -> Iterator[tuple[int, bytes]]:
        stream = connection.makefile("rb")
        while head := stream.read(1):
            size = shift = 0
            while (byte := stream.read(1)[0]) & 128:
                size, shift = size | (byte & 127) << shift, shift + 7
            yield head[0], stream.read(size | byte << shift)

    def _answer(self, type: int, body: bytes) -> bytes:
        properties = b"\0" if self.version == 5 else b""
        if type == CONNECT:
            self.hello = body
            return packet(0x20, b"\0\0" + properties)
        if type == SUBSCRIBE:
            self.subscriptions += 1
            return packet(0x90, body[:2] + properties + self.suback) + self.packets
        return packet(0xD0, b"") if type == PINGREQ else b""


class ForgetfulBroker(OddBroker):
    """Dies before it has released its first message of QoS 2, comes back with the session as it was before that one, and gives its packet id
    to a message with another payload, as mosquitto does that is killed between two of its saves; that one and one behind it are released."""

    def __init__(self) -> None:
        super().__init__(5, suback=b"\2\2")

    @staticmethod
    def _message(id: int, payload: bytes, again: bool = False) -> bytes:
        return packet(0x3C if again else 0x34, string(b"t") + struct.pack(">H", id) + b"\0" + payload)

    def _answer(self, type: int, body: bytes) -> bytes:
        if type == CONNECT:
            return packet(0x20, b"\1\0\0" if self.subscriptions else b"\0\0\0")
        if type == SUBSCRIBE:
            answer = super()._answer(type, body)
            first = self.subscriptions == 1
            return answer + (self._message(7, b"1") + self._message(8, b"2") if first else self._message(7, b"3") + self._message(8, b"2", True))
        if type == PUBREC and self.subscriptions == 1 and body[:2] == b"\0\10":
            raise ConnectionError("dies")
        if type == PUBREC and self.subscriptions > 1:
            release = packet(0x62, body[:2])
            return release + (self._message(9, b"4") if body[:2] == b"\0\10" else b"")
        return super()._answer(type, body)


def odd_stream(db: Database, broker: OddBroker, columns: str, topic: str = "#", qos: int = 1) -> None:
    db.execute(f"CREATE SERVER odd FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
    protocol = "5" if broker.version == 5 else "3.1.1"
    db.execute(f"CREATE FOREIGN TABLE s ({columns}) SERVER odd OPTIONS (format 'text', topic '{topic}', qos '{qos}', protocol '{protocol}')")


@pytest.fixture(autouse=True)
def server_stays(db: Database) -> Iterator[None]:
    server_started = "SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    before = db.value(server_started)
    yield
    assert db.value(server_started) == before


VERSIONS = pytest.mark.parametrize("version", [5, 4], ids=["5", "3.1.1"])


@VERSIONS
def test_an_answer_for_one_of_two_topics(db: Database, version: int) -> None:
    with OddBroker(version, suback=b"\1") as broker:
        odd_stream(db, broker, "a text")
        continuous(db, "v", "SELECT count(*) FROM s")
        wait_for(lambda: "one of two topics" in (db.value("SELECT last_error FROM streamext.streams") or ""), what="the error")
        db.execute("DROP FOREIGN TABLE s CASCADE")


# What no broker should send: topic and payload, and whether the record counts. A text ends at a NUL.
ODD_TOPICS: list[tuple[bytes, bytes, bool]] = [
    (b"nul\0topic", b"1", True), (b"\0", b"2", True), (b"/" * 65535, b"3", True), (b"#", b"4", True), (b"a", b"", True),
    (b"\xff\xfe", b"5", False), (b"\xed\xa0\x80", b"6", False), (b"a", b"\0", False),
]  # fmt: skip

# Names and values, and the column's; too many or too long for a record to keep: none.
ODD_PROPERTIES: list[tuple[list[tuple[bytes, bytes]], str | None]] = [
    ([(b"", b"")], '{"": ""}'), ([(b"a\0b", b"c\0")], '{"a": "c"}'), ([(b"\xff", b"\xc3")], r'{"\\xff": "\\xc3"}'),
    ([(b'"', b"\\")], r'{"\"": "\\"}'), ([(b"n", b"v")] * 3, '{"n": "v", "n": "v", "n": "v"}'),
    ([(b"x" * 65535, b"y" * 65535)], None), ([(b"n", b"v")] * 20000, None),
]  # fmt: skip


@VERSIONS
def test_odd_messages(db: Database, version: int) -> None:
    packets = [publish(topic, payload, version) for topic, payload, _ in ODD_TOPICS]
    expected = {(topic.split(b"\0")[0].decode(), None, payload.decode()) for topic, payload, counts in ODD_TOPICS if counts}
    for i, (pairs, headers) in enumerate(ODD_PROPERTIES if version == 5 else []):
        packets.append(publish(b"p", b"%d" % i, version, b"".join(user_property(*pair) for pair in pairs)))
        expected.add(("p", headers, str(i)))
    packets += [publish(b"$x", b"another stream's", version), publish(b"last", b"", version)]
    with OddBroker(version, packets=b"".join(packets)) as broker:
        odd_stream(db, broker, "t text OPTIONS (metadata 'topic'), h text OPTIONS (metadata 'headers'), a text")
        continuous(db, "v", "SELECT t, h, a, count(*) AS n FROM s GROUP BY t, h, a")
        wait_for(lambda: db.rows("SELECT 1 FROM v WHERE t = 'last'"), what="the last message")
        assert db.rows("SELECT stream FROM streamext.workers WHERE restarts > 0") == []
        expected.add(("last", None, ""))
        # once for each subscription: a client that a busy machine has held up makes another one
        wait_for(lambda: {(t, h, a) for t, h, a, n in db.rows("TABLE v") if n == broker.subscriptions} == expected, what="the messages")
        rejected = {payload for (payload,) in db.rows("SELECT payload FROM streamext.dead_letters")}
        assert rejected == {payload for _, payload, counts in ODD_TOPICS if not counts}
        db.execute("DROP FOREIGN TABLE s CASCADE")


@pytest.mark.parametrize("prefix", ["$queue/", "$exclusive/", "$q/", "$share/team/"])
@VERSIONS
def test_prefixes_of_filters(db: Database, version: int, prefix: str) -> None:
    """Brokers that know the prefix deliver with the topic behind it, others take it for a part of the topic."""
    packets = [publish(b"a/b", b"plain", version), publish(f"{prefix}a/b".encode(), b"whole", version), publish(b"b/a", b"neither", version)]
    with OddBroker(version, packets=b"".join([*packets, publish(b"a/last", b"last", version)])) as broker:
        odd_stream(db, broker, "a text", f"{prefix}a/+")
        continuous(db, "v", "SELECT a, count(*) FROM s GROUP BY a")
        wait_for(lambda: db.rows("SELECT 1 FROM v WHERE a = 'last'"), what="the last message")
        assert {a for (a,) in db.rows("SELECT a FROM v")} == {"plain", "whole", "last"}
        event = wait_for(lambda: db.rows("SELECT kind, missed, detail FROM streamext.stream_events WHERE kind = 'unmatched'"), what="the event")
        assert event[0][1] == 0 and '"b/a"' in event[0][2] and prefix in event[0][2]
        db.execute("DROP FOREIGN TABLE s CASCADE")


def test_a_broker_that_gives_an_unreleased_id_again(db: Database) -> None:
    """What the client has not seen released is one message by its id and what is in it, not by its id alone."""
    with ForgetfulBroker() as broker:
        odd_stream(db, broker, "n int", qos=2)
        continuous(db, "v", "SELECT n, count(*) AS c FROM s GROUP BY n")
        wait_for(lambda: db.rows("SELECT 1 FROM v WHERE n = 4"), what="the last message")
        assert sorted(db.rows("TABLE v")) == [(1, 1), (2, 1), (3, 1), (4, 1)]
        db.execute("DROP FOREIGN TABLE s CASCADE")


def test_the_largest_message_is_named(db: Database) -> None:
    """A message of nothing but user properties takes a hundred times its size of the client, and may have 256 MB."""
    with OddBroker(5) as broker:
        odd_stream(db, broker, "a text")
        continuous(db, "v", "SELECT count(*) FROM s")
        wait_for(lambda: broker.subscriptions, what="the subscription")
        assert b"\x27" + struct.pack(">I", 32 << 20) in broker.hello
        db.execute("DROP FOREIGN TABLE s CASCADE")
