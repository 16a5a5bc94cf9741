"""What used to be silent: ordinary views over a stream, options that CREATE OR REPLACE lost, changes of a stream's state in the log."""

import psycopg
import pytest

from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, error_of, kafka_stream, local_stream
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.wait import wait_for


def notices(db: Database, sql: str) -> list[str]:
    told: list[str] = []
    db.connection.add_notice_handler(handler := lambda diagnostic: told.append(diagnostic.message_primary or ""))
    db.connection.execute(sql)
    db.connection.remove_notice_handler(handler)
    return told


def test_what_reads_the_buffer_says_so(db: Database) -> None:
    local_stream(db, columns="a int")
    holds = 'shows what the buffer of stream "s" holds when it is read'
    assert notices(db, "CREATE VIEW o AS SELECT a FROM s") == [f'view "o" {holds}']
    assert notices(db, "CREATE MATERIALIZED VIEW m AS SELECT a FROM (SELECT * FROM s) AS x") == [f'materialized view "m" {holds}']
    assert notices(db, "SELECT count(*) FROM s AS x, (SELECT max(a) FROM s) AS y") == ['the aggregate is over what the buffer of stream "s" holds']
    assert notices(db, "SELECT * FROM s; CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s; TABLE v; CREATE TABLE t AS SELECT count(*) FROM v") == []


def test_replaced_views_keep_their_options(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    query = "SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s{} GROUP BY w"
    continuous(db, "v", query.format(""), ", streamext.retention = '1 day', streamext.lateness = '10 s', streamext.keep_late")
    db.execute(f"CREATE OR REPLACE VIEW v WITH (streamext.continuous, streamext.lateness = '20 s') AS {query.format(' WHERE k > 0')}")
    options = dict(option.split("=") for option in db.value("SELECT options FROM streamext.continuous_views"))
    assert (options["streamext.retention"], options["streamext.lateness"], options["streamext.keep_late"]) == ("1 day", "20 s", "true")


def test_changes_of_state_are_logged_by_name(db: Database, pg: Postgres) -> None:
    local_stream(db)
    db.flush("s")
    for function in ("pause", "resume"):
        db.execute(f"SELECT streamext.{function}('s')")
        state = {"pause": "paused", "resume": "running"}[function]
        wait_for(lambda s=state: f'stream "public.s" is {s}' in pg.log(), what=state)


def test_a_view_made_after_its_rows(db: Database) -> None:
    """Of a stream that keeps nothing for new views; once it is there it may be replaced, and a view over its windows has them."""
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz")
    query = "WITH (streamext.continuous) AS SELECT k, date_trunc('minute', ts) AS w, count(*) AS n FROM s GROUP BY k, w"
    assert notices(db, f"CREATE VIEW before {query}") == []
    db.execute("INSERT INTO s VALUES (1, '2024-05-01')")
    db.flush("s")
    assert notices(db, f"CREATE VIEW v {query}") == ['view "v" counts what comes to stream "s" from now on']
    assert notices(db, f"CREATE OR REPLACE VIEW v {query}") == []
    assert notices(db, "CREATE VIEW outer_one WITH (streamext.continuous) AS SELECT date_trunc('hour', w) AS h, sum(n) AS n FROM before GROUP BY h") == []


def test_a_view_made_after_its_records_in_kafka(db: Database, kafka: Kafka, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, ['{"a":1}'])
    kafka_stream(db, kafka, f"topic '{topic}'", "a int")
    db.flush("s")
    assert notices(db, "CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s") == []


def test_rows_that_will_be_rejected(db: Database) -> None:
    """Told once a statement, INSERT or COPY; the row does not undo the transaction."""
    local_stream(db, "event_time 'ts'", "k int NOT NULL, ts timestamptz")
    told = ['stream "s" will reject rows of this statement']
    assert notices(db, "INSERT INTO s VALUES (1, '2024-05-01')") == []
    for rows in ("(1, NULL), (2, NULL)", "(1, 'infinity')", "(NULL, '2024-05-01')", "(1, now() + interval '2 hours')"):
        assert notices(db, f"INSERT INTO s VALUES {rows}") == told
    db.flush("s")
    assert db.value("SELECT rejected FROM streamext.streams") == 5


def test_days_of_a_time_zone(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "ts timestamptz")
    number = 0

    def told(window: str) -> list[str]:
        nonlocal number
        number += 1
        return notices(db, f"CREATE VIEW v{number} WITH (streamext.continuous) AS SELECT {window} AS w, count(*) FROM s GROUP BY w")

    days = ["streamext.tumble('1 day', ts)", "streamext.hop('7 days', '1 day', ts)", "date_bin('1 day', ts, '2001-01-01')"]
    assert [told(window) for window in days] == [[], [], []]
    db.execute("SET timezone = 'Europe/Berlin'")
    assert [told(window) for window in days] == [["windows of whole days do not begin at midnight in time zone Europe/Berlin"]] * 3
    assert told("date_trunc('day', ts)") == told("streamext.tumble('1 hour', ts)") == told("streamext.hop('1 day', '1 hour', ts)") == []
    db.execute("SET timezone = 'Asia/Tokyo'")
    assert told("date_bin('1 day', ts, '2001-01-01')") == told("date_bin('1 day', ts, '2001-01-01 06:00')") == []


def test_intervals_without_a_unit(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "ts timestamptz")
    told = 'option "watermark_delay" is {}'
    for value, said in (("10", "00:00:10"), ("1 h 30", "01:00:30"), ("0", ""), ("10 s", ""), ("PT10S", ""), ("1:30", "")):
        assert notices(db, f"ALTER FOREIGN TABLE s OPTIONS ({'SET' if value != '10' else 'ADD'} watermark_delay '{value}')") == [told.format(said)] * bool(said)
    # nor is an option told of again where another one is given, of a stream or a server
    db.execute("ALTER FOREIGN TABLE s OPTIONS (SET watermark_delay '10')")
    assert notices(db, "ALTER FOREIGN TABLE s OPTIONS (ADD buffer_size '10'); ALTER FOREIGN TABLE s OPTIONS (SET buffer_size '20', SET watermark_delay '10')") == []
    db.execute("CREATE SERVER tier FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:1', header_timeout '20')")
    assert notices(db, "ALTER SERVER tier OPTIONS (ADD max_body '1MB')") == []
    assert notices(db, "ALTER SERVER tier OPTIONS (SET header_timeout '30')") == ['option "header_timeout" is 00:00:30']
    query = "AS SELECT date_trunc('day', ts) AS d, count(*) FROM s GROUP BY d"
    assert notices(db, f"CREATE VIEW v WITH (streamext.continuous, streamext.lateness = 0, streamext.max_groups = 5) {query}") == []
    with pytest.raises(psycopg.errors.InvalidDatetimeFormat) as error:
        db.execute("ALTER VIEW v SET (streamext.retention = 'x 5')")
    assert "streamext.retention takes an interval" in error_of(error)[2]
    assert notices(db, "ALTER VIEW v SET (streamext.retention = 30)") == ['view option "streamext.retention" is 00:00:30']
    # what is kept was told of
    assert notices(db, "ALTER VIEW v SET (streamext.max_groups = 6)") == notices(db, f"CREATE OR REPLACE VIEW v WITH (streamext.continuous) {query}") == []


def test_german_dates_in_csv_and_text(db: Database, kafka: Kafka, topic: str) -> None:
    """As of JSON, that the first of May is taken for the fifth of January is told."""
    kafka.create_topic(topic)
    kafka_stream(db, kafka, f"topic '{topic}', delimiter ';'", "p int OPTIONS (metadata 'partition'), a text, zeit timestamp, n int", format="csv")
    db.execute(f"CREATE FOREIGN TABLE bare (zeit date) SERVER {db.value('SELECT srvname FROM pg_foreign_server')} OPTIONS (topic '{topic}b', format 'text')")
    kafka.create_topic(f"{topic}b")
    kafka.produce(topic, ["a;01.05.2024 14:00;1"])
    kafka.produce(f"{topic}b", ["01.05.2024"])
    db.flush("s", "bare")
    hints = db.rows('SELECT stream::text, "column", hint FROM streamext.stream_columns WHERE hint IS NOT NULL ORDER BY 1')
    assert [(stream, column) for stream, column, _ in hints] == [("bare", "zeit"), ("s", "zeit")]
    assert all("are read with the month first" in hint for _, _, hint in hints)


def test_metadata_beside_a_bare_value(db: Database, mosquitto: Mosquitto) -> None:
    """Of several metadata columns none was taken for the payload's, though PostgreSQL gives them their options one by one."""
    db.execute(f"CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri '{mosquitto.uri}')")
    columns = "device text OPTIONS (metadata 'topic_level 2'), n int, at timestamptz OPTIONS (metadata 'timestamp')"
    assert notices(db, f"CREATE FOREIGN TABLE x ({columns}) SERVER floor OPTIONS (topic 'hour/+/n', format 'text')") == []
    assert notices(db, "ALTER FOREIGN TABLE x ADD m int") == ['stream "x" has several columns for a payload of format text']
    deep = "a text OPTIONS (metadata 'topic_level 4'), b float8"
    assert notices(db, f"CREATE FOREIGN TABLE y ({deep}) SERVER floor OPTIONS (topic 'hour/#', format 'text')") == []
    assert notices(db, f"CREATE FOREIGN TABLE z ({deep}) SERVER floor OPTIONS (topic 'hour/+/n', format 'text')") == [
        'column "a" of stream "z" will always be NULL']  # fmt: skip


def test_an_alert_for_what_is_never_absent(db: Database) -> None:
    local_stream(db, "event_time 'ts'", "a int, ts timestamptz")
    said = ["no key is ever absent from view public.silent"]
    windows = {
        "latest": ("SELECT a, count(*) AS n FROM s GROUP BY a", "", said),
        "minutes": ("SELECT a, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY a, w", "", said),
        "kept": ("SELECT a, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY a, w", ", streamext.retention = '1 h'", []),
        "few": ("SELECT a, count(*) AS n FROM s GROUP BY a HAVING count(*) < 3", "", []),
        "recent": ("SELECT a, count(*) AS n FROM s WHERE ts > now() - interval '1 minute' GROUP BY a", "", []),
    }
    for name, (query, options, notice) in windows.items():
        continuous(db, name, query, options)
        assert notices(db, f"CREATE VIEW silent WITH (streamext.alert, streamext.absent = '1 min') AS SELECT a FROM {name}") == notice, name
        db.execute("DROP VIEW silent")
    # what is no key of the continuous view is another value with the next row, and so may be a session's start
    continuous(db, "sessions", "SELECT a, streamext.session('1 min', ts) AS w, count(*) AS n FROM s GROUP BY a, w")
    for key, query in ("a", "SELECT a FROM latest WHERE n < 3"), ("n", "SELECT n FROM latest"), ("n", "SELECT n % 2 AS n FROM latest GROUP BY 1"), ("w", "SELECT w FROM sessions"):
        assert notices(db, f"CREATE VIEW silent WITH (streamext.alert, streamext.key = '{key}', streamext.absent = '1 min') AS {query}") == [], query
        db.execute("DROP VIEW silent")
    assert notices(db, "CREATE VIEW silent WITH (streamext.alert, streamext.key = 'a', streamext.absent = '1 min') AS SELECT a, n FROM latest") == said
    db.execute("DROP VIEW silent")
    assert notices(db, "CREATE VIEW high WITH (streamext.alert) AS SELECT a FROM latest") == []
