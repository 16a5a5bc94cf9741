"""A view's content is what PostgreSQL itself returns over the same rows: random definitions against an ordinary table.

STREAMEXT_ORACLE_SEED repeats a run, STREAMEXT_ORACLE_VIEWS sets how many definitions there are."""

import os
import random
import time

import pytest
from harness import views
from harness.database import Database

SEED = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
VIEWS = int(os.environ.get("STREAMEXT_ORACLE_VIEWS", "240"))
VIEWS_A_ROUND = 40


@pytest.mark.timeout(600)
@pytest.mark.parametrize("round_", range((VIEWS + VIEWS_A_ROUND - 1) // VIEWS_A_ROUND))
def test_random_views(db: Database, round_: int) -> None:
    seed = SEED + round_
    print(f"seed {seed}")
    rng = random.Random(seed)
    # Sums of the largest integers are wanted, sums that overflow float8 are not.
    db.execute("CREATE SERVER here FOREIGN DATA WRAPPER local")
    db.execute(f"""CREATE FOREIGN TABLE s ({views.COLUMN_LIST}) SERVER here
        OPTIONS (event_time 'ts', watermark_delay '1 day')""")
    db.execute(f"CREATE TABLE o ({views.COLUMN_LIST})")
    db.execute("SELECT streamext.set_clock(%s)", views.NOW)
    try:
        definitions = [views.definition(rng, views.GENERAL) for _ in range(VIEWS_A_ROUND)]
        for i, definition in enumerate(definitions):
            db.execute(
                f"CREATE VIEW v{i} WITH (streamext.continuous{definition.options}) AS {definition.view('s')}"
            )
        for count in (1, 7, 500, 1500):
            values = ", ".join(views.rows(rng, count, views.NOW))
            with db.connection.transaction():
                db.execute(f"INSERT INTO s VALUES {values}")
                db.execute(f"INSERT INTO o VALUES {values}")
            with db.connection.transaction(force_rollback=True):
                db.execute(f"INSERT INTO s VALUES {', '.join(views.rows(rng, 5, views.NOW))}")
            db.flush("s")
            for i, definition in enumerate(definitions):
                db.assert_same(f"TABLE v{i}", definition.query("o", views.NOW))
        total = db.value("SELECT count(*) FROM o")
        for row in db.rows("SELECT view, accepted, late, rejected FROM streamext.continuous_views"):
            assert row[1:] == (total, 0, 0), row
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
