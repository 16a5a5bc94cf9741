"""Rounds: under load a fault or two, then every view is compared with a recount."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psycopg

from crash.faults import Faults
from crash.load import Load
from harness.database import Database
from harness.postgres import Postgres
from harness.wait import wait_for

FLUSH = 300  # seconds until the views must have caught up: for what never comes


@dataclass
class Round:
    number: int
    faults: list[str]
    recovery: float = 0  # seconds from the servers' accepting connections until flush returned
    check: float = 0  # seconds that the comparison with a recount took
    wrong: list[str] = field(default_factory=list)


@dataclass
class Plan:
    rounds: int
    group: int = 10  # rounds with the same streams and views; then new ones
    calm: float = 1.5  # seconds of load before the fault, about
    twice: float = 0.3  # how often a second fault follows the first
    among: list[str] | None = None  # faults; None: all
    seconds: float = float("inf")  # no round begins later than that after the first


def _flush(pg: Postgres, database: str, streams: Sequence[str]) -> None:
    """Returns when all that the sources held at the call is counted. A server that has just come up may not know all yet."""

    def flushed() -> bool:
        try:
            with pg.connect(database) as connection:
                for stream in streams:
                    connection.execute("SELECT streamext.flush(%s)", (stream,))
            return True
        except psycopg.Error:
            return False

    wait_for(flushed, FLUSH, "flush")


def _round(number: int, plan: Plan, rng: random.Random, db: Database, loads: Sequence[Load], faults: Faults) -> Round:
    chosen = [faults.choose(plan.among)]
    if rng.random() < plan.twice:
        chosen.append(faults.choose(plan.among))
    result = Round(number, chosen)
    streams = [stream for load in loads for stream in load.streams]
    for load in loads:
        load.resume()
    for fault in chosen:
        time.sleep(rng.uniform(0.2, 1.8) * plan.calm)
        for load in loads:
            if fault.startswith(load.name):
                load.broker_dies()
        faults.happen(fault)
    begin = time.monotonic()
    try:
        _flush(db.server, db.name, streams)
        result.recovery = time.monotonic() - begin
        for load in loads:
            load.pause()
        _flush(db.server, db.name, streams)
        begin_check = time.monotonic()
        checked = Database(db.server, db.name)
        for load in loads:
            result.wrong += [f"{load.name}: {line}" for line in load.check(checked)]
        checked.connection.close()
        result.check = time.monotonic() - begin_check
    except (TimeoutError, RuntimeError) as error:
        result.recovery = time.monotonic() - begin
        result.wrong.append(str(error))
    return result


def run(plan: Plan, rng: random.Random, pg: Postgres, loads: Sequence[Load], faults: Faults, name: str) -> Iterator[Round]:
    """Yields each round as it is over; ends with the first that is wrong, or when time is over. The database `name` is made anew for each group."""
    end = time.monotonic() + plan.seconds
    for number in range(plan.rounds):
        if number and time.monotonic() > end:
            break
        if number % plan.group == 0:
            if number:
                for load in loads:
                    load.end()
                pg.psql(f"DROP DATABASE {name} WITH (FORCE)")
            pg.psql(f"CREATE DATABASE {name}")
            pg.psql("CREATE EXTENSION streamext", name)
            db = Database(pg, name)
            db.execute(f"ALTER SYSTEM SET streamext.checkpoint_interval = {rng.choice([50, 250, 1000])}")
            pg.reload()
            for load in loads:
                load.begin(db)
            db.connection.close()
        result = _round(number + 1, plan, rng, db, loads, faults)
        yield result
        if result.wrong:
            break
    for load in loads:
        load.end()
