r"""lambda_max of a risk's Hessian from few samples: find the direction on some, measure the curvature on others.

The top direction of a network's Hessian settles with a few dozen samples, the curvature along it does not: single
samples' v^T H_z v scatter by 120-190 % (docs/estimators.md).  So

    1. Lanczos on the Gauss-Newton matrix G of m1 samples finds v (2 units a sample and product);
    2. a short Lanczos on the Hessian of the same samples, started at v, turns v towards the Hessian's top vector and
       reports its residual (4 units a sample and product); theta = v^T H v on the m1 samples;
    3. v^T G_z v on m2 other samples (1 unit each) gives most of the value and its t interval; the rest, v^T (H - G) v,
       scatters far less and comes from the m1 samples (a control variate).

E v^T H v <= lambda_max(H) for v independent of the samples of step 3, while theta is too large in expectation; the
estimate pools both.  Without logits step 3 takes second derivatives of the loss instead (4 units each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import CostMeter
from estimators.curvature import (
    LogitObjective,
    gauss_newton_curvatures,
    gauss_newton_product,
    hessian_curvatures,
    hessian_product,
)
from estimators.gradient_rows import draw_samples
from estimators.heterogeneity import goal_weights
from estimators.intervals import mean_interval
from estimators.lanczos import LanczosResult, random_direction, top_eigenvalue
from estimators.objectives import Objective
from estimators.outcomes import require_finite_losses, require_samples
from estimators.tasks import Split

IDENTIFIABLE_RATIO = 2.5
SHARPEST_PRODUCTS = 3


class SampledTopCurvature(BaseEstimator):  # type: ignore[misc]
    """Largest Hessian eigenvalue of a task's or the goal's risk from a small sample of it.

    Args:
        num_direction_samples: m1, samples that find the direction.
        num_fresh_samples: m2, samples that measure the curvature along it.
        gauss_newton_products: products of step 1; 0 skips it (objectives without logits).
        hessian_products: products of step 2, at least 1.
        random_state: seed of draws and start vector.

    Attributes:
        estimate_: lambda_max of the risk.
        gauss_newton_: lambda_max of the Gauss-Newton matrix: ``estimate_`` times its ratio to the Hessian's on the m1
            samples (the same for both, so that their scatter cancels); ``None`` without step 1.
        lanczos_: step 2's value, residual and vector on the m1 samples.
        remainder_: v^T (H - G) v of the m1 samples.
        direction_: v [D], unit length.
        sample_curvatures_: v^T G_z v (v^T H_z v without logits) of the fresh samples [m2], one task after the other.
        sample_smoothness_: largest curvature of a single sample's loss that was met: a lower end of L.
    """

    estimate_: Estimate
    gauss_newton_: Estimate | None
    lanczos_: LanczosResult
    remainder_: float
    direction_: Tensor
    sample_curvatures_: NDArray[np.float64]
    sample_smoothness_: Estimate

    def __init__(
        self,
        *,
        num_direction_samples: int = 32,
        num_fresh_samples: int = 192,
        gauss_newton_products: int = 4,
        hessian_products: int = 2,
        random_state: int = 0,
    ) -> None:
        self.num_direction_samples = num_direction_samples
        self.num_fresh_samples = num_fresh_samples
        self.gauss_newton_products = gauss_newton_products
        self.hessian_products = hessian_products
        self.random_state = random_state

    def fit(
        self, objective: Objective, split: Split, weights: Tensor | None = None, *, meter: CostMeter | None = None
    ) -> SampledTopCurvature:
        """Measure one task at ``weights`` (default x_0)."""
        return self.fit_goal({"task": objective}, {"task": split}, weights, meter=meter)

    def fit_goal(
        self,
        objectives: Mapping[str, Objective],
        splits: Mapping[str, Split],
        weights: Tensor | None = None,
        *,
        task_weights: Mapping[str, float] | None = None,
        meter: CostMeter | None = None,
    ) -> SampledTopCurvature:
        """Measure F = sum_i p_i F_i; the sample counts are shared out among the tasks."""
        names = list(objectives)
        point = objectives[names[0]].initial if weights is None else weights
        parts = [
            _Part(
                objectives[name],
                float(share),
                *self._draw(splits[name], point.device, i, len(names)),
                population=len(splits[name]),
            )
            for i, (name, share) in enumerate(zip(names, goal_weights(names, task_weights), strict=True))
        ]
        for part in parts:
            with torch.no_grad():
                require_finite_losses(part.objective.losses(point, part.few.inputs, part.few.labels))
        self._find_direction(parts, point, meter)
        self._measure(parts, point, meter)
        return self

    def _draw(self, split: Split, device: torch.device, i: int, tasks: int) -> tuple[Split, Split]:
        """Samples for the direction and, where the split holds enough, others for the curvature."""
        few, fresh = -(-self.num_direction_samples // tasks), -(-self.num_fresh_samples // tasks)
        both = draw_samples(split, few + fresh, self.random_state + i, device=device)
        require_samples(len(both), 2, "a curvature with an interval")
        few = min(few, max(1, len(both) // 2))
        return (
            Split(inputs=both.inputs[:few], labels=both.labels[:few]),
            Split(inputs=both.inputs[few:], labels=both.labels[few:]),
        )

    def _find_direction(self, parts: Sequence[_Part], point: Tensor, meter: CostMeter | None) -> None:
        start = random_direction(point, self.random_state)
        scored = all(hasattr(part.objective, "logits") for part in parts)
        self._gauss_newton: LanczosResult | None = None

        def gauss_newton(vector: Tensor) -> Tensor:
            terms = [
                part.share * gauss_newton_product(part.objective, point, part.few, vector, meter=meter)  # type: ignore[arg-type]
                for part in parts
            ]
            return torch.stack(terms).sum(0)

        def hessian(vector: Tensor) -> Tensor:
            terms = [
                part.share * hessian_product(part.objective, point, part.few, vector, meter=meter) for part in parts
            ]
            return torch.stack(terms).sum(0)

        if scored and self.gauss_newton_products > 0:
            found = top_eigenvalue(gauss_newton, start, max_products=self.gauss_newton_products, tolerance=1e-2)
            start = found.vector
            self._gauss_newton = found
        self.lanczos_ = top_eigenvalue(hessian, start, max_products=self.hessian_products, tolerance=1e-2)
        self.direction_ = self.lanczos_.vector

    def _measure(self, parts: Sequence[_Part], point: Tensor, meter: CostMeter | None) -> None:
        curvatures = [self._along(part, part.fresh, point, meter) for part in parts]
        self.sample_curvatures_ = np.concatenate(curvatures)
        pooled, squares = 0.0, 0.0
        remainder = self.lanczos_.value
        for part, values in zip(parts, curvatures, strict=True):
            own = self._along(part, part.few, point, meter)
            remainder -= part.share * float(own.mean())
            every = np.concatenate([values, own])
            pooled += part.share * float(every.mean())
            if len(every) > 1:
                low, high = mean_interval(every, population=part.population)
                squares += (part.share * (high - low) / 2) ** 2
        self.remainder_ = remainder
        self.estimate_ = self._estimate(pooled + remainder, squares**0.5, sum(len(part.few) for part in parts))
        self.gauss_newton_ = self._scaled_gauss_newton()
        which = int(np.argmax([values.max() for values in curvatures]))
        place = torch.tensor([int(np.argmax(curvatures[which]))])
        self.sample_smoothness_ = sharpest_sample(
            parts[which].objective,
            point,
            parts[which].fresh.take(place),
            self.direction_,
            len(self.sample_curvatures_),
            meter,
        )

    def _along(self, part: _Part, samples: Split, point: Tensor, meter: CostMeter | None) -> NDArray[np.float64]:
        if self._gauss_newton is None:
            return hessian_curvatures(part.objective, point, samples, self.direction_, meter=meter)
        scored = cast(LogitObjective, part.objective)
        return gauss_newton_curvatures(scored, point, samples, self.direction_, meter=meter)

    def _estimate(self, value: float, half: float, few: int) -> Estimate:
        found = self.lanczos_
        count = len(self.sample_curvatures_)
        residual = found.residual * min(1.0, abs(value) / abs(found.value)) if found.value else 0.0
        if value > 0:  # single samples' curvatures are skewed: symmetric in the logarithm
            relative = half / value
            low, high = value * float(np.exp(-relative)), value * float(np.exp(relative)) + residual
        else:
            low, high = value - half, value + half + residual
        note = f"direction from {few} samples, residual {found.residual:.3g}; curvature from {count} others"
        return Estimate(
            value=value,
            low=min(low, value),
            high=max(high, value),
            num_samples=count + few,
            identifiable=low > 0 and high <= IDENTIFIABLE_RATIO * low,
            note=note if value > 0 else f"no positive curvature was found; {note}",
        )

    def _scaled_gauss_newton(self) -> Estimate | None:
        found, hessian = self._gauss_newton, self.lanczos_.value
        if found is None or not (hessian > 0 and found.value > 0 and self.estimate_.value > 0):
            return None
        ratio = found.value / hessian
        return Estimate(
            value=self.estimate_.value * ratio,
            low=self.estimate_.low * ratio,
            high=(self.estimate_.high + found.residual / ratio) * ratio,
            num_samples=self.estimate_.num_samples,
            identifiable=self.estimate_.identifiable,
            note=f"{ratio:.3g} times the Hessian's on the same samples, residual {found.residual:.3g}",
        )


def sharpest_sample(
    objective: Objective, point: Tensor, sample: Split, direction: Tensor, met: int, meter: CostMeter | None
) -> Estimate:
    """Lanczos on the one sample, of ``met``, that is sharpest along a direction; the supremum is at least that."""
    found = top_eigenvalue(
        lambda vector: hessian_product(objective, point, sample, vector, meter=meter),
        direction,
        max_products=SHARPEST_PRODUCTS,
        tolerance=1e-2,
    )
    return Estimate(
        value=found.value,
        low=found.value,
        high=found.value + found.residual,
        num_samples=met,
        cost=4.0 * found.products,
        identifiable=False,
        note=f"largest among {met} samples at this point: L itself is at least this",
    )


class _Part:
    """One task's share of the goal, with its samples."""

    def __init__(self, objective: Objective, share: float, few: Split, fresh: Split, *, population: int) -> None:
        self.objective, self.share, self.few, self.fresh, self.population = objective, share, few, fresh, population
