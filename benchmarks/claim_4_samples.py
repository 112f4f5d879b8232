"""Claim 4, samples: merged risk and the experts' generalisation gap over the number of training samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.claim_curves import Line, Panel, Shown, by_network, cell, over_seeds, slope
from benchmarks.claim_design import MAIN
from benchmarks.claim_tables import UnitTable, risk

AVERAGE = 1 / len(MAIN)
SHARES = {1 / 8: "n8", 1 / 4: "n4", 1 / 2: "n2", 1.0: "base"}


def middle(table: UnitTable) -> int:
    """The step at which recipes are compared."""
    return max(table.steps("n8"))


def risks(table: UnitTable) -> list[float]:
    """Test risk of the simple average at each share of the samples."""
    return [risk(table.one("linear", run, middle(table), AVERAGE)) for run in SHARES.values()]


def gaps(table: UnitTable) -> list[float]:
    """Mean generalisation gap of the experts at each share; at most 0 is NaN, for it has no logarithm."""
    found = [
        table.expert_mean(run, middle(table), "test") - table.expert_mean(run, middle(table), "train")
        for run in SHARES.values()
    ]
    return [value if value > 0 else math.nan for value in found]


def predicted_risks(table: UnitTable) -> list[float]:
    """Predicted risk of the same merges."""
    return [table.predicted(table.one("linear", run, middle(table), AVERAGE)) for run in SHARES.values()]


def statistics(table: UnitTable) -> dict[str, float]:
    """The claim's statistics of a unit."""
    values = risks(table)
    found = {f"doubling_{k}": math.log(values[k - 1] / values[k]) for k in (1, 2, 3)}
    found["gap_exponent"] = slope(list(SHARES), gaps(table))
    found["exponent"] = slope(list(SHARES), predicted_risks(table)) - slope(list(SHARES), values)
    return found


def shown(tables: Sequence[UnitTable]) -> Shown:
    """Merged risk and experts' gap over n."""
    merged, gap, rows = [], [], []
    for network, units in by_network(tables).items():
        samples = [share * min(units[0].data["num_samples"][task] for task in MAIN) for share in SHARES]
        merged.append(over_seeds(f"{network}, measured", samples, units, risks))
        known = [table for table in units if table.predictions]
        if known:
            merged.append(over_seeds(f"{network}, predicted", samples, known, predicted_risks, style="predicted"))
        line = over_seeds(f"{network}, experts", samples, units, gaps)
        gap.append(line)
        if network == min(by_network(tables)):
            gap += [
                Line(
                    label=f"1/n{power}",
                    x=samples,
                    y=[line.y[0] * (samples[0] / n) ** k for n in samples],
                    style="other",
                )
                for power, k in (("", 1), ("²", 2))
            ]
        for i, n in enumerate(samples):
            rows.append(
                (
                    network,
                    f"{n:.0f}",
                    cell([risks(table)[i] for table in units]),
                    cell([predicted_risks(table)[i] for table in units]),
                    cell([gaps(table)[i] for table in units]),
                )
            )
    return Shown(
        panels=(
            Panel(title="Simple average", x_label="samples n", y_label="test risk, nats", lines=merged),
            Panel(title="Generalisation gap", x_label="samples n", y_label="test − training risk, nats", lines=gap),
        ),
        head=("network", "n", "test risk of the average", "predicted", "gap of the experts"),
        rows=rows,
    )
