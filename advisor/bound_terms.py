r"""The terms of the worst-case bound, one pure function each (``docs/theory.md`` section 2).

Arrays broadcast: plans [M], experts [M, N] with the tasks on the last axis.  Growth enters by its logarithm, everything
else as it is.  With the unit of length u and the unit of loss u^2, which leave eta and L alone, (G, sigma, d) shrink
by u and (F, Delta, Gram matrix) by u^2; ``advisor.bound`` uses that where a term would leave the range of a float.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PAPER_CONSTANT = 8.0  # C of the paper's form: the refined form is below it wherever K <= n b (docs/theory.md)


def shares(travelled: FloatArray, task_weights: FloatArray) -> FloatArray:
    """w_i = T_i/T with T_i = lambda_i eta_i ||a_i||_1; where T = 0 nothing moves and the goal weights serve as well.

    >>> shares(np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([0.5, 0.5])).tolist()
    [[0.25, 0.75], [0.5, 0.5]]
    """
    total = travelled.sum(axis=-1, keepdims=True)
    still = np.broadcast_to(task_weights, travelled.shape).copy()
    return np.asarray(np.divide(travelled, total, out=still, where=total > 0))


def chi_square(task_weights: FloatArray, share: FloatArray) -> FloatArray:
    """chi^2 = sum (p_i - w_i)^2/w_i; infinite where the goal holds a task that the merge leaves out.

    By hand, p = (1/2, 1/2) and w = (1/4, 3/4): (1/16)/(1/4) + (1/16)/(3/4) = 1/3.

    >>> chi_square(np.array([0.5, 0.5]), np.array([[0.25, 0.75], [0.0, 1.0]])).round(6).tolist()
    [0.333333, inf]
    """
    square = (task_weights - share) ** 2
    absent = np.where(square > 0, np.inf, 0.0)
    return np.asarray(np.divide(square, share, out=absent, where=share > 0).sum(axis=-1))


def log_displacement_by_growth(
    learning_rate: FloatArray,
    batch_size: FloatArray,
    gradient_norm: FloatArray,
    gradient_variance: FloatArray,
    log_q1: FloatArray,
    log_q2: FloatArray,
) -> FloatArray:
    """Logarithm of eta G Q_1 + eta sigma sqrt(Q_2/b), the first form of d_i.

    By hand, eta = 1/2, b = 4, G = 2, sigma^2 = 16, Q_1 = 7, Q_2 = 9: 7 + 1/2 * 4 * 3/2 = 10.

    >>> log = log_displacement_by_growth(*map(np.array, (0.5, 4.0, 2.0, 16.0)), np.log(7.0), np.log(9.0))
    >>> float(np.exp(log).round(9))
    10.0
    """
    drift = np.log(gradient_norm) + log_q1
    noise = 0.5 * (np.log(gradient_variance / batch_size) + log_q2)
    return np.asarray(np.log(learning_rate) + np.logaddexp(drift, noise))


def displacement_by_descent(
    learning_rate: FloatArray,
    batch_size: FloatArray,
    mass: FloatArray,
    energy: FloatArray,
    task_smoothness: FloatArray,
    task_gap: FloatArray,
    gradient_variance: FloatArray,
) -> FloatArray:
    """sqrt(2 eta A Delta_i + eta^3 L_i A B sigma^2/b) + eta sigma sqrt(B/b), the second form of d_i.

    A = ||a||_1 and B = ||a||_2^2, both K at a constant rate.  Holds without momentum and for eta a_k L_i <= 1; the
    caller sees to it.  By hand, eta = 1/2, b = 1, A = B = 4, L_i = 1, Delta_i = 2, sigma^2 = 4:
    sqrt(8 + 1/8 * 16 * 4) + 1/2 * 2 * 2 = 4 + 2.

    >>> float(displacement_by_descent(*map(np.array, (0.5, 1.0, 4.0, 4.0, 1.0, 2.0, 4.0))))
    6.0
    """
    noise = learning_rate**2 * energy * gradient_variance / batch_size
    drift = 2 * learning_rate * mass * task_gap + learning_rate * task_smoothness * mass * noise
    return np.asarray(np.sqrt(drift) + np.sqrt(noise))


def log_refined_stability(
    learning_rate: FloatArray,
    batch_size: FloatArray,
    num_samples: FloatArray,
    gradient_variance: FloatArray,
    log_q1: FloatArray,
    log_q2: FloatArray,
) -> FloatArray:
    """Logarithm of s_i = 2 sigma^2 eta^2 (Q_1/n + sqrt(Q_2/(n b)))^2, before the cap (2 d_i)^2.

    By hand, eta = 1/2, b = 4, n = 4, sigma^2 = 2, Q_1 = 8, Q_2 = 16: 2 * 2/4 * (2 + 1)^2 = 9.

    >>> log = log_refined_stability(*map(np.array, (0.5, 4.0, 4.0, 2.0)), np.log(8.0), np.log(16.0))
    >>> float(np.exp(log).round(9))
    9.0
    """
    log_samples = np.log(num_samples)
    spread = np.logaddexp(log_q1 - log_samples, 0.5 * (log_q2 - log_samples - np.log(batch_size)))
    return np.asarray(np.log(2 * gradient_variance) + 2 * (np.log(learning_rate) + spread))


def log_paper_stability(
    learning_rate: FloatArray,
    batch_size: FloatArray,
    num_samples: FloatArray,
    gradient_variance: FloatArray,
    log_q2: FloatArray,
) -> FloatArray:
    """Logarithm of s_i = 8 sigma^2 eta^2 Q_2 b/n (Q_2 = K at g = 1), which grows with b; a bound only for K <= n b.

    By hand, eta = 1/2, b = 2, n = 4, sigma^2 = 3, Q_2 = 5: 8 * 3/4 * 5/2 = 15.

    >>> float(np.exp(log_paper_stability(*map(np.array, (0.5, 2.0, 4.0, 3.0)), np.log(5.0))).round(9))
    15.0
    """
    return np.asarray(
        np.log(PAPER_CONSTANT * gradient_variance * batch_size / num_samples) + 2 * np.log(learning_rate) + log_q2
    )


def last_step_length(
    learning_rate: FloatArray,
    batch_size: FloatArray,
    peak: FloatArray,
    gradient_norm: FloatArray,
    task_smoothness: FloatArray,
    gradient_variance: FloatArray,
    displacement: FloatArray,
) -> FloatArray:
    """rho_i = eta max_k a_k sqrt((G + L_i d_i)^2 + sigma^2/b), the longest single step in root mean square.

    By hand, eta = 1/2, peak 2, G = 1, L_i = 2, d_i = 1, sigma^2/b = 16: sqrt(9 + 16) = 5.

    >>> float(last_step_length(*map(np.array, (0.5, 1.0, 2.0, 1.0, 2.0, 16.0, 1.0))))
    5.0
    """
    mean = gradient_norm + task_smoothness * displacement
    return np.asarray(learning_rate * peak * np.sqrt(mean**2 + gradient_variance / batch_size))


def reach(coefficients: FloatArray, displacement: FloatArray) -> FloatArray:
    """X = sum lambda_j d_j, how far the merge may lie from x_0.

    >>> float(reach(np.array([0.5, 0.25]), np.array([2.0, 4.0])))
    2.0
    """
    return np.asarray((coefficients * displacement).sum(axis=-1))


def mismatch_norm(weights: FloatArray, gram: FloatArray, extra: FloatArray) -> FloatArray:
    """||sum c_i grad F_i(x_0)|| for some weights c; ``extra`` [M, N] is variance to add to the Gram matrix's diagonal.

    With c = p - w it is the heterogeneity that the merge meets at x_0, with c = p the gradient of the goal.
    By hand, c = (1, -2), gradients (3, 0) and (0, 2), no extra: 5.

    >>> mismatch_norm(np.array([[1.0, -2.0]]), np.diag([9.0, 4.0]), np.zeros((1, 2))).tolist()
    [5.0]
    """
    square = (weights @ gram * weights + weights * weights * extra).sum(axis=-1)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def heterogeneity_norm(
    mismatch: FloatArray, share: FloatArray, task_weights: FloatArray, task_smoothness: FloatArray, far: FloatArray
) -> FloatArray:
    """sqrt(H) <= ||sum (p_i - w_i) grad F_i(x_0)|| + sum |p_i - w_i| L_i X: the measured point, made rigorous.

    By hand, mismatch 1, p = (1/2, 1/2), w = (1/4, 3/4), L = (1, 3), X = 2: 1 + (1/4) (1 + 3) * 2 = 3.

    >>> share, weights = np.array([[0.25, 0.75]]), np.array([0.5, 0.5])
    >>> heterogeneity_norm(np.array([1.0]), share, weights, np.array([1.0, 3.0]), np.array([2.0])).tolist()
    [3.0]
    """
    return np.asarray(mismatch + (np.abs(task_weights - share) * task_smoothness).sum(axis=-1) * far)


def drift_norm(
    share: FloatArray,
    task_smoothness: FloatArray,
    coefficients: FloatArray,
    displacement: FloatArray,
    step_length: FloatArray,
) -> FloatArray:
    """D = sqrt(sum w_i L_i^2 (sum_{j != i} lambda_j d_j + own_i)^2), the gradients' lag behind the merge.

    own_i = min{(1 + lambda_i) d_i, |1 - lambda_i| d_i + lambda_i rho_i}, where ``step_length`` is rho_i, infinite under
    momentum.  By hand, w = (1/2, 1/2), L = (1, 2), lambda = (1, 1/2), d = (2, 4), rho = (1, 4): own parts
    min(4, 0 + 1) = 1 and min(6, 2 + 2) = 4, the others' 2 and 2, so D^2 = (3^2 + 4 * 6^2)/2 = 76.5.

    >>> rows = [[0.5, 0.5], [1.0, 2.0], [1.0, 0.5], [2.0, 4.0], [1.0, 4.0]]
    >>> float((drift_norm(*map(np.array, rows)) ** 2).round(9))
    76.5
    """
    moved = coefficients * displacement
    others = moved.sum(axis=-1, keepdims=True) - moved
    # where lambda = 0 the first form of own_i is d_i itself, and 0 * infinity must not appear
    last = np.multiply(coefficients, step_length, out=np.full(coefficients.shape, np.inf), where=coefficients > 0)
    lagging = np.abs(1 - coefficients) * displacement + last
    own = np.minimum(displacement + moved, lagging)
    return np.asarray(np.sqrt((share * (task_smoothness * (np.maximum(others, 0.0) + own)) ** 2).sum(axis=-1)))


def log_progress(initial_gap: float, decay: FloatArray) -> FloatArray:
    """Logarithm of e^{-mu T} Delta_0 with ``decay`` = mu T.

    >>> float(np.exp(log_progress(2.0, np.array(np.log(4.0)))).round(9))
    0.5
    """
    return np.asarray(_log(np.array(initial_gap)) - decay)


def memory(travel: FloatArray, pl_constant: float) -> FloatArray:
    """(1 - e^{-mu T})/mu, over how much progress a disturbance is remembered; T at mu = 0.

    >>> [float(memory(np.array(2.0), mu).round(6)) for mu in (0.0, 1.0)]
    [2.0, 0.864665]
    """
    return travel if pl_constant == 0 else np.asarray(-np.expm1(-pl_constant * travel) / pl_constant)


def noise(
    smoothness: float,
    learning_rate: FloatArray,
    batch_size: FloatArray,
    gradient_variance: FloatArray,
    coefficients: FloatArray,
    noise_sum: FloatArray,
) -> FloatArray:
    """L sum_i lambda_i^2 eta_i^2 (sigma_i^2/b_i) nu_i, nu_i = sum_k a_k^2 psi(kappa_k) e^{-mu T (1 - t_{k+1})}.

    By hand, L = 2, eta = 1/2, b = 4, sigma^2 = 8, lambda = 1, nu = 3 (six steps at mu = 0): 2 * 1/4 * 2 * 3 = 3.

    >>> float(noise(2.0, *(np.array([x]) for x in (0.5, 4.0, 8.0, 1.0, 3.0))))
    3.0
    """
    step = coefficients * learning_rate
    return np.asarray(smoothness * (step * step * (gradient_variance / batch_size) * noise_sum).sum(axis=-1))


def interference(memory: FloatArray, own: FloatArray, other: FloatArray) -> FloatArray:
    """One part's share of memory * (sqrt(H) + D)^2/2, its cross product split evenly: memory * own * (own + other)/2.

    By hand, memory = 2, sqrt(H) = 1, D = 3: 4 for heterogeneity, 12 for drift, together 2 * 16/2.

    >>> [float(interference(*map(np.array, (2.0, *pair)))) for pair in ((1.0, 3.0), (3.0, 1.0))]
    [4.0, 12.0]
    """
    return np.asarray(0.5 * memory * own * (own + other))


def trust_region(
    start: FloatArray | float, gradient_norm: FloatArray, smoothness: float, far: FloatArray
) -> FloatArray:
    """The value at x_0, ``start``, plus ||grad F(x_0)|| X + (L/2) X^2.

    With start = Delta_0 it caps the optimisation term, with start = F(x_0) it caps E F(x_avg).

    >>> float(trust_region(1.0, np.array(2.0), 4.0, np.array(0.5)))
    2.5
    """
    return np.asarray(start + gradient_norm * far + 0.5 * smoothness * far * far)


def stability_sum(task_weights: FloatArray, coefficients: FloatArray, stability: FloatArray) -> FloatArray:
    """S = sum p_i lambda_i^2 s_i.

    >>> float(stability_sum(np.array([0.5, 0.5]), np.array([1.0, 0.5]), np.array([2.0, 8.0])))
    2.0
    """
    return np.asarray((task_weights * coefficients * coefficients * stability).sum(axis=-1))


def generalisation(smoothness: float, merged_risk: FloatArray, stability: FloatArray) -> FloatArray:
    """sqrt(2 L E F(x_avg) S) + (L/2) S for a non-negative loss (Lei and Ying 2020, Theorem 2b at its best gamma).

    By hand, L = 2, E F = 1, S = 4: 4 + 4.

    >>> float(generalisation(2.0, np.array(1.0), np.array(4.0)))
    8.0
    """
    return np.asarray(np.sqrt(2 * smoothness * merged_risk * stability) + 0.5 * smoothness * stability)


def _log(values: FloatArray) -> FloatArray:
    """The logarithm, minus infinity at 0 without a warning."""
    return np.log(values, out=np.full_like(values, -math.inf), where=values > 0)
