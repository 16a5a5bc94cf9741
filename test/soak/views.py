"""The views of a soak, what is read of them again and again, and the comparison with a recount of the topic."""

from crash.load import counted, same
from harness.database import Database
from harness.streams import continuous
from harness.views import sessions
from harness.wait import wait_for

DELAY = 5  # seconds, of the watermark
RETENTION = 20  # seconds
GAP = 2  # seconds
SLIDE = 30  # seconds

# {source} is the stream or the table of the recount. Temperature and humidity are multiples of 1/8: sums are exact in any order.
VIEWS = {
    "by_device": """SELECT device, count(*) AS c, sum(temperature) AS s, avg(humidity) AS h, max(ts) AS last
        FROM {source} GROUP BY device""",
    "tumbled": """SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS c, avg(temperature) AS mean, max(temperature) AS peak
        FROM {source} GROUP BY device, w""",
    "hopped": """SELECT site, streamext.hop('20 s', '5 s', ts) AS w, count(*) AS c, sum(temperature::numeric) AS s, stddev(humidity) AS h
        FROM {source} WHERE humidity < 10 GROUP BY site, w""",
    "listed": """SELECT site, date_trunc('minute', ts) AS w, count(DISTINCT device) AS d,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY temperature) AS middle FROM {source} WHERE humidity = 0 GROUP BY site, w""",
}
RETAINED = "SELECT device, streamext.tumble('5 s', ts) AS w, count(*) AS c, sum(humidity) AS h FROM {source} GROUP BY device, w"
SLIDING = "SELECT site, count(*) AS c, sum(temperature) AS s, max(ts) AS last FROM {source} WHERE ts > {now} - interval '%d s' GROUP BY site" % SLIDE
SESSIONS = "SELECT device, {start} AS w, count(*) AS c, sum(temperature) AS s, max(ts) AS high FROM {source} GROUP BY device, w"
SOME = "{source} WHERE humidity = 0"  # one record of 800

# Each of about the same number of rows at any time: all of a bounded view, or the last windows of one that goes back to the beginning.
# These begin in history and end in memory.
LAST = "w > now() - interval '40 s'"
READS = {
    "no window, all 1,000 groups": "TABLE by_device",
    "no window, one group": "SELECT * FROM by_device WHERE device = 'device-0042'",
    "tumbling, last windows of a device": f"SELECT * FROM tumbled WHERE device = 'device-0042' AND {LAST}",
    "tumbling, last windows of all": f"SELECT w, sum(c), max(peak) FROM tumbled WHERE {LAST} GROUP BY w",
    "hopping, last windows": f"SELECT * FROM hopped WHERE {LAST}",
    "sliding": "TABLE sliding",
    "sessions within retention": "SELECT count(*), sum(c) FROM sessioned",
    "retention, all windows": "SELECT w, sum(c) FROM retained GROUP BY w",
}


def create(db: Database, stream: str) -> None:
    for name, query in VIEWS.items():
        continuous(db, name, query.format(source=stream))
    retention = f", streamext.retention = '{RETENTION} s'"
    continuous(db, "retained", RETAINED.format(source=stream), retention)
    continuous(db, "sessioned", SESSIONS.format(start=f"streamext.session('{GAP} s', ts)", source=SOME.format(source=stream)), retention)
    continuous(db, "sliding", SLIDING.format(source=stream, now="now()"), ", streamext.step = '1 s'")


def check(db: Database, stream: str, table: str, now: object, records: int) -> list[str]:
    """What is wrong, a line each. Nothing flows, all is counted, and the clock stands at `now`."""
    db.execute("SET work_mem = '256MB'; SET enable_sort = off")  # it does not know how few groups hop() makes
    wrong = []
    for name, query in VIEWS.items():
        wrong += same(db, name, f"TABLE {name}", query.format(source=table))
    wrong += same(db, "sliding", "TABLE sliding", SLIDING.format(source=table, now=f"timestamptz '{now}'"))

    watermark = f"(SELECT watermark FROM streamext.streams WHERE stream = '{stream}'::regclass)"
    kept = f"w + interval '5 s' > {watermark} - interval '{RETENTION} s'"
    wrong += same(db, "retained", "TABLE retained", f"SELECT * FROM ({RETAINED.format(source=table)}) AS q WHERE {kept}")

    # a session is over for good two gaps after its end; the worker looks once a second
    kept = f"high > {watermark} - interval '{2 * GAP + RETENTION} s'"
    wait_for(lambda: db.value(f"SELECT count(*) FROM sessioned WHERE NOT {kept}") == 0, what="retention of sessions")
    rows = sessions(SOME.format(source=table), ["device"], f"'{GAP} s'")
    expected = SESSIONS.format(start="session_start", source=rows)
    wrong += same(db, "sessioned", "TABLE sessioned", f"SELECT * FROM ({expected}) AS q WHERE {kept}")

    for name in [*VIEWS, "retained", "sessioned", "sliding"]:
        wrong += counted(db, name, records)
    return wrong
