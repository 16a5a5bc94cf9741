"""Tables, JSON and a chart of what was measured."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from throughput import BYHAND, LIMITS, Result


def machine() -> str:
    """The machine and what runs on it."""
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return f"{os.cpu_count()} cores ({cpu}), {pages / 2**30:.0f} GB, Linux {platform.release()}; streamext {commit.stdout.strip() or 'unknown'}"


# At least this part of the limit's rate, at most this multiple of its CPU (issue 6).
TARGETS: dict[str, tuple[float, float | None]] = {"q1": (0.70, 1.6), "q2": (0.70, 1.6), "q3": (0.5, None), "q6": (0.35, None)}
UPSERT_TARGET = (2.5, 0.5)  # times the rate of a micro-batched upsert, at less than this part of its CPU


@dataclass
class Figure:
    """Median, least and most of the runs."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> "Figure":
        return Figure(statistics.median(values), min(values), max(values))

    def text(self, pattern: str = "{:,.2f}") -> str:
        text = pattern.format(self.median)
        return text if self.least == self.most else f"{text} ({pattern.format(self.least)}–{pattern.format(self.most)})"


@dataclass
class Row:
    name: str
    title: str
    rate: Figure  # records a second
    cpu: Figure  # CPU-seconds a million records
    peak: Figure  # MB
    ratio: Figure  # of the rate to that of the limit's aggregate in the same run
    cpu_ratio: Figure
    others: Figure
    note: str
    target: tuple[float, float | None] | None  # of ratio and cpu_ratio


def rows(results: Sequence[Result]) -> list[Row]:
    """One for each thing measured, in the order of measuring."""
    limits = {}
    for run in {result.run for result in results}:
        both = [result for result in results if result.run == run and result.name == "aggregate"]
        limits[run] = (
            sum(r.records for r in both) / sum(r.seconds for r in both), sum(r.cpu for r in both) / sum(r.records for r in both) * 1e6,
        )  # fmt: skip
    found = []
    for name in dict.fromkeys(result.name for result in results):
        of = [result for result in results if result.name == name and result.seconds]
        if of:
            found.append(
                Row(
                    name,
                    of[0].title,
                    Figure.of([r.rate for r in of]),
                    Figure.of([r.cpu_per_million for r in of]),
                    Figure.of([r.peak / 1e6 for r in of]),
                    Figure.of([r.rate / limits[r.run][0] for r in of]),
                    Figure.of([r.cpu_per_million / limits[r.run][1] for r in of]),
                    Figure.of([r.others * 100 for r in of]),
                    of[0].note,
                    TARGETS.get(name),
                )
            )
    return found


def table(results: Sequence[Result]) -> str:
    """In Markdown."""
    lines = [
        "| | what | records/s | CPU-s per million | peak MB | rate / limit | CPU / limit | others % | |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows(results):
        rate, cpu = row.target or (None, None)
        lines.append(
            f"| {row.name} | {row.title} | {row.rate.text('{:,.0f}')} | {row.cpu.text()} | {row.peak.text('{:,.0f}')} |"
            f" {row.ratio.text()}{f' (≥ {rate:.2f})' if rate else ''} | {row.cpu_ratio.text()}{f' (≤ {cpu:.1f})' if cpu else ''} |"
            f" {row.others.text('{:.0f}')} | {row.note} |"
        )
    lines += [f"| {r.name} | {r.title} | | | | | | | {r.note} |" for r in results if not r.seconds]
    return "\n".join(lines)


def versus(results: Sequence[Result]) -> list[dict[str, object]]:
    """The tumbling view, which is what is done by hand, against each way of doing it, run by run."""
    by = {(result.name, result.run): result for result in results if result.seconds}
    found = []
    for name in BYHAND:
        pairs = [(by["q1", run], by[name, run]) for run in sorted({r.run for r in results}) if ("q1", run) in by and (name, run) in by]
        if pairs:
            rate = Figure.of([ours.rate / theirs.rate for ours, theirs in pairs])
            cpu = Figure.of([ours.cpu / theirs.cpu for ours, theirs in pairs])
            found.append({"name": name, "title": BYHAND[name], "rate": asdict(rate), "cpu": asdict(cpu)})
    return found


def versus_table(found: Sequence[dict[str, object]]) -> str:
    """In Markdown."""
    rate, cpu = UPSERT_TARGET
    lines = [f"| q1 against | | rate (≥ {rate} of the upserts') | CPU (< {cpu} of the upserts') |", "| --- | --- | ---: | ---: |"]
    lines += [f"| {r['name']} | {r['title']} | {Figure(**r['rate']).text()} | {Figure(**r['cpu']).text()} |" for r in found]
    return "\n".join(lines)


def write_json(path: Path, parameters: dict[str, object], results: Sequence[Result], further: dict[str, object]) -> None:
    document = {
        "machine": machine(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
        "summary": [asdict(row) for row in rows(results)] if results else [],
        "versus": versus(results),
        "results": [asdict(result) for result in results],
    } | further
    path.write_text(json.dumps(document, indent=1) + "\n")


def write_chart(path: Path, document: dict[str, object]) -> None:
    """Two panels of bars, records a second and CPU-seconds a million, as SVG; from what write_json() wrote."""
    from matplotlib import pyplot  # `make bench` alone has it (test/deps)

    summary = document["summary"]
    titles = [row["title"] if row["name"] in LIMITS or row["name"] in BYHAND else f"streamext: {row['title']}" for row in summary]
    colours = ["#9aa5b1" if row["name"] in LIMITS else "#c98a4b" if row["name"] in BYHAND else "#2f6db5" for row in summary]
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "streamext", "font.size": 9})
    figure, panels = pyplot.subplots(1, 2, sharey=True, figsize=(12, 1.2 + 0.25 * len(summary)), layout="constrained")
    for axes, (key, heading, scale) in zip(panels, [("rate", "records a second, millions", 1e-6), ("cpu", "CPU-seconds per million records", 1.0)]):
        median, least, most = ([row[key][part] * scale for row in summary] for part in ("median", "least", "most"))
        ranges = [[m - low for m, low in zip(median, least)], [high - m for m, high in zip(median, most)]]
        bars = axes.barh(titles, median, color=colours, xerr=ranges, ecolor="#222")
        axes.bar_label(bars, fmt="%.2f", padding=4)
        axes.set_title(heading, loc="left")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.supxlabel(f"{document['parameters']['records']:,} records; bars: median, lines: range of the runs\n{document['machine']}", x=0, ha="left", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
