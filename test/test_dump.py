"""pg_dump and restore: the same statements come back, and the views work."""

import re
from collections.abc import Iterator

import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.sensors import Plant
from harness.streams import BY_TS, assert_views, continuous, create_views, kafka_stream, local_stream, table_of

VIEWS = {
    "tumbling": """SELECT device, streamext.tumble('10 s', ts) AS w, count(*) AS n, avg(temperature) AS mean
        FROM {source} WHERE temperature > 1 GROUP BY device, w HAVING count(*) > 1""",
    "hopping": "SELECT site, streamext.hop('1 min', '10 s', ts) AS w, max(humidity) FROM {source} GROUP BY site, w",
    "total": "SELECT count(*) AS n, count(*) FILTER (WHERE site = 'site-01') AS one FROM {source}",
}


@pytest.fixture
def restored(db: Database) -> Iterator[str]:
    """The name of an empty database."""
    name = f"{db.name}_restored"
    db.server.psql(f"CREATE DATABASE {name}")
    yield name
    db.server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def dump(db: Database, *arguments: str) -> str:
    # Since 15.14 a dump holds a random token of psql's \restrict.
    return re.sub(r"^\\(un)?restrict .*\n", "", db.server.run("pg_dump", *arguments, db.name), flags=re.MULTILINE)


def set_up(db: Database, kafka: Kafka, topic: str) -> None:
    kafka_stream(db, kafka, f"topic '{topic}', {BY_TS}")
    create_views(db, views=VIEWS)
    local_stream(db, "event_time 'at', buffer_size '10', max_ahead '2 days'", "a int, at timestamptz NOT NULL DEFAULT now()", "l")
    continuous(db, '"odd.Name"', """SELECT a AS "A b", streamext.tumble('1 day', at) AS w, count(*) AS n FROM l
        WHERE at > now() - interval '30 days' GROUP BY a, w ORDER BY 1 LIMIT 10""",
        ", streamext.lateness = '5 min', streamext.keep_late, streamext.step = '15 min', security_barrier")  # fmt: skip
    db.execute("ALTER VIEW tumbling SET (streamext.retention = '10 days')")
    db.execute('CREATE VIEW above AS SELECT device, sum(n) AS n FROM tumbling GROUP BY device')
    continuous(db, "chained", "SELECT device, date_trunc('minute', w) AS m, sum(n) AS n FROM tumbling GROUP BY device, m")
    db.execute("COMMENT ON VIEW total IS 'all of it'")
    db.execute("CREATE ROLE dump_reader")
    db.execute("GRANT SELECT ON hopping TO dump_reader")


def test_dump_and_restore(db: Database, kafka: Kafka, topic: str, restored: str) -> None:
    kafka.create_topic(topic)
    readings = list(Plant(devices=10, sites=3).readings(1000))
    kafka.produce(topic, [reading.json() for reading in readings])
    try:
        set_up(db, kafka, topic)
        db.flush("s")
        script = dump(db)
        db.server.psql(script, restored)
        copy = Database(db.server, restored)
        assert dump(copy) == script
        copy.flush("s")
        assert copy.rows("TABLE chained ORDER BY 1, 2") == db.rows("TABLE chained ORDER BY 1, 2") != []
        table_of(copy, readings)
        assert_views(copy, "o", views=VIEWS)
        copy.assert_same("TABLE above", f"SELECT device, sum(n) FROM ({VIEWS['tumbling'].format(source='o')}) AS x GROUP BY 1")
        copy.execute("INSERT INTO l VALUES (1), (2), (1)")
        copy.flush("l")
        assert copy.rows('SELECT "A b", n FROM "odd.Name"') == [(1, 2), (2, 1)]
        settings = "SELECT relname, reloptions FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        assert copy.rows(settings) == db.rows(settings)
        copy.connection.close()
    finally:
        for name in (db.name, restored):
            db.server.psql("DROP OWNED BY dump_reader", name)
        db.execute("DROP ROLE dump_reader")


@pytest.mark.parametrize("format", ["--format=custom", "--format=plain --clean --if-exists"])
def test_other_ways_to_restore(db: Database, restored: str, format: str, tmp_path: object) -> None:
    local_stream(db, columns="a int")
    continuous(db, "v", "SELECT a, count(*) AS n FROM s GROUP BY a")
    file = db.server.dir / "dump"
    db.server.run("pg_dump", *format.split(), "-f", str(file), db.name)
    if "custom" in format:
        db.server.run("pg_restore", "-e", "-j", "2", "-d", restored, str(file))
    else:
        for _ in range(2):  # the second time over what is there
            db.server.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", restored, "-f", str(file))
    copy = Database(db.server, restored)
    copy.execute("INSERT INTO s VALUES (1)")
    copy.flush("s")
    assert copy.rows("TABLE v") == [(1, 1)]
    copy.connection.close()


def test_psql_shows_the_users_own_query(db: Database) -> None:
    local_stream(db, "event_time 'ts'")
    continuous(db, "v", """SELECT device, streamext.hop('1 min', '10 s', ts) AS window_start, count(*) AS n, avg(temperature) AS mean
        FROM s WHERE temperature > -40 GROUP BY device, window_start HAVING count(*) > 1""")
    shown = db.server.run("psql", "-X", "-c", r"\d+ v", db.name)
    for part in ("streamext.hop(", "window_start", "FROM s", "GROUP BY", "HAVING", "streamext.continuous"):
        assert part in shown, shown
    definition = db.value("SELECT pg_get_viewdef('v', true)")
    db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous) AS {definition}")
    assert db.value("SELECT pg_get_viewdef('v', true)") == definition
