"""Claim 5, number of tasks: what further experts gain over all tasks, and what they cost the merged ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.claim_curves import Panel, Shown, by_network, cell, over_seeds
from benchmarks.claim_tables import BrokenTable, UnitTable, capped, risk

SIZES = tuple(range(2, 9))


def of_size(table: UnitTable, kind: str, size: int) -> list[Any]:
    """Rows of subsets of a size."""
    found = [row for row in table.rows(kind) if len(row["members"]) == size]
    if not found:
        raise BrokenTable(f"table {table.name} holds no {kind} rows of {size} tasks; build the unit again")
    return found


def goal_risks(table: UnitTable) -> list[float]:
    """Mean test risk of all eight tasks under simple averages of N = 2..8 experts."""
    return [float(np.mean([risk(row) for row in of_size(table, "subset-average", size)])) for size in SIZES]


def penalties(table: UnitTable) -> list[float]:
    """Mean log(risk of a merged task / its risk with its own expert alone), at the fixed coefficient, N = 2..8."""
    alone = {next(iter(row["members"])): risk(row) for row in table.rows("alone")}
    return [
        float(
            np.mean(
                [
                    math.log(capped(row["figures"][task]["test"]) / alone[task])
                    for row in of_size(table, "subset-fixed", size)
                    for task in row["members"]
                ]
            )
        )
        for size in SIZES
    ]


def merged_risks(table: UnitTable) -> list[float]:
    """Mean log(risk / risk of x_0) of the merged tasks under the simple average, N = 2..8."""
    initial = table.data["initial"]
    return [
        float(
            np.mean(
                [
                    math.log(capped(row["figures"][task]["test"]) / initial[task]["test"])
                    for row in of_size(table, "subset-average", size)
                    for task in row["members"]
                ]
            )
        )
        for size in SIZES
    ]


def predicted_merged(table: UnitTable) -> list[float]:
    """The same, predicted; NaN where nothing was predicted."""
    if not table.predictions:
        return [math.nan] * len(SIZES)
    initial = table.data["initial"]
    found = []
    for size in SIZES:
        logs = []
        for row in of_size(table, "subset-average", size):
            risks = dict(zip(row["figures"], table.predictions["rows"][row["number"]]["tasks"], strict=True))
            logs += [math.log(risks[task] / initial[task]["validation"]) for task in row["members"]]
        found.append(float(np.mean(logs)))
    return found


def best_number(values: Sequence[float]) -> float:
    """N of the lowest value; NaN if one is no number."""
    return float(SIZES[int(np.argmin(values))]) if np.isfinite(values).all() else math.nan


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    goal = goal_risks(table)
    return {
        "gain": math.log(goal[0] / goal[-1]),
        "penalty": float(np.polyfit(SIZES, penalties(table), 1)[0]),
        "best_number": best_number(predicted_merged(table)) - best_number(merged_risks(table)),
    }


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Gain and penalty over N."""
    gain, penalty, merged, rows = [], [], [], []
    for network, units in by_network(tables).items():
        gain.append(over_seeds(f"{network}, all eight tasks", SIZES, units, goal_risks))
        penalty.append(over_seeds(f"{network}, λ = 1/4", SIZES, units, penalties))
        merged.append(over_seeds(f"{network}, measured", SIZES, units, merged_risks))
        known = [table for table in units if table.predictions]
        if known:
            merged.append(over_seeds(f"{network}, predicted", SIZES, known, predicted_merged, style="predicted"))
        for i, size in enumerate(SIZES):
            rows.append(
                (
                    network,
                    str(size),
                    cell([goal_risks(table)[i] for table in units]),
                    cell([penalties(table)[i] for table in units]),
                    cell([merged_risks(table)[i] for table in units]),
                    cell([predicted_merged(table)[i] for table in units]),
                )
            )
    axes: dict[str, Any] = {"x_label": "merged experts N", "x_scale": "linear", "y_scale": "linear"}
    return Shown(
        panels=(
            Panel(title="Gain: simple average", y_label="test risk of all eight tasks, nats", lines=gain, **axes),
            Panel(title="Penalty at fixed λ", y_label="log(risk / own expert alone)", lines=penalty, **axes),
            Panel(title="Merged tasks, simple average", y_label="log(risk / risk of x₀)", lines=merged, **axes),
        ),
        head=(
            "network",
            "N",
            "risk of all eight tasks",
            "penalty at λ = 1/4",
            "log risk of the merged tasks / x₀'s",
            "predicted",
        ),
        rows=rows,
    )
