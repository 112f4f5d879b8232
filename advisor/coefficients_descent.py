"""Smooth minimisation over coefficients: L-BFGS-B in a box, SLSQP on the simplex (scipy's)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]
ValueAndSlope = Callable[[FloatArray], tuple[float, FloatArray]]


def descend(
    function: ValueAndSlope,
    start: FloatArray,
    bounds: Sequence[tuple[float, float]],
    *,
    total: float | None = None,
    max_steps: int = 60,
    tolerance: float | None = None,
) -> tuple[FloatArray, float]:
    """The lowest point that a descent from ``start`` finds, and its value.

    Args:
        function: coefficients [D] -> value and gradient [D].
        start: moved into the bounds first.
        bounds: ends of each coefficient.
        total: sum of the coefficients on the simplex; ``None`` for the box.
        max_steps: most iterations, and in the box most evaluations.
        tolerance: scipy's; ``None`` for its default.

    >>> row, _ = descend(lambda x: (float(((x - 2) ** 2).sum()), 2 * (x - 2)), np.zeros(2), [(0, 1), (0, 3)])
    >>> row.round(6).tolist()
    [1.0, 2.0]
    """
    inside = np.clip(start, [low for low, _ in bounds], [high for _, high in bounds])
    rules: dict[str, Any] = {"method": "L-BFGS-B", "options": {"maxiter": max_steps, "maxfun": max_steps}}
    if total is not None:
        keep = {"type": "eq", "fun": lambda row: row.sum() - total, "jac": np.ones_like}
        rules = {"method": "SLSQP", "options": {"maxiter": max_steps}, "constraints": [keep]}
    found: Any = minimize(function, inside, jac=True, bounds=list(bounds), tol=tolerance, **rules)
    return np.asarray(found.x, dtype=np.float64), float(found.fun)
