r"""A setting of the few knobs that people turn: one recipe for all experts, a coefficient and a weight for each task.

A task that is left out is neither trained, merged nor counted in the goal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from advisor.curves import Knob
from advisor.plan import FloatArray, Plan
from estimators.recipe import Optimizer, Recipe, Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where the knobs stand.

    Attributes:
        learning_rate: peak rate of every expert.
        batch_size: samples a step.
        steps: fine-tuning steps.
        optimizer: of every expert.
        schedule: of every expert.
        num_samples: training samples used a task, at most what it has; ``None`` for all.
        coefficients: task -> lambda.
        weights: task -> weight in the goal.
        left_out: tasks that are neither trained, merged nor counted.
        method: merge operator, one of those that probes were merged with.
    """

    learning_rate: float
    batch_size: int
    steps: int
    coefficients: Mapping[str, float]
    weights: Mapping[str, float]
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "constant"
    num_samples: int | None = None
    left_out: tuple[str, ...] = ()
    method: str = "task_arithmetic"

    def __post_init__(self) -> None:
        """Check that something is left and counts."""
        if list(self.coefficients) != list(self.weights):
            raise ValueError(
                f"coefficients name {list(self.coefficients)}, weights {list(self.weights)}; name the same tasks"
            )
        unknown = sorted(set(self.left_out) - set(self.coefficients))
        if unknown:
            raise ValueError(f"left_out={unknown} are no tasks; the tasks are {list(self.coefficients)}")
        if not self.kept:
            raise ValueError("left_out names every task; keep at least one")
        if not sum(self.weights[name] for name in self.kept) > 0:
            raise ValueError("weights of all tasks that take part are 0; give one of them a positive weight")

    @property
    def names(self) -> tuple[str, ...]:
        """All tasks."""
        return tuple(self.coefficients)

    @property
    def kept(self) -> tuple[str, ...]:
        """Tasks that take part."""
        return tuple(name for name in self.coefficients if name not in self.left_out)

    @property
    def recipe(self) -> Recipe:
        """The recipe of every expert."""
        return Recipe(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            steps=self.steps,
            optimizer=self.optimizer,
            schedule=self.schedule,
            num_samples=self.num_samples,
        )

    @property
    def plan(self) -> Plan:
        """The plan over the tasks that take part."""
        kept = self.kept
        return Plan(
            recipes=dict.fromkeys(kept, self.recipe),
            coefficients={name: float(self.coefficients[name]) for name in kept},
            method=self.method,
        )

    @property
    def cost(self) -> float:
        """Units of training the experts."""
        return float(self.batch_size * self.steps * len(self.kept))


def knob_value(setting: Setting, knob: Knob) -> float:
    """Where a knob stands; for coefficients the mean over the tasks that take part."""
    if knob == "coefficient":
        return sum(setting.coefficients[name] for name in setting.kept) / len(setting.kept)
    return float(getattr(setting, knob))


def with_knobs(setting: Setting, values: Mapping[str, float]) -> Setting:
    """The setting with knobs moved; the common coefficient keeps the ratios between tasks."""
    changes: dict[str, Any] = {k: v if k == "learning_rate" else round(v) for k, v in values.items()}
    if "coefficient" in values:
        changes.pop("coefficient")
        now = knob_value(setting, "coefficient")
        changes["coefficients"] = {
            n: c * values["coefficient"] / now if now > 0 else values["coefficient"]
            for n, c in setting.coefficients.items()
        }
    return dataclasses.replace(setting, **changes)


def axis_values(setting: Setting, knob: Knob, points: int) -> FloatArray:
    """Values of a knob worth drawing around a setting: logarithmic, whole for counts, from 0 for coefficients."""
    now = knob_value(setting, knob)
    if knob == "coefficient":
        return np.linspace(0.0, max(1.0, 2.5 * now), points)
    if knob == "learning_rate":
        return np.asarray(np.geomspace(now / 16, now * 16, points))
    return np.asarray(np.unique(np.round(np.geomspace(max(1.0, now / 16), now * 4, points))))
