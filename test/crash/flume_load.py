"""flume: several sinks of both protocols. A batch, of one stream or two, is sent again until it is acknowledged, on a new connection when there was no answer, as
Flume does; each event is then counted once."""

import random
import time

from crash.load import DELIVERY, Producer, Producers, counted
from harness.database import Database
from harness.flume import AvroSender, Event, Sender, ThriftSender
from harness.server import free_port
from harness.streams import continuous

SINKS = {"avro": AvroSender, "thrift": ThriftSender}
STREAMS = {"avro": ("fa", "fa_named"), "thrift": ("ft", "ft_named")}


class FlumeLoad(Producers):
    name = "flume"
    streams = [stream for names in STREAMS.values() for stream in names]

    def __init__(self, rng: random.Random, senders: int = 2, idle: float = 0.005) -> None:
        super().__init__(rng)
        self._idle = idle
        self._senders = senders

    def begin(self, db: Database) -> None:
        self._sent: dict[str, list[int]] = {stream: [] for stream in self.streams}
        self._threads = []
        for protocol, names in STREAMS.items():
            port = free_port()
            db.execute(f"CREATE SERVER crash_{protocol} FOREIGN DATA WRAPPER flume OPTIONS (listen '127.0.0.1:{port}', protocol '{protocol}')")
            for name in names:
                topic = f"OPTIONS (topic '{name}')" if name.endswith("named") else ""
                db.execute(f"CREATE FOREIGN TABLE {name} (n bigint, site text OPTIONS (metadata 'header site')) SERVER crash_{protocol} {topic}")
                continuous(db, f"{name}_numbers", f"SELECT n % 100 AS k, count(*) AS c, array_agg(n) AS list FROM {name} WHERE site = 'x' GROUP BY k")
            self._threads += [Producer(_Sink(self, protocol, port).work, self._idle) for _ in range(self._senders)]

    def take(self, protocol: str, streams: list[int]) -> list[Event]:
        """New numbers, each for the protocol's stream of that index."""
        with self._lock:
            first, self._n = self._n, self._n + len(streams)
        events: list[Event] = []
        for n, index in enumerate(streams, first):
            name = STREAMS[protocol][index]
            self._sent[name].append(n)
            events.append(({"site": "x", "topic": name}, b'{"n": %d}' % n))
        return events

    def check(self, db: Database) -> list[str]:
        wrong = []
        for stream in self.streams:
            times: dict[int, int] = {}
            for (numbers,) in db.rows(f"SELECT list FROM {stream}_numbers"):
                for n in numbers:
                    times[n] = times.get(n, 0) + 1
            lost = [n for n in self._sent[stream] if n not in times]
            twice = [n for n, count in times.items() if count > 1]
            for what, bad in (("events lost", lost), ("events counted twice", twice)):
                if bad:
                    wrong.append(f"{stream}: {len(bad)} {what}, such as {bad[:10]}")
            wrong += counted(db, f"{stream}_numbers", sum(times.values()))
        return wrong


class _Sink:
    def __init__(self, load: FlumeLoad, protocol: str, port: int) -> None:
        self._load = load
        self._protocol = protocol
        self._port = port
        self._rng = random.Random(load._rng.random())
        self._sender: Sender | None = None

    def work(self) -> None:
        size = self._rng.choice([1, 10, 100])
        batch = self._load.take(self._protocol, [self._rng.choice([0, 0, 1]) for _ in range(size)])
        deadline = time.monotonic() + DELIVERY
        while not self._send(batch):
            if time.monotonic() > deadline:
                raise TimeoutError("the gateway takes nothing")
            time.sleep(0.02)

    def _send(self, batch: list[Event]) -> bool:
        """After an error, or without an answer, the connection ends."""
        try:
            if self._sender is None:
                self._sender = SINKS[self._protocol](self._port)
            if self._sender.batch(batch) is None:
                return True
        except OSError:
            pass
        if self._sender is not None:
            self._sender.close()
        self._sender = None
        return False
