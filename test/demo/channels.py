"""The channels that the demo publishes to: each has a stream of its own, and knows what was sent there."""

import http.client
import socket
import time
from collections import defaultdict

from paho.mqtt.client import MQTTMessageInfo

from harness.feed import Connection, FeedServer
from harness.flume import Agent
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.sensors import Reading

TOPIC = "sensors"
PARTITIONS = 4
TOKEN = "the token of the demo"
PATIENCE = 30.0  # seconds for what is not acknowledged


class Channel:
    """take any number of readings, go_on now and then; after end() all of them are the other side's."""

    name: str
    stream: str
    total: str  # the view of all its devices

    def __init__(self) -> None:
        self.by_device: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))

    def take(self, reading: Reading) -> None:
        count, total = self.by_device[reading.device]
        self.by_device[reading.device] = count + 1, total + reading.temperature
        self.send(reading)

    def count(self) -> int:
        return sum(count for count, _ in self.by_device.values())

    def send(self, reading: Reading) -> None:
        raise NotImplementedError

    def go_on(self) -> None:
        pass

    def end(self) -> None:
        pass


class KafkaChannel(Channel):
    name, stream, total = "Kafka", "sensors", "device_total"

    def __init__(self, kafka: Kafka) -> None:
        super().__init__()
        self._producer = kafka.producer()

    def send(self, reading: Reading) -> None:
        partition = int(reading.device[-4:]) % PARTITIONS
        self._producer.produce(TOPIC, reading.json(), key=reading.device, partition=partition)

    def go_on(self) -> None:
        self._producer.poll(0)

    def end(self) -> None:
        if self._producer.flush(PATIENCE):
            raise TimeoutError("Kafka did not acknowledge all messages")


class MqttChannel(Channel):
    name, stream, total = "MQTT", "floor_sensors", "floor_device_total"

    def __init__(self, mosquitto: Mosquitto) -> None:
        super().__init__()
        self._client = mosquitto.client()
        self._unacknowledged: list[MQTTMessageInfo] = []

    def send(self, reading: Reading) -> None:
        self._unacknowledged.append(self._client.publish(reading.mqtt_topic(), reading.json(), qos=1))

    def go_on(self) -> None:
        self._unacknowledged = [message for message in self._unacknowledged if not message.is_published()]

    def end(self) -> None:
        for message in self._unacknowledged:
            message.wait_for_publish(PATIENCE)
        self._client.disconnect()
        self._client.loop_stop()


class HttpChannel(Channel):
    """A request for all readings of a round. One that got no answer is sent again by its key, and counted once."""

    name, stream, total = "HTTP", "gate_sensors", "gate_device_total"

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._readings: list[Reading] = []
        self._requests = 0

    def send(self, reading: Reading) -> None:
        self._readings.append(reading)

    def go_on(self) -> None:
        body = "".join(reading.json() + "\n" for reading in self._readings)
        deadline = time.monotonic() + PATIENCE
        while self._readings and not self._post(body):
            if time.monotonic() > deadline:
                raise TimeoutError("the gateway does not take the readings")
        self._readings = []
        self._requests += 1

    def _post(self, body: str) -> bool:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-ndjson", "Idempotency-Key": f"round {self._requests}"}
        try:
            self._connection.request("POST", "/sensors", body, headers)
            answer = self._connection.getresponse()
            answer.read()
            return answer.status == 204
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False

    def end(self) -> None:
        self.go_on()
        self._connection.close()


AGENT = """
a.sources = in
a.channels = memory
a.sinks = out
a.sources.in.type = netcat
a.sources.in.bind = 127.0.0.1
a.sources.in.port = {netcat}
a.sources.in.max-line-length = 4096
a.sources.in.channels = memory
a.channels.memory.type = memory
a.channels.memory.capacity = 100000
a.channels.memory.transactionCapacity = 1000
a.sinks.out.type = avro
a.sinks.out.channel = memory
a.sinks.out.hostname = 127.0.0.1
a.sinks.out.port = PORT
a.sinks.out.batch-size = 100
"""


def flume_agent(port: int) -> Agent:
    """From lines to a tier of ours."""
    return Agent(AGENT.replace("PORT", str(port)))


class FlumeChannel(Channel):
    """Lines to a Flume agent, whose Avro sink sends to PostgreSQL as to another agent."""

    name, stream, total = "Flume", "log_sensors", "log_device_total"

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self._connection = socket.create_connection(("127.0.0.1", agent.port), timeout=PATIENCE)
        self._lines: list[str] = []
        self._open = 0  # not acknowledged by the agent's OK

    def send(self, reading: Reading) -> None:
        self._lines.append(reading.json() + "\n")

    def go_on(self) -> None:
        self._open += 3 * len(self._lines)
        self._connection.sendall("".join(self._lines).encode())
        self._lines = []
        self._connection.setblocking(False)
        try:
            self._open -= len(self._connection.recv(65536))
        except BlockingIOError:
            pass
        self._connection.settimeout(PATIENCE)

    def end(self) -> None:
        self.go_on()
        while self._open > 0:
            if not (piece := self._connection.recv(65536)):
                raise ConnectionError("the agent has ended the connection")
            self._open -= len(piece)
        self._connection.close()


class FeedChannel(Channel):
    """A firehose: whoever asks gets everything from the id on that he names."""

    name, stream, total = "feed", "feed_sensors", "feed_device_total"

    def __init__(self) -> None:
        super().__init__()
        self._server = FeedServer()
        self.url = self._server.url()
        self._events: list[str] = []
        self._connection: Connection | None = None
        self._sent = 0

    def send(self, reading: Reading) -> None:
        self._events.append(f"id: {len(self._events)}\ndata: {reading.json()}\n\n")

    def go_on(self) -> None:
        try:
            if len(self._server.connections) > self._server.taken:
                self._connection = self._server.take()
                self._sent = int(self._connection.headers.get("last-event-id", "-1")) + 1
                self._connection.begin("text/event-stream")
            if self._connection and self._sent < len(self._events):
                self._connection.send("".join(self._events[self._sent :]))
                self._sent = len(self._events)
        except OSError:
            self._connection = None  # he will come again

    def end(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._sent < len(self._events):
            if time.monotonic() > deadline:
                raise TimeoutError("nobody listens to the firehose")
            self.go_on()
