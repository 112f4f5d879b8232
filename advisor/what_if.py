r"""Questions to a fitted risk model around one plan: what if the rate, the batch, the steps, the data ... were another?

Every answer is a ``Predicted`` goal risk in nats with its 90 % interval; nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from advisor.advice import Predicted
from advisor.goal import Goal, interval
from advisor.plan import Plan, PlanTable
from advisor.risk_model import RiskModel, RiskPrediction
from estimators.recipe import Recipe

STEP_GRID = 1.25  # ratio between neighbouring step counts when a turning point is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Asks a fitted model about plans, under a project's goal.

    Attributes:
        model: a fitted risk model.
        goal: the project's goal.
    """

    model: RiskModel
    goal: Goal

    def predict(self, plans: PlanTable | Sequence[Plan]) -> RiskPrediction:
        """Task risks with intervals."""
        return self.model.predict(plans, return_interval=True)

    def goals(self, plans: PlanTable | Sequence[Plan]) -> list[Predicted]:
        """Predicted goal risk of each plan."""
        p = self.predict(plans)
        values, lows, highs = self.goal.predicted(
            p.task_risk, p.task_low, p.task_high, (p.goal, p.goal_low, p.goal_high)
        )
        return [interval(*cell) for cell in zip(values, lows, highs, strict=True)]

    def gain(self, plan: Plan) -> Predicted:
        """Predicted fall of the goal risk below x_0, nats.

        For the mean goal the interval leaves out the error of x_0's own measured risk, which merge and x_0 share.
        """
        p = self.predict([plan])
        start = float(self.goal.of_array(p.initial_risk[None])[0])
        if self.goal.kind == "mean":
            return interval(start - p.goal[0], start * (1 - p.relative_high[0]), start * (1 - p.relative_low[0]))
        goal = self.goals([plan])[0]
        return interval(start - goal.value, start - goal.high, start - goal.low)

    def tasks(self, plan: Plan) -> dict[str, Predicted]:
        """Predicted risk of every task under one plan."""
        p = self.predict([plan])
        return {
            name: interval(p.task_risk[0, j], p.task_low[0, j], p.task_high[0, j]) for j, name in enumerate(p.names)
        }

    def expert_gain(self, plan: Plan) -> float:
        """Goal-weighted predicted gain of each expert alone on its own task (coefficient 1), nats."""
        names = plan.names
        alone = [
            dataclasses.replace(plan, coefficients={n: float(n == name) for n in names}, method="task_arithmetic")
            for name in names
        ]
        p = self.model.predict(alone)
        gains = {n: p.initial_risk[p.names.index(n)] - p.task_risk[i, p.names.index(n)] for i, n in enumerate(names)}
        return float(sum(self.goal.shares[name] * max(gain, 0.0) for name, gain in gains.items()))

    def turning_point(self, plan: Plan, *, longest: int) -> int | None:
        """Steps of the lowest predicted goal, coefficients fixed; ``None`` if it still falls at ``longest``."""
        shortest = 5
        count = max(2, round(np.log(longest / shortest) / np.log(STEP_GRID)) + 1)
        grid = sorted({round(k) for k in np.geomspace(shortest, longest, count)})
        values = [answer.value for answer in self.goals([with_recipes(plan, steps=k) for k in grid])]
        best = int(np.argmin(values))
        return None if best == len(grid) - 1 else grid[best]


def with_recipes(plan: Plan, **changes: object) -> Plan:
    """The same plan with some fields of every recipe changed."""
    return dataclasses.replace(plan, recipes={name: r.replace(**changes) for name, r in plan.recipes.items()})


def map_recipes(plan: Plan, change: Callable[[str, Recipe], Recipe]) -> Plan:
    """The same plan with every recipe put through ``change(task, recipe)``."""
    return dataclasses.replace(plan, recipes={name: change(name, r) for name, r in plan.recipes.items()})


def with_coefficients(plan: Plan, coefficients: Mapping[str, float] | float) -> Plan:
    """The same recipes merged with other coefficients."""
    values = (
        {name: float(coefficients[name]) for name in plan.names}
        if isinstance(coefficients, Mapping)
        else dict.fromkeys(plan.names, float(coefficients))
    )
    return dataclasses.replace(plan, coefficients=values)
