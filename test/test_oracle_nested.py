"""As test_oracle.py: queries over queries that group by a window, against PostgreSQL's own nested query; a crash in the middle.

STREAMEXT_ORACLE_SEED repeats a run, STREAMEXT_ORACLE_VIEWS sets how many definitions test_oracle.py has; here an eighth."""

import os
import random
import time
from datetime import timedelta

import pytest
from harness import views
from harness.database import Database
from harness.faults import reconnect, until_quiet
from harness.streams import continuous, worker_pid

SEED = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
VIEWS_A_ROUND = 20
ROUNDS = max(1, int(os.environ.get("STREAMEXT_ORACLE_VIEWS", "320")) // 8 // VIEWS_A_ROUND)

SETTINGS = {"streamext.checkpoint_interval": 200, "max_worker_processes": 100, "streamext.max_streams": 100}
TIMEZONE = "UTC"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_nested_views(database: Database, round_: int) -> None:
    db = database
    rng = random.Random(SEED + round_)
    print(f"seed {SEED + round_}")
    db.execute(f"""CREATE SERVER here FOREIGN DATA WRAPPER local;
        CREATE FOREIGN TABLE s ({views.COLUMN_LIST}) SERVER here OPTIONS (event_time 'ts', watermark_delay '1 day');
        CREATE TABLE o ({views.COLUMN_LIST}); SET client_min_messages = warning""")
    db.execute(views.SETUP)
    db.execute(views.SETUP_NESTED)
    definitions = [views.nested(rng) for _ in range(VIEWS_A_ROUND)]
    for i, definition in enumerate(definitions):
        continuous(db, f"v{i}", definition.view("s"))
    for step in range(3):
        values = ", ".join(views.rows(rng, 300, views.NOW))
        db.execute(f"INSERT INTO s VALUES {values}; INSERT INTO o VALUES {values}")
        if step == 1:
            db.server.kill_backend(worker_pid(db))
            reconnect(db)
        until_quiet(db)
    # what no other row has a window with, and is in none that is closed
    db.execute("INSERT INTO s (ts) VALUES (%s)", views.NOW + timedelta(days=100))
    until_quiet(db)
    for i, definition in enumerate(definitions):
        db.assert_same(f"TABLE v{i}", definition.query("o", views.NOW))
    assert sum(db.value(f"SELECT count(*) > 0 FROM v{i}") for i in range(VIEWS_A_ROUND)) > VIEWS_A_ROUND // 2, "not because all is empty"
    lost = db.rows("SELECT view::text, accepted, late, rejected FROM streamext.continuous_views WHERE late > 0 OR rejected > 0")
    assert not lost, lost
