"""MQTT 5: a sender of each QoS, two streams. Every message whose acknowledgement the sender saw is counted; of QoS 2 none
twice. QoS 1 may count one twice by its nature; with mosquitto, which numbers messages in a row, it does not."""

import time
from collections import deque

from crash.load import DELIVERY, Load, Producer, counted
from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.streams import continuous, mqtt_stream
from harness.wait import wait_for

SAVED = 3.0  # seconds after which mosquitto has on disk what it acknowledged: autosave_interval 1


class _Sender:
    """Numbers to one topic; knows what was acknowledged when."""

    def __init__(self, broker: Mosquitto, topic: str, qos: int, rate: int) -> None:
        self._topic, self._qos, self._rate = topic, qos, rate
        self._client = broker.client(f"sender-{topic}", keep_session=True)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_publish = lambda _client, _data, mid, *_: self._done.append((mid, time.monotonic()))
        self._done: deque[tuple[int, float]] = deque()  # by paho's thread
        self._waiting: dict[int, int] = {}  # by message id
        self.published: dict[int, float] = {}
        self.acknowledged: dict[int, float] = {}
        self.sent = 0
        self._thread = Producer(self._produce)

    def resume(self) -> None:
        self._since, self._first = time.monotonic(), self.sent
        self._thread.resume()

    def _produce(self) -> None:
        for n in range(self.sent, self._first + int((time.monotonic() - self._since) * self._rate)):
            self._waiting[self._client.publish(self._topic, f'{{"n":{n}}}', self._qos).mid] = n
            self.published[n] = time.monotonic()
            self.sent = n + 1
        self._collect()

    def _collect(self) -> bool:
        for _ in range(len(self._done)):  # others come meanwhile
            mid, at = self._done.popleft()
            if mid in self._waiting:
                self.acknowledged[self._waiting.pop(mid)] = at
            else:  # was faster than publish() came back
                self._done.append((mid, at))
        return not self._waiting

    def pause(self) -> None:
        self._thread.pause()
        wait_for(self._collect, DELIVERY, f"acknowledgements of QoS {self._qos}")

    def end(self) -> None:
        self._thread.end()
        self._client.disconnect()
        self._client.loop_stop()


class MqttLoad(Load):
    name = "mosquitto"
    streams = ["q1", "q2"]

    def __init__(self, broker: Mosquitto, rate: int) -> None:
        self.broker = broker
        self._rate = rate
        self._begun = 0
        self._sent = 0

    def begin(self, db: Database) -> None:
        self._begun += 1
        self._senders: dict[str, _Sender] = {}
        self._killed: list[float] = []
        for qos in (1, 2):
            stream, topic = f"q{qos}", f"crash-{self._begun}-{qos}"
            mqtt_stream(db, self.broker, f"topic '{topic}', qos '{qos}'", "n bigint", stream)
            continuous(db, f"{stream}_numbers", f"SELECT n % 100 AS k, count(*) AS c, array_agg(n) AS list FROM {stream} GROUP BY k")
            continuous(db, f"{stream}_total", f"SELECT count(*) AS c, sum(n)::bigint AS s FROM {stream}")
            db.flush(stream)  # subscribed
            self._senders[stream] = _Sender(self.broker, topic, qos, self._rate)

    def resume(self) -> None:
        for sender in self._senders.values():
            sender.resume()

    def pause(self) -> None:
        for sender in self._senders.values():
            sender.pause()

    def broker_dies(self) -> None:
        self._killed.append(time.monotonic())

    def end(self) -> None:
        self._sent += sum(sender.sent for sender in self._senders.values())
        for sender in self._senders.values():
            sender.end()

    def sent(self) -> int:
        return self._sent

    def _about(self, db: Database, stream: str, sender: _Sender, n: int) -> str:
        """What tells the broker's loss from the stream's: times beside those of kills, and what the stream has set aside."""
        now = time.monotonic()
        published, acknowledged = now - sender.published[n], now - sender.acknowledged[n]
        killed = ", ".join(f"{now - at:.1f}" for at in self._killed)
        rows = db.rows(f"SELECT state, rejected, last_error FROM streamext.streams WHERE stream = '{stream}'::regclass")
        letters = db.rows(f"SELECT position, reason FROM streamext.dead_letters WHERE stream = '{stream}'::regclass LIMIT 5")
        return f"; {n} published {published:.1f} s ago, acknowledged {acknowledged:.1f} s, broker killed {killed or 'never'}; {rows}; letters {letters}"

    def check(self, db: Database) -> list[str]:
        wrong = []
        for stream, sender in self._senders.items():
            times: dict[int, int] = {}
            for (numbers,) in db.rows(f"SELECT list FROM {stream}_numbers"):
                for n in numbers:
                    times[n] = times.get(n, 0) + 1
            # What a killed broker had acknowledged but not yet written down is the broker's to lose, or to send again.
            open_ = {n for n, at in sender.acknowledged.items() for killed in self._killed
                     if killed - SAVED < at and sender.published[n] < killed + SAVED}  # fmt: skip
            lost = [n for n in sender.acknowledged if n not in times and n not in open_]
            twice = [n for n, count in times.items() if count > 1 and n not in open_]
            if lost:
                wrong.append(f"{stream}: {len(lost)} messages lost, such as {lost[:10]}{self._about(db, stream, sender, lost[0])}")
            if twice:
                wrong.append(f"{stream}: {len(twice)} messages counted twice, such as {twice[:10]}")
            total = sum(times.values())
            wrong += counted(db, f"{stream}_numbers", total) + counted(db, f"{stream}_total", total)
            if db.value(f"SELECT c FROM {stream}_total") != total:
                wrong.append(f"{stream}: the views differ")
        return wrong
