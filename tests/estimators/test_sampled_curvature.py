import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators.cost import CostMeter
from estimators.outcomes import TooFewSamples
from estimators.sampled_curvature import SampledTopCurvature
from estimators.smoothness import TopCurvature
from tests.known_problems import random_quadratic_problem
from tests.quadratic_objectives import QuadraticObjective, split_of
from tests.small_networks import small_objective, small_split


@pytest.mark.parametrize("seed", range(8))
def test_quadratics_lie_within_the_residual(seed):
    rng = np.random.default_rng(seed)
    task = random_quadratic_problem(rng, num_parameters=12).tasks[0]
    found = SampledTopCurvature(num_direction_samples=2, num_fresh_samples=4, hessian_products=8, random_state=seed)
    estimate = found.fit(QuadraticObjective(task, np.zeros(12)), split_of(task.sample(20, rng))).estimate_
    assert estimate.low <= task.top_curvature * (1 + 1e-9)
    assert task.top_curvature <= estimate.high * (1 + 1e-9)
    assert found.gauss_newton_ is None


def test_all_samples_of_a_network_give_its_top_curvature():
    objective, split = small_objective("cnn"), small_split(60)
    truth = TopCurvature(max_products=40).fit(objective, split).estimate_.value
    found = SampledTopCurvature(
        num_direction_samples=30, num_fresh_samples=30, gauss_newton_products=8, hessian_products=8
    ).fit(objective, split)
    assert found.estimate_.value == pytest.approx(truth, rel=0.1)
    assert found.sample_smoothness_.value >= found.sample_curvatures_.max() * 0.99
    assert torch.linalg.vector_norm(found.direction_) == pytest.approx(1.0, abs=1e-5)


def test_gauss_newton_is_reported_beside_the_hessian():
    objective, split = small_objective("cnn"), small_split(40)
    found = SampledTopCurvature(num_direction_samples=20, num_fresh_samples=20).fit(objective, split)
    ratio = found.gauss_newton_.value / found.estimate_.value
    gauss_newton = TopCurvature(kind="gauss_newton", max_products=40).fit(objective, split).estimate_.value
    hessian = TopCurvature(max_products=40).fit(objective, split).estimate_.value
    assert ratio == pytest.approx(gauss_newton / hessian, rel=0.25)


def test_the_goal_is_a_mixture_of_the_tasks():
    rng = np.random.default_rng(0)
    problem = random_quadratic_problem(rng, num_tasks=3, num_parameters=8)
    objectives = {n: QuadraticObjective(t, problem.start) for n, t in zip(problem.names, problem.tasks, strict=True)}
    splits = {n: split_of(t.sample(9, rng)) for n, t in zip(problem.names, problem.tasks, strict=True)}
    found = SampledTopCurvature(num_direction_samples=3, num_fresh_samples=6, hessian_products=8).fit_goal(
        objectives, splits, task_weights=dict(zip(problem.names, problem.task_weights.tolist(), strict=True))
    )
    assert found.estimate_.value == pytest.approx(float(np.linalg.eigvalsh(problem.hessian)[-1]), rel=1e-3)


def test_cost_is_what_the_budget_plans_for():
    meter = CostMeter()
    SampledTopCurvature(num_direction_samples=6, num_fresh_samples=20).fit(
        small_objective("cnn"), small_split(50), meter=meter
    )
    assert meter.units <= 6 * (4 * 2 + 2 * 4 + 1) + 20 + 12


def test_one_sample_is_a_named_outcome_and_two_are_split():
    objective = small_objective("cnn")
    with pytest.raises(TooFewSamples, match="needs at least 2; add samples"):
        SampledTopCurvature().fit(objective, small_split(1))
    assert SampledTopCurvature().fit(objective, small_split(2)).estimate_.num_samples == 2


def test_parameters_are_cloned_in_scikit_learns_way():
    assert clone(SampledTopCurvature(num_fresh_samples=9)).get_params()["num_fresh_samples"] == 9
