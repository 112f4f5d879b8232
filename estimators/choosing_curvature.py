"""Which estimator of the top curvature suits what is known of the samples, for one task or for a goal of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from estimators.cost import CostMeter
from estimators.gradient_rows import GradientRows
from estimators.leading_curvature import LeadingCurvature
from estimators.objectives import ClassificationObjective
from estimators.sample_budget import SampleBudget
from estimators.sample_design import SampleKnowledge
from estimators.sampled_curvature import SampledTopCurvature
from estimators.tasks import Split


def fit_top_curvature(
    objectives: Mapping[str, ClassificationObjective],
    splits: Mapping[str, Split],
    rows: Mapping[str, GradientRows],
    knowledge: Mapping[str, SampleKnowledge | None],
    weights: Tensor | None,
    *,
    budget: SampleBudget,
    random_state: int,
    goal: Mapping[str, float] | None | Literal["one task"] = "one task",
    meter: CostMeter | None = None,
) -> LeadingCurvature | SampledTopCurvature:
    """Curvature of one task or, with ``goal`` weights (``None``: equal ones), of all of them together.

    From weighted gradient rows where every task has some that are not all zero, else from samples of its own.
    """
    count, weighing = len(objectives), None if goal == "one task" else goal
    alone = goal == "one task"
    drawn = {
        name: rows[name]
        for name in objectives
        if name in rows and rows[name].draw is not None and rows[name].squared_norms.any()
    }
    known = {name: item for name, item in knowledge.items() if item is not None}
    if all(name in drawn and name in known for name in objectives):
        leading = LeadingCurvature(
            num_leading=budget.leading_samples if alone else budget.goal_leading_samples * count,
            num_curved=budget.fresh_samples if alone else budget.goal_fresh_samples * count,
            num_exact=budget.exact_samples if alone else budget.goal_exact_samples * count,
            random_state=random_state,
        )
        return leading.fit_goal(objectives, splits, drawn, known, weights, task_weights=weighing, meter=meter)
    sampled = SampledTopCurvature(
        num_direction_samples=max(1, budget.direction_samples if alone else budget.goal_direction_samples * count),
        num_fresh_samples=budget.fresh_samples if alone else budget.goal_fresh_samples * count,
        random_state=random_state,
    )
    return sampled.fit_goal(objectives, splits, weights, task_weights=weighing, meter=meter)
