"""Claim 9, scaling laws: exponents of the risk around the base plan, predicted and measured, and floor + A/k.

Both exponents are slopes of log risk in the log of the knob over the same merges of the pool, the neighbours of the
base plan (simple average at the middle step): a third to three times the rate, b = 2 to 32, half to twice the steps,
half the samples, half to twice the coefficient.  For N: the mean change of the other tasks' log risk when an expert
joins at fixed coefficients, over log(4/3).  The fit's infinitesimal exponents (``RiskModel.elasticities``) stand
beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.claim_5_number import SIZES, goal_risks
from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell, over_seeds, slope
from benchmarks.claim_design import BATCH, FASTER, MAIN, SLOWER
from benchmarks.claim_tables import UnitTable, capped, risk

AVERAGE = 1 / len(MAIN)
KNOBS = ("learning_rate", "batch_size", "steps", "num_samples", "coefficients", "num_tasks")
RiskOf = Callable[[Any], float]


def neighbours(table: UnitTable) -> dict[str, tuple[list[float], list[Any]]]:
    """Knob -> its values, in any unit, and the merges there."""
    middle = max(table.steps("slow"))

    def at(run: str, step: int = middle, coefficient: float = AVERAGE) -> Any:
        return table.one("linear", run, step, coefficient)

    return {
        "learning_rate": ([SLOWER, 1.0, FASTER], [at("slow"), at("base"), at("fast")]),
        "batch_size": ([2.0, float(BATCH), 32.0], [at("b2"), at("base"), at("b32")]),
        "steps": ([0.5, 1.0, 2.0], [at("base", middle // 2), at("base"), at("base", 2 * middle)]),
        "num_samples": ([0.5, 1.0], [at("n2"), at("base")]),
        "coefficients": ([0.5, 1.0, 2.0], [at("base", coefficient=AVERAGE * factor) for factor in (0.5, 1.0, 2.0)]),
    }


def exponents(table: UnitTable, risk_of: RiskOf, tasks_of: Callable[[Any], dict[str, float]]) -> dict[str, float]:
    """Exponents of all knobs, from a merge's mean risk and its tasks' risks."""
    found = {knob: slope(values, [risk_of(row) for row in rows]) for knob, (values, rows) in neighbours(table).items()}
    whole = tasks_of(table.one("linear", "base", max(table.steps("slow")), AVERAGE))
    changes = []
    for row in table.rows("left-out"):
        without = tasks_of(row)
        changes += [math.log(whole[task] / without[task]) for task, value in row["coefficients"].items() if value > 0]
    count = len(MAIN)
    found["num_tasks"] = float(np.mean(changes)) / math.log(count / (count - 1)) if changes else math.nan
    return found


def measured_exponents(table: UnitTable) -> dict[str, float]:
    """From test risks."""
    return exponents(
        table, risk, lambda row: {task: capped(figures["test"]) for task, figures in row["figures"].items()}
    )


def predicted_exponents(table: UnitTable) -> dict[str, float]:
    """From predicted risks of the same merges; NaN where nothing was predicted."""
    if not table.predictions:
        return dict.fromkeys(KNOBS, math.nan)
    rows = table.predictions["rows"]
    return exponents(
        table, table.predicted, lambda row: dict(zip(row["figures"], rows[row["number"]]["tasks"], strict=True))
    )


def mean_risks(table: UnitTable) -> list[float]:
    """Mean test risk of all eight tasks over k = 1..8 averaged experts."""
    return [float(np.mean([risk(row) for row in table.rows("single")])), *goal_risks(table)]


def harmonic_fit(values: Sequence[float]) -> tuple[float, float, float]:
    """Floor, A and share of variance explained of floor + A/k over k = 1, 2, ...

    >>> [round(x, 6) for x in harmonic_fit([3.0, 2.0, 5 / 3])]
    [1.0, 2.0, 1.0]
    """
    design = np.stack([np.ones(len(values)), 1 / np.arange(1, len(values) + 1)], axis=1)
    (floor, amplitude), *_ = np.linalg.lstsq(design, np.asarray(values), rcond=None)
    left = np.asarray(values) - design @ np.array([floor, amplitude])
    spread = float(np.sum((np.asarray(values) - np.mean(values)) ** 2))
    return float(floor), float(amplitude), 1 - float(np.sum(left**2)) / spread if spread > 0 else math.nan


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    measured, predicted = measured_exponents(table), predicted_exponents(table)
    _, amplitude, explained = harmonic_fit(mean_risks(table))
    initial = table.initial("test", table.data["tasks"])
    return {knob: predicted[knob] - measured[knob] for knob in KNOBS} | {
        "harmonic": explained,
        "harmonic_amplitude": amplitude / initial,
    }


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Exponents side by side, and risk over the number of experts."""
    lines, harmonic, rows = [], [], []
    counts = [1, *SIZES]
    for network, units in by_network(tables).items():
        for shift, table in zip((-0.15, 0.0, 0.15), units, strict=False):
            x = [i + shift for i in range(len(KNOBS))]
            for what, found, style in (
                ("measured", measured_exponents(table), "points"),
                ("predicted", predicted_exponents(table), "crosses"),
            ):
                label = f"{network}, {what}" if table is units[0] else ""
                values = [found[knob] for knob in KNOBS]
                lines.append(Line(label=label, x=x, y=values, network=network, style=style))
        harmonic.append(over_seeds(f"{network}, measured", counts, units, mean_risks))
        floor, amplitude, _ = harmonic_fit(np.mean([mean_risks(table) for table in units], axis=0).tolist())
        fitted = [floor + amplitude / k for k in counts]
        harmonic.append(Line(label=f"{network}, floor + A/k", x=counts, y=fitted, network=network, style="other"))
        for knob in KNOBS:
            local = [table.predictions.get("exponents", {}).get(knob, [math.nan])[0] for table in units]
            rows.append(
                (
                    network,
                    knob.replace("_", " "),
                    cell([measured_exponents(table)[knob] for table in units], 2),
                    cell([predicted_exponents(table)[knob] for table in units], 2),
                    cell([math.nan if value is None else value for value in local], 2),
                )
            )
    return Shown(
        panels=(
            Panel(
                title="Local exponents",
                x_label="",
                y_label="d log risk / d log knob",
                lines=lines,
                x_scale="linear",
                y_scale="linear",
                ticks=("η", "b", "K", "n", "λ", "N"),
            ),
            Panel(
                title="Loss against the number of experts",
                x_label="experts k",
                y_label="test risk of all eight tasks, nats",
                lines=harmonic,
                x_scale="linear",
                y_scale="linear",
            ),
        ),
        head=("network", "knob", "measured exponent", "predicted, same merges", "predicted, infinitesimal"),
        rows=rows,
    )
