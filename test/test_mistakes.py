"""docs/mistakes.md: each mistake is typed, and what is said is what stands there. STREAMEXT_MISTAKES=write writes what is said."""

import os
import re
from pathlib import Path

import psycopg

from harness.database import Database

DOCUMENT = Path(__file__).parent.parent / "docs" / "mistakes.md"
SECTION = re.compile(r"(### [^\n]+\n\n```sql\n)(.*?)(```\n\n```text\n)(.*?)(```\n)", re.DOTALL)


def said(diagnostic: psycopg.errors.Diagnostic) -> str:
    lines = [f"{diagnostic.severity}:  {diagnostic.message_primary}"]
    lines += [f"DETAIL:  {diagnostic.message_detail}"] * bool(diagnostic.message_detail)
    lines += [f"HINT:  {diagnostic.message_hint}"] * bool(diagnostic.message_hint)
    return "\n".join(lines) + "\n"


def typed(db: Database, sql: str) -> str:
    """All notices and the error, if any, of what is undone afterwards."""
    told: list[str] = []
    db.connection.add_notice_handler(handler := lambda diagnostic: told.append(said(diagnostic)))
    try:
        with db.connection.transaction(force_rollback=True):
            db.connection.execute(sql)
    except psycopg.Error as error:
        told.append(said(error.diag))
    finally:
        db.connection.remove_notice_handler(handler)
    return "".join(told)


def test_mistakes(db: Database) -> None:
    text = DOCUMENT.read_text()
    db.execute(re.search(r"```sql setup\n(.*?)```", text, re.DOTALL).group(1))  # type: ignore[union-attr]
    sections = SECTION.findall(text)
    assert len(sections) >= 25
    if os.environ.get("STREAMEXT_MISTAKES") == "write":
        DOCUMENT.write_text(SECTION.sub(lambda m: m[1] + m[2] + m[3] + typed(db, m[2]) + m[5], text))
        return
    wrong = [(title, expected, found) for title, sql, _, expected, _ in sections if (found := typed(db, sql)) != expected]
    assert wrong == []
