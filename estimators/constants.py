r"""The constants of the bound as measured, each with an interval, its samples and its cost.

Symbols and units are those of ``docs/notation.md``: r_0 in loss (nats), sigma^2, zeta^2 and <g_i, g_j> in loss^2/|x|^2,
curvatures in loss/|x|^2.  N is the number of tasks.  A field that was not measured is ``None``; a field that was
measured but could not be identified says so in ``identifiable`` and ``note`` and keeps its interval.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured number with its 90 % interval.

    Attributes:
        value: the point estimate.
        low: lower end of the 90 % interval (or of a deterministic residual bound).
        high: upper end.
        num_samples: samples it rests on.
        cost: units it took (``estimators.cost``).
        identifiable: whether the data determine it well enough to act on.
        note: why not, or how it was obtained.
    """

    value: float
    low: float
    high: float
    num_samples: int = 0
    cost: float = 0.0
    identifiable: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        """Store plain Python numbers; refuse NaN and an interval that does not hold its value."""
        for name, kind in (("value", float), ("low", float), ("high", float), ("cost", float), ("num_samples", int)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        object.__setattr__(self, "identifiable", bool(self.identifiable))
        if any(math.isnan(x) for x in (self.value, self.low, self.high)):
            raise ValueError(
                f"value={self.value}, low={self.low}, high={self.high} must be numbers; "
                "an estimate that failed is left out (None), not stored as NaN"
            )
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"value={self.value} must lie in its interval [low={self.low}, high={self.high}]; check the estimator"
            )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of :func:`dataclasses.asdict`; ``null`` means an infinite end."""
        infinite: dict[str, Any] = {"value": math.inf, "low": -math.inf, "high": math.inf}
        return cls(**{key: infinite[key] if value is None else value for key, value in data.items()})

    def describe(self) -> str:
        """The value with its interval, e.g. ``489 [430, 560]``."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]" + (
            "" if self.identifiable else " (not identified)"
        )


Matrix = tuple[tuple[Estimate, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConstants:
    """What was measured for one task at x_0 (and, where the name says so, along its probes).

    Attributes:
        initial_risk: r_0, mean validation cross-entropy of x_0 with the task's head.
        initial_accuracy: share of validation samples that x_0 classifies correctly.
        initial_gradient_norm: ||grad F_i(x_0)||, sampling noise subtracted.
        gradient_variance: sigma_i^2 = tr Cov of per-sample gradients on training samples.
        heldout_gradient_variance: the same on held-out samples (the fresh sample of the stability argument).
        heterogeneity: zeta_i^2 = ||grad F_i - grad F||^2, sampling part subtracted.
        top_curvature: largest Hessian eigenvalue of F_i at x_0.
        gauss_newton_curvature: largest eigenvalue of the Gauss-Newton matrix of F_i at x_0.
        sample_smoothness: mini-batch Lipschitz bound L_z of single samples' gradients near x_0.
        path_curvature: top_curvature at the end of the task's probe instead of x_0.
        critical_sharpness: 2/eta_c along the update that the optimizer makes at x_0.
        noise_curvature: E[xi^T H xi]/sigma_i^2 with xi the gradient noise.
        drift_curvature: curvature of F_i along its own mean gradient.
        noise_scale: sigma_i^2/||grad F_i||^2, in samples; ``high`` is infinite where the gradient may be 0.
        initial_gap: upper bound of F(x_0) - F*, on the validation samples.
        progress_rate: <grad F_i, grad F>/initial_gap, the first fall of risk i per unit of common progress.
        failures: field name -> why it could not be measured, with the next step.
    """

    initial_risk: Estimate
    initial_accuracy: Estimate | None = None
    initial_gradient_norm: Estimate | None = None
    gradient_variance: Estimate | None = None
    heldout_gradient_variance: Estimate | None = None
    heterogeneity: Estimate | None = None
    top_curvature: Estimate | None = None
    gauss_newton_curvature: Estimate | None = None
    sample_smoothness: Estimate | None = None
    path_curvature: Estimate | None = None
    critical_sharpness: Estimate | None = None
    noise_curvature: Estimate | None = None
    drift_curvature: Estimate | None = None
    noise_scale: Estimate | None = None
    initial_gap: Estimate | None = None
    progress_rate: Estimate | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def measured(self) -> dict[str, Estimate]:
        """The fields that were measured, by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Estimate)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Constants of all tasks of a project.

    Attributes:
        tasks: task name -> its constants, in the project's order.
        num_samples: training samples n_i of each task.
        num_classes: classes of each task.
        num_parameters: parameters that may move, P.
        goal_top_curvature: largest Hessian eigenvalue of F = sum p_i F_i at x_0.
        gradient_gram: (N, N) estimates of <grad F_i, grad F_j>, sampling part subtracted.
        relative_sharpness: (N, N); row j, column i is the curvature of task j's loss along task i's update.
        cost: units all of it took.
    """

    tasks: dict[str, TaskConstants]
    num_samples: dict[str, int]
    num_classes: dict[str, int]
    num_parameters: int
    goal_top_curvature: Estimate | None = None
    gradient_gram: Matrix | None = None
    relative_sharpness: Matrix | None = None
    cost: float = 0.0

    def __post_init__(self) -> None:
        """Check that every part speaks of the same tasks."""
        names = list(self.tasks)
        if not names:
            raise ValueError("tasks={} must name at least one task; measure the constants of a task first")
        for attribute in ("num_samples", "num_classes"):
            if list(getattr(self, attribute)) != names:
                raise ValueError(
                    f"{attribute} names {list(getattr(self, attribute))}, not the tasks {names}; use one order"
                )
        for attribute in ("gradient_gram", "relative_sharpness"):
            matrix = getattr(self, attribute)
            if matrix is not None and [len(row) for row in matrix] != [len(names)] * len(names):
                raise ValueError(f"{attribute} must be {len(names)} x {len(names)}; one row and column a task")

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in order."""
        return tuple(self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``constants.json``; an infinite end of an interval becomes ``null``."""
        return _without_infinity(asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Constants:
        """The inverse of :meth:`to_json`."""
        tasks = {name: _task_from_json(values) for name, values in data["tasks"].items()}
        matrices: dict[str, Matrix | None] = {
            key: None
            if data.get(key) is None
            else tuple(tuple(Estimate.from_json(cell) for cell in row) for row in data[key])
            for key in ("gradient_gram", "relative_sharpness")
        }
        goal = data.get("goal_top_curvature")
        return cls(
            tasks=tasks,
            num_samples=dict(data["num_samples"]),
            num_classes=dict(data["num_classes"]),
            num_parameters=int(data["num_parameters"]),
            goal_top_curvature=None if goal is None else Estimate.from_json(goal),
            cost=float(data.get("cost", 0.0)),
            **matrices,
        )


def _matrix_from_json(rows: list[list[dict[str, Any]]]) -> Matrix:
    return tuple(tuple(Estimate.from_json(cell) for cell in row) for row in rows)


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _task_from_json(values: dict[str, Any]) -> TaskConstants:
    values = dict(values)
    failures = dict(values.pop("failures", {}))
    estimates: dict[str, Any] = {
        key: None if cell is None else Estimate.from_json(cell) for key, cell in values.items()
    }
    return TaskConstants(**estimates, failures=failures)
