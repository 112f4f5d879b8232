r"""A plan: a recipe for each task, the merging coefficients and the merge method.

``Plan`` is one plan, readable and checked; ``PlanTable`` holds M plans as arrays [M, N], which is what the bound and
the risk model compute on.  Progress of expert i as the merge sees it (``docs/theory.md`` section 1):
T_i = lambda_i eta_i ||a_i||_1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.recipe import Optimizer, Recipe

OPTIMIZERS = ("sgd", "momentum", "adamw")
SCHEDULES = ("constant", "warmup_cosine")

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to train and how to merge it.

    Attributes:
        recipes: task name -> recipe of its expert.
        coefficients: task name -> merging coefficient lambda_i >= 0.
        method: name of the merge operator; ``task_arithmetic`` is the linear merge of the bound.
    """

    recipes: Mapping[str, Recipe]
    coefficients: Mapping[str, float]
    method: str = "task_arithmetic"

    def __post_init__(self) -> None:
        """Check that recipes and coefficients speak of the same tasks."""
        if not self.recipes:
            raise ValueError("recipes={} must name at least one task; add a recipe a task")
        if list(self.recipes) != list(self.coefficients):
            raise ValueError(
                f"coefficients name {list(self.coefficients)}, recipes name {list(self.recipes)}; use the same tasks"
            )
        for name, value in self.coefficients.items():
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(
                    f"coefficient of {name}={value} must be at least 0 and finite; leave the task out with 0"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in order."""
        return tuple(self.recipes)

    def training_cost(self) -> int:
        """Units of training all experts (tasks with coefficient 0 included)."""
        return sum(recipe.cost() for recipe in self.recipes.values())

    @classmethod
    def uniform(cls, names: Sequence[str], recipe: Recipe, coefficient: float, method: str = "task_arithmetic") -> Plan:
        """One recipe and one coefficient for all tasks."""
        return cls(
            recipes=dict.fromkeys(names, recipe),
            coefficients=dict.fromkeys(names, float(coefficient)),
            method=method,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recipes": {name: recipe.to_json() for name, recipe in self.recipes.items()},
            "coefficients": {name: float(value) for name, value in self.coefficients.items()},
            "method": self.method,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`."""
        return cls(
            recipes={name: Recipe.from_json(recipe) for name, recipe in data["recipes"].items()},
            coefficients={name: float(value) for name, value in data["coefficients"].items()},
            method=data["method"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """M plans for N tasks as arrays.

    Attributes:
        names: task names, N of them.
        learning_rate: [M, N] peak learning rates.
        batch_size: [M, N].
        steps: [M, N].
        optimizer: [M, N] index into ``OPTIMIZERS``.
        momentum: [M, N].
        schedule: [M, N] index into ``SCHEDULES``.
        num_samples: [M, N] training samples used.
        coefficients: [M, N] lambda.
        method: M names of merge operators.
    """

    names: tuple[str, ...]
    learning_rate: FloatArray
    batch_size: FloatArray
    steps: FloatArray
    optimizer: IntArray
    momentum: FloatArray
    schedule: IntArray
    num_samples: FloatArray
    coefficients: FloatArray
    method: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check shapes."""
        shape = self.learning_rate.shape
        if len(shape) != 2 or shape[1] != len(self.names):
            raise ValueError(f"learning_rate has shape {shape}; it must be [plans, {len(self.names)} tasks]")
        for name in (
            "batch_size",
            "steps",
            "optimizer",
            "momentum",
            "schedule",
            "num_samples",
            "coefficients",
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; it must be {shape} like learning_rate")
        if len(self.method) != shape[0]:
            raise ValueError(f"method names {len(self.method)} operators for {shape[0]} plans; give one a plan")

    def __len__(self) -> int:
        return int(self.learning_rate.shape[0])

    def step_mass(self) -> FloatArray:
        """||a_i||_1 of every expert, shape [M, N]: effective number of steps at peak rate.

        Constant schedule: K for SGD and AdamW; heavy ball sums to (K - m(1-m^K)/(1-m))/(1-m).  Warm-up + cosine is
        summed exactly for each distinct K.

        >>> table = PlanTable.from_plans([Plan.uniform(["a"], Recipe(learning_rate=1, batch_size=1, steps=3,
        ...     optimizer="momentum", momentum=0.5), 1.0)], {"a": 10})
        >>> float(table.step_mass()[0, 0])
        4.25
        """
        m = self.momentum
        return self._scheduled((self.steps - m * (1 - m**self.steps) / (1 - m)) / (1 - m), 0)

    def step_energy(self) -> FloatArray:
        """||a_i||_2^2 of every expert, shape [M, N]: how much gradient noise its steps add up, at peak rate.

        Constant schedule: K for SGD and AdamW; heavy ball sums (1-m^j)^2/(1-m)^2 over j = 1..K.

        >>> table = PlanTable.from_plans([Plan.uniform(["a"], Recipe(learning_rate=1, batch_size=1, steps=3,
        ...     optimizer="momentum", momentum=0.5), 1.0)], {"a": 10})
        >>> float(table.step_energy()[0, 0])
        6.3125
        """
        m = self.momentum
        once, twice = m * (1 - m**self.steps) / (1 - m), m**2 * (1 - m ** (2 * self.steps)) / (1 - m**2)
        return self._scheduled((self.steps - 2 * once + twice) / (1 - m) ** 2, 1)

    def _scheduled(self, values: FloatArray, which: int) -> FloatArray:
        """The values, in the cells whose rate follows a schedule replaced by the sum ``which`` of their step vector."""
        scheduled = self.schedule > 0
        # a million experts share a few pairs of steps and momentum: each pair is summed once
        pairs, index = np.unique(
            np.stack([self.steps[scheduled], self.momentum[scheduled]]), axis=1, return_inverse=True
        )
        values[scheduled] = np.array([_cosine_sums(int(steps), m)[which] for steps, m in pairs.T])[index.ravel()]
        return values

    def training_cost(self) -> FloatArray:
        """Units of training all experts of each plan, shape [M]."""
        return np.asarray((self.batch_size * self.steps).sum(axis=1))

    @classmethod
    def from_plans(cls, plans: Sequence[Plan], num_samples: Mapping[str, int]) -> PlanTable:
        """Arrays of some plans; ``num_samples`` gives n_i where a recipe uses all samples."""
        if not plans:
            raise ValueError("plans=[] must hold at least one plan; pass the plans to predict")
        names = plans[0].names
        for plan in plans:
            if plan.names != names:
                raise ValueError(f"plans speak of different tasks, {plan.names} and {names}; predict them apart")
        recipes = [[plan.recipes[name] for name in names] for plan in plans]

        def column(get: Any, dtype: Any) -> NDArray[Any]:
            return np.array([[get(recipe) for recipe in row] for row in recipes], dtype=dtype)

        samples = [
            [min(r.num_samples or num_samples[n], num_samples[n]) for r, n in zip(row, names, strict=True)]
            for row in recipes
        ]
        return cls(
            names=names,
            learning_rate=column(lambda r: r.learning_rate, np.float64),
            batch_size=column(lambda r: r.batch_size, np.float64),
            steps=column(lambda r: r.steps, np.float64),
            optimizer=column(lambda r: OPTIMIZERS.index(r.optimizer), np.int64),
            momentum=column(lambda r: r.momentum, np.float64),
            schedule=column(lambda r: SCHEDULES.index(r.schedule), np.int64),
            num_samples=np.array(samples, dtype=np.float64),
            coefficients=np.array([[plan.coefficients[name] for name in names] for plan in plans], dtype=np.float64),
            method=tuple(plan.method for plan in plans),
        )


@functools.lru_cache(maxsize=8192)
def _cosine_sums(steps: int, momentum: float) -> tuple[float, float]:
    """||a||_1 and ||a||_2^2 of heavy ball (or SGD with momentum 0) under warm-up and cosine."""
    optimizer: Optimizer = "momentum" if momentum else "sgd"
    weights = Recipe(
        learning_rate=1.0,
        batch_size=1,
        steps=steps,
        optimizer=optimizer,
        momentum=momentum,
        schedule="warmup_cosine",
    ).step_weights()
    return float(weights.sum()), float(np.sum(weights**2))
