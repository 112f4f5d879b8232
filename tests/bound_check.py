r"""Random problems against the bound: every promise over the exact truth, stratified by eta L K.

Three families, so that no constant can hide behind a loose one:

    convex    quadratics with positive Hessians, judged with g = 1 where the theorem allows it
    general   the same kind, judged with g = 1 + eta L a_k, momentum and schedules too
    saddle    Hessians with negative eigenvalues, where experts do run away as fast as (1 + eta L)^K: displacement and
              stability only, since nothing has a floor

A ratio below 1 is a violation.  The corners (one sample, one step, b = n, unequal recipes, one-hot merges, shares equal
to the goal) are drawn often, as the bound is tight there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.bound import BoundConstants, RiskTerms, worst_case
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe
from tests.exact_moments import Truth, exact_constants, exact_truth
from tests.known_problems import QuadraticProblem, QuadraticTask, random_quadratic_problem, random_rotation, symmetric

Array = NDArray[np.float64]
Family = Literal["convex", "general", "saddle"]
FAMILIES: tuple[Family, ...] = ("convex", "general", "saddle")
STRATA = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)  # edges of eta L K
CORNERS = ("", "noise", "overfit", "lopsided")  # noise alone · one sample learned by heart · unequal everything
CORNER_SHARES = (0.7, 0.1, 0.1, 0.1)
ROUNDING = 1e-9
MAX_STEPS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One random problem with one plan, what is true of it and what the bound is told."""

    family: Family
    plan: Plan
    table: PlanTable
    truth: Truth
    constants: BoundConstants
    steepness: float  # largest eta L K

    @property
    def stratum(self) -> int:
        """Index of the stratum that ``steepness`` lies in."""
        return int(np.searchsorted(STRATA, self.steepness, side="right")) - 1


def random_case(rng: np.random.Generator, family: Family, stratum: int | None = None) -> Case:
    """Draw a case, in one stratum of eta L K or any."""
    chosen = int(rng.integers(len(STRATA) - 1)) if stratum is None else stratum
    corner = "" if family == "saddle" else str(rng.choice(CORNERS, p=CORNER_SHARES))
    problem = _random_problem(rng, family, corner)
    num_samples = rng.choice([1, 1, 2, 5, 30, 300, 10_000], len(problem.tasks))
    if corner in ("noise", "overfit"):
        num_samples[:] = 10_000 if corner == "noise" else 1
    recipes = _random_recipes(rng, family, corner, problem.smoothness, num_samples, chosen)
    coefficients = np.ones(1) if len(recipes) == 1 and corner else _random_coefficients(rng, problem, recipes)
    names = problem.names
    plan = Plan(
        recipes=dict(zip(names, recipes, strict=True)),
        coefficients=dict(zip(names, coefficients.tolist(), strict=True)),
    )
    bounded = family != "saddle"
    return Case(
        family=family,
        plan=plan,
        table=PlanTable.from_plans([plan], dict(zip(names, num_samples.tolist(), strict=True))),
        truth=exact_truth(problem, plan, num_samples, bounded=bounded),
        constants=exact_constants(problem, num_samples, use_pl=bool(rng.random() < 0.7), bounded=bounded),
        steepness=max(recipe.learning_rate * problem.smoothness * recipe.steps for recipe in recipes),
    )


def _random_problem(rng: np.random.Generator, family: Family, corner: str) -> QuadraticProblem:
    alone = corner in ("noise", "overfit")  # one task of one curvature, begun at x*
    num_tasks = 1 if alone else int(rng.integers(2 if corner else 1, 5))
    low = 1.0 if alone else float(rng.choice([1.0, 10.0 ** -rng.uniform(0, 2.5)]))
    problem = random_quadratic_problem(
        rng,
        num_tasks=num_tasks,
        num_parameters=int(rng.integers(1, 5)),
        curvature=(low, 1.0),
        noise_scale=float(10 ** rng.uniform(-2, 1)),
        spread=0.0 if alone else float(10 ** rng.uniform(-1.5, 0.5)),
        task_weights=[1 / num_tasks] * num_tasks if rng.random() < 0.5 else None,
    )
    if family == "saddle":
        return _with_saddles(rng, problem)
    if corner == "lopsided" or rng.random() < 0.2:  # some tasks far flatter than others
        return _rescaled(problem, 10 ** rng.uniform(-2, 0, num_tasks))
    return problem


def _with_saddles(rng: np.random.Generator, problem: QuadraticProblem) -> QuadraticProblem:
    tasks = []
    for task in problem.tasks:
        values = np.abs(np.linalg.eigvalsh(task.hessian)) * rng.choice([-1.0, -1.0, 1.0], len(task.centre))
        axes = random_rotation(rng, len(values))
        tasks.append(
            QuadraticTask(hessian=symmetric(axes * values @ axes.T), centre=task.centre, covariance=task.covariance)
        )
    return QuadraticProblem(tasks=tuple(tasks), start=problem.start, task_weights=problem.task_weights)


def _rescaled(problem: QuadraticProblem, factors: Array) -> QuadraticProblem:
    tasks = tuple(
        QuadraticTask(hessian=task.hessian * factor, centre=task.centre, covariance=task.covariance)
        for task, factor in zip(problem.tasks, factors, strict=True)
    )
    return QuadraticProblem(tasks=tasks, start=problem.start, task_weights=problem.task_weights)


def _random_recipes(
    rng: np.random.Generator, family: Family, corner: str, smoothness: float, num_samples: Array, stratum: int
) -> list[Recipe]:
    """Recipes, equal or each its own; the first has eta L K in the stratum, and g = 1 needs eta L <= 2."""
    low, high = max(STRATA[stratum], 1e-3), min(STRATA[stratum + 1], 60.0)
    target = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * (1 - 1e-12)
    steepest = 2.0 if family == "convex" else 3.0
    fewest = max(1, int(np.ceil(target / steepest)))
    shared = rng.random() < 0.4 and corner != "lopsided"
    recipes: list[Recipe] = []
    for index, n in enumerate(num_samples):
        if recipes and shared:
            recipes.append(recipes[0])
            continue
        steps = int(np.exp(rng.uniform(np.log(fewest), np.log(MAX_STEPS + 1)))) if rng.random() < 0.8 else fewest
        batch = int(rng.choice([1, 1, 4, 32, min(int(n), 300), 500]))
        if corner == "overfit":
            steps, batch = MAX_STEPS, 500
        fraction = 1.0 if index == 0 else float(rng.choice([1.0, 0.3, 0.03]))
        momentum = family != "convex" and not corner and rng.random() < 0.3
        recipes.append(
            Recipe(
                learning_rate=target * fraction / (smoothness * steps),
                batch_size=batch,
                steps=steps,
                optimizer="momentum" if momentum else "sgd",
                momentum=float(rng.uniform(0.1, 0.95)) if momentum else 0.0,
                schedule="warmup_cosine" if rng.random() < 0.25 else "constant",
                sampling="with_replacement",
            )
        )
    return recipes


def _random_coefficients(rng: np.random.Generator, problem: QuadraticProblem, recipes: Sequence[Recipe]) -> Array:
    weights = problem.task_weights
    kind = rng.integers(5)
    if kind == 0:
        return np.full(len(weights), 1 / len(weights))
    if kind == 1:  # a single expert
        return np.asarray(np.eye(len(weights))[int(rng.integers(len(weights)))])
    if kind == 2:  # shares equal to the goal, as strong as lambda = 1 for the expert that went least
        inverse = weights / np.array([recipe.learning_rate * recipe.step_weights().sum() for recipe in recipes])
        return np.asarray(inverse / inverse.max())
    if kind == 3:
        return np.ones(len(weights))
    return np.asarray(rng.dirichlet(np.ones(len(weights))) * rng.uniform(0.2, 3.0))


Bound = Callable[..., RiskTerms]


def ratios(case: Case, bound: Bound = worst_case) -> dict[str, float]:
    """Promise over truth for everything the bound promises of a case; below 1 is a violation."""
    growth = "convex" if case.family == "convex" else "general"
    terms = bound(case.constants, case.table, growth=growth)
    truth, found = case.truth, {}
    found["displacement"] = _smallest(terms.value("displacement")[0], truth.displacement)
    found["stability"] = _smallest(terms.value("stability")[0], truth.stability)
    paper = paper_ratio(case, bound)
    if paper is not None:
        found["paper stability"] = paper
    if case.family != "saddle":
        for name in ("optimization", "merged_risk", "generalisation", "total"):
            found[name] = _smallest(terms.value(name), np.array([getattr(truth, name)]))
    return found


def paper_ratio(case: Case, bound: Bound = worst_case) -> float | None:
    """The paper's form of the stability over the truth, where it is a bound at all: K <= n b."""
    covered = case.table.steps[0] <= case.table.num_samples[0] * case.table.batch_size[0]
    if not covered.any():
        return None
    growth = "convex" if case.family == "convex" else "general"
    promised = bound(case.constants, case.table, form="paper", growth=growth).value("stability")[0]
    return _smallest(promised[covered], case.truth.stability[covered])


def _smallest(promised: Array, true: Array) -> float:
    """Least promise/truth; a truth that is not positive is kept by any promise of at least 0."""
    safe = np.where(true > 0, true, 1.0)
    return float(np.where(true > 0, promised / safe, np.inf).min())


def violations(cases: Iterable[Case], bound: Bound = worst_case) -> dict[str, int]:
    """How many cases break each promise."""
    broken: dict[str, int] = {}
    for case in cases:
        for name, ratio in ratios(case, bound).items():
            broken[name] = broken.get(name, 0) + (not ratio >= 1 - ROUNDING)
    return broken


def breaks(cases: Iterable[Case], promise: str) -> bool:
    """Whether some case breaks a promise; stops at the first."""
    if promise == "paper stability":
        found = (paper_ratio(case) for case in cases)
        return any(ratio is not None and not ratio >= 1 - ROUNDING for ratio in found)
    judged = (case for case in cases if promise in ("displacement", "stability") or case.family != "saddle")
    return any(not ratios(case)[promise] >= 1 - ROUNDING for case in judged)


def draw_cases(seed: int, per_stratum: int) -> list[Case]:
    """``per_stratum`` cases for every family and stratum of eta L K."""
    rng = np.random.default_rng(seed)
    return [
        random_case(rng, family, stratum)
        for family in FAMILIES
        for stratum in range(len(STRATA) - 1)
        for _ in range(per_stratum)
    ]
