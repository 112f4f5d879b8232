import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.base import clone

from estimators.curvature import exact_attention
from estimators.outcomes import LossNotFinite
from estimators.smoothness import TopCurvature
from estimators.tasks import Split
from tests.estimators.test_curvature import dense_gauss_newton, dense_hessian
from tests.known_problems import random_quadratic_problem
from tests.quadratic_objectives import QuadraticObjective, split_of
from tests.small_networks import small_objective, small_split


def scipy_top_eigenvalue(objective, samples):
    """ARPACK on forward-over-reverse products: neither our Lanczos nor our products."""
    size = objective.initial.numel()

    def product(v):
        vector = torch.as_tensor(v.ravel(), dtype=objective.initial.dtype)
        with exact_attention():
            slope = torch.func.grad(lambda w: objective.losses(w, samples.inputs, samples.labels).mean())
            return torch.func.jvp(slope, (objective.initial,), (vector,))[1].detach().double().numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", tol=1e-3, v0=np.ones(size))[0][0])


def test_both_curvatures_of_a_cnn_are_the_dense_eigenvalues():
    objective, samples = small_objective("cnn"), small_split(24)
    dense = float(torch.linalg.eigvalsh(dense_hessian(objective, samples).double())[-1])
    found = TopCurvature(max_products=40).fit(objective, samples)
    assert found.estimate_.value == pytest.approx(dense, rel=0.01)
    dense = float(torch.linalg.eigvalsh(dense_gauss_newton(objective, samples))[-1])
    found = TopCurvature(kind="gauss_newton", max_products=40).fit(objective, samples)
    assert found.estimate_.value == pytest.approx(dense, rel=0.01)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_top_curvature_of_timm_networks_is_scipys_within_one_percent(name):
    objective, samples = small_objective(name), small_split(6)
    found = TopCurvature(max_products=30).fit(objective, samples)
    assert found.estimate_.value == pytest.approx(scipy_top_eigenvalue(objective, samples), rel=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_quadratic_tasks_and_their_goal_lie_within_the_residual_bound(seed):
    rng = np.random.default_rng(seed)
    problem = random_quadratic_problem(rng, num_tasks=3, num_parameters=15)
    objectives = {n: QuadraticObjective(t, problem.start) for n, t in zip(problem.names, problem.tasks, strict=True)}
    splits = {n: split_of(t.sample(4, rng)) for n, t in zip(problem.names, problem.tasks, strict=True)}
    weights = dict(zip(problem.names, problem.task_weights.tolist(), strict=True))
    found = TopCurvature(max_products=15, random_state=seed).fit_goal(objectives, splits, task_weights=weights)
    truth = float(np.linalg.eigvalsh(problem.hessian)[-1])
    assert found.estimate_.low <= truth + 1e-9
    assert truth <= found.estimate_.high + 1e-9


def test_curvature_at_other_weights_is_measured_there():
    objective, samples = small_objective("cnn"), small_split(8)
    elsewhere = objective.initial * 1.5
    found = TopCurvature(max_products=30).fit(objective, samples, elsewhere).estimate_.value
    twin = torch.func.hessian(lambda w: objective.losses(w, samples.inputs, samples.labels).mean())(elsewhere)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(twin.double())[-1]), rel=0.01)


def test_bad_choices_and_losses_are_named():
    objective, samples = small_objective("cnn"), small_split(4)
    with pytest.raises(ValueError, match="kind='fisher' is not one of"):
        TopCurvature(kind="fisher").fit(objective, samples)
    with pytest.raises(LossNotFinite, match="leave this task out"):
        TopCurvature().fit(objective, Split(inputs=samples.inputs * float("inf"), labels=samples.labels))
    task = random_quadratic_problem(np.random.default_rng(0)).tasks[0]
    with pytest.raises(TypeError, match="use kind='hessian'"):
        TopCurvature(kind="gauss_newton").fit(QuadraticObjective(task, np.zeros(4)), split_of(np.zeros((2, 4))))


def test_parameters_are_cloned_in_scikit_learns_way():
    assert clone(TopCurvature(num_samples=7, kind="gauss_newton")).get_params()["num_samples"] == 7
