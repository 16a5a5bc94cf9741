"""What used to be silent: ordinary views over a stream, options that CREATE OR REPLACE lost, changes of a stream's state in the log."""

from harness.database import Database
from harness.postgres import Postgres
from harness.streams import continuous, kafka_stream, local_stream
from harness.kafka import Kafka
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
