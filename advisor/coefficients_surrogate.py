r"""What merges would answer between the merges that were measured: a Gaussian process over coefficients.

A measured merge tells more than its risk: it tells the logits of every sample.  They are smooth in the coefficients
where the risk need not be, so they are what is interpolated, all with one kernel over *weight space*:

    z_s(lambda) = z_s(0) + sum_k k(lambda, lambda_k) alpha_ks,      alpha = (K + jitter I)^-1 (Z - z(0))
    k(lambda, lambda') = h(d / l),    d^2 = (lambda - lambda')' G (lambda - lambda') = ||x(lambda) - x(lambda')||^2

G is the Gram matrix of the task vectors, known exactly from the weights: two merges are alike as far as their weights
are, whatever the norms and overlaps of the experts.  h is the squared exponential or Matern 5/2; it and the length l
are those of the largest marginal likelihood over all S logits (independent given the kernel, common amplitude):

    log p(Z) = -1/2 S log det K - 1/2 S M log( tr(Z' K^-1 Z) / (S M) ) + const

| symbol | code word | shape |
|---|---|---|
| lambda_k | `points` | `[M, D]` |
| Z - z(0) | `values` | `[M, S]` |
| G | `gram` | `[D, D]` |

With ``trend`` the process has a mean that is linear in the coefficients, z_s(0) + sum_i lambda_i b_is, with no prior
opinion of b (generalised least squares, restricted likelihood; universal kriging).  Far from all measured merges the
answer is then the sum of what each expert does on its own instead of x_0's: what merges that nobody measured need
(``advisor.mergeability``), most where one expert went much further than the others.  A search, which measures where it
goes, is better off without.

Source: Rasmussen & Williams 2006, ch. 2 (2.7 for the trend) and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

FloatArray = NDArray[np.float64]
JITTER = 1e-6  # of the amplitude: logits are exact but for float32
LENGTHS = tuple(float(x) for x in np.geomspace(0.3, 10.0, 13))  # of the median distance between measured merges


def squared_exponential(r2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The kernel h and dh/d(r^2) at squared scaled distances.

    >>> h, slope = squared_exponential(np.array([0.0, 2.0]))
    >>> h.round(4).tolist(), slope.round(4).tolist()
    ([1.0, 0.3679], [-0.5, -0.1839])
    """
    h = np.exp(-r2 / 2)
    return h, -h / 2


def matern(r2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The same of Matern 5/2: (1 + s + s^2/3) e^-s with s = sqrt(5 r^2); dh/d(r^2) = -5/6 (1 + s) e^-s.

    >>> matern(np.array([0.0]))[0].tolist()
    [1.0]
    """
    s = np.sqrt(5 * r2)
    decay = np.exp(-s)
    return (1 + s + s**2 / 3) * decay, -5 / 6 * (1 + s) * decay


KERNELS: dict[str, Callable[[FloatArray], tuple[FloatArray, FloatArray]]] = {
    "squared exponential": squared_exponential,
    "matern": matern,
}


def squared_distances(left: FloatArray, right: FloatArray, gram: FloatArray) -> FloatArray:
    """||x(lambda) - x(lambda')||^2 of all pairs, [A, B]."""
    difference = left[:, None, :] - right[None, :, :]
    return np.asarray(np.maximum(np.einsum("abi,ij,abj->ab", difference, gram, difference), 0.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surrogate:
    """Interpolated values of merges.

    Attributes:
        points: measured coefficients [M, D].
        gram: Gram matrix of the task vectors [D, D].
        base: values at coefficients 0 [S].
        weights: alpha [M, S].
        kernel: key of ``KERNELS``.
        length: l, a distance in weight space.
        inverse: (K + jitter I)^-1 [M, M].
        trend: b [D, S]; empty [0, S] without one.
    """

    points: FloatArray
    gram: FloatArray
    base: FloatArray
    weights: FloatArray
    kernel: str
    length: float
    inverse: FloatArray
    trend: FloatArray

    def predict(self, point: FloatArray) -> FloatArray:
        """Values [S] at coefficients [D]."""
        found = self.base + self._row(point)[0] @ self.weights
        return np.asarray(found + point @ self.trend if len(self.trend) else found)

    def predict_with_slope(self, point: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        """Values [S], and the map from a gradient with respect to them [S] to one with respect to coefficients [D]."""
        towards = self.kernel_slopes(point)

        def pull(g: FloatArray) -> FloatArray:
            found = (self.weights @ g) @ towards
            return np.asarray(found + self.trend @ g if len(self.trend) else found)

        return self.predict(point), pull

    def kernel_slopes(self, point: FloatArray) -> FloatArray:
        """Derivatives of k(point, points) by the point's coefficients [M, D]."""
        slope = self._row(point)[1]
        return np.asarray(2 * (slope / self.length**2)[:, None] * ((point - self.points) @ self.gram))

    def variance(self, point: FloatArray) -> float:
        """Posterior variance at coefficients [D] as a share of the prior's, between 0 and 1."""
        h = self._row(point)[0]
        return float(np.clip(1 - h @ self.inverse @ h, 0.0, 1.0))

    def _row(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        r2 = squared_distances(np.asarray(point)[None, :], self.points, self.gram)[0] / self.length**2
        return KERNELS[self.kernel](r2)


def fit_surrogate(
    points: FloatArray, values: FloatArray, base: FloatArray, gram: FloatArray, *, trend: bool = False
) -> Surrogate:
    """Fit kernel and length to measured merges.

    Args:
        points: coefficients [M, D], all different.
        values: what the merges answered [M, S].
        base: the same at coefficients 0 [S].
        gram: Gram matrix of the task vectors [D, D].
        trend: whether every expert has a linear part of its own; needs M of at least D + 2 points that span them.

    Raises:
        ValueError: too few merges, shapes that do not belong together, or values that are not finite.
    """
    least = points.shape[1] + 2 if trend else 2
    if len(points) < least or values.shape != (len(points), len(base)) or gram.shape != (points.shape[1],) * 2:
        raise ValueError(
            f"points {points.shape}, values {values.shape}, base {base.shape} and gram {gram.shape} must be [M, D], "
            f"[M, S], [S] and [D, D] with M of at least {least}; measure more merges"
        )
    if not np.isfinite(values).all():
        raise ValueError("values are not finite; leave merges that diverged out of the fit")
    if trend and np.linalg.matrix_rank(points) < points.shape[1]:
        raise ValueError("points do not move every expert on its own; measure a merge more for each expert")
    distances = squared_distances(points, points, gram)
    scale = float(np.sqrt(np.median(distances[np.triu_indices(len(points), 1)])))
    if not scale > 0:
        raise ValueError("points are all the same; measure merges with different coefficients")
    moved = values - base
    basis = points if trend else points[:, :0]
    products = moved @ moved.T
    fits = [
        (_log_likelihood(KERNELS[name](distances / (f * scale) ** 2)[0], products, len(base), basis), name, f * scale)
        for name in KERNELS
        for f in LENGTHS
    ]
    _, kernel, length = max(fits)
    inverse = _inverse(KERNELS[kernel](distances / length**2)[0])
    slopes = np.asarray(np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ moved), dtype=np.float64)
    return Surrogate(
        points=points,
        gram=gram,
        base=base,
        weights=inverse @ (moved - basis @ slopes),
        kernel=kernel,
        length=length,
        inverse=inverse,
        trend=slopes,
    )


def _log_likelihood(kernel: FloatArray, products: FloatArray, outputs: int, basis: FloatArray) -> float:
    """Log p(Z)/S up to a constant, the amplitude at its best; ``products`` is Z Z' [M, M], ``basis`` [M, D or 0].

    With a basis H the restricted one: P = K^-1 - K^-1 H (H' K^-1 H)^-1 H' K^-1 in the place of K^-1.
    """
    count, terms = basis.shape
    factor = cho_factor(kernel + JITTER * np.eye(count), lower=True)
    solved = cho_solve(factor, basis)
    inner = basis.T @ solved
    whole = cho_solve(factor, products)
    left = np.linalg.solve(inner, solved.T @ products @ solved) if terms else np.zeros((0, 0))
    fit = float(np.trace(whole) - np.trace(left)) / (outputs * (count - terms))
    size = np.linalg.slogdet(inner)[1] / 2 if terms else 0.0
    return float(-np.log(np.diag(factor[0])).sum() - size - (count - terms) / 2 * np.log(max(fit, 1e-300)))


def _inverse(kernel: FloatArray) -> FloatArray:
    return np.asarray(cho_solve(cho_factor(kernel + JITTER * np.eye(len(kernel)), lower=True), np.eye(len(kernel))))
