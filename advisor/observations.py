r"""What probes leave behind: measured merges and displacement traces, the data of the risk model.

A *probe* is a short fine-tune of every task.  Its experts are merged at several coefficients, lambda = 1 and beyond:
merging *short* probes with *large* lambda shows, without further training, the interference that long fine-tunes will
have (``docs/theory.md`` section 4).  Every (checkpoint, coefficients) pair that was evaluated is one
``MergeObservation``; every expert run leaves one ``DisplacementTrace`` for free.  Full merges that are measured later
are observations of the same kind, so refitting is fitting on more of them.

Units: risks and noise in nats; squared displacements in |x|^2.  A run that diverged is kept, with risk ``math.inf``
(``null`` in JSON): that a learning rate diverges is information.  N is the number of tasks of a plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.plan import Plan
from estimators.constants import Constants
from estimators.recipe import Recipe

PROBE_DATA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeObservation:
    """One measured merge.

    Attributes:
        plan: recipes of the merged experts (``steps`` is the checkpoint's step), coefficients and method.
        risks: task -> mean loss of the merged model on the evaluation samples; ``math.inf`` if it diverged.  Any
            non-empty subset of the plan's tasks, or further tasks whose experts were not merged.
        initial_risks: task -> mean loss of x_0 on the same samples.
        num_samples: evaluation samples a task.
        noise: task -> standard error of (risk - initial risk), paired over samples.
        squared_displacements: task -> ||tau_i||^2 of its expert.
        displacement_gram: <tau_i, tau_j> in the order of the plan's tasks, N x N; ``None`` if not kept.
        seed: seed of the runs that were merged; merges of the same experts share it.
    """

    plan: Plan
    risks: dict[str, float]
    initial_risks: dict[str, float]
    num_samples: int
    noise: dict[str, float]
    squared_displacements: dict[str, float] = field(default_factory=dict)
    displacement_gram: tuple[tuple[float, ...], ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that every part speaks of the same tasks and that risks can be losses."""
        if not self.risks:
            raise ValueError("risks={} must hold at least one task; evaluate the merge on a task first")
        for name in ("initial_risks", "noise"):
            if set(getattr(self, name)) != set(self.risks):
                raise ValueError(
                    f"{name} names {sorted(getattr(self, name))}, risks name {sorted(self.risks)}; use the same tasks"
                )
        for task, risk in self.risks.items():
            if not risk >= 0:
                raise ValueError(
                    f"risk of {task}={risk} must be at least 0; store a run that diverged as infinity, not NaN"
                )
            initial = self.initial_risks[task]
            if not (initial > 0 and math.isfinite(initial)):
                raise ValueError(f"initial risk of {task}={initial} must be positive and finite; evaluate x_0 again")
            if not self.noise[task] >= 0:
                raise ValueError(f"noise of {task}={self.noise[task]} must be at least 0; give its standard error")
        if not self.num_samples >= 1:
            raise ValueError(f"num_samples={self.num_samples} must be at least 1; say how many samples were evaluated")
        unknown = sorted(set(self.squared_displacements) - set(self.plan.names))
        if unknown:
            raise ValueError(f"squared_displacements name {unknown}, not tasks of the plan; drop or add them")
        for task, value in self.squared_displacements.items():
            if not value >= 0:
                raise ValueError(f"squared displacement of {task}={value} must be at least 0; measure it again")
        count = len(self.plan.names)
        gram = self.displacement_gram
        if gram is not None and [len(row) for row in gram] != [count] * count:
            raise ValueError(f"displacement_gram must be {count} x {count} in task order; give one row a task")

    @property
    def diverged(self) -> bool:
        """Whether any evaluated risk is infinite."""
        return any(math.isinf(risk) for risk in self.risks.values())

    def risks_at(self, initial_risks: Mapping[str, float]) -> dict[str, float]:
        """Measured risks brought to another level of x_0's, r_j r_0j'/r_0j: what predictions from there compare with.

        A few evaluation samples can lie far from x_0's risk on all; the ratio, measured on the same samples, does not.
        """
        return {name: risk * initial_risks[name] / self.initial_risks[name] for name, risk in self.risks.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite number becomes ``None``."""
        gram = self.displacement_gram
        return {
            "plan": self.plan.to_json(),
            "risks": _plain(self.risks),
            "initial_risks": _plain(self.initial_risks),
            "num_samples": int(self.num_samples),
            "noise": _plain(self.noise),
            "squared_displacements": _plain(self.squared_displacements),
            "displacement_gram": None if gram is None else [[_finite(cell) for cell in row] for row in gram],
            "seed": int(self.seed),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MergeObservation:
        """The inverse of :meth:`to_json`."""
        gram = data["displacement_gram"]
        return cls(
            plan=Plan.from_json(data["plan"]),
            risks=_numbers(data["risks"]),
            initial_risks=_numbers(data["initial_risks"]),
            num_samples=int(data["num_samples"]),
            noise=_numbers(data["noise"]),
            squared_displacements=_numbers(data["squared_displacements"]),
            displacement_gram=None if gram is None else tuple(tuple(map(_number, row)) for row in gram),
            seed=int(data["seed"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DisplacementTrace:
    """How far one expert run moved, and its training loss on the way.

    Attributes:
        task: name of the task.
        recipe: recipe of the run (``steps`` is its whole length).
        seed: seed of the run.
        steps: step numbers k >= 1 at which it was looked at, increasing, [S].
        squared_displacements: ||x_k - x_0||^2 there, [S]; infinite after divergence.
        losses: training loss of the step's mini-batch there, [S].
    """

    task: str
    recipe: Recipe
    seed: int
    steps: NDArray[np.int64]
    squared_displacements: NDArray[np.float64]
    losses: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check lengths and order."""
        for name in ("steps", "squared_displacements", "losses"):
            dtype = np.int64 if name == "steps" else np.float64
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        if self.steps.ndim != 1 or len(self.steps) == 0:
            raise ValueError(f"steps has shape {self.steps.shape}; it must be a non-empty list of step numbers")
        for name in ("squared_displacements", "losses"):
            if getattr(self, name).shape != self.steps.shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, steps {self.steps.shape}; pair them")
        if self.steps[0] < 1 or np.any(np.diff(self.steps) <= 0):
            raise ValueError(f"steps={self.steps[:4].tolist()}... must increase from 1 or more; sort the trace")
        if np.any(np.isnan(self.squared_displacements)) or np.any(self.squared_displacements < 0):
            raise ValueError("squared_displacements must be at least 0 and not NaN; store divergence as infinity")

    def to_json(self) -> dict[str, Any]:
        """Plain values; a number that is not finite becomes ``None``."""
        return {
            "task": self.task,
            "recipe": self.recipe.to_json(),
            "seed": int(self.seed),
            "steps": self.steps.tolist(),
            "squared_displacements": [_finite(x) for x in self.squared_displacements.tolist()],
            "losses": [_finite(x) for x in self.losses.tolist()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DisplacementTrace:
        """The inverse of :meth:`to_json`; a loss that was NaN comes back infinite."""
        return cls(
            task=data["task"],
            recipe=Recipe.from_json(data["recipe"]),
            seed=int(data["seed"]),
            steps=np.array(data["steps"], dtype=np.int64),
            squared_displacements=np.array([_number(x) for x in data["squared_displacements"]]),
            losses=np.array([_number(x) for x in data["losses"]]),
        )


class Measured(Protocol):
    """A probe: what was measured on it."""

    @property
    def merges(self) -> tuple[MergeObservation, ...]:
        """Its merges."""

    @property
    def traces(self) -> tuple[DisplacementTrace, ...]:
        """Its expert runs' traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeData:
    """Everything the risk model learns from.

    Attributes:
        constants: constants measured at x_0; its tasks are the tasks of the model.
        merges: measured merges.
        traces: displacement traces of the expert runs.
    """

    constants: Constants
    merges: tuple[MergeObservation, ...]
    traces: tuple[DisplacementTrace, ...] = ()

    def __post_init__(self) -> None:
        """Check that merges and traces speak of tasks whose constants are known."""
        known = set(self.constants.names)
        for merge in self.merges:
            unknown = sorted((set(merge.plan.names) | set(merge.risks)) - known)
            if unknown:
                raise ValueError(f"a merge names tasks {unknown} without constants; measure theirs first")
        for trace in self.traces:
            if trace.task not in known:
                raise ValueError(f"a trace names task {trace.task!r} without constants; measure its constants first")

    @classmethod
    def of(cls, constants: Constants, probes: Sequence[Measured]) -> ProbeData:
        """Everything that was measured on some probes."""
        return cls(
            constants=constants,
            merges=tuple(merge for probe in probes for merge in probe.merges),
            traces=tuple(trace for probe in probes for trace in probe.traces),
        )

    def with_merges(self, merges: Sequence[MergeObservation], traces: Sequence[DisplacementTrace] = ()) -> ProbeData:
        """The same data with more merges (and traces): what refitting takes."""
        return ProbeData(
            constants=self.constants,
            merges=self.merges + tuple(merges),
            traces=self.traces + tuple(traces),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``probes.json``."""
        return {
            "version": PROBE_DATA_VERSION,
            "constants": self.constants.to_json(),
            "merges": [merge.to_json() for merge in self.merges],
            "traces": [trace.to_json() for trace in self.traces],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProbeData:
        """The inverse of :meth:`to_json`; another version is refused."""
        if data.get("version") != PROBE_DATA_VERSION:
            raise ValueError(
                f"version={data.get('version')!r} of the probe data is not {PROBE_DATA_VERSION}; probe again"
            )
        return cls(
            constants=Constants.from_json(data["constants"]),
            merges=tuple(MergeObservation.from_json(item) for item in data["merges"]),
            traces=tuple(DisplacementTrace.from_json(item) for item in data["traces"]),
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in values.items()}


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}
