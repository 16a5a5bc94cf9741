"""Records with gaps, disorder and bad ones among them, as JSON for the stream and as rows for the oracle; and the definitions over them."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.kafka import Message

COLUMNS = ("device text, site text, ts timestamptz, temperature float8, humidity float8, i4 int, i8 int8, grade numeric(10,2), ok bool, "
           "part int OPTIONS (metadata 'partition')")  # fmt: skip
TABLE = "device text, site text, ts timestamptz, temperature float8, humidity float8, i4 int, i8 int8, grade numeric(10,2), ok bool, part int"

BAD = [
    "", "{", "[]", '{"device": 5', '{"device":"d","ts":"nonsense","temperature":1}', '{"device":"d","temperature":1}', '{"device":"x","ts":"2024-05-01T12:00:00Z","i4":99999999999}',
    '{"device":"x","ts":"2024-05-01T12:00:00Z","temperature":"warm"}', "{'device':'x','ts':'2024-05-01T12:00:00Z'}", '{"device":"x","ts":"2024-05-01T12:00:00Z"} tail',
    '{"device":"x","ts":"2024-05-01T12:00:00Z","temperature":NaN}',
]  # fmt: skip

_FROM = "FROM {source}"
DEFINITIONS = {
    "tumble": f"""SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, count(temperature) AS known, avg(temperature) AS mean, max(temperature) AS peak, min(humidity) AS dry,
        sum(i4) AS i, sum(i8) AS j {_FROM} GROUP BY device, w""",
    "hop": f"""SELECT site, streamext.hop('1 min', '10 s', ts) AS w, count(*) AS n, count(*) FILTER (WHERE ok) AS good, avg(grade) AS grade, stddev_samp(temperature) AS spread {_FROM}
        WHERE temperature > 2 GROUP BY site, w HAVING count(*) > 1""",
    "gaps": f"SELECT site, streamext.hop('5 s', '20 s', ts) AS w, count(*) AS n, sum(grade) AS total, bool_and(ok) AS all_ok {_FROM} GROUP BY site, w",
    "session": f"SELECT device, streamext.session('2 s', ts) AS w, count(*) AS n, min(temperature) AS low, max(ts) AS upto {_FROM} GROUP BY device, w",
    "binned": f"SELECT date_bin('15 s', ts, '2000-01-01 00:00:07+00') AS w, ok, count(*) AS n, corr(temperature, humidity) AS r, covar_pop(humidity, temperature) AS c {_FROM} GROUP BY 1, 2",
    "truncated": f"SELECT date_trunc('minute', ts) AS w, part, count(*) AS n, avg(i4) AS mean, var_pop(humidity) AS v, max(grade) AS best {_FROM} WHERE i4 > 0 OR ok GROUP BY 1, 2",
    "by_site": f"SELECT site, count(*) AS n, sum(temperature) AS total, bool_or(ok) AS any_ok, avg(i8) AS mean, max(ts) AS newest {_FROM} GROUP BY site",
    "computed": f"""SELECT i4 % 3 AS k, CASE WHEN temperature > 20 THEN 'warm' ELSE '${{{{env:HOME}}}}\\ ''cold''' END AS c, count(*) AS n, sum(i4 * 2::bigint + 1) AS s, max(length(device)) AS l
        {_FROM} WHERE site IN ('s01', 's02', 's03') AND device LIKE 'dev-%' AND i4 / 7 < 1000000 GROUP BY 1, 2""",
    "kept": f"""SELECT site, streamext.tumble('1 min', ts) AS w, count(DISTINCT device) AS devices, count(DISTINCT ts) AS moments, sum(DISTINCT i4) AS s, count(DISTINCT ok) FILTER (WHERE i4 > 0) AS c,
        streamext.first(device || '\\ "', ts) AS f, streamext.last(temperature, ts) FILTER (WHERE ok) AS l, count(DISTINCT device || ' "\\{{{{,') AS quoted {_FROM} GROUP BY site, w""",
    "sketched": f"""SELECT site, streamext.hop('2 min', '1 min', ts) AS w, streamext.approx_count_distinct(i8) AS n, streamext.approx_count_distinct(device) AS d, streamext.approx_percentile(0.5, temperature) AS p,
        streamext.approx_percentile(0.95, i4) FILTER (WHERE ok) AS q, streamext.cardinality(streamext.sketch_distinct(grade)) AS g,
        streamext.percentile(streamext.sketch_percentile(humidity), 0.1) AS h {_FROM} GROUP BY site, w""",
    "total": f"SELECT count(*) AS n, max(ts) AS newest, variance(temperature) AS v, min(i8) AS low, every(i4 <> 5) AS none {_FROM}",
}


def _reading(rng: random.Random, i: int, count: int) -> tuple[dict[str, Any], int]:
    at = datetime(2024, 5, 1, 12, tzinfo=UTC) + timedelta(seconds=i * 600 / count) - timedelta(seconds=rng.random() * 2 if rng.random() < 0.25 else 0)
    d = rng.randrange(1000) if rng.random() > 0.02 else None
    o: dict[str, Any] = {
        "device": None if d is None else f"dev-{d:05d}", "site": None if d is None else f"s{d % 20:02d}",
        "ts": at.isoformat(timespec="microseconds").replace("+00:00", "Z"), "temperature": round(rng.gauss(20, 8), 2), "humidity": round(rng.uniform(20, 90), 1),
        "i4": rng.choice([0, 1, -12345, 2147483647, 7]), "i8": rng.choice([12, -5, 9223372036854775807, -9223372036854775807]), "grade": float(f"{rng.uniform(-1000, 1000):.2f}"), "ok": rng.random() < 0.7,
    }  # fmt: skip
    for k in ("temperature", "i4", "ok", "grade", "humidity"):
        if (x := rng.random()) < 0.02:
            o[k] = None
        elif x < 0.03:
            del o[k]
    return o, (0 if d is None else d) % 4


def make(count: int, seed: int = 1) -> tuple[list[Message], list[str], int]:
    """Messages of four partitions, lines of COPY for those that are good, and how many are bad."""
    rng = random.Random(seed)
    messages, lines, bad = [], [], 0
    for i in range(count):
        o, partition = _reading(rng, i, count)
        if rng.random() < 0.002:
            messages.append(Message(rng.choice(BAD), partition))
            bad += 1
            continue
        # Some as other writers have them: with an escape, or with white space.
        text = json.dumps(o, separators=(",", ":"))
        if (x := rng.random()) < 0.001:
            text = text.replace('"device"', '"\\u0064evice"')
        elif x < 0.05:
            text = json.dumps(o)
        messages.append(Message(text, partition))
        values = [o.get(c.split()[0]) for c in TABLE.split(", ")[:-1]] + [partition]
        lines.append("\t".join(r"\N" if v is None else str(v) for v in values))
    return messages, lines, bad
