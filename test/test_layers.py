"""src/LAYERS holds: no room uses names or headers of a room below it; what does not hold yet is listed, and the list only shrinks."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_no_room_uses_a_room_below_it() -> None:
    checked = subprocess.run([ROOT / ".ci" / "layers"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
