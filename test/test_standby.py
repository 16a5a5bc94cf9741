"""Physical standbys, base backups and point-in-time recovery: views answer from the last checkpoint there is, and go on from it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
import pytest

from harness.database import Database
from harness.http import Web
from harness.kafka import Kafka, Message
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.sensors import Plant, Reading
from harness.streams import BY_TS, COLUMNS, VIEWS, assert_views, continuous, counts, create_views, error_of, kafka_stream, local_stream, mqtt_stream, state
from harness.views import sessions
from harness.wait import wait_for

KEPT = """SELECT site, array_agg(device ORDER BY ts, device) AS devices, percentile_cont(0.5) WITHIN GROUP (ORDER BY temperature) AS median,
    count(DISTINCT device) AS n, avg(temperature::numeric) AS mean, max(site || device) AS last FROM {source} GROUP BY site"""
LONG = "SELECT site, count(*) AS n FROM {source} WHERE ts > {now} - interval '720000 hours' GROUP BY site"
WHOLE = {name: query for name, query in VIEWS.items() if name != "sliding"} | {"kept": KEPT}
SESSION = "SELECT device, streamext.session('3 s', ts) AS w, count(*) AS n FROM s GROUP BY device, w"
READINGS = list(Plant(devices=40, sites=5).readings(6000))


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    path = Path(mkdtemp(prefix="streamext-archive-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[Postgres]:
    """The primary; checkpoints come often."""
    settings = {
        "streamext.checkpoint_interval": 50, "archive_mode": "on",
        "archive_command": f"cp %p {archive}/.%f && mv {archive}/.%f {archive}/%f",
    }  # fmt: skip
    with Postgres(settings=settings) as server:
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    name = f"s{os.urandom(4).hex()}"
    server.psql(f"CREATE DATABASE {name}")
    server.psql("CREATE EXTENSION streamext", name)
    yield Database(server, name)
    server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def produce(kafka: Kafka, topic: str, start: int, end: int) -> None:
    """Reading i is in partition i % 3 at offset i // 3."""
    kafka.produce(topic, [Message(r.json(), i % 3) for i, r in enumerate(READINGS[start:end], start)])


def oracle(db: Database) -> None:
    """Table all_readings: what the topic will hold; view o: what the continuous view total has counted of it."""
    db.execute(f"CREATE TABLE all_readings ({COLUMNS}, part int, pos bigint)")
    with db.connection.cursor() as cursor, cursor.copy("COPY all_readings FROM STDIN") as copy:
        for i, r in enumerate(READINGS):
            copy.write(f"{r.device}\t{r.site}\t{r.ts.isoformat(timespec='milliseconds')}\t{r.temperature}\t{r.humidity}\t{i % 3}\t{i // 3}\n")
    db.execute(
        f"""CREATE VIEW o AS SELECT {', '.join(c.split()[0] for c in COLUMNS.split(', '))} FROM all_readings
        JOIN streamext.view_positions('total') AS p ON part = partition AND pos < next_offset"""
    )


def plant(db: Database, kafka: Kafka, topic: str) -> None:
    """A stream with a view of each kind."""
    kafka.create_topic(topic, 3)
    kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}")
    create_views(db, views=WHOLE)
    continuous(db, "long", LONG.format(source="s", now="now()"), ", streamext.step = '240 hours'")
    continuous(db, "session", SESSION)
    for name in ("tumbling", "hopping"):
        continuous(db, f"{name}_kept", VIEWS[name].format(source="s"), ", streamext.retention = '2 min'")
    oracle(db)


def assert_plant(db: Database) -> int:
    """Every view is exactly of its positions; how many records these are."""
    assert_views(db, "o", db.value("SELECT now()"), WHOLE | {"long": LONG})
    table = sessions("o", ["device"], "'3 s'")
    db.assert_same("SELECT device, w, n FROM session", f"SELECT device, session_start, count(*) FROM {table} GROUP BY 1, 2")
    for name in ("tumbling", "hopping"):
        db.assert_same(f"TABLE {name}_kept", f"SELECT * FROM ({VIEWS[name].format(source='o')}) AS x WHERE w >= (SELECT min(w) FROM {name}_kept)")
    return db.value("SELECT count(*) FROM o")


def saved(db: Database, *streams: str) -> None:
    """Returns when all that the sources hold now is in a checkpoint, on disk."""
    db.flush(*streams)
    wait_for(lambda: not db.value("SELECT bool_or(checkpoint_pending) FROM streamext.workers"), what="a checkpoint")
    db.execute("SET synchronous_commit = on; CREATE TABLE flushed (); DROP TABLE flushed")


def follow(server: Postgres, **settings: Any) -> Postgres:
    return Postgres(settings={"archive_mode": "off"} | settings, copy_of=server, standby=True)


def caught_up(primary: Database, standby: Postgres) -> None:
    lsn = primary.value("SELECT pg_current_wal_flush_lsn()")
    with standby.connect() as c:
        wait_for(lambda: c.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [lsn]).fetchone()[0], what="replay")


def counted(db: Database, view: str = "total") -> int:
    return db.value("SELECT coalesce(sum(next_offset), 0)::bigint FROM streamext.view_positions(%s)", view)


def refused(db: Database, sql: str) -> tuple[str, str, str]:
    with pytest.raises(psycopg.Error) as error:
        db.execute(sql)
    return error_of(error)


def test_a_standby_reads_checkpoints(database: Database, kafka: Kafka, topic: str) -> None:
    """Whatever has been replayed, each view is exactly what PostgreSQL returns over the records up to its positions."""
    db = database
    plant(db, kafka, topic)
    with follow(db.server) as server:
        standby = Database(server, db.name)
        seen = set()
        for start in range(0, 3000, 500):
            produce(kafka, topic, start, start + 500)
            before = counted(standby)
            wait_for(lambda: counted(standby) > before, what="a checkpoint")
            standby.execute("SELECT pg_wal_replay_pause()")
            seen.add(assert_plant(standby))
            standby.execute("SELECT pg_wal_replay_resume()")
        saved(db, "s")
        caught_up(db, server)
        wait_for(lambda: counted(standby) == 3000, what="the last checkpoint")
        assert assert_plant(standby) == 3000
        assert len(seen) > 1
        assert standby.value("SELECT history_panes FROM streamext.continuous_views WHERE view = 'tumbling'::regclass") > 0
        for view in WHOLE:
            assert counts(standby, view) == counts(db, view) == (3000, 0, 0)

        # what is looked for by key and time
        device = standby.value("SELECT min(device) FROM tumbling")
        for condition in (f"device = '{device}'", "w >= '2024-05-01 12:03:00+00' AND w < '2024-05-01 12:04:00+00'"):
            for view in ("tumbling", "hopping"):
                standby.assert_same(f"SELECT * FROM {view} WHERE {condition}",
                                    f"SELECT * FROM ({VIEWS[view].format(source='o')}) AS x WHERE {condition}")  # fmt: skip
        standby.execute("PREPARE p AS SELECT count(*) FROM tumbling AS t JOIN all_readings AS a USING (device) WHERE a.pos = 0 AND device = $1")
        expected = db.value("SELECT count(*) FROM tumbling AS t JOIN all_readings AS a USING (device) WHERE a.pos = 0 AND device = %s", device)
        for _ in range(7):
            assert standby.value(f"EXECUTE p('{device}')") == expected

        # a view replaced on the primary is empty until there is a checkpoint of it, and one that is new as well
        db.execute("ALTER SYSTEM SET streamext.checkpoint_interval = 0")
        db.server.reload()
        wait_for(lambda: db.value("SHOW streamext.checkpoint_interval") == "0", what="the setting")
        db.execute("CREATE OR REPLACE VIEW by_site WITH (streamext.continuous) AS SELECT site, count(*) AS n, max(temperature) AS total FROM s GROUP BY site")
        db.flush("s")
        caught_up(db, server)
        rows = standby.rows("TABLE by_site")
        assert rows == [] or sorted(rows) == sorted(db.rows("TABLE by_site"))
        db.execute("ALTER SYSTEM RESET streamext.checkpoint_interval")
        db.server.reload()
        wait_for(lambda: sorted(standby.rows("TABLE by_site")) == sorted(db.rows("TABLE by_site")), what="its checkpoint")


def test_a_standby_says_so(database: Database) -> None:
    db = database
    local_stream(db, columns="a bigint")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total FROM s GROUP BY k")
    db.execute("INSERT INTO s SELECT generate_series(0, 99)")
    saved(db, "s")
    with follow(db.server) as server:
        standby = Database(server, db.name)
        assert standby.rows("SELECT state, rows_in FROM streamext.streams") == [("standby", 100)]
        assert standby.rows("SELECT state, groups, open_windows, accepted, late, rejected, last_error FROM streamext.continuous_views") == [
            ("standby", 10, 1, 100, 0, 0, None)
        ]
        assert standby.rows("SELECT last_checkpoint FROM streamext.continuous_views") == db.rows("SELECT last_checkpoint FROM streamext.continuous_views")
        assert standby.rows("SELECT state, pid, checkpoint_seq FROM streamext.workers") == [
            ("standby", None, db.value("SELECT checkpoint_seq FROM streamext.workers"))
        ]
        positions = "SELECT topic, partition, position FROM streamext.stream_partitions"
        assert standby.rows(positions) == db.rows(positions)
        assert standby.rows("SELECT * FROM streamext.view_positions('v')") == db.rows("SELECT * FROM streamext.view_positions('v')")
        for function in ("flush", "pause", "resume"):
            code, message, hint = refused(standby, f"SELECT streamext.{function}('s')")
            assert (code, "primary" in hint) == ("25006", True)
        for function in ("pause", "resume", "rebuild"):
            code, message, hint = refused(standby, f"SELECT streamext.{function}('v')")
            assert (code, "primary" in hint) == ("25006", True)
        code, message, hint = refused(standby, "TABLE s")
        assert code == "55000" and "recovery" in message and "views" in hint
        assert refused(standby, "INSERT INTO s VALUES (1)")[0] == "25006"
        assert refused(standby, "COPY s FROM STDIN")[0] == "25006"
        assert standby.rows("EXPLAIN TABLE v")

        # damage is an error, not an answer
        db.execute("UPDATE streamext_internal.checkpoint_log SET data = set_byte(data, 50, get_byte(data, 50) # 1) WHERE kind = 'E'")
        caught_up(db, server)
        fresh = Database(server, db.name)
        code, message, _ = refused(fresh, "TABLE v")
        assert code == "XX001" and "damaged" in message


def test_no_dashboard_drops_to_zero(database: Database) -> None:
    """After a restart a view shows its last checkpoint until a worker has it, be there no slot for one."""
    db = database
    local_stream(db, columns="a bigint")
    continuous(db, "v", "SELECT a % 10 AS k, count(*) AS n, sum(a) AS total FROM s GROUP BY k")
    db.execute("INSERT INTO s SELECT generate_series(0, 99)")
    saved(db, "s")
    expected = sorted(db.rows("TABLE v"))
    last = db.rows("SELECT last_checkpoint, accepted, groups FROM streamext.continuous_views")
    try:
        db.execute("ALTER SYSTEM SET max_worker_processes = 2")
        db.server.restart()
        db = Database(db.server, db.name)
        assert sorted(db.rows("TABLE v")) == expected
        assert db.rows("SELECT last_checkpoint, accepted, groups FROM streamext.continuous_views") == last
        wait_for(lambda: state(db) == "waiting", what="state waiting")
    finally:
        Database(db.server, db.name).execute("ALTER SYSTEM RESET max_worker_processes")
        db.server.restart()
    db = Database(db.server, db.name)
    assert sorted(db.rows("TABLE v")) == expected
    db.execute("INSERT INTO s SELECT generate_series(100, 199)")
    db.flush("s")
    assert db.rows("SELECT sum(n), sum(total) FROM v") == [(200, sum(range(200)))]
    assert state(db) == "running"


def test_promotion(database: Database, kafka: Kafka, topic: str) -> None:
    """Under load: Kafka's views are exact afterwards; a local stream goes on, with the rows whose checkpoint has come."""
    db = database
    plant(db, kafka, topic)
    local_stream(db, columns="a bigint", name="l")
    continuous(db, "lv", "SELECT count(*) AS n, sum(a)::bigint AS total, array_agg(a) AS list FROM l")
    continuous(db, "uv", "SELECT src, count(*)::int AS n, sum(a)::bigint AS total FROM (SELECT 'l' AS src, a FROM l UNION ALL SELECT 's', 1 FROM s) q GROUP BY src")
    with follow(db.server) as server:
        produce(kafka, topic, 0, 3000)
        db.execute("INSERT INTO l SELECT generate_series(1, 1000)")
        saved(db, "s", "l")
        caught_up(db, server)
        assert sorted(Database(server, db.name).rows("TABLE uv")) == [("l", 1000, sum(range(1001))), ("s", 3000, 3000)]
        produce(kafka, topic, 3000, 4500)
        server.promote()
        standby = Database(server, db.name)
        standby.execute("INSERT INTO l SELECT generate_series(1001, 1100)")  # before the worker is there
        produce(kafka, topic, 4500, 6000)
        standby.flush("s", "l")
        assert assert_plant(standby) == 6000
        for view in WHOLE:
            assert counts(standby, view) == (6000, 0, 0)
        assert standby.rows("SELECT n, total, (SELECT count(DISTINCT a) FROM unnest(list) AS a) FROM lv") == [(1100, sum(range(1101)), 1100)]
        assert sorted(standby.rows("TABLE uv")) == [("l", 1100, sum(range(1101))), ("s", 6000, 6000)]
        assert standby.rows("SELECT DISTINCT state FROM streamext.streams") == [("running",)]
        assert standby.rows("SELECT kind FROM streamext.stream_events WHERE stream = 'l'::regclass") == [("gap",)]
        saved(standby, "s", "l")
        server.restart()
        standby = Database(server, db.name)
        standby.execute("INSERT INTO l SELECT generate_series(1101, 1200)")
        standby.flush("s", "l")
        assert assert_plant(standby) == 6000
        assert standby.rows("SELECT n, total FROM lv") == [(1200, sum(range(1201)))]
        assert sorted(standby.rows("TABLE uv")) == [("l", 1200, sum(range(1201))), ("s", 6000, 6000)]
        # the former primary is not disturbed
        db.flush("s")
        assert assert_plant(db) == 6000


def test_a_former_primary_comes_back() -> None:
    """By pg_rewind, as a standby: what only it has counted and what lies in its journal is gone there, and it can take over again."""
    with Postgres(settings={"wal_log_hints": "on", "wal_keep_size": "256MB", "streamext.checkpoint_interval": 50}) as first:
        first.psql("CREATE EXTENSION streamext")
        db = Database(first, "postgres")
        local_stream(db, columns="a bigint", name="l")
        continuous(db, "lv", "SELECT count(*) AS n, sum(a)::bigint AS total FROM l")
        db.execute("INSERT INTO l SELECT generate_series(1, 100)")
        saved(db, "l")
        with follow(first) as second:
            caught_up(db, second)
            second.promote()
            db.execute("INSERT INTO l SELECT generate_series(1001, 1010)")
            saved(db, "l")
            db.connection.close()
            first.kill9()
            taken = Database(second, "postgres")
            taken.execute("INSERT INTO l SELECT generate_series(101, 150)")
            saved(taken, "l")
            first.follow(second)
            caught_up(taken, first)
            back = Database(first, "postgres")
            assert back.rows("SELECT n, total, state FROM lv, streamext.streams") == [(150, sum(range(151)), "standby")]
            taken.connection.close()
            second.kill9()
            first.promote()
            back.execute("INSERT INTO l SELECT generate_series(151, 200)")
            back.flush("l")
            assert back.rows("TABLE lv") == [(200, sum(range(201)))]


def test_a_base_backup_is_a_server(database: Database, kafka: Kafka, topic: str) -> None:
    """Taken under load, started beside its origin, which consumes the same topic: both are exact."""
    db = database
    plant(db, kafka, topic)
    local_stream(db, columns="a bigint", name="l")
    continuous(db, "lv", "SELECT count(*) AS n, sum(a)::bigint AS total FROM l")
    db.execute("INSERT INTO l SELECT generate_series(1, 100)")
    produce(kafka, topic, 0, 3000)
    db.flush("s", "l")
    produce(kafka, topic, 3000, 4000)
    with Postgres(copy_of=db.server, settings={"archive_mode": "off"}) as server:
        copy = Database(server, db.name)
        produce(kafka, topic, 4000, 6000)
        copy.execute("INSERT INTO l SELECT generate_series(101, 150)")
        db.execute("INSERT INTO l SELECT generate_series(101, 200)")
        for at, n in ((copy, 150), (db, 200)):
            at.flush("s", "l")
            assert assert_plant(at) == 6000
            assert at.rows("TABLE lv") == [(n, sum(range(n + 1)))]
            assert at.rows("SELECT DISTINCT state FROM streamext.streams") == [("running",)]


def test_point_in_time(database: Database, kafka: Kafka, topic: str, archive: Path) -> None:
    """At the target the views are exactly of their positions; from there they catch up."""
    db = database
    plant(db, kafka, topic)
    produce(kafka, topic, 0, 1500)
    saved(db, "s")
    server = Postgres(copy_of=db.server)
    try:
        produce(kafka, topic, 1500, 3000)
        saved(db, "s")
        db.execute("SELECT pg_create_restore_point('middle')")
        produce(kafka, topic, 3000, 4500)
        saved(db, "s")
        segment = db.value("SELECT pg_walfile_name(pg_switch_wal())")
        wait_for(lambda: (archive / segment).exists(), what="the archive")
        server.configure({
            "restore_command": f"cp {archive}/%f %p", "recovery_target_name": "middle", "recovery_target_action": "pause",
            "archive_mode": "off",
        })  # fmt: skip
        (server.data / "recovery.signal").touch()
        server.start()
        restored = Database(server, db.name)
        wait_for(lambda: restored.value("SELECT pg_is_wal_replay_paused()"), what="the target")
        assert state(restored) == "standby"
        assert assert_plant(restored) == 3000
        restored.execute("SELECT pg_wal_replay_resume()")
        wait_for(lambda: not restored.value("SELECT pg_is_in_recovery()"), what="the end of recovery")
        restored.flush("s")
        assert assert_plant(restored) == 4500
        for view in WHOLE:
            assert counts(restored, view) == (4500, 0, 0)
    finally:
        server.remove()


def test_mqtt_fails_over(database: Database, mosquitto: Mosquitto, topic: str) -> None:
    """The new primary takes over the broker's session: what was published while nobody was there is counted."""
    db = database
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    with follow(db.server) as server:
        db.flush("s")
        mosquitto.publish([(topic, f'{{"a":{i}}}') for i in range(1, 101)])
        saved(db, "s")
        caught_up(db, server)
        db.server.stop()
        try:
            mosquitto.publish([(topic, f'{{"a":{i}}}') for i in range(101, 151)])
            server.promote()
            standby = Database(server, db.name)
            standby.flush("s")
            mosquitto.publish([(topic, f'{{"a":{i}}}') for i in range(151, 201)])
            standby.flush("s")
            assert standby.rows("TABLE v") == [(200, sum(range(201)))]
            assert state(standby) == "running"
        finally:
            server.stop()
            db.server.start()


def test_two_gateways_after_a_promotion(database: Database) -> None:
    """The one that is promoted listens when the address is free, and the views go on from the checkpoint."""
    web = Web(database)
    web.stream()
    continuous(database, "total", "SELECT count(*) AS n FROM s")
    assert web.post([{"n": n} for n in range(10)]).status == 204
    database.flush("s")
    saved(database, "s")
    with follow(database.server) as standby:
        caught_up(database, standby)
        assert standby.connect(database.name).execute("SELECT n FROM total").fetchall() == [(10,)]
        assert web.post({"n": 10}).status == 204  # the standby has no gateway
        saved(database, "s")
        caught_up(database, standby)
        standby.promote()
        db = Database(standby, database.name)
        wait_for(lambda: db.rows("SELECT state FROM streamext.gateways") == [("address_in_use",)], what="the second gateway")
        assert web.post({"n": 11}).status == 204
        database.execute("DROP SERVER web CASCADE")
        wait_for(lambda: db.rows("SELECT state FROM streamext.gateways") == [("listening",)], what="the second gateway at work")
        assert web.post([{"n": 20}] * 5).status == 204
        db.flush("s")
        assert db.value("SELECT n FROM total") == 16  # what the first one took since is in its journal
        db.connection.close()


def test_a_journal_without_its_tail(database: Database) -> None:
    """What was counted stays so, what comes next is counted by every view, and one that was behind reads what is left."""
    db = database
    local_stream(db, columns="a bigint")
    for view in ("v", "behind"):
        continuous(db, view, "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.execute("INSERT INTO s SELECT generate_series(1, 100)")
    db.flush("s")
    db.execute("SELECT streamext.pause('behind')")
    wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views WHERE view = 'behind'::regclass") == "paused", what="pause")
    db.execute("INSERT INTO s SELECT generate_series(101, 200)")
    wait_for(lambda: db.value("SELECT n FROM v") == 200, what="the other view")
    saved(db)
    start, end = counted(db, "behind"), counted(db, "v")
    relid, dboid = db.rows("SELECT 's'::regclass::oid, oid FROM pg_database WHERE datname = current_database()")[0]
    db.server.stop()
    os.truncate(db.server.data / "streamext" / str(dboid) / f"{relid}.0" / ("0" * 16), start + (end - start) // 2)
    db.server.start()
    db = Database(db.server, db.name)
    db.execute("INSERT INTO s SELECT generate_series(201, 300)")
    wait_for(lambda: db.value("SELECT n FROM v") == 300, what="rows behind the gap")
    db.execute("SELECT streamext.resume('behind')")
    db.flush("s")
    assert db.rows("TABLE v") == [(300, sum(range(301)))]
    assert db.rows("TABLE behind") == [(250, sum(range(151)) + sum(range(201, 301)))]


def test_one_client_id_for_two(database: Database, mosquitto: Mosquitto, topic: str) -> None:
    """As a copy beside its origin has it: it is said."""
    db = database
    for name in ("s", "t"):
        mqtt_stream(db, mosquitto, f"topic '{topic}', client_id 'twins'", "a bigint", name=name)
    wait_for(
        lambda: db.value("SELECT count(*) FROM streamext.streams WHERE last_error LIKE '%again and again%twins%'") > 0,
        what="the reason",
    )
