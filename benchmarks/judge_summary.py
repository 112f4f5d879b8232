r"""Figures of a suite from its seeds, and of several suites together.

Intervals are 95 % bootstrap intervals over seeds (of one suite) or over suites and seeds (pooled).  An arm's p-value is
one-sided: that taking something away makes the regret larger; Holm's correction covers the arms tested together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.judge_regret import at_costs
from benchmarks.judge_statistics import bootstrap, holm, sign_flip
from benchmarks.suite_format import FloatArray, Suite

RANKS = ("overall", "useful", "worst")
CALIBRATIONS = ("coverage", "useful_coverage", "width", "score", "constant_score", "log_error")
REGRET_CAP = 3.0  # one collapsed recommendation must not hide what the other units say; the share above is reported
COSTS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def median(values: FloatArray) -> float:
    """Median of an array."""
    return float(np.median(values))


def summarise_suite(suite: Suite, units: Sequence[Mapping[str, Any]], ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one suite."""
    judged = [unit for unit in units if "rank" in unit]
    regrets = [float(unit["regret"]) for unit in units]
    return {
        "tasks": len(suite.tasks),
        "seeds": list(suite.seeds),
        "merges": len(suite),
        "full_fine_tune": suite.full_fine_tune,
        "initial": [unit["initial"] for unit in units],
        "best": [unit["best"] for unit in units],
        "ceiling": dict(ceilings),
        "rank": {name: bootstrap([unit["rank"][name] for unit in judged]) for name in RANKS},
        "rows": [unit["rank"]["rows"] for unit in judged],
        "useful_rows": [unit["rank"]["useful_rows"] for unit in judged],
        "unpredicted_rows": [unit["unpredicted"] for unit in judged],
        "calibration": {name: bootstrap([unit["calibration"][name] for unit in judged]) for name in CALIBRATIONS},
        "regret": bootstrap(capped(regrets)) | {"each": regrets, "spread": float(np.std(regrets))},
        "advice": [unit["advice"] for unit in units],
        "cost_before_advice": [unit["cost"] for unit in units],
        "arms": summarise_arms([(float(unit["regret"]), unit["arms"]) for unit in units]),
        "overhead": overhead_figures([unit["search"]["overhead"] for unit in units]),
        "overhead_within_noise": overhead_figures([unit["search"]["overhead_within_noise"] for unit in units]),
        "regret_at_cost": regret_at_costs(units),
        "defaults": summarise_defaults(units),
        "arm_units": [(float(unit["regret"]), unit["arms"]) for unit in units],
        "overhead_units": [unit["search"]["overhead"] for unit in units],
        "overhead_units_within_noise": [unit["search"]["overhead_within_noise"] for unit in units],
    }


def capped(values: Sequence[float]) -> list[float]:
    """Regrets capped at ``REGRET_CAP``."""
    return [min(value, REGRET_CAP) for value in values]


def summarise_arms(units: Sequence[tuple[float, Mapping[str, Sequence[float]]]]) -> dict[str, Any]:
    """Regret of each arm beside the advisor's on the same units, with Holm-corrected p-values."""
    found: dict[str, Any] = {}
    p_values: dict[str, float] = {}
    for label in ("shuffled constants", "swapped probes"):
        pairs = [(own, float(np.mean(capped(arms[label])))) for own, arms in units if arms.get(label)]
        if not pairs:
            continue
        differences = [arm - min(own, REGRET_CAP) for own, arm in pairs]
        p_values[label] = sign_flip(differences)
        found[label] = {"regret": bootstrap([arm for _, arm in pairs]), "difference": bootstrap(differences)}
    for label, value in holm(p_values).items():
        found[label]["p"] = value
    return found


def overhead_figures(units: Sequence[Mapping[str, Sequence[tuple[float, bool]]]]) -> dict[str, Any]:
    """Median overhead of every method, the share that was censored, and the best baseline's ratio to the advisor's."""
    methods: dict[str, list[tuple[float, bool]]] = {}
    for unit in units:
        for name, found in unit.items():
            methods.setdefault(name, []).extend(found)
    figures: dict[str, Any] = {
        name: bootstrap([value for value, _ in found], median)
        | {"censored": float(np.mean([censored for _, censored in found]))}
        for name, found in methods.items()
    }
    searches = [cell["value"] for name, cell in figures.items() if name != "advisor"]
    if "advisor" in figures and searches and figures["advisor"]["value"]:
        figures["advisor"]["best_baseline_ratio"] = min(searches) / figures["advisor"]["value"]
    return figures


def regret_at_costs(units: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Mean regret of every method at ``COSTS`` full fine-tunes."""
    curves: dict[str, list[Any]] = {}
    for unit in units:
        for name, found in unit["search"]["curves"].items():
            curves.setdefault(name, []).extend(found)
    costs = np.array(COSTS)
    return {
        name: np.mean([np.minimum(at_costs(curve, costs), REGRET_CAP) for curve in found], axis=0).tolist()
        for name, found in curves.items()
    }


def summarise_defaults(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cost and regret of recipes without a search."""
    names = dict.fromkeys(name for unit in units for name in unit["search"]["defaults"])
    found = {}
    for name in names:
        points = [unit["search"]["defaults"][name] for unit in units if name in unit["search"]["defaults"]]
        found[name] = {
            "cost": float(np.mean([cost for cost, _ in points])),
            "regret": bootstrap(capped([regret for _, regret in points])),
        }
    return found


def summarise_suites(judged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Figures pooled over suites: every (suite, seed) is a unit."""
    suites = list(judged.values())
    regrets = [value for suite in suites for value in suite["regret"]["each"]]
    floors = [suite["ceiling"]["noise_floor"]["value"] for suite in suites]
    means = {name: suite["regret"]["value"] for name, suite in judged.items()}

    def across(group: str, name: str) -> dict[str, Any]:
        values = [suite[group][name]["value"] for suite in suites]
        return dict(bootstrap([math.nan if value is None else value for value in values]))

    return {
        "regret": bootstrap(capped(regrets)),
        "worst_suite": max(means, key=lambda name: means[name]),
        "worst_suite_regret": max(means.values()),
        "noise_floor": bootstrap([math.nan if value is None else value for value in floors]),
        "rank": {name: across("rank", name) for name in RANKS},
        "ceiling": {name: across("ceiling", name) for name in RANKS},
        "calibration": {name: across("calibration", name) for name in CALIBRATIONS},
        "arms": summarise_arms([unit for suite in suites for unit in suite["arm_units"]]),
        "overhead": overhead_figures([unit for suite in suites for unit in suite["overhead_units"]]),
        "overhead_within_noise": overhead_figures(
            [unit for suite in suites for unit in suite["overhead_units_within_noise"]]
        ),
    }
