r"""Figure 2: whether intervals hold what is measured, and how wide they are.

- coverage: share of rows whose measured test goal lies in the 90 % interval
- width: median of (high - low) / (x_0 - best) in the useful region, both on test samples
- interval score: Gneiting & Raftery 2007 on log risk, width + (2/alpha) times how far outside; lower is better.  Beside
  it that of the best constant-width interval, which is told the coverage it must reach
- log error: mean |log predicted/measured| in the useful region
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite_format import FloatArray

ALPHA = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Calibration over finite rows; see the module."""

    coverage: float
    useful_coverage: float
    width: float
    score: float
    constant_score: float
    log_error: float
    rows: int


def calibrate(
    predicted: FloatArray,
    low: FloatArray,
    high: FloatArray,
    measured: FloatArray,
    useful: NDArray[np.bool_],
    *,
    gain: float,
) -> Calibration:
    """Calibration of M predictions; rows with an infinite measured risk are left out.

    Args:
        predicted: [M].
        low: [M] lower ends.
        high: [M] upper ends.
        measured: [M] test goal.
        useful: [M] better than x_0.
        gain: x_0 - best, nats; the unit of the width.
    """
    finite = np.isfinite(measured)
    predicted, low, high, measured = (values[finite] for values in (predicted, low, high, measured))
    useful = useful[finite]
    if not finite.any():
        nan = math.nan
        return Calibration(
            coverage=nan, useful_coverage=nan, width=nan, score=nan, constant_score=nan, log_error=nan, rows=0
        )
    holds = (low <= measured) & (measured <= high)
    residual = np.log(measured) - np.log(predicted)
    half = float(np.quantile(np.abs(residual), 1 - ALPHA))
    return Calibration(
        coverage=float(holds.mean()),
        useful_coverage=float(holds[useful].mean()) if useful.any() else math.nan,
        width=float(np.median(high[useful] - low[useful]) / gain) if useful.any() and gain > 0 else math.nan,
        score=float(interval_score(np.log(low), np.log(high), np.log(measured)).mean()),
        constant_score=float(
            interval_score(np.log(predicted) - half, np.log(predicted) + half, np.log(measured)).mean()
        ),
        log_error=float(np.abs(residual[useful]).mean()) if useful.any() else math.nan,
        rows=int(finite.sum()),
    )


def interval_score(low: FloatArray, high: FloatArray, value: FloatArray, alpha: float = ALPHA) -> FloatArray:
    """The interval score of each row; lower is better.

    >>> interval_score(np.array([0.0]), np.array([1.0]), np.array([1.5]), alpha=0.5).tolist()
    [3.0]
    """
    outside = np.maximum(low - value, 0.0) + np.maximum(value - high, 0.0)
    return np.asarray(high - low + 2.0 / alpha * outside)
