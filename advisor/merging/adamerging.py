"""AdaMerging: coefficients that minimise a loss of the merged model by gradient descent, task-wise or layer-wise.

    x(λ) = x₀ + Σ_t λ_t τ_t         task-wise: λ_t;   layer-wise: λ_t^(j) for each tensor j
    ∂ℓ/∂λ_t^(j) = ⟨∂ℓ/∂x^(j), τ_t^(j)⟩,      ∂ℓ/∂λ_t = Σ_j ∂ℓ/∂λ_t^(j)

The identity needs one ordinary backward pass and T inner products for each tensor, no graph through the merge. The loss
is a callable, so this file knows no backbone; AdaMerging's own is the mean entropy of the predictions on unlabelled
inputs, Σ_t mean_x H(softmax f_t(x; x(λ))), H(p) = −Σ p log p (if those inputs are the test inputs, the result is
transductive). For AdaMerging++ pass `trim_task_vectors(vectors)`. Adam: β = 0.9, 0.999, as the authors.
Source: Yang et al. 2023, arXiv 2310.02575.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.merging.state_dicts import combine

StateDict = Mapping[str, Any]
LossAndGradient = Callable[[dict[str, Any]], tuple[float, Mapping[str, Any]]]
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class MergeDiverged(ArithmeticError):
    """The loss stopped being finite while coefficients were tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaMergingResult:
    """Tuned coefficients and the losses on the way.

    Attributes:
        coefficients: tensor name → λ [T], the same for all tensors when task-wise; fits `combine` and, as
            `tensor_coefficients`, `merge`.
        losses: the loss before each step and after the last, length steps + 1.
        granularity: "task" or "layer".
    """

    coefficients: Mapping[str, tuple[float, ...]]
    losses: tuple[float, ...]
    granularity: Literal["task", "layer"]

    @property
    def task_coefficients(self) -> tuple[float, ...]:
        """λ [T]: the common ones when task-wise, the mean over tensors when layer-wise."""
        stacked = np.array(list(self.coefficients.values()))
        return tuple(stacked.mean(axis=0).tolist())


def tune_by_gradient(
    base: StateDict,
    vectors: Sequence[StateDict],
    loss_and_gradient: LossAndGradient,
    *,
    granularity: Literal["task", "layer"] = "layer",
    steps: int = 500,
    learning_rate: float = 1e-3,
    initial: float | Sequence[float] = 0.3,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> AdaMergingResult:
    """Tune λ by Adam on a loss of the merged weights.

    Args:
        base: the base's state dict.
        vectors: task vectors by tensor name.
        loss_and_gradient: merged state dict → loss and its gradient by tensor name; tensors without one (frozen,
            statistics) leave their coefficients where they started.
        granularity: one coefficient a task, or one a task and tensor.
        steps: number of steps, each one call of the loss.
        learning_rate: Adam's, in units of λ.
        initial: λ at the start, common or one a task.
        bounds: λ is projected into this range after each step, as the authors do; None leaves it free.

    Returns:
        The last coefficients and all losses.

    Raises:
        ValueError: wrong arguments, or a gradient for no tensor of the task vectors.
        MergeDiverged: the loss is not finite.
    """
    names, coefficients = _start(base, vectors, granularity, steps, learning_rate, initial, bounds)
    first, second = np.zeros_like(coefficients), np.zeros_like(coefficients)
    losses = []
    for step in range(1, steps + 2):
        merged = combine(base, vectors, _by_name(names, coefficients))
        loss, gradient = loss_and_gradient(merged)
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            raise MergeDiverged(f"loss={losses[-1]} at step {step}: lower learning_rate={learning_rate} or set bounds")
        if step > steps:
            break
        slope = project_gradient(names, gradient, vectors)
        if granularity == "task":
            slope = np.broadcast_to(slope.sum(axis=0), slope.shape)
        first = _BETAS[0] * first + (1 - _BETAS[0]) * slope
        second = _BETAS[1] * second + (1 - _BETAS[1]) * slope**2
        corrected = np.sqrt(second / (1 - _BETAS[1] ** step)) + _EPSILON
        coefficients = coefficients - learning_rate * first / (1 - _BETAS[0] ** step) / corrected
        if bounds is not None:
            coefficients = np.clip(coefficients, *bounds)
    return AdaMergingResult(coefficients=_by_name(names, coefficients), losses=tuple(losses), granularity=granularity)


def project_gradient(
    names: Sequence[str], gradient: Mapping[str, Any], vectors: Sequence[StateDict]
) -> NDArray[np.float64]:
    """∂ℓ/∂λ_t^(j) = ⟨∂ℓ/∂x^(j), τ_t^(j)⟩, shape [tensors, T]; 0 for tensors without a gradient.

    Raises:
        ValueError: no tensor has a gradient.
    """
    if not any(name in gradient for name in names):
        raise ValueError(f"gradient for {sorted(gradient)[:3]}...: none belongs to a tensor of the task vectors")
    slope = np.zeros((len(names), len(vectors)))
    for row, name in zip(slope, names, strict=True):
        if name in gradient:
            row[:] = [float((gradient[name] * vector[name]).sum()) for vector in vectors]
    return slope


def _start(
    base: StateDict,
    vectors: Sequence[StateDict],
    granularity: str,
    steps: int,
    learning_rate: float,
    initial: float | Sequence[float],
    bounds: tuple[float, float] | None,
) -> tuple[list[str], NDArray[np.float64]]:
    if not vectors:
        raise ValueError("vectors=[]: give at least one task vector")
    if granularity not in ("task", "layer"):
        raise ValueError(f"granularity={granularity!r} must be 'task' or 'layer'")
    if steps < 0 or not learning_rate > 0:
        raise ValueError(f"steps={steps} must be at least 0 and learning_rate={learning_rate} above 0")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds={bounds}: the lower must be below the upper")
    names = [name for name in base if name in vectors[0]]
    for number, vector in enumerate(vectors):
        if set(vector) != set(names):
            raise ValueError(f"vectors[{number}] has other tensors than the base and vectors[0]")
    each = np.broadcast_to(np.asarray(initial, dtype=np.float64), (len(vectors),))
    return names, np.tile(each, (len(names), 1))


def _by_name(names: Sequence[str], coefficients: NDArray[np.float64]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(row) for name, row in zip(names, coefficients.tolist(), strict=True)}
