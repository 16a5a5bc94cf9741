"""Two people on their way: a plant engineer with MQTT sensors nobody has described, and a DBA who watches the server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.streams import continuous, local_stream

PROMTOOL = Path(os.environ.get("STREAMEXT_DEPS", ".deps")) / "prometheus" / "promtool"
ACL = "user sensors\ntopic readwrite plant/#\nuser plant\ntopic read plant/#\ntopic readwrite streamext/flush/#\n"


def test_a_plant_engineer(db: Database) -> None:
    """docs/mqtt.md: an ACL, epoch milliseconds, bare numbers, German dates; no message is lost, each mistake is told."""
    with Mosquitto(users={"sensors": "s", "plant": "p"}, acl=ACL) as broker:
        broker.publish([("plant/oven/state", '{"ts":1714561231123,"temp":21.5,"deviceId":"o1"}'), ("plant/oven/level", "7.25"),
                        ("plant/oven/log", '{"zeit":"01.05.2024 14:00","text":"auf"}')], retain=True, user="sensors")  # fmt: skip
        db.execute(f"CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{broker.uri}')")
        assert db.refusal("SELECT * FROM streamext.peek('floor', 'plant/#', 1)").startswith("HV00N") and "not authorised" in db.refusal(
            "SELECT * FROM streamext.peek('floor', 'plant/#', 1)")  # fmt: skip
        db.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER floor OPTIONS (username 'plant', password 'p')")
        assert db.value("SELECT count(*) FROM streamext.peek('floor', 'plant/#', 3, '30 s')") == 3
        db.execute("IMPORT FOREIGN SCHEMA \"plant/+/state\" LIMIT TO (states) FROM SERVER floor INTO public OPTIONS (sample '1', wait '30 s')")
        db.execute("CREATE FOREIGN TABLE levels (device text OPTIONS (metadata 'topic_level 2'), value float8) SERVER floor OPTIONS (topic 'plant/+/level', format 'text')")
        db.execute("CREATE FOREIGN TABLE log (zeit timestamptz OPTIONS (time_format 'DD.MM.YYYY HH24:MI', time_zone 'Europe/Berlin'), text text) SERVER floor "
                   "OPTIONS (topic 'plant/+/log', event_time 'zeit')")  # fmt: skip
        continuous(db, "hot", "SELECT deviceid, streamext.tumble('1 min', ts) AS minute, max(temp) AS peak FROM states GROUP BY deviceid, minute")
        continuous(db, "filled", "SELECT device, max(value) AS level FROM levels GROUP BY device")
        continuous(db, "logged", "SELECT date_trunc('hour', zeit) AS hour, count(*) AS n FROM log GROUP BY hour")
        db.flush("states", "levels", "log")  # they have subscribed
        broker.publish([("plant/oven/state", '{"ts":1714561232123,"temp":22.5,"deviceId":"o1"}'), ("plant/oven/level", "8.5"), ("plant/oven/level", "acht"),
                        ("plant/oven/log", '{"zeit":"01.05.2024 14:30","text":"zu"}')], user="sensors")  # fmt: skip
        db.flush("states", "levels", "log")
        assert db.rows("SELECT deviceid, extract(epoch FROM minute)::int, peak FROM hot") == [("o1", 1714561200, 22.5)]
        assert db.rows("TABLE filled") == [("oven", 8.5)]
        assert db.value("SELECT extract(epoch FROM hour) = 1714564800 FROM logged")  # 12 o'clock in UTC
        assert db.rows("SELECT stream::text, payload_text FROM streamext.dead_letters") == [("levels", "acht")]
        assert db.rows("SELECT what FROM streamext.check('states') WHERE NOT ok") == []


def test_a_dba(db: Database) -> None:
    """Watches with pg_monitor and no more; what the server is asked for is text that Prometheus takes."""
    local_stream(db, "event_time 'ts'", "a int, ts timestamptz NOT NULL")
    continuous(db, "v", "SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY m")
    db.execute("CREATE ROLE watch LOGIN IN ROLE pg_monitor")
    try:
        with db.connect("watch") as watch:
            text = (watch.execute("SELECT streamext.metrics_text()").fetchone() or ("",))[0]
            assert "streamext_view_up" in text
            if PROMTOOL.exists():
                found = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
                assert found.returncode == 0, found.stderr
            assert watch.execute("SELECT * FROM streamext.advise()").fetchall() == []
            with pytest.raises(Exception):
                watch.execute("TABLE v")
    finally:
        db.execute("DROP ROLE watch")


def test_a_team(db: Database) -> None:
    """docs/operations.md#security as it is typed: its roles get what they need and no more."""
    text = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
    blocks = re.findall(r"(?:^    .*\n)+", text[text.index("Least privilege for a team") :], re.MULTILINE)[:2]
    db.execute("CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1')")
    try:
        db.execute(blocks[0])
        with db.connect("plant_admin") as admin:
            admin.execute("""CREATE FOREIGN TABLE plant.sensors (device text) SERVER plant OPTIONS (topic 'sensors');
                CREATE VIEW plant.device_minute WITH (streamext.continuous) AS SELECT device, count(*) AS n FROM plant.sensors GROUP BY device""")
            admin.execute(blocks[1])
        with db.connect("dashboards") as reader:
            assert reader.execute("TABLE plant.device_minute").fetchall() == []
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute("TABLE plant.sensors")
    finally:
        db.execute("DROP OWNED BY plant_admin, dashboards CASCADE; DROP ROLE plant_admin, dashboards")


def test_advice(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "a int, ts timestamptz NOT NULL")
    continuous(db, "v", "SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY m")
    db.execute("INSERT INTO s VALUES (1, '2024-05-01 12:00+00')")
    db.flush("s")
    db.execute("INSERT INTO s SELECT i, '2024-05-01 10:00+00' FROM generate_series(1, 20) AS i")
    db.execute("INSERT INTO s SELECT i, NULL FROM generate_series(1, 20) AS i")
    db.flush("s")
    assert db.rows("SELECT object, setting, present, why FROM streamext.advise() ORDER BY setting") == [
        ("public.s", "columns", None, "20 of 41 records were rejected"), ("public.s", "watermark_delay", "0", "20 of 21 records were late for view public.v")]  # fmt: skip


def test_compare(db: Database) -> None:
    local_stream(db, columns="d text, x float8")
    for view in ("a", "b"):
        continuous(db, view, "SELECT d, count(*) AS n, sum(x) AS total FROM s GROUP BY d")
    db.execute("INSERT INTO s SELECT 'd' || i % 3, i * 0.1 FROM generate_series(1, 60) AS i")
    db.flush("s")
    assert db.rows("SELECT * FROM streamext.compare('a', 'b')") == []
    db.execute("CREATE TABLE t AS TABLE a; INSERT INTO t SELECT * FROM a WHERE d = 'd1'; DELETE FROM t WHERE d = 'd2'")
    found = db.rows("SELECT only_in::regclass::text, contents->>'d', copies FROM streamext.compare('a', 't') ORDER BY 1")
    assert found == [("a", "d2", 1), ("t", "d1", 1)]
    db.execute("CREATE ROLE nobody_p LOGIN")
    try:
        with db.connect("nobody_p") as nobody, pytest.raises(Exception, match="permission denied"):
            nobody.execute("SELECT * FROM streamext.compare('a', 'b')")
    finally:
        db.execute("DROP ROLE nobody_p")


def test_a_superuser_runs_no_casts_of_others(db: Database) -> None:
    """What makes JSON of rows would call casts of their types: of a view or table of a role that owns such a type it does so for that role only."""
    db.execute("CREATE ROLE planter LOGIN SUPERUSER; CREATE SERVER l FOREIGN DATA WRAPPER local; CREATE TABLE ran (who text); GRANT INSERT ON ran TO PUBLIC")
    try:
        with db.connect("planter") as planter:
            planter.execute("""CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE FOREIGN TABLE s (m mood) SERVER l;
                CREATE FUNCTION told(mood) RETURNS json LANGUAGE sql AS $$ INSERT INTO public.ran VALUES (current_user); SELECT '1'::json $$;
                CREATE VIEW v WITH (streamext.continuous) AS SELECT m, count(*) FROM s GROUP BY m; CREATE TABLE t AS SELECT 'ok'::mood AS m, 1::bigint AS count;
                CREATE CAST (mood AS json) WITH FUNCTION told(mood)""")  # fmt: skip
        db.execute("ALTER ROLE planter NOSUPERUSER; INSERT INTO s VALUES ('ok')")
        db.flush("s")
        for reads in ("streamext.compare('v', 't')", "streamext.compare('ran', 't')", "streamext.changes('v')"):
            assert db.refusal(f"SELECT * FROM {reads}").startswith("42501 a superuser reads no rows of "), reads
        assert db.rows("TABLE ran") == []
        with db.connect("planter") as planter:
            planter.execute("SELECT * FROM streamext.compare('v', 't')")
            planter.execute("SELECT * FROM streamext.changes('v')")
        assert {who for (who,) in db.rows("TABLE ran")} == {"planter"}
    finally:
        db.execute("DROP OWNED BY planter CASCADE; DROP ROLE planter")


def test_a_dba_upgrades_and_uninstalls() -> None:
    """docs/operations.md as it is typed: from 1.0 with data in place, a restart without the library and one with it, and away with everything."""
    with Postgres() as server:
        server.psql("CREATE DATABASE dba")
        server.psql("CREATE EXTENSION streamext VERSION '1.0'", "dba")
        db = Database(server, "dba")
        local_stream(db, "event_time 'ts'", "a int, ts timestamptz NOT NULL")
        continuous(db, "v", "SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY m")
        db.execute("CREATE VIEW mine AS SELECT stream, state FROM streamext.streams")
        db.execute("INSERT INTO s SELECT i, timestamptz '2024-05-01' + i * interval '1 min' FROM generate_series(1, 10) AS i")
        db.flush("s")
        assert "view public.mine depends on view streamext.streams" in db.refusal("ALTER EXTENSION streamext UPDATE")
        db.execute("DROP VIEW mine; ALTER EXTENSION streamext UPDATE")
        db.execute("CREATE VIEW mine AS SELECT stream, state FROM streamext.streams; INSERT INTO s VALUES (11, '2024-05-01 00:11')")
        db.flush("s")
        assert db.value("SELECT sum(n) FROM v") == 11 and db.rows("TABLE mine") == [("s", "running")]
        db.connection.close()
        for libraries in ("", "streamext"):
            server.configure({"shared_preload_libraries": libraries})
            server.restart()
            db = Database(server, "dba")
            if libraries == "":
                for statement in ("TABLE v", "INSERT INTO s VALUES (12, '2024-05-01 00:12')"):
                    assert "shared_preload_libraries" in db.refusal(statement)
                assert db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'streamext%'") == 0
            else:
                db.flush("s")
                assert db.value("SELECT sum(n) FROM v") == 11
                db.execute("DROP EXTENSION streamext CASCADE; DROP SCHEMA streamext")
            db.connection.close()
        server.configure({"shared_preload_libraries": ""})
        server.restart()
        shutil.rmtree(server.data / "streamext")
        db = Database(server, "dba")
        assert db.value("SELECT count(*) FROM pg_class WHERE relname IN ('s', 'v', 'mine')") == 0
        assert db.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'streamext%'") == 0
        db.connection.close()
