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

Source: Rasmussen & Williams 2006, ch. 2 and 5.
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
    """

    points: FloatArray
    gram: FloatArray
    base: FloatArray
    weights: FloatArray
    kernel: str
    length: float
    inverse: FloatArray

    def predict(self, point: FloatArray) -> FloatArray:
        """Values [S] at coefficients [D]."""
        return np.asarray(self.base + self._row(point)[0] @ self.weights)

    def predict_with_slope(self, point: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        """Values [S], and the map from a gradient with respect to them [S] to one with respect to coefficients [D]."""
        towards = self.kernel_slopes(point)
        return self.predict(point), lambda g: np.asarray((self.weights @ g) @ towards)

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


def fit_surrogate(points: FloatArray, values: FloatArray, base: FloatArray, gram: FloatArray) -> Surrogate:
    """Fit kernel and length to measured merges.

    Args:
        points: coefficients [M, D], all different.
        values: what the merges answered [M, S].
        base: the same at coefficients 0 [S].
        gram: Gram matrix of the task vectors [D, D].

    Raises:
        ValueError: fewer than two merges, shapes that do not belong together, or values that are not finite.
    """
    if len(points) < 2 or values.shape != (len(points), len(base)) or gram.shape != (points.shape[1],) * 2:
        raise ValueError(
            f"points {points.shape}, values {values.shape}, base {base.shape} and gram {gram.shape} must be [M, D], "
            "[M, S], [S] and [D, D] with M of at least 2; measure more merges"
        )
    if not np.isfinite(values).all():
        raise ValueError("values are not finite; leave merges that diverged out of the fit")
    distances = squared_distances(points, points, gram)
    scale = float(np.sqrt(np.median(distances[np.triu_indices(len(points), 1)])))
    if not scale > 0:
        raise ValueError("points are all the same; measure merges with different coefficients")
    moved = values - base
    products = moved @ moved.T
    fits = [
        (_log_likelihood(KERNELS[name](distances / (f * scale) ** 2)[0], products, len(base)), name, f * scale)
        for name in KERNELS
        for f in LENGTHS
    ]
    _, kernel, length = max(fits)
    inverse = _inverse(KERNELS[kernel](distances / length**2)[0])
    return Surrogate(
        points=points,
        gram=gram,
        base=base,
        weights=inverse @ moved,
        kernel=kernel,
        length=length,
        inverse=inverse,
    )


def _log_likelihood(kernel: FloatArray, products: FloatArray, outputs: int) -> float:
    """Log p(Z)/S up to a constant, the amplitude at its best; ``products`` is Z Z' [M, M]."""
    factor = cho_factor(kernel + JITTER * np.eye(len(kernel)), lower=True)
    fit = float(np.trace(cho_solve(factor, products))) / (outputs * len(kernel))
    return float(-np.log(np.diag(factor[0])).sum() - len(kernel) / 2 * np.log(max(fit, 1e-300)))


def _inverse(kernel: FloatArray) -> FloatArray:
    return np.asarray(cho_solve(cho_factor(kernel + JITTER * np.eye(len(kernel)), lower=True), np.eye(len(kernel))))
