r"""The only training loop: probes and experts go through it, alone or stacked.

A *run* is one task fine-tuned with one recipe and one seed.  Runs that share optimizer, batch size and steps can be
stacked: their weights form X [R, D], one call gives all R mini-batch gradients, and every row keeps its own learning
rate, schedule, head, data and batch order.  A run's numbers do not depend on its neighbours (up to rounding).

Traced at every step, before the update, at no cost: mini-batch loss, squared gradient norm and, after the update,
||x - x_0||^2 of the shared weights.  Divergence is an outcome with a cause: a non-finite loss, or a loss above
``DIVERGENCE_MULTIPLE`` times max(first loss, 1 nat) for ``DIVERGENCE_PATIENCE`` steps in a row.  A transient jump above
the stability edge is not divergence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.alignment import sharpness_aware_gradient, tangent_losses
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective, Objective, StackedObjective
from estimators.recipe import Recipe
from estimators.sampling import batch_indices, stable_seed
from estimators.tasks import Split
from estimators.update_rules import UpdateRule

DIVERGENCE_MULTIPLE = 10.0
DIVERGENCE_PATIENCE = 25
CUDA_SYNC_STEPS = 16  # on an accelerator, losses are looked at once in so many steps

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

    Raises:
        ValueError: if the runs cannot be stacked or a batch is larger than the data.
    """
    _require_stackable(objectives, runs)
    started = time.perf_counter()
    loop = _Loop(objectives, trains, runs, micro_batch=micro_batch, precision=precision, keep_on=keep_on)
    steps = runs[0].recipe.steps
    outcome: Literal["go", "deadline", "stopped"] = "go"
    for k in range(steps):
        loop.step(k)
        if meter is not None:
            meter.add(gradients=sum(run.recipe.cost() / steps for run in runs))
        if on_step is not None:
            on_step(k + 1, loop.weights)
        if loop.is_sync_step(k):
            is_lost = loop.all_diverged()
            if watcher is not None:
                watcher(loop.runs, loop.read)
            if is_lost:
                break
        outcome = control(k + 1, steps) if control is not None else "go"
        if outcome != "go":
            break
    seconds = (time.perf_counter() - started) / len(runs)
    return loop.results(None if outcome == "go" else outcome, seconds)


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


class _Loop:
    """State of one group of runs: weights, optimizer state and traces."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        trains: Sequence[Split],
        runs: Sequence[Run],
        *,
        micro_batch: int | None,
        precision: str,
        keep_on: str,
    ) -> None:
        self.runs, self.objectives, self.keep_on, self.precision = list(runs), list(objectives), keep_on, precision
        self.start = torch.stack([objective.initial for objective in objectives]).clone()
        self.weights = self.start.clone()
        self.device = self.weights.device
        self.shared = objectives[0].num_shared
        recipe = runs[0].recipe
        self.micro_batch = min(micro_batch or recipe.batch_size, recipe.batch_size)
        self.trains = [
            train.head(run.recipe.num_samples).to(self.device) for train, run in zip(trains, runs, strict=True)
        ]
        self.order = torch.from_numpy(np.stack([_order(r, t) for r, t in zip(runs, self.trains, strict=True)], axis=1))
        self.order += self._pool()

        def column(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        self.rates = column(np.stack([r.recipe.learning_rate * r.recipe.schedule_factors() for r in runs], axis=1))
        self.rates = self.rates.unsqueeze(-1)
        self.rule = UpdateRule(
            recipe.optimizer,
            momentum=column([[r.recipe.momentum] for r in runs]),
            weight_decay=column([[r.recipe.weight_decay] for r in runs]),
            like=self.weights,
        )
        self.stacked = (
            StackedObjective(
                objectives[0].backbone,  # type: ignore[attr-defined]
                [o.head for o in objectives],  # type: ignore[attr-defined]
            )
            if len(runs) > 1
            else None
        )
        self.kept: list[dict[int, Tensor]] = [{} for _ in runs]
        self.unread: list[Tensor] = []
        self.read: list[NDArray[np.float64]] = []
        self.steps_above = np.zeros(len(runs), dtype=np.int64)
        self.given_up = np.zeros(len(runs), dtype=bool)
        self.wanted = {k for run in runs for k in run.checkpoints}

    def _pool(self) -> Tensor:
        """Put all training data in one tensor, so that a step gathers once; returns each run's offset [R, 1]."""
        distinct = {id(train.inputs): train for train in self.trains}
        starts = dict(zip(distinct, np.cumsum([0, *map(len, distinct.values())]), strict=False))
        self.inputs = torch.cat([train.inputs for train in distinct.values()])
        self.labels = torch.cat([train.labels for train in distinct.values()])
        return torch.tensor([[starts[id(train.inputs)]] for train in self.trains])

    def step(self, k: int) -> None:
        """One optimizer step of every run, traced."""
        losses, gradient = self.gradient(k)
        norms = gradient.square().sum(1)
        self.rule.step(self.weights, gradient, self.rates[k])
        moved = (self.weights - self.start)[:, : self.shared].square().sum(1)
        self.unread.append(torch.stack([losses, norms, moved]))
        if k + 1 in self.wanted:
            for row, run in enumerate(self.runs):
                if k + 1 in run.checkpoints:
                    self.kept[row][k + 1] = self.weights[row].detach().to(self.keep_on, copy=True)

    def gradient(self, k: int) -> tuple[Tensor, Tensor]:
        """Mini-batch losses [R] and gradients [R, D] of step k, accumulated over micro-batches."""
        alignment = self.runs[0].recipe.alignment
        if alignment == "sam":
            return sharpness_aware_gradient(lambda at: self._accumulate(k, at), self.weights)
        return self._accumulate(k, self.weights)

    def _accumulate(self, k: int, at: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.order.shape[2]
        losses = torch.zeros(len(self.runs), device=self.device)
        gradient = torch.zeros_like(at)
        for first in range(0, batch, self.micro_batch):
            index = self.order[k, :, first : first + self.micro_batch].to(self.device)
            inputs, labels = self.inputs[index], self.labels[index]
            point = at.detach().requires_grad_()
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
                part = self._losses(point, inputs, labels).float().sum(1) / batch
            (slope,) = torch.autograd.grad(part.sum(), point)
            losses += part.detach()
            gradient += slope
        return losses, gradient

    def _losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        tangent = self.runs[0].recipe.alignment == "tangent"
        if self.stacked is not None:
            if tangent:
                return tangent_losses(self.stacked, self.start, weights, inputs, labels)
            return self.stacked.losses(weights, inputs, labels)
        if tangent:
            single = self.objectives[0]
            if not isinstance(single, ClassificationObjective) or single.trained_head:
                raise ValueError("alignment='tangent' needs a frozen classification head; choose heads: probe")
            stacked = StackedObjective(single.backbone, [single.head])
            return tangent_losses(stacked, self.start, weights, inputs, labels)
        return self.objectives[0].losses(weights[0], inputs[0], labels[0]).unsqueeze(0)

    def is_sync_step(self, k: int) -> bool:
        """Whether losses are looked at now (every step on a CPU)."""
        return self.device.type == "cpu" or (k + 1) % CUDA_SYNC_STEPS == 0

    def all_diverged(self) -> bool:
        """Whether no run is worth going on with."""
        before = len(self.read)
        self._read_traces()
        for losses in (trace[0] for trace in self.read[before:]):
            limit = DIVERGENCE_MULTIPLE * np.maximum(self.read[0][0], 1.0)
            self.steps_above = np.where(losses > limit, self.steps_above + 1, 0)
            self.given_up |= ~np.isfinite(losses) | (self.steps_above >= DIVERGENCE_PATIENCE)
        return bool(self.given_up.all())

    def _read_traces(self) -> None:
        if self.unread:
            self.read.extend(torch.stack(self.unread).cpu().double().numpy())
            self.unread.clear()

    def results(self, stopped: Literal["deadline", "stopped"] | None, seconds: float) -> list[FineTuned]:
        """What each run left behind."""
        self._read_traces()
        traces = np.stack(self.read, axis=-1).transpose(1, 0, 2)  # [R, 3, steps done]
        return [
            _result(run, trace, kept, stopped, seconds)
            for run, trace, kept in zip(self.runs, traces, self.kept, strict=True)
        ]


def _order(run: Run, train: Split) -> NDArray[np.int64]:
    recipe = run.recipe
    generator = np.random.default_rng(stable_seed(run.seed, run.task, "batches"))
    return batch_indices(len(train), recipe.batch_size, recipe.steps, sampling=recipe.sampling, generator=generator)


def divergence(losses: NDArray[np.float64]) -> tuple[int, str] | None:
    """The step (from 1) at which a run counts as diverged and why, or ``None``.

    >>> divergence(np.array([1.0, 50.0, 0.9])) is None
    True
    >>> divergence(np.array([1.0, np.nan]))
    (2, 'loss became nan at step 2')
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    first_bad = int(bad[0]) + 1 if len(bad) else None
    limit = DIVERGENCE_MULTIPLE * max(float(losses[0]), 1.0)
    above = np.concatenate([[0], np.cumsum(losses > limit)])
    window = above[DIVERGENCE_PATIENCE:] - above[:-DIVERGENCE_PATIENCE] if len(losses) >= DIVERGENCE_PATIENCE else []
    stuck = np.flatnonzero(np.asarray(window) == DIVERGENCE_PATIENCE)
    if len(stuck) and (first_bad is None or int(stuck[0]) + DIVERGENCE_PATIENCE < first_bad):
        step = int(stuck[0]) + DIVERGENCE_PATIENCE
        return step, f"loss stayed above {limit:.3g} for {DIVERGENCE_PATIENCE} steps up to step {step}"
    return None if first_bad is None else (first_bad, f"loss became {losses[first_bad - 1]} at step {first_bad}")


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
