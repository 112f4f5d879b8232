r"""Figures 3 and 4: regret against cost, and how much a search costs beyond the training it ends with.

    regret    (test risk of what is recommended - best of the grid) / (test risk of x_0 - best of the grid)
    overhead  cost at which a method first stays within 5 % regret, less the training of the recipe it recommends then
              (only where that training is part of the cost), in full fine-tunes; censored at the whole grid.  Reported
           for 5 % and for the larger of 5 % and the noise floor, below which no method can tell recipes apart

Paired units are (suite seed, sampler seed); the advisor draws nothing, so a unit's first advice is its suite seed's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import TRIALS, Table, default_curves, joint_regret, regrets, search_curve
from benchmarks.judge_advisor import CurvePoint, advisor_curve
from benchmarks.suite_format import FloatArray, Suite, candidate_plans, evaluation_units
from benchmarks.suite_replay import Replay
from estimators.files import read_json, write_json

WITHIN = 0.05
CURVE_POINTS = 40
SEARCHES = (("random", True), ("tpe", True), ("gp", True), ("hyperband", True), ("random", False), ("tpe", False))

Curve = tuple[FloatArray, FloatArray]  # cost in full fine-tunes, regret


def overhead(
    points: Sequence[CurvePoint], regret: FloatArray, suite: Suite, whole_grid: float, within: float = WITHIN
) -> tuple[float, bool]:
    """Overhead of a curve in full fine-tunes, and whether it was censored."""
    inside = regret <= within
    stays = [bool(inside[k:].all()) for k in range(len(regret))]
    if not any(stays):
        return whole_grid / suite.full_fine_tune, True
    point = points[stays.index(True)]
    return (point.cost - (point.training if point.trained else 0.0)) / suite.full_fine_tune, False


def whole_grid_cost(suite: Suite, seed: int) -> float:
    """Units of heads, x_0, training every stored run to its end and measuring every candidate."""
    table = Table(suite, seed)
    training = sum(len(suite.tasks) * recipe.cost() for recipe in table.runs.values())
    return float(table.cost + training + len(table.candidates) * evaluation_units(suite, seed))


def step_curve(points: Sequence[CurvePoint], regret: FloatArray, suite: Suite) -> Curve:
    """Cost in full fine-tunes and regret, one step a point."""
    return np.array([point.cost for point in points]) / suite.full_fine_tune, regret


def at_costs(curve: Curve, costs: FloatArray) -> FloatArray:
    """Regret of a step curve at given costs; 1 (x_0 kept) before its first point."""
    position = np.searchsorted(curve[0], costs, side="right") - 1
    return np.where(position >= 0, curve[1][np.maximum(position, 0)], 1.0)


def search_results(suite: Suite, seed: int, sampler_seeds: Sequence[int], cache: Path | None) -> dict[str, list[Any]]:
    """Curves of every search method, cached by the content of the suite and of the search."""
    found: dict[str, list[Any]] = {}
    for method, refined in SEARCHES:
        label = method if refined else f"{method} (naive)"
        for sampler_seed in sampler_seeds:
            name = _cache_name(suite, seed, method, refined, sampler_seed)
            path = None if cache is None else cache / f"{name}.json"
            if path is not None and path.exists():
                points = [CurvePoint(**point) for point in read_json(path)]
            else:
                points = search_curve(suite, seed, method, sampler_seed=sampler_seed, refined=refined)
                if path is not None:
                    write_json(path, [_plain(point) for point in points])
            found.setdefault(label, []).append(points)
    return found


def _plain(point: CurvePoint) -> dict[str, Any]:
    return {"cost": point.cost, "choice": point.choice, "training": point.training, "trained": point.trained}


def _cache_name(suite: Suite, seed: int, method: str, refined: bool, sampler_seed: int) -> str:
    import optuna

    content = [
        suite.name,
        seed,
        method,
        refined,
        sampler_seed,
        TRIALS[method],
        optuna.__version__,
        hashlib.sha256(np.ascontiguousarray(suite.figures["validation"]).tobytes()).hexdigest(),
        hashlib.sha256(np.ascontiguousarray(suite.coefficients).tobytes()).hexdigest(),
        {str(number): recipe.to_json() for number, recipe in suite.recipes.items()},
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def judge_regret(
    suite: Suite,
    seed: int,
    replay: Replay | None,
    sampler_seeds: Sequence[int],
    cache: Path | None,
    *,
    noise_floor: float = 0.0,
) -> dict[str, Any]:
    """Overheads and curves of every method on one seed; ``replay`` is ``None`` where the advisor refused.

    Returns:
        ``overhead``: method -> list of (value, censored) within 5 %; ``overhead_within_noise``: the same within the
        larger of 5 % and ``noise_floor``; ``curves``: method -> list of curves; ``defaults``: name -> (cost, regret).
    """
    candidates = candidate_plans(suite, seed)
    initial, best = float(suite.initial(seed).mean()), float(candidates.test.min())
    grid = whole_grid_cost(suite, seed)
    curves: dict[str, list[Curve]] = {}
    strict: dict[str, list[tuple[float, bool]]] = {}
    lenient: dict[str, list[tuple[float, bool]]] = {}

    def book(label: str, points: Sequence[CurvePoint]) -> None:
        regret = regrets(points, candidates.test, initial)
        curves.setdefault(label, []).append(step_curve(points, regret, suite))
        strict.setdefault(label, []).append(overhead(points, regret, suite, grid))
        lenient.setdefault(label, []).append(overhead(points, regret, suite, grid, max(WITHIN, noise_floor)))

    if replay is not None:
        book("advisor", advisor_curve(suite, seed, replay=replay))
    for label, found in search_results(suite, seed, sampler_seeds, cache).items():
        for points in found:
            book(label, points)
    defaults = {
        label: (points[-1].cost / suite.full_fine_tune, float(regrets(points, candidates.test, initial)[-1]))
        for label, points in default_curves(suite, seed).items()
    }
    joint = joint_regret(suite, seed, best, initial) if best < initial else None
    if joint is not None:
        defaults["joint training"] = (joint[0] / suite.full_fine_tune, joint[1])
    return {
        "initial": initial,
        "best": best,
        "grid_cost": grid / suite.full_fine_tune,
        "overhead": strict,
        "overhead_within_noise": lenient,
        "curves": curves,
        "defaults": defaults,
    }
