r"""Luck: by which factor a run's interference differs from what its recipe lets expect.

Merges of one run share its luck, at every coefficient and nearly at every checkpoint.  The factor is exp(l) on the
whole interference Q of ``advisor.risk_form``,

    l_run = g(recipe) + o_run
    g: smooth over recipes, normal with covariance SMOOTH^2 exp(-|x - x'|^2/2)   where the form is systematically off
    o: the run's own, heavy-tailed with scale OWN                                noise of training, a jump over the edge

x holds log rate, log batch size, log steps and whether there is momentum, each over its length.  A plan is predicted
with the conditional mean of g and with o of a probe of (almost) the same recipe; the rest is spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from advisor.exposure import Exposure
from advisor.plan import FloatArray

SMOOTH = 0.18
OWN = 0.2
TAIL = 1.5  # own luck beyond so many scales is hardly less likely: jumps happen
LENGTHS = np.array([0.8, 1.4, 3.0, 1.0])  # log rate, log batch size, log steps, momentum
OWN_LENGTHS = np.array([0.3, 0.5, 3.0, 0.3])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunLuck:
    """Luck of the probes of one family, and what it says of other recipes.

    Attributes:
        places: [R, 4] recipes of the probe runs, :func:`places_of`.
        smooth: [R] g at the probes.
        own: [R] o of the probes.
    """

    places: FloatArray
    smooth: FloatArray
    own: FloatArray

    def at(self, exposure: Exposure) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the luck of plans, [M] each."""
        where = places_of(exposure)
        covariance = SMOOTH**2 * alike(self.places, self.places, LENGTHS) + 1e-6 * np.eye(len(self.places))
        cross = SMOOTH**2 * alike(where, self.places, LENGTHS)
        known = np.sum(np.linalg.solve(covariance, cross.T).T * cross, axis=1)
        same = alike(where, self.places, OWN_LENGTHS)
        spread = SMOOTH**2 - np.minimum(known, SMOOTH**2) + OWN**2 * (1 - np.max(same, axis=1) ** 2)
        # A rate above all probed ones is no luckier than the highest of them: bad luck does not fade upwards.
        held = where.copy()
        held[:, 0] = np.minimum(where[:, 0], self.places[:, 0].max())
        gain = np.linalg.solve(covariance, SMOOTH**2 * alike(held, self.places, LENGTHS).T).T
        same = alike(held, self.places, OWN_LENGTHS)
        share = same / np.maximum(1.0, same.sum(axis=1, keepdims=True))
        return gain @ self.smooth + share @ self.own, np.sqrt(np.maximum(spread, 0.0))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name).tolist() for name in ("places", "smooth", "own")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunLuck:
        """The inverse of :meth:`to_json`."""
        return cls(**{name: np.array(data[name], dtype=float) for name in ("places", "smooth", "own")})


def places_of(exposure: Exposure) -> FloatArray:
    """Recipes as points [M, 4]: means over the merged experts (over all, if none is merged)."""
    weight = (exposure.coefficients > 0).astype(float)
    weight[weight.sum(axis=1) == 0] = 1.0
    weight /= weight.sum(axis=1, keepdims=True)
    columns = (np.log(exposure.rate), np.log(exposure.batch_size), np.log(exposure.steps), exposure.momentum > 0)
    return np.stack([np.sum(weight * column, axis=1) for column in columns], axis=1)


def alike(first: FloatArray, second: FloatArray, lengths: FloatArray) -> FloatArray:
    """exp(-|x - x'|^2/2) of points in units of ``lengths``, [first, second]."""
    difference = (first[:, None, :] - second[None, :, :]) / lengths
    return np.asarray(np.exp(-0.5 * np.sum(difference**2, axis=2)))


def smooth_root(places: FloatArray) -> FloatArray:
    """Square root [R, R] of the covariance of g at the probes."""
    covariance = SMOOTH**2 * alike(places, places, LENGTHS) + 1e-6 * np.eye(len(places))
    return np.asarray(np.linalg.cholesky(covariance))
