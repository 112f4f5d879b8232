"""Claim 8, excess risk decomposed: gap and training risk of merges against the bound's halves, and the worst case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell
from benchmarks.claim_design import PROBE_STEPS
from benchmarks.claim_tables import UnitTable, risk


def merges_of(table: UnitTable) -> list[Any]:
    """Linear merges of the base run, later than any that the model was fitted on."""
    late = [step for step in table.steps("base") if step > PROBE_STEPS]
    return [row for step in late for row in table.rows("linear", "base", step)]


def halves(table: UnitTable) -> dict[str, list[float]]:
    """Measured and predicted gap and training risk, log10 of the worst case and of the measured excess risk."""
    rows = merges_of(table)
    lowest = min(table.expert_mean("base", step, "test") for step in table.steps("base"))
    worst = {row["number"]: row for row in table.predictions.get("worst_case", [])}
    gap = [table.predicted_figure(row, "gap") for row in rows]
    return {
        "measured gap": [risk(row) - risk(row, "train") for row in rows],
        "predicted gap": gap,
        "measured training risk": [risk(row, "train") for row in rows],
        "predicted training risk": [table.predicted(row) - own for row, own in zip(rows, gap, strict=True)],
        # never below a thousandth of a nat: a merge as good as the experts has no excess to speak of
        "log10 excess": [math.log10(max(risk(row) - lowest, 1e-3)) for row in rows],
        "log10 worst case": [worst.get(row["number"], {}).get("total", math.nan) for row in rows],
    }


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation; NaN where a value is no number or one side does not vary."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()) or min(np.ptp(first), np.ptp(second)) == 0:
        return math.nan
    return float(stats.spearmanr(first, second).statistic)


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    found = halves(table)
    ratios = np.array(found["log10 worst case"]) - np.array(found["log10 excess"])
    return {
        "generalisation": spearman(found["predicted gap"], found["measured gap"]),
        "optimisation": spearman(found["predicted training risk"], found["measured training risk"]),
        "worst_case": float(ratios.min()) if np.isfinite(ratios).all() else math.nan,
    }


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Predicted against measured halves, and the worst case."""
    panels: dict[str, list[Line]] = {"gap": [], "training risk": []}
    worst, rows = [], []
    for network, units in by_network(tables).items():
        for table in units:
            found = halves(table)
            label = network if table is units[0] else ""
            for name, lines in panels.items():
                lines.append(
                    Line(
                        label=label,
                        x=found[f"measured {name}"],
                        y=found[f"predicted {name}"],
                        network=network,
                        style="points",
                    )
                )
            worst.append(
                Line(label=label, x=found["log10 excess"], y=found["log10 worst case"], network=network, style="points")
            )
        all_found = [halves(table) for table in units]
        for name in ("gap", "training risk"):
            rows.append(
                (
                    network,
                    name,
                    cell([float(np.mean(found[f"measured {name}"])) for found in all_found]),
                    cell([float(np.mean(found[f"predicted {name}"])) for found in all_found]),
                    cell([spearman(found[f"predicted {name}"], found[f"measured {name}"]) for found in all_found], 2),
                )
            )
        rows.append(
            (
                network,
                "log10 of excess risk and worst case",
                cell([float(np.mean(found["log10 excess"])) for found in all_found]),
                cell([float(np.mean(found["log10 worst case"])) for found in all_found]),
                cell([spearman(found["log10 worst case"], found["log10 excess"]) for found in all_found], 2),
            )
        )
    linear: dict[str, Any] = {"x_scale": "linear", "y_scale": "linear"}
    return Shown(
        panels=(
            Panel(
                title="Generalisation half",
                x_label="measured test − training risk",
                y_label="predicted",
                lines=panels["gap"],
                **linear,
            ),
            Panel(
                title="Optimisation half",
                x_label="measured training risk",
                y_label="predicted",
                lines=panels["training risk"],
            ),
            Panel(title="Worst case", x_label="log10 excess risk", y_label="log10 worst case", lines=worst, **linear),
        ),
        head=("network", "half", "measured, mean over merges", "predicted", "Spearman"),
        rows=rows,
    )
