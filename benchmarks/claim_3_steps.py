"""Claim 3, steps: experts that keep improving while their merge turns, at fixed and at re-tuned coefficients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.claim_curves import Panel, Shown, by_network, cell, over_seeds
from benchmarks.claim_design import COEFFICIENTS, MAIN
from benchmarks.claim_series import Series, fixed, predicted_turning_point, tuned
from benchmarks.claim_tables import UnitTable

AVERAGE = 1 / len(MAIN)


def series_of(table: UnitTable) -> dict[str, tuple[Series, float | None]]:
    """Name -> the series and its coefficient (``None``: re-tuned)."""
    return {
        "average": (fixed(table, AVERAGE), AVERAGE),
        "sum": (fixed(table, 1.0), 1.0),
        "tuned": (tuned(table), None),
    }


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    found: dict[str, float] = {}
    for name, (series, coefficient) in series_of(table).items():
        found[f"turns_{name}"] = series.rise
        key = "turning_point" if name == "average" else f"turning_point_{name}"
        found[key] = math.log2(predicted_turning_point(table, coefficient) / series.turning_point)
    average = series_of(table)["average"][0]
    at_best = table.expert_mean("base", average.turning_point, "test")
    found["experts_improve"] = math.log(at_best / table.expert_mean("base", average.steps[-1], "test"))
    return found


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Experts and merges over the steps."""
    panels, rows = [], []
    labels = {"average": f"λ = {AVERAGE:g}", "sum": "λ = 1", "tuned": "λ tuned"}
    for network, units in by_network(tables).items():
        steps = units[0].steps("base")
        lines = [
            over_seeds("experts, own tasks", steps, units, lambda t: _experts(t), style="other"),
            *(
                over_seeds(label, steps, units, lambda t, name=name: _relative(t, name))  # type: ignore[misc]
                for name, label in labels.items()
            ),
        ]
        known = [table for table in units if table.predictions]
        if known:
            grid = [k for k in known[0].predictions["steps"] if k <= steps[-1]]
            lines += [
                over_seeds(
                    f"{label}, predicted",
                    grid,
                    known,
                    lambda t, name=name, end=steps[-1]: _predicted(t, name, end),  # type: ignore[misc]
                    style="predicted",
                )
                for name, label in labels.items()
            ]
        panels.append(
            Panel(
                title=network,
                x_label="steps K",
                y_label="test risk / risk of x₀",
                lines=[line for line in lines if all(math.isfinite(value) for value in line.y)],
            )
        )
        for name, label in labels.items():
            pairs = [series_of(table)[name] for table in units]
            rows.append(
                (
                    network,
                    label,
                    ", ".join(str(series.turning_point) for series, _ in pairs),
                    ", ".join(_whole(predicted_turning_point(t, c)) for t, (_, c) in zip(units, pairs, strict=True)),
                    cell([series.rise for series, _ in pairs]),
                )
            )
    return Shown(
        panels=panels,
        head=("network", "coefficient", "K* measured, each seed", "K* predicted", "log rise after K*: mean (range)"),
        rows=rows,
    )


def _whole(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "–"


def _experts(table: UnitTable) -> list[float]:
    initial = table.initial("test", MAIN)
    return [table.expert_mean("base", step, "test") / initial for step in table.steps("base")]


def _relative(table: UnitTable, name: str) -> list[float]:
    initial = table.initial("test", MAIN)
    return [value / initial for value in series_of(table)[name][0].test]


def _predicted(table: UnitTable, name: str, end: int) -> list[float]:
    initial = table.initial("validation", MAIN)
    curves = table.predictions["curves"]["task_arithmetic"]
    values = {"average": (AVERAGE,), "sum": (1.0,), "tuned": COEFFICIENTS}[name]
    chosen = [curves[f"{value:g}"] for value in values]
    return [
        math.nan if any(value is None for value in column) else min(column) / initial
        for k, column in zip(table.predictions["steps"], zip(*chosen, strict=True), strict=True)
        if k <= end
    ]
