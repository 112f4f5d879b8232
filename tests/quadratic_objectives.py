"""Quadratic tasks of ``known_problems`` as the estimators see them: an objective and a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from estimators.gradient_rows import GradientMeasurement, GradientRows, RowCollector, Sketch
from estimators.tasks import Split
from tests.known_problems import Array, QuadraticTask

ENDLESS = 10**12  # fresh draws: no finite-population correction


@dataclass(frozen=True)
class QuadraticObjective:
    """A quadratic task as an ``Objective`` in float64."""

    task: QuadraticTask
    start: Array

    @property
    def initial(self) -> Tensor:
        return torch.as_tensor(self.start)

    @property
    def num_shared(self) -> int:
        return len(self.start)

    def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return self.task.torch_losses(weights, inputs)


def split_of(samples: Array) -> Split:
    return Split(inputs=torch.as_tensor(samples), labels=torch.zeros(len(samples), dtype=torch.int64))


def rows_of(gradients: Array, *, population: int = ENDLESS, samples_per_row: int = 1) -> GradientRows:
    """Gradient rows from gradients [m, P] that were computed elsewhere."""
    like = torch.zeros(gradients.shape[1], dtype=torch.float64)
    collector = RowCollector(like, Sketch(len(like)))
    collector.add(torch.as_tensor(gradients))
    return collector.rows(samples_per_row, population, "")


def measurement_of(gradients: Array, *, batched_from: int | None = None) -> GradientMeasurement:
    """Single rows, the ones from number ``batched_from`` on only as means of 8."""
    if batched_from is None:
        return GradientMeasurement(single=rows_of(gradients), batched=None)
    means = gradients.reshape(-1, 8, gradients.shape[1]).mean(1)
    return GradientMeasurement(
        single=rows_of(gradients[:batched_from]),
        batched=rows_of(means, samples_per_row=8),
        further=rows_of(means[batched_from // 8 :], samples_per_row=8),
    )


def interval_score(truth: float, low: float, high: float) -> float:
    """Width plus 2/alpha times the miss, alpha = 0.1 (Gneiting & Raftery 2007)."""
    return high - low + 20 * (max(low - truth, 0.0) + max(truth - high, 0.0))


def median_width(widths: list[float]) -> float:
    return float(np.median(widths))
