"""The probe that runs now, for whoever looks on: loss and displacement of every task as they grow.

One file in the run directory, ``live_probe.jsonl``: a single checked line, replaced as a whole at most once in
``LIVE_SECONDS`` and removed when the probe has ended.  Nothing is computed from it; a disk that takes no more of it
stops no work, the next artefact reports the disk.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from advisor.observations import DisplacementTrace
from advisor.run_log import encode_record, read_log
from estimators.fine_tuning import Run, divergence
from estimators.recipe import Recipe

LIVE_NAME = "live_probe.jsonl"
LIVE_SECONDS = 1.0  # least time between two writes
LIVE_POINTS = 60  # of one task's curves, evenly spaced, the last step included


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProbe:
    """A probe as far as it has come.

    Attributes:
        number: position of the probe, from 0.
        recipe: its recipe.
        traces: loss and displacement of every task that has begun.
        diverged: task -> why it counts as diverged.
    """

    number: int
    recipe: Recipe
    traces: tuple[DisplacementTrace, ...]
    diverged: Mapping[str, str]


class LiveWriter:
    """Writes the running probe while it trains; a context that ends with it.  Calling it is what the loop does.

    Args:
        folder: the run directory.
        number: position of the probe.
        recipe: its recipe.
        clock: seconds; the throttle's.
    """

    def __init__(
        self, folder: Path, *, number: int, recipe: Recipe, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = folder / LIVE_NAME
        self._number, self._recipe, self._clock = number, recipe, clock
        self._wrote = -math.inf
        self._seen: dict[str, tuple[Run, int, Sequence[NDArray[np.float64]]]] = {}

    def __enter__(self) -> Self:
        """Remove what an earlier, killed probe left."""
        self._remove()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The probe has ended: its curves are in the log of probes now, or thrown away."""
        self._remove()

    def __call__(self, runs: Sequence[Run], traces: Sequence[NDArray[np.float64]]) -> None:
        """Take note of steps done, as ``estimators.fine_tuning.Watcher``; written when it is time to."""
        for row, run in enumerate(runs):
            self._seen[run.task] = (run, row, traces)
        now = self._clock()
        if now - self._wrote >= LIVE_SECONDS:
            self._wrote = now
            self._write()

    def _write(self) -> None:
        found = [_so_far(run, row, traces) for run, row, traces in self._seen.values()]
        record = {
            "number": self._number,
            "recipe": self._recipe.to_json(),
            "traces": [trace.to_json() for trace, _ in found],
            "diverged": {trace.task: cause for trace, cause in found if cause},
        }
        temporary = self._path.with_name(f".{LIVE_NAME}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_bytes(encode_record(record))
            temporary.replace(self._path)

    def _remove(self) -> None:
        forget_live(self._path.parent)


def forget_live(folder: Path) -> None:
    """Remove what a probe, or a process that was killed in one, left."""
    for name in (LIVE_NAME, f".{LIVE_NAME}.tmp"):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def read_live(folder: Path) -> LiveProbe | None:
    """The running probe; ``None`` where none has begun or what is there cannot be trusted."""
    try:
        records = read_log(folder / LIVE_NAME).records
        return _decode(records[0]) if records else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _so_far(run: Run, row: int, traces: Sequence[NDArray[np.float64]]) -> tuple[DisplacementTrace, str]:
    """A task's curves at some steps, and why it counts as diverged (empty where it does not)."""
    count = len(traces)
    steps = np.unique(np.linspace(1, count, min(count, LIVE_POINTS)).round().astype(np.int64))
    losses, _, moved = np.array([trace[:, row] for trace in traces]).T
    found = divergence(losses)
    trace = DisplacementTrace(
        task=run.task,
        recipe=run.recipe,
        seed=run.seed,
        steps=steps,
        squared_displacements=np.nan_to_num(moved[steps - 1], nan=np.inf, posinf=np.inf),
        losses=np.nan_to_num(losses[steps - 1], nan=np.inf, posinf=np.inf),
    )
    return trace, "" if found is None else found[1]


def _decode(record: Mapping[str, Any]) -> LiveProbe:
    return LiveProbe(
        number=int(record["number"]),
        recipe=Recipe.from_json(record["recipe"]),
        traces=tuple(DisplacementTrace.from_json(item) for item in record["traces"]),
        diverged={str(task): str(cause) for task, cause in record["diverged"].items()},
    )
