r"""What the form leaves over at the measured merges, and how far it carries: a Gaussian process in log risk.

    log risk_j(plan) = log form_j(plan) + a(plan) r_j(plan),    r_j normal with covariance WIDTH^2 exp(-|x - x'|^2/2)

x holds log rate, log batch size, log steps, log coefficient and whether there is momentum, each over its length, so a
measured merge corrects plans like it and says little of plans several times longer; a = l/(l + 0.2) with l the largest
coefficient, since the risk at 0 is known.  This is what makes a few measured long merges sharpen the next advice
although the form is fitted with the scatter that it has over all its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from advisor.exposure import Exposure
from advisor.plan import FloatArray
from advisor.run_luck import alike, places_of

WIDTH = 0.06  # standard deviation of the leftover in log risk
NOISE = 0.01  # least standard deviation of a measured leftover
EXCESS = 0.3  # share of log(risk/initial risk) above 0 that is no signal: far above x_0 the form is coarse
STEEPEST = 5.0  # near the floor, log(risk - floor) moves at most so many times as fast as log risk
LENGTHS = np.array([0.7, 1.4, 0.9, 1.0, 0.6])  # log rate, log batch size, log steps, momentum, log coefficient


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residuals:
    """The process, conditioned on R measured merges.

    Attributes:
        places: [R, 5].
        weights: [R, N] of the conditional mean.
    """

    places: FloatArray
    weights: FloatArray

    @classmethod
    def fit(cls, exposure: Exposure, leftover: FloatArray, change: FloatArray, noise: FloatArray) -> Residuals:
        """Condition on measured leftovers.

        Args:
            exposure: of the R measured merges.
            leftover: [R, N] log(measured/form); NaN where a task was not evaluated.
            change: [R, N] measured log(risk/initial risk).
            noise: [R, N] standard error of ``leftover``.
        """
        places, share = where_of(exposure)
        covariance = WIDTH**2 * alike(places, places, LENGTHS) * np.outer(share, share)
        weights = np.zeros_like(leftover)
        for j in range(leftover.shape[1]):
            seen = np.flatnonzero(np.isfinite(leftover[:, j]))
            variance = noise[seen, j] ** 2 + NOISE**2 + (EXCESS * np.maximum(change[seen, j], 0.0)) ** 2
            matrix = covariance[np.ix_(seen, seen)] + np.diag(variance)
            weights[seen, j] = np.linalg.solve(matrix, leftover[seen, j])
        return cls(places=places, weights=share[:, None] * weights)

    def at(self, exposure: Exposure) -> FloatArray:
        """Correction of log risk, [M, N]."""
        places, share = where_of(exposure)
        return np.asarray(WIDTH**2 * share[:, None] * (alike(places, self.places, LENGTHS) @ self.weights))

    def correct(self, risk: FloatArray, floor: FloatArray, exposure: Exposure) -> FloatArray:
        """Corrected risks [..., M, N]; never below the floor, to first order by the factor exp(at)."""
        above = np.maximum(risk - floor, 1e-12)
        return np.asarray(floor + above * np.exp(self.at(exposure) * np.minimum(risk / above, STEEPEST)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"places": self.places.tolist(), "weights": self.weights.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Residuals:
        """The inverse of :meth:`to_json`."""
        return cls(places=np.array(data["places"]), weights=np.array(data["weights"]))


def where_of(exposure: Exposure) -> tuple[FloatArray, FloatArray]:
    """Points [M, 5] and shares a [M] of plans."""
    largest = exposure.coefficients.max(axis=1)
    points = np.concatenate([places_of(exposure), np.log(np.maximum(largest, 1e-6))[:, None]], axis=1)
    return points, largest / (largest + 0.2)
