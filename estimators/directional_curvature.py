r"""Curvature of a task's risk along given directions: what an update, gradient noise, drift or another task meets.

    directional   v^T H v / ||v||^2                                   any vector: a task vector, an optimizer's update
    noise         E[xi^T H xi] / E ||xi||^2 = tr(H Sigma)/sigma^2     xi ~ gradient noise
    drift         R = G^T H G / ||G||^2,  G = grad F_i                with E g^T H g = G^T H G + tr(H Sigma)/m taken out
    relative      [j, i] = tau_i^T H_j tau_i / ||tau_i||^2            task j's curvature along task i's update

All loss/|x|^2, with v^T H v as in ``estimators.curvature_along``.  Relative critical sharpness: arXiv 2601.16979.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate, Matrix
from estimators.cost import CostMeter
from estimators.curvature import hessian_product
from estimators.curvature_along import curvature_along
from estimators.gradient_rows import GradientRows, Sketch, draw_samples
from estimators.intervals import mean_interval
from estimators.objectives import Objective
from estimators.outcomes import LostInNoise, require_samples
from estimators.sample_design import SampleKnowledge, WeightedDraw, draw_weighted
from estimators.tasks import Split


class DirectionalCurvature(BaseEstimator):  # type: ignore[misc]
    """v^T H v / ||v||^2 of a task's risk along one vector.

    Args:
        num_samples: samples that the curvature is averaged over.
        num_exact: how many of them take second derivatives of the loss; the others the Gauss-Newton part.
        random_state: seed of the draw.

    Attributes:
        estimate_: the curvature with its t interval.
    """

    estimate_: Estimate

    def __init__(self, *, num_samples: int = 64, num_exact: int = 8, random_state: int = 0) -> None:
        self.num_samples = num_samples
        self.num_exact = num_exact
        self.random_state = random_state

    def fit(
        self,
        objective: Objective,
        split: Split,
        vector: Tensor,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
        knowledge: SampleKnowledge | None = None,
    ) -> DirectionalCurvature:
        """Measure along ``vector`` [D] at ``weights`` (default x_0)."""
        point = objective.initial if weights is None else weights
        unit = _unit(vector)
        samples, draw = _drawn(split, knowledge, self.num_samples, self.random_state, point)
        require_samples(len(samples), 2, "a curvature with an interval")
        found = curvature_along(
            objective, point, samples, unit, num_exact=self.num_exact, population=len(split), meter=meter, draw=draw
        )
        known = abs(found.value) > found.half
        self.estimate_ = Estimate(
            value=found.value,
            low=found.value - found.half,
            high=found.value + found.half,
            num_samples=found.num_samples,
            cost=found.cost,
            identifiable=known,
            note="" if known else "the sign is not to be told with these samples",
        )
        return self


class NoiseCurvature(BaseEstimator):  # type: ignore[misc]
    """tr(H Sigma)/sigma^2 from draws of the gradient noise, taken in one by one.

    Pass :meth:`observe` as ``on_batch`` to ``GradientVariance.fit``: every draw is used and dropped.

    Args:
        num_directions: draws of the noise to use at most.
        num_samples: samples that each draw's curvature is averaged over.
        num_exact: how many of them take second derivatives of the loss.
        random_state: seed of the draws.

    Attributes:
        estimate_: ratio of means with a jackknife t interval over the draws.
        forms_: xi^T H xi of each draw [R].
        squares_: ||xi||^2 of each draw [R].
    """

    estimate_: Estimate
    forms_: NDArray[np.float64]
    squares_: NDArray[np.float64]

    def __init__(
        self, *, num_directions: int = 12, num_samples: int = 8, num_exact: int = 2, random_state: int = 0
    ) -> None:
        self.num_directions = num_directions
        self.num_samples = num_samples
        self.num_exact = num_exact
        self.random_state = random_state

    def start(
        self,
        objective: Objective,
        split: Split,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
        knowledge: SampleKnowledge | None = None,
    ) -> NoiseCurvature:
        """Remember where the curvature is to be taken."""
        self._place = (objective, split, objective.initial if weights is None else weights, meter, knowledge)
        self._draws: list[tuple[float, float]] = []
        self._cost = 0.0
        return self

    def observe(self, noise: Tensor) -> None:
        """Take in one draw of the gradient noise [D], until ``num_directions`` are seen."""
        if len(self._draws) >= self.num_directions:
            return
        objective, split, point, meter, knowledge = self._place
        square = float(noise.cpu().double().square().sum())
        form = 0.0
        if square > 0:
            seed = self.random_state + len(self._draws)
            samples, draw = _drawn(split, knowledge, self.num_samples, seed, point)
            unit = noise / square**0.5
            found = curvature_along(
                objective, point, samples, unit, num_exact=self.num_exact, population=len(split), meter=meter, draw=draw
            )
            form = square * found.value
            self._cost += found.cost
        self._draws.append((form, square))

    def finish(self) -> NoiseCurvature:
        """Compute the estimate from what was observed."""
        require_samples(len(self._draws), 2, "the curvature seen by noise (draws)")
        self.forms_, self.squares_ = (np.array(column) for column in zip(*self._draws, strict=True))
        count = len(self.forms_)
        cost = self._cost
        if not self.squares_.sum() > 0:
            note = "there is no gradient noise: every gradient is the same"
            self.estimate_ = Estimate(value=0.0, low=0.0, high=0.0, cost=cost, identifiable=False, note=note)
            return self
        value = float(self.forms_.sum() / self.squares_.sum())
        left_out = (self.forms_.sum() - self.forms_) / (self.squares_.sum() - self.squares_)
        low, high = mean_interval(count * value - (count - 1) * left_out)
        half = (high - low) / 2
        if value > 0:  # forms are skewed: symmetric in the logarithm
            low, high = value * float(np.exp(-half / value)), value * float(np.exp(half / value))
        self.estimate_ = Estimate(
            value=value,
            low=min(low, value),
            high=max(high, value),
            num_samples=count * self.num_samples,
            cost=cost,
            identifiable=low > 0 and high <= 3 * low,
        )
        return self


class DriftCurvature(BaseEstimator):  # type: ignore[misc]
    """G^T H G/||G||^2 along the true mean gradient, the noise of the measured one taken out.

    The gradient's own noise moves numerator and denominator together: 2 <xi, (H - R) G>/||G||^2 to first order, taken
    from a product H g on a few samples and the sketched rows.

    Args:
        num_samples: samples that the curvature is averaged over.
        num_exact: how many of them take second derivatives and the product H g of the interval.
        random_state: seed of the draw.

    Attributes:
        estimate_: the curvature.
    """

    estimate_: Estimate

    def __init__(self, *, num_samples: int = 32, num_exact: int = 8, random_state: int = 0) -> None:
        self.num_samples = num_samples
        self.num_exact = num_exact
        self.random_state = random_state

    def fit(
        self,
        objective: Objective,
        split: Split,
        gradients: GradientRows,
        squared_norm: Estimate,
        noise_curvature: Estimate,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
        knowledge: SampleKnowledge | None = None,
    ) -> DriftCurvature:
        """Measure from gradient rows, the estimate of ||G||^2 and the curvature seen by noise.

        Raises:
            LostInNoise: if ||G||^2 is not identified, so that there is no direction to look along.
        """
        if not squared_norm.identifiable:
            raise LostInNoise(
                f"squared_norm={squared_norm.describe()}: the mean gradient cannot be told from its noise; "
                "take more gradients, or measure along a probe's update"
            )
        along = DirectionalCurvature(
            num_samples=self.num_samples, num_exact=self.num_exact, random_state=self.random_state
        )
        mean_square = float(gradients.mean.cpu().double().square().sum())
        measured = along.fit(objective, split, gradients.mean, weights, meter=meter, knowledge=knowledge).estimate_
        noise = gradients.noise_trace()
        few = draw_samples(split, self.num_exact, self.random_state, device=gradients.mean.device)
        point = objective.initial if weights is None else weights
        image = hessian_product(objective, point, few, gradients.mean, meter=meter)
        self.estimate_ = _drift(measured, mean_square, noise, noise_curvature, squared_norm, gradients, image)
        return self


class RelativeSharpness(BaseEstimator):  # type: ignore[misc]
    """Curvature of every task's risk along every other task's update, N x N.

    Args:
        num_samples: samples of each task that a cell is averaged over.
        num_exact: how many of them take second derivatives of the loss.
        random_state: seed of the draw.

    Attributes:
        matrix_: row j, column i: task j's curvature along task i's update.
    """

    matrix_: Matrix

    def __init__(self, *, num_samples: int = 16, num_exact: int = 2, random_state: int = 0) -> None:
        self.num_samples = num_samples
        self.num_exact = num_exact
        self.random_state = random_state

    def fit(
        self,
        objectives: Mapping[str, Objective],
        splits: Mapping[str, Split],
        vectors: Mapping[str, Tensor],
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
        knowledge: Mapping[str, SampleKnowledge | None] | None = None,
    ) -> RelativeSharpness:
        """Measure along one update or task vector [D] a task."""
        if list(vectors) != list(objectives):
            raise ValueError(f"vectors of {list(vectors)} must belong to the tasks {list(objectives)} in their order")
        cell = DirectionalCurvature(
            num_samples=self.num_samples, num_exact=self.num_exact, random_state=self.random_state
        )
        self.matrix_ = tuple(
            tuple(
                cell.fit(
                    objective, splits[name], vector, weights, meter=meter, knowledge=(knowledge or {}).get(name)
                ).estimate_
                for vector in vectors.values()
            )
            for name, objective in objectives.items()
        )
        return self


def _drift(
    measured: Estimate,
    mean_square: float,
    noise: float,
    curvature: Estimate,
    squared_norm: Estimate,
    gradients: GradientRows,
    image: Tensor,
) -> Estimate:
    """(g^T H g - c tr S)/||G||^2 with c the curvature seen by noise; independent errors are added in squares."""
    norm = squared_norm.value
    value = (measured.value * mean_square - curvature.value * noise) / norm
    sketch = Sketch(image.numel())
    both = sketch(torch.stack([image, gradients.mean])).cpu().double()
    spread = 2 * float((gradients.noise_rows() @ (both[0] - value * both[1])).norm())
    errors = np.array(
        [
            (measured.high - measured.low) / 2 * mean_square,
            (curvature.high - curvature.low) / 2 * noise,
            1.645 * spread,
        ]
    )
    half = float(np.sqrt((errors**2).sum())) / norm
    identifiable = squared_norm.identifiable and abs(value) > half
    note = "" if identifiable else "the mean gradient is lost in its noise; take more samples or use a probe's update"
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        num_samples=measured.num_samples,
        cost=measured.cost,
        identifiable=identifiable,
        note=note,
    )


def _drawn(
    split: Split, knowledge: SampleKnowledge | None, count: int, seed: int, point: Tensor
) -> tuple[Split, WeightedDraw | None]:
    """Samples for a curvature; with chances in proportion to what their losses curve, where that is known."""
    if knowledge is None:
        return draw_samples(split, count, seed, device=point.device), None
    draw = draw_weighted(knowledge.curvature_sizes, count, seed)
    return split.take(draw.places).to(point.device), draw


def _unit(vector: Tensor) -> Tensor:
    norm = float(torch.linalg.vector_norm(vector))
    if not norm > 0:
        raise ValueError("vector=0 has no direction; pass an update that moved")
    return vector / norm
