"""The documents say what is so: the sessions of tutorial and README run as written, the reference names everything.

A document's ```sql blocks are one psql session. A ```text block after one is what it prints; a block without prints nothing. The lines
of its ```jsonl block are messages in the Kafka topic `sensors`."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from harness.database import Database
from harness.kafka import Kafka
from harness.postgres import Postgres
from harness.server import free_port

TOP = Path(__file__).parents[1]
BROKERS = "127.0.0.1:9092"  # as the documents have it
TOPIC = "sensors"
MARK = "-- end of block --"
_BLOCK = re.compile(r"^```(sql|text|jsonl)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[tuple[str, str]]:
    """(language, contents) of the fenced blocks."""
    return _BLOCK.findall((TOP / document).read_text())


def session(document: str) -> list[tuple[str, str]]:
    """(statements, what they print)."""
    steps: list[tuple[str, str]] = []
    for language, contents in blocks(document):
        if language == "sql":
            steps.append((contents, ""))
        elif language == "text":
            steps[-1] = (steps[-1][0], contents)
    return steps


def lines(printed: str) -> list[str]:
    """Without what nobody sees: spaces at the ends of lines, blank lines at the end."""
    return [line.rstrip() for line in printed.rstrip().splitlines()]


@pytest.fixture
def database(pg: Postgres) -> Iterator[str]:
    """A new database without the extension."""
    name = "tutorial"
    pg.psql(f"CREATE DATABASE {name}")
    yield name
    pg.psql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def brokers(kafka: Kafka) -> Iterator[str]:
    """Of a Kafka with the topic."""
    kafka.create_topic(TOPIC)
    yield kafka.brokers
    kafka.delete_topic(TOPIC)


@pytest.mark.parametrize("document", ["README.md", "docs/tutorial.md"])
def test_session(document: str, pg: Postgres, kafka: Kafka, database: str, brokers: str) -> None:
    kafka.produce(TOPIC, [line for language, text in blocks(document) if language == "jsonl" for line in text.splitlines()])
    steps = session(document)
    script = "".join(f"{statements}\\echo '{MARK}'\n" for statements, _ in steps)
    arguments = ["-Xq", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]
    printed = pg.run("psql", *arguments, input=script.replace(BROKERS, brokers)).split(MARK + "\n")
    for (statements, expected), found in zip(steps, printed):
        assert lines(found) == lines(expected), f"{document}:\n{statements}prints:\n{found}"
    assert any(expected for _, expected in steps)


@pytest.fixture
def statements(db: Database) -> Iterator[list[str]]:
    """The indented blocks of SQL of delivery.md, behind those of other pages that it builds on."""
    db.execute(f"CREATE SERVER web FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{free_port()}')")
    found: list[str] = []
    for document in ("docs/channels.md", "docs/delivery.md"):
        indented = re.findall(r"(?:^    .*\n|^\n(?=    ))+", (TOP / document).read_text(), re.MULTILINE)
        sql = [block for block in indented if re.match(r"\s*(SELECT|CREATE|ALTER|LISTEN)\b", block)]
        # of channels.md the Kafka stream alone: its view is another one
        found += sql if found else [sql[0].partition("    CREATE VIEW")[0]]
    yield [statement.replace("$__timeFilter(window_start)", "true") for statement in found]
    if db.rows("SELECT FROM pg_roles WHERE rolname = 'viewer'"):
        db.execute("DROP OWNED BY viewer; DROP ROLE viewer")


def test_delivery_can_be_typed(db: Database, statements: list[str]) -> None:
    """Nothing is missing, or there twice."""
    assert len(statements) > 8
    for block in statements:
        db.server.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", db.name, "-f", "-", input=block)


@pytest.fixture
def reference() -> str:
    return (TOP / "docs/reference.md").read_text()


def missing(names: set[str], text: str) -> set[str]:
    """Those that the text does not have as code."""
    return {name for name in names if not re.search(rf"`[^`\n]*(?<![\w.]){re.escape(name)}(?!\w)[^`\n]*`", text)}


def test_reference_names_settings_functions_and_columns(db: Database, reference: str) -> None:
    settings = {name for (name,) in db.rows("SELECT name FROM pg_settings WHERE name LIKE 'streamext.%'")}
    internal = "view_rows|require_preload|fdw_handler|.*_validator|get_.*|(distinct|percentile)_sketch_.*|(first|last)_.*|merge_.*"
    functions = db.rows(f"""SELECT 'streamext.' || proname FROM pg_proc WHERE pronamespace = 'streamext'::regnamespace
        AND proname !~ '^({internal})$'""")
    columns = db.rows("""SELECT relname, attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE relnamespace = 'streamext'::regnamespace AND relkind = 'v' AND attnum > 0""")
    views = {f"streamext.{view}" for view, _ in columns}
    assert missing(settings | views | {name for (name,) in functions}, reference) == set()
    for view in views:
        section = reference.partition(f"### `{view}`")[2].partition("\n#")[0]
        assert missing({column for relation, column in columns if f"streamext.{relation}" == view}, section) == set(), view


OPTION_PLACES = [
    "CREATE SERVER x FOREIGN DATA WRAPPER {0} OPTIONS (nothing '')",
    "CREATE USER MAPPING FOR CURRENT_USER SERVER {0}_server OPTIONS (nothing '')",
    "CREATE FOREIGN TABLE x (a int) SERVER {0}_server OPTIONS (nothing '')",
    "CREATE FOREIGN TABLE x (a int OPTIONS (nothing '')) SERVER {0}_server",
]


def test_reference_names_options(db: Database, reference: str) -> None:
    """Those that the hints list."""
    options: set[str] = set()
    for wrapper, server in {"kafka": "OPTIONS (brokers 'x')", "mqtt": "OPTIONS (uri 'tcp://x')", "feed": "OPTIONS (url 'http://127.0.0.1:1')", "local": ""}.items():
        db.execute(f"CREATE SERVER {wrapper}_server FOREIGN DATA WRAPPER {wrapper} {server}")
        for place in OPTION_PLACES:
            with pytest.raises(psycopg.Error) as error:
                db.execute(place.format(wrapper))
            options |= set(re.findall(r"\w+", (error.value.diag.message_hint or "").partition(": ")[2]))
    db.execute("CREATE FOREIGN TABLE s (a int) SERVER local_server")
    with pytest.raises(psycopg.Error) as error:
        db.execute("CREATE VIEW x WITH (streamext.continuous, streamext.x = 1) AS SELECT count(*) FROM s")
    options |= set(re.findall(r"streamext\.\w+", error.value.diag.message_hint or ""))
    assert len(options) > 30
    assert missing(options, reference) == set()
