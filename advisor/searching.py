r"""The study behind an advice: the project's search space, and the fitted model as the study's risk.

``studies`` knows plain parameters only; here they become plans, and predictions become ``RiskBatch``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.plan import FloatArray
from advisor.plan_columns import columns_to_table
from advisor.project_search import SearchSettings
from advisor.risk_model import RiskModel
from advisor.what_if import WhatIf
from studies.evaluation import RiskBatch
from studies.search_space import SearchSpace

Columns = Mapping[str, NDArray[Any]]


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


def risk_of(ask: WhatIf, num_samples: Mapping[str, int]) -> Callable[[Columns], RiskBatch]:
    """The fitted model under the project's goal, as a study's risk; ``max_drop`` is its constraint."""
    model: RiskModel = ask.model
    names = model.scales_.names

    def risk(columns: Columns) -> RiskBatch:
        table = columns_to_table(columns, names, num_samples)
        p = model.predict(table, return_interval=True)
        value, low, high = ask.goal.predicted(p.task_risk, p.task_low, p.task_high, (p.goal, p.goal_low, p.goal_high))
        return RiskBatch(
            goal=value,
            low=np.minimum(low, value),
            high=np.maximum(high, value),
            violation=ask.goal.violation(p.task_risk, p.initial_risk),
        )

    return risk


def training_cost_of(names: tuple[str, ...], num_samples: Mapping[str, int]) -> Callable[[Columns], FloatArray]:
    """Units of training the experts of each plan, [M]."""

    def cost(columns: Columns) -> FloatArray:
        return columns_to_table(columns, names, num_samples).training_cost()

    return cost
