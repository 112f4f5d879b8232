import dataclasses
import json

import numpy as np
import pytest
import torch

from estimators.constants import Constants
from estimators.cost import CostMeter
from estimators.gradient_variance import GradientVariance
from estimators.measuring import measure_constants
from estimators.objectives import ClassificationObjective
from estimators.outcomes import TasksNotMeasurable
from estimators.sample_budget import SampleBudget
from estimators.tasks import LinearHead, Split, Task
from tests.small_networks import NUM_CLASSES, small_objective, small_split

TASK_FIELDS = {
    "initial_risk",
    "initial_accuracy",
    "initial_gap",
    "initial_gradient_norm",
    "gradient_variance",
    "heldout_gradient_variance",
    "heterogeneity",
    "top_curvature",
    "gauss_newton_curvature",
    "sample_smoothness",
    "noise_scale",
    "progress_rate",
}
FULL_FIELDS = TASK_FIELDS | {"critical_sharpness", "noise_curvature"}


def project(num_tasks=2, samples=300, **changed):
    """Tasks on one backbone with heads of their own; ``changed`` maps a task to other training data or head."""
    base = small_objective("cnn")
    generator = torch.Generator().manual_seed(5)
    objectives, tasks = {}, {}
    for i in range(num_tasks):
        name = f"task{i}"
        head = LinearHead(
            weight=torch.randn(NUM_CLASSES, base.head.weight.shape[1], generator=generator), bias=torch.zeros(3)
        )
        splits = {"train": small_split(samples, seed=i), "validation": small_split(100, seed=100 + i)}
        splits |= changed.get(name, {}).get("splits", {})
        head = changed.get(name, {}).get("head", head)
        tasks[name] = Task(name=name, class_names=("a", "b", "c"), head=head, **splits)
        objectives[name] = ClassificationObjective(base.backbone, head)
    return objectives, tasks


@pytest.mark.parametrize("units", [96.0, 150.0, 499.0, 500.0, 2048.0])
def test_the_budget_is_kept_and_booked_by_purpose(units):
    objectives, tasks = project(samples=800)
    meter = CostMeter()
    constants = measure_constants(objectives, tasks, max_units=2 * units, meter=meter)
    assert meter.units == pytest.approx(constants.cost)
    assert 0.6 * 2 * units <= meter.units <= 2 * units
    assert sum(meter.by_purpose().values()) == pytest.approx(meter.units)
    assert {"initial risk", "gradients", "top curvature"} <= set(meter.by_purpose())


def test_every_default_constant_is_measured_or_says_why_not():
    objectives, tasks = project()
    constants = measure_constants(objectives, tasks, max_units=2400)
    for task in constants.tasks.values():
        assert FULL_FIELDS <= set(task.measured())
        assert set(task.failures) <= {"drift_curvature"}
    assert np.shape(constants.gradient_gram) == (2, 2)
    assert np.shape(constants.relative_sharpness) == (2, 2)
    assert constants.goal_top_curvature is not None
    assert constants.num_parameters == objectives["task0"].num_shared


def test_a_small_budget_keeps_what_advice_needs():
    objectives, tasks = project()
    constants = measure_constants(objectives, tasks, max_units=2 * 120)
    for task in constants.tasks.values():
        assert set(task.measured()) >= TASK_FIELDS - {"gauss_newton_curvature"}
    with pytest.raises(ValueError, match="max_units leaves 50 units a task"):
        measure_constants(objectives, tasks, max_units=100)


def test_results_are_reproducible_and_depend_on_the_seed():
    objectives, tasks = project()
    first, again, other = (measure_constants(objectives, tasks, max_units=400, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.tasks["task0"].gradient_variance != other.tasks["task0"].gradient_variance
    assert Constants.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False))) == first


def test_the_draws_of_a_task_do_not_depend_on_the_other_tasks():
    objectives, tasks = project(3)
    alone = measure_constants({"task1": objectives["task1"]}, {"task1": tasks["task1"]}, max_units=300)
    among = measure_constants(objectives, tasks, max_units=900)
    assert alone.tasks["task1"].gradient_variance == among.tasks["task1"].gradient_variance


def test_a_task_without_finite_loss_is_named_and_the_others_are_kept():
    broken = small_split(50)
    broken = Split(inputs=broken.inputs * float("nan"), labels=broken.labels)
    objectives, tasks = project(3, task1={"splits": {"train": broken, "validation": broken}})
    weights = {"task0": 0.5, "task1": 0.25, "task2": 0.25}
    with pytest.raises(TasksNotMeasurable, match=r"results of \['task0', 'task2'\] are kept") as caught:
        measure_constants(objectives, tasks, max_units=900, task_weights=weights)
    assert set(caught.value.reasons) == {"task1"}
    assert caught.value.partial.names == ("task0", "task2")
    assert TASK_FIELDS <= set(caught.value.partial.tasks["task0"].measured())


def test_a_single_training_sample_fails_by_field_and_keeps_the_rest():
    objectives, tasks = project(2, task1={"splits": {"train": small_split(1)}})
    constants = measure_constants(objectives, tasks, max_units=1200)
    lonely = constants.tasks["task1"]
    assert "num_samples=1 is too few for a variance" in lonely.failures["gradient_variance"]
    assert "top_curvature" in lonely.failures
    assert "task1" in lonely.failures["heterogeneity"]
    assert lonely.initial_risk.value > 0
    assert constants.tasks["task0"].gradient_variance is not None
    assert constants.gradient_gram is None


def test_a_head_that_fits_perfectly_gives_zero_gradients_with_notes():
    base = small_objective("cnn")
    head = LinearHead(weight=torch.zeros_like(base.head.weight), bias=torch.tensor([300.0, 0.0, 0.0]))
    same = {}
    for side, count in (("train", 200), ("validation", 50)):
        split = small_split(count)
        same[side] = Split(inputs=split.inputs, labels=torch.zeros_like(split.labels))
    objectives, tasks = project(2, task1={"splits": same, "head": head})
    constants = measure_constants(objectives, tasks, max_units=1200)
    perfect = constants.tasks["task1"]
    assert perfect.gradient_variance.value == 0
    assert not perfect.gradient_variance.identifiable
    assert perfect.initial_gap.value == 0
    assert perfect.top_curvature.value == 0
    assert "update=0 moves nothing" in perfect.failures["critical_sharpness"]
    assert constants.tasks["task0"].gradient_variance.value > 0


def test_constants_can_be_measured_along_the_probe_path():
    objectives, tasks = project()
    start = objectives["task0"].initial
    here = measure_constants(objectives, tasks, max_units=400)
    there = measure_constants(objectives, tasks, max_units=400, weights=1.5 * start)
    same = measure_constants(objectives, tasks, max_units=400, weights=start)
    assert here == same
    assert here.tasks["task0"].top_curvature != there.tasks["task0"].top_curvature


def test_tasks_and_objectives_must_agree():
    objectives, tasks = project()
    with pytest.raises(ValueError, match="must name the same tasks in one order"):
        measure_constants(objectives, dict(reversed(tasks.items())))


def test_plans_grow_with_the_budget():
    small, large = (dataclasses.asdict(SampleBudget.plan(units, num_tasks=4)) for units in (600.0, 6000.0))
    assert all(large[name] >= small[name] for name in small)


def with_features(objectives, tasks):
    """The tasks with the features of their training samples, as fitted heads leave them."""
    found = {}
    for name, task in tasks.items():
        features = objectives[name].backbone.features(objectives[name].initial, task.train.inputs).detach()
        found[name] = dataclasses.replace(task, features=features.to(torch.bfloat16))
    return found


@pytest.mark.parametrize("units", [96.0, 150.0, 300.0, 499.0, 500.0, 600.0, 900.0, 2048.0])
def test_the_budget_is_kept_where_samples_are_chosen(units):
    objectives, tasks = project(samples=400)
    meter = CostMeter()
    found = measure_constants(objectives, with_features(objectives, tasks), meter=meter, max_units=2 * units)
    assert meter.units <= 2 * units
    assert found.cost == pytest.approx(meter.units)


def test_features_of_the_heads_choose_the_samples_and_sharpen_the_constants():
    objectives, tasks = project(samples=400)
    known = with_features(objectives, tasks)
    found = measure_constants(objectives, known, seed=1, max_units=1200.0)
    assert found.to_json() == measure_constants(objectives, known, seed=1, max_units=1200.0).to_json()
    for name, task in tasks.items():
        every = GradientVariance(num_samples=400).fit(objectives[name], task.train)
        constants = found.tasks[name]
        assert constants.gradient_variance.value == pytest.approx(every.estimate_.value, rel=0.05)
        assert constants.top_curvature.note.startswith("direction from")
        assert not set(constants.failures) - {"drift_curvature"}  # an untrained network may leave no gradient
