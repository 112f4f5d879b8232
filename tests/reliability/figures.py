"""Figures that tests measure on their way, kept where ``RELIABILITY_FIGURES`` names a file."""

import json
import os
from pathlib import Path


def note(name: str, value: float | int | str) -> None:
    """Keep one figure; a no-op without the variable."""
    given = os.environ.get("RELIABILITY_FIGURES")
    if given is None:
        return
    path = Path(given)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {name: value}, indent=2) + "\n")
