r"""Variance sigma^2 of per-sample gradients and the noise scale.

    sigma^2 = E ||grad l(x; z) - E grad l||^2 = tr Sigma                    loss^2/|x|^2
    unbiased from m rows:  (sum_z ||g_z||^2 - m ||g||^2) / (m - 1)
    unequal chances pi_z:  n/(n - 1) ((1/n) sum_z ||g_z||^2/pi_z - (||ghat||^2 - tr Cov(ghat)))
    noise scale  B = tr Sigma / ||grad F||^2                                 samples

On training samples it bounds the noise of a step; on held-out samples it is the variance of the fresh sample that
replaces one in the stability argument (``docs/theory.md`` section 2).  Noise scale: McCandlish et al. 2018,
arXiv 1812.06162.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import CostMeter
from estimators.gradient_rows import GradientMeasurement, GradientRows, draw_samples
from estimators.heterogeneity import MeanGradients
from estimators.intervals import mean_interval, squared_length_interval, weighted_mean
from estimators.objectives import Objective
from estimators.outcomes import require_samples
from estimators.per_sample_gradients import measure_gradients, samples_interact
from estimators.sample_design import SampleKnowledge, WeightedDraw, design_gradients
from estimators.tasks import Split

NORMAL_QUANTILE = 1.645  # of 95 %
IDENTIFIABLE_RATIO = 3.0  # an interval wider than a factor 3 is not enough to act on
# Samples drawn by the length that their gradients should have make up about equal shares of the sum.  One with more
# than this, and than so many equal shares, says that lengths are not as expected: heavier ones may have been missed.
HEAVY_SHARE, HEAVY_SHARES = 0.05, 5


class GradientVariance(BaseEstimator):  # type: ignore[misc]
    """sigma^2 and noise scale of one task at one point.

    Args:
        num_samples: gradients to take, at least 2.
        num_single: how many of them sample by sample, the rest in batches of 8 (faster, a little less informative);
            ``None`` for all.
        memory_budget: bytes for gradients; ``None``: half of what a training step takes.
        random_state: seed of the draw.

    With what is known of every sample (``estimators.sample_design``) samples are drawn with chances in proportion to
    the length that their gradients should have, and taken one by one.

    Attributes:
        gradients_: the gradient rows, for sharing with other estimators.
        estimate_: sigma^2 with interval.
        noise_scale_: B with interval, flagged where ||grad F||^2 cannot be told from 0.
    """

    gradients_: GradientMeasurement
    estimate_: Estimate
    noise_scale_: Estimate

    def __init__(
        self,
        *,
        num_samples: int = 128,
        num_single: int | None = None,
        memory_budget: float | None = None,
        random_state: int = 0,
    ) -> None:
        self.num_samples = num_samples
        self.num_single = num_single
        self.memory_budget = memory_budget
        self.random_state = random_state

    def fit(
        self,
        objective: Objective,
        split: Split,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
        on_batch: Callable[[Tensor], None] | None = None,
        knowledge: SampleKnowledge | None = None,
    ) -> GradientVariance:
        """Measure on ``num_samples`` drawn from ``split`` at ``weights`` (default: the objective's start)."""
        point = objective.initial if weights is None else weights
        require_samples(min(self.num_samples, len(split)), 2, "a variance")
        design = None
        if knowledge is not None and samples_can_be_chosen(objective, split, knowledge, point):
            design = design_gradients(knowledge, self.num_samples, self.random_state)
        samples = (
            draw_samples(split, self.num_samples, self.random_state, device=point.device)
            if design is None
            else split.take(design.draw.places).to(point.device)
        )
        return self.fit_gradients(
            measure_gradients(
                objective,
                point,
                samples,
                population=len(split),
                num_single=self.num_single,
                memory_budget=self.memory_budget,
                meter=meter,
                on_batch=on_batch,
                design=design,
            )
        )

    def fit_gradients(self, gradients: GradientMeasurement) -> GradientVariance:
        """The same from gradients that were taken already (costs nothing more)."""
        self.gradients_ = gradients
        self.estimate_ = _variance(gradients)
        self.noise_scale_ = _noise_scale(gradients.best, self.estimate_)
        return self


def samples_can_be_chosen(
    objective: Objective, split: Split, knowledge: SampleKnowledge | None, weights: Tensor | None = None
) -> bool:
    """Whether something is known of every sample and each can be taken on its own."""
    point = objective.initial if weights is None else weights
    return knowledge is not None and not samples_interact(objective, point, split.head(2).to(point.device))


def row_variance(rows: GradientRows) -> float:
    """Unbiased tr Cov of one sample's gradient."""
    count = rows.num_rows
    mean_square = float(rows.mean.cpu().double().square().sum())
    return max(0.0, float(rows.squared_norms.sum()) - count * mean_square) / (count - 1) * rows.samples_per_row


def squared_deviations(rows: GradientRows) -> NDArray[np.float64]:
    """||g_z - g||^2 of each row, times m/(m-1) and the samples a row, so that their average is sigma^2."""
    sketches = rows.sketches.cpu().double()
    along = (sketches @ sketches.mean(0)).numpy()
    centred = np.maximum(rows.squared_norms - 2 * along + float(along.mean()), 0.0)
    return np.asarray(centred * rows.num_rows / (rows.num_rows - 1) * rows.samples_per_row, dtype=np.float64)


def _variance(gradients: GradientMeasurement) -> Estimate:
    """sigma^2 from single rows and from the batches of further samples, weighted by what each can tell."""
    if gradients.single is not None and gradients.single.draw is not None:
        return _weighted_variance(gradients.single, gradients.single.draw, gradients.note)
    parts = [(rows, share) for rows, share in _parts(gradients) if rows.num_rows >= 2]
    require_samples(len(parts), 1, "a variance (two gradient rows)")
    total = sum(share for _, share in parts)
    value = sum(share * row_variance(rows) for rows, share in parts) / total
    half_squares = 0.0
    for rows, share in parts:
        low, high = mean_interval(squared_deviations(rows), population=rows.population / rows.samples_per_row)
        half_squares += ((high - low) / 2 * share / total) ** 2
    samples = sum(rows.num_samples for rows, _ in parts)
    return _positive_estimate(value, half_squares**0.5, samples, gradients.note)


def _weighted_variance(rows: GradientRows, draw: WeightedDraw, note: str) -> Estimate:
    """sigma^2 from rows that were drawn with unequal chances."""
    mean_square, half = weighted_mean(rows.squared_norms, draw.chances, draw.population)
    squared = max(0.0, float(rows.mean.cpu().double().square().sum()) - rows.noise_trace())
    value = max(0.0, mean_square - squared) * draw.population / (draw.population - 1)
    found = _positive_estimate(value, half, rows.num_samples, note)
    share = _heaviest_share(rows, draw)
    if share == 0:
        return found
    heavy = (
        f"one sample that was left to chance makes up {share:.0%} of sigma^2; heavier ones may have been missed: "
        "take more samples"
    )
    return dataclasses.replace(found, identifiable=False, note=_join(note, heavy))


def _heaviest_share(rows: GradientRows, draw: WeightedDraw) -> float:
    """Share of the heaviest sample left to chance in the sum of squares, 0 where it is no more than expected."""
    shares = (draw.weights * rows.squared_norms)[draw.chances < 1]
    if not shares.any():
        return 0.0
    heaviest = float(shares.max() / (draw.weights * rows.squared_norms).sum())
    return heaviest if heaviest > max(HEAVY_SHARE, HEAVY_SHARES / len(shares)) else 0.0


def _positive_estimate(value: float, half: float, samples: int, note: str) -> Estimate:
    half = half / value if value > 0 else 0.0
    low, high = value * math.exp(-half), value * math.exp(half)  # symmetric in the logarithm: sigma^2 is skewed
    if value == 0:
        note = _join(note, "every gradient is the same; with zero gradients the head fits perfectly or nothing moves")
    return Estimate(
        value=value,
        low=low,
        high=high,
        num_samples=samples,
        cost=float(samples),
        identifiable=value > 0 and high <= IDENTIFIABLE_RATIO * low,
        note=note,
    )


def _parts(gradients: GradientMeasurement) -> list[tuple[GradientRows, float]]:
    """Disjoint row sets with weights: a sample in a batch of 8 tells about half of what it tells alone."""
    single, further = gradients.single, gradients.further
    if single is None:
        return [] if gradients.batched is None else [(gradients.batched, 1.0)]
    return [(single, float(single.num_samples))] + ([] if further is None else [(further, further.num_samples / 2)])


def _noise_scale(rows: GradientRows, variance: Estimate) -> Estimate:
    if variance.value == 0 or rows.num_rows < 2:
        return Estimate(value=0.0, low=0.0, high=0.0, identifiable=False, note="no gradient noise: the scale is 0")
    means = MeanGradients([rows])
    noise = means.noise(np.ones(1))
    squared = means.squared_length(np.ones(1))
    relative = math.log(variance.high / variance.value) / NORMAL_QUANTILE  # error of sigma^2, as a standard deviation
    low, high = squared_length_interval(squared, noise, relative_error=relative)
    identifiable = low > 0 and high <= IDENTIFIABLE_RATIO * low
    note = rows.note
    if low <= 0 or squared <= 0:
        note = _join(note, "||grad F|| cannot be told from 0: only the lower end is known; take more samples")
    least = variance.value / high if high > 0 else np.inf
    most = variance.value / low if low > 0 else np.inf
    value = variance.value / squared if squared > 0 else least
    value = float(np.clip(value, least, most))
    if not np.isfinite(value):
        return Estimate(
            value=np.inf, low=np.inf, high=np.inf, num_samples=rows.num_samples, identifiable=False, note=note
        )
    return Estimate(
        value=value, low=least, high=most, num_samples=rows.num_samples, identifiable=identifiable, note=note
    )


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
