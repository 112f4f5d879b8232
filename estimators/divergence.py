r"""When a training run counts as diverged: an outcome with a cause.

A run diverged if its loss is not finite, or stays above ``DIVERGENCE_MULTIPLE`` times max(first loss, 1 nat) for
``DIVERGENCE_PATIENCE`` steps in a row.  A transient jump above the stability edge is not divergence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIVERGENCE_MULTIPLE = 10.0
DIVERGENCE_PATIENCE = 25


def divergence(losses: NDArray[np.float64]) -> tuple[int, str] | None:
    """The step (from 1) at which a run counts as diverged and why, or ``None``.

    >>> divergence(np.array([1.0, 50.0, 0.9])) is None
    True
    >>> divergence(np.array([1.0, np.nan]))
    (2, 'loss became nan at step 2')
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    first_bad = int(bad[0]) + 1 if len(bad) else None
    limit = DIVERGENCE_MULTIPLE * max(float(losses[0]), 1.0)
    above = np.concatenate([[0], np.cumsum(losses > limit)])
    window = above[DIVERGENCE_PATIENCE:] - above[:-DIVERGENCE_PATIENCE] if len(losses) >= DIVERGENCE_PATIENCE else []
    stuck = np.flatnonzero(np.asarray(window) == DIVERGENCE_PATIENCE)
    if len(stuck) and (first_bad is None or int(stuck[0]) + DIVERGENCE_PATIENCE < first_bad):
        step = int(stuck[0]) + DIVERGENCE_PATIENCE
        return step, f"loss stayed above {limit:.3g} for {DIVERGENCE_PATIENCE} steps up to step {step}"
    return None if first_bad is None else (first_bad, f"loss became {losses[first_bad - 1]} at step {first_bad}")


class DivergenceWatch:
    """The same rule for R runs at once, fed step by step: says when none is worth going on with."""

    def __init__(self, count: int) -> None:
        self.steps_above = np.zeros(count, dtype=np.int64)
        self.given_up = np.zeros(count, dtype=bool)
        self.first: NDArray[np.float64] | None = None

    def see(self, losses: NDArray[np.float64]) -> None:
        """The losses [R] of the next step."""
        if self.first is None:
            self.first = losses
        limit = DIVERGENCE_MULTIPLE * np.maximum(self.first, 1.0)
        self.steps_above = np.where(losses > limit, self.steps_above + 1, 0)
        self.given_up |= ~np.isfinite(losses) | (self.steps_above >= DIVERGENCE_PATIENCE)

    @property
    def is_over(self) -> bool:
        """Whether every run diverged."""
        return bool(self.given_up.all())
