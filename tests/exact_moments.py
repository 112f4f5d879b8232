r"""What SGD on quadratic problems does in expectation, exactly: no replicas, no sampling error.

On a task with Hessian A every quantity is linear in the forcing c_k = A (x_0 - z_bar) + xi_k of step k, where z_bar is
the mean of the n training samples and xi_k the mini-batch noise: x_t - x_0 = -sum_{k<t} r_{t,k}(A) c_k.  The response r
is found per eigenvalue of A by running the optimizer on a unit impulse, momentum and schedule included.  Expectations
are over data (z_bar has covariance Sigma/n, the training covariance the mean Sigma (1 - 1/n)) and over the draws, which
are with replacement.
Replacing sample j by a twin's changes the forcing by (m_k/b) A (z_j - z'_j), m_k ~ Bin(b, 1/n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.bound import BoundConstants
from advisor.plan import Plan
from estimators.recipe import Recipe
from tests.known_problems import QuadraticProblem, QuadraticTask

Array = NDArray[np.float64]


def responses(eigenvalues: Array, recipe: Recipe) -> Array:
    """r_{t,k} for every t in 0..K, step k and eigenvalue, shape [K + 1, K, P]; unit |x|^2/loss."""
    steps, size = recipe.steps, len(eigenvalues)
    moved, velocity = np.zeros((steps, size)), np.zeros((steps, size))
    history = np.zeros((steps + 1, steps, size))
    for t, factor in enumerate(recipe.schedule_factors()):
        velocity = recipe.momentum * velocity - eigenvalues * moved
        velocity[t] += 1.0
        moved = moved + recipe.learning_rate * factor * velocity
        history[t + 1] = moved
    return history


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertMoments:
    """One expert: x_K - x_0 = -pull (x_0 - z_bar) + noise of covariance ``covariance``.

    Attributes:
        pull: [P, P].
        covariance: [P, P], expected over data.
        displacement: max_k (E ||x_k - x_0||^2)^(1/2).
        stability: mean over j of E ||x_K - x_K^(j)||^2.
    """

    pull: Array
    covariance: Array
    displacement: float
    stability: float


def expert_moments(task: QuadraticTask, start: Array, recipe: Recipe, num_samples: int) -> ExpertMoments:
    """The exact moments of one expert trained with replacement from x_0 = ``start`` on ``num_samples`` samples."""
    eigenvalues, axes = np.linalg.eigh(task.hessian)
    history = responses(eigenvalues, recipe)
    noise = axes.T @ task.noise_covariance @ axes
    forcing = (axes.T @ task.gradient(start)) ** 2 + np.diag(noise) / num_samples  # E (A (x_0 - z_bar))^2
    drawn = noise * (1 - 1 / num_samples) / recipe.batch_size

    summed, squared = history.sum(1), (history**2).sum(1)  # [K + 1, P]
    square = (summed**2 * forcing + squared * np.diag(drawn)).sum(1)
    last = history[-1]
    share = 1 / num_samples
    twin = (summed[-1] * share) ** 2 + squared[-1] * share * (1 - share) / recipe.batch_size
    return ExpertMoments(
        pull=(axes * (summed[-1] * eigenvalues)) @ axes.T,
        covariance=axes @ (last.T @ last * drawn) @ axes.T,
        displacement=float(np.sqrt(square.max())),
        stability=float((2 * np.diag(noise) * twin).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the bound speaks of, exactly.

    Attributes:
        displacement: [N] max_k (E ||x_i^k - x_0||^2)^(1/2).
        stability: [N] s_i.
        optimization: E[F(x_avg) - F*].
        merged_risk: E F(x_avg).
        generalisation: E[f(x_avg) - F(x_avg)].
        total: E[f(x_avg) - f*].
    """

    displacement: Array
    stability: Array
    optimization: float = np.nan
    merged_risk: float = np.nan
    generalisation: float = np.nan
    total: float = np.nan


def exact_truth(problem: QuadraticProblem, plan: Plan, num_samples: Array, *, bounded: bool = True) -> Truth:
    """The exact truth of a plan; ``bounded=False`` where f has no floor and only the single experts make sense."""
    experts = [
        expert_moments(task, problem.start, plan.recipes[name], int(n))
        for name, task, n in zip(problem.names, problem.tasks, num_samples, strict=True)
    ]
    displacement = np.array([expert.displacement for expert in experts])
    stability = np.array([expert.stability for expert in experts])
    if not bounded:
        return Truth(displacement=displacement, stability=stability)
    coefficients = np.array(list(plan.coefficients.values()))
    weights, hessian = problem.task_weights, problem.hessian
    inverse = np.linalg.inv(hessian)
    centre = problem.start - problem.minimizer
    parts = list(zip(problem.tasks, experts, weights, coefficients, num_samples, strict=True))
    for task, expert, _, c, _ in parts:
        centre = centre - c * expert.pull @ (problem.start - task.centre)
    common = 0.5 * centre @ hessian @ centre
    common += 0.5 * sum(c**2 * np.trace(hessian @ expert.covariance) for _, expert, _, c, _ in parts)
    total = empirical = common  # around x* of the population, around x* of the realised data
    floor = problem.risk(problem.minimizer)  # becomes E F*
    for task, expert, p, c, n in parts:
        moved = c * expert.pull
        lag = moved - p * inverse @ task.hessian
        total = total + 0.5 * np.trace(moved.T @ hessian @ moved @ task.covariance) / n
        empirical = empirical + 0.5 * np.trace(lag.T @ hessian @ lag @ task.covariance) / n
        # E F* = f* - sum p^2 tr(H^-1 A Sigma A)/(2 n): what the data's own minimizer gains on the data
        floor = floor - 0.5 * p**2 * np.trace(inverse @ task.noise_covariance) / n
    return Truth(
        displacement=displacement,
        stability=stability,
        optimization=float(empirical),
        merged_risk=float(floor + empirical),
        generalisation=float(problem.risk(problem.minimizer) + total - floor - empirical),
        total=float(total),
    )


def exact_constants(
    problem: QuadraticProblem, num_samples: Array, *, use_pl: bool = True, bounded: bool = True
) -> BoundConstants:
    """The bound's constants in expectation over data, none of them larger than it has to be."""
    n = np.asarray(num_samples, float)
    variance = np.array([task.gradient_variance for task in problem.tasks])
    gram = problem.gram(problem.start) + np.diag(variance / n)
    smoothness = np.array([task.smoothness for task in problem.tasks])
    common = {
        "names": problem.names,
        "task_weights": problem.task_weights,
        "num_samples": n,
        "smoothness": float(smoothness.max()),
        "task_smoothness": smoothness,
        "gradient_variance": variance,
        "initial_gradient_norm": np.sqrt(np.diag(gram)),
        "gradient_gram": gram,
    }
    if not bounded:
        ones = np.ones(len(n))
        return BoundConstants(**common, initial_risk=ones, task_gap=ones * np.inf)  # type: ignore[arg-type]
    inverse = np.linalg.inv(problem.hessian)
    start_gap = problem.risk(problem.start) - problem.risk(problem.minimizer)
    noise = sum(
        p**2 * np.trace(inverse @ task.noise_covariance) / samples
        for p, task, samples in zip(problem.task_weights, problem.tasks, n, strict=True)
    )
    gap = float(start_gap + 0.5 * noise)
    away = [(problem.start - task.centre, task) for task in problem.tasks]
    task_gap = [
        0.5 * x @ task.hessian @ x + 0.5 * np.trace(task.hessian @ task.covariance) / samples
        for (x, task), samples in zip(away, n, strict=True)
    ]
    return BoundConstants(
        **common,  # type: ignore[arg-type]
        initial_risk=np.array([task.risk(problem.start) for task in problem.tasks]),
        task_gap=np.array(task_gap),
        initial_gap=gap,
        initial_gap_floor=gap,
        pl_constant=problem.pl_constant if use_pl else 0.0,
    )
