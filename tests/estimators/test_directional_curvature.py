import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators.constants import Estimate
from estimators.directional_curvature import (
    DirectionalCurvature,
    DriftCurvature,
    LostInNoise,
    NoiseCurvature,
    RelativeSharpness,
)
from estimators.initial_gradient import InitialGradientNorm
from tests.estimators.test_curvature import dense_hessian
from tests.known_problems import random_quadratic_problem, random_quadratic_task
from tests.quadratic_objectives import QuadraticObjective, rows_of, split_of
from tests.small_networks import small_objective, small_split


def test_curvature_along_a_vector_is_its_rayleigh_quotient():
    objective, split = small_objective("cnn"), small_split(24)
    vector = 7.0 * torch.arange(1.0, objective.num_shared + 1)
    hessian = dense_hessian(objective, split)
    truth = float(vector @ hessian @ vector / (vector @ vector))
    found = DirectionalCurvature(num_samples=24, num_exact=24).fit(objective, split, vector)
    assert found.estimate_.value == pytest.approx(truth, rel=1e-3)
    with pytest.raises(ValueError, match="vector=0 has no direction"):
        found.fit(objective, split, torch.zeros(objective.num_shared))


def noise_estimate(task, rng, directions=12):
    size = len(task.centre)
    noise = NoiseCurvature(num_directions=directions, num_samples=2).start(
        QuadraticObjective(task, np.zeros(size)), split_of(task.sample(30, rng))
    )
    for xi in rng.multivariate_normal(np.zeros(size), task.noise_covariance, directions):
        noise.observe(torch.as_tensor(xi))
    return noise.finish().estimate_


def test_noise_curvature_converges_to_the_truth():
    rng = np.random.default_rng(0)
    task = random_quadratic_task(rng, 8)
    few, many = noise_estimate(task, rng), noise_estimate(task, rng, 400)
    assert many.value == pytest.approx(task.noise_curvature, rel=0.1)
    assert many.high - many.low < few.high - few.low


def test_noise_curvature_without_noise_is_an_outcome():
    task = random_quadratic_task(np.random.default_rng(0), 4)
    noise = NoiseCurvature().start(QuadraticObjective(task, np.zeros(4)), split_of(np.zeros((3, 4))))
    for _ in range(2):
        noise.observe(torch.zeros(4, dtype=torch.float64))
    estimate = noise.finish().estimate_
    assert (estimate.value, estimate.identifiable) == (0.0, False)


def test_drift_curvature_takes_the_noise_out():
    rng = np.random.default_rng(1)
    task = random_quadratic_task(rng, 8)
    start = task.centre + 2.0
    objective, split = QuadraticObjective(task, start), split_of(task.sample(30, rng))
    exact = Estimate(value=task.noise_curvature, low=task.noise_curvature, high=task.noise_curvature)
    values = []
    for _ in range(100):
        rows = rows_of(task.gradients(start, task.sample(64, rng)))
        squared = InitialGradientNorm().fit(rows).squared_
        if squared.identifiable:
            drift = DriftCurvature(num_samples=2, num_exact=1).fit(objective, split, rows, squared, exact)
            values.append(drift.estimate_.value)
    assert len(values) > 80
    assert np.mean(values) == pytest.approx(task.drift_curvature(start), rel=0.1)


def test_drift_lost_in_noise_is_a_named_outcome():
    rng = np.random.default_rng(2)
    task = random_quadratic_task(rng, 4)
    rows = rows_of(task.gradients(task.centre, task.sample(16, rng)))
    squared = Estimate(value=0.0, low=0.0, high=1.0, identifiable=False)
    with pytest.raises(LostInNoise, match="measure along a probe's update"):
        DriftCurvature().fit(QuadraticObjective(task, task.centre), split_of(np.zeros((2, 4))), rows, squared, squared)


def test_relative_sharpness_has_a_row_for_each_task_and_a_column_for_each_update():
    rng = np.random.default_rng(3)
    problem = random_quadratic_problem(rng, num_tasks=3, num_parameters=5)
    pairs = list(zip(problem.names, problem.tasks, strict=True))
    vectors = {name: torch.as_tensor(rng.standard_normal(5)) for name in problem.names}
    matrix = (
        RelativeSharpness(num_samples=2)
        .fit(
            {name: QuadraticObjective(task, problem.start) for name, task in pairs},
            {name: split_of(task.sample(4, rng)) for name, task in pairs},
            vectors,
        )
        .matrix_
    )
    for j, (_, task) in enumerate(pairs):
        for i, vector in enumerate(vectors.values()):
            v = vector.numpy()
            assert matrix[j][i].value == pytest.approx(v @ task.hessian @ v / (v @ v))
    with pytest.raises(ValueError, match="must belong to the tasks"):
        RelativeSharpness().fit({}, {}, vectors)


def test_parameters_are_cloned_in_scikit_learns_way():
    for estimator in (DirectionalCurvature(), NoiseCurvature(), DriftCurvature(), RelativeSharpness()):
        assert clone(estimator.set_params(num_samples=3)).num_samples == 3
