r"""The study behind an advice: the project's search space, and the fitted model as the study's risk.

``studies`` knows plain parameters only; here they become plans, and predictions become ``RiskBatch``.

A search over many plans finds those that the model is most wrong about, in the directions that probes measured least:
unequal coefficients, other merge methods, rates and batch sizes that no probe had.  So plans are ranked by a cautious
goal,

    goal (1 + SPREAD_PRICE chi^2 + METHOD_PRICE [method is not the linear merge] + UNTRIED_PRICE u)

with chi^2 = sum_i (w_i - p_i)^2 / p_i, w_i = T_i/T the experts' shares of progress and p_i the goal weights
(``docs/theory.md`` section 1; here relative to p, so that an expert left out costs a finite price), and u the distance
beyond the probed rates and batch sizes in log units.  Steps beyond the probes cost nothing: predicting longer runs is
what the model is for.  What is reported is the prediction itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.plan import FloatArray, Plan, PlanTable
from advisor.plan_columns import columns_to_table
from advisor.probing import LINEAR_METHOD
from advisor.project_search import SearchSettings
from advisor.risk_model import RiskModel
from advisor.what_if import WhatIf
from studies.evaluation import RiskBatch
from studies.search_space import SearchSpace

Columns = Mapping[str, NDArray[Any]]

# Chosen on demo runs (seeds 0, 1): without them the plan found was measured 0.03-0.05 nats worse than the same experts
# at the best shared coefficient, with unequal coefficients and TIES chosen on the strength of two short measurements.
SPREAD_PRICE = 0.25
METHOD_PRICE = 0.3
# Development problems: from 8 to 32 samples a step without a probe at 32, predictions were 0.1 too low in log risk.  A
# lower price was tried and lost up to 38 % of x_0's risk in live runs (``docs/risk-model-log.md``, eighth session).
UNTRIED_PRICE = 0.1


def search_space(
    search: SearchSettings, tasks: tuple[str, ...], methods: tuple[str, ...], smallest_task: int
) -> SearchSpace:
    """The project's ranges as a study's space; batches end at the smallest task's samples.

    Args:
        search: the project's search settings.
        tasks: task names.
        methods: merge methods to choose from.
        smallest_task: training samples of the smallest task.

    Raises:
        ValueError: if even the smallest batch exceeds the smallest task.
    """
    low, high = search.batch_size
    if low > smallest_task:
        raise ValueError(
            f"search.batch_size={list(search.batch_size)} starts above the smallest task's {smallest_task} training "
            "samples; lower it or add data"
        )
    return SearchSpace(
        tasks=tasks,
        learning_rate={str(name): bounds for name, bounds in search.learning_rate.items()},
        batch_size=(low, min(high, smallest_task)),
        steps=search.steps,
        schedules=tuple(search.schedule),
        coefficient=search.coefficients.range,
        coefficient_scope=search.coefficients.scope,
        methods=methods,
        per_task_recipes=search.per_task_recipes,
    )


def allows(search: SearchSettings, methods: tuple[str, ...], plan: Plan) -> bool:
    """Whether a plan keeps to the search's ranges and choices, rounding aside."""
    recipes = plan.recipes.values()
    return (
        plan.method in methods
        and all(recipe.optimizer in search.learning_rate for recipe in recipes)
        and all(recipe.schedule in search.schedule for recipe in recipes)
        and all(_inside(recipe.learning_rate, search.learning_rate[recipe.optimizer]) for recipe in recipes)
        and all(_inside(recipe.batch_size, search.batch_size) for recipe in recipes)
        and all(_inside(recipe.steps, search.steps) for recipe in recipes)
        and all(_inside(value, search.coefficients.range) for value in plan.coefficients.values())
    )


def _inside(value: float, ends: tuple[float, float]) -> bool:
    return ends[0] * (1 - 1e-9) <= value <= ends[1] * (1 + 1e-9)


def risk_of(ask: WhatIf, num_samples: Mapping[str, int]) -> Callable[[Columns], RiskBatch]:
    """The fitted model under the project's goal, as a study's risk; ``max_drop`` is its constraint."""
    names = ask.model.scales_.names
    return lambda columns: cautious_risk(ask, columns_to_table(columns, names, num_samples))


def cautious_risk(ask: WhatIf, table: PlanTable) -> RiskBatch:
    """Predicted goals of plans with the price of caution on top, and by how much each breaks ``max_drop``."""
    model: RiskModel = ask.model
    p = model.predict(table, return_interval=True)
    value, low, high = ask.goal.predicted(p.task_risk, p.task_low, p.task_high, (p.goal, p.goal_low, p.goal_high))
    price = 1.0 + caution(table, np.array([ask.goal.shares[name] for name in model.scales_.names]), p.untried)
    return RiskBatch(
        goal=value * price,
        low=np.minimum(low, value) * price,
        high=np.maximum(high, value) * price,
        violation=ask.goal.violation(p.task_risk, p.initial_risk),
    )


def caution(table: PlanTable, goal_shares: FloatArray, untried: FloatArray) -> FloatArray:
    """The relative price [M] of unequal progress, other merge methods and untried recipes (module docstring).

    Args:
        table: M plans.
        goal_shares: p_i [N]; a task with weight 0 has no price.
        untried: [M] distance beyond the probed rates and batch sizes, log units.
    """
    progress = table.coefficients * table.learning_rate * table.step_mass()
    total = progress.sum(axis=1, keepdims=True)
    shares = np.divide(progress, total, out=np.broadcast_to(goal_shares, progress.shape).copy(), where=total > 0)
    weighted = goal_shares > 0
    spread = ((shares - goal_shares)[:, weighted] ** 2 / goal_shares[weighted]).sum(axis=1)
    other = np.array([method != LINEAR_METHOD for method in table.method], dtype=np.float64)
    return np.asarray(SPREAD_PRICE * spread + METHOD_PRICE * other + UNTRIED_PRICE * untried)


def training_cost_of(names: tuple[str, ...], num_samples: Mapping[str, int]) -> Callable[[Columns], FloatArray]:
    """Units of training the experts of each plan, [M]."""

    def cost(columns: Columns) -> FloatArray:
        return columns_to_table(columns, names, num_samples).training_cost()

    return cost
