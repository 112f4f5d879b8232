r"""Curvature v^T H v of a task's risk along one vector from a sample, with its scatter.

    v^T H v = mean of v^T G_z v over all samples (1 unit each) + mean of v^T (H - G) v over the first few (4 units each)

G is the Gauss-Newton matrix: its part carries most of the scatter between samples and is cheap, the rest scatters
little (a control variate).  Interval: Student's t of both parts, added in squares.  Samples drawn with unequal chances
are weighted by their inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from estimators.cost import CostMeter
from estimators.curvature import LogitObjective, gauss_newton_curvatures, hessian_curvatures
from estimators.intervals import mean_interval, weighted_mean
from estimators.objectives import Objective
from estimators.sample_design import WeightedDraw
from estimators.tasks import Split

LEAST_GROUPS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurvatureAlong:
    """v^T H v of a task's risk from a sample.

    Attributes:
        value: the mean.
        half: half the width of its 90 % interval.
        cost: units.
        num_samples: samples behind the Gauss-Newton part.
    """

    value: float
    half: float
    cost: float
    num_samples: int


def curvature_along(
    objective: Objective,
    weights: Tensor,
    samples: Split,
    vector: Tensor,
    *,
    num_exact: int,
    population: float,
    meter: CostMeter | None = None,
    draw: WeightedDraw | None = None,
) -> CurvatureAlong:
    """v^T H v of ``samples`` at ``weights``, second derivatives of the loss on the first ``num_exact`` of them alone.

    Objectives without logits take second derivatives on every sample.  ``draw`` tells how the samples were drawn, where
    their chances were unequal.
    """
    if not hasattr(objective, "logits"):
        values = hessian_curvatures(objective, weights, samples, vector, meter=meter)
        return CurvatureAlong(
            value=float(values.mean()),
            half=_half(values, population),
            cost=4.0 * len(samples),
            num_samples=len(samples),
        )
    scored = cast(LogitObjective, objective)
    smooth = gauss_newton_curvatures(scored, weights, samples, vector, meter=meter)
    count = max(1, min(num_exact, len(samples)))
    few = Split(inputs=samples.inputs[:count], labels=samples.labels[:count])
    size = max(1, count // LEAST_GROUPS) if draw is None else 1
    exact = hessian_curvatures(objective, weights, few, vector, group_size=size, meter=meter)
    groups = [smooth[start : min(start + size, count)].mean() for start in range(0, count, size)]
    rest = exact - np.array(groups)
    if draw is not None:
        value, half = weighted_mean(smooth, draw.chances, draw.population)
        left, left_half = weighted_mean(rest, draw.chances[:count] * count / len(samples), draw.population)
        return CurvatureAlong(
            value=value + left,
            half=float(np.hypot(half, left_half if count > 1 else abs(left))),
            cost=len(samples) + 4.0 * count,
            num_samples=len(samples),
        )
    half = _half(smooth, population) ** 2 + (_half(rest, np.inf) if len(rest) > 1 else abs(float(rest[0]))) ** 2
    lengths = np.array([min(start + size, count) - start for start in range(0, count, size)])
    return CurvatureAlong(
        value=float(smooth.mean() + (rest * lengths).sum() / count),
        half=float(half**0.5),
        cost=len(samples) + 4.0 * count,
        num_samples=len(samples),
    )


def _half(values: NDArray[np.float64], population: float) -> float:
    if len(values) < 2:
        return abs(float(values[0]))
    low, high = mean_interval(values, population=population)
    return (high - low) / 2
