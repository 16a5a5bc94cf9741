"""Nexmark's events: persons, auctions and bids of an online auction house, by the model of the benchmark's generator.

Of 50 events the first is a person, three are auctions and 46 are bids. Three auctions out of four are the hot seller's,
every other bid goes to the hot auction and three out of four are the hot bidder's; who is hot changes with each hundred
persons and auctions. The others are drawn from the last 1,000 persons and 100 auctions, and up to ten that are still to
come: some bids are on auctions, and some auctions by persons, that come later. Prices are log-uniform from 100 to 10^8. Half
of the bids come through four channels, the others through one of 10,000, of which nine in ten have a channel_id in
their url. Strings have the benchmark's lengths and fill records up to its average sizes.

Events are in the order of their times, one a millisecond; the same seed gives the same events."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

PERSONS, AUCTIONS, BIDS = 1, 3, 46
ROUND = PERSONS + AUCTIONS + BIDS
FIRST_ID = 1000  # of persons and auctions
FIRST_CATEGORY, CATEGORIES = 10, 5
LEAD = 10  # ids still to come
ACTIVE_PERSONS, AUCTIONS_IN_FLIGHT = 1000, 100
HOT_BATCH = 100
CHANNELS = 10_000
BEGIN = datetime(2024, 6, 30, 23, 59, 10, tzinfo=UTC)  # midnight comes after 50,000 events

PERSON, AUCTION, BID = range(3)


class Event(NamedTuple):
    kind: int  # PERSON, AUCTION or BID
    number: int
    time: str
    fields: dict[str, str | int]

    def json(self) -> str:
        """As the benchmark has it in Kafka: one topic, the event inside a field of its kind's name. The time is at the top
        too, because a stream has one event time."""
        inner = ", ".join(f'"{k}": "{v}"' if isinstance(v, str) else f'"{k}": {v}' for k, v in self.fields.items())
        name = ("person", "auction", "bid")[self.kind]
        return f'{{"event_type": {self.kind}, "dateTime": "{self.time}", "{name}": {{{inner}, "dateTime": "{self.time}"}}}}'


def _time(number: int) -> str:
    return f"{(BEGIN + timedelta(milliseconds=number)).isoformat(timespec='milliseconds')[:-6]}Z"


class _Generator:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.filler = "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz", k=100_000))
        self.hot_channels = [(name, self._url()) for name in ("Google", "Facebook", "Baidu", "Apple")]
        self.channels = [
            (f"channel-{i}", self._url() + (f"&channel_id={self.rng.getrandbits(31)}" if self._below(10) else ""))
            for i in range(CHANNELS)
        ]

    def _below(self, n: int) -> int:
        return int(self.rng.random() * n)

    def _words(self, limit: int, special: str = " ") -> str:
        """At least 3 and less than `limit` characters."""
        letters = "abcdefghijklmnopqrstuvwxyz" + 2 * special
        return "".join(self.rng.choices(letters, k=3 + self._below(limit - 3))).strip()

    def _url(self) -> str:
        return f"https://www.nexmark.com/{self._words(5, '_')}/{self._words(5, '_')}/{self._words(5, '_')}/item.htm?query=1"

    def _extra(self, used: int, average: int) -> str:
        left = max(average - used, 0)
        size = left - round(left * 0.2) + self._below(2 * round(left * 0.2) or 1)
        at = self._below(len(self.filler) - size)
        return self.filler[at : at + size]

    def _price(self) -> int:
        return round(10 ** (self.rng.random() * 6) * 100)

    @staticmethod
    def _persons(number: int) -> int:
        """How many there are, with this event's."""
        return number // ROUND * PERSONS + PERSONS

    @staticmethod
    def _auctions(number: int) -> int:
        return number // ROUND * AUCTIONS + min(max(number % ROUND - PERSONS + 1, 0), AUCTIONS)

    def _some_person(self, number: int) -> int:
        persons = self._persons(number)
        active = min(persons, ACTIVE_PERSONS)
        return persons - active + self._below(active + LEAD)

    def _some_auction(self, number: int) -> int:
        last = self._auctions(number) - 1
        first = max(last - AUCTIONS_IN_FLIGHT, 0)
        return first + self._below(last - first + 1 + LEAD)

    def _hot(self, count: int) -> int:
        return (count - 1) // HOT_BATCH * HOT_BATCH

    def _person(self, number: int) -> dict[str, str | int]:
        rng = self.rng
        person: dict[str, str | int] = {
            "id": FIRST_ID + self._persons(number) - 1,
            "name": f"{rng.choice(('Peter', 'Paul', 'Luke', 'John', 'Saul', 'Vicky', 'Kate', 'Julie', 'Sarah', 'Deiter', 'Walter'))} "
            f"{rng.choice(('Shultz', 'Abrams', 'Spencer', 'White', 'Bartels', 'Walton', 'Smith', 'Jones', 'Noris'))}",
            "emailAddress": f"{self._words(7)}@{self._words(5)}.com",
            "creditCard": " ".join(f"{self._below(10_000):04}" for _ in range(4)),
            "city": rng.choice(("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne")),
            "state": rng.choice(("AZ", "CA", "ID", "OR", "WA", "WY")),
        }  # fmt: skip
        person["extra"] = self._extra(8 + sum(len(str(v)) for v in list(person.values())[1:]), 200)
        return person

    def _auction(self, number: int) -> dict[str, str | int]:
        seller = self._hot(self._persons(number)) if self._below(4) else self._some_person(number)
        initial = self._price()
        name, description = self._words(20), self._words(100)
        horizon = AUCTIONS_IN_FLIGHT * ROUND // AUCTIONS  # events, and so milliseconds, until so many auctions later
        return {
            "id": FIRST_ID + self._auctions(number) - 1,
            "itemName": name,
            "description": description,
            "initialBid": initial,
            "reserve": initial + self._price(),
            "expires": _time(number + 1 + self._below(2 * horizon)),
            "seller": FIRST_ID + seller,
            "category": FIRST_CATEGORY + self._below(CATEGORIES),
            "extra": self._extra(48 + len(name) + len(description), 500),
        }

    def _bid(self, number: int) -> dict[str, str | int]:
        # The hot bidder is another one than the hot seller.
        auction = self._hot(self._auctions(number)) if self._below(2) else self._some_auction(number)
        bidder = self._hot(self._persons(number)) + 1 if self._below(4) else self._some_person(number)
        channels = self.hot_channels if self._below(2) else self.channels
        channel, url = channels[self._below(len(channels))]
        return {
            "auction": FIRST_ID + auction,
            "bidder": FIRST_ID + bidder,
            "price": self._price(),
            "channel": channel,
            "url": url,
            "extra": self._extra(32, 100),
        }

    def event(self, number: int) -> Event:
        at = number % ROUND
        if at < PERSONS:
            return Event(PERSON, number, _time(number), self._person(number))
        if at < PERSONS + AUCTIONS:
            return Event(AUCTION, number, _time(number), self._auction(number))
        return Event(BID, number, _time(number), self._bid(number))


def events(count: int, seed: int = 1) -> Iterator[Event]:
    generator = _Generator(seed)
    return (generator.event(number) for number in range(count))
