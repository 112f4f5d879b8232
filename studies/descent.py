"""Descent of many plans at once over their continuous knobs: coefficients, and learning rates in the logarithm.

Each of R plans follows its own quasi-Newton path (BFGS; Nocedal and Wright 2006, ch. 6) in the unit cube, projected at
its faces, but all advance together with two calls of the risk an iteration: one for the central differences of all
plans, one for ``STEPS`` step lengths of all plans.  A risk model costs milliseconds a call and microseconds a plan, so
it is the number of calls that counts.  A constraint v <= 0 enters by an augmented Lagrangian (ch. 17.3),

    goal + (PENALTY / 2) max(0, v + MARGIN + m / PENALTY)^2,   m <- max(0, m + PENALTY (v + MARGIN)) after each pass

with a larger margin where infeasible plans have no goal at all.

Shapes: x, g [R, C] for C continuous knobs; inverse Hessians H [R, C, C]; multipliers m [R] in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from studies.evaluation import Evaluations, Evaluator
from studies.knobs import FloatArray, Knob

DIFFERENCE = 1e-4  # of a range: central differences of a smooth risk then err by about 1e-8
PENALTY = 10.0  # nats for each unit of violation squared: mild, the multiplier does the work
MARGIN = 1e-5  # keeps the end inside by more than what a pass leaves over
CLIFF = 3e-3  # the margin where infeasible plans have no goal: differences must not reach over the edge
PASSES = 4
STEPS = 2.0 ** np.arange(2, -11, -1)
FIRST_STEP = 0.1  # of a range: the first step follows the gradient, whose length says nothing yet
ITERATIONS = 100
SETTLED = 1e-12  # relative gain below which a plan has arrived: rounding
# Shares of the way from start to end that are tried last, dense at the end, which may lie just outside.
WAY = np.concatenate([[0.0], 1.0 - 2.0 ** -np.arange(1, 20), [1.0]])


class Movable(Protocol):
    """A space in which a plan can be moved."""

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The free knobs, one for each coordinate."""

    def neighbours(self, unit: FloatArray, scale: float) -> FloatArray:
        """Points [C, D] one knob away from ``unit`` [D]."""


def descend(
    space: Movable, evaluate: Evaluator, starts: Evaluations, *, iterations: int = ITERATIONS, passes: int = PASSES
) -> tuple[Evaluations, int]:
    """Move the continuous knobs of R plans to their nearest minimum, the others held.

    Args:
        space: says which knobs are continuous.
        evaluate: points to evaluated plans.
        starts: the R plans.
        iterations: most iterations of a pass; each costs two calls of the risk.
        passes: most passes; plans away from the constraint need one.

    Returns:
        for each start the better of itself and what the descent found, and how many plans were evaluated.
    """
    free = np.array([index for index, knob in enumerate(space.knobs) if knob.continuous], dtype=np.int64)
    if not len(free) or not len(starts):
        return starts, 0
    count = 0
    # Stands in for an infinite goal.  No higher than the start, so that the line search meets no cliff but the penalty.
    ceiling = np.where(np.isfinite(starts.goal), starts.goal, 0.0)

    multiplier, margin = np.zeros(len(starts)), np.full(len(starts), MARGIN)

    def evaluate_at(x: FloatArray, rows: NDArray[np.int64]) -> Evaluations:
        nonlocal count
        points = np.repeat(starts.units[rows][:, None, :], x.shape[1], axis=1)
        points[:, :, free] = x
        count += x.shape[0] * x.shape[1]
        return evaluate(points.reshape(-1, points.shape[2]))

    def value(x: FloatArray, rows: NDArray[np.int64]) -> FloatArray:
        """Augmented Lagrangians [r, k] at points x [r, k, C] of the plans ``rows`` [r]."""
        found = evaluate_at(x, rows)
        cliff = ~np.isfinite(found.goal)
        margin[rows[cliff.reshape(x.shape[:2]).any(axis=1)]] = CLIFF
        goal = np.where(cliff, np.repeat(ceiling[rows], x.shape[1]), found.goal)
        shifted = found.violation + np.repeat(margin[rows] + multiplier[rows] / PENALTY, x.shape[1])
        return np.asarray(goal + PENALTY / 2 * np.maximum(shifted, 0.0) ** 2).reshape(x.shape[:2])

    x, rows = starts.units[:, free], np.arange(len(starts))
    for _ in range(passes):

        def value_of(points: FloatArray, which: NDArray[np.int64], rows: NDArray[np.int64] = rows) -> FloatArray:
            return value(points, rows[which])

        x[rows] = quasi_newton(value_of, x[rows], iterations)
        violation = evaluate_at(x[rows][:, None, :], rows).violation
        updated = np.maximum(multiplier[rows] + PENALTY * (violation + margin[rows]), 0.0)
        settled = np.abs(updated - multiplier[rows]) <= PENALTY * MARGIN / 2
        multiplier[rows] = updated
        rows = rows[~settled]
        if not len(rows):
            break
    ends = starts.units.copy()
    ends[:, free] = x
    way = starts.units[:, None, :] + WAY[None, :, None] * (ends - starts.units)[:, None, :]
    tried = evaluate(way.reshape(-1, way.shape[2]))
    best = [k * len(WAY) + tried.take(slice(k * len(WAY), (k + 1) * len(WAY))).best() for k in range(len(starts))]
    return tried.take(best), count + len(tried)


def quasi_newton(
    value: Callable[[FloatArray, NDArray[np.int64]], FloatArray], x: FloatArray, iterations: int
) -> FloatArray:
    """Minima [R, C] near ``x`` [R, C] of R functions on the unit cube, given as one ``value(points, rows)``."""
    x = x.copy()
    count, size = x.shape
    inverse = np.tile(np.eye(size), (count, 1, 1))
    fresh = np.ones(count, dtype=bool)  # whether H knows nothing yet
    gradient = np.zeros_like(x)
    last_x, last_gradient = x.copy(), gradient.copy()
    active = np.arange(count)
    for _ in range(iterations):
        here, gradient[active] = _differences(value, x[active], active)
        known = active[~fresh[active]]
        _update(inverse, known, x - last_x, gradient - last_gradient)
        direction = _direction(inverse[active], x[active], gradient[active], fresh[active])
        tried = np.clip(x[active][:, None, :] + STEPS[None, :, None] * direction[:, None, :], 0.0, 1.0)
        values = value(tried, active)
        best = values.argmin(axis=1)
        gained = here - values[np.arange(len(active)), best]
        moving = gained > SETTLED * np.maximum(1.0, np.abs(here))
        last_x[active], last_gradient[active] = x[active], gradient[active]
        x[active[moving]] = tried[moving, best[moving]]
        # A path that stalls forgets its curvature and goes on along the gradient; if that fails too, it has arrived.
        stuck = active[~moving]
        arrived = fresh[stuck]
        inverse[stuck] = np.eye(size)
        fresh[active[moving]] = False
        fresh[stuck] = True
        active = np.setdiff1d(active, stuck[arrived])
        if not len(active):
            break
    return x


def _differences(
    value: Callable[[FloatArray, NDArray[np.int64]], FloatArray], x: FloatArray, rows: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Values [r] and gradients [r, C] at x [r, C], one-sided at a face of the cube."""
    count, size = x.shape
    step = DIFFERENCE * np.eye(size)
    up, down = np.minimum(x[:, None, :] + step, 1.0), np.maximum(x[:, None, :] - step, 0.0)
    values = value(np.concatenate([x[:, None, :], up, down], axis=1), rows)
    width = np.einsum("rcc->rc", up - down)
    return values[:, 0], (values[:, 1 : 1 + size] - values[:, 1 + size :]) / width


def _direction(inverse: FloatArray, x: FloatArray, gradient: FloatArray, fresh: NDArray[np.bool_]) -> FloatArray:
    """Descent directions [r, C]; a coordinate that would leave the cube at once stays."""
    blocked = ((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0))
    kept = np.where(blocked, 0.0, gradient)
    direction = np.where(blocked, 0.0, -np.einsum("rij,rj->ri", inverse, kept))
    uphill = fresh | (np.einsum("ri,ri->r", direction, kept) >= 0)
    longest = np.maximum(np.abs(kept).max(axis=1, keepdims=True), 1e-300)
    return np.where(uphill[:, None], -kept * (FIRST_STEP / longest), direction)


def _update(inverse: FloatArray, rows: NDArray[np.int64], steps: FloatArray, changes: FloatArray) -> None:
    """BFGS update of H[rows] from s = steps [R, C] and y = changes [R, C], where the curvature s.y is positive."""
    s, y = steps[rows], changes[rows]
    curvature = np.einsum("ri,ri->r", s, y)
    good = curvature > 1e-12 * np.linalg.norm(s, axis=1) * np.linalg.norm(y, axis=1)
    rows, s, y, curvature = rows[good], s[good], y[good], curvature[good]
    identity = np.eye(steps.shape[1])
    # A fresh H is the identity: scale it to the curvature just seen before the first update (Nocedal and Wright, 6.20).
    first = (inverse[rows] == identity).all(axis=(1, 2))
    scale = curvature / np.maximum(np.einsum("ri,ri->r", y, y), 1e-300)
    base = np.where(first[:, None, None], identity * scale[:, None, None], inverse[rows])
    left = identity - np.einsum("ri,rj->rij", s, y) / curvature[:, None, None]
    inverse[rows] = left @ base @ left.transpose(0, 2, 1) + np.einsum("ri,rj->rij", s, s) / curvature[:, None, None]
