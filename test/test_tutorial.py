"""The documents say what is so: the sessions of tutorial and README run as written, the reference names everything.

A document's ```sql blocks are one psql session. A ```text block after one is what it prints; a block without prints nothing. The lines
of its ```jsonl block are messages in the Kafka topic `sensors`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


# ---- what documents and comments name ----

# PostgreSQL's own, and what is nobody's.
NOT_OURS = {"nodeAgg.c", "c.h", "numeric.c", "utils/jsonb.h", "libpq/libpq.h", "utils.c", "test/fuzz/NAME.c", "gateway/NAME.h"}
_FILE = re.compile(r"(?<![\w./<>*{}$-])(?:\.\./)*((?:[\w.-]+/)*[\w-]+\.(?:c|h|cpp|py))\b(?![\w(/*])")
_FOLDER = re.compile(r"(?<![\w./<>*{}$-])(?:\.\./)*((?:src|test|docs|contrib)/(?:[a-z_]+/)*)(?=[\s`,;:)])")
_PLACED = re.compile(r"`(\w+)` \(`(src/[\w/]+\.[ch])`\)")
_SNAKE = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")


def told() -> Iterator[tuple[str, str]]:
    """(file, what it says to readers): the documents, and comments of the source."""
    for path in sorted(path for folder in ("src", "test", "docs", "contrib") for path in (TOP / folder).rglob("*") if path.suffix in (".md", ".c", ".h", ".cpp")):
        text = path.read_text()
        yield str(path.relative_to(TOP)), text if path.suffix == ".md" else "\n".join(re.findall(r"/\*.*?\*/", text, re.DOTALL))
    for path in TOP.glob("*.md"):
        yield path.name, path.read_text()


def test_files_that_are_named_exist() -> None:
    """By their whole path or the end of it. A function is in the file that is said to have it."""
    ends: set[str] = set()
    for folder in ("src", "test", "docs", "contrib"):
        for path in (TOP / folder).rglob("*.*"):
            parts = path.relative_to(TOP).parts
            ends |= {"/".join(parts[at:]) for at in range(len(parts))}
    wrong: list[str] = []
    for file, text in told():
        wrong += [f"{file}: {name}" for name in _FILE.findall(text) if name not in ends | NOT_OURS]
        wrong += [f"{file}: {name}" for name in _FOLDER.findall(text) if not (TOP / name).is_dir()]
        wrong += [f"{file}: {name} in {path}" for name, path in _PLACED.findall(text) if (TOP / path).exists() and not re.search(rf"\b{name}\b", (TOP / path).read_text())]
    assert not wrong, "\n".join(wrong)


def test_functions_that_are_named_exist() -> None:
    """In the documents for who changes the source: fields, functions and settings in code."""
    source = " ".join(path.read_text() for path in [*(TOP / "src").rglob("*.[ch]"), *(TOP / "src").rglob("*.cpp"), *TOP.glob("streamext--*.sql")])
    words = set(re.findall(r"\w+", source))
    documents = [TOP / "docs/internals.md", TOP / "CONTRIBUTING.md", *(TOP / "src").rglob("README.md")]
    wrong = [f"{path.relative_to(TOP)}: {name}" for path in documents for name in _SNAKE.findall(path.read_text()) if name not in words]
    assert not wrong, "\n".join(wrong)


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
    functions = db.rows("SELECT 'streamext.' || proname FROM pg_proc WHERE pronamespace = 'streamext'::regnamespace AND proname <> 'fdw_handler'")
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


# ---- the tables of options ----

OPTION_LIST = """CREATE FUNCTION option_list() RETURNS TABLE (wrapper text, place text, name text, required bool, is_interval bool, words text[],
    min bigint, max bigint, preset bigint) LANGUAGE c AS 'streamext', 'streamext_option_list'"""
SECTIONS = {"Server options": "server", "User mapping options": "mapping", "Stream options": "table", "Column options": "column"}
WRAPPERS = ("kafka", "mqtt", "http", "flume", "feed", "local")
UNITS = {86_400_000_000: "d", 3_600_000_000: "h", 60_000_000: "min", 1_000_000: "s", 1_000: "ms"}
CENTURY = 36_525 * 86_400_000_000  # of no option in particular
# Without the option it is not the first word that holds but none of them, or what somebody else says.
USELESS = {("flume", "table", "format"), *((wrapper, "table", "body_format") for wrapper in ("mqtt", "http", "feed"))}  # one value, or refused by itself
NO_WORD = {"sasl_mechanism", "profile", "datestyle", "encoding"}


class Documented(NamedTuple):
    place: str
    name: str
    wrappers: set[str]
    default: str
    row: str


def documented_options(reference: str) -> Iterator[Documented]:
    for heading, place in SECTIONS.items():
        rows = reference.partition(f"\n### {heading}\n")[2].partition("\n### ")[0].partition("\n| option |")[2].partition("\n\n")[0].rstrip().split("\n")[2:]
        for row in rows:
            cells = [cell.strip() for cell in row.removeprefix("|").removesuffix("|").split(" | ")]
            of = "all" if place == "column" else cells[1]
            wrappers = {name for name in WRAPPERS if re.search(rf"\b{name}\b", of)}
            if of.startswith("all"):
                wrappers = set(WRAPPERS) - wrappers
            for name in re.findall(r"`([\w]+)(?: NAME)?`", cells[0]):
                yield Documented(place, name, wrappers, cells[2] if len(cells) == 4 else "", row)


def duration(microseconds: int) -> str:
    unit = next((unit for unit in UNITS if microseconds and not microseconds % unit), None)
    return f"{microseconds // unit} {UNITS[unit]}" if unit else str(microseconds)


def test_reference_has_the_options_as_they_are(db: Database, reference: str) -> None:
    """Of each its wrappers, its words, its range and its default, as the tables of OptionSpec have them."""
    db.execute(OPTION_LIST)
    documents = list(documented_options(reference))
    options = [row for row in db.rows("SELECT * FROM option_list()") if row[0] in WRAPPERS]
    assert len(options) > 150
    # A column's option is named for all wrappers that have such columns.
    named = {(wrapper, d.place, d.name) for d in documents for wrapper in d.wrappers if d.place != "column"}
    understood = {(wrapper, place, name) for wrapper, place, name, *_ in options if place != "column"}
    assert named ^ understood == USELESS, sorted((named ^ understood) ^ USELESS)
    assert {d.name for d in documents if d.place == "column"} == {name for _, place, name, *_ in options if place == "column"}
    wrong = []
    for wrapper, place, name, required, is_interval, words, low, high, preset in options:
        if (wrapper, place, name) in USELESS:
            continue
        (document,) = (d for d in documents if (d.place, d.name) == (place, name) and wrapper in d.wrappers)
        text, default, says = document.row.replace("`", ""), document.default.partition("`")[2].partition("`")[0], duration if is_interval else str
        if required and "required" not in document.row:
            wrong.append(f"{wrapper} {name}: is required")
        if words and words != ["false", "true"] and any(f"`{word}`" not in document.row for word in words):
            wrong.append(f"{wrapper} {name}: has the words {words}")
        if words and place != "column" and name not in NO_WORD and default != words[preset]:
            wrong.append(f"{wrapper} {name}: {words[preset]} when not given")
        if low is not None and (default or ("0" if document.default == "off" else "?")) != says(preset):
            wrong.append(f"{wrapper} {name}: {says(preset)} when not given")
        if low is not None and high < (CENTURY if is_interval else 2**31 - 1) and f"{says(low)} to {says(high)}" not in text:
            wrong.append(f"{wrapper} {name}: from {says(low)} to {says(high)}")
    assert not wrong, "\n".join(wrong)
