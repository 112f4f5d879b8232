"""Claim 2, batch size: training risk at equal steps, and the sign of its effect on stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell, over_seeds, slope
from benchmarks.claim_design import BATCH, MAIN
from benchmarks.claim_tables import UnitTable, risk

AVERAGE = 1 / len(MAIN)
RUNS = {2: "sgd-b2", BATCH: "sgd-0.25", 32: "sgd-b32"}  # all at a quarter of 2/L


def batch_twins(table: UnitTable) -> list[Any]:
    """Twin rows at one rate, by batch size: those that vary it, and the one of the rate sweep at the same rate."""
    varied = [row for row in table.data["twins"] if row["varied"] == "batch"]
    rates = {row["recipe"]["learning_rate"] for row in varied}
    same = [row for row in table.data["twins"] if row["varied"] == "rate" and row["recipe"]["learning_rate"] in rates]
    return sorted(varied + same, key=lambda row: row["recipe"]["batch_size"])


def training_risks(table: UnitTable) -> list[float]:
    """Training risk of the simple average at each batch size, relative to x_0's."""
    initial = table.initial("train", MAIN)
    return [risk(table.one("linear", run, max(table.steps(run)), AVERAGE), "train") / initial for run in RUNS.values()]


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    rows = batch_twins(table)
    sizes = [row["recipe"]["batch_size"] for row in rows]
    measured = slope(sizes, _values(rows, "stability"))
    ratios = [
        math.log10(row["refined"] / row["stability"]) if row["refined"] and row["stability"] else math.nan
        for row in table.data["twins"]
    ]
    risks = training_risks(table)
    return {
        "optimisation": math.log(risks[0] / risks[-1]),
        "stability_linear": measured,
        "refined_slope": measured - slope(sizes, _values(rows, "refined")),
        "refined_above": min(ratios, default=math.nan),
    }


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Stability against both forms of the bound, and training risk over the batch size."""
    stability, training, rows = [], [], []
    for network, units in by_network(tables).items():
        sizes = [row["recipe"]["batch_size"] for row in batch_twins(units[0])]
        stability.append(
            over_seeds(f"{network}, twins", sizes, units, lambda table: _values(batch_twins(table), "stability"))
        )
        for form, style in (("refined", "predicted"), ("paper", "other")):
            bound = over_seeds(
                f"{network}, {form} bound",
                sizes,
                units,
                lambda table, form=form: _values(batch_twins(table), form),  # type: ignore[misc]
                style=style,
            )
            stability.append(Line(label=bound.label, x=bound.x, y=bound.y, network=network, style=style))
        training.append(over_seeds(f"{network}, simple average", list(RUNS), units, training_risks))
        for i, size in enumerate(sizes):
            rows.append(
                (
                    network,
                    str(size),
                    *(
                        cell([_values(batch_twins(t), name)[i] for t in units])
                        for name in ("stability", "refined", "paper")
                    ),
                    cell([training_risks(table)[i] for table in units]),
                )
            )
    return Shown(
        panels=(
            Panel(title="Twin runs", x_label="batch size b", y_label="stability s, |x|²", lines=stability),
            Panel(
                title="Optimisation at equal η and K",
                x_label="batch size b",
                y_label="training risk / x₀'s",
                lines=training,
                y_scale="linear",
            ),
        ),
        head=("network", "b", "stability s", "refined bound", "paper's bound", "training risk of the average / x₀'s"),
        rows=rows,
    )


def _values(rows: Sequence[Any], name: str) -> list[float]:
    return [math.nan if row[name] is None else float(row[name]) for row in rows]
