"""Records that are rejected: how fast, and how many transaction ids. From the null connector, so that nothing else is measured."""

from plant import Plant

WRAPPER = """CREATE FUNCTION null_validator(text[], oid) RETURNS void LANGUAGE c STRICT AS 'streamext', 'streamext_null_validator';
    CREATE FOREIGN DATA WRAPPER "null" HANDLER streamext.fdw_handler VALIDATOR null_validator;
    CREATE SERVER nowhere FOREIGN DATA WRAPPER "null";"""
PAIR = "CREATE TYPE pair AS (a int, b text)"
GOOD, BAD, ZERO = '{"v": 7}', '{"v": "x"}', '{"v": 0}'
COUNT, DIVIDE = "SELECT count(*) AS n, sum(v) AS total FROM s", "SELECT count(*) AS n, sum(10 / v) AS total FROM s"
CASES = {
    "none": (GOOD, GOOD, COUNT, "int"),
    "half, by the stream": (GOOD, BAD, COUNT, "int"),
    "all, by the stream": (BAD, BAD, COUNT, "int"),
    "all, of int[]": ('{"v": ["x"]}', '{"v": ["x"]}', "SELECT count(*) AS n FROM s", "int[]"),
    "all, of a composite type": ('{"v": {"a": "x"}}', '{"v": {"a": "x"}}', "SELECT count(*) AS n FROM s", "pair"),
    "half, by a view": (GOOD, ZERO, DIVIDE, "int"),
    "all, by a view": (ZERO, ZERO, DIVIDE, "int"),
}


def measure(plant: Plant) -> list[dict[str, object]]:
    found = []
    plant.restart()
    db = plant.db
    db.execute(WRAPPER + PAIR)
    for bad, (payload, other, query, kind) in CASES.items():
        for on_error in ("skip", "dead_letter"):
            first = int(db.value("SELECT pg_current_xact_id()::text"))
            with plant.meter() as meter:
                with db.connection.transaction():
                    db.execute(
                        f"CREATE FOREIGN TABLE s (v {kind}, ts timestamptz OPTIONS (metadata 'timestamp')) SERVER nowhere OPTIONS (event_time 'ts',"
                        f" records '{plant.load.records}', payload '{payload}', other '{other}', on_error '{on_error}')"
                    )
                    db.execute(f"CREATE VIEW v WITH (streamext.continuous) AS {query}")
                db.flush("s")
            spent = int(db.value("SELECT pg_current_xact_id()::text")) - first
            rejected = db.value("SELECT rejected FROM streamext.continuous_views")
            share = 0 if bad == "none" else 2 if bad.startswith("half") else 1
            assert rejected == (plant.load.records // share if share else 0), f"{rejected} rejected"
            found.append(
                {
                    "bad": bad,
                    "on_error": on_error,
                    "rate": plant.load.records / meter.cost.seconds,
                    "rejected_rate": rejected / meter.cost.seconds,
                    "cpu_rate": plant.load.records / max(meter.cost.cpu, 0.01),  # of the whole server; others do not slow it down
                    "transaction_ids": spent / plant.load.records * 1e6,
                    "letters": db.value("SELECT count(*) FROM streamext.dead_letters"),
                    "others": meter.cost.others,
                }
            )
            db.execute("DROP FOREIGN TABLE s CASCADE")
    return found


def table(results: list[dict[str, object]]) -> str:
    """In Markdown."""
    lines = [
        "| rejected | on_error | records/s | rejected records/s | records per CPU-second | transaction ids per million records | letters | others |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        lines.append(
            f"| {r['bad']} | {r['on_error']} | {r['rate']:,.0f} | {r['rejected_rate']:,.0f} | {r['cpu_rate']:,.0f} | {r['transaction_ids']:.1f} |"
            f" {r['letters']:,} | {r['others']:.0%} |"
        )
    return "\n".join(lines)
