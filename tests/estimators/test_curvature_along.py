import numpy as np
import pytest
import torch

from estimators.cost import CostMeter
from estimators.curvature import hessian_curvatures
from estimators.curvature_along import curvature_along
from estimators.lanczos import random_direction
from tests.known_problems import random_quadratic_task
from tests.quadratic_objectives import QuadraticObjective, split_of
from tests.small_networks import small_objective, small_split


def test_with_every_sample_exact_the_value_is_the_hessians():
    objective, split = small_objective("cnn"), small_split(20)
    vector = random_direction(objective.initial, 0)
    found = curvature_along(objective, objective.initial, split, vector, num_exact=20, population=20)
    truth = hessian_curvatures(objective, objective.initial, split, vector, group_size=20)[0]
    assert found.value == pytest.approx(truth, rel=1e-3)


def test_few_exact_samples_cost_less_and_stay_near():
    objective, split, meter = small_objective("cnn"), small_split(200), CostMeter()
    vector = random_direction(objective.initial, 0)
    found = curvature_along(objective, objective.initial, split, vector, num_exact=40, population=1e9, meter=meter)
    truth = hessian_curvatures(objective, objective.initial, split, vector, group_size=50).mean()
    assert abs(found.value - truth) <= 2 * found.half
    assert meter.units == pytest.approx(found.cost) == pytest.approx(200 + 160)


def test_objectives_without_logits_are_differentiated_twice_everywhere():
    task = random_quadratic_task(np.random.default_rng(0), 4)
    vector = torch.arange(4.0, dtype=torch.float64)
    samples = split_of(task.sample(3, np.random.default_rng(1)))
    objective = QuadraticObjective(task, np.zeros(4))
    found = curvature_along(objective, objective.initial, samples, vector, num_exact=1, population=3)
    assert found.value == pytest.approx(float(vector.numpy() @ task.hessian @ vector.numpy()))
    assert found.half == pytest.approx(0.0, abs=1e-9)
