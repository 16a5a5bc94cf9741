"""python -m crash: `make crash ROUNDS=200 ARGS='--rate 20000 --seed 1'`. Ends non-zero if a round is wrong."""

import argparse
import faulthandler
import random
import signal
import statistics
import sys
import time
import traceback
from collections import defaultdict
from contextlib import ExitStack

from crash.faults import Faults
from crash.flume_load import FlumeLoad
from crash.http_load import HttpLoad
from crash.kafka_load import KafkaLoad
from crash.load import Load
from crash.local_load import LocalLoad
from crash.mqtt_load import MqttLoad
from crash.rounds import Plan, Round, run
from crash.sink_load import NOT_YET, SinkLoad
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres


# On a busy machine heartbeats are late by seconds, and a broker that is fenced has no leaders: it is never ready.
PATIENT = {"broker.session.timeout.ms": 6000, "broker.heartbeat.interval.ms": 500}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no round begins later; what was run until then is reported")
    parser.add_argument("--rate", type=int, default=20_000, help="Kafka messages a second")
    parser.add_argument("--mqtt-rate", type=int, default=200, help="MQTT messages a second of each QoS")
    parser.add_argument("--source", action="append", choices=["kafka", "mqtt", "local", "http", "flume", "sinks"], help="only these; may be given more than once")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--group", type=int, default=10, help="rounds with the same streams and views")
    parser.add_argument("--fault", action="append", help="only these; may be given more than once")
    parser.add_argument("--keep", action="store_true", help="leave the servers' directories when a round is wrong")
    return parser.parse_args()


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.2f}/{max(values):.2f}"


def report(rounds: list[Round], loads: list[Load]) -> int:
    """The closing table; how many rounds were wrong."""
    by_fault: dict[str, list[Round]] = defaultdict(list)
    for round in rounds:
        for fault in round.faults:
            by_fault[fault].append(round)
    print(f"\n{'fault':<40} rounds  wrong  recovery p50/max s")
    for fault, hit in sorted(by_fault.items()):
        print(f"{fault:<40} {len(hit):6} {sum(bool(r.wrong) for r in hit):6}  {_median([r.recovery for r in hit])}")
    for load in loads:
        print(f"{load.name}: {load.sent():,} sent")
    wrong = sum(bool(r.wrong) for r in rounds)
    if not rounds:
        print("no round was finished")
        return 0
    print(f"{len(rounds)} rounds, {wrong} wrong, recovery {_median([r.recovery for r in rounds])} s, check {_median([r.check for r in rounds])} s")
    return wrong


def _end_with_a_verdict() -> None:
    """Whatever ends the run says so: a signal as an exception, a fault of a client library by the stacks of all threads."""

    def end(number: int, _: object) -> None:
        raise SystemExit(f"ended by {signal.Signals(number).name}")

    faulthandler.enable()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)


def _say(round: Round) -> None:
    print(f"{round.number:4}  {round.recovery:6.2f} s  checked in {round.check:5.1f} s  {', '.join(round.faults)}", flush=True)
    for line in round.wrong:
        print(f"      {'' if NOT_YET in line else 'WRONG '}{line}", flush=True)


def main() -> int:
    options = arguments()
    _end_with_a_verdict()
    rng = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    with ExitStack() as stack:
        pg = stack.enter_context(Postgres(settings={"streamext.memory_limit": "1GB", "max_wal_size": "4GB"}))
        sources = options.source or ["kafka", "mqtt", "local", "http", "flume"]
        kafka = stack.enter_context(Kafka(config=PATIENT)) if {"kafka", "sinks"} & {*sources} else None
        mosquitto = stack.enter_context(Mosquitto(inflight=1000)) if "mqtt" in sources else None
        loads: list[Load] = []
        if kafka and "kafka" in sources:
            loads.append(KafkaLoad(kafka, random.Random(options.seed), options.rate))
        if kafka and "sinks" in sources:
            loads.append(SinkLoad(kafka, random.Random(options.seed), options.rate))
        if mosquitto:
            loads.append(MqttLoad(mosquitto, options.mqtt_rate))
        if "local" in sources:
            loads.append(LocalLoad(random.Random(options.seed)))
        if "http" in sources:
            loads.append(HttpLoad(random.Random(options.seed)))
        if "flume" in sources:
            loads.append(FlumeLoad(random.Random(options.seed)))
        faults = Faults(rng, pg, "crash", kafka, mosquitto, hold=4, wait=5, gateways="http" in sources or "flume" in sources, sinks="sinks" in sources)
        for name in options.fault or []:
            if name not in faults.names():
                raise SystemExit(f"no fault {name!r}; there are: {', '.join(faults.names())}")
        rounds: list[Round] = []
        plan = Plan(options.rounds, options.group, among=options.fault, seconds=options.seconds)
        try:
            for round in run(plan, rng, pg, loads, faults, "crash"):
                rounds.append(round)
                _say(round)
        except BaseException as error:  # of the harness, or a signal: what was run until then counts, and the run is not complete
            traceback.print_exc()
            report(rounds, loads)
            print(f"NOT COMPLETE: {len(rounds)} of {options.rounds} rounds: {type(error).__name__}: {error}", flush=True)
            return 2
        if rounds and rounds[-1].wrong and options.keep:
            print(f"left in {pg.dir}; Enter ends the servers")
            input()
        return 1 if report(rounds, loads) else 0


if __name__ == "__main__":
    sys.exit(main())
