"""Rounds of random faults under load; `make crash ROUNDS=200` runs more of them, at a higher rate.

STREAMEXT_CRASH_SEED repeats a run's choices, STREAMEXT_CRASH_ROUNDS sets how many there are."""

import os
import random
import time

import pytest

from crash.faults import Faults
from crash.flume_load import FlumeLoad
from crash.http_load import HttpLoad
from crash.kafka_load import KafkaLoad
from crash.local_load import LocalLoad
from crash.mqtt_load import MqttLoad
from crash.rounds import Plan, run
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres

SEED = int(os.environ.get("STREAMEXT_CRASH_SEED", time.time_ns() % 1_000_000))
ROUNDS = int(os.environ.get("STREAMEXT_CRASH_ROUNDS", "12"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_lost_nothing_twice() -> None:
    print(f"STREAMEXT_CRASH_SEED={SEED}")
    rng = random.Random(SEED)
    with Postgres() as pg, Kafka() as kafka, Mosquitto(inflight=1000) as mosquitto:
        loads = [
            KafkaLoad(kafka, random.Random(SEED), rate=2000, devices=100),
            MqttLoad(mosquitto, rate=100),
            LocalLoad(random.Random(SEED)),
            HttpLoad(random.Random(SEED), senders=2),
            FlumeLoad(random.Random(SEED), senders=1, idle=0.05),
        ]
        plan = Plan(ROUNDS, group=15, calm=0.4, twice=0.2)
        done = 0
        for round in run(plan, rng, pg, loads, Faults(rng, pg, "crash", kafka, mosquitto, hold=1, wait=1, gateways=True), "crash"):
            print(f"{round.number} {round.recovery:.2f} s {', '.join(round.faults)}")
            assert not round.wrong, f"seed {SEED}, round {round.number}: {round.faults}\n" + "\n".join(round.wrong)
            done += 1
        assert done == ROUNDS
