"""HTTP and feeds: what comes through into a tumbling view, beside bare libmicrohttpd and bare libcurl in the same run; and how fresh it is. An agent of Flume."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import flume
from groups import BY_DEVICE
from harness.database import Database
from harness.server import free_port
from harness.streams import COLUMNS
from harness.wait import wait_for
from measure import cpu
from plant import Plant
from queries import TUMBLING

CONNECTIONS = 64
SINGLE_SHARE = 0.1  # of the records are posted one by one
FRESH_RATE = 20_000
TOKEN = "bench"
TARGETS = {"HTTP, one a request": ("share", 0.6), "HTTP, 100 a request": ("rate", 1_000_000), "feed, ndjson": ("rate", 1_000_000), "Flume, Avro": ("rate", 45_000)}


@contextmanager
def _running(plant: Plant, *command: object) -> Iterator[int]:
    """Its pid. A program of channels.cpp that listens at its first argument."""
    process = subprocess.Popen([plant.programs["channels"], *map(str, command)])
    try:
        wait_for(lambda: _is_open(int(str(command[1]))), what="the port")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _is_open(port: int) -> bool:
    """Looks without connecting: the firehose would take that for its client."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _seconds(plant: Plant, *command: object) -> float:
    return float(subprocess.run([plant.programs["channels"], *map(str, command)], stdout=subprocess.PIPE, check=True).stdout)


def _post(plant: Plant, port: int, records: int, per: int, rate: int = 0) -> float:
    return _seconds(plant, "post", port, "/s", TOKEN, CONNECTIONS, records, per, rate)


def _create(db: Database, server: str, options: str, view: str, query: str) -> None:
    with db.connection.transaction():
        db.execute(f"CREATE FOREIGN TABLE s ({COLUMNS}) SERVER {server} OPTIONS (format 'json', event_time 'ts', watermark_delay '1 day'{options})")
        db.execute(f"CREATE VIEW {view} WITH (streamext.continuous) AS {query.format(source='s')}")


def _serve(db: Database) -> int:
    port = free_port()
    db.execute("DO $$ BEGIN CREATE ROLE bench_sender; EXCEPTION WHEN duplicate_object THEN END $$")
    db.execute(f"CREATE SERVER web FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{port}')")
    db.execute(f"CREATE USER MAPPING FOR bench_sender SERVER web OPTIONS (token '{TOKEN}')")
    return port


def _serve_stream(db: Database, view: str, query: str) -> int:
    port = _serve(db)
    _create(db, "web", ", path '/s'", view, query)
    db.execute("GRANT INSERT ON s TO bench_sender")
    wait_for(lambda: db.value("SELECT state FROM streamext.gateways") == "listening", what="gateway")
    wait_for(lambda: db.value("SELECT state FROM streamext.streams") == "running", what="stream")
    return port


@contextmanager
def _cpu(pid: int, spent: list[float]) -> Iterator[None]:
    """Appends the CPU-seconds of the process and its children meanwhile: on a machine that does other things too they say more than the clock."""
    before = cpu(pid)
    yield
    spent.append(cpu(pid) - before)


def _row(what: str, records: int, seconds: float, bare: float, spent: Sequence[float] = ()) -> dict[str, object]:
    """`spent`: CPU-seconds of the library alone, and of the server."""
    row = {"what": what, "rate": records / seconds, "bare": records / bare, "share": bare / seconds, "target": TARGETS[what], "cpu": [s / records * 1e6 for s in spent]}
    print(f"  {row}", flush=True)
    return row


def _http(plant: Plant, per: int, records: int) -> dict[str, object]:
    """The clock stops when the view has everything."""
    port = free_port()
    spent: list[float] = []
    with _running(plant, "receive", port) as pid, _cpu(pid, spent):
        bare = _post(plant, port, records, per)
    plant.restart()
    db = plant.db
    port = _serve_stream(db, "tumbling", TUMBLING.query)
    _post(plant, port, 1000 * per, per)  # statements and files are there
    db.flush("s")
    assert plant.pg.process is not None
    with _cpu(plant.pg.process.pid, spent):
        seconds = _post(plant, port, records, per)
        begin = time.monotonic()
        db.flush("s")
        seconds += time.monotonic() - begin
    assert db.value("SELECT sum(n) FROM tumbling") == records + 1000 * per
    db.execute("DROP SERVER web CASCADE")
    return _row("HTTP, one a request" if per == 1 else f"HTTP, {per} a request", records, seconds, bare, spent)


def _feed(plant: Plant, records: int) -> dict[str, object]:
    """The clock runs from the commit that makes the stream."""
    port = free_port()
    with _running(plant, "firehose", port, records, 0):
        bare = _seconds(plant, "read", port, records)
    plant.restart()
    db = plant.db
    with _running(plant, "firehose", port, records, 0):
        db.execute(f"CREATE SERVER hose FOREIGN DATA WRAPPER feed OPTIONS (url 'http://127.0.0.1:{port}/')")
        _create(db, "hose", "", "tumbling", TUMBLING.query)
        begin = time.monotonic()
        wait_for(lambda: db.value("SELECT sum(n) FROM tumbling") == records, what="the records")
        seconds = time.monotonic() - begin
    db.execute("DROP SERVER hose CASCADE")
    return _row("feed, ndjson", records, seconds, bare)


def _flume(plant: Plant, events: int) -> dict[str, object]:
    rate, bare = flume.measure(plant, events)
    return _row("Flume, Avro", events, events / rate, events / bare)


def _latencies(db: Database, seconds: float) -> list[float]:
    """From sending a probe until a SELECT shows it, ms, ascending."""
    query = "SELECT peak FROM by_device WHERE device = 'probe'"
    found, last = [], db.rows(query)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        row = db.rows(query)
        if row != last:
            found.append((time.time() - row[0][0]) * 1000)
            last = row
    return sorted(found)


def _fresh_row(source: str, latencies: list[float]) -> dict[str, object]:
    at = {name: latencies[min(len(latencies) - 1, int(share * len(latencies)))] for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
    row = {"source": source, "probes": len(latencies), **at}
    print(f"  {row}", flush=True)
    return row


def _fresh(plant: Plant, seconds: float) -> list[dict[str, object]]:
    found = []
    plant.restart()
    db = plant.db
    records = int((seconds + 2) * FRESH_RATE)
    port = _serve_stream(db, "by_device", BY_DEVICE.query)
    command = [plant.programs["channels"], "post", str(port), "/s", TOKEN, str(CONNECTIONS), str(records), "20", str(FRESH_RATE)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL):
        wait_for(lambda: db.rows("SELECT 1 FROM by_device WHERE device = 'probe'"), what="a probe")
        found.append(_fresh_row("HTTP", _latencies(db, seconds)))
    db.execute("DROP SERVER web CASCADE")
    port = free_port()
    with _running(plant, "firehose", port, records, FRESH_RATE):
        db.execute(f"CREATE SERVER hose FOREIGN DATA WRAPPER feed OPTIONS (url 'http://127.0.0.1:{port}/')")
        _create(db, "hose", "", "by_device", BY_DEVICE.query)
        wait_for(lambda: db.rows("SELECT 1 FROM by_device WHERE device = 'probe'"), what="a probe")
        found.append(_fresh_row("feed", _latencies(db, seconds)))
    db.execute("DROP SERVER hose CASCADE")
    return found


def measure(plant: Plant, seconds: float) -> dict[str, list[dict[str, object]]]:
    records = plant.load.records
    rates = [_http(plant, 1, int(records * SINGLE_SHARE)), _http(plant, 100, records), _feed(plant, records), _flume(plant, max(records // 1000 * 100, 100_000))]
    return {"rates": rates, "fresh": _fresh(plant, seconds)}


def table(results: dict[str, list[dict[str, object]]]) -> str:
    """In Markdown."""
    lines = ["| channel | records/s | library alone | share | CPU-µs a record | library alone | wanted |", "| --- | ---: | ---: | ---: | ---: | ---: | --- |"]
    for r in results["rates"]:
        kind, value = r["target"]
        wanted = f"≥ {value:,}/s" if kind == "rate" else f"share ≥ {value}"
        bare, ours = [f"{spent:.2f}" for spent in r["cpu"]] or ["", ""]
        lines.append(f"| {r['what']} | {r['rate']:,.0f} | {r['bare']:,.0f} | {r['share']:.2f} | {ours} | {bare} | {wanted} |")
    lines += ["", f"| channel, {FRESH_RATE:,}/s | probes | p50, ms | p99, ms | max, ms | p99 wanted |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    lines += [f"| {r['source']} | {r['probes']:,} | {r['p50']:.1f} | {r['p99']:.1f} | {r['max']:.1f} | < 20 |" for r in results["fresh"]]
    return "\n".join(lines)
