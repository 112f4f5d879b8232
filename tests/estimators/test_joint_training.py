import numpy as np
import pytest
import torch
from torch import nn

from estimators.backbone import TorchBackbone
from estimators.fine_tuning import Run, fine_tune
from estimators.joint_training import join_tasks
from estimators.objectives import ClassificationObjective, evaluate
from estimators.range_test import run_range_test
from estimators.recipe import Recipe
from estimators.tasks import LinearHead, Split, Task


def problem(seed: int = 0) -> tuple[TorchBackbone, dict[str, Task]]:
    torch.manual_seed(seed)
    backbone = TorchBackbone(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh()))
    tasks = {}
    for name, (count, classes) in {"a": (30, 3), "b": (50, 2)}.items():
        labels = torch.arange(count) % classes
        inputs = torch.randn(count, 1, 2, 3) + labels.view(-1, 1, 1, 1)
        split = Split(inputs=inputs, labels=labels)
        head = LinearHead(weight=torch.randn(classes, 5), bias=torch.randn(classes))
        names = tuple(map(str, range(classes)))
        tasks[name] = Task(name=name, train=split, validation=split, class_names=names, head=head)
    return backbone, tasks


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 1.0}])
def test_the_mean_joint_loss_is_the_weighted_mean_of_the_tasks_risks(weights):
    backbone, tasks = problem()
    objective, pool = join_tasks(backbone, tasks, weights)
    joint = float(objective.losses(objective.initial, pool.inputs, pool.labels).mean())
    total = sum(weights.values())
    apart = sum(
        weights[name]
        / total
        * evaluate(ClassificationObjective(backbone, task.fitted_head()), backbone.initial, task.train).risk
        for name, task in tasks.items()
    )
    assert joint == pytest.approx(apart, rel=1e-5)


def test_joint_training_lowers_both_risks():
    backbone, tasks = problem(1)
    objective, pool = join_tasks(backbone, tasks, {"a": 1.0, "b": 1.0})
    run = Run(task="joint", recipe=Recipe(learning_rate=0.05, batch_size=20, steps=80), seed=0)
    trained = fine_tune(objective, pool, run).weights
    for task in tasks.values():
        single = ClassificationObjective(backbone, task.fitted_head())
        assert evaluate(single, trained, task.train).risk < evaluate(single, backbone.initial, task.train).risk


@pytest.mark.parametrize("curvature", [1.0, 100.0])
def test_the_range_test_suggests_a_rate_below_the_edge_of_a_quadratic(curvature):
    class Quadratic:
        initial = torch.ones(4)
        num_shared = 4

        def losses(self, weights, inputs, labels):
            return (0.5 * curvature * weights.square().sum()).expand(len(labels))

    split = Split(inputs=torch.zeros(8, 1), labels=torch.zeros(8, dtype=torch.int64))
    test = run_range_test(Quadratic(), split, highest=1000.0 / curvature, batch_size=2, steps=60, seed=0)
    assert 0.01 / curvature < test.suggestion < 2 / curvature
    assert np.isfinite(test.losses).all()
