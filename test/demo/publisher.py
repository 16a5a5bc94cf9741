"""Publishes simulated readings to Kafka and MQTT, and counts what it published."""

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from paho.mqtt.client import MQTTMessageInfo

from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.sensors import Plant, Reading

TOPIC = "sensors"
PARTITIONS = 4


class Tally:
    """Of one stream: by device the count and the sum of the temperatures."""

    def __init__(self) -> None:
        self.by_device: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))

    def add(self, reading: Reading) -> None:
        count, total = self.by_device[reading.device]
        self.by_device[reading.device] = count + 1, total + reading.temperature

    def count(self) -> int:
        return sum(count for count, _ in self.by_device.values())


class Publisher:
    """From start() to stop() publishes `rate` readings a second, every other one to Kafka, the rest to MQTT."""

    def __init__(self, kafka: Kafka, mosquitto: Mosquitto, plant: Plant, rate: int) -> None:
        self._producer = kafka.producer()
        self._client = mosquitto.client()
        self._unacknowledged: list[MQTTMessageInfo] = []
        self._plant = plant
        self._rate = rate
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self.sensors = Tally()
        self.floor_sensors = Tally()

    def start(self) -> None:
        self._running = self._thread.submit(self._run)

    def stop(self) -> None:
        """Returns when the brokers have acknowledged all that was counted; raises what went wrong meanwhile."""
        self._stopping.set()
        self._running.result()
        if self._producer.flush(30):
            raise TimeoutError("Kafka did not acknowledge all messages")
        for message in self._unacknowledged:
            message.wait_for_publish(30)
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self) -> None:
        start, published = time.monotonic(), 0
        while not self._stopping.wait(0.01):
            due = int((time.monotonic() - start) * self._rate)
            for number in range(published, due):
                reading = self._plant.reading(datetime.now(UTC))
                if number % 2:
                    self._publish_to_kafka(reading)
                else:
                    self._publish_to_mqtt(reading)
            published = due
            self._producer.poll(0)
            self._unacknowledged = [message for message in self._unacknowledged if not message.is_published()]

    def _publish_to_kafka(self, reading: Reading) -> None:
        partition = int(reading.device[-4:]) % PARTITIONS
        self._producer.produce(TOPIC, reading.json(), key=reading.device, partition=partition)
        self.sensors.add(reading)

    def _publish_to_mqtt(self, reading: Reading) -> None:
        self._unacknowledged.append(self._client.publish(reading.mqtt_topic(), reading.json(), qos=1))
        self.floor_sensors.add(reading)
