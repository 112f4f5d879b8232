r"""The state of one group of runs while they train: weights X [R, D], optimizer state, traces, checkpoints kept.

``step`` is one optimizer step of every run, gradients accumulated over micro-batches.  The loop over steps, and what is
asked between two of them, is ``estimators.fine_tuning``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.alignment import sharpness_aware_gradient, tangent_losses
from estimators.divergence import DivergenceWatch
from estimators.objectives import ClassificationObjective, Objective, StackedObjective
from estimators.sampling import batch_indices, stable_seed
from estimators.snapshots import Snapshot
from estimators.tasks import Split
from estimators.update_rules import UpdateRule

if TYPE_CHECKING:
    from estimators.fine_tuning import Run

CUDA_SYNC_STEPS = 16  # on an accelerator, losses are looked at once in so many steps


class TrainingLoop:
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
        self.order = torch.from_numpy(
            np.stack([batch_order(r, t) for r, t in zip(runs, self.trains, strict=True)], axis=1)
        )
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
        self.watch, self.watched = DivergenceWatch(len(runs)), 0
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
        self._read_traces()
        for trace in self.read[self.watched :]:
            self.watch.see(trace[0])
        self.watched = len(self.read)
        return self.watch.is_over

    def snapshot(self, *, is_over: bool) -> Snapshot:
        """The state between two steps (``estimators.training_snapshots``)."""
        self._read_traces()
        tensors = {"traces": torch.from_numpy(np.stack(self.read))}
        for row, kept in enumerate(self.kept):
            tensors |= {f"kept/{row}/{k}": weights for k, weights in kept.items()}
        if not is_over:
            tensors |= {"weights": self.weights, **self.rule.state()}
        return Snapshot(tensors=tensors, facts={"done": len(self.read)})

    def restore(self, snapshot: Snapshot) -> int:
        """Take up a state, in memory that is laid out as it was; returns the steps done."""
        done = int(snapshot.facts["done"])
        self.read = list(snapshot.tensors["traces"].numpy())
        for row, run in enumerate(self.runs):
            stored = {k: snapshot.tensors.get(f"kept/{row}/{k}") for k in run.checkpoints}
            self.kept[row] = {k: value.to(self.keep_on) for k, value in stored.items() if value is not None}
        if "weights" in snapshot.tensors:
            self.weights.copy_(snapshot.tensors["weights"])
            self.rule.restore(done, snapshot.tensors)
        return done

    def _read_traces(self) -> None:
        if self.unread:
            self.read.extend(torch.stack(self.unread).cpu().double().numpy())
            self.unread.clear()

    def traces(self) -> NDArray[np.float64]:
        """Loss, squared gradient norm and ||x - x_0||^2 of each run and step done [R, 3, k]."""
        self._read_traces()
        return np.stack(self.read, axis=-1).transpose(1, 0, 2)


def batch_order(run: Run, train: Split) -> NDArray[np.int64]:
    """Indices [K, B] of the samples that each step of a run sees."""
    recipe = run.recipe
    generator = np.random.default_rng(stable_seed(run.seed, run.task, "batches"))
    return batch_indices(len(train), recipe.batch_size, recipe.steps, sampling=recipe.sampling, generator=generator)
