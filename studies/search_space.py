"""The search space: which plans a study may choose from, and the map between plans and points of the unit cube.

A point u in [0, 1]^D stands for a plan in plain parameters, one coordinate for each free knob (``studies/knobs.py``).
Plans travel as *columns*: parameter name -> array [M] for M plans; the names are a plan's fields, ``learning_rate``,
``batch_size``, ``steps``, ``optimizer``, ``schedule``, ``method`` and ``coefficient``, with ``_<task>`` behind a field
that each task has for itself.  Knobs of tasks come in the order of the tasks' names, so the order in which tasks are
listed changes nothing.  This module does not load Optuna.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.knobs import Axis, Columns, FloatArray, Grid, Knob, Range, choice_index, make_axis, powers_of_two

Parameters = dict[str, float | int | str]
Scope = Literal["shared", "per_task"]
EDGE = 0.01  # share of a range that counts as its edge


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Ranges, or grids of allowed values, of everything that a study may choose.

    Attributes:
        tasks: names of the tasks.
        learning_rate: optimizer name -> range or grid of peak learning rates, > 0, searched in the logarithm.
        batch_size: range or grid of samples a step.
        steps: range or grid of fine-tuning steps, searched in the logarithm.
        schedules: names of the schedules to choose from.
        coefficient: range or grid of merging coefficients, >= 0.
        coefficient_scope: one coefficient for all tasks (``shared``) or one for each (``per_task``).
        methods: names of the merge methods to choose from.
        per_task_recipes: whether each task has its own optimizer, learning rate, batch size, steps and schedule.
        batch_sizes: ``powers_of_two`` (and both ends of the range) or all ``integers``.
        fixed: further parameters that every plan carries unchanged, e.g. ``{"momentum": 0.9}``.
    """

    tasks: tuple[str, ...]
    learning_rate: Mapping[str, Range | Grid]
    batch_size: Range | Grid
    steps: Range | Grid
    schedules: tuple[str, ...] = ("constant",)
    coefficient: Range | Grid = (0.0, 2.0)
    coefficient_scope: Scope = "shared"
    methods: tuple[str, ...] = ("task_arithmetic",)
    per_task_recipes: bool = False
    batch_sizes: Literal["powers_of_two", "integers"] = "powers_of_two"
    fixed: Mapping[str, float | int | str] = field(default_factory=dict)
    _all: tuple[Knob, ...] = field(init=False, repr=False, compare=False)
    knobs: tuple[Knob, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every range and lay out the knobs."""
        for name in ("tasks", "schedules", "methods"):
            _require_names(name, getattr(self, name))
        if not self.learning_rate:
            raise ValueError("learning_rate={} must name at least one optimizer; add one with its range")
        for name, allowed in (("coefficient_scope", ("shared", "per_task")), ("batch_sizes", _BATCH_SIZES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; choose from {list(allowed)}")
        object.__setattr__(self, "_all", self._lay_out())
        object.__setattr__(self, "knobs", tuple(knob for knob in self._all if not knob.single))
        doubled = [name for name in self.fixed if name in self.names()[: len(self._all)]]
        if doubled:
            raise ValueError(f"fixed parameter {doubled[0]!r} is also searched; leave it out of fixed or of the ranges")

    @classmethod
    def from_grid(
        cls,
        *,
        tasks: Sequence[str],
        learning_rate: Mapping[str, Sequence[float]],
        batch_size: Sequence[int],
        steps: Sequence[int],
        coefficient: Sequence[float],
        **others: Any,
    ) -> SearchSpace:
        """A space of the listed values only, so that advice is one of the grid's points."""
        return cls(
            tasks=tuple(tasks),
            learning_rate={name: Grid(values=tuple(rates)) for name, rates in learning_rate.items()},
            batch_size=Grid(values=tuple(batch_size)),
            steps=Grid(values=tuple(steps)),
            coefficient=Grid(values=tuple(coefficient)),
            **others,
        )

    def names(self) -> tuple[str, ...]:
        """Names of all parameters of a plan, fixed ones last."""
        return (*(knob.name for knob in self._all), *self.fixed)

    @property
    def dimensions(self) -> int:
        """Number D of free knobs."""
        return len(self.knobs)

    @property
    def size(self) -> float:
        """Number of distinct plans; infinite where a knob is continuous.

        Where optimizers have grids of different length, the longest counts: plans on the shorter ones repeat.
        """
        return math.prod(knob.count for knob in self.knobs)

    def decode(self, units: FloatArray) -> Columns:
        """Plans at the points ``units`` [M, D] of the unit cube, as columns [M]."""
        units = np.asarray(units, dtype=np.float64)
        if units.ndim != 2 or units.shape[1] != self.dimensions:
            raise ValueError(f"units has shape {units.shape}; it must be [plans, {self.dimensions} knobs]")
        if not ((units >= 0) & (units <= 1)).all():
            raise ValueError("units hold values outside [0, 1]; points must lie in the unit cube")
        position = {knob.name: index for index, knob in enumerate(self.knobs)}
        columns: Columns = {}
        for knob in self._all:
            unit = units[:, position[knob.name]] if knob.name in position else np.full(len(units), 0.5)
            columns[knob.name] = knob.decode(unit, self._which(knob, columns))
        for name, value in self.fixed.items():
            columns[name] = np.full(len(units), value)
        return columns

    def encode(self, plans: Columns | Sequence[Mapping[str, Any]]) -> FloatArray:
        """Points [M, D] of plans given as columns or as a list of parameter dictionaries."""
        columns = plans if isinstance(plans, dict) else self.columns(plans)
        missing = [knob.name for knob in self._all if knob.name not in columns]
        if missing:
            raise ValueError(f"parameter {missing[0]!r} is missing; a plan of this space has {list(self.names())}")
        count = len(columns[self._all[0].name])
        units = [knob.encode(columns[knob.name], self._which(knob, columns)) for knob in self.knobs]
        return np.column_stack(units) if units else np.empty((count, 0))

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> Columns:
        """Columns of a list of parameter dictionaries."""
        for row in rows:
            missing = [name for name in self.names() if name not in row]
            if missing:
                raise ValueError(f"parameter {missing[0]!r} is missing; a plan of this space has {list(self.names())}")
        return {name: np.array([row[name] for row in rows]) for name in self.names()}

    def parameters(self, unit: FloatArray) -> Parameters:
        """The plan at one point ``unit`` [D], as plain Python values."""
        return rows_of(self.decode(np.asarray(unit)[None, :]))[0]

    def sample(self, rng: np.random.Generator, count: int) -> Columns:
        """``count`` plans drawn uniformly in the unit cube."""
        return self.decode(rng.random((count, self.dimensions)))

    def points(self) -> FloatArray:
        """Every point of a finite space, shape [size, D], in a fixed order."""
        if math.isinf(self.size):
            raise ValueError("size=inf: a space with a continuous knob cannot be listed; use Grid values or sample it")
        counts = [int(knob.count) for knob in self.knobs]
        # The unit of position i of n; for whole-number ranges that are not grids the axis itself says where i lies.
        ticks = [
            knob.encode(np.arange(knob.axes[0].low, knob.axes[0].high + 1))
            if not knob.categorical and knob.axes[0].integer and not knob.axes[0].values
            else (np.arange(n) + 0.5) / n
            for knob, n in zip(self.knobs, counts, strict=True)
        ]
        return np.array(list(itertools.product(*ticks)), dtype=np.float64).reshape(-1, self.dimensions)

    def neighbours(self, unit: FloatArray, scale: float) -> FloatArray:
        """Points [C, D] one knob away from ``unit`` [D]: by ``scale`` (at least one value), or another name."""
        found = []
        for index, knob in enumerate(self.knobs):
            here = unit[index]
            if knob.categorical:
                current = min(int(here * len(knob.choices)), len(knob.choices) - 1)
                targets = [(k + 0.5) / len(knob.choices) for k in range(len(knob.choices)) if k != current]
            else:
                targets = [t for side in (-1, 1) for t in _moved(knob, here, side, scale)]
            for target in targets:
                point = unit.copy()
                point[index] = target
                found.append(point)
        return np.array(found).reshape(-1, self.dimensions)

    def edges(self, unit: FloatArray) -> tuple[tuple[str, str], ...]:
        """Knobs of a plan that lie on the edge of the space: (name, ``"low"`` or ``"high"``)."""
        columns = self.decode(np.asarray(unit)[None, :])
        found = []
        for index, knob in enumerate(self.knobs):
            if knob.categorical:
                continue
            which = self._which(knob, columns)
            axis = knob.axes[int(which[0]) if which is not None else 0]
            value = float(columns[knob.name][0])
            free = not axis.single
            if free and (value == axis.low or (knob.continuous and unit[index] <= EDGE)):
                found.append((knob.name, "low"))
            elif free and (value == axis.high or (knob.continuous and unit[index] >= 1 - EDGE)):
                found.append((knob.name, "high"))
        return tuple(found)

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the space, e.g. to tell whether a stored study belongs to it."""
        plain = {name: _plain(getattr(self, name)) for name in _FIELDS}
        return plain | {"tasks": sorted(self.tasks)}

    def _which(self, knob: Knob, columns: Columns) -> NDArray[np.int64] | None:
        if knob.selector is None:
            return None
        return choice_index(knob.selector, tuple(self.learning_rate), columns[knob.selector])

    def _lay_out(self) -> tuple[Knob, ...]:
        rates = {
            name: make_axis(f"learning_rate of {name}", given, log=True, integer=False)
            for name, given in self.learning_rate.items()
        }
        sizes = self.batch_size
        axes = {
            "batch_size": make_axis("batch_size", sizes, log=True, integer=True),
            "steps": make_axis("steps", self.steps, log=True, integer=True),
            "coefficient": make_axis("coefficient", self.coefficient, log=False, integer=False),
        }
        if not isinstance(sizes, Grid) and self.batch_sizes == "powers_of_two":
            grid = powers_of_two(int(sizes[0]), int(sizes[1]))
            axes["batch_size"] = make_axis("batch_size", grid, log=True, integer=True)
        own = sorted(self.tasks)
        knobs: list[Knob] = [Knob(name="method", field="method", choices=self.methods)]
        for task in own if self.per_task_recipes else [None]:
            knobs += self._recipe_knobs(task, rates, axes)
        for task in own if self.coefficient_scope == "per_task" else [None]:
            knobs.append(_numeric("coefficient", task, axes["coefficient"]))
        return tuple(knobs)

    def _recipe_knobs(self, task: str | None, rates: Mapping[str, Axis], axes: Mapping[str, Axis]) -> list[Knob]:
        selector = _named("optimizer", task)
        distinct = len(set(rates.values())) > 1
        rate = Knob(
            name=_named("learning_rate", task),
            field="learning_rate",
            task=task,
            axes=tuple(rates.values()) if distinct else (next(iter(rates.values())),),
            selector=selector if distinct else None,
        )
        return [
            Knob(name=selector, field="optimizer", task=task, choices=tuple(rates)),
            rate,
            _numeric("batch_size", task, axes["batch_size"]),
            _numeric("steps", task, axes["steps"]),
            Knob(name=_named("schedule", task), field="schedule", task=task, choices=self.schedules),
        ]


_BATCH_SIZES = ("powers_of_two", "integers")
_FIELDS = (
    *("tasks", "learning_rate", "batch_size", "steps", "schedules", "coefficient", "coefficient_scope", "methods"),
    *("per_task_recipes", "batch_sizes", "fixed"),
)


def rows_of(columns: Columns) -> list[Parameters]:
    """Parameter dictionaries, in plain Python values, of plans given as columns."""
    lists = {name: column.tolist() for name, column in columns.items()}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _moved(knob: Knob, here: float, side: int, scale: float) -> list[float]:
    """Where a numeric knob lands ``scale`` to one side; a step too small to change the value becomes one value."""
    target = min(max(here + side * scale, 0.0), 1.0)
    axis = max(knob.axes, key=lambda a: a.count if math.isfinite(a.count) else -1.0)
    if axis.values:
        index = min(int(here * len(axis.values)), len(axis.values) - 1)
        other = min(int(target * len(axis.values)), len(axis.values) - 1)
        other = index + side if other == index else other
        return [(other + 0.5) / len(axis.values)] if 0 <= other < len(axis.values) else []
    if axis.integer:
        value = int(axis.value(np.array(here)))
        other = int(axis.value(np.array(target)))
        other = value + side if other == value else other
        return [float(axis.unit(np.array(other)))] if axis.low <= other <= axis.high else []
    return [target] if target != here else []


def _named(name: str, task: str | None) -> str:
    return name if task is None else f"{name}_{task}"


def _numeric(name: str, task: str | None, axis: Axis) -> Knob:
    return Knob(name=_named(name, task), field=name, task=task, axes=(axis,))


def _require_names(name: str, names: tuple[str, ...]) -> None:
    if isinstance(names, str) or not names:
        raise ValueError(f"{name}={names!r} must list at least one name; give a tuple of names")
    for value in names:
        if not (isinstance(value, str) and value):
            raise ValueError(f"{name} holds {value!r}; every entry must be a name that is not empty")
    if len(set(names)) != len(names):
        raise ValueError(f"{name}={list(names)} names one twice; each may appear once")


def _plain(value: Any) -> Any:
    if isinstance(value, Grid):
        return {"values": list(value.values)}
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
