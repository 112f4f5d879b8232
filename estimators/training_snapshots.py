r"""Snapshots of training: what a killed loop needs to go on and end with the same bits.

    weights [R, D], optimizer state [R, D]      while it trains
    traces [k, 3, R], checkpoints kept [D]      always; with them alone once it is over

Not stored, being functions of these and of the runs: batch order (seed and step), learning rates, the count behind
AdamW's bias correction, the patience of the divergence rule, and units (one gradient a sample and step).  No step draws
at random, so there is no generator to keep.

A snapshot belongs to one group of runs: its name is a hash of recipes, seeds, data, start, heads, precision and
micro-batch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from torch import Tensor

from estimators.snapshot_folder import Snapshots
from estimators.snapshots import Snapshot
from estimators.tasks import LinearHead, Split
from estimators.tensor_digests import tensor_digest

if TYPE_CHECKING:
    from estimators.fine_tuning import Run
    from estimators.objectives import Objective

FORMAT = 1  # goes up when snapshots hold something else; those of another format are not found


class Resumable(Protocol):
    """Training between two steps."""

    def snapshot(self, *, is_over: bool) -> Snapshot:
        """The state; without what only further steps need where training is over."""
        ...

    def restore(self, snapshot: Snapshot) -> int:
        """Take up a state; returns the steps done."""
        ...


class TrainingSnapshots:
    """The snapshots of one loop; a context that takes back what a failing step leaves.

    Args:
        store: where snapshots are kept.
        training: the loop.
        name: of its snapshots.
    """

    def __init__(self, store: Snapshots, training: Resumable, name: str) -> None:
        self.store, self.training, self.name = store, training, name
        self.seconds_before = 0.0
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A step that failed may have left half a state."""
        if error is not None:
            self.store.forget(self.name)

    @property
    def seconds(self) -> float:
        """Wall seconds of training so far, earlier processes included."""
        return self.seconds_before + time.perf_counter() - self._started

    def resume(self) -> int:
        """Go on from the last snapshot, if there is one; returns the steps done."""
        found = self.store.load(self.name)
        if found is None:
            return 0
        self.seconds_before = float(found.facts["seconds"])
        return self.training.restore(found)

    def offer(self, *, is_over: bool) -> None:
        """Offer the state between two steps."""
        if is_over:  # it waits as it is: the loop may go
            last = self._take(is_over=True)
            self.store.keep(self.name, lambda: last)
        else:
            self.store.keep(self.name, lambda: self._take(is_over=False))

    def _take(self, *, is_over: bool) -> Snapshot:
        state = self.training.snapshot(is_over=is_over)
        return Snapshot(tensors=state.tensors, facts={**state.facts, "seconds": self.seconds})


def training_name(
    objectives: Sequence[Objective], trains: Sequence[Split], runs: Sequence[Run], *, micro_batch: int, precision: str
) -> str:
    """The name of the snapshots of one group of runs."""
    parts = [
        {
            "task": run.task,
            "recipe": run.recipe.to_json(),
            "seed": run.seed,
            "checkpoints": run.checkpoints,
            "data": [tensor_digest(train.inputs), tensor_digest(train.labels)],
            "objective": objective_fingerprint(objective),
        }
        for objective, train, run in zip(objectives, trains, runs, strict=True)
    ]
    device = objectives[0].initial.device.type
    text = json.dumps([FORMAT, parts, micro_batch, precision, device], sort_keys=True)
    return f"training-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def objective_fingerprint(objective: Objective) -> list[str]:
    """Digests of the start and of every tensor that an objective holds itself (heads, weights of samples)."""
    found = [type(objective).__name__, tensor_digest(objective.initial)]
    for name, value in sorted(getattr(objective, "__dict__", {}).items()):
        if isinstance(value, Tensor):
            found.append(f"{name} {tensor_digest(value)}")
        elif isinstance(value, LinearHead):
            found.append(f"{name} {tensor_digest(value.weight)} {tensor_digest(value.bias)}")
        elif isinstance(value, bool | int | float | str):
            found.append(f"{name} {value!r}")
    return found
