"""A view's content is what PostgreSQL itself returns over the same rows: random definitions against an ordinary table.

STREAMEXT_ORACLE_SEED repeats a run, STREAMEXT_ORACLE_VIEWS sets how many definitions there are."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from harness import views
from harness.database import Database

SEED = int(os.environ.get("STREAMEXT_ORACLE_SEED", time.time_ns() % 1_000_000))
VIEWS = int(os.environ.get("STREAMEXT_ORACLE_VIEWS", "320"))
VIEWS_A_ROUND = 40


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """How many definitions have an aggregate, or a kind of window; shown at the end."""
    counter: Counter[str] = Counter()
    yield counter
    aggregates = {name: n for name, n in sorted(counter.items()) if not name.startswith("window ")}
    windows = [f"{name[7:]} {n}" for name, n in sorted(counter.items()) if name.startswith("window ")]
    plugins = request.config.pluginmanager
    with plugins.getplugin("capturemanager").global_and_fixture_disabled():
        reporter = plugins.getplugin("terminalreporter")
        reporter.write_line(f"\nseed {SEED}; windows: {', '.join(windows)}")
        reporter.write_line(f"{len(aggregates)} aggregates: {', '.join(f'{name} {n}' for name, n in aggregates.items())}")
    assert VIEWS < 300 or len(aggregates) >= 40


@pytest.mark.timeout(600)
@pytest.mark.parametrize("round_", range((VIEWS + VIEWS_A_ROUND - 1) // VIEWS_A_ROUND))
def test_random_views(db: Database, round_: int, seen: Counter[str]) -> None:
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
        extra = [*views.GENERAL, *views.MORE]
        db.execute(views.SETUP)
        if db.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'hll'"):
            db.execute("CREATE EXTENSION hll")
            extra += views.HLL
        for statement in [*views.setup_nested("s", True), *views.setup_nested("o", False), views.SETUP_NESTED]:
            db.execute(statement)
        definitions = [views.definition(rng, extra, nested=True) for _ in range(VIEWS_A_ROUND)]
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
        for definition in definitions:
            seen.update(views.aggregates(definition.calls) | {f"window {definition.window}"})
        total = db.value("SELECT count(*) FROM o")
        twice = {f"v{i}" for i, definition in enumerate(definitions) if "both_" in definition.text}
        for row in db.rows("SELECT view::text, accepted, late, rejected FROM streamext.continuous_views"):
            assert row[1:] == (total * (2 if row[0] in twice else 1), 0, 0), row
    finally:
        db.execute("SELECT streamext.set_clock(NULL)")
