"""A view over a view, hours out of finer windows, against the inner view alone. What it adds is a cost of each closed row, so by records a closed row."""

from plant import TOPIC, Plant
from queries import View

SIZES = ("1 min", "6 s", "1 s")  # of the inner windows
RUNS = 3
INNER = "SELECT device, streamext.tumble('{size}', ts) AS w, count(*) AS n, sum(temperature) AS total, max(temperature) AS peak FROM {source} GROUP BY device, w"
OUTER = "SELECT device, date_trunc('hour', w) AS hour, sum(n) AS n, avg(total) AS mean, max(peak) AS peak FROM {source} GROUP BY device, hour"
CLOSED = "w < (SELECT max(w) FROM fine)"  # the last ones are open


def _run(plant: Plant, size: str, chained: bool) -> tuple[float, int]:
    """CPU-seconds of the server, and the closed rows."""
    plant.restart()
    db = plant.db
    views = (View("fine", INNER.format(size=size, source="{source}")),)
    if chained:
        views += (View("hours", OUTER.format(source="fine")),)
    with plant.meter() as meter:
        plant.create_stream(db, TOPIC, views)
        db.flush("s")
    if chained:
        given = db.value("SELECT min(written_until) FROM streamext_internal.flow")
        fine = INNER.format(size=size, source="o")
        db.assert_same("TABLE hours", OUTER.format(source=f"(SELECT * FROM ({fine}) f WHERE w + interval '{size}' <= '{given}') q"))
    closed = db.value(f"SELECT count(*) FROM fine WHERE {CLOSED}")
    db.execute("DROP FOREIGN TABLE s CASCADE")
    return meter.cost.cpu, closed


def measure(plant: Plant) -> list[dict[str, object]]:
    plant.produce(TOPIC)
    plant.fill_table()
    found = []
    for size in SIZES:
        runs = [(_run(plant, size, False), _run(plant, size, True)) for _ in range(RUNS)]
        inner, both = (sum(run[i][0] for run in runs) / RUNS for i in (0, 1))
        found.append({"size": size, "records": plant.load.records, "closed": runs[0][1][1], "inner": inner, "both": both})
    return found


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = ["| inner windows | records a closed row | closed rows | inner alone, CPU-s | with hours, CPU-s | more | µs a closed row |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for r in results:
        more = r["both"] - r["inner"]
        lines.append(f"| {r['size']} | {r['records'] / r['closed']:.1f} | {r['closed']:,} | {r['inner']:.2f} | {r['both']:.2f} | {more / r['inner']:.0%} | {more / r['closed'] * 1e6:.2f} |")
    return "\n".join(lines)
