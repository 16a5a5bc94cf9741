"""Simulated plant sensors: deterministic records for tests, demo and benchmarks."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Reading(NamedTuple):
    """Temperature and humidity are multiples of 1/8, so that sums of them are exact in any order."""

    device: str
    site: str
    ts: datetime
    temperature: float
    humidity: float

    def json(self) -> str:
        ts = self.ts.isoformat(timespec="milliseconds")
        return (
            f'{{"device":"{self.device}","site":"{self.site}","ts":"{ts}",'
            f'"temperature":{self.temperature},"humidity":{self.humidity}}}'
        )

    def mqtt_topic(self) -> str:
        return f"plant/{self.site}/{self.device}"


@dataclass
class Plant:
    """Device i stands at site i modulo `sites`. Event times are up to `disorder` behind the time of the reading."""

    devices: int = 1000
    sites: int = 20
    disorder: timedelta = timedelta(seconds=2)
    seed: int = 1
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def reading(self, at: datetime) -> Reading:
        uniform = self._random.random
        device = int(uniform() * self.devices)
        return Reading(
            device=f"device-{device:04}",
            site=f"site-{device % self.sites:02}",
            ts=at - self.disorder * uniform(),
            temperature=(device % 80 + int(uniform() * 160)) / 8,
            humidity=int(uniform() * 800) / 8,
        )

    def readings(
        self, count: int, start: datetime = START, span: timedelta = timedelta(minutes=10)
    ) -> Iterator[Reading]:
        """`count` readings evenly over `span` from `start` on."""
        return (self.reading(start + span * (i / count)) for i in range(count))
