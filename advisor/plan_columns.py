"""A study's columns of plain parameters, as plans.

A column is named after a plan's field (``learning_rate``, ``batch_size``, ``steps``, ``optimizer``, ``schedule``,
``method``, ``coefficient``, ``num_samples``, ``momentum``), with ``_<task>`` behind it where each task has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.plan import OPTIMIZERS, SCHEDULES, Plan, PlanTable
from estimators.recipe import DEFAULT_MOMENTUM, Recipe

RECIPE_FIELDS = ("learning_rate", "batch_size", "steps", "optimizer", "schedule", "momentum", "num_samples")


def columns_to_table(
    columns: Mapping[str, NDArray[Any]], names: Sequence[str], num_samples: Mapping[str, int]
) -> PlanTable:
    """M plans given as columns [M] -> arrays [M, N]; batches are cut to the task's samples.

    Args:
        columns: parameter name -> [M].
        names: tasks, in the order of the constants.
        num_samples: task -> its training samples.
    """
    count = len(next(iter(columns.values())))

    def gather(field: str, default: Any) -> NDArray[Any]:
        parts = [columns.get(f"{field}_{name}", columns.get(field, np.full(count, default))) for name in names]
        return np.stack([np.asarray(part) for part in parts], axis=1)

    samples = np.array([num_samples[name] for name in names], dtype=np.float64)
    optimizer = _indices(gather("optimizer", "sgd"), OPTIMIZERS)
    momentum = gather("momentum", np.nan).astype(np.float64)
    heavy = optimizer == OPTIMIZERS.index("momentum")
    momentum = np.where(heavy, np.where(np.isnan(momentum), DEFAULT_MOMENTUM, momentum), 0.0)
    used = gather("num_samples", np.inf).astype(np.float64)
    method = columns.get("method", np.full(count, "task_arithmetic"))
    return PlanTable(
        names=tuple(names),
        learning_rate=gather("learning_rate", np.nan).astype(np.float64),
        batch_size=np.minimum(gather("batch_size", np.nan).astype(np.float64), samples),
        steps=gather("steps", np.nan).astype(np.float64),
        optimizer=optimizer,
        momentum=momentum,
        schedule=_indices(gather("schedule", "constant"), SCHEDULES),
        num_samples=np.minimum(used, samples),
        coefficients=gather("coefficient", 1.0 / len(names)).astype(np.float64),
        method=tuple(str(name) for name in method),
    )


def parameters_to_plan(parameters: Mapping[str, Any], names: Sequence[str], num_samples: Mapping[str, int]) -> Plan:
    """One plan in plain parameters -> a ``Plan``; batches are cut to the task's samples."""

    def get(field: str, name: str, default: Any) -> Any:
        return parameters.get(f"{field}_{name}", parameters.get(field, default))

    recipes = {}
    for name in names:
        given = {field: get(field, name, None) for field in RECIPE_FIELDS}
        fields = {key: value for key, value in given.items() if value is not None}
        if fields.get("optimizer", "sgd") != "momentum":
            fields.pop("momentum", None)
        fields["batch_size"] = min(int(fields["batch_size"]), num_samples[name])
        fields["steps"] = int(fields["steps"])
        recipes[name] = Recipe(**fields)
    return Plan(
        recipes=recipes,
        coefficients={name: float(get("coefficient", name, 1.0 / len(names))) for name in names},
        method=str(parameters.get("method", "task_arithmetic")),
    )


def _indices(values: NDArray[Any], choices: tuple[str, ...]) -> NDArray[np.int64]:
    found = np.full(values.shape, -1, dtype=np.int64)
    for index, choice in enumerate(choices):
        found[values == choice] = index
    if (found < 0).any():
        raise ValueError(f"{str(values[found < 0][0])!r} is not one of {', '.join(choices)}; choose one of them")
    return found
