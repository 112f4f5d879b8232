r"""What a user would have done without advice, at equal cost.

Named default recipes as published: FusionBench (SGD 1e-3, cosine, batch 64), task vectors (AdamW 1e-5, cosine, batch
128), and plain SGD at the rate that a learning-rate range test suggests.  Each baseline may spend exactly what the
advice and its experts took; its experts are merged by the simple average and by the best single lambda, chosen on
validation data.  Joint multi-task training spends the same on one model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from advisor.merged_risks import EvaluateMany, MergedRisks, finite_risk
from advisor.plan import Plan
from advisor.training import TrainMany, train_runs
from advisor.unfinished import measured_once, piece_name
from estimators.cost import FORWARD_UNITS, CostMeter
from estimators.fine_tuning import Control, Run, fine_tune
from estimators.joint_training import join_tasks
from estimators.objectives import ClassificationObjective
from estimators.recipe import Recipe
from estimators.snapshot_folder import NotKept, Pieces
from estimators.tasks import Task

LAMBDA_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0)
RANGE_TEST_BATCH = 32


class TrainingInterrupted(RuntimeError):
    """Training stopped before its end because of a deadline or a request to stop."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contender:
    """A model to compare with.

    Attributes:
        name: what it is, e.g. ``average: FusionBench``.
        weights: shared weights [P]; ``None`` if training diverged, which is an outcome to compare too.
        experts: task -> its expert's weights [D] (for trained heads); empty for joint training.
        cost: units of making it.
        note: how it was made.
    """

    name: str
    weights: Tensor | None
    experts: Mapping[str, Tensor]
    cost: float
    note: str


def default_recipes(
    range_suggestion: float, *, smallest_task: int, affordable: float, num_tasks: int
) -> dict[str, Recipe]:
    """The named defaults, with as many steps as ``affordable`` units pay for.

    Args:
        range_suggestion: learning rate from the range test.
        smallest_task: training samples of the smallest task; batches are not larger.
        affordable: units for training all experts of one baseline.
        num_tasks: tasks to train.
    """
    named = {
        "FusionBench": (1e-3, 64, "sgd", "warmup_cosine"),
        "task vectors": (1e-5, 128, "adamw", "warmup_cosine"),
        "range test": (range_suggestion, RANGE_TEST_BATCH, "sgd", "constant"),
    }
    recipes = {}
    for name, (rate, batch, optimizer, schedule) in named.items():
        size = min(batch, smallest_task)
        steps = max(1, int(affordable / (num_tasks * size)))
        recipes[name] = Recipe(
            learning_rate=rate,
            batch_size=size,
            steps=steps,
            optimizer=optimizer,  # type: ignore[arg-type]
            schedule=schedule,  # type: ignore[arg-type]
        )
    return recipes


def selection_cost(validation_samples: Mapping[str, int]) -> float:
    """Units of choosing lambda on the grid with all validation samples."""
    return len(LAMBDA_GRID) * FORWARD_UNITS * sum(validation_samples.values())


def merge_defaults(
    name: str,
    recipe: Recipe,
    tasks: Mapping[str, Task],
    objectives: Mapping[str, ClassificationObjective],
    *,
    goal: Callable[[Mapping[str, float]], float],
    seed: int,
    control: Control | None = None,
    kept: Pieces | None = None,
    train: TrainMany = train_runs,
    elsewhere: EvaluateMany | None = None,
) -> list[Contender]:
    """Train experts with one default recipe; merge them by the simple average and by the best single lambda.

    Args:
        name: of the default.
        recipe: the recipe of every expert.
        tasks: tasks with fitted heads.
        objectives: their losses.
        goal: task risks -> goal risk (mean or worst).
        seed: seed of the runs.
        control: asked between steps whether to go on.
        kept: where training and measured merges are kept on the way.
        train: trains many runs, here or on workers.
        elsewhere: evaluates on workers.

    Returns:
        The simple average and the best single lambda; one contender without weights if an expert diverged.
    """
    meter, kept = CostMeter(), NotKept() if kept is None else kept
    runs = [Run(task=task, recipe=recipe, seed=seed) for task in tasks]
    trains = {task: value.train for task, value in tasks.items()}
    groups = train(objectives, trains, runs, meter=meter, control=control, snapshots=kept)
    done = [result for group in groups for result in group]
    if any(result.outcome in ("stopped", "deadline") for result in done):
        raise TrainingInterrupted(f"baseline {name!r} was interrupted: {done[-1].cause}; run the command again")
    lost = [result for result in done if result.outcome == "diverged"]
    if lost:
        note = f"{recipe.describe()}; the expert for {lost[0].run.task} diverged ({lost[0].cause})"
        return [Contender(name=f"average: {name}", weights=None, experts={}, cost=meter.units, note=note)]
    experts = {result.run.task: result.weights for result in done}
    training = meter.units
    validations = {task: value.validation for task, value in tasks.items()}
    measured = MergedRisks(objectives=objectives, splits=validations, elsewhere=elsewhere)
    start = next(iter(objectives.values())).initial

    def merged(coefficient: float) -> Tensor:
        return measured.merge(Plan.uniform(list(tasks), recipe, coefficient), start, experts)

    def risk(coefficient: float) -> float:
        def measure(own: CostMeter) -> dict[str, Any]:
            measured.meter = own
            evaluations = measured.evaluate(merged(coefficient), experts)
            risks = {task: finite_risk(value.risk) for task, value in evaluations.items()}
            return {task: value if math.isfinite(value) else None for task, value in risks.items()}

        known = measured_once(kept, piece_name("lambda", recipe.to_json(), seed, coefficient), meter, measure)
        return goal({task: math.inf if known[task] is None else float(known[task]) for task in tasks})

    best = min(LAMBDA_GRID, key=risk)
    average = 1.0 / len(tasks)
    how = f"{recipe.describe()}; "
    return [
        Contender(
            name=f"average: {name}",
            weights=merged(average),
            experts=experts,
            cost=training,
            note=f"{how}lambda 1/{len(tasks)}",
        ),
        Contender(
            name=f"best lambda: {name}",
            weights=merged(best),
            experts=experts,
            cost=meter.units,
            note=f"{how}lambda {best:g} chosen on validation data from {len(LAMBDA_GRID)}",
        ),
    ]


def train_jointly(
    recipe: Recipe,
    tasks: Mapping[str, Task],
    objectives: Mapping[str, ClassificationObjective],
    task_weights: Mapping[str, float],
    *,
    affordable: float,
    seed: int,
    control: Control | None = None,
    kept: Pieces | None = None,
) -> Contender:
    """One model on all tasks at once, with the advised optimizer and rate; without weights if it diverged.

    The batch is N times the recipe's, so that a step sees as much of every task as an expert's step, for as many steps
    as ``affordable`` units pay for.
    """
    objective, pool = join_tasks(next(iter(objectives.values())).backbone, tasks, task_weights)
    batch = min(recipe.batch_size * len(tasks), len(pool))
    joint = recipe.replace(batch_size=batch, steps=max(1, int(affordable / batch)), num_samples=None)
    meter = CostMeter()
    run = Run(task="joint", recipe=joint, seed=seed)
    result = fine_tune(objective, pool, run, meter=meter, control=control, snapshots=kept)
    if result.outcome in ("stopped", "deadline"):
        raise TrainingInterrupted(f"joint training was interrupted: {result.cause}; run the command again")
    is_lost = result.outcome == "diverged"
    return Contender(
        name="joint training",
        weights=None if is_lost else result.weights.to(objective.initial.device),
        experts={},
        cost=meter.units,
        note=f"{joint.describe()} on all tasks at once" + (f"; diverged ({result.cause})" if is_lost else ""),
    )
