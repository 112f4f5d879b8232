import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators.cost import CostMeter
from estimators.critical_sharpness import CriticalSharpness, NoDescent, adamw_first_update
from estimators.outcomes import LossNotFinite
from estimators.tasks import Split
from estimators.update_rules import UpdateRule
from tests.known_problems import random_quadratic_task
from tests.quadratic_objectives import QuadraticObjective, split_of
from tests.small_networks import small_objective, small_split


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("first_step", [1e-4, 1.0, 1e3])
def test_on_quadratics_it_is_the_curvature_along_the_gradient(seed, first_step):
    rng = np.random.default_rng(seed)
    task = random_quadratic_task(rng, 6)
    draws = task.sample(20, rng)
    gradient = task.gradients(np.zeros(6), draws).mean(0)
    truth = gradient @ task.hessian @ gradient / (gradient @ gradient)
    found = CriticalSharpness(num_samples=20, first_step=first_step).fit(
        QuadraticObjective(task, np.zeros(6)), split_of(draws)
    )
    assert found.estimate_.low <= truth <= found.estimate_.high
    assert found.estimate_.high / found.estimate_.low <= 1.1 + 1e-9


def test_in_the_metric_of_adamw_it_bounds_that_optimizers_rate():
    rng = np.random.default_rng(0)
    task = random_quadratic_task(rng, 6)
    draws = task.sample(20, rng)
    objective, split = QuadraticObjective(task, np.zeros(6)), split_of(draws)
    gradient = torch.as_tensor(task.gradients(np.zeros(6), draws).mean(0))
    update = adamw_first_update(gradient)
    found = CriticalSharpness(num_samples=20).fit(objective, split, update)
    u = update.numpy()
    truth = (u @ task.hessian @ u) / -(u @ gradient.numpy())  # 2/eta_c of a parabola
    assert found.estimate_.low <= truth <= found.estimate_.high


def test_the_first_update_of_adamw_is_the_update_rules_own():
    gradient = torch.tensor([[0.3, -2.0, 1e-9]])
    weights, none = torch.zeros(1, 3), torch.zeros(1, 1)
    UpdateRule("adamw", momentum=none, weight_decay=none, like=weights).step(weights, gradient, torch.ones(1, 1))
    assert torch.allclose(weights, adamw_first_update(gradient), atol=1e-6)


def test_loss_falls_below_and_not_above_the_critical_step_of_a_network():
    objective, split = small_objective("cnn"), small_split(16)
    point = objective.initial.clone().requires_grad_()
    objective.losses(point, split.inputs, split.labels).mean().backward()
    found = CriticalSharpness(num_samples=16).fit(objective, split).estimate_

    def risk(step):
        with torch.no_grad():
            return float(objective.losses(objective.initial - step * point.grad, split.inputs, split.labels).mean())

    assert risk(2 / found.high) < risk(0.0) <= risk(2 / found.low) + 1e-6


def test_an_ascent_direction_and_a_zero_update_are_named_outcomes():
    objective, split = small_objective("cnn"), small_split(8)
    point = objective.initial.clone().requires_grad_()
    objective.losses(point, split.inputs, split.labels).mean().backward()
    with pytest.raises(NoDescent, match="it is no descent direction"):
        CriticalSharpness().fit(objective, split, point.grad)
    with pytest.raises(NoDescent, match="update=0 moves nothing"):
        CriticalSharpness().fit(objective, split, torch.zeros(objective.num_shared))


def test_a_loss_without_curvature_has_no_critical_step():
    class Slope:
        initial = torch.zeros(1)
        num_shared = 1

        def losses(self, weights, inputs, labels):
            return inputs[:, 0] * weights[0]

    with pytest.raises(NoDescent, match="no curvature bounds it"):
        CriticalSharpness().fit(Slope(), split_of(np.ones((2, 1), dtype=np.float32)))


def test_a_loss_that_is_not_finite_is_named():
    split = small_split(4)
    with pytest.raises(LossNotFinite, match="NaN or infinite"):
        CriticalSharpness().fit(
            small_objective("cnn"),
            Split(inputs=split.inputs * float("nan"), labels=split.labels),
            torch.ones(small_objective("cnn").num_shared),
        )


def test_cost_counts_every_forward_pass():
    objective, meter = small_objective("cnn"), CostMeter()
    found = CriticalSharpness(num_samples=10).fit(objective, small_split(20), meter=meter)
    assert meter.units == pytest.approx(found.estimate_.cost) == pytest.approx(10 + 10 / 3 * (found.evaluations_ + 1))


def test_parameters_are_checked_and_cloned():
    with pytest.raises(ValueError, match="first_step=0 must be positive"):
        CriticalSharpness(first_step=0).fit(small_objective("cnn"), small_split(4))
    assert clone(CriticalSharpness(tolerance=0.5)).get_params()["tolerance"] == 0.5
