"""A stored suite whose every number follows from a formula, so that tests know the truth without training.

Risk of task t after merging experts with coefficient c at k steps of rate r and batch b: r0_t - gain + harm with
gain = 0.3 (1 - exp(-c r k)) and harm = 0.02 (c r k)^2 / b + 0.01 (c r k)^2; experts above rate 1 diverge.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from benchmarks.suite_grid import Block, Coefficients, EvaluationSizes, Grid
from benchmarks.suite_measuring import FIGURES, Part, Row, recipe_key
from benchmarks.suite_writing import write_suite
from estimators.constants import Constants, Estimate, TaskConstants
from estimators.recipe import Recipe

NAMES = ("a", "b")
INITIAL = {"a": 1.0, "b": 0.8}
SIZES = EvaluationSizes(probe=8, validation=16, test=32, train=4)
SEARCH = {"learning_rate": {"sgd": [0.01, 2.0]}, "batch_size": [4, 16], "steps": [2, 32]}


def synthetic_grid(seeds: tuple[int, ...] = (0, 1)) -> Grid:
    return Grid(
        seeds=seeds,
        checkpoints=(2, 8, 32),
        coefficients=Coefficients(short=(0.5, 1.0, 4.0), long=(0.25, 0.5, 1.0), short_steps=8),
        evaluation=SIZES,
        alone=1.5,
        blocks=(
            Block(optimizer="sgd", learning_rates=(0.01, 0.03, 0.1, 2.0), batch_sizes=(4,), steps=32),
            Block(optimizer="sgd", learning_rates=(0.03, 0.1), batch_sizes=(16,), steps=32),
        ),
    )


def risk(task: str, recipe: Recipe, steps: int, coefficients: dict[str, float], seed: int) -> float:
    if recipe.learning_rate > 1:
        return math.inf
    own = coefficients[task] * recipe.learning_rate * steps
    total = sum(coefficients.values()) * recipe.learning_rate * steps
    wobble = 1 + 0.001 * ((seed + 3 * steps + round(1000 * coefficients[task])) % 7)
    harm = (0.02 / recipe.batch_size + 0.01) * total**2
    return (INITIAL[task] - 0.3 * (1 - math.exp(-own)) + harm) * wobble


def figures(value: float) -> dict[str, float]:
    diverged = math.isinf(value)
    return {
        name: (0.0 if diverged else 0.01) if "error" in name else 0.5 if "accuracy" in name else value
        for name in FIGURES
    }


def synthetic_part(grid: Grid, seed: int) -> Part:
    part = Part()
    for recipe in grid.recipes:
        key = recipe_key(recipe)
        for name in NAMES:
            run = {"seed": seed, "recipe": key, "task": name}
            outcome = "diverged" if recipe.learning_rate > 1 else "finished"
            part.runs.append(
                run | {"settings": recipe.to_json(), "outcome": outcome, "cause": "", "steps_done": 32, "seconds": 0.1}
            )
            part.traces += [
                run
                | {
                    "step": k,
                    "loss": 1.0 / k,
                    "gradient_norm": 1.0,
                    "squared_displacement": (recipe.learning_rate * k) ** 2,
                }
                for k in (1, 2, 4, 8, 16, 32)
            ]
            part.experts += [
                run | {"step": k, **figures(risk(name, recipe, k, dict.fromkeys(NAMES, 1.0), seed))}
                for k in grid.checkpoints_of(recipe)
            ]
        for steps in grid.checkpoints_of(recipe):
            part.groups.append(_group(recipe, steps, seed))
            alone = grid.alone_at(recipe, steps, NAMES)
            merges = [(dict.fromkeys(NAMES, value), "uniform") for value in grid.coefficients.at(steps)]
            if alone is not None:
                merges.append(({name: 1.5 if name == alone else 0.0 for name in NAMES}, "alone"))
            part.merges += [_merge(recipe, steps, values, kind, seed) for values, kind in merges]
    return part


def _group(recipe: Recipe, steps: int, seed: int) -> Row:
    key, square = recipe_key(recipe), (recipe.learning_rate * steps) ** 2
    row: Row = {"seed": seed, "group": f"{seed}|{key}@{steps}"}
    for name in NAMES:
        row[f"recipe_{name}"], row[f"steps_{name}"] = key, steps
    diverged = recipe.learning_rate > 1
    for pair, value in (("a_a", square), ("a_b", 0.5 * square), ("b_b", square)):
        row[f"gram_{pair}"] = math.inf if diverged else value
    return row


def _merge(recipe: Recipe, steps: int, values: dict[str, float], kind: str, seed: int) -> Row:
    row: Row = {"group": f"{seed}|{recipe_key(recipe)}@{steps}", "kind": kind, "method": "task_arithmetic"}
    row |= {f"coefficient_{name}": value for name, value in values.items()}
    for name in NAMES:
        row |= {f"{key}_{name}": cell for key, cell in figures(risk(name, recipe, steps, values, seed)).items()}
    return row


def constants() -> Constants:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, low=0.5 * value, high=2 * value, num_samples=32)

    tasks = {
        name: TaskConstants(
            initial_risk=estimate(INITIAL[name]),
            initial_gradient_norm=estimate(0.5),
            gradient_variance=estimate(2.0),
            top_curvature=estimate(4.0),
            heterogeneity=estimate(0.1),
        )
        for name in NAMES
    }
    gram = tuple(tuple(estimate(0.25 if i == j else 0.05) for j in range(2)) for i in range(2))
    return Constants(
        tasks=tasks,
        num_samples=dict.fromkeys(NAMES, 64),
        num_classes=dict.fromkeys(NAMES, 4),
        num_parameters=100,
        gradient_gram=gram,
        cost=50.0,
    )


def write_synthetic(out: Path, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Write the suite and return its folder."""
    grid = synthetic_grid(seeds)
    record = {
        "tasks": list(NAMES),
        "num_samples": dict.fromkeys(NAMES, 64),
        "num_classes": dict.fromkeys(NAMES, 4),
        "num_parameters": 100,
        "evaluation": {"probe": 8, "validation": 16, "test": 32, "train": 4},
        "initial": {name: figures(INITIAL[name]) for name in NAMES},
        "head_cost": 12.0,
        "fingerprint": "0" * 64,
        "constants": constants().to_json(),
        "range_test": {"suggestion": 0.05, "cost": 100.0},
    }
    records = {seed: {"seed": seed, **record} for seed in seeds}
    parts = {seed: synthetic_part(grid, seed) for seed in seeds}
    write_suite(out, grid, records, parts, {"project": {"search": SEARCH}, "command": "synthetic"})
    return out


def best_uniform(grid: Grid, seed: int) -> float:
    """Lowest mean risk over plans with equal recipes, from the formula alone."""
    values = [
        np.mean([risk(name, recipe, steps, dict.fromkeys(NAMES, value), seed) for name in NAMES])
        for recipe in grid.recipes
        for steps in grid.checkpoints_of(recipe)
        for value in grid.coefficients.at(steps)
    ]
    return float(np.min(values))
