r"""Intervals of 90 % for means, variances and squared lengths of noisy vectors.

Squared length.  v = theta^(1/2) u + xi with E xi = 0, Cov xi = S.  T = ||v||^2 - tr S estimates theta without bias and

    T = theta + 2 theta^(1/2) <u, xi> + (||xi||^2 - tr S),
    Var T = 4 theta rho + 2 tr S^2,   rho = u^T S u,

the last part behaving like (tr S/d)(chi^2_d - d) with d = (tr S)^2 / tr S^2 effective dimensions.  The interval holds
every theta >= 0 whose quantiles of T at levels a and a + 0.9 enclose the T observed: a parametric bootstrap, inverted
as a test, because the naive bootstrap is inconsistent at theta = 0, where the statistic degenerates.  a rises from 0
at theta = 0, where a low T speaks for no smaller theta, to 5 %: any such a(theta) keeps 90 %, and this one never leaves
the interval empty (Feldman & Cousins 1998).

Means.  Student's t with the degrees of freedom that a sample variance of kurtosis k really has, 2n/(k - 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from estimators.sample_design import hajek_deviations

CONFIDENCE = 0.90
DRAWS = 2000
STEP = 1.5  # of the search for the largest root
LEAST_FREEDOM = 4.0  # below, the kurtosis itself is not known
LARGEST_RELATIVE_ERROR = 0.5
BOUNDARY = 2.5  # standard deviations of T at theta = 0 from which on tails are equal


def mean_interval(values: NDArray[np.float64], *, population: float = np.inf) -> tuple[float, float]:
    """Student t interval of a mean of draws without replacement from ``population`` values.

    >>> low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 2), round(high, 2)
    (0.31, 3.69)
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"values of length {count} give no interval; pass at least two")
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    if not spread > 0:
        return mean, mean
    kurtosis = float(np.mean(((values - mean) / spread) ** 4))
    half = _half_width(spread * math.sqrt(max(0.0, 1 - count / population) / count), kurtosis, count)
    return mean - half, mean + half


def _half_width(error: float, kurtosis: float, count: int) -> float:
    """Half the t interval of a mean whose standard error was told by ``count`` values of that kurtosis."""
    kurtosis += max(0.0, kurtosis - 3) / 2  # small samples show too little of heavy tails
    freedom = min(count - 1.0, max(LEAST_FREEDOM, 2 * count / max(kurtosis - 1, 1e-9)))
    error *= 1 + max(0.0, kurtosis - 3) / (8 * count)
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error


def weighted_mean(values: NDArray[np.float64], chances: NDArray[np.float64], population: int) -> tuple[float, float]:
    """Horvitz and Thompson's mean of values [m] drawn with ``chances`` [m], and half its 90 % t interval.

    The error is Hajek's (``estimators.sample_design``).

    >>> weighted_mean(np.array([3.0, 1.0]), np.array([1.0, 1.0]), 2)
    (2.0, 0.0)
    """
    shares = values / chances / population
    deviations = hajek_deviations(shares, chances)
    square, count = float((deviations**2).sum()), len(deviations)
    if not square > 0:
        return float(shares.sum()), 0.0
    kurtosis = float((deviations**4).sum()) / square**2 * count
    return float(shares.sum()), _half_width(math.sqrt(square), kurtosis, count)


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
    scale = max(abs(estimate), math.sqrt(2 * max(noise.trace_square, 0.0)), noise.along)
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

    at_zero = math.sqrt(2 * max(noise.trace_square, 0.0))

    def largest_root(above: float) -> float:
        """The largest theta whose quantile at a(theta) + ``above`` is the estimate; 0 if all lie above it."""

        def excess(theta: float) -> float:
            tail = (1 - CONFIDENCE) / 2
            if theta < BOUNDARY * at_zero:
                tail *= theta / (BOUNDARY * at_zero)
            if above + tail < 1 / DRAWS:
                return -math.inf
            return float(np.quantile(statistic(theta), above + tail)) - estimate

        top = scale
        for _ in range(60):
            if excess(top) > 0:
                break
            top *= 2.0
        bottom = top
        while bottom > 1e-9 * scale and excess(bottom) > 0:
            bottom /= STEP
        if excess(bottom) > 0:
            return 0.0
        above_it = min(top, bottom * STEP)
        if excess(above_it) <= 0 or math.isinf(excess(bottom)):
            return above_it  # within a step of where the lower tail is empty
        return float(optimize.brentq(excess, bottom, above_it, xtol=1e-9 * scale))

    return largest_root(CONFIDENCE), largest_root(0.0)
