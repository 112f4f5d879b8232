"""A knob: one dimension of a search space, seen as a monotone map from [0, 1] to plain values.

    range, log:      v(u) = low (high / low)^u          learning rate, steps
    range, linear:   v(u) = low + u (high - low)        coefficients
    whole numbers:   the same on [low - 1/2, high + 1/2], rounded
    grid:            v(u) = values[floor(u n)]          n values, each on an equal share of [0, 1]
    choice:          the same over names

Samplers, sweeps and the polish move in u, so that a factor of two in the learning rate is as far at 1e-4 as at 1e-1.
Symbols: u dimensionless, shape [M]; v in the knob's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """An explicit list of allowed values in place of a range, e.g. what a benchmark has measured.

    >>> Grid(values=(64, 8, 8)).values
    (8, 64)
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Sort the values and drop doubles."""
        if not self.values:
            raise ValueError("values=() of a grid must hold at least one value; list the values that may be advised")
        for value in self.values:
            if not math.isfinite(value):
                raise ValueError(f"value={value} of a grid must be finite; leave it out")
        object.__setattr__(self, "values", tuple(sorted(set(self.values))))


Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The map of one numeric knob between u in [0, 1] and its values.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether equal ratios are equally far.
        integer: whether values are whole numbers.
        values: the allowed values if only some are, else empty.

    >>> Axis(low=1.0, high=100.0, log=True).value(np.array([0.0, 0.5, 1.0])).round(6).tolist()
    [1.0, 10.0, 100.0]
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    values: tuple[float, ...] = ()

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose."""
        return self.low == self.high

    @property
    def count(self) -> float:
        """Number of distinct values; infinite for a continuous range."""
        if self.values:
            return len(self.values)
        if self.single:
            return 1
        return self.high - self.low + 1 if self.integer else math.inf

    def value(self, unit: FloatArray) -> NDArray[Any]:
        """Values at ``unit``, any shape."""
        if self.values:
            index = np.minimum((np.asarray(unit) * len(self.values)).astype(np.int64), len(self.values) - 1)
            found = np.asarray(self.values, dtype=np.float64)[index]
        else:
            low, high = self._ends()
            found = np.asarray(low + np.asarray(unit) * (high - low))
            found = np.exp(found) if self.log else found
            found = np.rint(found) if self.integer else found
            found = np.clip(found, self.low, self.high)  # rounding only: u stays inside [0, 1]
        return found.astype(np.int64) if self.integer else found

    def unit(self, value: NDArray[Any]) -> FloatArray:
        """The inverse of :meth:`value`; off-grid values go to the nearest one of the grid."""
        given = np.asarray(value, dtype=np.float64)
        if self.values:
            grid = np.asarray(self.values, dtype=np.float64)
            scale = np.log if self.log else np.asarray
            index = np.abs(scale(given)[..., None] - scale(grid)).argmin(axis=-1)
            return np.asarray((index + 0.5) / len(grid))
        low, high = self._ends()
        if low == high:
            return np.full(given.shape, 0.5)
        return np.clip(((np.log(given) if self.log else given) - low) / (high - low), 0.0, 1.0)

    def _ends(self) -> tuple[float, float]:
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        return (math.log(low), math.log(high)) if self.log else (low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One free dimension of a search space.

    Attributes:
        name: column name: the field, with ``_<task>`` behind it where each task has its own.
        field: what it sets: ``learning_rate``, ``batch_size``, ``steps``, ``optimizer``, ``schedule``, ``method`` or
            ``coefficient``.
        task: the task it belongs to, or ``None`` for all.
        choices: the names to choose from, for a knob that is not a number.
        axes: one axis; for the learning rate one for each optimizer, in the optimizers' order.
        selector: column that says which axis is meant, where there are several.
    """

    name: str
    field: str
    task: str | None = None
    choices: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    selector: str | None = None

    @property
    def categorical(self) -> bool:
        """Whether the knob chooses among names."""
        return bool(self.choices)

    @property
    def continuous(self) -> bool:
        """Whether every small move of u changes the value."""
        return not self.categorical and all(not a.integer and not a.values for a in self.axes)

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.choices) == 1 if self.categorical else all(axis.single for axis in self.axes)

    @property
    def count(self) -> float:
        """Number of distinct positions."""
        return len(self.choices) if self.categorical else max(axis.count for axis in self.axes)

    def decode(self, unit: FloatArray, which: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Values at ``unit`` [M]; ``which`` [M] says which axis where there are several."""
        if self.categorical:
            names = np.asarray(self.choices)
            return np.asarray(names[np.minimum((unit * len(names)).astype(np.int64), len(names) - 1)])
        found = self.axes[0].value(unit)
        for index, axis in enumerate(self.axes[1:], start=1):
            found = np.where(which == index, axis.value(unit), found)
        return found

    def encode(self, value: NDArray[Any], which: NDArray[np.int64] | None = None) -> FloatArray:
        """The inverse of :meth:`decode`; unknown names are refused."""
        if self.categorical:
            return (choice_index(self.name, self.choices, value) + 0.5) / len(self.choices)
        found = self.axes[0].unit(value)
        for index, axis in enumerate(self.axes[1:], start=1):
            found = np.where(which == index, axis.unit(value), found)
        return found


def choice_index(name: str, choices: Sequence[str], values: NDArray[Any]) -> NDArray[np.int64]:
    """Position of each of ``values`` [M] among ``choices``."""
    order = {choice: index for index, choice in enumerate(choices)}
    unknown = sorted({str(value) for value in values.tolist()} - set(order))
    if unknown:
        raise ValueError(f"{name}={unknown[0]!r} is not in the search space; choose from {list(choices)}")
    return np.array([order[str(value)] for value in values.tolist()], dtype=np.int64)


def make_axis(name: str, given: Range | Grid, *, log: bool, integer: bool) -> Axis:
    """The axis of a range or a grid, checked."""
    if isinstance(given, Grid):
        low, high, values = given.values[0], given.values[-1], given.values
    else:
        if len(given) != 2:
            raise ValueError(f"{name}={list(given)} must be a range [low, high]; use Grid(values=...) for a list")
        (low, high), values = given, ()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}=[{low}, {high}] must be finite; give two numbers")
    if low > high:
        raise ValueError(f"{name}=[{low}, {high}] is inverted: low must not exceed high; swap the two")
    if integer and any(v != int(v) or v < 1 for v in (*values, low, high)):
        raise ValueError(f"{name}=[{low}, {high}] must be whole numbers of at least 1; round them")
    if log and not low > 0:
        raise ValueError(f"{name}=[{low}, {high}] must be positive; start the range above 0")
    if low < 0:
        raise ValueError(f"{name}=[{low}, {high}] must be at least 0; start the range at 0 or above")
    kind = int if integer else float
    return Axis(low=kind(low), high=kind(high), log=log, integer=integer, values=tuple(kind(v) for v in values))


def powers_of_two(low: int, high: int) -> Grid:
    """The powers of two from ``low`` to ``high``, and both ends.

    >>> powers_of_two(10, 64).values
    (10, 16, 32, 64)
    """
    inside = [2**k for k in range(int(high).bit_length() + 1) if low <= 2**k <= high]
    return Grid(values=(low, *inside, high))
