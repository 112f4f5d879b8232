r"""Few measured merges: measure, interpolate, move to the interpolated best, measure there, until nothing is to gain.

    1  measure the design: x_0 (coefficients 0), the simple average, what the weights suggest, a step for each expert
    2  fit the surrogate (``advisor.coefficients_surrogate``) to the logits of all measured merges
    3  minimise the goal of its logits inside |lambda - best|_inf <= rho (and the box or simplex): L-BFGS-B or SLSQP
    4  measure; rho <- rho/2 where it got worse, 1.6 rho where it got better at the edge; back to 2

It ends when twice in a row less was predicted to be gained than ``tolerance`` times the standard error of what was
gained so far (finer steps are not visible in these samples), or at ``max_merges``.  Each measured merge costs one
evaluation of every task; nothing is read from disk again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_descent import descend
from advisor.coefficients_evidence import Criterion
from advisor.coefficients_surrogate import Surrogate, fit_surrogate
from studies.coefficient_space import CoefficientSpace

FloatArray = NDArray[np.float64]
Measure = Callable[[FloatArray], FloatArray]  # coefficients [D] -> logits [S]; not finite where the merge broke
FIRST_RADIUS = 0.4
WIDER, NARROWER, NARROWEST = 1.6, 0.5, 0.02
STARTS = 3  # best measured merges that the surrogate is descended from
LEAST_GAIN = 1e-6  # nats
SAME = 1e-3  # two rows nearer than this (largest coordinate) are one


@dataclass(slots=True, kw_only=True)
class MeasuredMerges:
    """Merges measured so far.

    Attributes:
        criterion: the goal.
        space: where coefficients may lie; x_0 and experts alone need not, and then are never the best.
        rows: coefficients.
        values: logits [S] of each.
        goals: goal of each; infinite where the merge broke.
        predicted: what the surrogate had foretold, NaN for the design.
    """

    criterion: Criterion
    space: CoefficientSpace
    rows: list[FloatArray] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    goals: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)

    def add(self, row: FloatArray, values: FloatArray, predicted: float = np.nan) -> float:
        """Keep one; returns its goal."""
        finite = bool(np.isfinite(values).all())
        self.rows.append(np.asarray(row, dtype=np.float64))
        self.values.append(values)
        self.goals.append(self.criterion.value(values) if finite else np.inf)
        self.predicted.append(predicted)
        return self.goals[-1]

    def find(self, row: FloatArray) -> int | None:
        """Where a row was measured, or ``None``."""
        near = [k for k, other in enumerate(self.rows) if np.abs(other - row).max() < SAME]
        return near[0] if near else None

    @property
    def ranked(self) -> list[int]:
        """Positions of the merges that the space allows and that did not break, best first."""
        order = [int(k) for k in np.argsort(self.goals, kind="stable") if np.isfinite(self.goals[k])]
        allowed = [k for k in order if is_allowed(self.space, self.rows[k])]
        if not allowed:
            raise ValueError("no measured merge has a finite risk; lower the coefficients' upper bound")
        return allowed

    @property
    def best(self) -> int:
        """Position of the lowest goal."""
        return self.ranked[0]

    @property
    def whole(self) -> list[int]:
        """Positions of the merges that did not break."""
        return [k for k, goal in enumerate(self.goals) if np.isfinite(goal)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchOutcome:
    """How a search ended.

    Attributes:
        merges: everything measured.
        surrogate: fitted to all of it.
        converged: whether it ended because nothing more was to be gained.
    """

    merges: MeasuredMerges
    surrogate: Surrogate
    converged: bool


def search_merges(
    measure: Measure,
    criterion: Criterion,
    space: CoefficientSpace,
    gram: FloatArray,
    design: Sequence[FloatArray],
    *,
    max_merges: int,
    tolerance: float,
    found: Callable[[FloatArray, float, float], None] | None = None,
    known: MeasuredMerges | None = None,
) -> SearchOutcome:
    """Find the coefficients of the lowest goal.

    Args:
        measure: merge and evaluate.
        criterion: the goal of the logits.
        space: box or simplex.
        gram: Gram matrix of the task vectors [D, D].
        design: merges measured first; the first must be x_0 (all zero), which need not lie on the simplex.
        max_merges: most measured merges, those of the design included.
        tolerance: predicted gain that ends the search, in standard errors of the best merge's gain over x_0.
        found: told every measured merge (coefficients, goal, what was predicted or NaN).
        known: merges of an earlier search, which this one goes on from; the design is measured on top of them.
    """
    if max_merges < len(design) or not len(design) or (known is None and design[0].any()):
        raise ValueError(
            f"max_merges={max_merges} must be at least {len(design)}, the merges of the design, whose first is x_0; "
            "allow more"
        )
    merges = known or MeasuredMerges(criterion=criterion, space=space)

    def ask(row: FloatArray, predicted: float = np.nan) -> float:
        goal = merges.add(row, measure(row), predicted)
        if found is not None:
            found(row, goal, predicted)
        return goal

    for row in design:
        if merges.find(row) is None:
            ask(row)
    radius, small, converged = FIRST_RADIUS, 0, False
    while not converged and len(merges.rows) < max_merges:
        surrogate = _fit(merges, gram)
        best = merges.ranked[:STARTS]
        row, predicted = propose(surrogate, criterion, space, [merges.rows[k] for k in best], radius)
        gain = merges.goals[best[0]] - predicted
        fine = tolerance * criterion.error(merges.values[best[0]], merges.values[0])
        small = small + 1 if gain < max(fine, LEAST_GAIN) else 0
        if merges.find(row) is not None or small > 1:
            if radius <= NARROWEST or small > 1:
                converged = True
            radius *= NARROWER
            continue
        goal = ask(row, predicted)
        at_edge = np.abs(row - merges.rows[best[0]]).max() > 0.9 * radius
        if goal >= merges.goals[best[0]]:
            radius = max(radius * NARROWER, NARROWEST)
        elif at_edge:
            radius *= WIDER
    return SearchOutcome(merges=merges, surrogate=_fit(merges, gram), converged=converged)


def propose(
    surrogate: Surrogate, criterion: Criterion, space: CoefficientSpace, starts: Sequence[FloatArray], radius: float
) -> tuple[FloatArray, float]:
    """The lowest goal of the surrogate within ``radius`` of the first start, and that goal."""
    centre = starts[0]
    low, high = (0.0, space.total) if space.total is not None else (space.low, space.high)
    bounds = [(max(low, c - radius), min(high, c + radius)) for c in centre]

    def goal(row: FloatArray) -> tuple[float, FloatArray]:
        values, pull = surrogate.predict_with_slope(row)
        value, slope = criterion.value_and_slope(values)
        return value, pull(slope)

    ends = [descend(goal, start, bounds, total=space.total) for start in starts]
    return min(ends, key=lambda end: end[1])


def is_allowed(space: CoefficientSpace, row: FloatArray) -> bool:
    """Whether coefficients lie in the box or on the simplex."""
    if space.total is None:
        return bool((row >= space.low - 1e-9).all() and (row <= space.high + 1e-9).all())
    return bool((row >= -1e-9).all() and abs(row.sum() - space.total) < 1e-6)


def _fit(merges: MeasuredMerges, gram: FloatArray) -> Surrogate:
    whole = merges.whole
    return fit_surrogate(
        np.stack([merges.rows[k] for k in whole]),
        np.stack([merges.values[k] for k in whole]),
        merges.values[0],
        gram,
    )
