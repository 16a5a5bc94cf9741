#!/usr/bin/env python3
"""Computes continuous views of PostgreSQL's streamext on Apache Spark.

    spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.12:3.5.7 streamext_spark.py \\
        --pg 'host=db dbname=plant user=spark' --view device_minute [--view device_hour ...]

Spark reads the topics and aggregates each micro-batch by key and pane. PostgreSQL merges these partial aggregates in one transaction
with the positions up to which they count (streamext.export_merge), and these positions alone decide what is counted: each batch leaves
out what lies before them, so whatever Spark repeats counts once. Spark keeps no state, and its checkpoint is a temporary directory
that is never read again. What to compute is a plan that comes from the same database; this program is the same for every view.

Only what is plain beyond doubt is decoded here. Any other record goes to PostgreSQL as it is, which decodes, counts or rejects it in
the same transaction by its own decoder: so no record is rejected here, and none can get another value here than there.

Exit codes: 0 ended as asked; 1 gave up after repeated failures; 2 wrong call, no such export, no right; 3 another run has taken over,
or the views were taken back: do not start again."""

from __future__ import annotations  # Python 3.9

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

Positions = dict[str, dict[str, int]]  # topic -> partition -> next offset
Json = dict[str, Any]

GAVE_UP, REFUSED, REPLACED = 1, 2, 3
EPOCH_2000_US = 946_684_800_000_000

# ---- Records to columns, as Spark SQL ----

_W = r"[ \t\r\n]*+"
_STRING = r'"[^"\\\x00-\x1F\x7F\uFFFD]*+"'  # U+FFFD stands for bytes that are no UTF-8
_NUMBER = r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,17})?"
_PAIR = rf"{_STRING}{_W}:{_W}(?:{_STRING}|{_NUMBER}|true|false|null)"
# One flat object; what is written otherwise, or larger, is PostgreSQL's.
PLAIN = rf"\A{_W}\{{{_W}(?:{_PAIR}(?:{_W},{_W}{_PAIR})*+)?{_W}\}}{_W}\z"
PLAIN_BYTES = 16384
_TIME = r'\A"(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?%s"\z'
_ZONE = r"(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_DATE = r'\A"(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]"\z'
# An interval as PostgreSQL writes it: years, months, days, time. A sign before several parts may be one of all, so only single ones have any.
_PARTS = (r"(?:([0-9]{1,4}) years?\b ?)?", r"(?:([0-9]{1,6}) mons?\b ?)?", r"(?:([0-9]{1,6}) days?\b ?)?", r"(?:([0-9]{2,6}):([0-5][0-9]):([0-5][0-9](?:[.][0-9]{1,6})?))?")
_SPAN = r'\A"(?=[0-9])' + "".join(_PARTS) + r'(?<! )"\z'
_MINUS = r'\A"-(?:[0-9]{1,4} years?|[0-9]{1,6} mons?|[0-9]{1,6} days?|[0-9]{2,6}:[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?)"\z'
INTERVAL = "STRUCT<m: INT, d: INT, us: BIGINT>"
_SIMPLE_PATH = re.compile(r'\A(?:\$\.)?([A-Za-z_][A-Za-z0-9_-]*)\Z')
_METADATA = {"topic": "__topic", "partition": "__partition", "offset": "__offset", "timestamp": "__timestamp", "key": "__key"}


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def name(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"


def field_of(column: Json) -> str | None:
    """The payload's field that is the column's; None if it lies deeper, or is written in a way that needs thought."""
    found = _SIMPLE_PATH.match(column.get("path") or column["name"])
    return found[1] if found else None


def token(field: str) -> str:
    """The text of a field's value in a plain record, quotes included; '' if it is not there. Of several the last, as PostgreSQL has it."""
    pattern = rf'(?s)\A.*"{re.escape(field)}"{_W}:{_W}("[^"]*+"|[^,}}\s"]++)'
    return f"regexp_extract(__text, {literal(pattern)}, 1)"


def value_of(column: Json, text: str) -> tuple[str, str]:
    """For the token `text` of a plain record: the column's value, and whether that is beyond doubt. Neither need be told of NULL."""
    kind, it = column.get("engine_type"), name(column["name"])
    inner = f"substring({text}, 2, length({text}) - 2)"
    if kind == "STRING":
        return f"CASE WHEN startswith({text}, '\"') THEN {inner} END", f"{it} IS NOT NULL"
    if kind in ("SMALLINT", "INT", "BIGINT", "DOUBLE"):
        return f"try_cast({text} AS {kind})", f"{it} IS NOT NULL"
    if kind and kind.startswith("DECIMAL"):
        return f"try_cast({text} AS {kind})", f"{it} = try_cast({text} AS DECIMAL(38,17))"  # what has to be rounded is PostgreSQL's
    if kind == "BOOLEAN":
        return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END", f"{it} IS NOT NULL"
    if kind in ("TIMESTAMP", "DATE"):
        pattern = _DATE if kind == "DATE" else _TIME % (_ZONE if column.get("time_zone") else f"{_ZONE}?")
        return f"CASE WHEN {text} RLIKE {literal(pattern)} THEN try_cast({inner} AS {kind}) END", f"{it} IS NOT NULL"
    if kind == INTERVAL:
        return interval(text), f"{it} IS NOT NULL"
    return "CAST(NULL AS STRING)", "false"


def interval(text: str) -> str:
    """Of a token: months, days and microseconds, as PostgreSQL's own intervals; NULL if it is not beyond doubt."""
    bare = f"replace({text}, '\"-', '\"')"

    def part(i: int, kind: str = "BIGINT") -> str:
        return f"coalesce(try_cast(regexp_extract({bare}, {literal(_SPAN)}, {i}) AS {kind}), 0)"

    sign = f"CASE WHEN startswith({text}, '\"-') THEN -1 ELSE 1 END"
    seconds = f"(({part(4)} * 60 + {part(5)}) * 60000000 + CAST({part(6, 'DECIMAL(8,6)')} * 1000000 AS BIGINT))"
    fields = f"'m', CAST(({part(1)} * 12 + {part(2)}) * {sign} AS INT), 'd', CAST({part(3)} * {sign} AS INT), 'us', {seconds} * {sign}"
    return f"CASE WHEN {text} RLIKE {literal(_SPAN)} OR {text} RLIKE {literal(_MINUS)} THEN named_struct({fields}) END"


def decoding(plan: Json) -> tuple[list[str], list[str], str]:
    """Columns to add to the records in two steps (tokens, then values), and the predicate over these of what is plain."""
    tokens, values = [], []
    certain = [f"__value IS NOT NULL AND octet_length(__value) <= {PLAIN_BYTES}", f"__text RLIKE {literal(PLAIN)}"]
    source = plan["source"]
    if plan.get("format", "json") != "json" or source.get("fields", "exact") != "exact" or source.get("trim", "none") != "none":
        certain.append("false")
    for i, column in enumerate(plan["columns"]):
        if column.get("metadata"):
            value, sure = _metadata(column)
        else:
            field = field_of(column)
            if field is None or any(column.get(option) for option in ("time_format", "on_bad_value", "encoding")):
                certain.append("false")
                value, sure = f"CAST(NULL AS {column.get('engine_type') or 'STRING'})", "true"
            else:
                tokens.append(f"{token(field)} AS __token{i}")
                value, sure = value_of(column, f"__token{i}")
                sure = f"(__token{i} IN ('', 'null') OR {sure})"
        values.append(f"{value} AS {name(column['name'])}")
        certain.append(sure)
        if column.get("not_null") or column["name"] == plan.get("event_time"):
            certain.append(f"{name(column['name'])} IS NOT NULL")
    return tokens, values, " AND ".join(f"coalesce({part}, false)" for part in certain)


def _metadata(column: Json) -> tuple[str, str]:
    what, kind = column["metadata"], column.get("engine_type")
    source = _METADATA.get(what)
    if source is None or kind is None:
        return f"CAST(NULL AS {kind or 'STRING'})", "false"
    if what == "key" and kind == "STRING":
        return "CAST(__key AS STRING)", f"(__key IS NULL OR CAST(__key AS STRING) RLIKE {literal(chr(92) + 'A[^' + chr(92) + 'x00' + chr(92) + 'uFFFD]*+' + chr(92) + 'z')})"
    natural = {"topic": ("STRING",), "partition": ("INT", "BIGINT"), "offset": ("BIGINT",), "timestamp": ("TIMESTAMP",), "key": ()}
    if kind not in natural[what]:
        return f"CAST(NULL AS {kind})", "false"
    return f"CAST({source} AS {kind})", "unix_micros(__timestamp) >= 0" if what == "timestamp" else "true"


# ---- Rows to text that COPY reads ----


TEXTS = ("text", "character varying", "character", "name")


def value_text(expression: str, kind: str) -> str:
    """As PostgreSQL's input of the type `kind` reads it; NULL stays NULL."""
    if kind in TEXTS:
        return expression
    if kind == "bytea":
        return f"concat('\\\\x', hex({expression}))"
    if kind.startswith("timestamp with time zone"):
        return f"concat(CAST({expression} AS STRING), '+00')"
    if kind == "interval":  # each part with its sign, or the first one's might be taken for that of all
        parts = ", ".join(f"format_string('%+d', ({expression}).{part}), '{unit}'" for part, unit in (("m", " mons "), ("d", " days "), ("us", " us")))
        return f"CASE WHEN {expression} IS NOT NULL THEN concat({parts}) END"
    return f"CAST({expression} AS STRING)"


def escaped(text: str, *pairs: tuple[str, str]) -> str:
    for plain, written in pairs:
        text = f"replace({text}, {literal(plain)}, {literal(written)})"
    return text


def array_text(expression: str, kind: str) -> str:
    element = value_text("__x", kind)
    if kind in TEXTS:
        element = escaped(element, ("\\", "\\\\"), ('"', '\\"'))
    if kind in TEXTS or kind == "interval" or kind.startswith("timestamp"):
        element = f"concat('\"', {element}, '\"')"
    return f"concat('{{', array_join(transform({expression}, __x -> {element}), ',', 'NULL'), '}}')"


def copy_text(expression: str, kind: str) -> str:
    """`kind` is PostgreSQL's type."""
    kind = re.sub(r"\(.*?\)| COLLATE .*", "", kind).removeprefix("pg_catalog.")
    text = array_text(expression, kind[:-2]) if kind.endswith("[]") else value_text(expression, kind)
    if kind.removesuffix("[]") in (*TEXTS, "bytea"):
        text = escaped(text, ("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
    return f"coalesce({text}, '\\\\N')"


def copy_line(columns: list[tuple[str, str]]) -> str:
    return "concat_ws('\\t', " + ", ".join(copy_text(expression, kind) for expression, kind in columns) + ")" if columns else "''"


RAW = [("__raw.topic", "text"), ("__raw.partition", "integer"), ("__raw.offset", "bigint"),
       ("__raw.timestamp", "timestamp with time zone"), ("__raw.key", "bytea"), ("__raw.value", "bytea")]  # fmt: skip
COUNTED, LEFT_OUT, SENT = 0, 1, 2  # by WHERE; to PostgreSQL as it is


class Shape:
    """A plan's SQL: what is selected of the records of a batch, step by step. The last one gives (class, n, line)."""

    def __init__(self, plan: Json) -> None:
        self.plan = plan
        self.window = (plan.get("window") or {}).get("kind", "none")
        self.time = name(plan["event_time"]) if plan.get("event_time") else "__timestamp"
        self.tokens, self.values, self.certain = decoding(plan)
        self.names = [name(column["name"]) for column in plan["columns"]]
        self.raw_columns = ["__topic", "__partition", "__offset", "__timestamp", "__key", "__value"]

    def same_decoding(self) -> str:
        """Equal for views that can share decoded records."""
        return json.dumps([self.tokens, self.values, self.certain, self.plan["source"]], sort_keys=True)

    def new(self, positions: Positions, prefix: str = "__") -> str:
        """Predicate of the records that these positions do not count yet."""
        conditions = ["true"]
        for topic, partitions in positions.items():
            known = ", ".join(f"{p}, {offset}L" for p, offset in partitions.items())
            if known:
                conditions.append(f"({prefix}topic <> {literal(topic)} OR {prefix}offset >= coalesce(element_at(map({known}), {prefix}partition), 0L))")
        return " AND ".join(conditions)

    def records(self) -> tuple[str, list[str]]:
        """Predicate of the records that concern the stream, and their columns."""
        share, of = (int(n) for n in self.plan["source"].get("partitions", "0/1").split("/"))
        conditions = [f"pmod(partition, {of}) = {share}"] if of > 1 else []
        if self.plan["source"].get("tombstones", "ignore") == "ignore":
            conditions.append("value IS NOT NULL")
        columns = [f"{plain} AS __{plain}" for plain in ("topic", "partition", "offset", "timestamp", "key", "value")]
        return " AND ".join(conditions) or "true", [*columns, "CAST(value AS STRING) AS __text"]

    def classify(self, latest_us: int) -> list[str]:
        """`latest_us`: event times behind it are left to PostgreSQL's judgement. In a map, and asked for by what no optimizer knows: a plain number
        would stand in the code that Spark makes of the query, which would be another one for each batch, compiled anew by all executors."""
        latest = f"coalesce(element_at(map(0, {latest_us}L), least(__partition, 0)), 0L)"
        sent = f"NOT __certain OR NOT coalesce(unix_micros({self.time}) <= {latest}, false)"
        raises = "".join(f" OR coalesce({predicate}, false)" for predicate in self.plan.get("raises") or [])
        where = f"coalesce({self.plan['where']}, false)" if self.plan.get("where") else "true"
        return ["*", f"CASE WHEN {sent}{raises} THEN {SENT} WHEN {where} THEN {COUNTED} ELSE {LEFT_OUT} END AS __class"]

    def groups(self) -> tuple[list[str], list[str]]:
        """Columns to group by and aggregates."""
        counted = f"__class = {COUNTED}"
        keys = [(f"__key{i}", key["sql"]) for i, key in enumerate(self.plan["keys"])]
        if self.plan.get("at"):
            keys.append(("__at", self.plan["at"]))
        by = ["__class", *(f"CASE WHEN {counted} THEN {sql} END AS {key}" for key, sql in keys)]
        fields = ", ".join(f"'{column[2:]}', {column}" for column in self.raw_columns)
        by.append(f"CASE WHEN __class = {SENT} THEN named_struct({fields}) END AS __raw")
        ends = [f"min({self.time}) AS __first", f"max({self.time}) AS __last"] if self.window == "session" else []
        return by, [*ends, "count(1) AS __rows", *(f"{partial['sql']} AS __partial{i}" for i, partial in enumerate(self.plan["partials"]))]

    def line(self) -> list[str]:
        columns = [(f"__key{i}", key["type"]) for i, key in enumerate(self.plan["keys"])]
        moment = "timestamp with time zone"
        columns += [("__at", moment)] if self.plan.get("at") else []
        columns += [("__first", moment), ("__last", moment)] if self.window == "session" else []
        columns += [("__rows", "bigint"), *((f"__partial{i}", partial["type"]) for i, partial in enumerate(self.plan["partials"]))]
        line = f"CASE __class WHEN {COUNTED} THEN {copy_line(columns)} WHEN {SENT} THEN {copy_line(RAW)} END AS line"
        return ["__class AS class", "__rows AS n", line]


# ---- Positions ----


def merged(positions: Positions, newer: Positions) -> Positions:
    return {topic: positions.get(topic, {}) | newer.get(topic, {}) for topic in positions | newer}


def farthest(positions: Positions, ends: Positions) -> Positions:
    """The batch's ends, but for partitions in which the view is farther."""
    return {topic: {p: max(end, positions.get(topic, {}).get(p, 0)) for p, end in partitions.items()} for topic, partitions in ends.items()}


def least(several: list[Positions]) -> Positions:
    out: Positions = {}
    for positions in several:
        for topic, partitions in positions.items():
            for partition, offset in partitions.items():
                known = out.setdefault(topic, {})
                known[partition] = min(offset, known.get(partition, offset))
    return out


def skipped(begin: Positions, position: Positions) -> list[str]:
    """Partitions of which records between the view's position and the batch's begin would be left out."""
    return [f"{topic} {p}" for topic, ps in position.items() for p, offset in ps.items() if begin.get(topic, {}).get(p, 0) > offset]


class Stop(Exception):
    """Ends the program with a code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Changed(Exception):
    """The views are to be begun anew."""


# ---- PostgreSQL ----


class Export:
    """One view that PostgreSQL has handed over."""

    def __init__(self, view: str, run: Any, plan: Json, positions: Positions) -> None:
        self.view, self.run, self.plan, self.positions = view, run, plan, positions or {}
        self.shape = Shape(plan)
        self.stages = {stage["name"]: stage for stage in plan["stages"]}


class Server:
    """The one connection; made again when it is lost."""

    def __init__(self, dsn: str, patience: float) -> None:
        self.dsn, self.patience = dsn, patience
        self.connection: Any = None

    def connect(self) -> Any:
        import psycopg

        until = time.monotonic() + self.patience
        while self.connection is None or self.connection.closed:
            try:
                self.connection = psycopg.connect(self.dsn, autocommit=True, application_name="streamext_spark",
                                                  options="-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c client_encoding=UTF8")  # fmt: skip
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    raise Stop(GAVE_UP, f"PostgreSQL cannot be reached: {error}") from error
                say(f"PostgreSQL cannot be reached, once more in a second: {str(error).strip().splitlines()[-1]}")
                time.sleep(1)
        return self.connection

    def begin(self, view: str) -> Export:
        import psycopg

        try:
            row = self.connect().execute("SELECT run, plan, positions FROM streamext.export_begin(%s)", [view]).fetchone()
        except psycopg.Error as error:
            raise Stop(GAVE_UP if is_passing(error) else REFUSED, f"{view}: {explain(error)}") from error
        return Export(view, *row)

    def mine(self, export: Export) -> Positions | None:
        """The positions up to which the view counts, None if it is no longer this run's."""
        row = self.connect().execute("SELECT run, positions FROM streamext.exports WHERE view = %s::regclass", [export.view]).fetchone()
        return row[1] or {} if row and row[0] == export.run else None

    def latest_us(self, export: Export) -> int:
        """Event times behind it are ahead of the clock by more than max_ahead, or might be."""
        now = self.connect().execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()[0]
        return now + min(export.plan.get("max_ahead_us") or 0, 10**15) - 1_000_000


def is_passing(error: Any) -> bool:
    """Whether the same statement may work later, or on another connection: connection lost, server ending, deadlock."""
    return error.sqlstate is None or error.sqlstate[:2] in ("08", "40", "53", "57")


def explain(error: Any) -> str:
    diag = error.diag
    parts = [diag.message_primary or str(error), diag.message_detail, diag.message_hint and f"Hint: {diag.message_hint}"]
    return f"{' '.join(part for part in parts if part)} ({error.sqlstate})"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} streamext_spark: {text}", file=sys.stderr, flush=True)


# ---- The stream ----


class Runner:
    """All views of one call. They read the same topics, in one query of Spark."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.server = Server(options.pg, options.patience)
        self.exports: list[Export] = []
        self.failure: BaseException | None = None
        self.ending = threading.Event()
        self.checkpoint = ""
        self.begun: Positions = {}
        self.looked = time.monotonic()
        self.spark: Any = None

    # -- beginning

    def begin(self) -> None:
        self.exports = [self.server.begin(view) for view in self.options.view]
        sources = {json.dumps([e.plan["source"]["topics"], e.plan["source"]["options"].get("brokers")]) for e in self.exports}
        if len(sources) > 1:
            raise Stop(REFUSED, "the views read different topics or brokers; start a program for each stream")
        for export in self.exports:
            if export.plan["source"].get("connector", "kafka") != "kafka":
                raise Stop(REFUSED, f"{export.view}: its stream is not Kafka's")

    def session(self) -> Any:
        from pyspark.sql import SparkSession

        settings = {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.ansi.enabled": "false",
            "spark.sql.caseSensitive": "true",
            "spark.sql.parser.escapedStringLiterals": "false",
            "spark.sql.variable.substitute": "false",  # a constant of a view must not name the driver's environment
            "spark.sql.legacy.timeParserPolicy": "CORRECTED",
            "spark.sql.streaming.metricsEnabled": "false",
            "spark.sql.shuffle.partitions": str(self.options.partitions),
            "spark.sql.adaptive.enabled": "false",
            "spark.sql.codegen.cache.maxEntries": "10000",  # what is compiled for a view is for all batches; 100 are fewer than several views need
            "spark.sql.streaming.minBatchesToRetain": "10",
        }
        builder = SparkSession.builder.appName("streamext " + " ".join(self.options.view))
        for setting, value in settings.items():
            builder = builder.config(setting, value)
        spark = builder.getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        return spark

    def kafka_options(self) -> dict[str, str]:
        stream = self.exports[0].plan["source"]["options"]
        out = {"bootstrap.servers": stream["brokers"], "isolation.level": "read_committed"}
        for option in ("security_protocol", "sasl_mechanism"):
            if stream.get(option):
                out[option.replace("_", ".")] = stream[option]
        if self.options.kafka_file:
            with open(self.options.kafka_file) as file:
                out |= dict(line.strip().split("=", 1) for line in file if "=" in line and not line.startswith("#"))
        return out | dict(pair.split("=", 1) for pair in self.options.kafka)

    def starting(self) -> Positions:
        """Where the query begins, for all partitions that there are: the least of the views' positions. A view without any begins where
        its stream says; if that is not the beginning it is written down at once, for a crash before the first batch would move it."""
        jvm = self.spark._jvm
        config = jvm.java.util.HashMap()
        plain = "org.apache.kafka.common.serialization.ByteArrayDeserializer"
        for key, value in (self.kafka_options() | {"key.deserializer": plain, "value.deserializer": plain}).items():
            config[key] = value
        consumer = jvm.org.apache.kafka.clients.consumer.KafkaConsumer(config)
        try:
            places = []
            for topic in self.exports[0].plan["source"]["topics"]:
                found = consumer.partitionsFor(topic)
                if not found:
                    raise RuntimeError(f"topic {topic} does not exist")
                places += [jvm.org.apache.kafka.common.TopicPartition(topic, info.partition()) for info in found]
            first = _offsets(consumer.beginningOffsets(_list(jvm, places)))
            for export in self.exports:
                begin = first
                if not export.positions and export.plan["source"].get("start", "earliest") != "earliest":
                    begin = self._start(consumer, jvm, places, export.plan["source"])
                    self.write_down(export, begin)
                export.positions = merged(begin, export.positions)
        finally:
            consumer.close()
        return least([export.positions for export in self.exports])

    def _start(self, consumer: Any, jvm: Any, places: list[Any], source: Json) -> Positions:
        last = _offsets(consumer.endOffsets(_list(jvm, places)))
        if source["start"] == "latest":
            return last
        at = -(-(source["start_time_us"] + EPOCH_2000_US) // 1000)  # milliseconds, rounded up: from the first that is not before it
        times = jvm.java.util.HashMap()
        for place in places:
            times[place] = jvm.java.lang.Long(at)
        found = consumer.offsetsForTimes(times)
        later = {(p.topic(), str(p.partition())): found[p].offset() for p in places if found.get(p) is not None}
        return {t: {p: later.get((t, p), end) for p, end in ps.items()} for t, ps in last.items()}

    def write_down(self, export: Export, positions: Positions) -> None:
        connection = self.server.connect()
        with connection.transaction():
            for stage in export.stages.values():
                connection.execute(stage["create"])
            none = json.dumps({"delivered": 0, "rejected": 0})
            connection.execute("SELECT streamext.export_merge(%s, %s, %s, '{}', %s)", [export.view, export.run, json.dumps(positions), none])

    # -- a batch

    def ends(self, batch: int) -> Positions:
        """The batch's end, out of Spark's own log, which is written before the batch runs."""
        with open(os.path.join(self.checkpoint, "offsets", str(batch))) as file:
            return json.loads(file.read().splitlines()[-1])

    def fold(self, records: Any, batch: int) -> None:
        """Called by Spark for each batch. Whatever fails is kept for the main thread, which decides."""
        try:
            ends = {t: {p: int(o) for p, o in ps.items()} for t, ps in self.ends(batch).items()}
            while not self.committed(records, ends):
                pass
            self.begun = ends
        except BaseException as error:
            self.failure = error
            raise

    def committed(self, records: Any, ends: Positions) -> bool:
        """One transaction; False if the connection was lost, so that it is not known whether it was committed."""
        import psycopg

        started = time.monotonic()
        try:
            self.look()
            ahead = [e for e in self.exports if skipped(self.begun, e.positions)]
            if ahead:
                raise Changed(f"{ahead[0].view} has not counted {skipped(self.begun, ahead[0].positions)[0]} up to this batch")
            with self.decoded(records) as shared, self.server.connect().transaction():
                told = [self.merge(export, shared[export.shape.same_decoding()], ends) for export in self.exports]
        except psycopg.Error as error:
            if not is_passing(error):
                raise self.refused(error) from error
            if self.server.connection and not self.server.connection.closed:
                self.server.connection.close()
            say(f"the batch is tried again: {str(error).strip().splitlines()[-1]}")
            self.ending.wait(1)
            self.resume()
            return False
        self.after_commit()
        for export in self.exports:
            export.positions = merged(export.positions, farthest(export.positions, ends))
        if self.options.log:
            line = {"at": time.time(), "seconds": round(time.monotonic() - started, 3), "views": dict(zip(self.options.view, told))}
            with open(self.options.log, "a") as file:
                print(json.dumps(line), file=file)
        return True

    def after_commit(self) -> None:
        """Here the transaction is known to be committed. Tests put an end to the process here."""

    def before_commit(self) -> None:
        """The last view is merged, the transaction not committed."""

    @contextmanager
    def decoded(self, records: Any) -> Iterator[dict[str, Any]]:
        """The batch as rows of the stream, once for all views that read it in the same way."""
        out, kept = {}, []
        for export in self.exports:
            shape, key = export.shape, export.shape.same_decoding()
            if key in out:
                continue
            alike = [other for other in self.exports if other.shape.same_decoding() == key]
            condition, columns = shape.records()
            behind = shape.new(least([other.positions for other in alike]), "")
            rows = records.where(f"{condition} AND {behind}").selectExpr(*columns).selectExpr("*", *shape.tokens).selectExpr("*", *shape.values)
            out[key] = rows.selectExpr(*shape.raw_columns, *shape.names, f"({shape.certain}) AS __certain")
            if len(alike) > 1:
                kept.append(out[key].persist())
        try:
            yield out
        finally:
            for rows in kept:
                rows.unpersist()

    def merge(self, export: Export, records: Any, ends: Positions) -> Json:
        connection = self.server.connect()
        for stage in export.stages.values():
            connection.execute(stage["create"])
        began = time.monotonic()
        lines, newest = self.lines(export, records, ends)
        computed = time.monotonic()
        counts = {COUNTED: 0, LEFT_OUT: 0, SENT: 0}
        rows = self.copy(export, lines, counts)
        copied = time.monotonic()
        parameters = [export.view, export.run, json.dumps(farthest(export.positions, ends)), json.dumps(newest), json.dumps({"delivered": sum(counts.values()), "rejected": 0})]
        connection.execute("SELECT streamext.export_merge(%s, %s, %s, %s, %s)", parameters)
        if export is self.exports[-1]:
            self.before_commit()
        seconds = {"computed": computed - began, "copied": copied - computed, "merged": time.monotonic() - copied}
        return {"records": sum(counts.values()), "sent": counts[SENT], "rows": rows} | {what: round(took, 3) for what, took in seconds.items()}

    def copy(self, export: Export, lines: list[Any], counts: dict[int, int]) -> int:
        """Into the stage tables. Two COPYs cannot run at once, so raw records wait: there are few, or the batch is small."""
        connection, rows, sent = self.server.connect(), 0, []
        with connection.cursor().copy(f"COPY {export.stages['partial']['table']} FROM STDIN") as copy:
            for kind, n, line in lines:
                counts[kind] += n
                if kind == COUNTED:
                    rows += 1
                    copy.write(line + "\n")
                elif kind == SENT:
                    sent += [line] * n
        if sent:
            with connection.cursor().copy(f"COPY {export.stages['records']['table']} FROM STDIN") as copy:
                for line in sent:
                    copy.write(line + "\n")
        return rows

    def lines(self, export: Export, records: Any, ends: Positions) -> tuple[list[Any], Json]:
        """The batch's rows for the stage tables, and the newest event time of each partition."""
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        shape = export.shape
        rows = records.where(shape.new(export.positions)).selectExpr(*shape.classify(self.server.latest_us(export)))
        places = [(topic, partition) for topic, partitions in ends.items() for partition in partitions]
        seen = Observation()  # maxima stay right when a task runs twice
        rows = rows.observe(seen, F.count(F.lit(1)).alias("n"), *(
            F.expr(f"max(CASE WHEN __topic = {literal(topic)} AND __partition = {partition} AND __class <> {SENT} THEN unix_micros({shape.time}) END)").alias(f"m{i}")
            for i, (topic, partition) in enumerate(places)))  # fmt: skip
        by, aggregates = shape.groups()
        grouped = rows.groupBy(*(F.expr(key) for key in by)).agg(*(F.expr(aggregate) for aggregate in aggregates))

        # Not by toLocalIterator, which does not tell what was observed.
        lines = grouped.selectExpr(*shape.line()).collect()
        found, newest = seen.get, {}
        for i, (topic, partition) in enumerate(places):
            if (us := found.get(f"m{i}")) is not None:
                newest.setdefault(topic, {})[partition] = moment(us)
        return lines, newest

    # -- what may happen

    def look(self) -> None:
        """Now and then: is the plan still what it was?"""
        if time.monotonic() - self.looked < self.options.look:
            return
        self.looked = time.monotonic()
        for export in self.exports:
            now = self.server.connect().execute("SELECT streamext.export_plan(%s, 'spark')", [export.view]).fetchone()[0]
            if now != export.plan:
                raise Changed(f"the plan of {export.view} has changed")

    def check_run(self) -> None:
        """While no records come: is this still the run that counts? If not it has to leave its executors to the other. By a merge of nothing, so
        that streamext.exports shows the run as running; on a connection of its own, as a batch may be under way, which holds the row."""
        import psycopg

        settings = "-c timezone=UTC -c lock_timeout=1s"
        try:
            with psycopg.connect(self.options.pg, autocommit=True, application_name="streamext_spark look", options=settings) as connection:
                for export in self.exports:
                    with suppress(psycopg.errors.LockNotAvailable):
                        connection.execute("SELECT streamext.export_merge(%s, %s, '{}', '{}', '{}')", [export.view, export.run])
        except psycopg.Error as error:
            if error.sqlstate in ("55000", "42P01", "42704"):
                raise Stop(REPLACED, explain(error)) from error
            if error.sqlstate == "42501":
                raise Stop(REFUSED, explain(error)) from error
            if not is_passing(error):  # a batch will say it again
                say(explain(error))

    def resume(self) -> None:
        """After a lost connection: is this still the run that counts, and up to where does it?"""
        for export in self.exports:
            positions = self.server.mine(export)
            if positions is None:
                raise Stop(REPLACED, f"{export.view}: another run has taken over, or the view was taken back")
            export.positions = merged(export.positions, positions)

    def refused(self, error: Any) -> BaseException:
        if error.sqlstate == "55000" or error.sqlstate == "42704":
            return Stop(REPLACED, explain(error))
        if error.sqlstate == "42501":
            return Stop(REFUSED, explain(error))
        return RuntimeError(explain(error))

    # -- the whole

    def query(self) -> None:
        """One query of Spark from the views' positions until it ends or fails."""
        begin = self.starting()
        self.begun, self.failure = begin, None
        self.checkpoint = tempfile.mkdtemp(prefix="streamext-spark-", dir=self.options.scratch)
        try:
            reader = self.spark.readStream.format("kafka").option("subscribe", ",".join(begin)).option("startingOffsets", json.dumps(begin))
            for option, value in self.kafka_options().items():
                reader = reader.option(f"kafka.{option}", value)
            reader = reader.option("failOnDataLoss", "true").option("maxOffsetsPerTrigger", self.options.batch)
            writer = reader.load().writeStream.foreachBatch(self.fold).option("checkpointLocation", f"file://{urllib.parse.quote(self.checkpoint)}")
            trigger = {"availableNow": True} if self.options.once else {"processingTime": self.options.trigger}
            query = writer.trigger(**trigger).start()
            say(f"reading {', '.join(begin)} for {', '.join(self.options.view)}")
            looked = time.monotonic()
            while query.isActive and not self.ending.wait(0.1):
                if time.monotonic() - looked > self.options.look:
                    looked = time.monotonic()
                    self.check_run()
            if query.isActive:
                query.stop()
            elif query.exception() is not None:
                raise self.failure or RuntimeError(str(query.exception()).strip().splitlines()[0])
        finally:
            shutil.rmtree(self.checkpoint, ignore_errors=True)

    def run(self) -> None:
        self.begin()
        self.spark = self.session()
        failures, before = 0, None
        while True:
            try:
                self.query()
                return
            except Stop:
                raise
            except Changed as change:
                say(f"{change}: beginning anew")
                self.resume()
                self.begin()
            except Exception as error:
                if self.ending.is_set():
                    return
                now = [export.positions for export in self.exports]
                failures = 0 if now != before else failures + 1
                before = now
                if failures >= self.options.failures:
                    raise Stop(GAVE_UP, f"{failures} failures in a row, the last: {error}") from error
                say(f"the query failed, once more from PostgreSQL's positions: {str(error).strip().splitlines()[0]}")
                self.ending.wait(min(2**failures, 30))
                self.resume()


def moment(us: int) -> str:
    seconds, rest = divmod(us, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:06d}Z"


def _list(jvm: Any, items: list[Any]) -> Any:
    out = jvm.java.util.ArrayList()
    for item in items:
        out.add(item)
    return out


def _offsets(found: Any) -> Positions:
    out: Positions = {}
    for place in found:
        out.setdefault(place.topic(), {})[str(place.partition())] = found[place]
    return out


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Computes continuous views of streamext on Spark.")
    parser.add_argument("--pg", required=True, help="libpq's connection string; better without a password (a .pgpass of the driver's user)")
    parser.add_argument("--view", required=True, action="append", help="a view that streamext.export has handed over; several of one stream")
    parser.add_argument("--trigger", default="1 second", help="time between batches")
    parser.add_argument("--once", action="store_true", help="end when what Kafka holds now is merged")
    parser.add_argument("--batch", type=int, default=500_000, help="most records of a batch")
    parser.add_argument("--partitions", type=int, default=2, help="tasks that aggregate: as many as executors have cores")
    parser.add_argument("--kafka", action="append", default=[], metavar="NAME=VALUE", help="a property of Kafka's client")
    parser.add_argument("--kafka-file", help="a file of such properties, for secrets")
    parser.add_argument("--scratch", help="directory for Spark's checkpoint, which is not needed afterwards; on the driver")
    parser.add_argument("--patience", type=float, default=600, help="seconds to wait for a PostgreSQL that is away")
    parser.add_argument("--failures", type=int, default=10, help="give up after so many failures without a batch between them")
    parser.add_argument("--look", type=float, default=30, help="seconds between looks whether the plan has changed")
    parser.add_argument("--log", help="file for a line of JSON for each batch")
    return parser.parse_args(argv)


def main(runner: Runner) -> int:
    def end(*_: int | FrameType | None) -> None:
        runner.ending.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        runner.run()
        return 0
    except Stop as stop:
        say(str(stop))
        return stop.code


if __name__ == "__main__":
    sys.exit(main(Runner(arguments())))
