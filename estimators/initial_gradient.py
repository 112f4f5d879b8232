r"""Where a task starts: risk r_0, gap Delta_0, gradient norm G and progress rate mu at x_0.

    r_0     = mean loss at x_0 over validation samples and, where the head was cross-validated, over the training
              samples under heads fitted without them: several times as many draws of the same risk, at no cost, which
              heavy tails need (on a small ViT 128 samples gave 0.2 where 1 500 gave 0.4)    loss
    Delta_0 <= F(x_0) - floor, floor >= 0 a known lower bound of F*; F(x_0) itself is always safe       loss
    G_i     = ||grad F_i(x_0)||, sampling part subtracted from its square                    loss/|x|
    mu_j    = <grad F_j(x_0), sum_i w_i grad F_i(x_0)> / (r_0j - r_inf)                      curvature

mu_j is how fast risk j starts to fall per unit of progress T when all experts are merged with shares w
(``docs/theory.md`` section 3); a negative value means that the others pull j the wrong way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import FORWARD_UNITS, CostMeter
from estimators.gradient_rows import GradientRows, draw_samples
from estimators.heterogeneity import MeanGradients, goal_weights
from estimators.intervals import CONFIDENCE, positive_mean_interval
from estimators.outcomes import require_finite_losses
from estimators.tasks import Split

if TYPE_CHECKING:
    from estimators.objectives import ClassificationObjective

BATCH = 250
OTHER_DISTRIBUTION = 1e-4  # p below which validation and cross-validated losses are told apart
ERROR_FREEDOM = 8  # the error comes from the same few noisy directions as the value


class InitialRisk(BaseEstimator):  # type: ignore[misc]
    """Risk, accuracy and gap of a task at x_0 (or any weights).

    Args:
        num_samples: samples to evaluate at most; ``None`` for the whole split.
        floor: known lower bound of F*, at least 0.
        random_state: seed of the draw.

    Attributes:
        estimate_: mean loss over the samples evaluated and the further losses.
        accuracy_: share classified correctly, Wilson interval.
        gap_: F(x_0) - floor, an upper bound of Delta_0.
        losses_: loss of each sample evaluated [m].
        pooled_: whether further losses were taken in.
    """

    estimate_: Estimate
    accuracy_: Estimate
    gap_: Estimate
    losses_: Tensor
    pooled_: bool

    def __init__(self, *, num_samples: int | None = None, floor: float = 0.0, random_state: int = 0) -> None:
        self.num_samples = num_samples
        self.floor = floor
        self.random_state = random_state

    def fit(
        self,
        objective: ClassificationObjective,
        split: Split,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
        further: Tensor | None = None,
    ) -> InitialRisk:
        """Evaluate; 1/3 unit a sample.

        Args:
            objective: the task's loss.
            split: held-out samples.
            weights: where; ``None`` for x_0.
            meter: counts the forward passes.
            further: losses [n] of other held-out samples at the same weights, such as ``Task.held_out_losses``; left
                out, with a note, where their ranks show that they come from another distribution.
        """
        if not self.floor >= 0:
            raise ValueError(f"floor={self.floor} must be at least 0, a lower bound of a risk; give 0 if none is known")
        point = objective.initial if weights is None else weights
        wanted = len(split) if self.num_samples is None else self.num_samples
        samples = draw_samples(split, wanted, self.random_state, device=point.device)
        losses, correct = [], 0
        with torch.no_grad():
            for start in range(0, len(samples), BATCH):
                labels = samples.labels[start : start + BATCH]
                logits = objective.logits(point, samples.inputs[start : start + BATCH]).float()
                losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
                correct += int((logits.argmax(1) == labels).sum())
        if meter is not None:
            meter.add(forwards=len(samples))
        self.losses_ = torch.cat(losses).cpu().double()
        require_finite_losses(self.losses_)
        self._summarise(correct, None if further is None else further.cpu().double().numpy())
        return self

    def _summarise(self, correct: int, further: NDArray[np.float64] | None) -> None:
        values, note = self.losses_.numpy(), ""
        evaluated = len(values)
        self.pooled_ = further is not None and bool(np.isfinite(further).all()) and _same_ranks(values, further)
        if further is not None:
            values = np.concatenate([values, further]) if self.pooled_ else values
            note = f"{len(further)} cross-validated samples {'taken in' if self.pooled_ else 'differ: left out'}"
        count = len(values)
        cost = FORWARD_UNITS * evaluated
        mean = float(values.mean())
        if count > 1:  # the risk of new data is meant, so no finite-population correction
            low, high = positive_mean_interval(values)
            self.estimate_ = Estimate(value=mean, low=low, high=high, num_samples=count, cost=cost, note=note)
        else:
            note = "one sample gives no interval; add validation samples"
            self.estimate_ = Estimate(
                value=mean, low=0.0, high=max(mean, 0.0), num_samples=1, cost=cost, identifiable=False, note=note
            )
        share = correct / evaluated
        wilson = stats.binomtest(correct, evaluated).proportion_ci(CONFIDENCE, method="wilson")
        self.accuracy_ = Estimate(
            value=share, low=min(float(wilson.low), share), high=max(float(wilson.high), share), num_samples=evaluated
        )
        gap = [max(0.0, x - self.floor) for x in (self.estimate_.value, self.estimate_.low, self.estimate_.high)]
        self.gap_ = Estimate(
            value=gap[0],
            low=gap[1],
            high=gap[2],
            num_samples=count,
            note="an upper bound: F* >= floor" if gap[0] > 0 else "the head fits these samples perfectly: no gap left",
        )


def _same_ranks(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two samples can come from one distribution, by their ranks (Mann-Whitney): heavy tails do not matter."""
    return bool(stats.mannwhitneyu(first, second).pvalue > OTHER_DISTRIBUTION)


class InitialGradientNorm(BaseEstimator):  # type: ignore[misc]
    """||grad F_i(x_0)|| from gradient rows, sampling part subtracted.

    Attributes:
        estimate_: the norm.
        squared_: its square, which is what is unbiased.
    """

    estimate_: Estimate
    squared_: Estimate

    def fit(self, rows: GradientRows) -> InitialGradientNorm:
        """Estimate from rows of one task; costs nothing more."""
        self.squared_ = MeanGradients([rows]).squared_length_estimate(np.ones(1))
        self.estimate_ = _root(self.squared_)
        return self


class ProgressRate(BaseEstimator):  # type: ignore[misc]
    """Initial progress rate mu_j of every task under a common merge.

    Args:
        shares: w_i by task name, summing to 1; ``None`` for equal ones.

    Attributes:
        estimates_: mu_j by task name.
    """

    estimates_: dict[str, Estimate]

    def __init__(self, *, shares: Mapping[str, float] | None = None) -> None:
        self.shares = shares

    def fit(self, rows: Mapping[str, GradientRows], gaps: Mapping[str, Estimate]) -> ProgressRate:
        """Estimate from gradient rows and gaps r_0 - r_inf (or their upper bounds: mu is then a lower bound)."""
        names = list(rows)
        shares = goal_weights(names, self.shares)
        means = MeanGradients([rows[name] for name in names])
        self.estimates_ = {}
        for j, name in enumerate(names):
            gap = gaps[name].value
            if gap <= 0:
                note = "no gap is left at x_0: nothing can be gained on this task"
                self.estimates_[name] = Estimate(value=0.0, low=0.0, high=0.0, identifiable=False, note=note)
                continue
            value, error = means.directional(j, shares)
            half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, ERROR_FREEDOM)) * error
            self.estimates_[name] = Estimate(
                value=value / gap,
                low=(value - half) / gap,
                high=(value + half) / gap,
                num_samples=sum(item.num_samples for item in rows.values()),
                identifiable=abs(value) > half,
                note="" if abs(value) > half else "the sign is not to be told with these samples",
            )
        return self


def _root(squared: Estimate) -> Estimate:
    return Estimate(
        value=float(np.sqrt(squared.value)),
        low=float(np.sqrt(squared.low)),
        high=float(np.sqrt(squared.high)),
        num_samples=squared.num_samples,
        cost=squared.cost,
        identifiable=squared.identifiable,
        note=squared.note,
    )
