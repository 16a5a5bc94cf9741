"""The walls of src/ (.ci/layers), who may write which field (.ci/owners), and its habits (.ci/tidy)."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_no_room_uses_a_room_below_it() -> None:
    checked = subprocess.run([ROOT / ".ci" / "layers"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_files_are_tidy() -> None:
    checked = subprocess.run([ROOT / ".ci" / "tidy"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_fields_are_written_by_their_owners() -> None:
    checked = subprocess.run([ROOT / ".ci" / "owners"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
