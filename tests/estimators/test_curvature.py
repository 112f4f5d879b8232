import numpy as np
import pytest
import torch

from estimators import curvature
from estimators.cost import CostMeter
from estimators.curvature import (
    gauss_newton_curvatures,
    gauss_newton_product,
    hessian_curvatures,
    hessian_product,
    mean_gradient,
)
from estimators.lanczos import random_direction
from estimators.outcomes import GradientNotFinite, NotEnoughMemory
from tests.known_problems import random_quadratic_task
from tests.quadratic_objectives import QuadraticObjective, split_of
from tests.small_networks import NETWORKS, small_objective, small_split


def dense_hessian(objective, samples):
    return torch.func.hessian(lambda w: objective.losses(w, samples.inputs, samples.labels).mean())(objective.initial)


def dense_gauss_newton(objective, samples):
    """Written from the definition: J^T (diag p - p p^T) J, sample by sample."""
    total = 0
    for i in range(len(samples)):
        x = samples.inputs[i : i + 1]
        jacobian = torch.func.jacrev(lambda w, x=x: objective.logits(w, x)[0])(objective.initial).double()
        p = torch.softmax(objective.logits(objective.initial, x)[0], 0).double()
        total = total + jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total / len(samples)


def test_products_agree_with_the_dense_matrices_of_a_cnn():
    objective, samples = small_objective("cnn"), small_split(20)
    vector = random_direction(objective.initial, 0)
    hessian, gauss_newton = dense_hessian(objective, samples), dense_gauss_newton(objective, samples)
    product = hessian_product(objective, objective.initial, samples, vector, chunk_size=7)
    assert torch.allclose(product, hessian @ vector, rtol=1e-3, atol=1e-5)
    product = gauss_newton_product(objective, objective.initial, samples, vector, chunk_size=7)
    assert torch.allclose(product.double(), gauss_newton @ vector.double(), rtol=1e-3, atol=1e-5)
    along = hessian_curvatures(objective, objective.initial, samples, vector, group_size=4)
    assert along.mean() == pytest.approx(float(vector @ hessian @ vector), rel=1e-3)
    along = gauss_newton_curvatures(objective, objective.initial, samples, vector)
    assert along.mean() == pytest.approx(float(vector.double() @ gauss_newton @ vector.double()), rel=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_products_agree_with_forward_over_reverse_mode_also_under_attention(name):
    objective, samples = small_objective(name), small_split(6)
    vector = random_direction(objective.initial, 1)

    def gradient(w):
        return torch.func.grad(lambda u: objective.losses(u, samples.inputs, samples.labels).mean())(w)

    with curvature.exact_attention():
        twin = torch.func.jvp(gradient, (objective.initial,), (vector,))[1]
    product = hessian_product(objective, objective.initial, samples, vector)
    assert torch.allclose(product, twin, rtol=1e-3, atol=1e-4 * float(twin.abs().max()))
    along = hessian_curvatures(objective, objective.initial, samples, vector)
    assert along.mean() == pytest.approx(float(vector @ twin), rel=5e-3, abs=1e-5)
    form = float(vector @ gauss_newton_product(objective, objective.initial, samples, vector))
    along = gauss_newton_curvatures(objective, objective.initial, samples, vector)
    assert along.mean() == pytest.approx(form, rel=1e-3)


def test_quadratics_have_the_same_curvature_in_every_sample():
    task = random_quadratic_task(np.random.default_rng(0), 6)
    objective = QuadraticObjective(task, np.zeros(6))
    samples = split_of(task.sample(5, np.random.default_rng(1)))
    vector = torch.arange(1.0, 7.0, dtype=torch.float64)
    hessian = torch.as_tensor(task.hessian)
    assert torch.allclose(hessian_product(objective, objective.initial, samples, vector), hessian @ vector)
    along = hessian_curvatures(objective, objective.initial, samples, vector)
    assert along == pytest.approx(np.full(5, float(vector @ hessian @ vector)))


def test_a_layer_without_forward_derivative_is_differentiated_backwards(monkeypatch):
    objective, samples = small_objective("cnn"), small_split(6)
    vector = random_direction(objective.initial, 0)
    forward = gauss_newton_curvatures(objective, objective.initial, samples, vector)
    product = gauss_newton_product(objective, objective.initial, samples, vector)

    def missing(*args):
        raise NotImplementedError("Trying to use forward AD with a layer that does not support it")

    monkeypatch.setattr(torch.func, "jvp", missing)
    backward = gauss_newton_curvatures(objective, objective.initial, samples, vector)
    assert backward == pytest.approx(forward, rel=1e-3)
    again = gauss_newton_product(objective, objective.initial, samples, vector)
    assert torch.allclose(again, product, rtol=1e-3, atol=1e-6)


def test_a_linear_loss_has_no_curvature():
    class Linear:
        initial = torch.ones(3)
        num_shared = 3

        def losses(self, weights, inputs, labels):
            return inputs @ weights

    samples = split_of(np.eye(3, dtype=np.float32))
    assert hessian_curvatures(Linear(), torch.ones(3), samples, torch.ones(3)).tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(hessian_product(Linear(), torch.ones(3), samples, torch.ones(3)), torch.zeros(3))


def test_costs_follow_the_protocol():
    objective, samples = small_objective("cnn"), small_split(6)
    vector = random_direction(objective.initial, 0)
    for function, units in (
        (hessian_product, 24),
        (hessian_curvatures, 24),
        (gauss_newton_product, 12),
        (gauss_newton_curvatures, 6),
    ):
        meter = CostMeter()
        function(objective, objective.initial, samples, vector, meter=meter)
        assert meter.units == pytest.approx(units)
    meter = CostMeter()
    mean_gradient(objective, objective.initial, samples, meter=meter)
    assert meter.units == 6


def test_bad_curvature_is_a_named_outcome():
    class Kink:
        initial = torch.zeros(2)
        num_shared = 2

        def losses(self, weights, inputs, labels):
            return weights.square().sum().sqrt() * inputs[:, 0]

    samples = split_of(np.ones((2, 2), dtype=np.float32))
    with pytest.raises(GradientNotFinite, match="use float64 weights"):
        hessian_product(Kink(), torch.zeros(2), samples, torch.ones(2))

    class Hungry(Kink):
        def losses(self, weights, inputs, labels):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(NotEnoughMemory, match="pass a smaller chunk_size"):
        hessian_product(Hungry(), torch.zeros(2), samples, torch.ones(2))
