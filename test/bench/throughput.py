"""How fast a topic becomes answers: the limit program, streamext, and what is done by hand; everything is verified."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.wait import wait_for
from measure import Cost
from plant import TOPIC, Plant
from queries import QUERIES, TUMBLING, Query

LIMITS = {"raw": "consume", "parse": "consume and parse", "aggregate": "consume, parse, aggregate"}
BYHAND = {
    "copy": "COPY into an unlogged table, GROUP BY",
    "staged": "micro-batched upsert through a staging table",
    "upsert": "micro-batched upsert of array parameters",
    "fold": "upsert of groups folded by the client",
}
BATCH = 50_000  # records


@dataclass
class Result:
    name: str
    title: str
    run: int
    records: int
    seconds: float
    cpu: float  # CPU-seconds, all processes but the broker
    peak: int  # bytes
    broker: float
    others: float
    note: str = ""

    @property
    def rate(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_per_million(self) -> float:
        return self.cpu / self.records * 1e6


@dataclass
class Throughput:
    plant: Plant
    perf: Path | None = None  # where profiles of the workers go

    def tasks(self, run: int, wanted: Callable[[str], bool]) -> Iterator[Callable[[], Result]]:
        """What one run measures. The limit is taken at both ends of it, because the machine is not the same all the time."""
        for what in LIMITS:
            if what == "aggregate" or wanted(what):
                yield partial(self.limit, run, what)
        for name, query in QUERIES.items():
            if wanted(name):
                yield partial(self.streamext, run, name, query)
        for what in BYHAND:
            if wanted(what):
                yield partial(self.byhand, run, what)
        yield partial(self.limit, run, "aggregate")

    def least_disturbed(self, task: Callable[[], Result], most: float, tries: int = 5) -> Result:
        """Measures again while others take more than that share of the machine; the decision never looks at the result."""
        found = [task()]
        while found[-1].others > most and len(found) < tries:
            found.append(task())
        return min(found, key=lambda result: result.others)

    def _result(self, name: str, title: str, run: int, cost: Cost, seconds: float = 0, note: str = "") -> Result:
        return Result(
            name, title, run, self.plant.load.records, seconds or cost.seconds, cost.cpu, cost.peak, cost.broker, cost.others, note
        )

    def limit(self, run: int, what: str) -> Result:
        """By the program's own clock, that starts with the first fetch."""
        plant = self.plant
        with plant.meter(server=False) as meter:
            output = meter.run([plant.programs["limit"], plant.kafka.brokers, TOPIC, str(plant.load.records), what])
        printed = json.loads(output)
        if what == "aggregate":
            answer = plant.answer(TUMBLING)
            expected = plant.db.rows(f"SELECT sum(n), sum(n * mean), count(*) FROM {answer}")[0]
            assert (printed["counts"], printed["sums"], printed["groups"]) == expected, f"{printed} is not {expected}"
        return self._result(what, f"limit: {LIMITS[what]}", run, meter.cost, printed["seconds"])

    def streamext(self, run: int, name: str, query: Query) -> Result:
        """From CREATE, stream and views in one transaction, until flush() returns."""
        plant = self.plant
        for view in query.views:
            if not plant.can(view):
                return self._result(name, query.title, run, Cost(), note=f"skipped, needs {', '.join(view.needs)}")
            plant.answer(view)
        plant.restart()
        db = plant.db
        with plant.meter() as meter:
            plant.create_stream(db, TOPIC, query.views)
            profile = self._profile(name)
            db.flush("s")
        if profile:
            profile()
        plant.verify_stream(db, query.views)
        state = db.value("SELECT sum(state_bytes)::bigint FROM streamext.continuous_views")
        db.execute("DROP FOREIGN TABLE s CASCADE")
        return self._result(name, query.title, run, meter.cost, note=f"state {state / 1e6:.0f} MB")

    def _profile(self, name: str) -> Callable[[], None] | None:
        """Starts perf on the stream's worker; the result ends it."""
        if self.perf is None:
            return None
        db = self.plant.db
        pid = wait_for(lambda: db.value("SELECT max(pid) FROM streamext.workers"), what="a worker")
        data = self.perf / f"{name}.data"
        perf = subprocess.Popen(["perf", "record", "-q", "-F", "1999", "-g", "-p", str(pid), "-o", data], stderr=subprocess.DEVNULL)

        def end() -> None:
            perf.send_signal(2)
            perf.wait()
            with (self.perf / f"{name}.txt").open("w") as report:
                subprocess.run(
                    ["perf", "report", "-i", data, "--no-children", "--sort", "comm,dso,symbol", "-g", "none", "--stdio", "--percent-limit", "0.3"],
                    stdout=report, stderr=subprocess.DEVNULL,
                )  # fmt: skip

        return end

    def byhand(self, run: int, what: str) -> Result:
        """With copy, the query's time is in it: that is when the answer is there."""
        plant = self.plant
        plant.answer(TUMBLING)
        plant.restart()
        db = plant.db
        db.execute("DROP TABLE IF EXISTS byhand_events, byhand_staging, byhand_groups")
        db.execute(
            "CREATE UNLOGGED TABLE byhand_events (device text, site text, ts timestamptz, temperature float8, humidity float8)"
        )
        db.execute("CREATE UNLOGGED TABLE byhand_staging (device text, ts timestamptz, temperature float8)")
        db.execute(
            """CREATE UNLOGGED TABLE byhand_groups (device text, w timestamptz, n bigint, total float8, low float8, high float8,
            PRIMARY KEY (device, w)) WITH (fillfactor = 50)"""
        )
        note = f"batches of {BATCH:,}"
        with plant.meter() as meter:
            meter.run(
                [plant.programs["byhand"], plant.kafka.brokers, TOPIC, str(plant.load.records),
                 plant.conninfo, what, str(BATCH)]
            )  # fmt: skip
            if what == "copy":
                start = time.monotonic()
                db.execute(f"CREATE UNLOGGED TABLE byhand_groups_copied AS {TUMBLING.query.format(source='byhand_events')}")
                note += f", the query {time.monotonic() - start:.2f} s"
        actual = "TABLE byhand_groups_copied" if what == "copy" else "SELECT device, w, n, total / n, low, high FROM byhand_groups"
        plant.verify(db, TUMBLING, actual)
        db.execute("DROP TABLE IF EXISTS byhand_events, byhand_staging, byhand_groups, byhand_groups_copied")
        return self._result(what, BYHAND[what], run, meter.cost, note=note)
