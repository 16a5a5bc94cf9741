"""Clients that make test does not install: dbt, JDBC, SQLAlchemy, pandas, Debian's exporters for Prometheus. `make clients` installs them and runs this, nothing else does."""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from harness.database import Database
from harness.server import free_port
from harness.streams import continuous, local_stream
from harness.wait import wait_for

TOP = Path(__file__).parents[1]
CLIENTS = Path(os.environ.get("STREAMEXT_DEPS", TOP / ".deps")).resolve() / "clients"
pytestmark = pytest.mark.skipif("STREAMEXT_CLIENTS" not in os.environ, reason="make clients")

COLUMNS = "device text, ts timestamptz, value float8"
MINUTES = "SELECT device, streamext.tumble('1 min', ts) AS minute, count(*) AS n, sum(value) AS total FROM {source} GROUP BY device, minute"


@pytest.fixture
def stream(db: Database) -> Database:
    local_stream(db, "event_time 'ts'", COLUMNS)
    return db


def run(*command: object, cwd: Path | None = None) -> str:
    found = subprocess.run([str(part) for part in command], cwd=cwd, text=True, capture_output=True, check=False, timeout=240)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_jdbc(stream: Database) -> None:
    continuous(stream, "v", MINUTES.format(source="s"))
    said = run(
        "java", "-XX:+UseSerialGC", "-cp", next(CLIENTS.glob("postgresql-*.jar")), TOP / "test" / "clients" / "Client.java",
        f"jdbc:postgresql://127.0.0.1:{stream.server.port}/{stream.name}?user=postgres",
    ).splitlines()  # fmt: skip
    assert said[:2] == ["inserted 100", "copied 10"]
    assert said[2:10] == ["oven 50 2450.0 false", "cooler 50 2500.0 false"] * 4
    assert said[10] == "paged 3"
    assert said[11].split()[1:] == ["device:text", "minute:timestamptz", "n:int8", "total:float8", "s=FOREIGN_TABLE", "v=VIEW"]


PANDAS = """
import sys
import pandas
from sqlalchemy import MetaData, Table, create_engine, inspect, select

engine = create_engine(sys.argv[1])
rows = pandas.DataFrame({"device": ["oven", "cooler"] * 50, "ts": pandas.date_range("2024-05-01 12:00", periods=100, freq="s", tz="UTC"), "value": range(100)})
rows.to_sql("s", engine, if_exists="append", index=False)
with engine.begin() as connection:
    connection.exec_driver_sql("SELECT streamext.flush('s')")
view = Table("v", MetaData(), autoload_with=engine)
with engine.connect() as connection:
    print([tuple(row)[2:] for row in connection.execute(select(view).where(view.c.device == "oven").order_by(view.c.minute))])
print(sorted(inspect(engine).get_view_names()), [column.name for column in view.columns])
found = pandas.read_sql("SELECT * FROM v", engine)
expected = rows.groupby(["device", rows.ts.dt.floor("min")]).value.agg(["count", "sum"])
got = found.set_index(["device", "minute"])[["n", "total"]].sort_index()
print(len(got), (got.values == expected.values).all(), found.dtypes["minute"].kind)
"""


def test_sqlalchemy_and_pandas(stream: Database) -> None:
    continuous(stream, "v", MINUTES.format(source="s"))
    url = f"postgresql+psycopg://postgres@127.0.0.1:{stream.server.port}/{stream.name}"
    said = run(CLIENTS / "bin" / "python", "-c", PANDAS, url).splitlines()
    assert said == ["[(30, 870.0), (20, 1580.0)]", "['v'] ['device', 'minute', 'n', 'total']", "4 True M"]


class Project:
    """A dbt project with one model."""

    def __init__(self, dir: Path, db: Database) -> None:
        self.dir = dir
        (dir / "models").mkdir()
        (dir / "dbt_project.yml").write_text(
            "name: plant\nversion: 1.0.0\nprofile: plant\nmodels: {plant: {+grants: {select: [reader_dbt]}, +persist_docs: {relation: true}}}\n"
        )
        (dir / "packages.yml").write_text(f"packages: [{{local: {TOP / 'contrib' / 'dbt'}}}]\n")
        output = {"type": "postgres", "host": "127.0.0.1", "port": db.server.port, "user": "postgres", "password": "", "dbname": db.name, "schema": "public"}
        (dir / "profiles.yml").write_text(json.dumps({"plant": {"target": "t", "outputs": {"t": {**output, "threads": 2}}}}))
        (dir / "models" / "schema.yml").write_text(
            "sources: [{name: plant, schema: public, tables: [{name: s}]}]\n"
            "models: [{name: device_minute, description: it's counted, columns: [{name: device, data_tests: [not_null]}]}]\n"
        )
        (dir / "models" / "hour.sql").write_text("SELECT device, sum(total) AS total FROM {{ ref('device_minute') }} GROUP BY device")
        self("deps")

    def __call__(self, *command: str) -> None:
        run(CLIENTS / "bin" / "dbt", "--no-use-colors", "--no-send-anonymous-usage-stats", *command, "--project-dir", self.dir, "--profiles-dir", self.dir, cwd=self.dir)

    def model(self, options: str, query: str) -> None:
        text = "{{ config(materialized='continuous_view', streamext=" + options + ") }}\n" + query.format(source="{{ source('plant', 's') }}")
        (self.dir / "models" / "device_minute.sql").write_text(text)


EXPORTERS = TOP / "contrib" / "exporters"


def scraped(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


@pytest.mark.parametrize("exporter", ["postgres", "sql"])
def test_exporters(stream: Database, exporter: str, tmp_path: Path) -> None:
    """As a member of pg_monitor; some figures are not known: of a stream whose broker is away, and of one without a record."""
    db, server, port = stream, stream.server, free_port()
    continuous(db, "v", MINUTES.format(source="s"))
    db.execute("CREATE SERVER away FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    db.execute("CREATE FOREIGN TABLE k (a int) SERVER away OPTIONS (topic 'x'); CREATE ROLE scraper LOGIN IN ROLE pg_monitor")
    listen = f"127.0.0.1:{port}"
    if exporter == "postgres":
        arguments = [f"--extend.query-path={EXPORTERS / 'postgres-exporter.yml'}", f"--web.listen-address={listen}"]
        record = re.compile(r'^streamext_stream_up\{database="\w+",server="[^"]+",stream="public\.s"\} 1$', re.MULTILINE)
        failure = "level=error"
    else:
        text = (EXPORTERS / "sql-exporter.yml").read_text().replace("15s", "1s")
        at = f"postgres://scraper@/{db.name}?host={server.dir}&port={server.port}&sslmode=disable"
        (tmp_path / "config.yml").write_text(re.sub("postgres://monitor@[^']*", lambda _: at, text))
        arguments = ["-config.file", str(tmp_path / "config.yml"), "-web.listen-address", listen]
        record = re.compile(r'^sql_streamext_stream\{col="up",.*stream="public\.s".*\} 1$', re.MULTILINE)
        failure = '"level":"error"'
    environment = os.environ | {"DATA_SOURCE_NAME": f"host={server.dir} port={server.port} user=scraper dbname={db.name} sslmode=disable"}
    with (tmp_path / "log").open("w") as log, subprocess.Popen([CLIENTS / "exporters" / f"prometheus-{exporter}-exporter", *arguments], env=environment, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: record.search(scraped(f"http://{listen}/metrics")), what="the stream's figures")
            wait_for(lambda: re.search(r'public\.k".* NaN$', scraped(f"http://{listen}/metrics"), re.MULTILINE), what="what is not known")
        finally:
            process.terminate()
    assert failure not in (tmp_path / "log").read_text()
    db.execute("DROP ROLE scraper")


def test_dbt(stream: Database, tmp_path: Path) -> None:
    """A run makes the view, the next one leaves it counting, with other options and the same state; columns change by a full refresh."""
    db = stream
    db.execute("CREATE ROLE reader_dbt")
    try:
        project = Project(tmp_path, db)
        project.model("{'retention': '30 days', 'lateness': '10 s'}", MINUTES)
        project("build")
        options = "SELECT options FROM streamext.continuous_views WHERE view = 'device_minute'::regclass"
        assert set(db.value(options)) >= {"streamext.retention=30 days", "streamext.lateness=10 s"}
        assert db.value("SELECT has_table_privilege('reader_dbt', 'device_minute', 'SELECT')")
        assert db.value("SELECT obj_description('device_minute'::regclass)") == "it's counted"
        db.execute("INSERT INTO s SELECT 'oven', '2024-05-01 12:00+00'::timestamptz + i * interval '1 s', i FROM generate_series(1, 200) AS i")
        db.flush("s")
        before = db.rows("SELECT 'device_minute'::regclass::oid, * FROM device_minute ORDER BY minute")
        assert len(before) == 4
        # a journal does not hold it any more when it was counted: a view that begins anew would be empty
        project.model("{'retention': '60 days'}", MINUTES)
        project("build")
        assert db.rows("SELECT 'device_minute'::regclass::oid, * FROM device_minute ORDER BY minute") == before
        assert [option for option in db.value(options) if "lateness" in option or "retention" in option] == ["streamext.retention=60 days"]
        assert db.value("SELECT total FROM hour") == 20100
        project.model("{}", MINUTES.replace("sum(value) AS total", "max(value) AS total, min(value) AS least"))
        project("build", "--full-refresh")
        db.execute("INSERT INTO s VALUES ('oven', '2024-05-01 13:00+00', 7)")
        db.flush("s")
        assert db.value("SELECT least FROM device_minute WHERE minute = '2024-05-01 13:00+00'") == 7
    finally:
        db.execute("DROP OWNED BY reader_dbt; DROP ROLE reader_dbt")
