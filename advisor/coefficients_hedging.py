r"""Coefficients from weights that do not bet against the simple average more than weights can tell.

The prior risk R_kappa (``advisor.coefficients_prior``) has one number that weights do not show: kappa, how much one
task suffers from another's change.  The best guess is 80; problems whose weights look alike (the same norms, the same
cosines) lie between about 20, where the simple average is right, and 160.  Hence

    minimise R_kappa'(lambda)   over kappa' in [22, 80], the largest for which   R_22(lambda) <= R_22(average)

At the best guess where even a merge that stands interference well would lose nothing against the average; else as
far towards the best guess as it loses nothing.  R_22 of the path's points rises with kappa' beyond 22, so the end is
found by bisection; at kappa' = 22 the condition holds.

22 was chosen on 43 development merges (``benchmarks/develop_hedging.py``: seeds 100-110, four families, three kinds of
recipes): it is the most cautious of the values tried that still closed half of the gap to the best coefficients there
(0.55).  2 of the 43 merges lost more than half a point of accuracy against the average (0.8 each); with the best guess
alone 5 did (at most 2.2), and 0.86 of the gap was closed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_prior import HELP, INTERFERENCE, prior_coefficients, quadratic

FloatArray = NDArray[np.float64]
LEAST_INTERFERENCE = 22.0
HALVINGS = 30
NOTICEABLE = 0.02  # relative


def hedged_coefficients(
    gram: FloatArray,
    base_norm: float,
    *,
    bounds: tuple[float, float] = (0.0, 2.0),
    total: float | None = None,
    least: float = LEAST_INTERFERENCE,
) -> FloatArray:
    """Coefficients [N] of least prior risk that lose nothing against the average where interference is ``least``.

    Args:
        gram: inner products of the task vectors [N, N].
        base_norm: length of the base's weights.
        bounds: smallest and largest coefficient of the box.
        total: sum of the coefficients on the simplex; ``None`` for the box.
        least: the smallest interference that is guarded against.

    >>> far = hedged_coefficients(np.diag([9.0, 9.0]), 100.0)  # best guess 0.172, best at the least 0.431
    >>> far.round(3).tolist()
    [0.362, 0.362]
    """
    count = len(gram)
    low, high = (0.0, total) if total is not None else bounds
    average = np.clip(np.full(count, (total if total is not None else 1.0) / count), low, high)
    guess = prior_coefficients(gram, base_norm, bounds=bounds, total=total)
    matrix, pull = quadratic(gram, base_norm, least, HELP)

    def lost(row: FloatArray) -> float:
        """R_least(row) - R_least(average), from differences so that nothing cancels."""
        away = row - average
        return float(away @ matrix @ away / 2 + (matrix @ average - pull) @ away)

    if lost(guess) <= 0:
        return guess
    ends = [np.log(least), np.log(INTERFERENCE)]
    row = prior_coefficients(gram, base_norm, bounds=bounds, total=total, interference=least)
    for _ in range(HALVINGS):
        middle = sum(ends) / 2
        tried = prior_coefficients(gram, base_norm, bounds=bounds, total=total, interference=float(np.exp(middle)))
        held = lost(tried) <= 0
        ends[0 if held else 1] = middle
        row = tried if held else row
    return row


def describe_hedge(labels: tuple[str, ...], guess: FloatArray, chosen: FloatArray) -> tuple[str, ...]:
    """What the best guess would have been, in a sentence; nothing where it was chosen."""
    if np.allclose(guess, chosen, rtol=NOTICEABLE):
        return ()
    cells = ", ".join(f"{name} {value:.3g}" for name, value in zip(labels, guess, strict=True))
    return (
        f"Kept near the simple average on purpose; the best guess alone would be {cells}: better where the base is "
        "good at the tasks already, worse where it is not. A few measured merges decide it (--data).",
    )
