"""The exact moments against plain SGD, run many times (z-tests: 5 standard errors a comparison)."""

import numpy as np
import pytest

from advisor.plan import Plan
from estimators.recipe import Recipe
from tests.exact_moments import exact_truth
from tests.known_problems import random_quadratic_problem

REPLICAS = 4000


def plain_sgd(task, start, recipe, data, rng):
    """Weights after every step, shape [K + 1, R, P], for R data sets [R, n, P], straight from the definition."""
    replicas, n, _ = data.shape
    x = np.broadcast_to(start, data[:, 0].shape).copy()
    velocity, path = np.zeros_like(x), [x]
    for factor in recipe.schedule_factors():
        drawn = data[np.arange(replicas)[:, None], rng.integers(n, size=(replicas, recipe.batch_size))]
        gradient = ((x[:, None] - drawn) @ task.hessian).mean(1)
        velocity = recipe.momentum * velocity + gradient
        x = x - recipe.learning_rate * factor * velocity
        path.append(x)
    return np.array(path)


def assert_same_mean(values, truth):
    """Values [R] have the mean ``truth`` within 5 standard errors."""
    assert abs(values.mean() - truth) <= 5 * values.std() / np.sqrt(len(values)), (values.mean(), truth)


RECIPES = [
    [Recipe(learning_rate=0.4, batch_size=2, steps=12), Recipe(learning_rate=0.1, batch_size=1, steps=5)],
    [
        Recipe(learning_rate=0.1, batch_size=2, steps=9, optimizer="momentum", momentum=0.7),
        Recipe(learning_rate=0.3, batch_size=4, steps=15, schedule="warmup_cosine"),
    ],
]


@pytest.mark.parametrize("recipes", RECIPES, ids=["sgd", "momentum and schedule"])
def test_exact_truth_is_what_plain_sgd_gives_on_average(recipes):
    rng = np.random.default_rng(12)
    problem = random_quadratic_problem(rng, num_tasks=2, num_parameters=3, curvature=(0.1, 1.0))
    num_samples, coefficients = np.array([3, 8]), np.array([0.9, 0.4])
    plan = Plan(
        recipes=dict(zip(problem.names, recipes, strict=True)),
        coefficients=dict(zip(problem.names, coefficients.tolist(), strict=True)),
    )
    truth = exact_truth(problem, plan, num_samples)
    merged, centres, spreads = problem.start, [], []
    for i, (task, recipe, n) in enumerate(zip(problem.tasks, recipes, num_samples, strict=True)):
        data = task.sample(REPLICAS * n, rng).reshape(REPLICAS, n, -1)
        path = plain_sgd(task, problem.start, recipe, data, rng)
        squares = ((path - problem.start) ** 2).sum(-1)
        assert_same_mean(squares[squares.mean(1).argmax()], truth.displacement[i] ** 2)
        twin = data.copy()
        twin[:, 0] = task.sample(REPLICAS, rng)
        seeds = np.random.default_rng(13), np.random.default_rng(13)
        first, second = (
            plain_sgd(task, problem.start, recipe, d, g)[-1] for d, g in zip((data, twin), seeds, strict=True)
        )
        assert_same_mean(((first - second) ** 2).sum(-1), truth.stability[i])
        merged = merged + coefficients[i] * (path[-1] - problem.start)
        centres.append(data.mean(1))
        within = data - centres[-1][:, None]
        spreads.append(0.5 * np.einsum("rni,ij,rnj->r", within, task.hessian, within) / n)

    def empirical(x):
        parts = []
        for task, p, centre, spread in zip(problem.tasks, problem.task_weights, centres, spreads, strict=True):
            away = x - centre
            parts.append(p * (0.5 * np.einsum("ri,ij,rj->r", away, task.hessian, away) + spread))
        return np.sum(parts, axis=0)

    pull = sum(p * c @ t.hessian for p, c, t in zip(problem.task_weights, centres, problem.tasks, strict=True))
    best = pull @ np.linalg.inv(problem.hessian)
    risk, population = empirical(merged), np.array([problem.risk(x) for x in merged])
    assert_same_mean(risk, truth.merged_risk)
    assert_same_mean(risk - empirical(best), truth.optimization)
    assert_same_mean(population - risk, truth.generalisation)
    assert_same_mean(population - problem.risk(problem.minimizer), truth.total)
