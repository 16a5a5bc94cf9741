"""The continuous views of the benchmark. {source} is the stream or the table with the same rows."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class View:
    name: str
    query: str
    needs: tuple[str, ...] = ()  # functions of the schema streamext that a version may not have yet
    exact: str = ""  # for approximate answers: the exact query,
    errors: dict[str, float] = field(default_factory=dict)  # and by column how far off an answer may be, relatively
    sample: str = ""  # where PostgreSQL's own answer is too dear: rows of both that this condition takes are compared,
    sums: tuple[str, str] = ("", "")  # and these queries over all of {view} and of {source}


@dataclass(frozen=True)
class Query:
    title: str
    views: tuple[View, ...]


TUMBLING = View(
    "tumbling",
    """SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean, min(temperature) AS low,
        max(temperature) AS peak FROM {source} GROUP BY device, w""",
)
HOPPING = View(
    "hopping",
    """SELECT device, streamext.hop('1 min', '10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean, min(temperature) AS low,
        max(temperature) AS peak FROM {source} GROUP BY device, w""",
)
FINE = View(
    "fine",
    """SELECT device, streamext.hop('1 min', '1 s', ts) AS w, count(*) AS n, avg(temperature) AS mean, min(temperature) AS low,
        max(temperature) AS peak FROM {source} GROUP BY device, w""",
    sample="device LIKE '%0'",  # each row is in 60 windows: of a tenth of the devices that is six times the table
    sums=(
        "SELECT device, sum(n), min(low), max(peak) FROM {view} GROUP BY device",
        "SELECT device, 60 * count(*), min(temperature), max(temperature) FROM {source} GROUP BY device",
    ),
)
SKETCHES = View(
    "sketches",
    """SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n, streamext.approx_count_distinct(device) AS devices,
        streamext.approx_percentile(0.5, temperature) AS middle, streamext.approx_percentile(0.99, temperature) AS high
        FROM {source} GROUP BY w""",
    needs=("tumble", "approx_count_distinct", "approx_percentile"),
    exact="""SELECT streamext.tumble('10 s', ts) AS w, count(*) AS n, count(DISTINCT device) AS devices,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY temperature) AS middle,
        percentile_disc(0.99) WITHIN GROUP (ORDER BY temperature) AS high FROM {source} GROUP BY w""",
    errors={"devices": 0.08, "middle": 0.02, "high": 0.02},
)
BOARD = (  # what a plant's dashboards ask for
    TUMBLING,
    HOPPING,
    View(
        "damp",
        """SELECT device, streamext.tumble('10 s', ts) AS w, avg(humidity) AS mean, max(humidity) AS peak
        FROM {source} GROUP BY device, w""",
    ),
    View(
        "sites",
        """SELECT site, date_trunc('minute', ts) AS w, count(*) AS n, avg(temperature) AS mean,
        count(*) FILTER (WHERE temperature > 20) AS warm FROM {source} GROUP BY site, w""",
    ),
    View("total", "SELECT count(*) AS n, max(ts) AS last, avg(humidity) AS damp FROM {source}"),
    View(
        "warm",
        """SELECT device, streamext.tumble('1 min', ts) AS w, count(*) AS n, max(temperature) AS peak FROM {source}
        WHERE temperature > 20 GROUP BY device, w""",
    ),
    View(
        "latest",
        """SELECT device, site, count(*) AS n, max(ts) AS last, sum(temperature) AS degrees FROM {source} GROUP BY device, site""",
    ),
    View(
        "site_hops",
        """SELECT site, streamext.hop('5 min', '1 min', ts) AS w, count(*) AS n, avg(humidity) AS damp FROM {source}
        GROUP BY site, w HAVING count(*) > 1""",
    ),
    View(
        "spread",
        """SELECT date_bin('10 s', ts, '2000-01-01 00:00+00') AS w, stddev(temperature) AS spread,
        sum(humidity) / count(*) AS damp FROM {source} GROUP BY w""",
    ),
    View(
        "classes",
        """SELECT floor(temperature / 5) AS class, streamext.tumble('30 s', ts) AS w, count(*) AS n, avg(humidity) AS damp
        FROM {source} GROUP BY class, w""",
    ),
)

QUERIES = {
    "q1": Query("tumbling 10 s by device", (TUMBLING,)),
    "q2": Query("hopping 1 min/10 s by device", (HOPPING,)),
    "q3": Query("hopping 1 min/1 s by device", (FINE,)),
    "q4": Query("sketches, tumbling 10 s", (SKETCHES,)),
    "q5": Query("five views", BOARD[:5]),
    "q6": Query("ten views", BOARD),
}
