"""contrib/: alert rules judged by promtool, exporters' queries that run, a dashboard of panels; no name that streamext.metrics does not have."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream, local_stream, mqtt_stream
from harness.wait import wait_for

TOP = Path(__file__).parents[1]
CONTRIB = TOP / "contrib"
PROMTOOL = Path(os.environ.get("STREAMEXT_DEPS", TOP / ".deps")).resolve() / "prometheus" / "promtool"
NAMES = re.compile(r"\bstreamext_[a-z_]+\b")


def documented() -> set[str]:
    rows = re.findall(r"^\| `(streamext_[a-z_]+)` \| (\w+) \|", (TOP / "docs" / "reference.md").read_text(), re.MULTILINE)
    return {name + part for name, kind in rows for part in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))}


@pytest.mark.skipif(not PROMTOOL.exists(), reason="no promtool")
@pytest.mark.parametrize("arguments", [["check", "rules", "streamext.rules.yml"], ["test", "rules", "streamext.test.yml"]])
def test_alert_rules(arguments: list[str]) -> None:
    found = subprocess.run([PROMTOOL, *arguments], cwd=CONTRIB / "prometheus", text=True, capture_output=True, check=False)
    assert found.returncode == 0 and "SUCCESS" in found.stdout, found.stdout + found.stderr


def test_every_alert_is_tested() -> None:
    rules = set(re.findall(r"- alert: (\w+)", (CONTRIB / "prometheus" / "streamext.rules.yml").read_text()))
    tests = (CONTRIB / "prometheus" / "streamext.test.yml").read_text()
    fires = set(re.findall(r"alertname: (\w+)\n        exp_alerts:\n          - ", tests))
    assert rules == fires
    assert all(f"alertname: {name}, exp_alerts: []" in tests for name in rules)


@pytest.mark.parametrize("file", ["prometheus/streamext.rules.yml", "grafana/streamext.json", "exporters/postgres-exporter.yml", "exporters/sql-exporter.yml"])
def test_names_are_metrics(file: str) -> None:
    text = (CONTRIB / file).read_text()
    groups = {"streamext_stream", "streamext_partition", "streamext_worker", "streamext_checkpoint", "streamext_view", "streamext_memory"}
    assert set(NAMES.findall(text)) - documented() <= groups


def test_the_exporters_queries(db: Database, kafka: Kafka, mosquitto: Mosquitto, topic: str) -> None:
    """Each column that is named is there, and each query has rows."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int")
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a int", name="m")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, ['{"a":1}'])
    db.flush("s", "m")
    text = (CONTRIB / "exporters" / "postgres-exporter.yml").read_text()
    queries = re.findall(r"^(\w+):\n  query: \|\n    (.*)\n  metrics:\n((?:    - .*\n)+)", text, re.MULTILINE)
    assert len(queries) == 6
    for name, query, columns in queries:
        cursor = db.connection.execute(query)
        assert [column.name for column in cursor.description or []] == re.findall(r"    - (\w+):", columns), name
        assert cursor.fetchall() != [], name
        assert f"          {query}\n" in (CONTRIB / "exporters" / "sql-exporter.yml").read_text()


def test_labels_of_sql_exporter() -> None:
    """It ends where a query has a label that it gives itself, and logs an error for each NULL."""
    text = (CONTRIB / "exporters" / "sql-exporter.yml").read_text()
    labels = re.findall(r"^        labels: \[(.*)\]$", text, re.MULTILINE)
    assert len(labels) == 6
    assert {"driver", "host", "database", "user", "col", "sql_job"} & {label for line in labels for label in line.split(", ")} == set()
    assert len(re.findall(r"coalesce\(max\(value\) FILTER \(WHERE name = '\w+'\), 'NaN'\)", text)) == text.count("max(value)")


# What Superset 6.1 makes of a time column for each grain, beside DATE_TRUNC by name.
SUPERSET_STEPS = [
    ("minute", "5 seconds", "SECOND", 5), ("minute", "30 seconds", "SECOND", 30), ("hour", "5 minutes", "MINUTE", 5),
    ("hour", "10 minutes", "MINUTE", 10), ("hour", "15 minutes", "MINUTE", 15), ("hour", "30 minutes", "MINUTE", 30),
]  # fmt: skip
SUPERSET_GRAINS = [f"DATE_TRUNC('{unit}', w)" for unit in ("second", "minute", "hour", "day", "week", "month", "quarter", "year")] + [
    f"DATE_TRUNC('{unit}', w) + INTERVAL '{step}' * FLOOR(EXTRACT({field} FROM w) / {n})" for unit, step, field, n in SUPERSET_STEPS
]
SUPERSET_RANGE = "w >= TO_TIMESTAMP('2024-01-01 00:30:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') AND w < TO_TIMESTAMP('2024-01-02 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')"


def test_what_superset_asks(db: Database) -> None:
    """A chart for each grain, of the view and of a dataset that is a query; its top series; a table; a filter's values. As over an ordinary table."""
    columns = "device text, ts timestamptz, x int"
    minutes = "SELECT device, date_trunc('minute', ts) AS w, count(*) AS n, sum(x) AS total, avg(x) AS mean FROM {} GROUP BY device, 2"
    local_stream(db, "event_time 'ts'", columns)
    db.execute(f"CREATE TABLE o ({columns}); CREATE VIEW plain AS {minutes.format('o')}")
    continuous(db, "v", minutes.format("s"))
    for target in "s", "o":
        db.execute(f"INSERT INTO {target} SELECT 'd' || i % 7, timestamptz '2024-01-01' + i * interval '23 s', i % 11 FROM generate_series(1, 2000) AS i")
    db.flush("s")
    queries = [
        f"SELECT {grain} AS w, SUM(n) AS \"SUM(n)\", MAX(mean) AS \"MAX(mean)\" FROM {{}} WHERE {SUPERSET_RANGE} GROUP BY {grain} ORDER BY \"SUM(n)\" DESC, 1 LIMIT 10000"
        for grain in SUPERSET_GRAINS
    ]
    top = f"SELECT device AS device__, SUM(total) AS mme_inner__ FROM {{0}} WHERE {SUPERSET_RANGE} GROUP BY device ORDER BY mme_inner__ DESC, 1 LIMIT 3"
    queries += [
        f"SELECT DATE_TRUNC('hour', w) AS w, device, SUM(total) AS y FROM {{0}} JOIN ({top}) AS series_limit ON device = device__ WHERE {SUPERSET_RANGE} GROUP BY DATE_TRUNC('hour', w), device",
        "SELECT device, w, n, total, mean FROM {} ORDER BY w DESC, device LIMIT 1000",
        "SELECT COUNT(*) AS rowcount FROM (SELECT device, COUNT(DISTINCT w) AS c FROM {} GROUP BY device) AS rowcount_qry",
        "SELECT device FROM {} WHERE device ILIKE '%3%' GROUP BY device LIMIT 1000",
        "SELECT MIN(w), MAX(w) FROM {}",
    ]
    for query in queries:
        for dataset in "{}", "(SELECT * FROM {}) AS virtual_table":
            db.assert_same(query.format(dataset.format("public.v")), query.format(dataset.format("public.plain")))


DASHBOARD = CONTRIB / "grafana" / "streamext.json"
_SERIES = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABELS = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def test_the_dashboards_queries(db: Database, kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """Each query of a panel has an answer over what a server with a stream of each sort says, by PromQL as promtool runs it; labels of legends are there."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", "ts timestamptz")
    local_stream(db, "event_time 'ts'", "ts timestamptz", name="l")
    for stream in ("s", "l"):
        continuous(db, f"v_{stream}", f"SELECT count(*) AS n FROM {stream}")
    kafka.produce(topic, ['{"ts":"2024-05-01T12:00:00Z"}'])
    db.execute("INSERT INTO l VALUES ('2024-05-01 12:00Z')")
    db.flush("s", "l")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.workers WHERE checkpoint_at IS NOT NULL") == 2, what="checkpoints")
    series = _SERIES.findall(db.value("SELECT streamext.metrics_text()"))
    labels = {name: {label for label, _ in _LABELS.findall(text)} for name, text, _ in series}
    dashboard = json.loads(DASHBOARD.read_text())
    for variable in dashboard["templating"]["list"]:
        for metric, label in re.findall(r"label_values\((\w+)[^,]*, (\w+)\)", str(variable["query"])):
            assert label in labels[metric], variable["name"]
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    for target in targets:
        legend = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        assert all(legend <= labels[name] for name in NAMES.findall(target["expr"])), target
    expressions = [re.sub(r'\w+=~"\$\w+"', 'database!=""', target["expr"]) for target in targets]
    assert len(expressions) > 12 and not any("$" in expression for expression in expressions)
    if not PROMTOOL.exists():
        pytest.skip("no promtool")
    document = {"evaluation_interval": "1m", "tests": [{
        "interval": "1m", "input_series": [{"series": f"{name}{{{text}}}", "values": f"0+{value}x90"} for name, text, value in series],
        "promql_expr_test": [{"expr": f"count({expression}) > bool 0", "eval_time": "80m", "exp_samples": [{"labels": "{}", "value": 1}]} for expression in expressions],
    }]}  # fmt: skip
    (tmp_path / "test.yml").write_text(json.dumps(document))  # JSON is YAML
    found = subprocess.run([PROMTOOL, "test", "rules", "test.yml"], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert found.returncode == 0 and "SUCCESS" in found.stdout, found.stdout + found.stderr


def test_the_dashboard() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] and dashboard["title"] and dashboard["schemaVersion"] >= 36
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not taken & cells, panel["title"]
        taken |= cells
        assert all(NAMES.findall(target["expr"]) for target in panel["targets"]), panel["title"]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels))) <= variables


BLOCKS = re.findall(r"```ini ([a-z-]+)\n(.*?)```", (TOP / "docs" / "tuning.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_settings_blocks(name: str, block: str) -> None:
    """A server starts with each block of docs/tuning.md and counts."""
    settings = {setting: value for setting, value in re.findall(r"^([\w.]+) = '?([^'\n]*)'?$", block, re.MULTILINE)}
    assert len(settings) == len(block.splitlines())
    with Postgres(settings=settings) as server:
        server.psql("CREATE EXTENSION streamext")
        db = Database(server, "postgres")
        local_stream(db, columns="a int")
        continuous(db, "v", "SELECT count(*) AS n FROM s")
        db.execute("INSERT INTO s SELECT generate_series(1, 1000)")
        db.flush("s")
        assert {setting: db.value("SELECT current_setting(%s)", setting) for setting in settings} == {setting: value.replace(" s", "s") for setting, value in settings.items()}
        assert db.value("TABLE v") == 1000 and db.rows("SELECT * FROM streamext.advise()") == []
        db.connection.close()


def test_the_figures_are_columns(db: Database) -> None:
    figures = re.findall(r"Figure: `(streamext\.\w+)\.(\w+)`", (TOP / "docs" / "tuning.md").read_text())
    assert len(figures) == len(BLOCKS)
    for view, column in figures:
        db.execute(f"SELECT {column} FROM {view}")


def test_the_cookbook(db: Database) -> None:
    local_stream(db, "event_time 'ts', max_ahead '1 h'", "device text, ts timestamptz, value float8", name="readings")
    for block in re.findall(r"```sql\n(.*?)```", (TOP / "docs" / "cookbook.md").read_text(), re.DOTALL):
        db.execute(block)
    db.execute("CREATE TABLE rows AS SELECT 'd' || i % 12, now() - interval '20 min' + i * interval '1 second' AS ts, i FROM generate_series(1, 120) AS i")
    db.execute("INSERT INTO readings TABLE rows")
    db.flush("readings")
    counts = {view: db.value(f"SELECT count(*) FROM {view}") for view in ("last_value", "silent", "top_ten")}
    assert counts == {"last_value": 12, "silent": 12, "top_ten": 10}
    assert db.value("SELECT value FROM last_value WHERE device = 'd0'") == 120
    assert db.value("SELECT count(*) FROM rate WHERE change IS NOT NULL") >= 12
    # in the first minutes of a month there may be none
    month = "SELECT sum(i) FROM rows WHERE ts >= date_trunc('month', now())"
    assert db.value(f"SELECT (SELECT sum(total) FROM month_to_date) IS NOT DISTINCT FROM ({month})")


def test_the_packages_scripts() -> None:
    """What the Debian package does to configurations: test/deb."""
    found = subprocess.run([TOP / "test" / "deb", "scripts"], text=True, capture_output=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
