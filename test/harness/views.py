"""Random continuous views and random rows for the oracle: every definition is run both ways, over the stream and over
an ordinary table with the same rows."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

COLUMNS = {
    "k text": ["'alpha'", "'beta'", "'Beta'", "''", "'gamma''s'", "NULL"],
    "site int": ["1", "2", "3", "-7", "NULL"],
    "grade numeric": ["1.0", "1.00", "2.5", "NULL", "'NaN'"],
    "ratio float8": ["0.0", "'-0.0'", "1.5", "'NaN'", "'Infinity'", "NULL"],
    "day date": ["'2024-02-29'", "'1999-12-31'", "NULL"],
    "ok bool": ["true", "false", "NULL"],
    "i2 int2": ["1", "-5", "100", "32767", "NULL"],
    "i4 int4": ["0", "1", "-12345", "2147483647", "7", "NULL"],
    "i8 int8": ["9223372036854775807", "-9223372036854775808", "12", "NULL"],
    "f4 float4": ["0.125", "-3.5", "100.75", "NULL"],
    "f8 float8": ["0.125", "-3.5", "1000.875", "42", "NULL"],
    "n numeric": ["0.1", "-99999999999999999999.125", "3", "1.50", "NULL"],
    "t text": ["'x'", "'yy'", "'Zebra'", "'äöü'", "NULL"],
    "local timestamp": ["'2024-01-01 10:00'", "'2023-07-01 00:00:01'", "NULL"],
    "span interval": ["'1 day'", "'24:00:00'", "'-3 hours'", "'1 mon'", "NULL"],
}
COLUMN_LIST = ", ".join([*COLUMNS, "ts timestamptz"])
# With types that Spark has too.
_SPARK = {"grade numeric": "grade numeric(10,2)", "f4 float4": "f4 float8", "n numeric": "n numeric(26,4)", "local timestamp": "local timestamptz"}
SPARK_COLUMNS = ", ".join(_SPARK.get(column, column) for column in COLUMNS)

KEYS = [
    "k", "site", "grade", "ratio", "day", "ok", "i8", "local", "span", "lower(k)", "site % 2", "k || 'x'",
    "coalesce(k, 'none')", "date_part('year', local)", "i4 > 0", "n",
]  # fmt: skip

_NUMBERS = ["i2", "i4", "i8", "f4", "f8", "n"]
_ORDERED = [*_NUMBERS, "day", "t", "local", "span", "ts", "grade"]
_SPREADS = ["var_pop", "var_samp", "variance", "stddev_pop", "stddev_samp", "stddev"]

WHERES = ["", "", "i4 > 0", "k IS NOT NULL AND f8 < 500", "t LIKE '%%y%%' OR ok", "n BETWEEN -10 AND 10", "span > '1 hour'"]
FILTERS = ["", "", "", "i4 > 0", "ok", "k = 'beta'", "f8 IS NULL"]
HAVINGS = ["", "", "count(*) > 2", "min(i4) < 5", "max(ts) IS NOT NULL AND sum(f8) > 0"]


@dataclass
class Definition:
    """`view` over the stream and `query` over the table, with {source} for either; `oracle` is the query where the view's text
    does not run over a table: session windows."""

    text: str
    options: str = ""
    oracle: str = ""
    window: str = "none"  # its kind
    calls: tuple[str, ...] = ()

    def view(self, stream: str) -> str:
        return self.text.format(source=stream, now="now()")

    def query(self, table: str, now: datetime) -> str:
        return (self.oracle or self.text).format(source=table, now=f"timestamptz '{now.isoformat()}'")


def _aggregate(rng: random.Random, extra: Sequence[str]) -> str:
    number, ordered = rng.choice(_NUMBERS), rng.choice(_ORDERED)
    native = rng.choice(
        [
            "count(*)",
            f"count({rng.choice([*_ORDERED, 'k', 'ok'])})",
            f"sum({number})",
            f"avg({number})",
            f"min({ordered})",
            f"max({ordered})",
            f"{rng.choice(_SPREADS)}({number})",
            f"bool_{rng.choice(['and', 'or'])}(ok)",
            "every(i4 > 0)",
            f"bit_{rng.choice(['and', 'or', 'xor'])}({rng.choice(['i2', 'i4', 'i8'])})",
            f"{rng.choice(['sum', 'avg'])}(span)",
            f"sum(i4 * {rng.randint(2, 5)}::bigint + 1)",
            f"max(length(t) + {rng.randint(0, 3)})",
        ]
    )
    call = rng.choice(extra) if extra and rng.random() < 0.6 else native
    condition = rng.choice(FILTERS)
    if "@" not in call:
        call += "@"
    return call.replace("@", f" FILTER (WHERE {condition})" if condition else "")


# What is kept by values or by the aggregate's own transition function.
GENERAL = [
    "count(DISTINCT k)", "sum(DISTINCT i4)", "string_agg(t, ',' ORDER BY t, k)", "array_agg(i4 ORDER BY i4)",
    "regr_slope(f8, i4)", "corr(f8, f4)", "covar_pop(f8, f4)", "regr_count(f8, i2)",
]  # fmt: skip

# Further ones; @ is where FILTER goes if not at the end. json has no equality. Products of floats are small, because what cancels
# out leaves an error of their size.
MORE = [
    "regr_intercept(f8, f4)", "regr_r2(f8, f4)", "regr_avgx(f8, i4)", "regr_avgy(f4, i2)", "regr_sxx(f8, f4)",
    "regr_syy(f8, f4)", "regr_sxy(f8, f4)", "covar_samp(f8, f4)",
    "percentile_cont(0.3) WITHIN GROUP (ORDER BY f8)", "percentile_cont(0.5) WITHIN GROUP (ORDER BY f4 DESC)",
    "percentile_disc(0.5) WITHIN GROUP (ORDER BY t)", "percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY i4)",
    "mode() WITHIN GROUP (ORDER BY i2)", "mode() WITHIN GROUP (ORDER BY lower(k))",
    "rank(5) WITHIN GROUP (ORDER BY i4)", "dense_rank(5) WITHIN GROUP (ORDER BY i4 DESC)",
    "percent_rank(0) WITHIN GROUP (ORDER BY i4)", "cume_dist('yy', 3) WITHIN GROUP (ORDER BY t, i2)",
    "json_agg(i4 ORDER BY i4)@::text", "jsonb_agg(t ORDER BY t)", "jsonb_agg(DISTINCT i2)",
    "json_object_agg(coalesce(k, ''), i4 ORDER BY k, i4)@::text", "jsonb_object_agg(coalesce(t, ''), i4 ORDER BY t, i4)",
    "range_agg(int8range(i4, i4 + 1000::bigint))", "range_intersect_agg(int8range(i2 - 5, i2 + 30000))",
    "array_agg(DISTINCT k)", "string_agg(DISTINCT t, '|' ORDER BY t)", "avg(DISTINCT i4)", "bit_and(DISTINCT i4)",
    "array_agg(ARRAY[i2, 1] ORDER BY i2)", "array_agg(ROW(site, ok) ORDER BY site, ok)@::text",
    "streamext.first(date_trunc('second', ts), ts)", "streamext.last(date_trunc('second', ts), ts)",
    "streamext.approx_count_distinct(i4)", "streamext.approx_count_distinct(k)", "streamext.approx_percentile(0.5, f8)",
    "longest(t)", "common_divisor(i4)", "weighed(f4::numeric, i2)",
]  # fmt: skip
# What an engine outside sends the values of, or their positions.
KEPT = [
    "count(DISTINCT k)", "sum(DISTINCT i4)", "avg(DISTINCT i4)", "count(DISTINCT span)", "count(DISTINCT day)", "count(DISTINCT ok)", "count(DISTINCT f8)",
    "streamext.first(date_trunc('second', ts), ts)", "streamext.last(date_trunc('second', ts), ts)",
    "streamext.approx_count_distinct(i4)", "streamext.approx_count_distinct(k)", "streamext.approx_count_distinct(local)",
    "streamext.approx_percentile(0.5, f8)", "streamext.approx_percentile(0.9, i4)", "streamext.cardinality(streamext.sketch_distinct(t)@)",
    "streamext.percentile(streamext.sketch_percentile(f8)@, 0.3)",
]  # fmt: skip
HLL = ["round(hll_cardinality(hll_add_agg(hll_hash_integer(i4))@))::bigint", "round(hll_cardinality(hll_union_agg(hll_add(hll_empty(), hll_hash_text(t)))@))::bigint"]

# Aggregates that MORE has of its own: by transition and combine function, by values, and with several arguments.
SETUP = """CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT
RETURN CASE WHEN (length($1), $1) >= (length($2), $2) THEN $1 ELSE $2 END;
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text, COMBINEFUNC = longer);
CREATE AGGREGATE common_divisor(int) (SFUNC = pg_catalog.gcd, STYPE = int, INITCOND = '0');
CREATE FUNCTION weigh(numeric, numeric, int2) RETURNS numeric LANGUAGE plpgsql IMMUTABLE STRICT
AS 'BEGIN RETURN $1 + $2 * $3; END';
CREATE AGGREGATE weighed(numeric, int2) (SFUNC = weigh, STYPE = numeric, INITCOND = '0', COMBINEFUNC = numeric_add)"""

_NOT_AGGREGATES = {"coalesce", "length", "lower", "date_trunc", "round", "hll_cardinality", "hll_hash_integer", "hll_hash_text",
                   "hll_add", "hll_empty", "int8range", "row"}  # fmt: skip


def aggregates(outputs: Sequence[str]) -> set[str]:
    """Names of the aggregates that are called."""
    calls = {re.sub(r" (FILTER|WITHIN GROUP|ORDER BY) .*", "", output) for output in outputs}
    return {name.lower() for call in calls for name in re.findall(r"([\w.]+)\(", call)} - _NOT_AGGREGATES


def _window(rng: random.Random) -> tuple[str, str, str]:
    """A window's expression ('' none), its predicate ('' none) and its kind."""
    kind = rng.choice(["none", "tumble", "bin", "trunc", "hop", "hop", "session", "session",
                       "sliding", "sliding tumble", "sliding hop", "sliding session"])  # fmt: skip
    windows = {
        "tumble": lambda: f"streamext.tumble('{rng.choice([7, 10, 60])} s', ts)",
        "bin": lambda: f"date_bin('{rng.choice(['90 s', '15 s'])}', ts, timestamptz '2020-01-01 00:00:07+00')",
        "trunc": lambda: f"date_trunc('{rng.choice(['minute', 'hour', 'day', 'week', 'month'])}', ts)",
        "hop": lambda: "streamext.hop('{} s', '{} s', ts)".format(*rng.choice([(60, 10), (25, 10), (5, 20), (30, 30)])),
        "session": lambda: f"streamext.session('{rng.choice([0.5, 1, 3, 10, 45])} s', ts)",
    }
    predicate = ""
    if "sliding" in kind:
        predicate = f"ts {rng.choice(['>', '>='])} {{now}} - interval '{rng.choice([60, 300])} s'"
        if rng.random() < 0.5:
            predicate += f" AND ts {rng.choice(['<', '<='])} {{now}}"
    name = kind.split()[-1]
    return (windows[name]() if name in windows else ""), predicate, kind


def setup_nested(source: str, continuous: bool) -> list[str]:
    """For definitions that name them: `source` is the stream or the table. plain_{source} is an ordinary view over it, derived_{source} a
    derived stream, both_{source} an ordinary view that is UNION ALL of two parts."""
    option = "WITH (streamext.continuous)" if continuous else ""
    columns = ", ".join(column.split()[0] for column in COLUMNS)
    return [
        f"CREATE VIEW inner_{source} AS SELECT ts AS time_, {columns} FROM {source} WHERE i2 IS NULL OR i2 <> 100",
        f"CREATE VIEW plain_{source} AS WITH c AS (SELECT time_ AS ts, {columns} FROM inner_{source}) SELECT * FROM c ORDER BY k",
        f"CREATE VIEW both_{source} AS SELECT ts, {columns} FROM {source} WHERE i4 > 0 UNION ALL SELECT ts, {columns} FROM {source} WHERE k <> 'beta'",
        f"CREATE VIEW first_{source} {option} AS SELECT * FROM {source} WHERE i2 IS DISTINCT FROM 1",
        f"CREATE VIEW derived_{source} {option} AS SELECT ts AS at, ts, {columns}, length(t) AS long FROM first_{source} WHERE k IS DISTINCT FROM ''",
    ]


SETUP_NESTED = "CREATE TABLE allowed (site int, word text, high int); INSERT INTO allowed VALUES (1, 'x', 5), (3, 'yy', 1000), (NULL, 'z', 0)"

SEMI_JOINS = [
    "site IN (SELECT site FROM allowed)",
    "site NOT IN (SELECT site FROM allowed WHERE site IS NOT NULL)",
    "EXISTS (SELECT FROM allowed a WHERE a.word = t)",
    "NOT EXISTS (SELECT FROM allowed a WHERE a.high > i4 AND a.site = sub.site)",
    "i4 > (SELECT min(high) FROM allowed)",
    "t = ANY (SELECT word FROM allowed) OR f8 > 0",
    "coalesce(f8, 0) < (WITH h AS (SELECT max(high) AS high FROM allowed) SELECT high FROM h)",
]


def _spell(rng: random.Random, wheres: list[str], nested: bool) -> tuple[str, str, str]:
    """The same rows said in other ways: what stands before SELECT, and behind FROM; and behind FROM said plainly."""
    name = rng.choice(["{source}", "plain_{source}", "derived_{source}"]) if nested else "{source}"
    if nested and rng.random() < 0.1:  # each has two workers, and a server has not many
        name = "both_{source}"
    semi = rng.choice(SEMI_JOINS) if nested and rng.random() < 0.3 else ""
    inside = [where for where in wheres if rng.random() < 0.5]
    outside = [where for where in wheres if where not in inside] + ([semi] if semi else [])
    before, item = "", f"(SELECT * FROM {name}{_where(inside)}) AS sub"
    match rng.choice(["subquery", "nested", "with", "with twice", "parentheses", "exploded"]):
        case "nested":
            item = f"(SELECT * FROM (SELECT q.ts, q.* FROM (SELECT *, 1 AS one FROM {name}{_where(inside)}) AS q) AS r (ts_)) AS sub"
        case "with":
            before, item = f"WITH w AS (SELECT * FROM {name}{_where(inside)}) ", "w AS sub"
        case "with twice":
            before = f"WITH a AS (SELECT * FROM {name}), w AS MATERIALIZED (SELECT * FROM a{_where(inside)}) "
            item = "(WITH a AS (SELECT * FROM w) TABLE a) AS sub"
        case "parentheses":
            item = f"(SELECT one.*, n FROM {name} AS one CROSS JOIN (SELECT 1 AS n_) AS x{_where(inside)}) AS sub"
            item = item.replace("one.*, n ", "one.* ")
        case "exploded":
            item = f"(SELECT *, unnest(ARRAY[k, t, 'y']) AS part FROM {name}{_where(inside)}) AS sub"
            return "", item + _where([*outside, "part <> 'x'"]), item + _where([*outside, "part <> 'x'"])
    return before, item + _where(outside), f"{name} AS sub" + _where([*wheres, semi] if semi else wheres)


def _where(conditions: Sequence[str]) -> str:
    return " WHERE " + " AND ".join(f"({where})" if " OR " in where else where for where in conditions) if conditions else ""


def _grouping_sets(rng: random.Random, groups: list[str], window: bool, total: str = "") -> tuple[str, str]:
    """GROUP BY with grouping sets that all hold the window, the last of the groups; and an output that tells them apart. total: the window's
    expression, which some sets are without."""
    keys = groups[:-1] if window else groups
    if total:
        kind = rng.choice(["ROLLUP", "CUBE"])
        return f"{kind} ({', '.join(rng.sample([total, *keys], len(keys) + 1))})", f"GROUPING({', '.join([total, *keys])})"
    kind = rng.choice(["ROLLUP", "CUBE", "SETS", "mixed"])
    if kind == "SETS":
        sets = [rng.sample(keys, rng.randint(0, len(keys))) for _ in range(rng.randint(1, 3))]
        clause = f"GROUPING SETS ({', '.join('(' + ', '.join(chosen) + ')' for chosen in [keys, *sets])})"
    elif kind == "mixed" and len(keys) > 1:
        clause = f"{keys[0]}, ROLLUP ({', '.join(keys[1:])})"
    else:
        clause = f"{'CUBE' if kind == 'CUBE' else 'ROLLUP'} ({', '.join(keys)})"
    return f"{groups[-1]}, {clause}" if window else clause, f"GROUPING({', '.join(keys)})"


def definition(rng: random.Random, extra: Sequence[str] = (), nested: bool = False) -> Definition:
    """nested: also over what setup_nested and SETUP_NESTED make."""
    window, predicate, kind = _window(rng)
    calls = []
    keys = rng.sample(KEYS, rng.choice([0, 1, 1, 1, 2, 3]))
    outputs = [f"{key} AS k{i}" for i, key in enumerate(keys)]
    groups = [f"k{i}" for i in range(len(keys))]
    if window:
        outputs.append(f"{window} AS w")
        groups.append("w")
    for i in range(rng.randint(1, 5)):
        call = _aggregate(rng, extra)
        calls.append(call)
        if rng.random() < 0.2:
            call = f"coalesce(({call})::text, 'nothing')" if _has_one_text(call) else call
        outputs.append(f"{call} AS a{i}")
    wheres = [where for where in (rng.choice(WHERES).replace("%%", "%"), predicate) if where]
    before, source, rest, oracle = "", "{source}" + _where(wheres), "", ""
    plain = source
    if nested and rng.random() < 0.5:
        before, source, plain = _spell(rng, wheres, nested)
    if keys and "session" not in window and rng.random() < 0.25:
        total = window if kind in ("tumble", "bin", "trunc") and rng.random() < 0.4 else ""
        clause, told = _grouping_sets(rng, groups, bool(window), total)
        outputs.insert(0, _named(told, keys))
        rest += f" GROUP BY {clause}"
    elif groups:
        rest += f" GROUP BY {', '.join(groups)}"
    if having := rng.choice(HAVINGS):
        rest += f" HAVING {having}"
    if session := re.match(r"streamext\.session\(('.*'), ts\)", window):
        told = ", ".join(outputs).replace(window, "session_start")
        oracle = f"SELECT {told} FROM {sessions(plain, keys, session[1])}{rest}"
    text = f"{before}SELECT {', '.join(outputs)} FROM {source}{rest}"
    return Definition(text, ", streamext.step = '1 s'" if predicate else "", oracle, kind, tuple(calls))


# Of a nested definition's inner query: by the column's type what is made of it further out.
_INNER = {
    "whole": ["count(*)", "count(k)", "count(DISTINCT k)", "sum(i4)", "max(i8)", "sum(i2) FILTER (WHERE ok)", "bit_xor(i4)"],
    "float8": ["max(f8)", "avg(f4)", "sum(f8)", "stddev_samp(f8)", "corr(f8, f4)", "percentile_cont(0.3) WITHIN GROUP (ORDER BY f8)"],
    "numeric": ["sum(n)", "min(n)", "avg(i4)", "sum(i8)"],
    "text": ["max(t)", "string_agg(t, ',' ORDER BY t, k)", "mode() WITHIN GROUP (ORDER BY lower(k))", "longest(t)"],
    "bool": ["bool_or(ok)", "every(i4 > 0)"],
    "time": ["max(ts)", "min(ts) FILTER (WHERE i4 > 0)"],
    "array": ["array_agg(i4 ORDER BY i4)", "array_agg(DISTINCT k)"],
}
_OUTER = {
    "whole": ["sum(@)", "avg(@)", "max(@)", "count(DISTINCT @)", "variance(@)", "count(*) FILTER (WHERE @ > 1)"],
    "float8": ["max(@)", "min(@)", "avg(@)", "count(@)"],
    "numeric": ["sum(@)", "max(@)", "min(@)"],
    "text": ["max(@)", "string_agg(@, '|' ORDER BY @)", "count(DISTINCT @)"],
    "bool": ["bool_and(@)", "count(*) FILTER (WHERE @)"],
    "time": ["max(@)", "min(@)"],
    "array": ["max(@)", "count(@)"],
}
_OUTER_WINDOWS = ["date_trunc('hour', @)", "date_trunc('minute', @)", "date_bin('4 min', @, timestamptz '2020-01-01 00:00:07+00')", "streamext.tumble('5 min', @)", "streamext.hop('10 min', '5 min', @)"]


def _inner_window(rng: random.Random) -> tuple[str, str]:
    while True:
        window, predicate, kind = _window(rng)
        if window and not predicate:
            return window, kind


def _beside(rng: random.Random, inner: str) -> tuple[str, str]:
    """What stands before SELECT, and in FROM, so that it reads the inner query as q."""
    match rng.choice(["subquery", "subquery", "subquery around", "with", "with around"]):
        case "subquery":
            return "", f"({inner}) AS q"
        case "subquery around":
            return "", f"(SELECT q_.*, 1 AS one FROM ({inner}) AS q_ WHERE true) AS q"
        case "with":
            return f"WITH q AS ({inner}) ", "q"
        case _:
            return f"WITH q_ AS MATERIALIZED ({inner}), q AS (SELECT * FROM q_) ", "(TABLE q) AS q"


def _outer(rng: random.Random, inner: str, time: str, keys: list[str], columns: dict[str, str], last: bool) -> tuple[str, list[str], dict[str, str]]:
    """A query over one that outputs a window's start, these keys and columns of kinds; and what it outputs of these. The last one may do without a window."""
    kept = rng.sample(keys, rng.randint(0, len(keys)))
    window = "" if last and rng.random() < 0.4 else rng.choice(_OUTER_WINDOWS)
    window = window.replace("@", time)
    outputs = [*kept] + ([f"{window} AS {time}2"] if window else [])
    kinds = {}
    chosen = rng.sample(sorted(columns), rng.randint(0, min(len(columns), 3)))
    for i, name in enumerate(chosen):
        outputs.append(f"{rng.choice(_OUTER[columns[name]]).replace('@', name)} AS b{i}")
    outputs.append("count(*) AS rows_")
    kinds["rows_"] = "whole"
    before, source = _beside(rng, inner)
    wheres = [where for where in (rng.choice(["", f"{name} IS NOT NULL"]) for name in [*kept, *chosen][:2]) if where]
    if rng.random() < 0.2:
        wheres.append("EXISTS (SELECT FROM allowed a WHERE a.high < date_part('minute', q.@))".replace("@", time))
    groups = [*kept] + ([f"{time}2"] if window else [])
    text = f"{before}SELECT {', '.join(outputs)} FROM {source}{_where(wheres)}"
    if groups:
        text += f" GROUP BY {', '.join(groups)}"
    if rng.random() < 0.2:
        text += " HAVING count(*) > 1"
    return text, kept, kinds


def nested(rng: random.Random) -> Definition:
    """A query over one that groups by a window, or is DISTINCT with one; sometimes over a third. What is compared are all windows: none may be open."""
    window, kind = _inner_window(rng)
    expressions = rng.sample([key for key in KEYS if key not in ("grade", "n")], rng.choice([0, 1, 1, 2]))
    keys = [f"k{i}" for i in range(len(expressions))]
    outputs = [f"{expression} AS {key}" for key, expression in zip(keys, expressions, strict=True)] + [f"{window} AS w"]
    columns: dict[str, str] = {}
    distinct = rng.random() < 0.15 and "session" not in window
    for i in range(0 if distinct else rng.randint(1, 4)):
        columns[f"a{i}"] = rng.choice(list(_INNER))
        outputs.append(f"{rng.choice(_INNER[columns[f'a{i}']])} AS a{i}")
    where = [where for where in [rng.choice(WHERES).replace("%%", "%")] if where]
    having = "" if distinct else rng.choice(["", "", " HAVING count(*) > 1"])
    rest = "" if distinct else f" GROUP BY {', '.join([*keys, 'w'])}{having}"
    select = "SELECT DISTINCT" if distinct else "SELECT"
    inner = f"{select} {', '.join(outputs)} FROM {{source}}{_where(where)}{rest}"
    oracle = inner
    if session := re.match(r"streamext\.session\(('.*'), ts\)", window):
        told = ", ".join(outputs).replace(window, "session_start")
        oracle = f"SELECT {told} FROM {sessions('{source}' + _where(where), expressions, session[1])}{rest}"
    state = rng.getstate()
    texts = []
    for text in (inner, oracle):
        rng.setstate(state)  # the same around both
        time, kept, kinds = "w", keys, columns
        if rng.random() < 0.25:
            text, kept, kinds = _outer(rng, text, time, kept, kinds, False)
            time += "2"
        texts.append(_outer(rng, text, time, kept, kinds, True)[0])
    return Definition(texts[0], "", texts[1], f"nested {'distinct ' if distinct else ''}{kind}")


def sessions(source: str, keys: Sequence[str], gap: str) -> str:
    """Gaps and islands: a FROM item with the rows of `source` (behind FROM) and in session_start the first time of the
    session that each is of."""
    by = "".join(f"{key}, " for key in keys)
    window = f"({f'PARTITION BY {by[:-2]} ' if keys else ''}ORDER BY ts)"
    opens = f"(SELECT *, (ts - lag(ts) OVER {window} <= interval {gap}) IS NOT TRUE AS opens FROM {source}) AS rows_"
    numbered = f"(SELECT *, sum(opens::int) OVER {window} AS session_number FROM {opens}) AS numbered"
    return f"(SELECT *, min(ts) OVER (PARTITION BY {by}session_number) AS session_start FROM {numbered}) AS sessions"


def _named(grouping: str, keys: list[str]) -> str:
    """GROUPING() knows no names of output columns."""
    return re.sub(r"\bk(\d)\b", lambda name: keys[int(name[1])], grouping)


def _has_one_text(call: str) -> bool:
    """Floats differ in the last digits; of equal intervals or numerics any may be the minimum."""
    return not any(word in call for word in ("f4", "f8", "var", "std", "avg", "regr", "corr", "span", "grade", "percent"))


def rows(rng: random.Random, count: int, end: datetime, span: timedelta = timedelta(minutes=12)) -> list[str]:
    """VALUES lists. Times are within `span` before `end`, often at whole seconds, where the edges of windows are."""
    result = []
    for _ in range(count):
        at = end - timedelta(seconds=rng.randrange(int(span.total_seconds())))
        if rng.random() < 0.5:
            at += timedelta(microseconds=rng.randrange(1_000_000))
        values = [rng.choice(choices) for choices in COLUMNS.values()]
        result.append(f"({', '.join(values)}, '{at.isoformat()}')")
    return result


NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
