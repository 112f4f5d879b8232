r"""Pieces of a run that are at work: kept in the run directory until their result is, so that a kill repeats seconds.

    unfinished/probe-3/…, unfinished/expert-low/…, unfinished/validation/…

A folder holds snapshots of training, values that were measured, and models that were made on the way (all of them
``estimators.snapshots``).  It is no artefact: nothing reads it but the work itself when it is taken up again, and it is
removed once the result is stored.  An interruption writes what there is at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.interrupts import RunInterrupted
from advisor.runs import UNFINISHED_NAME
from estimators.cost import CostMeter
from estimators.snapshot_folder import Pieces, SnapshotFolder

if TYPE_CHECKING:
    from advisor.workspace import Spending, Workspace
    from estimators.snapshots import Snapshot


@contextmanager
def unfinished(ws: Workspace, what: str, spending: Spending, *, deadline: bool = True) -> Iterator[SnapshotFolder]:
    """Where a piece of work is kept while it is at work; inside the block its result must be stored.

    Args:
        ws: the workspace.
        what: name of the piece, e.g. ``expert low``.
        spending: gets the seconds of earlier processes added.
        deadline: whether a deadline stops the work between two measurements, as signals and requests do.

    Raises:
        RunInterrupted: between two measurements.
        StorageFailed: if a snapshot cannot be written.
    """
    is_told = False

    def found(snapshot: Snapshot) -> None:
        nonlocal is_told
        spending.seconds_before += float(snapshot.facts.get("seconds", 0.0))
        if not is_told:
            is_told = True
            ws.run.event("taken_up", what=what)
            ws.progress("taken up where it was cut off", 1, 1, what=what)

    def told(text: str) -> None:
        ws.run.event("mended", text=text)
        ws.progress("mended", 1, 1, what=text)

    store = SnapshotFolder(
        _folder(ws, what), told=told, found=found, ask=lambda: ws.interrupts.check(deadline=deadline)
    )
    try:
        yield store
    except RunInterrupted:
        store.flush()
        raise
    store.remove()


def clear_unfinished(ws: Workspace, kind: str) -> None:
    """Remove what is kept of all pieces of a kind: they are finished, or will not be.

    Work removes its own; this is for a process that was killed between storing a result and that.
    """
    folder = ws.run.path_of(UNFINISHED_NAME)
    if folder.is_dir():
        name = kind.replace(" ", "-")
        for path in folder.iterdir():
            if path.name == name or path.name.startswith(f"{name}-"):
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()  # where it was the last


def piece_name(kind: str, *parts: object) -> str:
    """The name of a piece: what it is, and a hash of everything that its result depends on."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def measured_once(
    kept: Pieces, name: str, meter: CostMeter | None, measure: Callable[[CostMeter], Mapping[str, Any]]
) -> dict[str, Any]:
    """Plain values that are measured once; what they cost is counted whether they were measured now or before."""

    def compute() -> dict[str, Any]:
        own = CostMeter()
        return {"found": dict(measure(own)), "counts": own.counts()}

    known = kept.value(name, compute)
    if meter is not None:
        meter.add(**known["counts"])
    return dict(known["found"])


def _folder(ws: Workspace, what: str) -> Path:
    return ws.run.path_of(f"{UNFINISHED_NAME}/{what.replace(' ', '-')}")
