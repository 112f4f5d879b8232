r"""Products with the Hessian and the Gauss-Newton matrix of a task's risk, and curvature along one direction.

    H v        = (1/n) sum_z grad (grad l(x; z) . v)               [D]  double backpropagation, 4 units a sample
    v^T H v    = d^2/dt^2 F(x + t v) at t = 0, in groups of samples     the same cost, no vector of length D kept
    G v        = (1/n) sum_z J_z^T (diag p_z - p_z p_z^T) J_z v    [D]  forward mode + one backward, 2 units a sample
    v^T G_z v  = Var_{c ~ p_z} (J_z v)_c of every sample           [B]  forward mode, 1 unit a sample

with J_z [C, D] the Jacobian of the logits and p_z [C] the class probabilities; H = G + (residual part).  A forward-mode
derivative along a dense v does three products where a forward pass does one, hence 1 unit.

Second derivatives are taken backward over backward only: forward over forward mode goes silently wrong at fused layers
(6-12 % on a ViT: the tangent of ``layer_norm`` is not itself differentiable forward; torch 2.15).  Attention runs
unfused (``exact_attention``).  Samples are taken in chunks, so that memory stays that of a small training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
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
    factors = weights.new_full((len(samples),), 1 / len(samples))
    return summed_gradient(objective, weights, samples, factors, meter=meter, chunk_size=chunk_size)


def summed_gradient(
    objective: Objective,
    weights: Tensor,
    samples: Split,
    factors: Tensor,
    *,
    meter: CostMeter | None = None,
    chunk_size: int = 32,
) -> Tensor:
    """sum_z a_z grad l(x; z) [D] with ``factors`` a [B]."""
    total, factors = torch.zeros_like(weights), factors.to(weights.device)
    for start, (inputs, labels) in zip(range(0, len(samples), chunk_size), _chunks(samples, chunk_size), strict=True):
        point = weights.detach().clone().requires_grad_()
        with exact_attention(), _named_outcomes("a gradient"):
            losses = objective.losses(point, inputs, labels)
            own = factors[start : start + chunk_size].to(losses)
            (part,) = torch.autograd.grad((own * losses).sum(), point)
        total += part
    if meter is not None:
        meter.add(gradients=len(samples))
    return _finite(total)


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
        meter.add(gradients=len(samples), forwards=3 * len(samples))
    return _finite(total / len(samples))


def hessian_curvatures(
    objective: Objective,
    weights: Tensor,
    samples: Split,
    vector: Tensor,
    *,
    group_size: int = 1,
    meter: CostMeter | None = None,
) -> NDArray[np.float64]:
    """v^T H_g v of consecutive groups of samples [groups], not divided by ||v||^2; each group's mean loss."""
    values = []
    for inputs, labels in _chunks(samples, group_size):
        step = weights.new_zeros((), requires_grad=True)
        with exact_attention(), _named_outcomes("a second directional derivative"):
            loss = objective.losses(weights + step * vector, inputs, labels).mean()
            (slope,) = torch.autograd.grad(loss, step, create_graph=True)
            second = None
            if slope.requires_grad:  # otherwise the loss is linear along v
                (second,) = torch.autograd.grad(slope, step, allow_unused=True)
        values.append(weights.new_zeros(()) if second is None else second.detach())
    if meter is not None:
        meter.add(hessian_products=len(samples))
    return np.asarray(_finite(torch.stack(values)).cpu().double().numpy())


def gauss_newton_curvatures(
    objective: LogitObjective,
    weights: Tensor,
    samples: Split,
    vector: Tensor,
    *,
    meter: CostMeter | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> NDArray[np.float64]:
    """v^T G_z v of each sample [B], not divided by ||v||^2."""
    values = []
    for inputs, _ in _chunks(samples, chunk_size):

        def logits(point: Tensor, inputs: Tensor = inputs) -> Tensor:
            return objective.logits(point, inputs).to(weights.dtype)

        with exact_attention(), _named_outcomes("a derivative along a direction"):
            scores, change = _jacobian_product(logits, weights, vector)
        probability = torch.softmax(scores.cpu().double(), 1)
        change = change.cpu().double()
        mean = (probability * change).sum(1, keepdim=True)
        values.append((probability * (change - mean).square()).sum(1))
    if meter is not None:
        meter.add(forwards=3 * len(samples))
    return np.asarray(_finite(torch.cat(values)).numpy())


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
