"""Names of runs: ``<yyyymmdd-hhmmss>-<project>``, safe as a folder and in an address."""

from __future__ import annotations

import re
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from estimators.files import NEXT_STEPS, StorageFailed

MAX_SLUG_LENGTH = 48
MAX_SAME_SECOND = 1000

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_run_id(text: str) -> bool:
    """Whether a text can be the id of a run: one plain folder name.

    >>> is_run_id("20261122-060000-digits"), is_run_id("../digits")
    (True, False)
    """
    return _RUN_ID.fullmatch(text) is not None


def slug(name: str) -> str:
    """A name made safe for a folder.

    >>> slug("Flowers & digits")
    'flowers-digits'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG_LENGTH].strip("-") or "project"


def new_run_folder(root: Path, project: str, *, now: datetime | None = None) -> Path:
    """Make a folder with a new id in ``root``; runs of the same second are numbered.

    Raises:
        StorageFailed: if it cannot be made.
    """
    stem = f"{now or datetime.now():%Y%m%d-%H%M%S}-{slug(project)}"
    for number in range(1, MAX_SAME_SECOND):
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not root.is_dir():
                raise StorageFailed(f"path={str(root)!r} is a file, not a folder of runs; choose another one") from None
            continue
        except OSError as error:
            hint = NEXT_STEPS.get(error.errno or 0, "look at the path and try again")
            reason = f"path={str(folder)!r} cannot be made ({error.strerror or error}); {hint}"
            raise StorageFailed(error.errno, reason) from error
        return folder
    raise StorageFailed(f"root={str(root)!r} holds {MAX_SAME_SECOND} runs {stem}-*; name a folder with --out")


def program_version() -> str:
    """Version of the installed distribution; ``unknown`` in a checkout that is not installed."""
    try:
        return version("merge-advisor")
    except PackageNotFoundError:
        return "unknown"
