r"""Learning problems whose constants are known exactly: the outside truth for estimators and bound.

Quadratic tasks, each with its own Hessian A_i [P, P] and non-isotropic noise (Sigma_i need not commute with A_i):

    loss(x; z) = 1/2 (x - z)^T A_i (x - z) + offset_i,   z = m_i + Sigma_i^{1/2} e,   E e = 0, E e e^T = I
    f_i(x) = 1/2 (x - m_i)^T A_i (x - m_i) + 1/2 tr(A_i Sigma_i) + offset_i        population risk
    sigma_i^2 = tr(A_i Sigma_i A_i) at every x,   L_i = max |eigenvalue of A_i|,   L = max_i L_i (also per sample)

Scalar tasks (P = 1), whose gradients are bounded and whose curvature differs from sample to sample; z is one of
finitely many atoms, c_z its amplitude:

    cosine     loss(x; z) = c_z (1 - cos(x - z))       not convex
    log_cosh   loss(x; z) = c_z log cosh(x - z)        convex, not strongly

Symbols and units are those of ``docs/notation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
NoiseLaw = Literal["gaussian", "uniform", "laplace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticTask:
    """One task with Hessian ``hessian`` [P, P], samples of mean ``centre`` [P] and covariance ``covariance`` [P, P]."""

    hessian: Array
    centre: Array
    covariance: Array
    offset: float = 0.0
    noise: NoiseLaw = "gaussian"

    def __post_init__(self) -> None:
        """Check symmetry and shapes."""
        size = len(self.centre)
        for name in ("hessian", "covariance"):
            matrix = getattr(self, name)
            if matrix.shape != (size, size) or not np.allclose(matrix, matrix.T):
                raise ValueError(f"{name} has shape {matrix.shape}; it must be symmetric [{size}, {size}]")

    # --- what an estimator sees -------------------------------------------------------------------------------------
    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """``count`` i.i.d. samples z, shape [count, P]."""
        size = len(self.centre)
        if self.noise == "gaussian":
            unit = rng.standard_normal((count, size))
        elif self.noise == "uniform":
            unit = rng.uniform(-np.sqrt(3), np.sqrt(3), (count, size))
        else:
            unit = rng.laplace(scale=np.sqrt(0.5), size=(count, size))
        return np.asarray(self.centre + unit @ symmetric_root(self.covariance))

    def losses(self, x: Array, samples: Array) -> Array:
        """loss(x; z) of every sample, shape [n]."""
        away = x - samples
        return np.asarray(0.5 * ((away @ self.hessian) * away).sum(-1) + self.offset)

    def gradients(self, x: Array, samples: Array) -> Array:
        """Gradient of every sample's loss, shape [n, P]."""
        return np.asarray((x - samples) @ self.hessian)

    def torch_losses(self, x: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """The same losses in torch, differentiable in x and fit for ``torch.func``."""
        hessian = torch.as_tensor(self.hessian, dtype=x.dtype, device=x.device)
        away = x - samples
        return 0.5 * ((away @ hessian) * away).sum(-1) + self.offset

    # --- the truth --------------------------------------------------------------------------------------------------
    def risk(self, x: Array) -> float:
        """Population risk f_i(x)."""
        away = x - self.centre
        return float(0.5 * away @ self.hessian @ away + 0.5 * np.trace(self.hessian @ self.covariance)) + self.offset

    def gradient(self, x: Array) -> Array:
        """Population gradient, shape [P]."""
        return np.asarray(self.hessian @ (x - self.centre))

    @property
    def smoothness(self) -> float:
        """L_i, also the Lipschitz constant of every single sample's gradient."""
        return float(np.abs(np.linalg.eigvalsh(self.hessian)).max())

    @property
    def top_curvature(self) -> float:
        """Largest eigenvalue of the Hessian."""
        return float(np.linalg.eigvalsh(self.hessian)[-1])

    @property
    def noise_covariance(self) -> Array:
        """Covariance of single-sample gradients, A Sigma A, the same at every x, shape [P, P]."""
        return np.asarray(self.hessian @ self.covariance @ self.hessian)

    @property
    def gradient_variance(self) -> float:
        """sigma_i^2 = tr(A Sigma A)."""
        return float(np.trace(self.noise_covariance))

    @property
    def noise_curvature(self) -> float:
        """E[xi^T A xi] / sigma_i^2, the curvature that gradient noise sees."""
        return float(np.trace(self.hessian @ self.noise_covariance)) / self.gradient_variance

    def drift_curvature(self, x: Array) -> float:
        """Curvature along the task's own mean gradient at x."""
        gradient = self.gradient(x)
        return float(gradient @ self.hessian @ gradient / (gradient @ gradient))


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticProblem:
    """Some quadratic tasks, a start x_0 [P] and the goal's weights p [N]."""

    tasks: tuple[QuadraticTask, ...]
    start: Array
    task_weights: Array

    @property
    def names(self) -> tuple[str, ...]:
        """``task0``, ``task1``, ..."""
        return tuple(f"task{i}" for i in range(len(self.tasks)))

    @property
    def hessian(self) -> Array:
        """Hessian of the goal, sum p_i A_i, shape [P, P]."""
        return np.asarray(sum(p * task.hessian for p, task in zip(self.task_weights, self.tasks, strict=True)))

    @property
    def smoothness(self) -> float:
        """L, Lipschitz constant of every sample's gradient, over all tasks."""
        return max(task.smoothness for task in self.tasks)

    @property
    def pl_constant(self) -> float:
        """mu, smallest eigenvalue of the goal's Hessian: exact for every realised data set."""
        return float(np.linalg.eigvalsh(self.hessian)[0])

    @property
    def minimizer(self) -> Array:
        """x*, where the goal's population risk is least, shape [P]."""
        pull = sum(p * t.hessian @ t.centre for p, t in zip(self.task_weights, self.tasks, strict=True))
        return np.asarray(np.linalg.solve(self.hessian, pull))

    def risk(self, x: Array) -> float:
        """f(x) = sum p_i f_i(x)."""
        return float(sum(p * task.risk(x) for p, task in zip(self.task_weights, self.tasks, strict=True)))

    def task_gradients(self, x: Array) -> Array:
        """Population gradients of all tasks, shape [N, P]."""
        return np.array([task.gradient(x) for task in self.tasks])

    def gram(self, x: Array) -> Array:
        """<grad f_i, grad f_j> at x, shape [N, N]."""
        gradients = self.task_gradients(x)
        return np.asarray(gradients @ gradients.T)

    def heterogeneity(self, x: Array) -> Array:
        """zeta_i^2 = ||grad f_i - grad f||^2 at x, shape [N]."""
        gradients = self.task_gradients(x)
        return np.asarray(((gradients - self.task_weights @ gradients) ** 2).sum(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarTask:
    """A one-dimensional task: atoms z [A], drawn uniformly, each with an amplitude c_z > 0 [A]."""

    kind: Literal["cosine", "log_cosh"]
    atoms: Array
    amplitudes: Array

    def losses(self, x: Array, index: Any) -> Array:
        """loss(x; z) for the atoms ``index``, broadcast against x; at least 0."""
        away = x - self.atoms[index]
        if self.kind == "cosine":
            return np.asarray(self.amplitudes[index] * (1 - np.cos(away)))
        size = np.abs(away)
        return np.asarray(self.amplitudes[index] * (size + np.log1p(np.exp(-2 * size)) - np.log(2)))

    def gradients(self, x: Array, index: Any) -> Array:
        """d loss / dx for the atoms ``index``, broadcast against x."""
        away = x - self.atoms[index]
        return np.asarray(self.amplitudes[index] * (np.sin(away) if self.kind == "cosine" else np.tanh(away)))

    def risk(self, x: Array) -> Array:
        """Population risk at every x."""
        return np.asarray(self.losses(np.asarray(x)[..., None], slice(None)).mean(-1))

    def gradient(self, x: Array) -> Array:
        """Population gradient at every x."""
        return np.asarray(self.gradients(np.asarray(x)[..., None], slice(None)).mean(-1))

    @property
    def smoothness(self) -> float:
        """L per sample: the largest amplitude (both shapes have |second derivative| <= 1)."""
        return float(self.amplitudes.max())

    @property
    def task_smoothness(self) -> float:
        """L_i for every realised data set is at most the per-sample L."""
        return self.smoothness


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarProblem:
    """Some scalar tasks, a start x_0 and the goal's weights p [N]."""

    tasks: tuple[ScalarTask, ...]
    start: float
    task_weights: Array
    grid: Array = field(default_factory=lambda: np.linspace(-8.0, 8.0, 401))

    @property
    def names(self) -> tuple[str, ...]:
        """``task0``, ``task1``, ..."""
        return tuple(f"task{i}" for i in range(len(self.tasks)))

    @property
    def smoothness(self) -> float:
        """L over all tasks."""
        return max(task.smoothness for task in self.tasks)


def random_quadratic_task(
    rng: np.random.Generator,
    num_parameters: int,
    *,
    curvature: tuple[float, float] = (0.1, 10.0),
    noise_scale: float = 1.0,
    spread: float = 1.0,
    noise: NoiseLaw = "gaussian",
) -> QuadraticTask:
    """A task with eigenvalues log-uniform in ``curvature``, random axes and random non-isotropic noise."""
    low, high = np.log(curvature)
    axes = random_rotation(rng, num_parameters)
    eigenvalues = np.exp(rng.uniform(low, high, num_parameters))
    noise_axes = random_rotation(rng, num_parameters)
    variances = noise_scale**2 * np.exp(rng.normal(0.0, 1.0, num_parameters))
    return QuadraticTask(
        hessian=symmetric(axes * eigenvalues @ axes.T),
        centre=spread * rng.standard_normal(num_parameters),
        covariance=symmetric(noise_axes * variances @ noise_axes.T),
        noise=noise,
    )


def random_quadratic_problem(
    rng: np.random.Generator,
    *,
    num_tasks: int = 3,
    num_parameters: int = 4,
    curvature: tuple[float, float] = (0.1, 10.0),
    noise_scale: float = 1.0,
    spread: float = 1.0,
    noise: NoiseLaw = "gaussian",
    task_weights: Sequence[float] | None = None,
) -> QuadraticProblem:
    """Tasks with different Hessians and noise, x_0 = 0; weights from a Dirichlet law unless given."""
    tasks = tuple(
        random_quadratic_task(
            rng, num_parameters, curvature=curvature, noise_scale=noise_scale, spread=spread, noise=noise
        )
        for _ in range(num_tasks)
    )
    weights = rng.dirichlet(np.full(num_tasks, 2.0)) if task_weights is None else np.asarray(task_weights, float)
    return QuadraticProblem(tasks=tasks, start=np.zeros(num_parameters), task_weights=weights)


def random_scalar_problem(
    rng: np.random.Generator, kind: Literal["cosine", "log_cosh"], *, num_tasks: int = 2, num_atoms: int = 8
) -> ScalarProblem:
    """Scalar tasks whose atoms lie around different centres, with amplitudes from 0.2 to 1; x_0 is random."""
    tasks = tuple(
        ScalarTask(
            kind=kind,
            atoms=rng.normal(0.0, 1.0) + rng.uniform(0.0, 1.0) * rng.standard_normal(num_atoms),
            amplitudes=rng.uniform(0.2, 1.0, num_atoms),
        )
        for _ in range(num_tasks)
    )
    return ScalarProblem(
        tasks=tasks, start=float(rng.uniform(-3.0, 3.0)), task_weights=rng.dirichlet(np.full(num_tasks, 2.0))
    )


def random_rotation(rng: np.random.Generator, size: int) -> Array:
    """A random orthogonal matrix, shape [size, size]."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diag(r)))


def symmetric(matrix: Array) -> Array:
    """The symmetric part, which removes rounding."""
    return np.asarray((matrix + matrix.T) / 2)


def symmetric_root(matrix: Array) -> Array:
    """The positive semi-definite square root of a covariance, shape [P, P]."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)
