"""What merging coefficients may be, as a map between them and the unit cube.

    box      lambda_i = low + u_i (high - low), each for itself
    simplex  lambda_i = total x_i / sum_j x_j with x_i = -log(1 - u_i)

The second are *exponential spacings*: for u uniform in the unit cube, lambda is uniform on the simplex (Dirichlet with
all parameters 1; Devroye 1986, ch. V).  Every point is feasible and no coordinate is special, while a sum constraint
over free boxes rejects nearly everything from seven experts on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from studies.knobs import Axis, Columns, FloatArray, Knob
from studies.polish import moved

ALMOST_ONE = 1.0 - 1e-12  # keeps -log(1 - u) finite


@dataclass(frozen=True, slots=True, kw_only=True)
class CoefficientSpace:
    """What coefficients may be: a box or a simplex.

    Attributes:
        names: the experts.
        low: smallest coefficient of the box.
        high: largest coefficient of the box.
        total: sum of the coefficients on the simplex; ``None`` for the box.
    """

    names: tuple[str, ...]
    low: float = 0.0
    high: float = 2.0
    total: float | None = None
    knobs: tuple[Knob, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds and lay out a knob for each expert."""
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names={list(self.names)} must name each expert once; give at least one")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(
                f"bounds=({self.low}, {self.high}) must rise and be finite; give (low, high) with low < high"
            )
        if self.total is not None and not (self.total > 0 and np.isfinite(self.total)):
            raise ValueError(f"total={self.total} must be positive and finite; 1 makes the merge an average")
        low, high = (0.0, 1.0) if self.total is not None else (float(self.low), float(self.high))
        word = "coefficient" if self.total is None else "spacing"
        axis = Axis(low=low, high=high)
        object.__setattr__(
            self, "knobs", tuple(Knob(name=f"{word}_{n}", field=word, task=n, axes=(axis,)) for n in sorted(self.names))
        )

    def columns(self, rows: FloatArray) -> Columns:
        """Coefficients [M, N] as columns, ``coefficient_<expert>`` -> [M]."""
        return {f"coefficient_{name}": rows[:, k] for k, name in enumerate(self.names)}

    @property
    def order(self) -> list[int]:
        """Position of each expert among the sorted names: knobs come sorted, rows of coefficients as given."""
        ranked = sorted(self.names)
        return [ranked.index(name) for name in self.names]

    def decode(self, units: FloatArray) -> FloatArray:
        """Coefficients [M, N], in the order of ``names``, at points [M, N] of the unit cube."""
        units = np.asarray(units, dtype=np.float64)[:, self.order]
        if self.total is None:
            return np.clip(self.low + units * (self.high - self.low), self.low, self.high)
        spacing = -np.log1p(-np.minimum(units, ALMOST_ONE))
        whole = spacing.sum(axis=1, keepdims=True)
        even = np.full_like(spacing, 1.0 / len(self.names))  # the corner u = 0 means no preference
        return np.asarray(self.total * np.divide(spacing, whole, out=even, where=whole > 0))

    def encode(self, coefficients: FloatArray) -> FloatArray:
        """A point of the unit cube for coefficients [N]; on the simplex the one whose spacings have mean 1."""
        given = np.asarray(coefficients, dtype=np.float64)
        if given.shape != (len(self.names),) or not np.isfinite(given).all():
            raise ValueError(f"start={given.tolist()} must be {len(self.names)} finite numbers, one for each expert")
        if self.total is None:
            if (given < self.low).any() or (given > self.high).any():
                raise ValueError(
                    f"start={given.tolist()} must lie inside the bounds ({self.low}, {self.high}); widen them"
                )
            units = (given - self.low) / (self.high - self.low)
        else:
            if (given < 0).any() or not abs(given.sum() - self.total) <= 1e-9 * self.total:
                raise ValueError(
                    f"start={given.tolist()} must be at least 0 and add up to total={self.total}; rescale it"
                )
            units = -np.expm1(-given * len(self.names) / self.total)
        sorted_units = np.empty_like(units)
        sorted_units[self.order] = units
        return sorted_units

    def neighbours(self, unit: FloatArray, scale: float) -> FloatArray:
        """Points [2N, N] that differ from ``unit`` in one coordinate by ``scale``, cut at the edge."""
        return moved(unit, scale)
