"""Claim 7, heterogeneous experts: simple average, the advisor's coefficients and tuned ones, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell
from benchmarks.claim_tables import BrokenTable, UnitTable, risk

OVER_TRAINED = "one over-trained"


def mixes_of(table: UnitTable) -> dict[str, Any]:
    """Name -> row of each mix."""
    rows = {row["mix"]: row for row in table.data.get("mixes", [])}
    if OVER_TRAINED not in rows:
        raise BrokenTable(f"table {table.name} holds no mix {OVER_TRAINED!r}; build the unit again")
    return rows


def recovered(row: Any) -> float:
    """Log(risk of the simple average / risk under the advisor's coefficients)."""
    return math.log(risk(row["average"]) / risk(row["advisor"]))


def predicted_recovery(row: Any) -> float:
    """The same, predicted."""
    average, advised = row["predicted"]["average"], row["predicted"]["advisor"]
    return math.nan if average is None or advised is None else math.log(average / advised)


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    rows = mixes_of(table)
    over = rows[OVER_TRAINED]
    return {
        "average_fails": math.log(risk(over["average"]) / risk(over["tuned"])),
        "advisor_recovers": float(np.mean([recovered(row) for row in rows.values()])),
        "predicted_gain": float(np.mean([predicted_recovery(row) - recovered(row) for row in rows.values()])),
    }


def shown(tables: Sequence[UnitTable]) -> Shown:
    """What the advisor's coefficients recover, mix by mix."""
    names = list(mixes_of(tables[0]))
    lines, rows = [], []
    for network, units in by_network(tables).items():
        for shift, table in zip((-0.15, 0.0, 0.15), units, strict=False):
            mixes = mixes_of(table)
            x = [i + shift for i in range(len(names))]
            first = table is units[0]
            for what, values, style in (
                ("measured", [recovered(mixes[name]) for name in names], "points"),
                ("predicted", [predicted_recovery(mixes[name]) for name in names], "crosses"),
            ):
                label = f"{network}, {what}" if first else ""
                lines.append(Line(label=label, x=x, y=values, network=network, style=style))
        for name in names:
            found = [mixes_of(table)[name] for table in units]
            initial = [table.initial("test", tuple(row["members"])) for table, row in zip(units, found, strict=True)]
            rows.append(
                (
                    network,
                    name,
                    cell([row["chi_square"]["average"] for row in found], 2),
                    cell(initial),
                    *(cell([risk(row[which]) for row in found]) for which in ("average", "advisor", "tuned")),
                    cell([recovered(row) for row in found], 2),
                    cell([predicted_recovery(row) for row in found], 2),
                )
            )
    return Shown(
        panels=(
            Panel(
                title="What the advisor's λ recover",
                x_label="",
                y_label="log(simple average / advisor's λ)",
                lines=lines,
                x_scale="linear",
                y_scale="linear",
                ticks=names,
            ),
        ),
        head=(
            "network",
            "mix",
            "χ² of the average",
            "x₀",
            "simple average",
            "advisor's λ",
            "tuned λ",
            "recovered, log",
            "predicted",
        ),
        rows=rows,
    )
