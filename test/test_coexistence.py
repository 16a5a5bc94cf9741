"""Other modules of shared_preload_libraries, before and after this one: views are right, and the server stays up."""

import pytest
from harness.database import Database
from harness.postgres import Postgres, pg_config
from harness.streams import continuous, local_stream

# What each is loaded with so that it has something to do wherever its hooks are called.
NEIGHBOURS: dict[str, dict[str, object]] = {
    "pgaudit": {"pgaudit.log": "all", "pgaudit.log_relation": "on", "pgaudit.log_parameter": "on", "pgaudit.log_catalog": "on"},
    "pg_stat_statements": {"pg_stat_statements.track": "all"},
    "auto_explain": {
        "auto_explain.log_min_duration": 0,
        "auto_explain.log_nested_statements": "on",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_verbose": "on",
    },
    "pg_cron": {"cron.database_name": "postgres", "cron.use_background_workers": "on"},
    "set_user": {"set_user.block_alter_system": "on", "set_user.block_copy_program": "on"},
    "pg_hint_plan": {"pg_hint_plan.debug_print": "on"},
}


def installed(library: str) -> bool:
    return (pg_config("pkglibdir") / f"{library}.so").exists()


def use_everything(db: Database) -> None:
    """A view of each way through the planner and the executor: native and other aggregates, a join, expressions,
    `into` a table and a look-up; checked by owners that are no superusers."""
    db.execute("CREATE ROLE keeper; GRANT CREATE ON SCHEMA public TO keeper")
    local_stream(db, "event_time 'ts'", "k text, ts timestamptz, x float8")
    db.execute(
        """GRANT SELECT, INSERT ON s TO keeper; CREATE TABLE o (k text, ts timestamptz, x float8);
        CREATE TABLE names (k text PRIMARY KEY, name text); INSERT INTO names VALUES ('a', 'A'), ('b', 'B');
        CREATE TABLE big (k text, x float8); GRANT SELECT ON o, names TO keeper; GRANT SELECT, INSERT ON big TO keeper"""
    )
    with db.connect() as owner:
        owner.execute("SET ROLE keeper")
        for name, query in QUERIES.items():
            owner.execute(f"CREATE VIEW {name} WITH (streamext.continuous) AS {query.format('s')}")
        owner.execute("CREATE VIEW copied WITH (streamext.continuous, streamext.into = 'big') AS SELECT k, x FROM s WHERE x > 50")
    rows = "SELECT chr(97 + i % 3), timestamptz '2024-01-01' + i * interval '1 s', i FROM generate_series(1, 100) i"
    db.execute(f"INSERT INTO s {rows}; INSERT INTO o {rows}")
    db.flush("s")
    with db.connect() as reader:
        reader.execute("SET ROLE keeper")
        assert reader.execute("SELECT n FROM by_key WHERE k = 'b'").fetchall() == [(34,)]
    for name, query in QUERIES.items():
        db.assert_same(f"TABLE {name}", query.format("o"))
    db.assert_same("TABLE big", "SELECT k, x FROM o WHERE x > 50")
    assert db.rows("SELECT DISTINCT state, last_error FROM streamext.streams") == [("running", None)]
    assert db.rows("SELECT DISTINCT state, last_error FROM streamext.continuous_views") == [("running", None)]


QUERIES = {
    "by_key": "SELECT k, count(*) AS n, avg(x) AS mean FROM {} GROUP BY k",
    "kept": "SELECT upper(k) AS k, array_agg(x ORDER BY x) AS all_x FROM {} WHERE length(k) > 0 GROUP BY 1",
    "joined": "SELECT n.name, streamext.tumble('10 s', ts) AS w, sum(x) FROM {} AS s JOIN names AS n ON n.k = s.k GROUP BY 1, 2",
}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("neighbour", [*NEIGHBOURS, "all"])
def test_neighbours(neighbour: str, order: str) -> None:
    others = [name for name in (NEIGHBOURS if neighbour == "all" else [neighbour]) if installed(name)]
    if not others:
        pytest.skip(f"{neighbour} is not installed")
    settings = {name: value for other in others for name, value in NEIGHBOURS[other].items()}
    preload = [*others, "streamext"] if order == "before" else ["streamext", *others]
    with Postgres(preload=",".join(preload), settings=settings) as server:
        db = Database(server, "postgres")
        for other in others:
            if other not in ("auto_explain",):
                db.execute(f"CREATE EXTENSION {other}")
        db.execute("CREATE EXTENSION streamext")
        use_everything(db)
        server.restart()
        again = Database(server, "postgres")
        again.flush("s")
        for name, query in QUERIES.items():
            again.assert_same(f"TABLE {name}", query.format("o"))
        assert "terminated by signal" not in server.log()


def test_pgaudit_writes_down_who_reads_a_view() -> None:
    """And workers, which check rights without a statement, leave no line of that."""
    if not installed("pgaudit"):
        pytest.skip("pgaudit is not installed")
    with Postgres(preload="pgaudit,streamext", settings={"pgaudit.log": "read", "pgaudit.log_relation": "on"}) as server:
        db = Database(server, "postgres")
        db.execute("CREATE EXTENSION streamext")
        local_stream(db, "", "k text")
        continuous(db, "v", "SELECT k, count(*) AS n FROM s GROUP BY k")
        db.execute("INSERT INTO s VALUES ('a')")
        db.flush("s")
        assert db.rows("TABLE v") == [("a", 1)]
        audit = [line for line in server.log().splitlines() if "AUDIT:" in line]
        assert any("VIEW,public.v,TABLE v" in line for line in audit), audit
        assert not [line for line in audit if "streamext worker" in line and "public." in line], audit
