"""The training loop against ``torch.optim``, closed forms and itself."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from estimators.backbone import TorchBackbone
from estimators.cost import CostMeter
from estimators.fine_tuning import Run, divergence, fine_tune, fine_tune_stack
from estimators.objectives import ClassificationObjective, evaluate
from estimators.recipe import Recipe
from estimators.tasks import LinearHead, Split
from estimators.training_loop import batch_order

FEATURES, CLASSES, SAMPLES = 5, 3, 40


class QuadraticObjective:
    """l(x; z) = 1/2 h |x - z|^2 with labels unused: gradient h (x - z)."""

    def __init__(self, start: torch.Tensor, curvature: float) -> None:
        self.initial, self.curvature, self.num_shared = start, curvature, start.numel()

    def losses(self, weights: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.curvature * (weights - inputs).square().sum(1)


def make_objective(seed: int, classes: int = CLASSES) -> tuple[ClassificationObjective, Split]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(3)  # the same backbone for every seed
    module = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, FEATURES))
    head = LinearHead(
        weight=torch.randn(classes, FEATURES, generator=generator), bias=torch.randn(classes, generator=generator)
    )
    split = Split(
        inputs=torch.randn(SAMPLES, 1, 2, 4, generator=generator),
        labels=torch.randint(0, classes, (SAMPLES,), generator=generator),
    )
    return ClassificationObjective(TorchBackbone(module), head), split


def torch_twin(objective: ClassificationObjective, split: Split, run: Run) -> torch.Tensor:
    """The same training written with ``torch.optim`` and a learning-rate assignment a step."""
    recipe = run.recipe
    x = objective.initial.clone().requires_grad_()
    if recipe.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW([x], lr=1.0, weight_decay=recipe.weight_decay)
    else:
        optimizer = torch.optim.SGD([x], lr=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    for index, factor in zip(batch_order(run, split.head(recipe.num_samples)), recipe.schedule_factors(), strict=True):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * factor
        optimizer.zero_grad()
        objective.losses(x, split.inputs[index], split.labels[index]).mean().backward()
        optimizer.step()
    return x.detach()


@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("momentum", 0.02), ("adamw", 0.01)])
def test_loop_equals_torch_optim(optimizer, rate, schedule):
    objective, split = make_objective(0)
    recipe = Recipe(
        learning_rate=rate, batch_size=8, steps=23, optimizer=optimizer, schedule=schedule, weight_decay=0.02
    )
    run = Run(task="a", recipe=recipe, seed=4)
    trained = fine_tune(objective, split, run)
    assert trained.outcome == "finished"
    torch.testing.assert_close(trained.weights, torch_twin(objective, split, run), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_stacked_runs_equal_single_runs(optimizer):
    problems = [make_objective(seed, classes) for seed, classes in ((1, 3), (2, 4), (1, 3))]
    runs = [
        Run(
            task=f"t{i}",
            recipe=Recipe(
                learning_rate=0.01 * (i + 1),
                batch_size=8,
                steps=12,
                optimizer=optimizer,
                schedule=("constant", "warmup_cosine")[i % 2],
                num_samples=(None, 20, 30)[i],
            ),
            seed=i,
            checkpoints=(5,),
        )
        for i in range(3)
    ]
    stacked = fine_tune_stack([p[0] for p in problems], [p[1] for p in problems], runs)
    for (objective, split), run, together in zip(problems, runs, stacked, strict=True):
        alone = fine_tune(objective, split, run)
        np.testing.assert_allclose(together.losses, alone.losses, rtol=2e-5)
        np.testing.assert_allclose(together.squared_displacements, alone.squared_displacements, rtol=2e-4)
        for step in (5, 12):
            torch.testing.assert_close(together.checkpoints[step], alone.checkpoints[step], rtol=1e-4, atol=2e-5)


def test_sgd_on_a_quadratic_follows_its_closed_form():
    start = torch.tensor([1.0, -2.0])
    objective = QuadraticObjective(start, curvature=2.0)
    split = Split(inputs=torch.zeros(10, 2), labels=torch.zeros(10, dtype=torch.int64))
    recipe = Recipe(learning_rate=0.1, batch_size=5, steps=7)
    trained = fine_tune(objective, split, Run(task="q", recipe=recipe, seed=0))
    shrink = (1 - 0.1 * 2.0) ** np.arange(1, 8)
    np.testing.assert_allclose(trained.squared_displacements, 5.0 * (1 - shrink) ** 2, rtol=1e-5)
    np.testing.assert_allclose(trained.losses, 5.0 * np.concatenate([[1], shrink[:-1]]) ** 2, rtol=1e-5)
    np.testing.assert_allclose(trained.gradient_norms, 4 * 5.0 * np.concatenate([[1], shrink[:-1]]) ** 2, rtol=1e-5)


def test_micro_batches_change_nothing():
    objective, split = make_objective(5)
    run = Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=9, steps=6), seed=0)
    torch.testing.assert_close(
        fine_tune(objective, split, run).weights, fine_tune(objective, split, run, micro_batch=4).weights
    )


def test_same_seed_gives_the_same_bits_and_another_seed_does_not():
    objective, split = make_objective(6)
    run = Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=4, steps=6), seed=0)
    first, second = fine_tune(objective, split, run), fine_tune(objective, split, run)
    assert torch.equal(first.weights, second.weights)
    other = fine_tune(objective, split, Run(task="a", recipe=run.recipe, seed=1))
    assert not torch.equal(first.weights, other.weights)


def test_a_probe_leaves_no_trace():
    objective, split = make_objective(7)
    run = Run(task="a", recipe=Recipe(learning_rate=0.05, batch_size=4, steps=8, optimizer="adamw"), seed=0)
    untouched = fine_tune(objective, split, run)
    before = objective.initial.clone()
    random_state = torch.random.get_rng_state()
    fine_tune(objective, split, Run(task="a", recipe=Recipe(learning_rate=3.0, batch_size=8, steps=5), seed=9))
    assert torch.equal(objective.initial, before)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.equal(fine_tune(objective, split, run).weights, untouched.weights)


def test_every_per_sample_gradient_is_counted():
    objective, split = make_objective(8)
    meter = CostMeter()
    recipe = Recipe(learning_rate=0.1, batch_size=7, steps=5)
    fine_tune(objective, split, Run(task="a", recipe=recipe, seed=0), meter=meter)
    assert meter.units == 35
    fine_tune(objective, split, Run(task="a", recipe=recipe.replace(alignment="sam"), seed=0), meter=meter)
    assert meter.units == 35 + 70


def test_a_transient_jump_is_not_divergence_but_a_lasting_one_is():
    transient = np.array([1.0] + [30.0] * 24 + [0.5] * 30)
    assert divergence(transient) is None
    assert divergence(np.array([1.0] + [30.0] * 25)) == (26, "loss stayed above 10 for 25 steps up to step 26")


def test_non_finite_loss_is_an_outcome_with_a_cause():
    start = torch.ones(2)
    objective = QuadraticObjective(start, curvature=1.0)
    split = Split(inputs=torch.zeros(4, 2), labels=torch.zeros(4, dtype=torch.int64))
    run = Run(task="q", recipe=Recipe(learning_rate=1e20, batch_size=2, steps=40), seed=0, checkpoints=(1,))
    trained = fine_tune(objective, split, run)
    assert trained.outcome == "diverged"
    assert "loss became" in trained.cause
    assert all(math.isfinite(value) for value in trained.losses[:-1])
    assert 40 not in trained.checkpoints


def test_deadline_stops_between_two_steps_and_keeps_the_traces():
    objective, split = make_objective(9)
    run = Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=4, steps=10), seed=0, checkpoints=(2,))
    trained = fine_tune(objective, split, run, control=lambda done, total: "deadline" if done >= 3 else "go")
    assert trained.outcome == "deadline"
    assert trained.cause == "deadline after step 3 of 10"
    assert len(trained.losses) == 3
    assert list(trained.checkpoints) == [2]


def test_trained_heads_move_and_are_left_out_of_the_displacement():
    objective, split = make_objective(10)
    along = ClassificationObjective(objective.backbone, objective.head, trained_head=True)
    run = Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=8, steps=6), seed=0)
    trained = fine_tune(along, split, run)
    moved = trained.weights - along.initial
    assert moved[along.num_shared :].abs().sum() > 0
    np.testing.assert_allclose(
        trained.squared_displacements[-1], float(moved[: along.num_shared].square().sum()), rtol=1e-5
    )


def test_tangent_training_is_linear_in_the_weights():
    """On the linearised model a doubled step from x_0 doubles the change of every logit, so losses at x_0 agree."""
    objective, split = make_objective(11)
    recipe = Recipe(learning_rate=0.05, batch_size=SAMPLES, steps=30, alignment="tangent")
    trained = fine_tune(objective, split, Run(task="a", recipe=recipe, seed=0))
    plain = fine_tune(objective, split, Run(task="a", recipe=recipe.replace(alignment="none"), seed=0))
    np.testing.assert_allclose(trained.losses[0], plain.losses[0], rtol=1e-6)
    np.testing.assert_allclose(trained.gradient_norms[0], plain.gradient_norms[0], rtol=1e-4)
    assert abs(trained.losses[-1] - plain.losses[-1]) > 1e-4
    assert trained.losses[-1] < trained.losses[0]


def test_sharpness_aware_step_uses_the_gradient_at_the_perturbed_point():
    start = torch.tensor([3.0, 4.0])
    objective = QuadraticObjective(start, curvature=1.0)
    split = Split(inputs=torch.zeros(4, 2), labels=torch.zeros(4, dtype=torch.int64))
    recipe = Recipe(learning_rate=0.1, batch_size=4, steps=1, alignment="sam")
    trained = fine_tune(objective, split, Run(task="q", recipe=recipe, seed=0))
    expected = start - 0.1 * (start + 0.05 * start / 5.0)
    torch.testing.assert_close(trained.weights, expected)


def test_training_lowers_the_risk_of_the_task():
    objective, split = make_objective(12)
    run = Run(task="a", recipe=Recipe(learning_rate=0.3, batch_size=8, steps=60), seed=0)
    trained = fine_tune(objective, split, run)
    before, after = evaluate(objective, objective.initial, split), evaluate(objective, trained.weights, split)
    assert after.risk < before.risk


def test_batch_larger_than_the_data_is_refused():
    objective, split = make_objective(13)
    run = Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=64, steps=2), seed=0)
    with pytest.raises(ValueError, match="batch_size=64 must not exceed the task's 40 training samples"):
        fine_tune(objective, split, run)


def test_runs_of_different_shape_are_not_stacked():
    objective, split = make_objective(14)
    runs = [Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=size, steps=2), seed=0) for size in (4, 8)]
    with pytest.raises(ValueError, match="group them"):
        fine_tune_stack([objective, objective], [split, split], runs)


def test_checkpoint_beyond_the_last_step_is_refused():
    with pytest.raises(ValueError, match=r"checkpoints=\[9\] must lie in 1..steps=5"):
        Run(task="a", recipe=Recipe(learning_rate=0.1, batch_size=4, steps=5), seed=0, checkpoints=(9,))
