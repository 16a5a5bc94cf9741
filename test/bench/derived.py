"""Ten views on a derived stream, which filters, casts and masks once, against ten views on the stream with the expressions repeated in each."""

from plant import TOPIC, Plant
from queries import View

OUTPUTS = {
    "device": "upper(device)",
    "mask": "left(md5(site), 8)",
    "ts": "ts",
    "kelvin": "(temperature + 273.15)::numeric(6, 2)::float8",
    "damp": "width_bucket(humidity, 0, 100, 20)",
}
WHERE = "temperature > -20 AND device LIKE 'device%'"
# by what, and what of it; each by ten seconds too
VIEWS = [
    (keys, aggregates)
    for keys in ("device", "mask", "damp", "device, mask", "mask, damp")
    for aggregates in ("count(*) AS n, avg(kelvin) AS mean", "count(*) AS n, max(kelvin) AS peak, min(damp) AS low")
]


def _query(keys: str, aggregates: str, source: str) -> str:
    return f"SELECT {keys}, streamext.tumble('10 s', ts) AS w, {aggregates} FROM {source} GROUP BY {keys}, w"


def _rows(source: str) -> str:
    return f"SELECT {', '.join(f'{expr} AS {name}' for name, expr in OUTPUTS.items())} FROM {source} WHERE {WHERE}"


def _streams(derived: bool) -> tuple[View, ...]:
    first = (View("clean", _rows("{source}")),) if derived else ()
    source = "clean" if derived else f"({_rows('{source}')}) AS clean"
    return first + tuple(View(f"v{i}", _query(keys, aggregates, source)) for i, (keys, aggregates) in enumerate(VIEWS))


def measure(plant: Plant) -> list[dict[str, object]]:
    """Both ways, each compared with PostgreSQL's own answer."""
    plant.produce(TOPIC)
    plant.fill_table()
    found = []
    for derived in (False, True):
        plant.restart()
        db = plant.db
        with plant.meter() as meter:
            plant.create_stream(db, TOPIC, _streams(derived))
            db.flush("s")
        for i, (keys, aggregates) in enumerate(VIEWS):
            db.assert_same(f"TABLE v{i}", _query(keys, aggregates, f"({_rows('o')}) AS clean"))
        cost = meter.cost
        found.append({"derived": derived, "rate": plant.load.records / cost.seconds, "cpu_per_million": cost.cpu / plant.load.records * 1e6, "others": cost.others})
        db.execute("DROP FOREIGN TABLE s CASCADE")
    return found


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    repeated, derived = results
    lines = ["| ten views on | records/s | CPU-s per million | others |", "| --- | ---: | ---: | ---: |"]
    for name, r in (("the stream, expressions repeated", repeated), ("a derived stream", derived)):
        lines.append(f"| {name} | {r['rate']:,.0f} | {r['cpu_per_million']:.2f} | {r['others']:.0%} |")
    lines.append(f"\nrate {derived['rate'] / repeated['rate']:.2f} (≥ 0.8), CPU {derived['cpu_per_million'] / repeated['cpu_per_million']:.2f} of the repeated")
    return "\n".join(lines)
