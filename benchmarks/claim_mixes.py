r"""Experts with unequal recipes, merged by the simple average, by the advisor's coefficients and tuned ones (claim 7).

The advisor's coefficients minimise the risk that the bound, fitted on short merges, predicts; they see no long expert.
Tuned ones are the best on validation samples among common coefficients, coefficients inverse to ||tau_i|| and the
advisor's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from advisor.bound_terms import chi_square, shares
from advisor.plan import FloatArray, Plan, PlanTable
from advisor.risk_model import RiskModel
from benchmarks.claim_design import MAIN
from benchmarks.claim_merging import Member, Row, UnitMerger, rounded
from benchmarks.claim_predictions import fit_model, goal_of
from benchmarks.claim_tables import UnitTable, risk
from estimators.recipe import Recipe

DRAWS, ROUNDS, KEPT = 1500, 3, 20
COMMON = (0.125, 0.25, 0.5, 0.75)
INVERSE_SUMS = (0.5, 1.0, 2.0)


def mixes(middle: int) -> dict[str, tuple[Member, Member, Member, Member]]:
    """Name -> run and step of each main task's expert."""
    half = middle // 4
    return {
        "one over-trained": (("fast", middle), ("base", half), ("base", half), ("base", half)),
        "learning rates": (("slow", middle), ("base", middle), ("fast", middle), ("base", middle)),
        "batch sizes": (("b2", middle), ("base", middle), ("b32", middle), ("base", middle)),
        "samples": (("n8", middle), ("n4", middle), ("n2", middle), ("base", middle)),
        "everything": (("fast", middle), ("base", half), ("n8", middle), ("b32", middle)),
    }


def measure_mixes(merger: UnitMerger, table: dict[str, Any]) -> list[Row]:
    """One row a mix: merges under the simple average, the advisor's and tuned coefficients, and what was predicted."""
    unit = UnitTable(data=table, predictions={})
    model = fit_model(unit)
    rows = []
    for name, chosen in mixes(middle=max(unit.steps("slow"))).items():
        members = dict(zip(MAIN, chosen, strict=True))
        recipes = {task: unit.recipe(run).replace(steps=step) for task, (run, step) in members.items()}
        average = dict.fromkeys(MAIN, 1 / len(MAIN))
        advised = best_coefficients(model, recipes)
        candidates = [merger.row("mix", members, dict.fromkeys(MAIN, value)) for value in COMMON]
        candidates += [merger.row("mix", members, cell) for cell in _inverse_lengths(merger, members)]
        candidates.append(merger.row("mix", members, advised))
        tuned = min(candidates, key=lambda row: risk(row, "validation"))
        predicted = goal_of(model, [Plan(recipes=recipes, coefficients=cell) for cell in (average, advised)])
        rows.append(
            {
                "mix": name,
                "members": {task: list(member) for task, member in members.items()},
                "chi_square": {"average": _chi(recipes, average), "advisor": _chi(recipes, advised)},
                "predicted": {"average": rounded(float(predicted[0])), "advisor": rounded(float(predicted[1]))},
                "average": candidates[COMMON.index(1 / len(MAIN))],
                "advisor": candidates[-1],
                "tuned": tuned,
            }
        )
    return rows


def best_coefficients(model: RiskModel, recipes: dict[str, Recipe]) -> dict[str, float]:
    """Coefficients in [0, 1.5] with the lowest predicted risk: random search that narrows around the best."""
    generator = np.random.default_rng(0)
    points = generator.uniform(0, 1.5, (DRAWS, len(MAIN)))
    common = np.linspace(0, 1, 21)[:, None] * np.ones(len(MAIN))
    points = np.concatenate([points, common])
    for number in range(ROUNDS + 1):
        values = _predicted(model, recipes, points)
        best = points[np.argsort(values)[:KEPT]]
        if number < ROUNDS:
            noise = generator.normal(0, 0.2 / 2**number, (DRAWS // KEPT, KEPT, len(MAIN)))
            points = np.concatenate([best, np.clip(best + noise, 0, 1.5).reshape(-1, len(MAIN))])
    return {task: round(float(value), 4) for task, value in zip(MAIN, best[0], strict=True)}


def _predicted(model: RiskModel, recipes: dict[str, Recipe], points: FloatArray) -> FloatArray:
    plans = [Plan(recipes=recipes, coefficients=dict(zip(MAIN, map(float, point), strict=True))) for point in points]
    return goal_of(model, plans)


def _inverse_lengths(merger: UnitMerger, members: dict[str, Member]) -> list[dict[str, float]]:
    """Coefficients inverse to ||tau_i||, with each of some sums."""
    vectors = {task: merger.task_vector(task, member) for task, member in members.items()}
    inverse = {task: 0.0 if vector is None else 1 / float(vector.norm()) for task, vector in vectors.items()}
    total = sum(inverse.values())
    return [{task: value / total * wanted for task, value in inverse.items()} for wanted in INVERSE_SUMS]


def _chi(recipes: dict[str, Recipe], coefficients: dict[str, float]) -> float | None:
    table = PlanTable.from_plans([Plan(recipes=recipes, coefficients=coefficients)], dict.fromkeys(recipes, 10**6))
    weights = np.full(len(recipes), 1 / len(recipes))
    travelled = table.coefficients * table.learning_rate * table.step_mass()
    return rounded(float(chi_square(weights, shares(travelled, weights))[0]))
