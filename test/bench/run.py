"""make bench ARGS='...': see docs/benchmark.md."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import programs
import report
from plant import TOPIC, Load, plant
from queries import QUERIES
from throughput import BYHAND, LIMITS, Throughput


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures streamext against the machine's limit and against what is done by hand.")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--size", type=int, default=0, help="bytes of a record at least (default: about 117)")
    parser.add_argument("--runs", type=int, default=1, help="median and range of so many")
    parser.add_argument("--only", default="", help=f"of {','.join([*LIMITS, *QUERIES, *BYHAND])}; the limit's aggregate is always there")
    parser.add_argument("--no-baselines", action="store_true", help="without what is done by hand")
    parser.add_argument("--memory-limit", default="2GB", help="streamext.memory_limit")
    parser.add_argument("--perf", type=Path, help="directory for profiles of the workers (slows them by some percent)")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--chart", type=Path, help="draw an SVG")
    parser.add_argument("--from-json", type=Path, help="only draw the chart of an earlier run's JSON")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
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
    results: list[report.Result] = []
    say(report.machine())
    with plant(programs.build(), load, args.memory_limit) as place:
        say(f"{load.records:,} records in {place.produce(TOPIC):.1f} s into {load.partitions} partitions")
        place.fill_table()
        throughput = Throughput(place, args.perf)
        for number in range(1, args.runs + 1):
            for result in throughput.run(number, wanted):
                results.append(result)
                if result.seconds:
                    say(
                        f"  run {number}  {result.name:10} {result.rate:12,.0f}/s  {result.cpu_per_million:6.2f} CPU-s/M"
                        f"  {result.peak / 1e6:6.0f} MB  others {result.others:4.0%}  {result.note}"
                    )
                else:
                    say(f"  run {number}  {result.name:10} {result.note}")
    say("")
    say(report.table(results))
    if args.json:
        report.write_json(args.json, asdict(load) | {"runs": args.runs}, results, {})
    if args.chart:
        document = {"summary": [asdict(row) for row in report.rows(results)], "parameters": asdict(load), "machine": report.machine()}
        report.write_chart(args.chart, document)


if __name__ == "__main__":
    main()
