"""The walls of src/ (.ci/layers), who may write which field (.ci/owners), and its habits (.ci/tidy, .ci/format)."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def holds(check: str) -> None:
    checked = subprocess.run([ROOT / ".ci" / check], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_room_uses_a_room_below_it() -> None:
    holds("layers")


def test_files_are_tidy() -> None:
    holds("tidy")


def test_files_are_formatted() -> None:
    holds("format")


def test_fields_are_written_by_their_owners() -> None:
    holds("owners")
