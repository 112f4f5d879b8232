r"""Intervals of 90 % for means, variances and squared lengths of noisy vectors.

Squared length.  v = theta^(1/2) u + xi with E xi = 0, Cov xi = S.  T = ||v||^2 - tr S estimates theta without bias and

    T = theta + 2 theta^(1/2) <u, xi> + (||xi||^2 - tr S),
    Var T = 4 theta rho + 2 tr S^2,   rho = u^T S u,

the last part behaving like (tr S/d)(chi^2_d - d) with d = (tr S)^2 / tr S^2 effective dimensions.  The interval holds
every theta >= 0 whose 5 % and 95 % quantiles of T enclose the T observed: a parametric bootstrap, inverted as a test,
because the naive bootstrap is inconsistent at theta = 0, where the statistic degenerates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE = 0.90
DRAWS = 4000


def mean_interval(values: NDArray[np.float64], *, population: float = np.inf) -> tuple[float, float]:
    """Student t interval of a mean of draws without replacement from ``population`` values.

    >>> low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 3), round(high, 3)
    (0.314, 3.686)
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"values of length {count} give no interval; pass at least two")
    spread = float(np.std(values, ddof=1)) * np.sqrt(max(0.0, 1 - count / population) / count)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * spread
    mean = float(np.mean(values))
    return mean - half, mean + half


def positive_mean_interval(
    values: NDArray[np.float64], *, population: float = np.inf, centre: float | None = None
) -> tuple[float, float]:
    """The same on a logarithmic scale, for non-negative skewed values; ``centre`` replaces their average."""
    middle = float(np.mean(values)) if centre is None else centre
    if middle <= 0:
        return min(middle, 0.0), max(middle, 0.0)
    low, high = mean_interval(values, population=population)
    half = (high - low) / 2 / middle
    return middle * float(np.exp(-half)), middle * float(np.exp(half))


LARGEST_RELATIVE_ERROR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseOfMean:
    """The noise S of a mean vector as far as its squared length needs it.

    Attributes:
        trace: tr S.
        trace_square: tr S^2.
        along: rho, noise variance along the true vector.
    """

    trace: float
    trace_square: float
    along: float


def squared_length_interval(estimate: float, noise: NoiseOfMean, *, relative_error: float = 0.0) -> tuple[float, float]:
    """90 % interval of theta given the unbiased T; ``relative_error`` adds a noise proportional to theta."""
    # Beyond 1/1.645 = 0.61 the 5 % quantile of theta (1 + e z) never rises with theta and no upper end exists.
    relative_error = min(relative_error, LARGEST_RELATIVE_ERROR)
    scale = max(abs(estimate), np.sqrt(2 * max(noise.trace_square, 0.0)), noise.along)
    if scale == 0:
        return 0.0, 0.0
    rng = np.random.default_rng(0)  # common random numbers: the interval is a function of the data
    normal, second = rng.standard_normal(DRAWS), rng.standard_normal(DRAWS)
    chi = np.zeros(DRAWS)
    if noise.trace_square > 0 and noise.trace > 0:
        dimensions = max(1.0, noise.trace**2 / noise.trace_square)
        chi = (2 * rng.standard_gamma(dimensions / 2, DRAWS) - dimensions) * np.sqrt(noise.trace_square / dimensions)

    def statistic(theta: float) -> NDArray[np.float64]:
        moved = theta * (1 + relative_error * second) + 2 * np.sqrt(theta * noise.along) * normal + chi
        return np.asarray(moved, dtype=np.float64)

    def largest_root(level: float) -> float:
        """The largest theta whose quantile ``level`` is the estimate; 0 if every theta's lies above it."""

        def excess(theta: float) -> float:
            return float(np.quantile(statistic(theta), level)) - estimate

        top = scale
        for _ in range(60):
            if excess(top) > 0:
                break
            top *= 2.0
        bottom = top
        while bottom > 1e-9 * scale and excess(bottom) > 0:
            bottom /= 1.25
        if excess(bottom) > 0:
            return 0.0
        return float(optimize.brentq(excess, bottom, min(top, bottom * 1.25), xtol=1e-9 * scale))

    return largest_root(0.5 + CONFIDENCE / 2), largest_root(0.5 - CONFIDENCE / 2)
