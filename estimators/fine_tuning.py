r"""The only training loop: probes and experts go through it, alone or stacked.

A *run* is one task fine-tuned with one recipe and one seed.  Runs that share optimizer, batch size and steps can be
stacked: their weights form X [R, D], one call gives all R mini-batch gradients, and every row keeps its own learning
rate, schedule, head, data and batch order.  A run's numbers do not depend on its neighbours (up to rounding).

Traced at every step, before the update, at no cost: mini-batch loss, squared gradient norm and, after the update,
||x - x_0||^2 of the shared weights.  Divergence is an outcome with a cause (``estimators.divergence``).  Where a place
for snapshots is given, a killed loop goes on from the last one and ends with the same bits
(``estimators.training_snapshots``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from estimators.cost import CostMeter
from estimators.divergence import divergence
from estimators.objectives import ClassificationObjective, Objective
from estimators.recipe import Recipe
from estimators.snapshot_folder import Snapshots
from estimators.tasks import Split
from estimators.training_loop import TrainingLoop
from estimators.training_snapshots import TrainingSnapshots, training_name

__all__ = [
    "Control",
    "FineTuned",
    "Outcome",
    "Run",
    "Watcher",
    "divergence",
    "fine_tune",
    "fine_tune_stack",
    "stack_key",
]

Outcome = Literal["finished", "diverged", "deadline", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One fine-tune to do.

    Attributes:
        task: name of the task.
        recipe: how to train.
        seed: seed of the batch order.
        checkpoints: step numbers (1..K) after which the weights are kept; K is always kept.
    """

    task: str
    recipe: Recipe
    seed: int
    checkpoints: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the checkpoints and add the last step."""
        steps = self.recipe.steps
        wrong = [k for k in self.checkpoints if not 1 <= k <= steps]
        if wrong:
            raise ValueError(f"checkpoints={wrong} must lie in 1..steps={steps}; remove them or train longer")
        object.__setattr__(self, "checkpoints", tuple(sorted({*self.checkpoints, steps})))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FineTuned:
    """What a run left behind.

    Attributes:
        run: what was asked for.
        outcome: ``finished``, ``diverged``, ``deadline`` or ``stopped``.
        cause: why it ended early, in words; empty when finished.
        losses: mini-batch loss of each step done [k].
        gradient_norms: squared norm of each step's mini-batch gradient [k].
        squared_displacements: ||x_k - x_0||^2 after each step [k].
        checkpoints: step -> weights [D] after it.
        seconds: wall time of the group this run trained in, divided by its runs.
    """

    run: Run
    outcome: Outcome
    cause: str = ""
    losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    squared_displacements: NDArray[np.float64]
    checkpoints: dict[int, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def weights(self) -> Tensor:
        """Weights at the last checkpoint."""
        if not self.checkpoints:
            raise ValueError(f"run of {self.run.task!r} kept no weights ({self.outcome}: {self.cause}); train it again")
        return self.checkpoints[max(self.checkpoints)]


class Control(Protocol):
    """What a training loop asks between two steps."""

    def __call__(self, done: int, total: int) -> Literal["go", "deadline", "stopped"]:
        """Whether to go on after ``done`` of ``total`` steps."""
        ...


class Watcher(Protocol):
    """Who looks on while a loop trains."""

    def __call__(self, runs: Sequence[Run], traces: Sequence[NDArray[np.float64]]) -> None:
        """``traces`` grows by a [3, R] array a step: mini-batch loss, squared gradient norm, ||x_k - x_0||^2."""
        ...


def fine_tune(objective: Objective, train: Split, run: Run, **options: object) -> FineTuned:
    """Fine-tune one task; options as in :func:`fine_tune_stack`."""
    return fine_tune_stack([objective], [train], [run], **options)[0]  # type: ignore[arg-type]


def fine_tune_stack(
    objectives: Sequence[Objective],
    trains: Sequence[Split],
    runs: Sequence[Run],
    *,
    meter: CostMeter | None = None,
    control: Control | None = None,
    micro_batch: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    keep_on: str = "cpu",
    on_step: Callable[[int, Tensor], None] | None = None,
    watcher: Watcher | None = None,
    snapshots: Snapshots | None = None,
) -> list[FineTuned]:
    """Fine-tune R runs together.

    Args:
        objectives: loss of each run; a stack of more than one needs ``ClassificationObjective`` with frozen heads.
        trains: training data of each run.
        runs: what to train; all share optimizer, batch size, steps, sampling and alignment.
        meter: counts every per-sample gradient.
        control: asked after every step whether to go on (deadline, stop flag).
        micro_batch: largest batch for one backward pass; larger batches accumulate gradients.
        precision: ``bfloat16`` autocasts the forward pass on CUDA; weights and sums stay float32.
        keep_on: device where checkpoints are kept.
        on_step: called with (steps done, weights [R, D]) after every step.
        watcher: shown the traces whenever losses are looked at (every step on a CPU).
        snapshots: where the state is kept on the way; a state that is there is gone on from.

    Raises:
        ValueError: if the runs cannot be stacked or a batch is larger than the data.
    """
    _require_stackable(objectives, runs)
    started = time.perf_counter()
    loop = TrainingLoop(objectives, trains, runs, micro_batch=micro_batch, precision=precision, keep_on=keep_on)
    kept: TrainingSnapshots | None = None
    if snapshots is not None:
        name = training_name(objectives, trains, runs, micro_batch=loop.micro_batch, precision=precision)
        kept = TrainingSnapshots(snapshots, loop, name)
    steps = runs[0].recipe.steps
    units = sum(run.recipe.cost() / steps for run in runs)
    first = 0 if kept is None else kept.resume()
    if meter is not None:
        for _ in range(first):  # one by one, as they were counted: the same sum to the last bit
            meter.add(gradients=units)
    outcome: Literal["go", "deadline", "stopped"] = "go"
    with kept or nullcontext():
        for k in range(first, first if loop.all_diverged() else steps):
            loop.step(k)
            if meter is not None:
                meter.add(gradients=units)
            if on_step is not None:
                on_step(k + 1, loop.weights)
            is_lost = loop.is_sync_step(k) and loop.all_diverged()
            if watcher is not None and loop.is_sync_step(k):
                watcher(loop.runs, loop.read)
            if control is not None and not is_lost:
                outcome = control(k + 1, steps)
            if kept is not None:
                kept.offer(is_over=is_lost or k + 1 == steps)
            if is_lost or outcome != "go":
                break
    seconds = (time.perf_counter() - started if kept is None else kept.seconds) / len(runs)
    stopped = None if outcome == "go" else outcome
    return [
        _result(run, trace, checkpoints, stopped, seconds)
        for run, trace, checkpoints in zip(runs, loop.traces(), loop.kept, strict=True)
    ]


def _require_stackable(objectives: Sequence[Objective], runs: Sequence[Run]) -> None:
    if not runs or len(objectives) != len(runs):
        raise ValueError(f"{len(objectives)} objectives for {len(runs)} runs; pass one a run and at least one run")
    shapes = {stack_key(run.recipe) for run in runs}
    if len(shapes) > 1:
        raise ValueError(f"runs differ in optimizer, batch size, steps, sampling or alignment: {shapes}; group them")
    if len(runs) > 1 and not all(isinstance(o, ClassificationObjective) and not o.trained_head for o in objectives):
        raise ValueError("objectives with trained heads cannot be stacked; fine-tune those runs one by one")


def stack_key(recipe: Recipe) -> tuple[object, ...]:
    """Runs with equal keys may be stacked."""
    return (recipe.optimizer, recipe.batch_size, recipe.steps, recipe.sampling, recipe.alignment)


def _result(
    run: Run,
    trace: NDArray[np.float64],
    kept: dict[int, Tensor],
    stopped: Literal["deadline", "stopped"] | None,
    seconds: float,
) -> FineTuned:
    done, found = trace.shape[1], divergence(trace[0])
    outcome: Outcome = stopped or "finished"
    cause = "" if stopped is None else f"{stopped} after step {done} of {run.recipe.steps}"
    if found is not None:
        done, cause = found
        outcome = "diverged"
        kept = {k: weights for k, weights in kept.items() if k < done}
    return FineTuned(
        run=run,
        outcome=outcome,
        cause=cause,
        losses=trace[0, :done],
        gradient_norms=trace[1, :done],
        squared_displacements=trace[2, :done],
        checkpoints=kept,
        seconds=seconds,
    )
