r"""Coefficients from nothing but weights: the part of the bound that depends on lambda, with stated prior constants.

    R(lambda) = 1/2 sum_j r_j (1 - s_j)^2  +  kappa/2 N sum_ij lambda_i lambda_j r_i r_j max(c_ij, 0)
    s_j = lambda_j + eta sum_{i != j} max(c_ij, 0) (r_i / r_j) lambda_i,          r_j = ||tau_j|| / ||x_0||

The first sum is the progress still missing on each task: what an expert gains is taken to grow with how far it went,
and an expert that went a similar way (cosine c_ij > 0) helps.  The second is the interference term of
``docs/theory.md`` section 3, sum over tasks: independent parts add in squares, common parts as vectors.  Without
overlaps its minimum is

    lambda_j = 1 / (1 + kappa N r_j)

so far-travelled experts get less (equalised: lambda_j r_j levels off) and more experts less each.
Both constants are priors, the same for every network: kappa = 80 and eta = 1.5 were chosen on 27 merges of four experts
(test_resnet, digit tasks, three kinds of recipes, seeds 100-102) and agree with the best common coefficients of the
development suites resnet-fashion and vit-digits (r from 0.001 to 0.015, N = 2 and 3) within a factor of about 2, their
spread: the intervals are e^(+-1.645 * 0.6) around each coefficient.  ``advisor.coefficients_hedging`` moves the choice
towards the simple average where that spread allows the average to be better.  Weights know nothing of the loss:
whether the experts are good, whether the tasks contradict each other, and whether to merge at all cannot be read from
them.

| symbol | code word | shape |
|---|---|---|
| <tau_i, tau_j> | `gram` | `[N, N]` |
| lambda | result | `[N]` |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_descent import descend

FloatArray = NDArray[np.float64]

INTERFERENCE = 80.0  # kappa
HELP = 1.5  # eta
LOG_SPREAD = 0.6  # standard deviation of log(best / prior) over the merges named above
NORMAL_90 = 1.645
DOMINATING = 3.0  # an expert that travelled so many times the median is named


def prior_coefficients(
    gram: FloatArray,
    base_norm: float,
    *,
    bounds: tuple[float, float] = (0.0, 2.0),
    total: float | None = None,
    interference: float = INTERFERENCE,
    help_factor: float = HELP,
) -> FloatArray:
    """Coefficients [N] of least prior risk, in a box, or on the simplex of sum ``total``.

    >>> prior_coefficients(np.diag([1.0, 4.0]), 100.0).round(4).tolist()
    [0.3846, 0.2381]
    """
    norms = np.sqrt(np.diag(gram))
    if not (base_norm > 0 and (norms > 0).all() and np.isfinite(gram).all()):
        raise ValueError(
            f"base_norm={base_norm} and the experts' norms {norms.tolist()} must be positive and finite; leave experts "
            "out that equal the base"
        )
    matrix, pull = quadratic(gram, base_norm, interference, help_factor)
    low, high = bounds if total is None else (0.0, total)
    count = len(norms)
    start = np.full(count, (total if total is not None else 1.0) / count)

    def risk(row: FloatArray) -> tuple[float, FloatArray]:
        return float(row @ matrix @ row / 2 - pull @ row), matrix @ row - pull

    if total is None:
        start = np.linalg.solve(matrix, pull)
    found, _ = descend(risk, start, [(low, high)] * count, total=total, max_steps=1000, tolerance=1e-13)
    return np.clip(found, low, high)


def quadratic(
    gram: FloatArray, base_norm: float, interference: float, help_factor: float
) -> tuple[FloatArray, FloatArray]:
    """A [N, N] and b [N] of R = lambda' A lambda / 2 - b' lambda + const, scaled by the longest expert."""
    norms = np.sqrt(np.diag(gram))
    count = len(norms)
    r = norms / base_norm
    overlap = np.maximum(gram / np.outer(norms, norms), 0.0)
    np.fill_diagonal(overlap, 1.0)
    progress = help_factor * overlap * (r[None, :] / r[:, None])
    np.fill_diagonal(progress, 1.0)
    weighted = progress.T * r
    matrix = weighted @ progress + interference * count * np.outer(r, r) * overlap
    return matrix / r.max(), weighted.sum(axis=1) / r.max()


def prior_interval(
    row: FloatArray, bounds: tuple[float, float], *, chosen: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Ends [N] of 90 % intervals around prior coefficients, inside the bounds, wide enough to hold ``chosen``."""
    factor = np.exp(NORMAL_90 * LOG_SPREAD)
    kept = row if chosen is None else chosen
    low, high = np.clip(row / factor, *bounds), np.clip(row * factor, *bounds)
    return np.minimum(low, kept), np.maximum(high, kept)


def interference_shares(row: FloatArray, gram: FloatArray) -> FloatArray:
    """Who disturbs whom, [N, N]: entry (j, i) is expert i's share of what moves task j's weights besides its own.

    lambda_i^2 ||tau_i||^2 over the sum of the others' (independent parts); the diagonal is 0.

    >>> interference_shares(np.array([1.0, 1.0, 2.0]), np.eye(3)).round(2)[0].tolist()
    [0.0, 0.2, 0.8]
    """
    moved: FloatArray = np.tile(row**2 * np.diag(gram), (len(row), 1))
    np.fill_diagonal(moved, 0.0)
    whole = moved.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(moved, whole, out=np.zeros_like(moved), where=whole > 0))


def describe_trust(labels: tuple[str, ...], norms: FloatArray, base_norm: float) -> tuple[str, ...]:
    """How far coefficients from weights alone can be trusted, in sentences."""
    said = [
        f"Chosen from norms and overlaps alone, with prior constants (interference {INTERFERENCE:g}, help {HELP:g}), "
        "and no further from the simple average than is safe where interference is small: "
        "the best coefficients lay within a factor of about 2.7 of such ones in nine cases of ten on small networks. "
        "Weights do not say whether the experts are good or whether to merge at all: give --data for that."
    ]
    middle = float(np.median(norms))
    far = [f"{name} ({norm / middle:.1f} times)" for name, norm in zip(labels, norms, strict=True)]
    long = [text for text, norm in zip(far, norms, strict=True) if len(norms) > 2 and norm > DOMINATING * middle]
    if long:
        said.append(f"Travelled much further than the median expert, so merged with less: {', '.join(long)}.")
    reach = float(norms.max()) / base_norm
    if reach > 0.2:
        said.append(
            f"The longest task vector is {reach:.0%} of the base's norm, far beyond the merges behind the prior "
            "constants (up to 10 %)."
        )
    return tuple(said)
