r"""How sure chosen coefficients are: the sampling error of a minimum, from the surrogate's curvature.

    goal(lambda) = sum_j p_j mean_s l_s(z_s(lambda)),     H = d2 goal / dlambda2,     g_s = dl_s / dlambda
    C = sum_j p_j^2 Cov(g_s) / n_j                        covariance of the goal's slope over draws of samples
    Cov(lambda) = H^-1 C H^-1                             sandwich formula
    E[goal on new samples] - goal on those that chose = tr(H^-1 C) = sum_j p_j b_j,   b_j = p_j tr(H^-1 Cov_j / n_j)

The last line is the optimism of a choice (Takeuchi's criterion); it is added to measured risks.  Derivatives are the
surrogate's, so no merge is measured for them.  H is floored at the curvature that the samples can resolve along each
eigenvector: directions in which the goal is flat get wide intervals, cut at the bounds.
Source: White 1982, Econometrica 50; Takeuchi 1976.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_evidence import Criterion
from advisor.coefficients_surrogate import Surrogate

FloatArray = NDArray[np.float64]
STEP = 0.02  # of coefficients, for differences of slopes
FLOOR = 1e-3  # of the largest curvature
NORMAL_90 = 1.645


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uncertainty:
    """Sampling error at a minimum.

    Attributes:
        errors: standard errors of the coefficients [D].
        optimism: task -> b_j, nats.
    """

    errors: FloatArray
    optimism: dict[str, float]

    def interval(self, row: FloatArray, low: float, high: float) -> tuple[FloatArray, FloatArray]:
        """90 % intervals [D] inside the bounds."""
        reach = NORMAL_90 * self.errors
        return np.clip(np.minimum(row - reach, row), low, high), np.clip(np.maximum(row + reach, row), low, high)


def sampling_error(surrogate: Surrogate, criterion: Criterion, row: FloatArray, free: FloatArray) -> Uncertainty:
    """Sandwich covariance of the coefficients that are not held at a bound.

    Args:
        surrogate: of the measured merges.
        criterion: the goal.
        row: the minimum [D].
        free: which coefficients are inside their bounds, 0 or 1 [D]; the optimism counts these alone.
    """
    size = len(row)
    hessian = np.stack([_slope(surrogate, criterion, row, k) for k in range(size)])
    hessian = (hessian + hessian.T) / 2
    shares = criterion.goal.shares
    covariances = {
        name: share**2 * cov
        for name, cov in slope_covariances(surrogate, criterion, row).items()
        if (share := shares[name]) >= 0
    }
    inverse = _inverse(hessian)
    kept = np.outer(free, free)
    inside = _inverse(hessian, free=free)
    total = sum(covariances.values(), np.zeros((size, size)))
    errors = np.sqrt(np.maximum(np.diag(inverse @ total @ inverse), 0.0))
    return Uncertainty(
        errors=errors,
        optimism={
            name: float(np.trace(inside @ (kept * cov))) / shares[name] if shares[name] > 0 else 0.0
            for name, cov in covariances.items()
        },
    )


def slope_covariances(surrogate: Surrogate, criterion: Criterion, row: FloatArray) -> dict[str, FloatArray]:
    """Cov(g_s)/n_j [D, D] of every task."""
    values, pull = surrogate.predict_with_slope(row)
    jacobian = _jacobian(surrogate, row)  # [S, D]
    found: dict[str, FloatArray] = {}
    start = 0
    for name, logits in criterion.split(values).items():
        n, classes = logits.shape
        part = jacobian[start : start + n * classes].reshape(n, classes, -1)
        start += n * classes
        slopes = n * np.einsum("sc,scd->sd", criterion.evidence[name].slope(logits), part)
        centred = slopes - slopes.mean(axis=0)
        found[name] = centred.T @ centred / (max(n - 1, 1) * n)
    return found


def _jacobian(surrogate: Surrogate, row: FloatArray) -> FloatArray:
    """Derivatives [S, D] of all values by the coefficients."""
    found = surrogate.weights.T @ surrogate.kernel_slopes(row)
    return np.asarray(found + surrogate.trend.T if len(surrogate.trend) else found)


def _slope(surrogate: Surrogate, criterion: Criterion, row: FloatArray, k: int) -> FloatArray:
    """Column k of the Hessian by a central difference of slopes."""
    ends = []
    for sign in (1.0, -1.0):
        moved = row.copy()
        moved[k] += sign * STEP
        values, pull = surrogate.predict_with_slope(moved)
        ends.append(pull(criterion.value_and_slope(values)[1]))
    return (ends[0] - ends[1]) / (2 * STEP)


def _inverse(hessian: FloatArray, *, free: FloatArray | None = None) -> FloatArray:
    """Inverse with floored eigenvalues; only among free coefficients where they are named."""
    if free is not None:
        chosen = np.flatnonzero(free)
        whole = np.zeros_like(hessian)
        if len(chosen):
            whole[np.ix_(chosen, chosen)] = _inverse(hessian[np.ix_(chosen, chosen)])
        return whole
    values, vectors = np.linalg.eigh(hessian)
    floored = np.maximum(values, max(FLOOR * float(np.abs(values).max()), 1e-12))
    return np.asarray((vectors / floored) @ vectors.T)
