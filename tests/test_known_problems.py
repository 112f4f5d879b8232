"""The keystone's closed forms against brute force: sampling, finite differences and autograd."""

import numpy as np
import pytest
import torch

from tests.known_problems import (
    QuadraticTask,
    random_quadratic_problem,
    random_quadratic_task,
    random_scalar_problem,
)


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "laplace"])
def test_sampled_gradients_have_the_stated_mean_and_covariance(noise):
    task = random_quadratic_task(np.random.default_rng(3), 4, noise=noise)
    x = np.array([0.5, -1.0, 2.0, 0.0])
    gradients = task.gradients(x, task.sample(200_000, np.random.default_rng(4)))
    scale = task.gradient_variance
    np.testing.assert_allclose(gradients.mean(0), task.gradient(x), atol=5 * np.sqrt(scale / 200_000))
    np.testing.assert_allclose(np.cov(gradients.T), task.noise_covariance, atol=0.03 * scale)


def test_population_risk_is_the_mean_loss():
    task = random_quadratic_task(np.random.default_rng(5), 3)
    x = np.array([1.0, 0.0, -2.0])
    losses = task.losses(x, task.sample(200_000, np.random.default_rng(6)))
    assert abs(losses.mean() - task.risk(x)) < 5 * losses.std() / np.sqrt(200_000)


def test_torch_losses_and_their_gradients_equal_the_numpy_ones():
    task = random_quadratic_task(np.random.default_rng(7), 5)
    samples = task.sample(6, np.random.default_rng(8))
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    z = torch.from_numpy(samples)
    np.testing.assert_allclose(task.torch_losses(x, z), task.losses(x.numpy(), samples))
    gradients = torch.func.vmap(torch.func.grad(task.torch_losses), in_dims=(None, 0))(x, z)
    np.testing.assert_allclose(gradients, task.gradients(x.numpy(), samples))


def test_the_minimizer_has_zero_gradient_and_the_pl_inequality_is_tight():
    problem = random_quadratic_problem(np.random.default_rng(9))
    gradient = problem.task_weights @ problem.task_gradients(problem.minimizer)
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
    worst = np.linalg.eigh(problem.hessian)[1][:, 0]
    x = problem.minimizer + worst
    gap = problem.risk(x) - problem.risk(problem.minimizer)
    gradient = problem.task_weights @ problem.task_gradients(x)
    np.testing.assert_allclose(gradient @ gradient, 2 * problem.pl_constant * gap)


def test_heterogeneity_is_the_distance_between_task_gradient_and_goal_gradient():
    problem = random_quadratic_problem(np.random.default_rng(10), num_tasks=2, task_weights=[0.5, 0.5])
    first, second = problem.task_gradients(problem.start)
    np.testing.assert_allclose(problem.heterogeneity(problem.start), np.sum((first - second) ** 2) / 4)
    gram = problem.gram(problem.start)
    np.testing.assert_allclose(gram[0, 0] - 2 * gram[0, 1] + gram[1, 1], np.sum((first - second) ** 2))


def test_a_diagonal_task_has_the_constants_worked_by_hand():
    task = QuadraticTask(hessian=np.diag([1.0, 4.0]), centre=np.zeros(2), covariance=np.diag([9.0, 1.0]))
    assert task.smoothness == task.top_curvature == 4
    assert task.gradient_variance == 9 + 16
    assert task.noise_curvature == (9 + 64) / 25
    assert task.drift_curvature(np.array([1.0, 1.0])) == (1 + 64) / 17
    assert task.risk(np.array([1.0, 1.0])) == 2.5 + 6.5


def test_a_task_with_a_crooked_hessian_is_refused():
    with pytest.raises(ValueError, match="hessian has shape"):
        QuadraticTask(hessian=np.array([[1.0, 2.0], [0.0, 1.0]]), centre=np.zeros(2), covariance=np.eye(2))


@pytest.mark.parametrize("kind", ["cosine", "log_cosh"])
def test_scalar_gradients_are_the_slope_of_the_losses_and_as_smooth_as_stated(kind):
    task = random_scalar_problem(np.random.default_rng(11), kind).tasks[0]
    x = np.linspace(-4, 4, 4001)
    slope = np.gradient(task.risk(x), x)
    np.testing.assert_allclose(slope[1:-1], task.gradient(x)[1:-1], atol=1e-5)
    for atom in range(len(task.atoms)):
        curvature = np.gradient(task.gradients(x, atom), x)
        assert np.abs(curvature).max() <= task.amplitudes[atom] * (1 + 1e-9) <= task.smoothness * (1 + 1e-9)
    assert (task.losses(x[:, None], slice(None)) >= 0).all()
