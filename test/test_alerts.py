"""Alerts as views: what fires, clears, repeats and is missed, against a plain simulation; notifications of changes."""

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from harness.database import Database, temporary_database
from harness.postgres import Postgres
from harness.streams import continuous, error_of, local_stream
from harness.wait import wait_for

BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
SEED = int(os.environ.get("STREAMEXT_ALERTS_SEED", random.randrange(1_000_000)))
HISTORIES = int(os.environ.get("STREAMEXT_ALERTS_HISTORIES", "8"))
TOGETHER = 25  # histories in one database
STEPS, CRASHES = 60, 1  # of a database

SETTINGS = {"streamext.checkpoint_interval": 200, "max_prepared_transactions": 4}


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    with temporary_database(server) as database:
        database.execute("SET timezone = 'UTC'")
        yield database
        database.connection = server.connect(database.name)
        database.execute("SELECT streamext.set_clock(NULL)")


def clock(db: Database, seconds: float) -> None:
    db.execute("SELECT streamext.set_clock(%s)", BEGIN + timedelta(seconds=seconds))


def stream(db: Database) -> None:
    """Of each device the newest value; -1: it has no row."""
    local_stream(db, "event_time 'ts'", "device text, x int, ts timestamptz")
    continuous(db, "newest", "SELECT device, streamext.last(x, ts) AS x FROM s GROUP BY device HAVING streamext.last(x, ts) <> -1")


def put(db: Database, seconds: float, **values: int) -> None:
    for device, x in values.items():
        db.execute("INSERT INTO s VALUES (%s, %s, %s)", device, x, BEGIN + timedelta(seconds=seconds))
    db.flush("s")


def at(db: Database, seconds: float, **values: int) -> None:
    """One evaluation, of these values at this time."""
    for device, x in values.items():
        db.execute("INSERT INTO s VALUES (%s, %s, %s)", device, x, BEGIN + timedelta(seconds=seconds))
    clock(db, seconds)
    db.flush("s")


def alert(db: Database, options: str = "", name: str = "hot", query: str = "SELECT device, x FROM newest WHERE x > 70") -> None:
    db.execute(f"CREATE VIEW {name} WITH (streamext.alert, streamext.every = '1 h'{options}) AS {query}")


def events(db: Database, view: str = "hot") -> list[tuple[str, str, float]]:
    return [
        (key["device"], kind, (moment - BEGIN).total_seconds())
        for key, kind, moment in db.rows("SELECT key, kind, at FROM streamext.alert_events WHERE view = %s::regclass ORDER BY id", view)
    ]


def alerts(db: Database, view: str = "hot") -> list[tuple[str, str, float]]:
    return [
        (key["device"], state, (since - BEGIN).total_seconds())
        for key, state, since in db.rows("SELECT key, state, since FROM streamext.alerts WHERE view = %s::regclass ORDER BY key", view)
    ]


def test_fires_after_hold_and_clears(database: Database) -> None:
    db = database
    stream(db)
    clock(db, 0)
    alert(db, ", streamext.hold = '30 s', streamext.to = 'ops'")
    db.execute("LISTEN ops")
    at(db, 0, a=80, b=60)
    assert alerts(db) == [("a", "pending", 0)] and events(db) == []
    at(db, 29)
    assert alerts(db) == [("a", "pending", 0)]
    at(db, 30)
    assert alerts(db) == [("a", "firing", 30)] and events(db) == [("a", "fired", 30)]
    at(db, 40, a=90)
    assert db.rows("SELECT row FROM streamext.alerts") == [({"device": "a", "x": 90},)]
    at(db, 50, a=70, b=71)
    assert alerts(db) == [("b", "pending", 50)]
    at(db, 60, b=-1)
    assert alerts(db) == []
    assert events(db) == [("a", "fired", 30), ("a", "cleared", 50)]
    told = [json.loads(notice.payload) for notice in db.connection.notifies(timeout=90, stop_after=2)]
    assert [(event["kind"], event["key"], event["view"]) for event in told] == [("fired", {"device": "a"}, "public.hot"), ("cleared", {"device": "a"}, "public.hot")]
    assert [event["id"] for event in told] == [i for (i,) in db.rows("SELECT id FROM streamext.alert_events ORDER BY id")]
    assert told[0]["row"] == {"device": "a", "x": 80}


def test_clears_by_a_condition_of_its_own(database: Database) -> None:
    db = database
    stream(db)
    clock(db, 0)
    alert(db, ", streamext.clear = 'x < 65'")
    at(db, 0, a=80)
    at(db, 1, a=68)
    assert alerts(db) == [("a", "firing", 0)]
    at(db, 2, a=64)
    at(db, 3, a=68)
    assert alerts(db) == []
    at(db, 4, a=71)
    at(db, 5, a=-1)
    assert events(db) == [("a", "fired", 0), ("a", "cleared", 2), ("a", "fired", 4), ("a", "cleared", 5)]


def test_constants_keep_their_meaning_where_the_condition_is_asked_without_where(database: Database) -> None:
    """In the way that this database writes times zones are abbreviations, and IST is Israel's to who reads it."""
    db = database
    db.execute(f"ALTER DATABASE {db.name} SET datestyle = 'SQL'; ALTER DATABASE {db.name} SET timezone = 'Asia/Kolkata'")
    stream(db)
    db.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{db.name}' AND backend_type LIKE 'streamext teller%'")
    midnight = "timestamptz '2024-05-01 00:00+05:30'"
    clear = f"x < 60 OR day <> {midnight}".replace("'", "''")
    alert(db, f", streamext.clear = '{clear}'", query=f"SELECT device, x, {midnight} AS day FROM newest WHERE x > 70")
    at(db, 0, a=71)
    at(db, 1, a=69)
    assert alerts(db) == [("a", "firing", 0)]
    assert events(db) == [("a", "fired", 0)]


def test_repeats(database: Database) -> None:
    db = database
    stream(db)
    clock(db, 0)
    alert(db, ", streamext.repeat = '1 min'")
    at(db, 0, a=80)
    for seconds in 59, 60, 100, 120, 185, 244:
        at(db, seconds)
    assert events(db) == [("a", "fired", 0), ("a", "repeated", 60), ("a", "repeated", 120), ("a", "repeated", 185)]


def test_a_silent_sensor(database: Database) -> None:
    db = database
    stream(db)
    continuous(db, "recent", "SELECT device, count(*) AS n FROM s WHERE ts > now() - interval '10 s' GROUP BY device")
    clock(db, 0)
    alert(db, ", streamext.absent = '1 min'", "silent", "SELECT device, n FROM recent")
    at(db, 0, a=1, b=1)
    at(db, 9, b=2)
    at(db, 20)
    at(db, 68, b=2)
    assert events(db, "silent") == []
    at(db, 69)
    assert events(db, "silent") == [("a", "fired", 69)] and alerts(db, "silent") == [("a", "firing", 69)]
    at(db, 80, a=3)
    assert events(db, "silent")[1:] == [("a", "cleared", 80)] and alerts(db, "silent") == []


@dataclass
class Simulation:
    """What alerts do, in a few lines."""

    hold: float
    repeat: float | None
    absent: float | None
    clear: int | None
    pending: dict[str, float] = field(default_factory=dict)
    firing: dict[str, float] = field(default_factory=dict)  # since
    told: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    events: list[tuple[str, str, float]] = field(default_factory=list)

    def evaluate(self, now: float, values: dict[str, int]) -> None:
        hot = {device for device, x in values.items() if x > 70}
        for device in sorted({*hot, *self.pending, *self.firing, *self.seen}):
            if self.absent is None:
                active = device in hot
                stays = active if self.clear is None else device in values and not values[device] < self.clear
            else:
                stays = device not in hot
                active = stays and now - self.seen[device] >= self.absent
            if device in self.firing:
                if not stays:
                    del self.firing[device]
                    self.events.append((device, "cleared", now))
                elif self.repeat is not None and now - self.told[device] >= self.repeat:
                    self.told[device] = now
                    self.events.append((device, "repeated", now))
            elif not active:
                self.pending.pop(device, None)
            elif now - self.pending.setdefault(device, now) >= self.hold:
                del self.pending[device]
                self.firing[device] = self.told[device] = now
                self.events.append((device, "fired", now))
        if self.absent is not None:
            self.seen.update(dict.fromkeys(hot, now))

    def alerts(self) -> list[tuple[str, str, float]]:
        both = [(device, "pending", since) for device, since in self.pending.items()]
        return sorted(both + [(device, "firing", since) for device, since in self.firing.items()])


def restart_teller(db: Database) -> None:
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'streamext%%' AND application_name = 'streamext teller' AND datname = %s"
    (pid,) = db.rows(query, db.name)[0]
    db.execute("SELECT pg_terminate_backend(%s)", pid)
    wait_for(lambda: [row for row in db.rows(query, db.name) if row != (pid,)], what="another teller")


def crash(db: Database, rng: random.Random, now: float) -> None:
    """kill -9 of a process of the server, which takes the clock along: a prepared transaction keeps alerts from being evaluated until it is set."""
    with db.server.connect(db.name, autocommit=False) as holder:
        holder.execute("LOCK TABLE streamext_internal.alert_state IN ACCESS EXCLUSIVE MODE")
        holder.execute("PREPARE TRANSACTION 'hold'")
    kind = rng.choice(["streamext worker%", "streamext teller%"])
    pids = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s AND datname = %s"
    (pid,) = wait_for(lambda: db.rows(pids, kind, db.name), what=kind)[0]
    db.connection.close()
    db.server.kill_backend(pid)
    db.connection = wait_for(lambda: db.server.connect(db.name), what="a connection")
    clock(db, now)
    db.execute("ROLLBACK PREPARED 'hold'")


def random_alert(rng: random.Random) -> tuple[str, Simulation]:
    simulation = Simulation(
        hold=rng.choice([0, 0, 3, 20]), repeat=rng.choice([None, None, 5, 60]), absent=rng.choice([None, None, 10]), clear=rng.choice([None, 65])
    )
    if simulation.absent is not None:
        simulation.clear = None
    options = f", streamext.hold = '{simulation.hold} s'"
    options += f", streamext.repeat = '{simulation.repeat} s'" if simulation.repeat else ""
    options += f", streamext.absent = '{simulation.absent} s'" if simulation.absent else ""
    options += f", streamext.clear = 'x < {simulation.clear}'" if simulation.clear else ""
    return options, simulation


@dataclass
class History:
    """An alert over values of its own."""

    number: int
    options: str
    simulation: Simulation
    values: dict[str, int] = field(default_factory=dict)  # of devices that have a row

    def create(self, db: Database) -> None:
        i = self.number
        continuous(db, f"newest{i}", f"SELECT device, streamext.last(x, ts) AS x FROM s WHERE h = {i} GROUP BY device HAVING streamext.last(x, ts) <> -1")
        alert(db, self.options, f"hot{i}", f"SELECT device, x FROM newest{i} WHERE x > 70")

    def step(self, rng: random.Random) -> list[tuple[int, str, int]]:
        """Its new values; the one of -1 takes the row away."""
        changed = {device: rng.choice([-1, 50, 68, 71, 90]) for device in rng.sample("abcd", rng.choice([0, 0, 1, 1, 2, 3]))}
        self.values = {device: x for device, x in {**self.values, **changed}.items() if x != -1}
        return [(self.number, device, x) for device, x in changed.items()]

    def check(self, db: Database) -> None:
        assert sorted(events(db, f"hot{self.number}")) == sorted(self.simulation.events), self.options
        assert alerts(db, f"hot{self.number}") == self.simulation.alerts(), self.options


def follow_histories(db: Database, rng: random.Random, histories: list[History]) -> None:
    """At common times, through restarts of the teller and crashes of the server. Each evaluation is asked for by flush; a teller's first one is
    of the time and values of the one before it."""
    local_stream(db, "event_time 'ts'", "h int, device text, x int, ts timestamptz")
    clock(db, 0)
    for history in histories:
        history.create(db)
    db.flush("s")
    now = 0.0
    crashes = set(rng.sample(range(5, STEPS), CRASHES))
    for step in range(STEPS):
        now += rng.choice([1, 2, 5, 17])
        rows = [row for history in histories for row in history.step(rng)]
        with db.connection.cursor() as cursor:
            cursor.executemany("INSERT INTO s VALUES (%s, %s, %s, %s)", [(*row, BEGIN + timedelta(seconds=now)) for row in rows])
        clock(db, now)
        db.flush("s")
        for history in histories:
            history.simulation.evaluate(now, history.values)
        if step in crashes:
            crash(db, rng, now)
            db.flush("s")
        elif rng.random() < 0.1:
            restart_teller(db)
            db.flush("s")
    for history in histories:
        history.check(db)


@pytest.mark.timeout(300 + 10 * HISTORIES)
def test_random_histories(server: Postgres) -> None:
    """Separate histories, some dozens in a database at once. STREAMEXT_ALERTS_HISTORIES=1000 for many."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    total = 0
    for first in range(0, HISTORIES, TOGETHER):
        histories = [History(i, *random_alert(rng)) for i in range(first, min(first + TOGETHER, HISTORIES))]
        with temporary_database(server) as db:
            db.execute("SET timezone = 'UTC'")
            follow_histories(db, rng, histories)
            db.execute("SELECT streamext.set_clock(NULL)")
        found = sum(len(history.simulation.events) for history in histories)
        assert found > len(histories)
        total += found
        print(f"{first + len(histories)} histories, {total} events", flush=True)


@pytest.mark.timeout(300)
def test_a_crash_neither_repeats_nor_forgets(database: Database) -> None:
    db = database
    stream(db)
    alert(db)
    told: list[str] = []
    for step in range(3):
        put(db, 2 * step, a=80, b=60)
        put(db, 2 * step + 1, b=75)
        db.connection.close()
        if step == 1:
            db.server.stop()
            db.server.start()
        else:
            with db.server.connect(db.name) as other:
                (pid,) = other.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'streamext teller' AND datname = %s", (db.name,)).fetchone()
            db.server.kill_backend(pid)
        db.connection = wait_for(lambda: db.server.connect(db.name), what="a connection")
        put(db, 2 * step + 1, b=75)
        put(db, 2 * step + 1.5, b=10)
        told = [f"{key['device']} {kind}" for key, kind in db.rows("SELECT key, kind FROM streamext.alert_events ORDER BY id")]
    assert told == ["a fired"] + ["b fired", "b cleared"] * 3


def test_survives_errors_of_others(database: Database) -> None:
    db = database
    stream(db)
    alert(db, name="bad", query="SELECT device, 1 / (x - 80) AS y FROM newest")
    alert(db)
    put(db, 0, a=80)
    assert db.rows("SELECT view::text, last_error FROM streamext.alert_views ORDER BY 1") == [("bad", "division by zero"), ("hot", None)]
    assert [kind for (kind,) in db.rows("SELECT kind FROM streamext.alert_events")] == ["fired"]
    put(db, 1, a=81)
    assert db.rows("SELECT last_error FROM streamext.alert_views WHERE view = 'bad'::regclass") == [(None,)]


def test_definitions(database: Database) -> None:
    db = database
    stream(db)

    def refused(options: str, query: str = "SELECT device, x FROM newest") -> tuple[str, str, str]:
        with pytest.raises(psycopg.Error) as error:
            db.execute(f"CREATE VIEW v WITH ({options}) AS {query}")
        return error_of(error)

    assert refused("streamext.hold = '1 s'")[0] == "22023"
    assert refused("streamext.alert, streamext.retention = '1 s'")[0] == "22023"
    assert refused("streamext.alert, streamext.continuous")[0] == "22023"
    assert refused("streamext.alert, streamext.hold = '-1 s'")[0] == "22023"
    assert refused("streamext.alert, streamext.absent = '0'")[0] == "22023"
    assert refused("streamext.alert, streamext.key = 'nobody'")[0] == "42703"
    assert refused("streamext.alert, streamext.clear = 'nobody < 3'")[0] == "42703"
    assert refused("streamext.alert, streamext.clear = 'x'")[0] == "42883"
    assert refused("streamext.alert, streamext.clear = 'true), false)); DELETE FROM pg_class; --'")[0] in ("42601", "22023")
    assert refused("streamext.alert, streamext.clear = 'x < 3', streamext.absent = '1 s'")[0] == "22023"
    assert refused("streamext.alert, streamext.to = ''")[0] == "22023"
    alert(db, ", streamext.hold = '1 min'")
    db.execute("ALTER VIEW hot SET (streamext.hold = '0'); ALTER VIEW hot SET (security_barrier)")
    with pytest.raises(psycopg.Error):
        db.execute("ALTER VIEW hot RESET (streamext.alert)")
    put(db, 0, a=80)
    assert db.rows("SELECT state FROM streamext.alerts") == [("firing",)]
    # the keys of what is read; one may name others, or none
    alert(db, ", streamext.key = 'x'", "by_x")
    alert(db, "", "count_hot", "SELECT count(*) AS n FROM newest HAVING count(*) > 0")
    db.flush("s")
    assert db.rows("SELECT view::text, key FROM streamext.alerts ORDER BY 1") == [("by_x", {"x": 80}), ("count_hot", {}), ("hot", {"device": "a"})]
    # a dump has them as views
    dump = db.server.run("pg_dump", "--schema-only", db.name)
    db.execute("DROP VIEW by_x, count_hot")
    db.execute("CREATE OR REPLACE VIEW hot AS SELECT device, x FROM newest WHERE x > 70")
    wait_for(lambda: db.rows("SELECT view FROM streamext.alerts UNION ALL SELECT view FROM streamext.alert_views") == [], what="no alerts")
    with temporary_database(db.server) as other:
        other.execute("DROP EXTENSION streamext; DROP SCHEMA IF EXISTS streamext")
        db.server.psql(dump, other.name)
        assert other.rows("SELECT view::text FROM streamext.alert_views ORDER BY 1") == [("by_x",), ("count_hot",), ("hot",)]


def test_runs_as_the_owner(database: Database) -> None:
    """In a security-restricted operation, with his rights; who may not read the view sees nothing of it."""
    db = database
    stream(db)
    role = f"r{os.urandom(4).hex()}"
    db.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON newest TO {role}; GRANT CREATE ON SCHEMA public TO {role}; CREATE TABLE secret (a int)")
    try:
        with db.connect(role) as other:
            other.execute("CREATE FUNCTION who() RETURNS text LANGUAGE sql AS 'SELECT current_user::text'")
            other.execute("CREATE VIEW mine WITH (streamext.alert) AS SELECT device, public.who() AS who FROM newest")
            other.execute("CREATE FUNCTION steal() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.secret'")
            other.execute("CREATE VIEW thief WITH (streamext.alert) AS SELECT device, public.steal() FROM newest")
        put(db, 0, a=80)
        assert db.rows("SELECT row FROM streamext.alerts") == [({"device": "a", "who": role},)]
        assert "permission denied" in db.value("SELECT last_error FROM streamext.alert_views WHERE view = 'thief'::regclass")
        alert(db)
        db.flush("s")
        with db.connect(role) as other:
            assert other.execute("SELECT view::text FROM streamext.alerts").fetchall() == [("mine",)]
            assert other.execute("SELECT view::text FROM streamext.alert_events").fetchall() == [("mine",)]
    finally:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_database_with_alerts_can_be_dropped_and_copied(database: Database) -> None:
    db = database
    stream(db)
    alert(db)
    put(db, 0, a=80)
    name = f"c{os.urandom(4).hex()}"
    db.connection.close()
    try:
        db.server.psql(f"CREATE DATABASE {name} TEMPLATE {db.name}")
        db.connection = db.server.connect(db.name)
        put(db, 1, b=80)
        assert len(alerts(db)) == 2
    finally:
        db.server.psql(f"DROP DATABASE IF EXISTS {name}")


# ---------------------------------------------------------------- streamext.notify


def test_notifies_of_changes(db: Database) -> None:
    local_stream(db, "", "k int, x int")
    continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k", ", streamext.notify, streamext.emit_interval = '10 ms'")
    db.execute('LISTEN "public.v"')
    db.execute("INSERT INTO s VALUES (1), (2), (2)")
    (notice,) = db.connection.notifies(timeout=90, stop_after=1)
    told = json.loads(notice.payload)
    assert told["view"] == "public.v" and told["count"] == 2 and set(told) == {"view", "token", "count"}
    db.execute("INSERT INTO s VALUES (2)")
    db.flush("s")
    assert db.rows("SELECT op, row FROM streamext.changes('v', %s)", told["token"]) == [("upsert", {"k": 2, "n": 3})]
    with pytest.raises(psycopg.Error) as error:
        continuous(db, "w", "SELECT count(*) FROM s GROUP BY k", ", streamext.notify")
    assert error.value.sqlstate == "0A000"


def sums_in_a_hurry(db: Database) -> None:
    """The stream s(k, x) and the view v of sums; an alert is cancelled after a second, not 10."""
    db.configure("streamext.fault_point", "tellers-hurry")
    local_stream(db, columns="k text, x int")
    continuous(db, "v", "SELECT k, sum(x) AS total FROM s GROUP BY k")


def test_a_slow_alert_leaves_the_others_their_time(db: Database) -> None:
    """It is cancelled after 10 s, here 1; then neither flush nor its turn brings it about again at once."""
    sums_in_a_hurry(db)
    sleeping = "BEGIN PERFORM pg_catalog.nextval('public.turns'); PERFORM pg_catalog.pg_sleep(100); RETURN true; END"
    db.execute(f"CREATE SEQUENCE turns; CREATE FUNCTION sleeps() RETURNS boolean LANGUAGE plpgsql AS $${sleeping}$$")
    db.execute("INSERT INTO s VALUES ('a', 1)")
    db.flush("s")
    slow = "SELECT k, total FROM v WHERE sleeps()"
    db.execute(f"CREATE VIEW slow WITH (streamext.alert, streamext.key = 'k') AS {slow}")
    db.execute("CREATE VIEW quick WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE total > 0")
    error = "SELECT last_error FROM streamext.alert_views WHERE view = 'slow'::regclass"
    wait_for(lambda: db.value(error) is not None, what="the cancel")
    assert "more than 1 s" in db.value(error)
    turns = db.value("SELECT last_value FROM turns WHERE is_called")
    db.configure("streamext.fault_point", "")  # the other alert has all its time
    for k in "bcd":
        db.execute("INSERT INTO s VALUES (%s, 1)", k)
        db.flush("s")
        assert db.value("SELECT count(*) FROM streamext.alerts WHERE view = 'quick'::regclass AND key->>'k' = %s", k) == 1
    assert db.value("SELECT last_value FROM turns") - turns < 3  # not one for each flush


def test_alerts_that_catch_their_cancel_end_the_process_and_are_left_alone(db: Database) -> None:
    """One role's code would hold up all alerts of the database for as long as it likes."""
    sums_in_a_hurry(db)
    db.execute("""CREATE SEQUENCE turns; CREATE FUNCTION stays() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_catalog.nextval('public.turns');
        LOOP BEGIN PERFORM pg_catalog.pg_sleep(100); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$""")
    with db.connection.transaction():
        for name, condition in {"stays": "stays()", "quick": "total > 0"}.items():
            db.execute(f"CREATE VIEW {name} WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE {condition}")
    db.execute("INSERT INTO s VALUES ('a', 1)")
    wait_for(lambda: db.value("SELECT count(*) FROM streamext.alerts WHERE view = 'quick'::regclass") == 1, what="the other alert")
    error = "SELECT last_error FROM streamext.alert_views WHERE view = 'stays'::regclass"
    wait_for(lambda: "went on after it was canceled" in str(db.value(error)), what="what became of it")
    db.configure("streamext.fault_point", "")
    for k in "bcd":
        db.execute("INSERT INTO s VALUES (%s, 1)", k)
        db.flush("s")
        assert db.value("SELECT count(*) FROM streamext.alerts WHERE view = 'quick'::regclass AND key->>'k' = %s", k) == 1
    assert db.value("SELECT last_value FROM turns") < 4  # not one more for each flush


def test_flush_does_not_wait_for_an_alert_that_cannot_be_cancelled(db: Database) -> None:
    """PostgreSQL's strpos looks for no interrupt: flush of every stream waited as long as that took, and said nothing."""
    sums_in_a_hurry(db)
    deaf = "strpos(repeat('a', 300000 + total::int), 'b' || repeat('a', 150000)) = 0"
    db.execute(f"CREATE VIEW deaf WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE {deaf}")
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(f"{notice.severity} {notice.message_primary}"))
    db.execute("INSERT INTO s VALUES ('a', 1)")
    wait_for(lambda: (db.flush("s"), notices)[1], what="the warning")
    assert notices[0].startswith("WARNING alerts are not evaluated: view \"public.deaf\"")
    db.execute("DROP VIEW deaf")
    db.flush("s")


def test_what_an_alert_reads_holds_up_no_other(db: Database) -> None:
    """A transaction that holds it, views that come from themselves, or that name those below them twice: each was the end of all alerts of the database."""
    sums_in_a_hurry(db)
    db.execute("SET client_min_messages = warning; SET statement_timeout = '90 s'")

    def alert_over(name: str, source: str) -> None:
        db.execute(f"CREATE VIEW {name} WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM {source} WHERE total > 0")

    def quick_fires(k: str) -> None:
        db.execute("INSERT INTO s VALUES (%s, 1)", k)
        db.flush("s")
        assert db.value("SELECT count(*) FROM streamext.alerts WHERE view = 'quick'::regclass AND key->>'k' = %s", k) == 1

    def wait_for_error(name: str, error: str) -> None:
        last = f"SELECT last_error FROM streamext.alert_views WHERE view = '{name}'::regclass"
        wait_for(lambda: error in str(db.value(last)), what=error)

    alert_over("quick", "v")
    alert_over("held", "v")
    with db.connect() as other, other.transaction():
        other.execute("ALTER VIEW held ALTER COLUMN total SET DEFAULT 1")
        alert_over("one_more", "v")  # the catalogue is read again
        quick_fires("a")
        wait_for_error("held", "lock timeout")
    wait_for_error("held", "None")
    for i in range(15):
        db.execute(f"CREATE VIEW p{i} AS SELECT k, total FROM {f'p{i - 1}' if i else 'v'}")
    alert_over("large", "p14")
    for i in range(1, 15):
        db.execute(f"CREATE OR REPLACE VIEW p{i} AS SELECT k, a.total FROM p{i - 1} AS a JOIN p{i - 1} AS b USING (k)")
    wait_for_error("large", "too large")
    alert_over("circle", "p0")
    db.execute("CREATE OR REPLACE VIEW p0 AS SELECT k, total FROM p1")
    alert_over("another", "v")
    wait_for_error("circle", "infinite recursion")
    quick_fires("b")


@pytest.mark.parametrize("limit", ["128", "1"])
def test_an_alert_that_takes_memory_fails_by_itself(db: Database, limit: str) -> None:
    """The system ended all of the server's processes for it, and it was evaluated again after the restart. With 1 MB no alert was evaluated at all."""
    db.configure("streamext.teller_memory", limit)
    try:
        local_stream(db, columns="k text, x int")
        continuous(db, "v", "SELECT k, sum(x) AS total FROM s GROUP BY k")
        much = "(SELECT array_length(array_agg(g), 1) AS n FROM generate_series(1, 20000000) AS g) AS q"
        db.execute(f"CREATE VIEW greedy WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v, {much} WHERE q.n > total")
        db.execute("CREATE VIEW quick WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE total > 0")
        db.execute("INSERT INTO s VALUES ('a', 1)")
        last = "SELECT last_error FROM streamext.alert_views WHERE view = 'greedy'::regclass"
        wait_for(lambda: "streamext.teller_memory" in str(db.value(last)), what="the alert that takes memory to fail")
        db.flush("s")
        assert db.rows("SELECT view::text FROM streamext.alerts") == [("quick",)]
    finally:
        db.configure("streamext.teller_memory", "1024")


def test_memory_that_a_role_takes_by_many_alerts_is_its_own_loss(db: Database) -> None:
    """Each of them left less than another role's one, which was left alone for it."""
    role = f"{db.name}_many"
    db.execute(f"CREATE ROLE {role}; GRANT ALL ON SCHEMA public TO {role}")
    db.configure("streamext.teller_memory", "128")
    try:
        local_stream(db, columns="k text, x int")
        continuous(db, "v", "SELECT k, sum(x) AS total FROM s GROUP BY k")
        db.execute(f"GRANT SELECT ON v TO {role}")
        for name, statements in {"one": 2500, **{f"many{i}": 2000 for i in range(8)}}.items():
            body = "".join(f"x := x + {i}; " for i in range(statements))
            db.execute(f"CREATE FUNCTION f_{name}() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE x numeric := 0; BEGIN {body} RETURN true; END $$")
            db.execute(f"CREATE VIEW {name} WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE f_{name}()")
            if name != "one":
                db.execute(f"ALTER FUNCTION f_{name}() OWNER TO {role}; ALTER VIEW {name} OWNER TO {role}")
        db.execute("INSERT INTO s VALUES ('a', 1)")
        left = "SELECT DISTINCT left(view::text, 3) FROM streamext.alert_views WHERE last_error LIKE '%took more of streamext.teller_memory%'"
        assert wait_for(lambda: db.rows(left), what="one to be left alone") == [("man",)]
    finally:
        db.configure("streamext.teller_memory", "1024")
        db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_memory_that_a_role_takes_by_alerts_that_it_drops_is_its_own_loss(db: Database) -> None:
    """What PL/pgSQL keeps of a function stays when that is dropped; it was nobody's, and another role's alert was left alone for it."""
    role = f"{db.name}_drops"
    db.execute(f"CREATE ROLE {role}; GRANT ALL ON SCHEMA public TO {role}")
    db.configure("streamext.teller_memory", "128")
    try:
        local_stream(db, columns="k text, x int")
        continuous(db, "v", "SELECT k, sum(x) AS total FROM s GROUP BY k")
        db.execute(f"GRANT SELECT ON v TO {role}")
        db.execute("INSERT INTO s VALUES ('a', 1)")
        for name, statements in {"one": 2500, **{f"many{i}": 2000 for i in range(8)}}.items():
            body = "".join(f"x := x + {i}; " for i in range(statements))
            db.execute("RESET ROLE" if name == "one" else f"SET ROLE {role}")
            db.execute(f"CREATE FUNCTION f_{name}() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE x numeric := 0; BEGIN {body} RETURN true; END $$")
            db.execute(f"CREATE VIEW {name} WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE f_{name}()")
            db.execute("RESET ROLE")
            db.flush("s")
            assert db.value("SELECT last_error FROM streamext.alert_views WHERE view = 'one'::regclass") is None
            if name != "one":
                db.execute(f"DROP VIEW {name}; DROP FUNCTION f_{name}()")
    finally:
        db.configure("streamext.teller_memory", "1024")
        db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("keeps", ["plans", "code"])
def test_what_an_alert_leaves_in_memory_is_no_loss_of_others(db: Database, keeps: str) -> None:
    """Plans that PL/pgSQL keeps filled the process for good, and compiled code ended it again and again: no alert of the database was evaluated any more."""
    if keeps == "code" and not db.value("SELECT pg_jit_available()"):
        pytest.skip("no JIT")
    statements = {
        "plans": "".join(f"x := x + {i}; " for i in range(15_000)),
        "code": f"PERFORM {', '.join(' + '.join(f'sqrt(g + {i})' for i in range(20)) for _ in range(1500))} FROM pg_catalog.generate_series(1, 2) AS g;",
    }
    db.configure("streamext.teller_memory", "128" if keeps == "plans" else "256")
    try:
        local_stream(db, columns="k text, x int")
        continuous(db, "v", "SELECT k, sum(x) AS total FROM s GROUP BY k")
        db.execute(f"""CREATE FUNCTION hoards() RETURNS boolean LANGUAGE plpgsql SET jit = on SET jit_above_cost = 0 AS
            $$ DECLARE x numeric := 0; BEGIN {statements[keeps]} RETURN true; END $$""")
        for name, condition in {"hoards": "hoards()", "quick": "total > 0"}.items():
            db.execute(f"CREATE VIEW {name} WITH (streamext.alert, streamext.key = 'k') AS SELECT k, total FROM v WHERE {condition}")
        db.execute("INSERT INTO s VALUES ('a', 1)")
        error = "SELECT last_error FROM streamext.alert_views WHERE view = 'hoards'::regclass"
        left = ("took more of streamext.teller_memory", "ended the process of alerts")
        wait_for(lambda: any(why in str(db.value(error)) for why in left), what="what became of it")
        for k in "bc":
            db.execute("INSERT INTO s VALUES (%s, 1)", k)
            db.flush("s")
            assert db.value("SELECT count(*) FROM streamext.alerts WHERE view = 'quick'::regclass AND key->>'k' = %s", k) == 1
    finally:
        db.configure("streamext.teller_memory", "1024")
