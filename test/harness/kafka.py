"""A throwaway Kafka broker: Apache Kafka itself, one node, KRaft mode."""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from harness.server import Server, free_port
from harness.wait import wait_for

LIBS = Path(os.environ.get("STREAMEXT_DEPS", ".deps")).resolve() / "kafka" / "libs"

ClientConfig = Mapping[str, str | int | float | bool]  # librdkafka's properties


# What a broker says that has just been started or is busy.
PASSING = (
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH, KafkaError._TIMED_OUT, KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
)  # fmt: skip


class Message(NamedTuple):
    value: bytes | str | None
    partition: int = 0
    key: bytes | str | None = None
    timestamp: int = 0  # milliseconds since 1970; 0 is now
    headers: list[tuple[str, str | bytes | None]] | None = None


class Kafka(Server):
    """`brokers` is its address. `config` adds to or replaces broker properties. `measured`: under Java's optimising compiler, which costs more
    than it gains where a broker lives for minutes."""

    name = "kafka"

    def __init__(self, heap: str = "512m", config: Mapping[str, object] | None = None, measured: bool = False) -> None:
        super().__init__()
        self.flags = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:-UsePerfData", *([] if measured else ["-XX:TieredStopAtLevel=1"])]
        self.brokers = f"127.0.0.1:{self.port}"
        self._client: ClientConfig = {
            "bootstrap.servers": self.brokers,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }
        self.admin = AdminClient(dict(self._client))
        self._producer: Producer | None = None  # produce's
        controller = f"127.0.0.1:{free_port()}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.brokers},CONTROLLER://{controller}",
            "log.dirs": self.dir / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            # Retention and compaction act within seconds, where a topic asks for them.
            "log.retention.ms": -1,  # tests' records are of any year
            "log.retention.check.interval.ms": 500,
            "log.segment.delete.delay.ms": 500,
            "log.cleaner.backoff.ms": 500,
            "log.cleaner.dedupe.buffer.size": 4 << 20,
            # A broker killed with -9 may come back at once.
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 200,
        } | dict(config or {})
        self.properties_file = self.dir / "server.properties"
        self.properties_file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        subprocess.run(
            [*self._java("kafka.tools.StorageTool"), "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg",
             "-c", self.properties_file],
            check=True, capture_output=True,
        )  # fmt: skip

    def _java(self, main_class: str) -> list[str | Path]:
        return [
            "java", *self.flags, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{LIBS}/*", main_class,
        ]  # fmt: skip

    def command(self) -> list[str | Path]:
        return [*self._java("kafka.Kafka"), self.properties_file]

    def is_ready(self) -> bool:
        try:
            cluster = self.admin.list_topics(timeout=5)
        except KafkaException:
            return False
        leaders = {partition.leader for topic in cluster.topics.values() for partition in topic.partitions.values()}
        return len(cluster.brokers) == 1 and -1 not in leaders

    def send(self, number: signal.Signals) -> None:
        self._producer = None
        super().send(number)

    def create_topic(self, topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        new = NewTopic(topic, partitions, replication_factor=1, config=dict(config or {}))
        self.admin.create_topics([new])[topic].result()
        wait_for(lambda: len(self._partitions(topic)) == partitions, what=f"topic {topic}")

    def delete_topic(self, topic: str) -> None:
        self._producer = None
        self.admin.delete_topics([topic])[topic].result()
        wait_for(lambda: not self._partitions(topic), what=f"end of topic {topic}")

    def _partitions(self, topic: str) -> list[int]:
        """Those that have a leader."""
        found = self.admin.list_topics(timeout=90).topics.get(topic)
        return sorted(n for n, partition in found.partitions.items() if partition.leader >= 0) if found and not found.error else []

    def producer(self, config: ClientConfig = {}) -> Producer:
        return Producer({**self._client, "enable.idempotence": True, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000, **config})

    def consumer(self, config: ClientConfig = {}) -> Consumer:
        return Consumer({**self._client, "group.id": "test", **config})

    def produce(self, topic: str, messages: Iterable[Message | bytes | str]) -> None:
        """Returns when the broker has acknowledged all; bare values go to partition 0. From one producer, as a new one waits half a second
        for its number, which makes that nothing is there twice."""
        failures: list[object] = []

        def delivered(error: object, _: object) -> None:
            if error:
                failures.append(error)

        producer = self._producer = self._producer or self.producer()
        producer.list_topics(topic, timeout=90)  # the topic may have got partitions since
        for message in messages:
            value, partition, key, timestamp, headers = message if isinstance(message, Message) else Message(message)
            while len(producer) > 500_000:
                producer.poll(0.1)
            producer.produce(topic, value, key, partition, delivered, timestamp=timestamp, headers=headers)
            producer.poll(0)
        producer.flush()
        if failures:
            self._producer = None
            raise RuntimeError(f"{len(failures)} messages were not delivered, the first: {failures[0]}")

    def end_offsets(self, topic: str) -> dict[int, int]:
        """For each partition the offset that the next message gets."""
        partitions = self._partitions(topic)

        def ends() -> dict[int, int] | None:
            """None while the broker does not know yet that it leads a partition that has just been made, or is busy."""
            asked = self.admin.list_offsets({TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}, request_timeout=10)
            try:
                return {partition.partition: future.result().offset for partition, future in asked.items()}
            except KafkaException as e:
                if e.args[0].code() not in PASSING:
                    raise
                return None

        return wait_for(ends, what=f"the ends of {topic}") if partitions else {}
