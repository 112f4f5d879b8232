r"""Intervals and tests of the judge.

Bootstrap: resample units (seeds of suites) with replacement and take percentiles.  Paired sign-flip test: under the
null a paired difference is as likely to be negative as positive, so p = share of sign assignments whose mean is at
least as large (all 2^n of them for n <= 14, else random ones).  Holm: step-down correction over arms tested together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.suite_format import FloatArray

DRAWS = 2000
LEVEL = 0.95


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[FloatArray], float] = lambda x: float(np.mean(x)),
    *,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """Value and percentile interval of a statistic of independent units; NaN units are left out and counted.

    >>> bootstrap([1.0, 1.0, 1.0])
    {'value': 1.0, 'low': 1.0, 'high': 1.0, 'units': 3}
    """
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if len(known) == 0:
        return {"value": None, "low": None, "high": None, "units": 0}
    generator = np.random.default_rng(seed)
    draws = [statistic(known[generator.integers(len(known), size=len(known))]) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {"value": float(statistic(known)), "low": float(low), "high": float(high), "units": len(known)}


def sign_flip(differences: Sequence[float], *, seed: int = 0) -> float:
    """One-sided p-value that the mean of paired differences is above 0.

    >>> sign_flip([1.0, 1.0, 1.0])
    0.125
    """
    values = np.array([value for value in differences if not math.isnan(value)], dtype=np.float64)
    if len(values) == 0:
        return 1.0
    if len(values) <= 14:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))
    else:
        signs = np.random.default_rng(seed).choice([1.0, -1.0], size=(20_000, len(values)))
        signs[0] = 1.0
    return float(np.mean((signs * values).mean(axis=1) >= values.mean() - 1e-12))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values.

    >>> holm({"a": 0.01, "b": 0.04})
    {'a': 0.02, 'b': 0.04}
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}
