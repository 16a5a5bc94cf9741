"""Query results in a terminal: tables in two columns where it is wide enough, else below each other."""

import shutil
import sys
from datetime import datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import psycopg

_CLEAR = "\x1b[2J"
_HOME = "\x1b[H"
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"


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


def table(connection: psycopg.Connection, title: str, query: str) -> list[str]:
    """The lines of a table with a title."""
    cursor = connection.execute(query)
    heading = [column.name for column in cursor.description or []]
    rows = cursor.fetchall()
    cells = [heading] + [[_text(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    numeric = [bool(rows) and all(isinstance(v, int | float | Decimal | None) for v in column) for column in zip(*rows)]
    right = numeric or [False] * len(widths)

    def line(row: list[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right)).rstrip()

    return [title, "-" * max(len(title), len(line(cells[0]))), *map(line, cells), ""]


class Screen:
    """Redraws a terminal in place; elsewhere prints one snapshot after the other."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        if self.live:
            print(_CLEAR, end="")

    def show(self, heading: str, left: list[str], right: list[str]) -> None:
        width = max(map(len, left)) + 4
        if width + max(map(len, right)) <= shutil.get_terminal_size((200, 50)).columns:
            lines = [f"{a:{width}}{b}".rstrip() for a, b in zip_longest(left, right, fillvalue="")]
        else:
            lines = left + right
        lines = [heading, "", *lines]
        if self.live:
            print(_HOME + "\n".join(line + _CLEAR_LINE for line in lines) + _CLEAR_BELOW, flush=True)
        else:
            print("\n".join(lines), flush=True)
