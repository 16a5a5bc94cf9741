"""Streams of simulated sensors in a test's database, and what the tests ask of streams and their workers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.database import Database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.sensors import Reading
from harness.wait import wait_for

COLUMNS = "device text, site text, ts timestamptz, temperature float8, humidity float8"
BY_TS = "event_time 'ts', watermark_delay '5 s'"

# Views over such columns: {source} is the stream or a table, {now} now() or the clock's constant.
VIEWS = {
    "tumbling": """SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean,
        max(temperature) AS peak FROM {source} GROUP BY device, w""",
    "binned": """SELECT date_bin('15 s', ts, '2024-01-01 00:00:07+00') AS w, site, min(humidity), stddev(temperature)
        FROM {source} GROUP BY 1, 2""",
    "truncated": """SELECT date_trunc('minute', ts) AS w, count(DISTINCT device), sum(humidity)
        FROM {source} WHERE temperature > 5 GROUP BY 1""",
    "hopping": """SELECT device, streamext.hop('1 min', '10 s', ts) AS w, count(*) AS n, avg(humidity) AS damp,
        count(*) FILTER (WHERE temperature > 10) AS warm FROM {source}
        WHERE temperature > 2 GROUP BY device, w HAVING count(*) > 1""",
    "sliding": """SELECT site, count(*) AS n, min(ts), max(ts), avg(temperature) FROM {source}
        WHERE ts > {now} - interval '1 minute' GROUP BY site""",
    "by_site": "SELECT site, count(*) AS n, sum(temperature) AS total FROM {source} GROUP BY site",
    "total": "SELECT count(*) AS n, count(DISTINCT device), max(ts), variance(temperature) FROM {source}",
}


def kafka_stream(
    db: Database, kafka: Kafka, options: str, columns: str = COLUMNS, name: str = "s", format: str = "json"
) -> None:
    """A stream over the server `kafka_server`; `options` without format."""
    db.execute(f"CREATE SERVER IF NOT EXISTS kafka_server FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{kafka.brokers}')")
    db.execute(f"CREATE FOREIGN TABLE {name} ({columns}) SERVER kafka_server OPTIONS (format '{format}', {options})")


def mqtt_stream(
    db: Database, mosquitto: Mosquitto, options: str, columns: str, name: str = "s", format: str = "json"
) -> None:
    """A stream over the server `mqtt_server`; `options` without format."""
    db.execute(f"CREATE SERVER IF NOT EXISTS mqtt_server FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{mosquitto.uri}')")
    db.execute(f"CREATE FOREIGN TABLE {name} ({columns}) SERVER mqtt_server OPTIONS (format '{format}', {options})")


def local_stream(db: Database, options: str = "", columns: str = COLUMNS, name: str = "s") -> None:
    db.execute("CREATE SERVER IF NOT EXISTS local_server FOREIGN DATA WRAPPER local")
    clause = f"OPTIONS ({options})" if options else ""
    db.execute(f"CREATE FOREIGN TABLE {name} ({columns}) SERVER local_server {clause}")


def continuous(db: Database, name: str, query: str, options: str = "") -> None:
    """`options` are further ones, each behind a comma."""
    db.execute(f"CREATE VIEW {name} WITH (streamext.continuous{options}) AS {query}")


def create_views(db: Database, stream: str = "s", views: dict[str, str] = VIEWS) -> None:
    for name, query in views.items():
        continuous(db, name, query.format(source=stream, now="now()"))


def assert_views(db: Database, table: str, now: object = None, views: dict[str, str] = VIEWS) -> None:
    """Each view holds what PostgreSQL itself returns over `table`."""
    for name, query in views.items():
        db.assert_same(f"TABLE {name}", query.format(source=table, now=f"timestamptz '{now}'"))


def copy_into(db: Database, relation: str, readings: Iterable[Reading]) -> None:
    """COPY without a column list; times to the millisecond, as Reading.json() has them."""
    with db.connection.cursor() as cursor, cursor.copy(f"COPY {relation} FROM STDIN") as copy:
        for device, site, ts, temperature, humidity in readings:
            copy.write(f"{device}\t{site}\t{ts.isoformat(timespec='milliseconds')}\t{temperature}\t{humidity}\n")


def table_of(db: Database, readings: Iterable[Reading], name: str = "o") -> None:
    """An ordinary table with these rows."""
    db.execute(f"CREATE TABLE {name} ({COLUMNS})")
    copy_into(db, name, readings)


def counts(db: Database, view: str) -> tuple[int, int, int]:
    """(accepted, late, rejected) of a view."""
    return db.rows("SELECT accepted, late, rejected FROM streamext.continuous_views WHERE view = %s::regclass", view)[0]


def state(db: Database, stream: str = "s") -> str:
    return db.value("SELECT state FROM streamext.streams WHERE stream = %s::regclass", stream)


def worker_pids(db: Database, stream: str = "s") -> list[int]:
    """Of the workers that are alive."""
    return [
        pid
        for (pid,) in db.rows("SELECT pid FROM streamext.workers WHERE stream = %s::regclass", stream)
        if pid and is_alive(pid)
    ]


def worker_pid(db: Database, stream: str = "s", besides: int = 0, timeout: float = 90) -> int:
    """The stream's worker, once there is one other than `besides`."""
    return wait_for(
        lambda: next((pid for pid in worker_pids(db, stream) if pid != besides), 0), timeout, f"a worker of {stream}"
    )


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def error_of(error: Any) -> tuple[str, str, str]:
    """SQLSTATE, message with detail, and hint of a psycopg error."""
    diag = error.value.diag if hasattr(error, "value") else error.diag
    return diag.sqlstate, f"{diag.message_primary} {diag.message_detail or ''}", diag.message_hint or ""
