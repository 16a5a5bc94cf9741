"""make bench ARGS='...': see docs/benchmark.md."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import chain
import channels
import delivery
import derived
import freshness
import groups
import history
import programs
import reading
import rejected
import report
import sources
from plant import TOPIC, Load, Plant, plant
from queries import QUERIES
from throughput import BYHAND, LIMITS, Result, Throughput


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures streamext against the machine's limit and against what is done by hand.")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--size", type=int, default=0, help="bytes of a record at least (default: about 117)")
    parser.add_argument("--runs", type=int, default=1, help="median and range of so many")
    parser.add_argument("--only", default="", help=f"of {','.join([*LIMITS, *QUERIES, *BYHAND])}; the limit's aggregate is always there")
    parser.add_argument("--no-baselines", action="store_true", help="without what is done by hand")
    parser.add_argument("--quiet", type=float, metavar="SHARE", help="measure again, at most 5 times, while others take more than this share of the machine, as 0.1")
    parser.add_argument("--groups", default="", metavar="N,...", help="instead: views of so many groups, as 1,10000,1000000")
    parser.add_argument("--reading", action="store_true", help="instead: pgbench on views and on tables")
    parser.add_argument("--freshness", action="store_true", help="instead: from produce to visible")
    parser.add_argument("--history", type=int, default=0, metavar="DAYS", help="instead: reading sealed one-minute windows of --devices keys")
    parser.add_argument("--shards", action="store_true", help="instead: 1, 2 and 4 workers on one topic")
    parser.add_argument("--mqtt", action="store_true", help="instead: MQTT at QoS 0, 1 and 2, and mosquitto_sub alone")
    parser.add_argument("--channels", action="store_true", help="instead: HTTP and feeds, and their libraries alone")
    parser.add_argument("--local", action="store_true", help="instead: INSERT and COPY into a local stream, and into an unlogged table")
    parser.add_argument("--delivery", action="store_true", help="instead: listeners of server-sent events, 10 and 1,000, and what a subscriber to changes costs")
    parser.add_argument("--derived", action="store_true", help="instead: ten views on a derived stream, and on the stream with the expressions repeated")
    parser.add_argument("--chain", action="store_true", help="instead: a view by hour over a view by minute, and the inner view alone")
    parser.add_argument("--rejected", action="store_true", help="instead: records that are rejected, by the stream or by a view")
    parser.add_argument("--seconds", type=int, default=0, help="of each measurement of --reading (default 5) and --freshness (60)")
    parser.add_argument("--memory-limit", default="2GB", help="streamext.memory_limit")
    parser.add_argument("--perf", type=Path, help="directory for profiles of the workers (slows them by some percent)")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--chart", type=Path, help="draw an SVG")
    parser.add_argument("--from-json", type=Path, help="only draw the chart of an earlier run's JSON")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, flush=True)


def measure_throughput(place: Plant, args: argparse.Namespace, wanted: Callable[[str], bool]) -> list[Result]:
    results = []
    say(f"{place.load.records:,} records in {place.produce(TOPIC):.1f} s into {place.load.partitions} partitions")
    place.fill_table()
    throughput = Throughput(place, args.perf)
    for run in range(1, args.runs + 1):
        for task in throughput.tasks(run, wanted):
            result = task() if args.quiet is None else throughput.least_disturbed(task, args.quiet)
            results.append(result)
            figures = (
                f"{result.rate:12,.0f}/s  {result.cpu_per_million:6.2f} CPU-s/M  {result.peak / 1e6:6.0f} MB  others {result.others:4.0%}  "
                if result.seconds
                else ""
            )
            say(f"  run {run}  {result.name:10} {figures}{result.note}")
    say("\n" + report.table(results))
    if found := report.versus(results):
        say("\n" + report.versus_table(found))
    return results


def measure_further(place: Plant, args: argparse.Namespace) -> dict[str, object]:
    """What was asked for instead of throughput."""
    found: dict[str, object] = {}
    if args.groups:
        found["groups"] = []
        for devices in map(int, args.groups.split(",")):
            found["groups"].append(groups.measure(place, devices))
            say(f"  {found['groups'][-1]}")
        say("\n" + groups.table(found["groups"]))
    if args.reading:
        found["reading"] = reading.measure(place, args.seconds or 5)
        say("\n" + reading.table(found["reading"]))
    for name, measure in (("shards", sources.shards), ("mqtt", sources.mqtt), ("local", sources.local)):
        if getattr(args, name):
            found[name] = measure(place)
            say("\n" + sources.table(found[name]))
    if args.channels:
        found["channels"] = channels.measure(place, args.seconds or 10)
        say("\n" + channels.table(found["channels"]))
    if args.delivery:
        found["delivery"] = delivery.measure(place, args.seconds or 20)
        say("\n" + delivery.table(found["delivery"]))
    if args.derived:
        found["derived"] = derived.measure(place)
        say("\n" + derived.table(found["derived"]))
    if args.chain:
        found["chain"] = chain.measure(place)
        say("\n" + chain.table(found["chain"]))
    if args.rejected:
        found["rejected"] = rejected.measure(place)
        say("\n" + rejected.table(found["rejected"]))
    if args.freshness:
        found["freshness"] = freshness.measure(place, args.seconds or 60)
        say("\n" + freshness.table(found["freshness"]))
    if args.history:
        found["history"] = history.measure(place, args.history)
        say("\n" + history.table(found["history"]))
    return found


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # the servers are stopped and removed
    args = arguments()
    if args.from_json:
        report.write_chart(args.chart, json.loads(args.from_json.read_text()))
        return
    only = set(filter(None, args.only.split(",")))
    if unknown := only - {*LIMITS, *QUERIES, *BYHAND}:
        sys.exit(f"not known: {', '.join(sorted(unknown))}")

    def wanted(name: str) -> bool:
        return name in only if only else not (args.no_baselines and name in BYHAND)

    if args.perf:
        args.perf.mkdir(parents=True, exist_ok=True)
    load = Load(args.records, args.devices, args.partitions, args.size)
    results: list[Result] = []
    say(report.machine())
    with plant(programs.build(), load, args.memory_limit) as place:
        further = measure_further(place, args)
        if not further:
            results = measure_throughput(place, args, wanted)
    if args.json:
        report.write_json(args.json, asdict(load) | {"runs": args.runs}, results, further)
    if args.chart and results:
        document = {"summary": [asdict(row) for row in report.rows(results)], "parameters": asdict(load), "machine": report.machine()}
        report.write_chart(args.chart, document)


if __name__ == "__main__":
    main()
