"""Merges across recipes, merges that leave tasks out, and joint training: the rows that equal recipes cannot give.

Experts come from the pool of stored checkpoints.  Those whose merge with the smallest coefficient is far worse than
x_0 are left out of the pool: a plan that holds one is a collapse, which the equal recipes already show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from benchmarks.suite_grid import Grid
from benchmarks.suite_inputs import SuiteInputs
from benchmarks.suite_measuring import Merger, Part, Row, Samples, recipe_key
from estimators.fine_tuning import Run, fine_tune
from estimators.joint_training import join_tasks
from estimators.recipe import Recipe
from estimators.sampling import stable_seed

POOL_LIMIT = 1.15  # pool groups whose mildest merge has at most this multiple of x_0's validation risk
COEFFICIENT_RANGE = (0.05, 0.8)
SUBSET_COEFFICIENTS = (0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolEntry:
    """Experts of all tasks at one checkpoint of one recipe."""

    recipe: Recipe
    steps: int
    experts: Mapping[str, Tensor]


def mildest_risk(part: Part, recipe: Recipe, steps: int, names: Sequence[str]) -> float:
    """Mean validation risk of the equal-recipe merge with the smallest coefficient."""
    group = next(
        row["group"]
        for row in part.groups
        if all(row[f"recipe_{n}"] == recipe_key(recipe) and row[f"steps_{n}"] == steps for n in names)
    )
    rows = [row for row in part.merges if row["group"] == group and row["kind"] == "uniform"]
    mildest = min(rows, key=lambda row: row[f"coefficient_{names[0]}"])
    return float(np.mean([mildest[f"validation_{name}"] for name in names]))


def measure_mixed(merger: Merger, grid: Grid, pool: Sequence[PoolEntry]) -> Part:
    """Plans with a recipe, a length and a coefficient of its own for each task."""
    part = Part()
    generator = np.random.default_rng(stable_seed(merger.seed, "mixed"))
    for _ in range(grid.mixed if len(pool) > 1 else 0):
        chosen = {name: pool[int(generator.integers(len(pool)))] for name in merger.names}
        low, high = COEFFICIENT_RANGE
        values = {name: round(float(generator.uniform(low, high)), 3) for name in merger.names}
        row, taus = merger.group(
            {name: (entry.recipe, entry.steps) for name, entry in chosen.items()},
            {name: entry.experts[name] for name, entry in chosen.items()},
        )
        part.groups.append(row)
        part.merges.append(merger.merge(row["group"], taus, values, kind="mixed"))
    return part


def measure_subsets(merger: Merger, grid: Grid, pool: Sequence[PoolEntry]) -> Part:
    """Equal recipes with some tasks left out: between one and all but one task is merged."""
    part = Part()
    generator = np.random.default_rng(stable_seed(merger.seed, "subsets"))
    for _ in range(grid.subsets if pool and len(merger.names) > 1 else 0):
        entry = pool[int(generator.integers(len(pool)))]
        size = int(generator.integers(1, len(merger.names)))
        kept = set(generator.choice(merger.names, size=size, replace=False).tolist())
        value = float(generator.choice(SUBSET_COEFFICIENTS))
        row, taus = merger.group({name: (entry.recipe, entry.steps) for name in merger.names}, entry.experts)
        values = {name: value if name in kept else 0.0 for name in merger.names}
        part.merges.append(merger.merge(row["group"], taus, values, kind="subset"))
    return part


def measure_joint(inputs: SuiteInputs, samples: Mapping[str, Samples], grid: Grid, *, seed: int) -> Part:
    """Joint training on the pooled tasks, evaluated like a merge; a row's cost is batch size times steps."""
    part = Part()
    objective, pool = join_tasks(
        inputs.backbone, {task.name: task for task in inputs.tasks}, dict.fromkeys(inputs.names, 1.0)
    )
    for block in grid.joint:
        for recipe in block.recipes():
            run = Run(task="joint", recipe=recipe, seed=seed, checkpoints=grid.checkpoints_of(recipe))
            result = fine_tune(objective, pool, run)
            for steps in grid.checkpoints_of(recipe):
                weights = result.checkpoints.get(steps)
                row: Row = {"seed": seed, "recipe": recipe_key(recipe), "settings": recipe.to_json(), "step": steps}
                for name in inputs.names:
                    figures = samples[name].figures(weights)
                    row |= {f"{figure}_{name}": value for figure, value in figures.items()}
                part.joint.append(row)
    return part


def usable(
    part: Part, recipe: Recipe, steps: int, experts: Mapping[str, Tensor | None], initial: Mapping[str, float]
) -> bool:
    """Whether a checkpoint may serve in mixed plans; ``initial`` is x_0's validation risk of each task."""
    if any(value is None for value in experts.values()):
        return False
    risk = mildest_risk(part, recipe, steps, tuple(initial))
    return math.isfinite(risk) and risk <= POOL_LIMIT * float(np.mean(list(initial.values())))
