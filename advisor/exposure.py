r"""What a recipe amounts to in the units of a task: effective rate, time, random walk and noise temperature.

Every optimizer is put on one axis by its *effective rate*

    e = eta                                          SGD
    e = eta / (1 - m)                                heavy ball
    e = eta sqrt(P) / sqrt(sigma^2 / b + G^2)        AdamW: sqrt(v) is about the size of a gradient entry

so that with the effective step vector a of momentum and schedule (``Recipe.step_weights``; all ones for SGD at a
constant rate), and the metric g = sqrt(P) / sqrt(sigma^2 / b + G^2) for AdamW, 1 otherwise

    T = g eta ||a||_1                  effective time, |x|^2/loss
    V = (g eta ||a||_2)^2 sigma^2 / b  variance of a free random walk, |x|^2
    E = e sigma^2 / b                  noise temperature, loss

M is the number of plans, N of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.observations import MergeObservation
from advisor.plan import OPTIMIZERS, SCHEDULES, FloatArray, IntArray, PlanTable
from estimators.constants import Constants, Estimate, TaskConstants

FAMILIES = ("gradient", "adaptive")
Z90 = 1.645  # normal quantile of a 90 % interval's end
# G^2/sigma^2 at x_0, as displacements of long runs on the development suites tell it (docs/risk-model-log.md, sixth
# session); 1/530 to 1/800 measured on the exploration tables.
GRADIENT_SHARE = 1 / 1250
GRADIENT_SHARE_WIDTH = 0.6  # in log G^2
CURVATURE_UNIT = 0.74  # of lambda_max: what the priors' suites took for it (docs/risk-model-log.md, fifth session)
COSINE_WIDTH = 0.25  # prior standard deviation of a cosine between two tasks' gradients
COLUMNS = ("learning_rate", "batch_size", "steps", "optimizer", "momentum", "schedule", "num_samples", "coefficients")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScales:
    """The constants of all tasks as arrays [N]: the units in which recipes are measured.

    Attributes:
        names: task names.
        initial_risk: r_0.
        initial_spread: relative standard error of r_0, from the samples it was measured on.
        initial_samples: how many those are.
        gradient_norm: G.
        gradient_variance: sigma^2.
        curvature: top Hessian eigenvalue L, times ``CURVATURE_UNIT``.
        gradient_cosine: [N, N] cosines of the training gradients at x_0; the identity if no Gram matrix was measured.
        num_samples: n.
        num_parameters: P.
    """

    names: tuple[str, ...]
    initial_risk: FloatArray
    initial_spread: FloatArray
    initial_samples: FloatArray
    gradient_norm: FloatArray
    gradient_variance: FloatArray
    curvature: FloatArray
    gradient_cosine: FloatArray
    num_samples: FloatArray
    num_parameters: int

    @property
    def pace(self) -> float:
        """Geometric mean of G^2/r_0, loss/|x|^2: the rate at which gradient flow begins to gain."""
        return float(np.exp(np.mean(np.log(self.gradient_norm**2 / self.initial_risk))))

    @property
    def sharpness(self) -> float:
        """Geometric mean of L, loss/|x|^2: the rate at which the sharpest directions fill."""
        return float(np.exp(np.mean(np.log(self.curvature))))

    @classmethod
    def from_constants(cls, constants: Constants) -> TaskScales:
        """Arrays of the measured constants; an error names the first one that is missing."""
        tasks = constants.tasks
        variance = np.array([_require(name, task, "gradient_variance").value for name, task in tasks.items()])
        variance = np.maximum(variance, 1e-12)
        norm = np.array(
            [
                likely_gradient_norm(
                    _require(name, task, "initial_gradient_norm"), variance[i], constants.num_samples[name]
                )
                for i, (name, task) in enumerate(tasks.items())
            ]
        )
        return cls(
            names=constants.names,
            initial_risk=np.array([task.initial_risk.value for task in tasks.values()]),
            initial_spread=np.array([_spread(task.initial_risk) for task in tasks.values()]),
            initial_samples=np.array([task.initial_risk.num_samples for task in tasks.values()], dtype=float),
            gradient_norm=norm,
            gradient_variance=variance,
            curvature=CURVATURE_UNIT * np.array([_curvature(name, task) for name, task in tasks.items()]),
            gradient_cosine=_cosines(constants),
            num_samples=np.array([constants.num_samples[name] for name in constants.names], dtype=float),
            num_parameters=constants.num_parameters,
        )

    def with_initial(self, merges: Sequence[MergeObservation]) -> TaskScales:
        """The same scales with r_0 from the merges' own evaluations of x_0, where those hold more samples."""
        risk, spread, samples = (
            array.copy() for array in (self.initial_risk, self.initial_spread, self.initial_samples)
        )
        for merge in merges:
            for name, value in merge.initial_risks.items():
                j = self.names.index(name)
                if merge.num_samples > samples[j]:
                    spread[j] *= np.sqrt(max(samples[j], 1.0) / merge.num_samples)
                    risk[j], samples[j] = value, merge.num_samples
        return replace(self, initial_risk=risk, initial_spread=spread, initial_samples=samples)

    def only(self, j: int) -> TaskScales:
        """The scales of task ``j`` alone, under the name ``one``."""
        return TaskScales(
            names=("one",),
            initial_risk=self.initial_risk[j : j + 1],
            initial_spread=self.initial_spread[j : j + 1],
            initial_samples=self.initial_samples[j : j + 1],
            gradient_norm=self.gradient_norm[j : j + 1],
            gradient_variance=self.gradient_variance[j : j + 1],
            curvature=self.curvature[j : j + 1],
            gradient_cosine=np.ones((1, 1)),
            num_samples=self.num_samples[j : j + 1],
            num_parameters=self.num_parameters,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What recipes amount to, arrays [M, N] (module docstring).

    Attributes:
        family: index into ``FAMILIES``.
        coefficients: lambda; 0 for tasks that a plan does not name.
        rate: effective rate e.
        time: T.
        walk: V.
        temperature: E, at the schedule's peak.
        falls: whether the learning rate falls to 0 at the end of the run (warm-up + cosine).
        batch_size: b.
        num_samples: n.
        steps: K.
        momentum: m.
    """

    family: IntArray
    coefficients: FloatArray
    rate: FloatArray
    time: FloatArray
    walk: FloatArray
    temperature: FloatArray
    falls: NDArray[np.bool_]
    batch_size: FloatArray
    num_samples: FloatArray
    steps: FloatArray
    momentum: FloatArray

    @classmethod
    def of(cls, table: PlanTable, scales: TaskScales) -> Exposure:
        """The exposure of plans; tasks that the plans leave out get coefficient 0."""
        table = spread(table, scales)
        adaptive = table.optimizer == OPTIMIZERS.index("adamw")
        b, sigma2 = table.batch_size, scales.gradient_variance
        entry = np.sqrt((sigma2 / b + scales.gradient_norm**2) / scales.num_parameters)
        metric = np.where(adaptive, 1.0 / entry, 1.0)
        rate = table.learning_rate / (1.0 - table.momentum) * metric
        time = table.learning_rate * table.step_mass() * metric
        return cls(
            family=adaptive.astype(np.int64),
            coefficients=table.coefficients,
            rate=rate,
            time=time,
            walk=(table.learning_rate * metric) ** 2 * table.step_energy() * sigma2 / b,
            temperature=rate * sigma2 / b,
            falls=table.schedule == SCHEDULES.index("warmup_cosine"),
            batch_size=b,
            num_samples=table.num_samples,
            steps=table.steps,
            momentum=table.momentum,
        )


def rows(table: PlanTable, part: slice) -> PlanTable:
    """Some plans of a table."""
    columns: dict[str, Any] = {name: getattr(table, name)[part] for name in COLUMNS}
    return PlanTable(names=table.names, method=table.method[part], **columns)


def spread(table: PlanTable, scales: TaskScales) -> PlanTable:
    """The same plans over all tasks of the model; tasks not named get coefficient 0 and the first expert's recipe."""
    if table.names == scales.names:
        return table
    unknown = sorted(set(table.names) - set(scales.names))
    if unknown:
        raise ValueError(f"plans name tasks {unknown} without constants; measure and probe them first")
    index = [table.names.index(name) if name in table.names else -1 for name in scales.names]
    columns = np.maximum(index, 0)
    absent = np.array(index) < 0

    def take(values: NDArray[Any]) -> NDArray[Any]:
        return values[:, columns]

    return PlanTable(
        names=scales.names,
        learning_rate=take(table.learning_rate),
        batch_size=take(table.batch_size),
        steps=take(table.steps),
        optimizer=take(table.optimizer),
        momentum=take(table.momentum),
        schedule=take(table.schedule),
        num_samples=np.where(absent, scales.num_samples, take(table.num_samples)),
        coefficients=np.where(absent, 0.0, take(table.coefficients)),
        method=table.method,
    )


def likely_gradient_norm(measured: Estimate, variance: float, num_samples: int) -> float:
    """G of the population's gradient, from that of the training samples and from what G^2/sigma^2 usually is.

    A gradient over n samples has the squared length G^2 + sigma^2/n, unless the head was fitted on just these samples:
    then it is far shorter and says nothing of G.  So one below twice sigma^2/n leaves the usual share
    G^2 = sigma^2/1250, known within a factor of about 2; else the posterior mean of log G^2 under that log-normal prior
    and a normal error of the measured square.

    >>> sharp = Estimate(value=2.0, low=1.95, high=2.05)
    >>> round(likely_gradient_norm(sharp, 1250.0, 1000), 2)
    1.99
    >>> round(likely_gradient_norm(sharp, 1250.0, 100), 2)
    1.0
    >>> blind = Estimate(value=0.0, low=0.0, high=50.0)
    >>> round(likely_gradient_norm(blind, 1250.0, 1000), 2)
    1.0
    """
    if measured.value**2 < 2 * variance / num_samples:
        return float(np.sqrt(variance * GRADIENT_SHARE))
    usual, square = np.log(variance * GRADIENT_SHARE), measured.value**2
    error = max((measured.high**2 - square) / Z90, 0.05 * square, 1e-300)
    near = np.log(max(square, 1e-300)) if square > error else usual
    reach = 6 * GRADIENT_SHARE_WIDTH
    logs = np.linspace(min(usual, near) - reach, max(usual, near) + reach, 4001)
    weight = -0.5 * ((logs - usual) / GRADIENT_SHARE_WIDTH) ** 2 - 0.5 * ((np.exp(logs) - square) / error) ** 2
    weight = np.exp(weight - weight.max())
    return float(np.exp(0.5 * np.sum(weight * logs) / np.sum(weight)))


def _require(name: str, task: TaskConstants, field: str) -> Estimate:
    estimate: Estimate | None = getattr(task, field)
    if estimate is None:
        raise ValueError(f"{field} of task {name!r} was not measured; the risk model needs it: measure constants first")
    return estimate


def _spread(estimate: Estimate) -> float:
    """Relative standard error of a positive estimate, from its 90 % interval."""
    return (min(estimate.high, 2 * estimate.value) - max(estimate.low, 0.0)) / (2 * Z90 * estimate.value)


def _curvature(name: str, task: TaskConstants) -> float:
    for field in ("top_curvature", "path_curvature", "gauss_newton_curvature", "critical_sharpness"):
        estimate = getattr(task, field)
        if estimate is not None and estimate.value > 0:
            return float(estimate.value)
    raise ValueError(f"no curvature of task {name!r} was measured; measure top_curvature (a short Lanczos run) first")


def _cosines(constants: Constants) -> FloatArray:
    """Cosines of the training gradients; an entry that its sampling noise hides is shrunk towards 0."""
    count = len(constants.names)
    if constants.gradient_gram is None:
        return np.eye(count)
    value = np.array([[cell.value for cell in row] for row in constants.gradient_gram])
    error = np.array([[(cell.high - cell.low) / (2 * Z90) for cell in row] for row in constants.gradient_gram])
    length = np.sqrt(np.maximum(np.diag(value), np.maximum(np.diag(error), 1e-300)))
    cosines, error = value / np.outer(length, length), error / np.outer(length, length)
    cosines = np.clip(cosines, -1.0, 1.0) * COSINE_WIDTH**2 / (COSINE_WIDTH**2 + error**2)
    np.fill_diagonal(cosines, 1.0)
    return nearest_cosines(cosines)


def nearest_cosines(cosines: FloatArray) -> FloatArray:
    """A matrix that vectors can have: symmetric, no negative eigenvalue, ones on the diagonal."""
    values, vectors = np.linalg.eigh((cosines + cosines.T) / 2)
    possible = (vectors * np.maximum(values, 0.0)) @ vectors.T
    scale = np.sqrt(np.maximum(np.diag(possible), 1e-12))
    return np.asarray(possible / np.outer(scale, scale))
