r"""Critical sharpness: 2/eta_c with eta_c the smallest step along an update at which the loss is no lower than before.

    F(x + eta_c u) = F(x),  F(x + eta u) < F(x) for 0 < eta < eta_c;         quadratic F, u = -grad F: g^T H g/||g||^2

u is the update per unit of learning rate, whatever the optimizer: -g for SGD, -g/(sqrt(v) + eps) for AdamW, so that the
result is in that optimizer's own (preconditioned) metric and 2/critical_sharpness is a learning rate.  5 to 10 forward
passes (arXiv 2601.16979).
"""

from __future__ import annotations

import math

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import FORWARD_UNITS, CostMeter
from estimators.curvature import mean_gradient
from estimators.gradient_rows import draw_samples
from estimators.objectives import Objective
from estimators.outcomes import MeasurementFailed, require_finite_losses
from estimators.tasks import Split

CHUNK = 64
LARGEST_FACTOR = 2.0**40


class NoDescent(MeasurementFailed):
    """The loss rises at every step length along the update."""


class CriticalSharpness(BaseEstimator):  # type: ignore[misc]
    """2/eta_c along one update.

    Args:
        num_samples: samples that the loss is averaged over.
        first_step: where the search starts, a learning rate.
        tolerance: relative width of the bracket of eta_c to stop at.
        random_state: seed of the draw.

    Attributes:
        estimate_: 2/eta_c with the bracket's ends; deterministic given the samples.
        evaluations_: forward passes over the samples.
    """

    estimate_: Estimate
    evaluations_: int

    def __init__(
        self, *, num_samples: int = 32, first_step: float = 0.01, tolerance: float = 0.1, random_state: int = 0
    ) -> None:
        self.num_samples = num_samples
        self.first_step = first_step
        self.tolerance = tolerance
        self.random_state = random_state

    def fit(
        self,
        objective: Objective,
        split: Split,
        update: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
    ) -> CriticalSharpness:
        """Search along ``update`` [D] per unit of learning rate; ``None``: minus the gradient of the samples drawn."""
        point = objective.initial if weights is None else weights
        samples = draw_samples(split, self.num_samples, self.random_state, device=point.device)
        direction = -mean_gradient(objective, point, samples, meter=meter) if update is None else update
        if not float(torch.linalg.vector_norm(direction)) > 0:
            raise NoDescent("update=0 moves nothing: the gradient is zero here (a perfect head, or nothing may move)")
        self.evaluations_ = 0

        def rise(step: float) -> float:
            self.evaluations_ += 1
            return _risk(objective, point + step * direction, samples, meter) - start

        start = _risk(objective, point, samples, meter)
        if not math.isfinite(start):
            require_finite_losses(torch.tensor([start]))
        lower, upper = self._bracket(rise)
        while upper / lower > 1 + self.tolerance:
            middle = math.sqrt(lower * upper)
            if rise(middle) < 0:
                lower = middle
            else:
                upper = middle
        centre = math.sqrt(lower * upper)
        self.estimate_ = Estimate(
            value=2 / centre,
            low=2 / upper,
            high=2 / lower,
            num_samples=len(samples),
            cost=FORWARD_UNITS * len(samples) * (self.evaluations_ + 1) + (len(samples) if update is None else 0),
            note=f"bracket of eta_c on {len(samples)} samples, {self.evaluations_} evaluations",
        )
        return self

    def _bracket(self, rise: object) -> tuple[float, float]:
        """Step lengths below and above eta_c, by doubling or halving from ``first_step``."""
        assert callable(rise)
        step, factor = self.first_step, 4.0
        if not step > 0:
            raise ValueError(f"first_step={step} must be positive; give a learning rate such as 0.01")
        if rise(step) < 0:
            while step < self.first_step * LARGEST_FACTOR:
                if not rise(step * factor) < 0:
                    return step, step * factor
                step *= factor
            raise NoDescent(
                f"the loss still falls at a step of {step:.3g} along the update: no curvature bounds it; "
                "check that the update is not tiny"
            )
        while step > self.first_step / LARGEST_FACTOR:
            if rise(step / factor) < 0:
                return step / factor, step
            step /= factor
        raise NoDescent(
            "the loss rises along the update at every step length: it is no descent direction for these samples; "
            "take the update from the same samples, or more of them"
        )


def adamw_first_update(gradient: Tensor, *, eps: float = 1e-8) -> Tensor:
    """AdamW's update per unit of learning rate in its first step, -g/(|g| + eps): moments are bias-corrected."""
    return -gradient / (gradient.abs() + eps)


def _risk(objective: Objective, weights: Tensor, samples: Split, meter: CostMeter | None) -> float:
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(samples), CHUNK):
            inputs, labels = samples.inputs[start : start + CHUNK], samples.labels[start : start + CHUNK]
            total += float(objective.losses(weights, inputs, labels).cpu().double().sum())
    if meter is not None:
        meter.add(forwards=len(samples))
    return total / len(samples)
