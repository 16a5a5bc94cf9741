"""python -m harness.old_build COMMIT...: databases that an older build has made restart on this one, with all views exact. `make old-builds`.

Each commit is built in a directory of its own below $STREAMEXT_DEPS/old, with a copy of PostgreSQL. What it makes: version 1.0's SQL objects, streams of
Kafka and of INSERT, views of every kind of window and way of keeping an aggregate, history; stopped in the midst of the flow or killed. Of builds that
have them, a view over a view, whose windows wait in its journal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg

from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import FAST, Postgres, pg_config
from harness.streams import continuous, kafka_stream, local_stream
from harness.views import sessions
from harness.wait import wait_for

TOP = Path(__file__).parents[2]
COLUMNS = "k text, ts timestamptz, x int, y float8"
VIEWS = {
    "tumbled": "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) AS s, max(y) AS m FROM {} GROUP BY k, w",
    "hopped": "SELECT k, streamext.hop('10 min', '2 min', ts) AS w, count(*) AS n, avg(y) AS a, stddev(y) AS d FROM {} GROUP BY k, w",
    "by_hour": "SELECT date_trunc('hour', ts) AS w, count(DISTINCT x) AS d, array_agg(x ORDER BY x, ts) AS l FROM {} GROUP BY 1",
    "total": "SELECT count(*) AS n, sum(x::numeric) AS s, min(ts) AS a, max(k) AS b FROM {}",
    "by_key": "SELECT k, variance(x) AS v, bit_xor(x) AS x, string_agg(x::text, ',' ORDER BY ts, x) AS t FROM {} GROUP BY k",
    "middle": "SELECT k, percentile_cont(0.5) WITHIN GROUP (ORDER BY y) AS p, bool_or(x = 3) AS b FROM {} WHERE x > 1 GROUP BY k",
    "kept": "SELECT k, streamext.tumble('1 min', ts) AS w, count(*) AS n, sum(x) AS s FROM {} GROUP BY k, w",
}
OPTIONS = {"kept": ", streamext.retention = '40000 days'"}
OUTER = "SELECT k, date_trunc('hour', w) AS h, sum(n) AS n, max(m) AS m FROM {} GROUP BY k, h"
SESSIONS = "SELECT k, {start} AS w, count(*) AS n, sum(x) AS s FROM {source} GROUP BY k, w"


def build(commit: str) -> Path:
    """The bindir of a copy of PostgreSQL with that commit installed."""
    place = Path(os.environ.get("STREAMEXT_DEPS", TOP / ".deps")).resolve() / "old" / commit
    usr = pg_config("bindir").parents[3]
    bindir = place / "usr" / pg_config("bindir").relative_to(usr)
    if not (place / "built").exists():
        shutil.rmtree(place, ignore_errors=True)
        (place / "source").mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=TOP, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", place / "source"], input=archive, check=True)
        for part in "lib/postgresql", "share/postgresql":
            shutil.copytree(usr / part, place / "usr" / part, symlinks=True)
        (place / "usr/include").mkdir()
        (place / "usr/include/postgresql").symlink_to(usr / "include/postgresql")
        for target in "all", "install":
            subprocess.run(["make", "-s", "-j2", target, f"PG_CONFIG={bindir}/pg_config"], cwd=place / "source", check=True)
        (place / "built").touch()
    return bindir


def rows(first: int) -> str:
    return (
        "SELECT 'k' || i % 7 AS k, timestamptz '2024-01-01Z' + i * interval '7 s' AS ts, i % 11 AS x, i * 0.25::float8 AS y"
        f" FROM generate_series({first}, {first + 1999}) AS i"
    )


def fill(db: Database, kafka: Kafka, first: int) -> None:
    db.execute(f"INSERT INTO o {rows(first)}")
    db.execute(f"INSERT INTO l {rows(first)}")
    kafka.produce("old", [json for (json,) in db.rows(f"SELECT row_to_json(r)::text FROM ({rows(first)}) AS r")])
    for stream in "l", "s":
        db.execute(f"SELECT streamext.flush('{stream}')")


def check(db: Database, when: str) -> None:
    for stream in "l", "s":
        db.flush(stream)  # who was killed reads again what the last checkpoint does not hold
        for name, query in VIEWS.items():
            db.assert_same(f"TABLE {stream}_{name}", query.format("o"))
        db.assert_same(f"TABLE {stream}_sessions", SESSIONS.format(start="session_start", source=sessions("o", ["k"], "'5 s'")))
    if db.value("SELECT to_regclass('outer_view') IS NOT NULL"):
        flow = db.value("SELECT coalesce(to_regclass('streamext_internal.flow'), to_regclass('streamext.flow'))::text")  # older builds
        until = f"(SELECT min(written_until) FROM {flow})"
        db.assert_same("TABLE outer_view", OUTER.format(f"({VIEWS['tumbled'].format('o')} HAVING streamext.tumble('1 min', ts) + interval '1 min' <= {until}) q"))
    # a busy broker may not have answered for a moment
    states = "SELECT state, last_error FROM streamext.streams UNION SELECT state, last_error FROM streamext.continuous_views"
    wait_for(lambda: db.rows(states) == [("running", None)], what="all running without trouble")
    print(f"  {when}: {2 * len(VIEWS) + 2} views exact", flush=True)


def make(db: Database, kafka: Kafka, topic: str) -> None:
    db.execute("CREATE EXTENSION streamext VERSION '1.0'")
    db.execute(f"CREATE TABLE o ({COLUMNS})")
    local_stream(db, "event_time 'ts'", COLUMNS, "l")
    kafka_stream(db, kafka, f"topic '{topic}', event_time 'ts'", COLUMNS, "s")
    for stream in "l", "s":
        for name, query in VIEWS.items():
            continuous(db, f"{stream}_{name}", query.format(stream), OPTIONS.get(name, ""))
        continuous(db, f"{stream}_sessions", SESSIONS.format(start="streamext.session('5 s', ts)", source=stream))


def chains(db: Database) -> bool:
    """Makes a view over a view where the build can."""
    try:
        with db.connection.transaction():
            db.execute("ALTER EXTENSION streamext UPDATE")
            continuous(db, "outer_view", OUTER.format("l_tumbled"))
    except psycopg.errors.FeatureNotSupported:
        return False
    db.flush("l")
    return True


def restarts(commit: str, kill: bool) -> None:
    print(f"{commit}, {'killed' if kill else 'stopped'}:", flush=True)
    with Kafka() as kafka, Postgres(bindir=build(commit)) as pg:
        kafka.create_topic("old", 2)
        db = Database(pg, "postgres")
        make(db, kafka, "old")
        fill(db, kafka, 0)
        chained = chains(db)
        check(db, "on the old build")
        if chained:
            db.execute("SELECT streamext.pause('outer_view')")
        fill(db, kafka, 2000)
        db.connection.close()
        if kill:
            pg.kill9()
        else:
            pg.stop(FAST)
        pg.bindir = pg_config("bindir")
        pg.start()
        db = Database(pg, "postgres")
        if chained:
            db.execute("SELECT streamext.resume('outer_view')")
        check(db, "on this one")
        fill(db, kafka, 4000)
        check(db, "with more rows")
        db.execute("ALTER EXTENSION streamext UPDATE")
        if not chained:
            continuous(db, "outer_view", OUTER.format("l_tumbled"))
        fill(db, kafka, 6000)
        check(db, "updated to 1.1")
        db.connection.close()
        pg.restart()
        db = Database(pg, "postgres")
        check(db, "after a restart")
        db.connection.close()


if __name__ == "__main__":
    for commit in sys.argv[1:]:
        for kill in False, True:
            restarts(commit, kill)
