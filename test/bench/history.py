"""Reading a long history: one-minute windows of so many keys over so many days, sealed. Every figure is checked."""

import time
from datetime import UTC, datetime, timedelta

from harness.database import Database
from harness.wait import wait_for
from plant import Plant

START = datetime(2023, 1, 1, tzinfo=UTC)
RUNS = 3

# Readings are integers, so that sums are exact in any order: key k has (k * 7 + minute) % 1000 in each minute.
FILL = """INSERT INTO s SELECT 'device-' || lpad(k::text, 4, '0'), '{start}'::timestamptz + m * interval '1 minute', (k * 7 + m) % 1000
    FROM generate_series({first}, {last} - 1) AS m, generate_series(0, {keys} - 1) AS k"""

VIEW = """CREATE VIEW {name} WITH (streamext.continuous) AS SELECT device, streamext.tumble('{size}', ts) AS w, count(*) AS n,
    avg(reading) AS mean, max(reading) AS peak FROM s GROUP BY device, w"""


def fill(db: Database, days: int, keys: int) -> float:
    """The seconds until all but the last minute is in history."""
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    db.execute("CREATE FOREIGN TABLE s (device text, ts timestamptz, reading float8) SERVER here OPTIONS (event_time 'ts', buffer_size '0')")
    db.execute(VIEW.format(name="minutes", size="1 minute"))
    db.execute(VIEW.format(name="hours", size="1 hour"))
    began = time.monotonic()
    hours = 6
    for hour in range(0, days * 24, hours):
        db.execute(FILL.format(start=START, first=hour * 60, last=(hour + hours) * 60, keys=keys))
        db.flush("s")
    sealed = "SELECT history_panes FROM streamext.continuous_views WHERE view = 'minutes'::regclass"
    wait_for(lambda: db.value(sealed) == days * 1440 - 1, 3600, what="history")
    return time.monotonic() - began


def queries(days: int, keys: int) -> dict[str, tuple[str, int]]:
    """Name to query, and how many windows it must count."""
    end = START + timedelta(days=days)
    month = min(days, 30)

    def since(**length: int) -> str:
        return f"w >= '{end - timedelta(**length)}'"

    one = "device = 'device-0042'"
    total = "SELECT sum(n) FROM minutes WHERE"
    by_hour = "SELECT sum(n) FROM (SELECT date_trunc('hour', w) AS h, sum(n) AS n, max(peak) FROM minutes WHERE {} GROUP BY h) AS q"
    return {
        "last hour, all keys": (f"{total} {since(hours=1)}", 60 * keys),
        "last hour, one key": (f"{total} {since(hours=1)} AND {one}", 60),
        "one key, a day": (f"{total} {since(days=1)} AND {one}", 1440),
        f"one key, {month} days": (f"{total} {since(days=month)} AND {one}", 1440 * month),
        f"one key, all {days} days by hour": (by_hour.format(one), 1440 * days),
        "all keys, a day by hour": (by_hour.format(since(days=1)), 1440 * keys),
        f"all keys, all {days} days by hour": (by_hour.format("true"), 1440 * days * keys),
        "the same of a view by hour": (by_hour.format("true").replace("minutes", "hours"), 1440 * days * keys),
    }


def measure(place: Plant, days: int) -> list[dict[str, object]]:
    keys = place.load.devices
    db = place.db
    seconds = fill(db, days, keys)
    db.execute("VACUUM ANALYZE streamext_internal.history")
    (size,) = db.rows("SELECT pg_table_size('streamext_internal.history'), pg_indexes_size('streamext_internal.history'), count(*) FROM streamext_internal.history")
    groups = days * 1440 * keys
    print(f"  {days} days, {groups:,} windows in {seconds:.0f} s; table {size[0] / 1e6:,.0f} MB ({size[0] / groups:.1f} bytes a window), "
          f"index {size[1] / 1e6:,.0f} MB, {size[2]:,} slices", flush=True)  # fmt: skip
    found = []
    for name, (query, expected) in queries(days, keys).items():
        times = []
        for _ in range(RUNS if expected < 100_000_000 else 1):
            began = time.monotonic()
            assert db.value(query) == expected, name
            times.append(time.monotonic() - began)
        found.append({"days": days, "keys": keys, "query": name, "windows": expected, "ms": sorted(times)[len(times) // 2] * 1000})
        print(f"  {name}: {found[-1]['ms']:,.1f} ms", flush=True)
    return found


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = ["| query | windows | ms |", "| --- | ---: | ---: |"]
    lines += [f"| {r['query']} | {r['windows']:,} | {r['ms']:,.1f} |" for r in results]
    return "\n".join(lines)
