"""Training that was killed and goes on from its snapshot against training that never stopped: equal to the last bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.cost import CostMeter
from estimators.fine_tuning import FineTuned, Run, fine_tune_stack
from estimators.objectives import ClassificationObjective, Objective
from estimators.recipe import Recipe
from estimators.snapshot_folder import SnapshotFolder
from estimators.tasks import Split
from estimators.training_snapshots import training_name
from tests.estimators.test_fine_tuning import QuadraticObjective, make_objective

STEPS = 11
PLAIN = Recipe(learning_rate=0.05, batch_size=8, steps=STEPS)
RECIPES = {
    "sgd": PLAIN,
    "sgd with weight decay": PLAIN.replace(weight_decay=0.02),
    "momentum": PLAIN.replace(optimizer="momentum"),
    "adamw": PLAIN.replace(optimizer="adamw", learning_rate=0.01),
    "warm-up and cosine": PLAIN.replace(schedule="warmup_cosine"),
    "adamw, warm-up and cosine": PLAIN.replace(optimizer="adamw", learning_rate=0.01, schedule="warmup_cosine"),
    "with replacement": PLAIN.replace(sampling="with_replacement"),
    "epochs that end inside a batch": PLAIN.replace(batch_size=9, num_samples=31),
    "sharpness-aware": PLAIN.replace(alignment="sam"),
    "sharpness-aware, momentum": PLAIN.replace(alignment="sam", optimizer="momentum"),
    "tangent": PLAIN.replace(alignment="tangent"),
    "tangent, adamw": PLAIN.replace(alignment="tangent", optimizer="adamw", learning_rate=0.01),
}


class Killed(BaseException):
    """Stands for SIGKILL: whoever is killed writes nothing more."""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def train(
    objectives: list[Objective],
    splits: list[Split],
    runs: list[Run],
    folder: Path | None = None,
    *,
    kill_at: int | None = None,
    seconds: float = 0.0,
    micro_batch: int | None = None,
) -> tuple[list[FineTuned], float, list[int]]:
    """Results, units and the steps done in this life; one step takes one second of the clock."""
    meter, steps, clock = CostMeter(), [], Clock()

    def on_step(done: int, weights: Tensor) -> None:
        if done == kill_at:
            raise Killed
        steps.append(done)
        clock.now += 1.0

    store = None if folder is None else SnapshotFolder(folder, seconds=seconds, longest=seconds, clock=clock)
    results = fine_tune_stack(
        objectives, splits, runs, meter=meter, on_step=on_step, micro_batch=micro_batch, snapshots=store
    )
    return results, meter.units, steps


def assert_same_bits(found: list[FineTuned], expected: list[FineTuned]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.outcome, one.cause) == (other.outcome, other.cause)
        assert list(one.checkpoints) == list(other.checkpoints)
        for step, weights in one.checkpoints.items():
            assert torch.equal(weights, other.checkpoints[step]), step
        for name in ("losses", "gradient_norms", "squared_displacements"):
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name


def kill_and_go_on(
    folder: Path, objectives: list[Objective], splits: list[Split], runs: list[Run], micro_batch: int | None = None
) -> None:
    """Kill at every one of some steps, one life after the other, and compare with the life that was never ended."""
    torch.set_num_threads(1)
    whole, units, _ = train(objectives, splits, runs, micro_batch=micro_batch)
    for kill_at in (2, 3, 7, STEPS):
        with pytest.raises(Killed):
            train(objectives, splits, runs, folder, kill_at=kill_at, micro_batch=micro_batch)
    found, again, steps = train(objectives, splits, runs, folder, micro_batch=micro_batch)
    assert steps == [STEPS]  # only the step that was never finished
    assert again == units
    assert_same_bits(found, whole)
    repeated, _, steps = train(objectives, splits, runs, folder, micro_batch=micro_batch)
    assert steps == []  # what is finished is read
    assert_same_bits(repeated, whole)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_killed_run_ends_with_the_same_bits(recipe: Recipe, tmp_path: Path) -> None:
    objective, split = make_objective(0)
    kill_and_go_on(tmp_path, [objective], [split], [Run(task="a", recipe=recipe, seed=4, checkpoints=(1, 5, 8))])


@pytest.mark.parametrize("name", ["sgd", "adamw, warm-up and cosine", "sharpness-aware, momentum", "tangent"])
def test_a_killed_stack_of_runs_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    problems = [make_objective(seed, classes) for seed, classes in ((1, 3), (2, 4), (1, 3))]
    recipe = RECIPES[name]
    runs = [
        Run(task=f"t{i}", recipe=recipe.replace(learning_rate=0.01 * (i + 1)), seed=i, checkpoints=(i + 1, 5))
        for i in range(3)
    ]
    kill_and_go_on(tmp_path, [p[0] for p in problems], [p[1] for p in problems], runs)


def test_accumulated_batches_end_with_the_same_bits(tmp_path: Path) -> None:
    objective, split = make_objective(5)
    run = Run(task="a", recipe=RECIPES["adamw"].replace(batch_size=9), seed=0)
    kill_and_go_on(tmp_path, [objective], [split], [run], micro_batch=4)


def test_a_head_that_trains_along_ends_with_the_same_bits(tmp_path: Path) -> None:
    objective, split = make_objective(6)
    along = ClassificationObjective(objective.backbone, objective.head, trained_head=True)
    kill_and_go_on(tmp_path, [along], [split], [Run(task="a", recipe=RECIPES["momentum"], seed=0)])


def test_a_long_training_repeats_less_than_half_a_minute_after_any_kill(tmp_path: Path) -> None:
    """Fifteen hundred steps of one (simulated) second each, killed at random moments, with the default pause."""
    torch.set_num_threads(1)
    from estimators import snapshot_folder

    start = torch.linspace(-1, 1, 5)
    split = Split(inputs=torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), labels=torch.zeros(30).long())
    objective = QuadraticObjective(start, curvature=0.5)
    recipe = Recipe(learning_rate=0.01, batch_size=3, steps=1500, optimizer="momentum")
    run = Run(task="q", recipe=recipe, seed=1)
    whole, units, _ = train([objective], [split], [run])
    chance = np.random.default_rng(3)
    reached, worst = 0, 0
    while True:
        kill_at = reached + int(chance.integers(2, 400))
        try:
            found, again, steps = train(
                [objective], [split], [run], tmp_path, kill_at=kill_at, seconds=snapshot_folder.SECONDS
            )
        except Killed:
            first = first_step_again(tmp_path, objective, split, run)
            worst = max(worst, kill_at - first)
            reached = kill_at
            continue
        break
    assert 0 < worst <= 30
    assert again == units
    assert_same_bits(found, whole)


def first_step_again(folder: Path, objective: Objective, split: Split, run: Run) -> int:
    """The step that the next life begins with."""
    name = training_name([objective], [split], [run], micro_batch=run.recipe.batch_size, precision="float32")
    found = SnapshotFolder(folder).load(name)
    return 1 if found is None else int(found.facts["done"]) + 1


def test_a_run_that_diverged_is_read_as_diverged(tmp_path: Path) -> None:
    objective = QuadraticObjective(torch.ones(2), curvature=1.0)
    split = Split(inputs=torch.zeros(4, 2), labels=torch.zeros(4, dtype=torch.int64))
    run = Run(task="q", recipe=Recipe(learning_rate=1e20, batch_size=2, steps=40), seed=0, checkpoints=(1,))
    whole, units, done = train([objective], [split], [run])
    with pytest.raises(Killed):
        train([objective], [split], [run], tmp_path, kill_at=2)
    found, again, steps = train([objective], [split], [run], tmp_path)
    assert whole[0].outcome == "diverged"
    assert steps == done[1:]
    assert again == units
    assert_same_bits(found, whole)
    repeated, _, steps = train([objective], [split], [run], tmp_path)
    assert steps == []
    assert_same_bits(repeated, whole)


def test_a_request_to_stop_keeps_the_step_that_was_just_done(tmp_path: Path) -> None:
    objective, split = make_objective(7)
    run = Run(task="a", recipe=PLAIN, seed=0)
    whole, _, _ = train([objective], [split], [run])
    store = SnapshotFolder(tmp_path, seconds=1e9)
    (stopped,) = fine_tune_stack(
        [objective], [split], [run], control=lambda done, total: "stopped" if done == 6 else "go", snapshots=store
    )
    assert stopped.outcome == "stopped"
    store.flush()
    found, _, steps = train([objective], [split], [run], tmp_path)
    assert steps == [*range(7, STEPS + 1)]
    assert_same_bits(found, whole)


OTHERS: dict[str, Callable[[Run], Run]] = {
    "seed": lambda run: Run(task=run.task, recipe=run.recipe, seed=run.seed + 1),
    "task": lambda run: Run(task="b", recipe=run.recipe, seed=run.seed),
    "rate": lambda run: Run(task=run.task, recipe=run.recipe.replace(learning_rate=0.04), seed=run.seed),
    "steps": lambda run: Run(task=run.task, recipe=run.recipe.replace(steps=STEPS + 1), seed=run.seed),
    "checkpoints": lambda run: Run(task=run.task, recipe=run.recipe, seed=run.seed, checkpoints=(3,)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_does_not_go_on_from_it(what: str, tmp_path: Path) -> None:
    objective, split = make_objective(8)
    run = Run(task="a", recipe=PLAIN, seed=0)
    train([objective], [split], [run], tmp_path)
    other = OTHERS[what](run)
    _, _, steps = train([objective], [split], [other], tmp_path)
    assert steps == [*range(1, other.recipe.steps + 1)]


def test_other_data_weights_or_heads_do_not_go_on_from_it() -> None:
    run = Run(task="a", recipe=PLAIN, seed=0)

    def name(objective: Objective, split: Split) -> str:
        return training_name([objective], [split], [run], micro_batch=8, precision="float32")

    objective, split = make_objective(8)
    same, same_split = make_objective(8)
    assert name(objective, split) == name(same, same_split)
    split.inputs[-1, 0, 0, 0] += 1e-6  # in place: it is looked at again
    other_weights, _ = make_objective(8)
    other_weights.backbone.initial[0] += 1e-6
    other_head, _ = make_objective(8)
    other_head.head.bias[0] += 1e-6
    found = [name(objective, split), name(other_weights, same_split), name(other_head, same_split)]
    assert len({*found, name(same, same_split)}) == 4


def test_a_step_that_fails_leaves_nothing_to_be_written(tmp_path: Path) -> None:
    objective, split = make_objective(9)
    store = SnapshotFolder(tmp_path, seconds=1e9)

    def fail(done: int, weights: Tensor) -> None:
        if done == 4:
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fine_tune_stack([objective], [split], [Run(task="a", recipe=PLAIN, seed=0)], on_step=fail, snapshots=store)
    store.flush()
    assert not list(tmp_path.iterdir())
