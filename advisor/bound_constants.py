r"""The constants that the worst-case bound takes, and how measured ones stand in for them.

Every symbol is a bound (a supremum), so every stand-in takes the upper end of its interval: the promised risk only
moves up.  Symbols, units and assumptions: ``docs/theory.md`` sections 1 and 2; N is the number of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.constants import Constants, Estimate, TaskConstants

FloatArray = NDArray[np.float64]

WEIGHT_TOLERANCE = 1e-9  # how far task weights may miss a sum of one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundConstants:
    """What the bound knows of N tasks.

    Attributes:
        names: task names.
        task_weights: [N] goal weights p_i, fixed beforehand, sum 1.
        num_samples: [N] training samples that F_i, and so the gradients below, rest on.
        smoothness: L, Lipschitz constant of the gradient of every sample's loss, loss/|x|^2.
        task_smoothness: [N] L_i, the same of F_i, at most L.
        gradient_variance: [N] sigma_i^2, loss^2/|x|^2.
        initial_gradient_norm: [N] G_i = (E ||grad F_i(x_0)||^2)^(1/2), loss/|x|.
        initial_risk: [N] E F_i(x_0), loss.
        gradient_gram: [N, N] E <grad F_i(x_0), grad F_j(x_0)>, loss^2/|x|^2.
        initial_gap: Delta_0 or more, E[F(x_0) - F*]; default F(x_0), which is safe as the loss is at least 0.
        initial_gap_floor: something that Delta_0 is not below, default 0.  The generalisation term needs F* from above.
        task_gap: [N] E[F_i(x_0) - F_i*] or more, default F_i(x_0); infinite where F_i has no floor.
        pl_constant: mu >= 0 with ||grad F||^2 >= 2 mu (F - F*) for almost every realised F; 0 claims nothing.
        sources: symbol -> measured field that stands in for it; empty for constants known otherwise.
    """

    names: tuple[str, ...]
    task_weights: FloatArray
    num_samples: FloatArray
    smoothness: float
    task_smoothness: FloatArray
    gradient_variance: FloatArray
    initial_gradient_norm: FloatArray
    initial_risk: FloatArray
    gradient_gram: FloatArray
    initial_gap: float = math.nan
    initial_gap_floor: float = 0.0
    task_gap: FloatArray | None = None
    pl_constant: float = 0.0
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill the safe defaults, freeze the arrays and check every value."""
        if self.task_gap is None:
            object.__setattr__(self, "task_gap", self.initial_risk)
        for name in _TASK_FIELDS:
            object.__setattr__(self, name, _frozen(name, getattr(self, name), (len(self.names),)))
        gram = _frozen("gradient_gram", self.gradient_gram, (len(self.names),) * 2, signed=True)
        object.__setattr__(self, "gradient_gram", gram)
        if math.isnan(self.initial_gap):
            object.__setattr__(self, "initial_gap", self.goal_risk)
        self._check()

    def _check(self) -> None:
        if abs(self.task_weights.sum() - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"task_weights={self.task_weights.tolist()} must sum to 1; divide them by their sum")
        if not (self.smoothness > 0 and math.isfinite(self.smoothness)):
            raise ValueError(f"smoothness={self.smoothness} must be positive and finite; measure L or bound it")
        if not np.all(self.task_smoothness <= self.smoothness * (1 + 1e-9)):
            raise ValueError(
                f"task_smoothness={self.task_smoothness.tolist()} must not exceed smoothness={self.smoothness}, "
                "which holds for every sample; raise smoothness to the largest of them"
            )
        if not np.all(self.num_samples >= 1):
            raise ValueError(f"num_samples={self.num_samples.tolist()} must be at least 1; give every task a sample")
        if not (self.pl_constant >= 0 and self.pl_constant <= self.smoothness * (1 + 1e-9)):
            raise ValueError(
                f"pl_constant={self.pl_constant} must lie in [0, smoothness={self.smoothness}]; 0 claims nothing"
            )
        if not 0 <= self.initial_gap_floor <= self.initial_gap < math.inf:
            raise ValueError(
                f"initial_gap_floor={self.initial_gap_floor} must lie in [0, initial_gap={self.initial_gap}], both "
                "finite; the floor is a lower and the gap an upper limit of E[F(x0) - F*]"
            )
        lowest = float(np.linalg.eigvalsh(self.gradient_gram)[0])
        if lowest < -1e-9 * max(1.0, float(np.trace(self.gradient_gram))):
            raise ValueError(
                f"gradient_gram has the eigenvalue {lowest:.3g}; a Gram matrix has none below 0, so raise its diagonal"
            )

    @property
    def goal_risk(self) -> float:
        """E F(x_0) = sum p_i E F_i(x_0)."""
        return float(self.task_weights @ self.initial_risk)

    @property
    def gap_of_tasks(self) -> FloatArray:
        """``task_gap`` with its default filled in, shape [N]."""
        assert self.task_gap is not None  # filled at birth
        return self.task_gap


_TASK_FIELDS = (
    "task_weights",
    "num_samples",
    "task_smoothness",
    "gradient_variance",
    "initial_gradient_norm",
    "initial_risk",
    "task_gap",
)
_MAY_BE_INFINITE = ("task_gap",)


def _frozen(name: str, values: Any, shape: tuple[int, ...], *, signed: bool = False) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}, one entry a task")
    fine = np.isfinite(array) | ((name in _MAY_BE_INFINITE) & (array > 0))
    if not (fine.all() and (signed or (array >= 0).all())):
        raise ValueError(
            f"{name}={array.tolist()} must be finite{'' if signed else ' and at least 0'}; check its source"
        )
    array.flags.writeable = False
    return array


def from_constants(
    constants: Constants,
    task_weights: Sequence[float] | FloatArray | None = None,
    *,
    pl_constant: float = 0.0,
) -> BoundConstants:
    """Put measured constants in the places of the bound's symbols, each at the upper end of its 90 % interval.

    - L: the largest ``sample_smoothness``; without it the largest curvature measured, which is smaller than L, and
      ``sources`` says so.  Never below any L_i.
    - L_i: the largest of ``top_curvature``, ``path_curvature`` and ``gauss_newton_curvature``; else L.
    - sigma_i^2: the larger of ``gradient_variance`` and ``heldout_gradient_variance``.
    - G_i: ``initial_gradient_norm`` with the sampling part that the estimator took off put back, because
      E ||grad F_i||^2 = ||grad f_i||^2 + Var/n_i <= ... + sigma_i^2/n_i; without it sqrt(2 L_i F_i(x_0)).
    - F_i(x_0): ``initial_risk``.  Delta_0 and E[F_i(x_0) - F_i*]: F(x_0) and F_i(x_0), as the loss is at least 0; the
      floor of Delta_0 is 0.
    - Gram matrix: ``gradient_gram`` with sigma_i^2/n_i put back and, for an error |E_ij| <= e_ij in each cell,
      E <= diag(sum_j e_ij) (Gershgorin); without it N diag(G_i^2), which dominates every Gram matrix with these norms
      (Cauchy-Schwarz).

    Args:
        constants: as measured.
        task_weights: goal weights in the order of the tasks; ``None`` for 1/N each.
        pl_constant: mu, if something proves it; the measured progress rate is no such proof, so 0 by default.
    """
    names = constants.names
    tasks = [constants.tasks[name] for name in names]
    weights = np.full(len(names), 1 / len(names)) if task_weights is None else np.asarray(task_weights, np.float64)
    samples = np.array([constants.num_samples[name] for name in names], dtype=np.float64)
    sources: dict[str, str] = {"initial_risk": "initial_risk", "initial_gap": "initial_risk"}

    task_smoothness, smoothness = _smoothness(names, tasks, sources)
    variance = np.array([_variance(name, task) for name, task in zip(names, tasks, strict=True)])
    sources["gradient_variance"] = "gradient_variance, heldout_gradient_variance"
    risk = np.array([task.initial_risk.high for task in tasks])
    sampling = variance / samples
    norm = _gradient_norm(tasks, task_smoothness, risk, sampling, sources)
    return BoundConstants(
        names=names,
        task_weights=weights,
        num_samples=samples,
        smoothness=smoothness,
        task_smoothness=task_smoothness,
        gradient_variance=variance,
        initial_gradient_norm=norm,
        initial_risk=risk,
        gradient_gram=_gram(constants, norm, sampling, sources),
        pl_constant=pl_constant,
        sources=sources,
    )


_CURVATURES = ("top_curvature", "path_curvature", "gauss_newton_curvature")


def _highest(task: TaskConstants, fields: Sequence[str]) -> float:
    """Largest upper end among some fields, 0 if none was measured."""
    estimates: list[Estimate | None] = [getattr(task, name) for name in fields]
    return max((estimate.high for estimate in estimates if estimate is not None), default=0.0)


def _smoothness(
    names: Sequence[str], tasks: Sequence[TaskConstants], sources: dict[str, str]
) -> tuple[FloatArray, float]:
    by_task = np.array([_highest(task, _CURVATURES) for task in tasks])
    by_sample = np.array([_highest(task, ("sample_smoothness",)) for task in tasks])
    for name, of_task, of_sample in zip(names, by_task, by_sample, strict=True):
        if not max(of_task, of_sample) > 0:
            raise ValueError(
                f"task {name}: sample_smoothness, {', '.join(_CURVATURES)} are all missing or 0; "
                "measure one of them, the bound cannot do without L"
            )
    per_sample = bool((by_sample > 0).all())
    sources["smoothness"] = "sample_smoothness" if per_sample else ", ".join(_CURVATURES)
    smoothness = float(max(by_task.max(), by_sample.max()))
    sources["task_smoothness"] = ", ".join(_CURVATURES) if (by_task > 0).all() else "smoothness where not measured"
    return np.where(by_task > 0, by_task, smoothness), smoothness


def _variance(name: str, task: TaskConstants) -> float:
    if task.gradient_variance is None and task.heldout_gradient_variance is None:
        raise ValueError(f"task {name}: gradient_variance is missing; estimate it, the bound cannot do without it")
    return _highest(task, ("gradient_variance", "heldout_gradient_variance"))


def _gradient_norm(
    tasks: Sequence[TaskConstants],
    task_smoothness: FloatArray,
    risk: FloatArray,
    sampling: FloatArray,
    sources: dict[str, str],
) -> FloatArray:
    """G_i; the fallback is self-bounding: a non-negative L_i-smooth F_i has ||grad F_i||^2 <= 2 L_i F_i."""
    measured = [task.initial_gradient_norm for task in tasks]
    fallback = np.sqrt(2 * task_smoothness * risk)
    sources["initial_gradient_norm"] = (
        "initial_risk and task_smoothness" if any(m is None for m in measured) else "initial_gradient_norm"
    )
    pairs = zip(measured, sampling, fallback, strict=True)
    return np.array([last if m is None else math.sqrt(m.high**2 + part) for m, part, last in pairs])


def _gram(constants: Constants, norm: FloatArray, sampling: FloatArray, sources: dict[str, str]) -> FloatArray:
    if constants.gradient_gram is None:
        sources["gradient_gram"] = "initial_gradient_norm"
        return np.diag(len(norm) * norm**2)
    sources["gradient_gram"] = "gradient_gram"
    cells = constants.gradient_gram
    value = np.array([[cell.value for cell in row] for row in cells])
    error = np.array([[max(cell.high - cell.value, cell.value - cell.low) for cell in row] for row in cells])
    value, error = (value + value.T) / 2, np.maximum(error, error.T)
    gram = value + np.diag(error.sum(axis=1) + sampling)
    lowest = float(np.linalg.eigvalsh(gram)[0])  # below 0 only by estimation error: lift it, which is the safe side
    return np.asarray(gram + max(0.0, -lowest) * np.eye(len(norm)))
