r"""What tuning coefficients found, as one value: coefficients with intervals, risks, who disturbs whom, what to do.

Risks are in nats.  ``disturbance[j, i]`` is how much task j's risk falls when expert i is left out of the chosen merge
(all else equal): positive where i hurts j, negative where it helps.  From weights alone it is expert i's share of what
moves task j's weights besides its own expert, between 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.advice import Predicted

FloatArray = NDArray[np.float64]
Source = Literal["weights", "unlabelled", "few labels", "validation"]
SCHEMA = 1
MINIMISED: dict[Source, str] = {  # what the figures of each task are
    "weights": "disagreement with the expert",
    "unlabelled": "disagreement with the expert",
    "few labels": "risk by labels and agreement",
    "validation": "risk",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """Risks of one task.

    Attributes:
        initial: of x_0.
        expert: of its own expert.
        measured: of the chosen merge, on the samples that chose it.
        predicted: of the chosen merge on new samples of the task, with its 90 % interval.
        best_single: the expert whose own risk on this task is lowest.
    """

    initial: float
    expert: float
    measured: float
    predicted: Predicted
    best_single: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "initial": _plain(self.initial),
            "expert": _plain(self.expert),
            "measured": _plain(self.measured),
            "predicted": self.predicted.to_json(),
            "best_single": self.best_single,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedCoefficients:
    """The chosen merge and what is known of it.

    Attributes:
        source: what the choice rests on.
        method: merge operator.
        coefficients: expert -> lambda; means over parameters where layer groups have their own.
        intervals: expert -> 90 % interval of lambda.
        groups: layer group -> expert -> lambda; empty for task-wise coefficients.
        tensor_coefficients: tensor -> lambda [N] for ``merge``; empty for task-wise coefficients.
        tasks: task -> its risks; empty from weights alone.
        disturbance: [tasks, experts], see the module.
        leave_out: experts without whom the merge is measurably no worse.
        merge: whether one merged model is worth making; ``None`` where that cannot be told.
        verdicts: what was found, in sentences.
        notes: caveats, in sentences.
        methods: operator -> lowest measured goal, for every operator tried.
        merges: measured merges, experts alone and x_0 included.
        units: cost in per-sample gradients.
        rows: coefficients of all measured merges [merges, N] of the chosen operator.
        goals: their goals.
        foretold: what had been predicted before each was measured, NaN where nothing was.
        converged: whether the search ended because nothing more was to be gained.
    """

    source: Source
    method: str
    coefficients: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    disturbance: FloatArray
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tensor_coefficients: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    tasks: Mapping[str, TaskOutcome] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    merge: bool | None = None
    verdicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    methods: Mapping[str, float] = field(default_factory=dict)
    merges: int = 0
    units: float = 0.0
    rows: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    goals: FloatArray = field(default_factory=lambda: np.zeros(0))
    foretold: FloatArray = field(default_factory=lambda: np.zeros(0))
    converged: bool = True

    def __post_init__(self) -> None:
        """Check that the parts speak of the same experts."""
        if set(self.intervals) != set(self.coefficients):
            raise ValueError(f"intervals {sorted(self.intervals)} must name the experts {sorted(self.coefficients)}")
        for name, (low, high) in self.intervals.items():
            if not low <= self.coefficients[name] <= high:
                raise ValueError(
                    f"coefficient of {name!r}={self.coefficients[name]} must lie in its interval ({low}, {high})"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "method": self.method,
            "coefficients": dict(self.coefficients),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "groups": {name: dict(cells) for name, cells in self.groups.items()},
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "disturbance": self.disturbance.tolist(),
            "leave_out": list(self.leave_out),
            "merge": self.merge,
            "verdicts": list(self.verdicts),
            "notes": list(self.notes),
            "methods": {name: _plain(value) for name, value in self.methods.items()},
            "merges": self.merges,
            "units": self.units,
            "rows": self.rows.tolist(),
            "goals": [_plain(value) for value in self.goals.tolist()],
            "foretold": [_plain(value) for value in self.foretold.tolist()],
            "converged": self.converged,
        }

    def figures(self) -> dict[str, float | str]:
        """Lines for the model card."""
        lines: dict[str, float | str] = {"coefficients chosen from": self.source}
        what = MINIMISED[self.source]
        for name, (low, high) in self.intervals.items():
            lines[f"90 % interval of {name}"] = f"{low:.3g} to {high:.3g}"
        for name, task in self.tasks.items():
            lines[f"{what}, {name}: x₀, own expert, merge measured"] = (
                f"{task.initial:.4g}, {task.expert:.4g}, {task.measured:.4g}"
            )
            p = task.predicted
            lines[f"{what}, {name}, predicted on new samples"] = f"{p.value:.4g} [{p.low:.4g}, {p.high:.4g}]"
        return lines


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
