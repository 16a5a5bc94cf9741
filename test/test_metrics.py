"""streamext.metrics: named numbers, and the text that Prometheus reads, judged by promtool and by Prometheus itself."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.streams import continuous, kafka_stream, local_stream

PROMTOOL = Path(os.environ.get("STREAMEXT_DEPS", ".deps")) / "prometheus" / "promtool"


def metrics(db: Database, of: str) -> dict[str, Any]:
    return dict(db.rows("SELECT name, value FROM streamext.metrics WHERE labels->>'stream' = %s OR labels->>'view' = %s", of, of))


def test_they_say_what_the_catalogue_does(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}'", "a int")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    kafka.produce(topic, ['{"a":1}', '{"a":2}', "no"])
    db.flush("s")
    stream, view = metrics(db, "public.s"), metrics(db, "public.v")
    assert (stream["streamext_stream_records_total"], stream["streamext_stream_rejected_total"], stream["streamext_stream_up"]) == (3, 1, 1)
    assert stream["streamext_stream_lag_records"] == 0 and stream["streamext_worker_up"] == 1
    assert (view["streamext_view_accepted_total"], view["streamext_view_rejected_total"], view["streamext_view_up"]) == (2, 1, 1)
    assert db.rows("SELECT labels->>'class', value FROM streamext.metrics WHERE name = 'streamext_dead_letters'") == [("22", 1)]
    assert db.rows("SELECT labels->>'state' FROM streamext.metrics WHERE name = 'streamext_stream_state'") == [("running",)]
    assert db.value("SELECT value = 1024 * 1024 * (SELECT setting::int FROM pg_settings WHERE name = 'streamext.memory_limit') "
                    "FROM streamext.metrics WHERE name = 'streamext_memory_limit_bytes'")  # fmt: skip


def test_the_text(db: Database) -> None:
    local_stream(db, columns="a int", name='"odd ""name\\"')
    db.flush('"odd ""name\\"')
    text = db.value("SELECT streamext.metrics_text()")
    assert '# TYPE streamext_stream_records_total counter\nstreamext_stream_records_total{database="' in text
    assert 'stream="public.odd \\"name\\\\"} 0\n' in text
    open_text = db.value("SELECT streamext.metrics_text(true)")
    assert "# TYPE streamext_stream_records counter\nstreamext_stream_records_total{" in open_text and open_text.endswith("\n# EOF\n")
    # the function's own texts do not follow what the caller's session takes a backslash for
    db.execute("SET standard_conforming_strings = off")
    assert 'stream="public.odd \\"name\\\\"} 0\n' in db.value("SELECT streamext.metrics_text()")


@pytest.mark.skipif(not PROMTOOL.exists(), reason="no promtool")
def test_promtool_has_nothing_to_say(db: Database) -> None:
    local_stream(db, columns="a int")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")
    found = subprocess.run([PROMTOOL, "check", "metrics"], input=db.value("SELECT streamext.metrics_text()"), text=True, capture_output=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("held", ["LOCK TABLE above", "ALTER FOREIGN TABLE s ADD COLUMN more int", "DROP VIEW above, joint"])
def test_what_a_transaction_holds_is_not_waited_for(db: Database, held: str) -> None:
    """Any role may lock what is its own, and keep the lock: that is no reason for monitoring to stand still, nor for a flush of another stream."""
    for name in ("s", "t", "others"):
        local_stream(db, columns="a int, ts timestamptz", name=name, options="event_time 'ts'")
    continuous(db, "v", "SELECT a, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY 1, 2")
    continuous(db, "above", "SELECT w, count(*) AS n FROM v GROUP BY 1")
    continuous(db, "joint", "SELECT count(*) AS n FROM (SELECT * FROM s UNION ALL SELECT * FROM t) AS q")
    continuous(db, "theirs", "SELECT count(*) AS n FROM others")
    db.execute("CREATE VIEW al WITH (streamext.alert, streamext.every = '1 ms') AS SELECT a, n FROM v WHERE n > 1")
    db.execute("INSERT INTO s VALUES (1, now()); INSERT INTO t VALUES (1, now()); INSERT INTO others VALUES (1, now())")
    db.flush("s", "t", "others")
    db.execute("SET statement_timeout = '30 s'")
    with db.connect(autocommit=False) as holder:
        holder.execute(held)
        assert metrics(db, "public.theirs")["streamext_view_accepted_total"] == 1
        assert metrics(db, "public.s")["streamext_stream_up"] == metrics(db, "public.s")["streamext_worker_up"] == 1
        found = {(labels["view"] if "view" in labels else labels.get("stream"), name): value for name, labels, value in db.rows("SELECT name, labels, value FROM streamext.metrics")}
        assert found["public.theirs", "streamext_view_accepted_total"] == found["public.s", "streamext_stream_up"] == found["public.s", "streamext_worker_up"] == 1
        assert all(found[f"public.{view}", "streamext_view_up"] == 1 for view in ("v", "above", "joint"))
        for view in ("stream_columns", "stream_partitions", "workers"):
            assert db.rows(f"SELECT * FROM streamext.{view}")
        told = dict(db.rows("SELECT view::text, last_error FROM streamext.continuous_views"))
        assert told["theirs"] is None and "another transaction holds the view" in " ".join(filter(None, told.values()))
        db.flush("others")
        holder.rollback()
    assert db.rows("SELECT DISTINCT last_error FROM streamext.continuous_views") == [(None,)]
    assert db.value("SELECT count(definition) FROM streamext.continuous_views") == 4


@pytest.mark.parametrize("slow", ["patience()", "make_interval(secs => length(repeat('x', 60)))"])
def test_a_window_of_an_ordinary_roles_function(db: Database, slow: str) -> None:
    """Whoever looks at the catalogue does not wait for what evaluates a view's constants, which may take any time."""
    db.execute("DO $$ BEGIN CREATE ROLE metrics_slow; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    local_stream(db, columns="a int, ts timestamptz", options="event_time 'ts'")
    db.execute("GRANT CREATE, USAGE ON SCHEMA public TO metrics_slow; GRANT SELECT ON s TO metrics_slow; SET ROLE metrics_slow; CREATE TABLE asleep (a int)")
    db.execute("""CREATE FUNCTION patience() RETURNS interval LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN IF EXISTS (SELECT FROM public.asleep) THEN PERFORM pg_sleep(3600); END IF; RETURN '1 min'; END $$""")
    continuous(db, "v", f"SELECT streamext.tumble({slow}, ts) AS w, count(*) AS n FROM s GROUP BY 1")
    db.execute("RESET ROLE; INSERT INTO s VALUES (1, now())")
    db.flush("s")
    db.execute("INSERT INTO asleep VALUES (1); SET statement_timeout = '30 s'")
    assert metrics(db, "public.v")["streamext_view_accepted_total"] == 1
    assert db.rows("SELECT state, window_size, last_error FROM streamext.continuous_views") == [("running", None, None)]
    assert db.value("SELECT count(*) FROM streamext.workers") == 1


def test_histograms(db: Database) -> None:
    """A batch is counted once in each; buckets hold all that is below their bound."""
    db.execute("SELECT streamext.set_clock('2024-05-01 12:00:05+00')")
    local_stream(db, "event_time 'ts'", "ts timestamptz")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    for second in (4, 3):  # the newest one is what it is measured from
        db.execute("INSERT INTO s VALUES (%s)", f"2024-05-01 12:00:0{second}+00")
        db.flush("s")
    found = db.rows("""SELECT name, labels->>'le', value FROM streamext.metrics WHERE kind = 'histogram'
        ORDER BY regexp_replace(name, '_[a-z]+$', ''), name, (labels->>'le')::float8""")
    for name in ("batch", "batch_decode", "batch_fold", "batch_event_lag"):
        buckets = [value for family, _, value in found if family == f"streamext_{name}_seconds_bucket"]
        assert len(buckets) == 15 and buckets == sorted(buckets) and buckets[-1] == 2, name
        assert (f"streamext_{name}_seconds_count", None, 2) in found, name
    assert [(le, value) for name, le, value in found if name == "streamext_batch_event_lag_seconds_bucket" and 0.1 < float(le) < 20] == [
        ("0.3", 0), ("1.0", 2), ("3.0", 2), ("10.0", 2)
    ]  # fmt: skip
    assert ("streamext_batch_event_lag_seconds_sum", None, 2) in found
    text = db.value("SELECT streamext.metrics_text(true)")
    lines = [line for line in text.splitlines() if "streamext_batch_seconds" in line]
    assert lines[1] == "# TYPE streamext_batch_seconds histogram" and 'stream="public.s",le="0.0001"} ' in lines[2]
    assert 'stream="public.s",le="+Inf"} 2' in lines[16] and lines[17].startswith("streamext_batch_seconds_count{") and len(lines) == 19
    db.execute("SELECT streamext.set_clock(NULL)")


def test_they_are_documented(db: Database) -> None:
    """The reference's table is the view's."""
    local_stream(db, columns="a int")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.flush("s")
    reference = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
    rows = db.rows("""SELECT DISTINCT CASE kind WHEN 'histogram' THEN regexp_replace(name, '_(bucket|count|sum)$', '') ELSE name END, kind, unit, help
        FROM streamext.metrics""")
    assert [row for row in rows if "| `{}` | {} | {} | {} |\n".format(*row) not in reference] == []


def test_who_may_not_see_a_stream_gets_no_number_of_it(db: Database) -> None:
    local_stream(db, columns="a int")
    db.flush("s")
    db.execute("CREATE ROLE nobody_m LOGIN; CREATE ROLE watcher_m LOGIN IN ROLE pg_monitor")
    try:
        with db.connect("nobody_m") as nobody, db.connect("watcher_m") as watcher:
            count = "SELECT count(*) FROM streamext.metrics WHERE labels ? 'stream'"
            assert nobody.execute(count).fetchone() == (0,)
            assert (watcher.execute(count).fetchone() or (0,))[0] > 5
    finally:
        db.execute("DROP ROLE nobody_m, watcher_m")


def test_monitoring_beside_a_large_table(db: Database) -> None:
    """PostgreSQL reads that by parallel workers, beside which there is no subtransaction: catalogue views raised."""
    local_stream(db, "", "k int")
    continuous(db, "v", "SELECT count(*) FROM s")
    db.execute("CREATE TABLE large AS SELECT generate_series(1, 100000) AS i; ANALYZE large")
    db.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    views = "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'streamext'::regnamespace AND relkind = 'v'"
    sources = [view for (view,) in db.rows(views)] + ["streamext.view_positions('v')", "streamext_internal.get_view_definition('v'::regclass)"]
    assert "streamext.streams" in sources
    for source in sources:
        db.rows(f"SELECT max(n), count(*) FROM (SELECT sum(i) AS n FROM large) AS l, {source} AS x")
