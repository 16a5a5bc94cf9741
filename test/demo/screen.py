"""Query results in a terminal: tables side by side where it is wide enough."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import psycopg
from rich import box
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.2f}"
        case datetime():
            return f"{value:%H:%M:%S}"
        case _:
            return str(value)[:40]


def table(connection: psycopg.Connection, title: str, query: str) -> Table:
    cursor = connection.execute(query)
    rows = cursor.fetchall()
    shown = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(cursor.description or []):
        numeric = bool(rows) and all(isinstance(row[i], int | float | Decimal | None) for row in rows)
        shown.add_column(Text(column.name), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*(Text(_text(value)) for value in row))
    return shown


class Screen:
    """Redraws a terminal in place, where the last snapshot stays; elsewhere prints one after the other. A context manager."""

    def __init__(self) -> None:
        self.console = Console() if Console().is_terminal else Console(width=200)
        self.live = Live(console=self.console, screen=True, auto_refresh=False) if self.console.is_terminal else None
        self.shown = Group()

    def show(self, heading: str, left: Iterable[Table], right: Iterable[Table]) -> None:
        self.shown = Group(Text(heading + "\n"), Columns([Group(*left), Group(*right)]))
        if self.live:
            self.live.update(self.shown, refresh=True)
        else:
            self.console.print(self.shown)

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
            self.console.print(self.shown)
