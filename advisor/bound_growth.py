r"""Growth: how far one step's disturbance can spread by the end of training (``docs/theory.md`` section 2).

    Q_1 = sum_k a_k prod_{l>k} (1 + eta L a_l),      Q_2 = sum_k a_k^2 prod_{l>k} (1 + eta L a_l)^2

for the effective step vector a [K]; at a constant rate, with g = 1 + eta L, Q_r = (g^{rK} - 1)/(g^r - 1).  Convex
losses without momentum and with eta a_k <= 2/L have g = 1: Q_1 = ||a||_1, Q_2 = ||a||_2^2.  All in logarithms, because
(1 + eta L)^{2K} leaves the range of a float; beside them the norms of a and the noise sums that the optimisation term
needs.  Entries of a table with the same a are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.plan import SCHEDULES, PlanTable
from estimators.recipe import Recipe

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SERIES_BELOW = 1e-4  # below it psi(kappa) is taken from its series, whose first left-out term is kappa^3/120
BLOCK = 1 << 20  # numbers in one [entries, K] block: 8 MB


def log_growth(rate_smoothness: FloatArray, steps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log Q_1 and log Q_2 of a constant step vector a = (1, ..., 1) for eta L > 0 and K steps.

    By hand, eta L = 1 and K = 3: g = 2, Q_1 = 1 + 2 + 4 = 7, Q_2 = 1 + 4 + 16 = 21.

    >>> [round(float(np.exp(q)), 9) for q in log_growth(np.array(1.0), np.array(3.0))]
    [7.0, 21.0]
    """
    x = steps * np.log1p(rate_smoothness)
    shrink = -np.expm1(-x)  # 1 - g^{-K}; and 1 - g^{-2K} = shrink (2 - shrink)
    log_q1 = x + np.log(shrink / rate_smoothness)
    log_q2 = 2 * x + np.log(shrink * (2 - shrink) / (rate_smoothness * (2 + rate_smoothness)))
    return log_q1, log_q2


def log_growth_of(rate_smoothness: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log Q_1 and log Q_2 of any step vector ``weights`` [K] for eta L [E].

    By hand, eta L = 1 and a = (2, 1): Q_1 = 2 (1 + 1) + 1 = 5, Q_2 = 4 * 4 + 1 = 17.

    >>> [round(float(np.exp(q[0])), 9) for q in log_growth_of(np.array([1.0]), np.array([2.0, 1.0]))]
    [5.0, 17.0]
    """
    factors = np.log1p(rate_smoothness[:, None] * weights)
    later = np.cumsum(factors[:, ::-1], axis=1)[:, ::-1] - factors  # log prod_{l>k}
    path = np.log(weights) + later
    top = path.max(axis=1, keepdims=True)
    scaled = np.exp(path - top)
    log_q1 = top[:, 0] + np.log(scaled.sum(axis=1))
    return log_q1, 2 * top[:, 0] + np.log((scaled**2).sum(axis=1))


def rising_weight(kappa: FloatArray) -> FloatArray:
    """psi(kappa) = (kappa - 1 + e^-kappa)/kappa^2, the mean of s e^{-kappa (1-s)} over s in [0, 1].

    By hand, psi(0) = 1/2 and psi(1) = 1/e.

    >>> rising_weight(np.array([0.0, 1.0])).round(6).tolist()
    [0.5, 0.367879]
    """
    small = kappa < SERIES_BELOW
    safe = np.where(small, 1.0, kappa)
    return np.where(small, 0.5 - kappa / 6 + kappa**2 / 24, (safe + np.expm1(-safe)) / safe / safe)


def noise_sum(decay: FloatArray, steps: FloatArray) -> FloatArray:
    """Sum_k psi(kappa) e^{-mu T (1 - t_{k+1})} of a constant step vector, kappa = mu T/K; K/2 at mu = 0.

    By hand, mu T = 2 and K = 2: kappa = 1, psi = 1/e, and the sum is (1 + e^-1)/e.

    >>> float(noise_sum(np.array(2.0), np.array(2.0)).round(6))
    0.503215
    """
    kappa = decay / steps
    count = np.divide(np.expm1(-decay), np.expm1(-kappa), out=np.array(steps + 0 * decay), where=kappa > 0)
    return rising_weight(kappa) * count


def noise_sum_of(decay: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum_k a_k^2 psi(kappa_k) e^{-mu T (1 - t_{k+1})} of a step vector [K], for mu T [E]; kappa_k = mu T a_k/||a||_1.

    By hand, mu T = 0 and a = (2, 1): (4 + 1)/2.

    >>> noise_sum_of(np.array([0.0]), np.array([2.0, 1.0])).tolist()
    [2.5]
    """
    shares = weights / weights.sum()
    remaining = np.cumsum(shares[::-1])[::-1] - shares  # 1 - t_{k+1}
    kappa = decay[:, None] * shares
    return np.asarray((weights**2 * rising_weight(kappa) * np.exp(-decay[:, None] * remaining)).sum(axis=1))


def step_vector(momentum: float, schedule: int, steps: int) -> FloatArray:
    """The effective step vector a [K] of a table's entry (AdamW counts as SGD in its own metric)."""
    optimizer = "momentum" if momentum > 0 else "sgd"
    options = {"momentum": momentum} if momentum > 0 else {}
    name = SCHEDULES[schedule]
    recipe = Recipe(learning_rate=1, batch_size=1, steps=steps, optimizer=optimizer, schedule=name, **options)  # type: ignore[arg-type]
    return recipe.step_weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVectors:
    """The step vectors of a table: norms [M, N], and which entries share a vector that is not constant.

    Attributes:
        mass: ||a||_1.
        energy: ||a||_2^2.
        peak: max_k a_k.
        plain: [M, N] whether a = (1, ..., 1).
        groups: for every other distinct vector, the flat indices of its entries and a itself.
    """

    mass: FloatArray
    energy: FloatArray
    peak: FloatArray
    plain: BoolArray
    groups: tuple[tuple[NDArray[np.intp], FloatArray], ...]

    @classmethod
    def of(cls, table: PlanTable) -> StepVectors:
        """Sort the entries of a table by their step vector."""
        plain = (table.momentum == 0) & (table.schedule == 0)
        if plain.all():
            return cls(mass=table.steps, energy=table.steps, peak=np.ones(()), plain=plain, groups=())
        rest = np.flatnonzero(~plain)
        keys = np.stack([part.ravel()[rest] for part in (table.momentum, table.schedule, table.steps)], axis=1)
        distinct, owner = np.unique(keys, axis=0, return_inverse=True)
        order = np.argsort(owner.ravel(), kind="stable")
        members = np.split(rest[order], np.cumsum(np.bincount(owner.ravel()))[:-1])
        groups = tuple(
            (index, step_vector(float(momentum), int(schedule), int(steps)))
            for index, (momentum, schedule, steps) in zip(members, distinct, strict=True)
        )
        mass, energy, peak = table.steps.copy(), table.steps.copy(), np.ones(table.steps.shape)
        for index, weights in groups:
            mass.flat[index], energy.flat[index], peak.flat[index] = weights.sum(), weights @ weights, np.max(weights)
        return cls(mass=mass, energy=energy, peak=peak, plain=plain, groups=groups)

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], FloatArray]]:
        """The groups, cut so that an [entries, K] array stays small."""
        for index, weights in self.groups:
            size = max(1, BLOCK // len(weights))
            for begin in range(0, len(index), size):
                yield index[begin : begin + size], weights

    def log_growth(
        self, rate_smoothness: FloatArray, steps: FloatArray, contracting: BoolArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Log Q_1, log Q_2 [M, N]; g = 1 where ``contracting``."""
        if contracting is not None and contracting.all():
            return np.log(self.mass), np.log(self.energy)
        log_q1, log_q2 = log_growth(rate_smoothness, steps)
        for index, weights in self.blocks():
            log_q1.flat[index], log_q2.flat[index] = log_growth_of(rate_smoothness.flat[index], weights)
        if contracting is None:
            return log_q1, log_q2
        return np.where(contracting, np.log(self.mass), log_q1), np.where(contracting, np.log(self.energy), log_q2)

    def noise_sum(self, decay: FloatArray, steps: FloatArray) -> FloatArray:
        """Sum_k a_k^2 psi(kappa_k) e^{-mu T (1 - t_{k+1})}, shape [M, N], for mu T [M, 1]."""
        total = noise_sum(decay, steps)
        spread = np.broadcast_to(decay, total.shape)
        for index, weights in self.blocks():
            total.flat[index] = noise_sum_of(spread.flat[index], weights)
        return total
