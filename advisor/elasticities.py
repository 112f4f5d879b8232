r"""Scaling laws of a prediction: local exponents of the risk in every knob (``docs/theory.md``, scaling laws).

    exponent of knob z = d log goal / d log z,   by central differences at factors exp(+-step), all else held fixed

Knobs: ``learning_rate``, ``batch_size``, ``steps``, ``num_samples`` and ``coefficients``, each of all tasks together.
``num_tasks``: leave each merged task out in turn at fixed coefficients; the mean change of the other merged tasks' log
risk when it joins, divided by log(N / (N - 1)).  "10 % more steps" changes the risk by about exponent x 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.exposure import COLUMNS
from advisor.plan import FloatArray, PlanTable

KNOBS = ("learning_rate", "batch_size", "steps", "num_samples", "coefficients")


def neighbours(base: PlanTable, step: float) -> PlanTable:
    """The plan of a one-row table, then each knob up and down, then each merged task left out."""
    tables = [base]
    tables += [_changed(base, knob, getattr(base, knob) * np.exp(sign * step)) for knob in KNOBS for sign in (1, -1)]
    for column in np.flatnonzero(base.coefficients[0] > 0):
        left = base.coefficients.copy()
        left[:, column] = 0.0
        tables.append(_changed(base, "coefficients", left))
    columns: dict[str, Any] = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
    return PlanTable(names=base.names, method=base.method * len(tables), **columns)


def local_exponents(
    centre: FloatArray,
    samples: FloatArray,
    weights: FloatArray,
    merged: NDArray[np.int64],
    step: float,
    level: float,
) -> dict[str, tuple[float, float, float]]:
    """Exponents (value, low, high) from the risks of :func:`neighbours`.

    Args:
        centre: [M, N] predicted risks.
        samples: [S, M, N] risks under posterior draws.
        weights: [N] of the goal.
        merged: columns of the merged tasks, in order.
        step: the step that made the neighbours.
        level: coverage of the interval over draws.
    """
    value = _exponents(centre[None], weights, merged, step)
    drawn = _exponents(samples, weights, merged, step)
    tail = 50 * (1 - level)
    out = {}
    for knob, centre_value in value.items():
        low, high = np.percentile(drawn[knob], [tail, 100 - tail])
        at = float(centre_value[0])
        out[knob] = (at, min(float(low), at), max(float(high), at))
    return out


def _exponents(
    risk: FloatArray, weights: FloatArray, merged: Sequence[int] | NDArray[np.int64], step: float
) -> dict[str, FloatArray]:
    goal = np.log(risk @ weights)
    out = {knob: (goal[:, 1 + 2 * k] - goal[:, 2 + 2 * k]) / (2 * step) for k, knob in enumerate(KNOBS)}
    if len(merged) > 1:
        log = np.log(risk)
        rows = log[:, 1 + 2 * len(KNOBS) :]
        changes = [
            np.mean([log[:, 0, k] - rows[:, row, k] for k in merged if k != i], axis=0) for row, i in enumerate(merged)
        ]
        out["num_tasks"] = np.mean(changes, axis=0) / np.log(len(merged) / (len(merged) - 1))
    return out


def _changed(table: PlanTable, column: str, values: FloatArray) -> PlanTable:
    columns: dict[str, Any] = {name: getattr(table, name) for name in COLUMNS}
    columns[column] = values
    return PlanTable(names=table.names, method=table.method, **columns)
