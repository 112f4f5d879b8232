r"""One-dimensional problems with bounded gradients, simulated: cosine (not convex) and log cosh (convex) losses.

Curvature differs from sample to sample and steps are not linear, so nothing is known in closed form: the truth is a
mean over replicas of the data and of the draws, and a promise counts as broken when the mean exceeds it by more than
``TOLERANCE`` standard errors.  At 4.5, one test in 300 000 raises a false alarm by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.bound import BoundConstants, worst_case
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe
from tests.bound_check import Bound
from tests.known_problems import ScalarProblem, random_scalar_problem

Array = NDArray[np.float64]
Kind = Literal["cosine", "log_cosh"]
TOLERANCE = 4.5  # standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarCase:
    """A simulated case: ``measured`` gives mean and standard error of everything that the bound promises."""

    kind: Kind
    table: PlanTable
    constants: BoundConstants
    measured: dict[str, tuple[Array, Array]]
    steepness: float

    def excess(self, bound: Bound = worst_case) -> dict[str, float]:
        """By how many standard errors the truth exceeds the promise, and the worst among experts."""
        terms = bound(self.constants, self.table, growth="convex" if self.kind == "log_cosh" else "general")
        promised = {"displacement square": terms.value("displacement") ** 2}
        promised |= {name: terms.value(name) for name in self.measured if name != "displacement square"}
        return {
            name: float(np.max((mean - promised[name].ravel()) / np.maximum(error, 1e-12)))
            for name, (mean, error) in self.measured.items()
        }

    def ratio(self, name: str) -> float:
        """Promise over the measured mean."""
        terms = worst_case(self.constants, self.table, growth="convex" if self.kind == "log_cosh" else "general")
        value = terms.value("displacement") ** 2 if name == "displacement square" else terms.value(name)
        mean = self.measured[name][0]
        return float(np.where(mean > 0, value.ravel() / np.where(mean > 0, mean, 1.0), np.inf).min())


def simulate_expert(
    problem: ScalarProblem, index: int, recipe: Recipe, data: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Final weights [R], final weights with sample 0 replaced [R], squared displacement by step [K, R]."""
    task = problem.tasks[index]
    replicas, n = data.shape
    other = data.copy()
    other[:, 0] = rng.integers(len(task.atoms), size=replicas)
    row = np.arange(replicas)[:, None]
    x = np.full((2, replicas), problem.start)
    velocity = np.zeros_like(x)
    path = np.zeros((recipe.steps, replicas))
    for k, factor in enumerate(recipe.schedule_factors()):
        drawn = rng.integers(n, size=(replicas, recipe.batch_size))
        batch = np.stack([data[row, drawn], other[row, drawn]])
        velocity = recipe.momentum * velocity + task.gradients(x[..., None], batch).mean(-1)
        x = x - recipe.learning_rate * factor * velocity
        path[k] = (x[0] - problem.start) ** 2
    return x[0], x[1], path


def scalar_case(rng: np.random.Generator, kind: Kind, replicas: int = 2000) -> ScalarCase:
    """Draw and simulate a case with one or two tasks."""
    problem = random_scalar_problem(rng, kind, num_tasks=int(rng.integers(1, 3)))
    num_tasks = len(problem.tasks)
    num_samples = rng.choice([1, 2, 5, 12], num_tasks)
    recipes = [_random_recipe(rng, kind, problem.smoothness) for _ in range(num_tasks)]
    coefficients = rng.choice([1.0, 1 / num_tasks, float(rng.uniform(0.1, 1.5))], num_tasks)
    plan = Plan(
        recipes=dict(zip(problem.names, recipes, strict=True)),
        coefficients=dict(zip(problem.names, coefficients.tolist(), strict=True)),
    )
    data = [
        rng.integers(len(task.atoms), size=(replicas, n)) for task, n in zip(problem.tasks, num_samples, strict=True)
    ]
    runs = [simulate_expert(problem, i, recipe, data[i], rng) for i, recipe in enumerate(recipes)]
    merged = problem.start + sum(c * (run[0] - problem.start) for c, run in zip(coefficients, runs, strict=True))
    counts = [
        np.stack([(d == atom).mean(1) for atom in range(len(t.atoms))], 1)
        for d, t in zip(data, problem.tasks, strict=True)
    ]
    return ScalarCase(
        kind=kind,
        table=PlanTable.from_plans([plan], dict(zip(problem.names, num_samples.tolist(), strict=True))),
        constants=_constants(problem, num_samples, counts),
        measured=_measured(problem, runs, np.asarray(merged), counts),
        steepness=max(recipe.learning_rate * problem.smoothness * recipe.steps for recipe in recipes),
    )


def _random_recipe(rng: np.random.Generator, kind: Kind, smoothness: float) -> Recipe:
    momentum = kind == "cosine" and rng.random() < 0.5
    return Recipe(
        learning_rate=float(np.exp(rng.uniform(np.log(0.01), np.log(2.0)))) / smoothness,
        batch_size=int(rng.choice([1, 2, 4])),
        steps=int(rng.integers(1, 31)),
        optimizer="momentum" if momentum else "sgd",
        momentum=float(rng.uniform(0.1, 0.9)) if momentum else 0.0,
        schedule="warmup_cosine" if rng.random() < 0.3 else "constant",
        sampling="with_replacement",
    )


def _mean_and_error(values: Array) -> tuple[Array, Array]:
    """Mean and standard error over the last axis."""
    return np.atleast_1d(values.mean(-1)), np.atleast_1d(values.std(-1) / np.sqrt(values.shape[-1]))


def _risk_on_grid(problem: ScalarProblem, counts: list[Array]) -> list[Array]:
    """F_i on the problem's grid for every replica, shape [R, grid]."""
    return [
        share @ task.losses(problem.grid[:, None], slice(None)).T
        for task, share in zip(problem.tasks, counts, strict=True)
    ]


def _lowest(problem: ScalarProblem, risk: Array) -> Array:
    """The minimum over x, lower than the grid's by what curvature L can hide between two points."""
    spacing = problem.grid[1] - problem.grid[0]
    return np.asarray(risk.min(1) - problem.smoothness * spacing**2 / 8)


def _measured(
    problem: ScalarProblem, runs: list[tuple[Array, Array, Array]], merged: Array, counts: list[Array]
) -> dict[str, tuple[Array, Array]]:
    weights, tasks = problem.task_weights, problem.tasks
    paths = [_mean_and_error(run[2]) for run in runs]
    latest = [int(mean.argmax()) for mean, _ in paths]
    population = np.asarray(sum(p * task.risk(merged) for p, task in zip(weights, tasks, strict=True)))
    empirical = np.asarray(
        sum(
            p * (share * task.losses(merged[:, None], slice(None))).sum(1)
            for p, task, share in zip(weights, tasks, counts, strict=True)
        )
    )
    risks = _risk_on_grid(problem, counts)
    floor = _lowest(problem, np.asarray(sum(p * risk for p, risk in zip(weights, risks, strict=True))))
    goal = np.asarray(sum(p * task.risk(problem.grid) for p, task in zip(weights, tasks, strict=True)))
    return {
        "displacement square": (
            np.array([mean[k] for (mean, _), k in zip(paths, latest, strict=True)]),
            np.array([error[k] for (_, error), k in zip(paths, latest, strict=True)]),
        ),
        "stability": _mean_and_error(np.stack([(run[0] - run[1]) ** 2 for run in runs])),
        "optimization": _mean_and_error(empirical - floor),
        "merged_risk": _mean_and_error(empirical),
        "generalisation": _mean_and_error(population - empirical),
        "total": _mean_and_error(population - _lowest(problem, goal[None])),
    }


def _constants(problem: ScalarProblem, num_samples: NDArray[np.int64], counts: list[Array]) -> BoundConstants:
    """Constants on the safe side of their own sampling error (5 standard errors, 1 % for the grid)."""
    weights, grid, start = problem.task_weights, problem.grid, np.array([problem.start])
    variance, sampling, slope, risk = [], [], [], []
    for task, share, n in zip(problem.tasks, counts, num_samples, strict=True):
        away = (task.gradients(grid[:, None], slice(None)) - task.gradient(grid)[:, None]) ** 2  # [grid, atoms]
        trained, error = _mean_and_error((share @ away.T).max(1))
        variance.append(1.01 * max(away.mean(1).max(), float(trained[0] + 5 * error[0])))
        slope.append(float(task.gradient(start)[0]))
        sampling.append(float(np.var(task.gradients(start[:, None], slice(None))) / n))
        risk.append(float(task.risk(start)[0]))
    gram = np.outer(slope, slope) + np.diag(sampling)
    initial = [
        (share * task.losses(start[:, None], slice(None))).sum(1)
        for task, share in zip(problem.tasks, counts, strict=True)
    ]
    risks = _risk_on_grid(problem, counts)

    def high(gap: Array) -> float:
        mean, error = _mean_and_error(gap)
        return float(mean[0] + 5 * error[0])

    goal_risk = sum(p * r for p, r in zip(weights, risks, strict=True))
    gap = sum(p * s for p, s in zip(weights, initial, strict=True)) - _lowest(problem, np.asarray(goal_risk))
    return BoundConstants(
        names=problem.names,
        task_weights=weights,
        num_samples=num_samples.astype(float),
        smoothness=problem.smoothness,
        task_smoothness=np.array([task.smoothness for task in problem.tasks]),
        gradient_variance=np.array(variance),
        initial_gradient_norm=np.sqrt(np.diag(gram)),
        initial_risk=np.array(risk),
        gradient_gram=gram,
        initial_gap=high(np.asarray(gap)),
        task_gap=np.array([high(s - _lowest(problem, r)) for s, r in zip(initial, risks, strict=True)]),
    )
