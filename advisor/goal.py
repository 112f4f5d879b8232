r"""The goal: what makes one merged model better than another.

    mean    goal = sum_i p_i r_i,   p_i = w_i / sum w
    worst   goal = max_i r_i over the tasks with w_i > 0

``max_drop`` forbids a plan whose predicted risk of any task exceeds that of x_0 by more than so many nats; the
violation max_i (r_i - r0_i - max_drop) is a constraint of the search, never a failed trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from advisor.advice import Predicted
from advisor.plan import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal over N tasks.

    Attributes:
        weights: task -> w_i >= 0, at least one positive.
        kind: ``mean`` or ``worst``.
        max_drop: nats that no task may lose against x_0, or ``None``.
    """

    weights: Mapping[str, float]
    kind: Literal["mean", "worst"] = "mean"
    max_drop: float | None = None

    def __post_init__(self) -> None:
        """Check the weights."""
        for name, value in self.weights.items():
            if not (value >= 0 and np.isfinite(value)):
                raise ValueError(f"weight of {name}={value} must be at least 0 and finite; give 0 to ignore the task")
        if not sum(self.weights.values()) > 0:
            raise ValueError(f"weights={dict(self.weights)} must not all be zero; give one task a positive weight")
        if self.kind not in ("mean", "worst"):
            raise ValueError(f"kind={self.kind!r} must be mean or worst; choose one of them")

    @property
    def shares(self) -> dict[str, float]:
        """p_i, summing to one."""
        total = sum(self.weights.values())
        return {name: value / total for name, value in self.weights.items()}

    def of(self, risks: Mapping[str, float]) -> float:
        """The goal risk of measured task risks (every weighted task must be there)."""
        return float(self.of_array(np.array([[risks[name] for name in self.weights]]))[0])

    def of_array(self, risks: FloatArray) -> FloatArray:
        """The goal [M] of task risks [M, N] in the order of the weights."""
        shares = np.array(list(self.shares.values()))
        if self.kind == "worst":
            return np.asarray(np.where(shares > 0, risks, -np.inf).max(axis=1))
        # a task of weight 0 does not count, however far it is lost: 0 * inf would be NaN
        return np.asarray(risks[:, shares > 0] @ shares[shares > 0])

    def violation(self, risks: FloatArray, initial: FloatArray) -> FloatArray:
        """How far each plan breaks ``max_drop``, [M]; <= 0 where it does not."""
        if self.max_drop is None:
            return np.full(len(risks), -1.0)
        return np.asarray((risks - initial - self.max_drop).max(axis=1))

    def predicted(
        self, task_risk: FloatArray, low: FloatArray, high: FloatArray, mean: tuple[FloatArray, FloatArray, FloatArray]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Goal with interval [M] from task predictions [M, N].

        For the mean, the risk model's own goal interval (tasks' errors are correlated) is passed through ``mean``; for
        the worst task the ends are the largest ends, which is on the safe side above and below.
        """
        if self.kind == "mean":
            return mean
        return self.of_array(task_risk), self.of_array(low), self.of_array(high)


def interval(value: float, low: float, high: float) -> Predicted:
    """A ``Predicted`` from model output; rounding can put the value an ulp outside, so the ends are widened to it."""
    return Predicted(value=float(value), low=float(min(low, value)), high=float(max(high, value)))
