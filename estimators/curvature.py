r"""Products with the Hessian and the Gauss-Newton matrix of a task's risk, and curvature along one direction.

    H v        = (1/n) sum_z grad (grad l(x; z) . v)                [D]  double backpropagation, 4 units a sample
    G v        = (1/n) sum_z J_z^T (diag p_z - p_z p_z^T) J_z v     [D]  forward mode + one backward, 5/3 units a sample
    v^T H_z v  = d^2/dt^2 l(x + t v; z) at t = 0                    [B]  forward over forward mode, 4/3 units a sample

with J_z [C, D] the Jacobian of the logits and p_z [C] the class probabilities.

H = G + (residual part) for cross-entropy.  Samples are taken in chunks, so that memory stays that of a small training
step.  Attention runs unfused (``exact_attention``): fused kernels have no second derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from estimators.cost import CostMeter
from estimators.objectives import Objective
from estimators.outcomes import GradientNotFinite, NotDifferentiable, NotEnoughMemory, is_memory_error
from estimators.per_sample_gradients import exact_attention
from estimators.tasks import Split

CHUNK_SIZE = 16  # a product holds 2 to 3 times the activations of a gradient: at most 1.5 steps of batch 32
Product = Callable[[Tensor], Tensor]


class LogitObjective(Objective, Protocol):
    """An objective whose losses are cross-entropies of logits."""

    def logits(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Class scores [B, C]."""
        ...


def mean_gradient(
    objective: Objective, weights: Tensor, samples: Split, *, meter: CostMeter | None = None, chunk_size: int = 32
) -> Tensor:
    """Gradient [D] of the mean loss of ``samples``."""
    total = torch.zeros_like(weights)
    for inputs, labels in _chunks(samples, chunk_size):
        point = weights.detach().clone().requires_grad_()
        with exact_attention(), _named_outcomes("a gradient"):
            (part,) = torch.autograd.grad(objective.losses(point, inputs, labels).sum(), point)
        total += part
    if meter is not None:
        meter.add(gradients=len(samples))
    return _finite(total / len(samples))


def hessian_product(
    objective: Objective,
    weights: Tensor,
    samples: Split,
    vector: Tensor,
    *,
    meter: CostMeter | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Tensor:
    """H v [D] of the mean loss of ``samples`` at ``weights``."""
    total = torch.zeros_like(weights)
    for inputs, labels in _chunks(samples, chunk_size):
        point = weights.detach().clone().requires_grad_()
        with exact_attention(), _named_outcomes("a Hessian-vector product"):
            loss = objective.losses(point, inputs, labels).sum()
            (slope,) = torch.autograd.grad(loss, point, create_graph=True)
            along = torch.dot(slope, vector)
            if along.requires_grad:  # otherwise the loss is linear in the weights and its Hessian 0
                (part,) = torch.autograd.grad(along, point, allow_unused=True)
                total += 0.0 if part is None else part
    if meter is not None:
        meter.add(hessian_products=len(samples))
    return _finite(total / len(samples))


def gauss_newton_product(
    objective: LogitObjective,
    weights: Tensor,
    samples: Split,
    vector: Tensor,
    *,
    meter: CostMeter | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Tensor:
    """G v [D] of the mean cross-entropy of ``samples`` at ``weights``."""
    total = torch.zeros_like(weights)
    for inputs, _ in _chunks(samples, chunk_size):

        def logits(point: Tensor, inputs: Tensor = inputs) -> Tensor:
            return objective.logits(point, inputs).to(weights.dtype)

        with exact_attention(), _named_outcomes("a Gauss-Newton product"):
            scores, change = _jacobian_product(logits, weights, vector)
            probability = torch.softmax(scores, 1)
            pulled = probability * change
            pulled = pulled - probability * pulled.sum(1, keepdim=True)
            point = weights.detach().clone().requires_grad_()
            (part,) = torch.autograd.grad(logits(point), point, grad_outputs=pulled.detach())
        total += part
    if meter is not None:
        meter.add(gradients=len(samples), forwards=2 * len(samples))
    return _finite(total / len(samples))


def directional_curvatures(
    objective: Objective,
    weights: Tensor,
    samples: Split,
    vector: Tensor,
    *,
    meter: CostMeter | None = None,
    chunk_size: int = 2 * CHUNK_SIZE,
) -> Tensor:
    """v^T H_z v of each sample, float64 [B] on the CPU; not divided by ||v||^2."""
    values = []
    for inputs, labels in _chunks(samples, chunk_size):
        with exact_attention(), _named_outcomes("a second directional derivative"):
            try:
                part = _forward_over_forward(objective, weights, inputs, labels, vector)
            except NotImplementedError:
                part = _thrice_backward(objective, weights, inputs, labels, vector)
        values.append(part.detach().double().cpu())
    if meter is not None:
        meter.add(forwards=4 * len(samples))
    return _finite(torch.cat(values))


def _forward_over_forward(
    objective: Objective, weights: Tensor, inputs: Tensor, labels: Tensor, vector: Tensor
) -> Tensor:
    def losses(step: Tensor) -> Tensor:
        return objective.losses(weights + step * vector, inputs, labels)

    zero, one = weights.new_zeros(()), weights.new_ones(())

    def slope(step: Tensor) -> Tensor:
        return torch.func.jvp(losses, (step,), (one,))[1]  # type: ignore[no-any-return]

    with torch.no_grad():
        return torch.func.jvp(slope, (zero,), (one,))[1]  # type: ignore[no-any-return]


def _jacobian_product(function: Product, weights: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """function(weights) and J v, backward twice where a layer has no forward-mode derivative."""
    try:
        with torch.no_grad():
            value, change = torch.func.jvp(function, (weights,), (vector,))  # type: ignore[misc]
    except NotImplementedError:
        point = weights.detach().clone().requires_grad_()
        value = function(point)
        dummy = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, point, grad_outputs=dummy, create_graph=True)
        (change,) = torch.autograd.grad(torch.dot(pulled, vector), dummy)
    return value.detach(), change.detach()


def _thrice_backward(objective: Objective, weights: Tensor, inputs: Tensor, labels: Tensor, vector: Tensor) -> Tensor:
    """The same where a layer has no forward-mode derivative: d/ds_z of v^T (sum_z s_z H_z) v."""
    step = weights.new_zeros((), requires_grad=True)
    losses = objective.losses(weights + step * vector, inputs, labels)
    share = torch.ones_like(losses, requires_grad=True)
    (first,) = torch.autograd.grad((share * losses).sum(), step, create_graph=True)
    (second,) = torch.autograd.grad(first, step, create_graph=True)
    (each,) = torch.autograd.grad(second, share)
    return each


def _chunks(samples: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(samples), size):
        yield samples.inputs[start : start + size], samples.labels[start : start + size]


class _named_outcomes:  # noqa: N801 - reads as a statement
    """Turn torch's errors about memory and missing derivatives into named outcomes."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and is_memory_error(error):
            raise NotEnoughMemory(
                f"{self.what} does not fit into memory; pass a smaller chunk_size (down to 1) or freeze more layers"
            ) from error
        if isinstance(error, RuntimeError) and "is not implemented" in str(error):
            raise NotDifferentiable(
                f"{self.what} needs a derivative that a layer lacks ({str(error).splitlines()[0][:120]}); "
                "replace the layer or leave the curvature out"
            ) from error


def _finite(value: Tensor) -> Tensor:
    if not bool(torch.isfinite(value).all()):
        raise GradientNotFinite(
            "derivatives: NaN or infinite at these weights; check the loss there, or use float64 weights"
        )
    return value
