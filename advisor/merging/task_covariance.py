"""Data-free merging of matrices with input covariances read off the task vectors: WUDI and its closed form.

A layer that was fine-tuned moved along its inputs, so C_t = τ_t' τ_t / ‖τ_t‖²_F (n, n) stands in for its input
covariance:

    L(D) = Σ_t ‖(D − τ_t) τ_t'‖²_F / ‖τ_t‖²_F = Σ_t tr (D − τ_t) C_t (D − τ_t)'        ∇L = 2 (D S − R)
    S = Σ C_t,   R = Σ τ_t C_t

    wudi:              Adam on D from D₀ = Σ τ_t, `steps` steps
    ridge_covariance:  argmin L(D) + ρ ‖D − D₀‖²_F = (R + ρ D₀)(S + ρ I)⁻¹,   ρ = ridge · tr S / n

L is quadratic, and RegMean's solve with task-vector Grams is its minimiser; early-stopped Adam is not, it stays near
D₀, which is what the ridge term expresses: ridge → ∞ gives D₀, ridge → 0 the minimiser. `prior="mean"` shrinks to
(1/N) Σ τ_t instead. On matrices c_t τ_t (see `matrices`); the mean of c_t τ_t elsewhere. Source: Cheng et al. 2025,
Whoever Started the Interference Should End It, arXiv 2503.08099 (WUDI); closed form derived here.
"""

from typing import Literal

import numpy as np

from advisor.merging.matrices import Convolutions, by_matrix, check_convolutions, solve_right
from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator

Prior = Literal["sum", "mean"]
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def wudi_operator(*, steps: int = 300, learning_rate: float = 1e-5, convolutions: Convolutions = "matrix") -> Operator:
    """WUDI's iteration with its authors' defaults (300 steps of Adam, learning rate 1e-5).

    Raises:
        ValueError: steps below 0 or a learning rate not above 0.
    """
    check_convolutions(convolutions)
    if steps < 0 or not learning_rate > 0:
        raise ValueError(f"steps={steps} must be at least 0 and learning_rate={learning_rate} above 0")
    return Operator(
        name="wudi",
        merge=by_matrix(lambda matrices: iterate(matrices, steps, learning_rate), convolutions),
        rest="mean",
        options={"steps": steps, "learning_rate": learning_rate, "convolutions": convolutions},
    )


def ridge_covariance_operator(
    *, ridge: float = 0.1, prior: Prior = "sum", convolutions: Convolutions = "matrix"
) -> Operator:
    """The regularised closed form.

    Raises:
        ValueError: a ridge not above 0 or an unknown prior.
    """
    check_convolutions(convolutions)
    if not ridge > 0:
        raise ValueError(f"ridge={ridge} must be above 0: S alone is singular where no task vector reaches")
    if prior not in ("sum", "mean"):
        raise ValueError(f"prior={prior!r} must be 'sum' or 'mean'")
    return Operator(
        name="ridge_covariance",
        merge=by_matrix(lambda matrices: solve(matrices, ridge, prior), convolutions),
        rest="mean",
        options={"ridge": ridge, "prior": prior, "convolutions": convolutions},
    )


def normal_equations(matrices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """S [n, n] and R [m, n] of task matrices [N, m, n]."""
    columns = matrices.shape[2]
    system = np.zeros((columns, columns), dtype=matrices.dtype)
    target = np.zeros(matrices.shape[1:], dtype=matrices.dtype)
    for matrix in matrices:
        covariance = matrix.T @ matrix
        covariance /= np.trace(covariance)
        system += covariance
        target += matrix @ covariance
    return system, target


def interference(merged: FloatArray, matrices: FloatArray) -> float:
    """L(D)."""
    return float(sum((((merged - t) @ t.T) ** 2).sum() / (t**2).sum() for t in matrices))


def iterate(matrices: FloatArray, steps: int, learning_rate: float) -> FloatArray:
    """WUDI's D [m, n] after `steps` steps of Adam."""
    system, target = normal_equations(matrices)
    merged = matrices.sum(axis=0)
    first, second = np.zeros_like(merged), np.zeros_like(merged)
    for step in range(1, steps + 1):
        gradient = 2 * (merged @ system - target)
        first += (1 - _BETAS[0]) * (gradient - first)
        second += (1 - _BETAS[1]) * (gradient**2 - second)
        corrected = np.sqrt(second / (1 - _BETAS[1] ** step)) + _EPSILON
        merged -= learning_rate / (1 - _BETAS[0] ** step) * first / corrected
    result: FloatArray = merged
    return result


def solve(matrices: FloatArray, ridge: float, prior: Prior) -> FloatArray:
    """The closed form D [m, n]."""
    system, target = normal_equations(matrices)
    strength = system.dtype.type(ridge * np.trace(system) / len(system))
    centre = matrices.sum(axis=0) if prior == "sum" else matrices.mean(axis=0)
    target += strength * centre
    system[np.diag_indices_from(system)] += strength
    return solve_right(target, system)
