"""Claim 6, why methods work: progress, interference, heterogeneity and displacement of every way of merging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell
from benchmarks.claim_tables import BrokenTable, UnitTable, accuracy, risk

AVERAGE = "simple average"
WAYS = {"ties": "TIES", "dare": "DARE", "tangent": "tangent", "sam": "sharpness-aware"}


def ways(table: UnitTable) -> dict[str, Any]:
    """Name -> row of each way of merging."""
    if not table.data.get("methods"):
        raise BrokenTable(f"table {table.name} holds no methods; build the unit again")
    return {row["way"]: row for row in table.data["methods"]}


def shares_of(table: UnitTable, way: str) -> tuple[float, float]:
    """Pi and kappa of a way against the simple average; NaN where the average's own are not positive."""
    row, average = ways(table)[way], ways(table)[AVERAGE]
    if not (average["progress"] > 0 and average["beyond"] > 0):
        return math.nan, math.nan
    return row["progress"] / average["progress"], row["beyond"] / average["beyond"]


def interference_for_progress(table: UnitTable, way: str) -> float:
    """Log(kappa / pi^2); NaN unless both are positive."""
    progress, interference = shares_of(table, way)
    return math.log(interference / progress**2) if progress > 0 and interference > 0 else math.nan


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    rows = ways(table)
    chi = rows["AdaMerging"]["chi_square"]
    return {key: interference_for_progress(table, way) for key, way in WAYS.items()} | {
        "average_chi": float(rows[AVERAGE]["chi_square"]),
        "adamerging": math.log(risk(rows["AdaMerging"]) / risk(rows[AVERAGE])),
        "adamerging_chi": math.nan if chi is None else float(chi),
    }


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Interference for progress beside merged risk."""
    names = list(ways(tables[0]))
    lines, merged, rows = [], [], []
    for network, units in by_network(tables).items():
        for shift, table in zip((-0.15, 0.0, 0.15), units, strict=False):
            x = [i + shift for i in range(len(names))]
            relative = [risk(ways(table)[way]) / risk(ways(table)[AVERAGE]) for way in names]
            label = network if table is units[0] else ""
            values = [interference_for_progress(table, way) for way in names]
            lines.append(Line(label=label, x=x, y=values, network=network, style="points"))
            merged.append(Line(label=label, x=x, y=relative, network=network, style="points"))
        for way in names:
            found = [ways(table)[way] for table in units]
            pairs = [shares_of(table, way) for table in units]
            rows.append(
                (
                    network,
                    way,
                    cell([pair[0] for pair in pairs]),
                    cell([pair[1] for pair in pairs]),
                    cell([row["cosine"] for row in found], 2),
                    cell([math.nan if row["chi_square"] is None else row["chi_square"] for row in found], 2),
                    cell([row["expert_length"] for row in found], 2),
                    cell([risk(row) for row in found]),
                    cell([accuracy(row) for row in found]),
                )
            )
    axes: dict[str, Any] = {"x_label": "", "x_scale": "linear", "y_scale": "linear", "ticks": names}
    return Shown(
        panels=(
            Panel(title="Interference for progress", y_label="log(κ/π²), simple average = 0", lines=lines, **axes),
            Panel(title="Merged risk", y_label="test risk / simple average's", lines=merged, zero=1.0, **axes),
        ),
        head=(
            "network",
            "way",
            "progress π",
            "interference κ",
            "cosine of task vectors",
            "χ²",
            "‖τ‖",
            "test risk",
            "accuracy",
        ),
        rows=rows,
    )
