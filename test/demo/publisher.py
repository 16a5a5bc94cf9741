"""Publishes simulated readings to each channel in turn, and counts what it published."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from demo.channels import Channel
from harness.sensors import Plant


class Publisher:
    """From start() to stop() publishes `rate` readings a second, each to the next channel."""

    def __init__(self, channels: Sequence[Channel], plant: Plant, rate: int) -> None:
        self._channels = channels
        self._plant = plant
        self._rate = rate
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1)

    def start(self) -> None:
        self._running = self._thread.submit(self._run)

    def stop(self) -> None:
        """Returns when all that was counted is acknowledged; raises what went wrong meanwhile."""
        self._stopping.set()
        self._running.result()
        for channel in self._channels:
            channel.end()

    def _run(self) -> None:
        start, published = time.monotonic(), 0
        while not self._stopping.wait(0.01):
            due = int((time.monotonic() - start) * self._rate)
            for number in range(published, due):
                self._channels[number % len(self._channels)].take(self._plant.reading(datetime.now(UTC)))
            published = due
            for channel in self._channels:
                channel.go_on()
