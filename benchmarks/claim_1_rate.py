"""Claim 1, learning rate: stability of twins and merged risk over the rate, below and beyond 2/L."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell, crossing, over_seeds, slope
from benchmarks.claim_design import MAIN
from benchmarks.claim_predictions import WORSE
from benchmarks.claim_tables import BrokenTable, UnitTable, risk

AVERAGE = 1 / len(MAIN)


def sweep(table: UnitTable) -> dict[float, str]:
    """Fraction of 2/L -> run of the SGD sweep, increasing."""
    names = [name for name in table.data["runs"] if name.startswith("sgd-") and not name.startswith("sgd-b")]
    if not names:
        raise BrokenTable(f"table {table.name} holds no SGD sweep; build the unit again")
    return dict(sorted((float(name.removeprefix("sgd-")), name) for name in names))


def sweep_risks(table: UnitTable, figure: str = "test") -> list[float]:
    """Risk of the simple average after the longest run of the sweep, relative to x_0's."""
    initial = table.initial(figure, MAIN)
    runs = sweep(table).values()
    return [risk(table.one("linear", run, max(table.steps(run)), AVERAGE), figure) / initial for run in runs]


def rate_twins(table: UnitTable) -> tuple[list[float], list[float]]:
    """Fractions of 2/L and measured stability; a diverged pair is NaN."""
    rows = sorted((row for row in table.data["twins"] if row["varied"] == "rate"), key=lambda row: row["fraction"])
    return [row["fraction"] for row in rows], [
        math.nan if row["stability"] is None else row["stability"] for row in rows
    ]


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    fractions, relative = list(sweep(table)), sweep_risks(table)
    at = dict(zip(fractions, relative, strict=True))
    found = {
        "stability_exponent": slope(*rate_twins(table)),
        "safe_below": math.log(at[1 / 8]),
        "collapse": math.log(at[4.0]),
    }
    if table.predictions:
        measured = crossing(fractions, relative, WORSE)
        predicted = crossing(table.predictions["rates"], predicted_risks(table), WORSE)
        found["edge"] = math.log2(predicted / measured)
    return found


def predicted_risks(table: UnitTable) -> list[float]:
    """Predicted risk of the simple average over the dense grid of rates, relative to x_0's on the same samples."""
    initial = table.initial("validation", MAIN)
    return [math.nan if value is None else value / initial for value in table.predictions["rate_curve"]]


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Stability and merged risk over the rate, with the predicted edge."""
    stability, merged, marks, rows = [], [], {}, []
    for network, units in by_network(tables).items():
        fractions = rate_twins(units[0])[0]
        stability.append(over_seeds(f"{network}, twins", fractions, units, lambda table: rate_twins(table)[1]))
        for form, style in (("refined", "predicted"), ("paper", "other")):
            bound = over_seeds(
                f"{network}, {form} bound",
                fractions,
                units,
                lambda table, form=form: _bound(table, form),  # type: ignore[misc]
                style=style,
            )
            stability.append(Line(label=bound.label, x=bound.x, y=bound.y, network=network, style=style))
        merged.append(over_seeds(f"{network}, measured", list(sweep(units[0])), units, sweep_risks))
        known = [table for table in units if table.predictions]
        if known:
            rates = known[0].predictions["rates"]
            kept = [i for i, rate in enumerate(rates) if rate <= 8]
            merged.append(
                over_seeds(
                    f"{network}, predicted",
                    [rates[i] for i in kept],
                    known,
                    lambda table, kept=kept: [predicted_risks(table)[i] for i in kept],  # type: ignore[misc]
                    style="predicted",
                )
            )
            edges = [table.predictions["edge"][0] / table.data["edge"] for table in known]
            marks[f"{network}, edge of the fit"] = sum(edges) / len(edges)
        risks = [sweep_risks(table) for table in units]
        for i, fraction in enumerate(sweep(units[0])):
            rows.append((network, f"{fraction:g}", cell([found[i] for found in risks])))
    return Shown(
        panels=(
            Panel(title="Twin runs", x_label="η / (2/L)", y_label="stability s, |x|²", lines=stability),
            Panel(
                title="Simple average of SGD experts",
                x_label="η / (2/L)",
                y_label="risk / risk of x₀",
                lines=merged,
                marks=marks,
            ),
        ),
        head=("network", "η / (2/L)", "risk of the simple average / risk of x₀: mean (least … most)"),
        rows=rows,
    )


def _bound(table: UnitTable, form: str) -> list[float]:
    rows = sorted((row for row in table.data["twins"] if row["varied"] == "rate"), key=lambda row: row["fraction"])
    return [math.nan if row[form] is None else row[form] for row in rows]
