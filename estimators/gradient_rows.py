r"""Gradient rows of one task, and the few numbers that every gradient statistic is computed from.

Rows are gradients g_z = grad l(x; z) [D] of single samples, or mean gradients of small batches, whose covariance is
Sigma / samples_per_row.  They are streamed and dropped; what stays of m rows is

    mean      g = (1/m) sum_z g_z                  [D], exact
    norms     ||g_z||^2                            [m], exact
    deviations  S u with U^T U = Cov(mean)         [m', q], where samples were drawn with unequal chances
    sketches  S g_z with E <Sa, Sb> = <a, b>       [m, q], q = 4096 buckets of a CountSketch (Charikar, Chen &
                                                   Farach-Colton 2002), one map for all tasks; S = identity for D <= q

Point estimates use mean and norms; sketches serve intervals alone (relative error of a squared length 2.2 %), so that
resampling costs no further gradient and memory does not grow with D times m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.outcomes import GradientNotFinite, require_samples
from estimators.sample_design import GradientDesign, WeightedDraw
from estimators.tasks import Split

SKETCH_SIZE = 4096
SKETCH_PART = 1_000_000  # entries signed at once
SKETCH_SEED = 20_161  # one map for all tasks, else their sketches could not be compared


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientRows:
    """Gradient rows of one task at one point.

    Attributes:
        mean: mean gradient [D]; from a design the calibrated one.
        squared_norms: ||row||^2 [m], float64.
        sketches: sketched rows [m, q], float32 on the CPU; exact rows if ``exact``.
        exact: whether sketches are the rows themselves.
        samples_per_row: 1, or the batch size of the two-batch fallback.
        population: samples of the split that the rows were drawn from without replacement.
        note: how the rows were made, where it was not ``vmap(grad)``.
        draw: which samples they are and with which chances they were drawn; ``None``: equal ones.
        deviations: U [m', q], sketched: U^T U estimates Cov(mean); ``None``: from the rows, which had equal chances.
        mean_sketch: the sketch of the mean [q]; ``None``: the mean of the sketches.
    """

    mean: Tensor
    squared_norms: NDArray[np.float64]
    sketches: Tensor
    exact: bool
    samples_per_row: int = 1
    population: int
    note: str = ""
    draw: WeightedDraw | None = None
    deviations: Tensor | None = None
    mean_sketch: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """Rows m."""
        return len(self.squared_norms)

    @property
    def num_samples(self) -> int:
        """Samples behind the rows."""
        return self.num_rows * self.samples_per_row

    @property
    def sampling_factor(self) -> float:
        """f/m with Cov(mean) = (f/m) Cov(row); f = 1 - m/population corrects for draws without replacement."""
        return max(0.0, 1.0 - self.num_samples / self.population) / self.num_rows

    def noise_rows(self) -> Tensor:
        """U [m', q], float64, sketched: U^T U estimates Cov(mean)."""
        if self.deviations is not None:
            return self.deviations.cpu().double()
        sketches = self.sketches.cpu().double()
        factor = self.sampling_factor / (self.num_rows - 1)
        return torch.sub(sketches, sketches.mean(0)).mul_(math.sqrt(factor))

    def sketched_mean(self) -> Tensor:
        """The sketch of the mean [q], float64."""
        found = self.sketches.cpu().double().mean(0) if self.mean_sketch is None else self.mean_sketch
        return found.cpu().double()

    def noise_trace(self) -> float:
        """Trace of Cov(mean); exact where chances were equal."""
        if self.deviations is not None:
            return float(self.deviations.cpu().double().square().sum())
        square = float(self.mean.cpu().double().square().sum())
        spread = max(0.0, float(self.squared_norms.sum()) - self.num_rows * square) / (self.num_rows - 1)
        return self.sampling_factor * spread


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientMeasurement:
    """Gradients of one task at one point.

    Attributes:
        single: per-sample rows; ``None`` where samples cannot be separated.
        batched: mean gradients of batches of ``samples_per_row``, over all samples; ``None`` below two batches.
        further: the same over the samples that have no row of their own in ``single``; ``None`` below two batches.
        note: how they were made, where it was not ``vmap(grad)``.
    """

    single: GradientRows | None
    batched: GradientRows | None
    further: GradientRows | None = None
    note: str = ""

    @property
    def best(self) -> GradientRows:
        """The rows over most samples, for means and their noise."""
        if self.batched is not None and (self.single is None or self.batched.num_samples > self.single.num_samples):
            return self.batched
        if self.single is None:
            raise ValueError("measurement holds no rows; measure at least one sample")
        return self.single

    @property
    def num_samples(self) -> int:
        """Samples that were measured."""
        return self.best.num_samples


def draw_samples(split: Split, count: int, seed: int, *, device: torch.device) -> Split:
    """``count`` samples of a split without replacement (all of them if it holds fewer), moved to ``device``."""
    if count >= len(split):
        return split.to(device)
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:count]
    return Split(inputs=split.inputs[chosen].to(device), labels=split.labels[chosen].to(device))


class RowCollector:
    """Running mean, norms and sketches of rows."""

    def __init__(self, weights: Tensor, sketch: Sketch) -> None:
        self.weights, self.sketch = weights, sketch
        self.total: Tensor | None = None  # made when the first row comes: of large models each vector counts
        self.norms: list[Tensor] = []
        self.sketches: list[Tensor] = []
        self.count = 0

    def add(self, rows: Tensor, shares: Tensor | None = None) -> None:
        """Take in rows [c, D]; with ``shares`` [c] their weighted sum stands for the mean."""
        if not bool(torch.isfinite(rows).all()):
            raise GradientNotFinite(
                "gradients: NaN or infinite although the losses are finite; look for square roots or logarithms of zero"
            )
        self.count += len(rows)
        if self.total is None:
            self.total = torch.zeros_like(self.weights)
        if shares is not None:
            self.total += shares.to(rows) @ rows
        else:
            self.total += rows[0] if len(rows) == 1 else rows.sum(0)
        self.norms.append(torch.linalg.vector_norm(rows, dim=1).cpu().double().square())
        self.sketches.append(self.sketch(rows))

    def rows(
        self, samples_per_row: int, population: int, note: str, design: GradientDesign | None = None
    ) -> GradientRows:
        """What was collected; the collector is spent.  With a design, rows were added with its weights as shares."""
        require_samples(self.count * samples_per_row, 1, "a gradient")
        mean, self.total = self.total, None
        if mean is None:
            raise ValueError("rows() was called before; a collector gives its rows once")
        sketches = torch.cat(self.sketches)
        return GradientRows(
            mean=mean.div_(self.count) if design is None else mean,
            squared_norms=torch.cat(self.norms).numpy(),
            sketches=sketches,
            exact=self.sketch.exact,
            samples_per_row=samples_per_row,
            population=population,
            note=note,
            draw=None if design is None else design.draw,
            deviations=None if design is None else design.deviations(sketches),
            mean_sketch=None if design is None else torch.from_numpy(design.mean_weights).to(sketches) @ sketches,
        )


class Sketch:
    """CountSketch of rows [c, D] -> [c, q], or the identity."""

    def __init__(self, dim: int) -> None:
        self.exact = dim <= SKETCH_SIZE
        if not self.exact:
            generator = torch.Generator().manual_seed(SKETCH_SEED)
            self.bucket = torch.randint(SKETCH_SIZE, (dim,), generator=generator).int()
            self.sign = torch.randint(0, 2, (dim,), generator=generator, dtype=torch.int8) * 2 - 1

    def __call__(self, rows: Tensor) -> Tensor:
        """Sketches [c, q] of rows [c, D], on the CPU."""
        if self.exact:
            return rows.detach().cpu().clone()
        if self.bucket.device != rows.device:
            self.bucket, self.sign = self.bucket.to(rows.device), self.sign.to(rows.device)
        out = rows.new_zeros(len(rows), SKETCH_SIZE)
        for row, place in zip(rows, out, strict=True):  # row by row, in parts: no second copy of the chunk
            for bucket, sign, part in zip(*(x.split(SKETCH_PART) for x in (self.bucket, self.sign, row)), strict=True):
                place.index_add_(0, bucket, part * sign)
        return out.cpu()
