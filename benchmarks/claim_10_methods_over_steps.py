"""Claim 10, steps and method together: do TIES and DARE turn later than task arithmetic?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.probing import LINEAR_METHOD
from benchmarks.claim_curves import Panel, Shown, by_network, cell, over_seeds
from benchmarks.claim_design import MAIN, METHODS
from benchmarks.claim_series import Series, early_choice, fixed, predicted_turning_point, tuned
from benchmarks.claim_tables import UnitTable

NAMES = {"average": LINEAR_METHOD} | {method: method for method in METHODS}


def series_of(table: UnitTable) -> dict[str, Series]:
    """Method -> series at the coefficient that was best early on."""
    return {name: fixed(table, early_choice(table, method), method) for name, method in NAMES.items()}


def predicted(table: UnitTable) -> dict[str, float]:
    """Method -> predicted turning point at that coefficient."""
    return {name: predicted_turning_point(table, early_choice(table, method), method) for name, method in NAMES.items()}


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    series, turns = series_of(table), predicted(table)
    found = {"average_turns": series["average"].rise}
    for name in METHODS:
        found[f"{name}_later"] = math.log2(series[name].turning_point / series["average"].turning_point)
    for name in NAMES:
        found[f"turning_point_{name}"] = math.log2(turns[name] / series[name].turning_point)
    return found


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Risk over the steps for each method, at the early coefficient and at re-tuned ones."""
    panels, rows = [], []
    for network, units in by_network(tables).items():
        steps = units[0].steps("base")
        for title, pick in (("λ best after 40 steps", False), ("λ re-tuned", True)):
            lines = [
                over_seeds(
                    name,
                    steps,
                    units,
                    lambda t, name=name, pick=pick: _relative(t, name, retuned=pick),  # type: ignore[misc]
                    style=f"method-{number}",
                )
                for number, name in enumerate(NAMES)
            ]
            panels.append(
                Panel(title=f"{network}, {title}", x_label="steps K", y_label="test risk / risk of x₀", lines=lines)
            )
        for name, method in NAMES.items():
            turns = [predicted(table)[name] for table in units]
            rows.append(
                (
                    network,
                    name,
                    ", ".join(f"{early_choice(table, method):g}" for table in units),
                    ", ".join(str(series_of(table)[name].turning_point) for table in units),
                    ", ".join(f"{value:.0f}" if math.isfinite(value) else "–" for value in turns),
                    ", ".join(str(tuned(table, method).turning_point) for table in units),
                    cell([series_of(table)[name].rise for table in units], 2),
                )
            )
    return Shown(
        panels=panels,
        head=(
            "network",
            "method",
            "λ best after 40 steps",
            "K* measured",
            "K* predicted",
            "K* at re-tuned λ",
            "log rise after K*",
        ),
        rows=rows,
    )


def _relative(table: UnitTable, name: str, *, retuned: bool) -> list[float]:
    initial = table.initial("test", MAIN)
    series = tuned(table, NAMES[name]) if retuned else series_of(table)[name]
    return [value / initial for value in series.test]
