r"""How far an expert moves, as a law of its recipe: diffusion plus drift (``docs/theory.md``, the effective form).

With T, V of ``advisor.exposure``, G = ||grad F_i(x_0)|| and nu = nu_0 G^2 / r_0,

    d^2 = v + u^2
    v = a1 V / (1 + omega T)^gamma                  diffusion, slower once sharp directions are full; in units of L/100
    u = a2 G ((1 + nu T)^beta - 1) / (beta nu)      drift; beta -> 0 is a logarithm

a1, a2, nu_0, beta, omega, gamma are shared by tasks and fitted for each family of optimizers (SGD with momentum, and
AdamW) on the log of measured ||tau||^2, with priors found on the development suites; each task has one factor for u and
one for v around 1.  On the exploration tables the law fitted on at most 40 steps misses ||tau|| after 160-320 AdamW
steps by 8 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from advisor.exposure import FAMILIES, Exposure, TaskScales
from advisor.exposure import rows as rows_of
from advisor.observations import ProbeData
from advisor.plan import FloatArray, Plan, PlanTable

SHARED = ("a1", "a2", "nu", "beta", "omega", "gamma")
# Prior means and widths of the shared parameters (log a1, log a2, log nu_0, logit beta, log omega, logit gamma) and the
# widths of the tasks' own factors, from fits to the exploration tables and the development suites.
PRIOR_MEAN = {
    "gradient": np.array([0.0, -0.7, -0.6, -2.0, 0.7, 0.0]),
    "adaptive": np.array([0.0, -0.5, -0.95, -0.35, 0.6, -0.15]),
}
PRIOR_WIDTH = np.array([0.3, 0.3, 0.6, 0.7, 0.5, 0.4])
TASK_WIDTH = 0.2
JUMP = 1.2  # log factor from the law's prior beyond which a run has jumped over the stability edge: left aside
OUTLIER = 2.0  # residuals of more standard deviations than this hardly count
SCATTER = 0.15  # relative scatter of ||tau|| around the law, one seed to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplacementLaw:
    """The fitted law.

    Attributes:
        shared: family -> the six shared parameters, transformed as in ``PRIOR_MEAN``.
        drift_factor: family -> log factor of u for each task, [N].
        diffusion_factor: family -> log factor of v for each task, [N].
    """

    shared: dict[str, FloatArray]
    drift_factor: dict[str, FloatArray]
    diffusion_factor: dict[str, FloatArray]

    @classmethod
    def prior(cls, num_tasks: int) -> DisplacementLaw:
        """The law before any probe."""
        zeros = {family: np.zeros(num_tasks) for family in FAMILIES}
        return cls(
            shared={family: PRIOR_MEAN[family].copy() for family in FAMILIES},
            drift_factor=zeros,
            diffusion_factor={family: np.zeros(num_tasks) for family in FAMILIES},
        )

    @classmethod
    def fit(cls, probes: ProbeData, scales: TaskScales) -> DisplacementLaw:
        """Least squares in log ||tau||^2 over traces and merged experts, one fit for each family."""
        law = cls.prior(len(scales.names))
        measured = _measured(probes, scales)
        for family in FAMILIES:
            rows = [row for row in measured if row[0] == family]
            if rows:
                theta = _fit_family(rows, PRIOR_MEAN[family], scales)
                count = len(scales.names)
                law.shared[family] = theta[:6]
                law.drift_factor[family] = theta[6 : 6 + count]
                law.diffusion_factor[family] = theta[6 + count :]
        return law

    def parts(self, exposure: Exposure, scales: TaskScales) -> tuple[FloatArray, FloatArray]:
        """Diffusion v and squared drift u^2 of every expert, [M, N]."""
        out_v, out_u = np.zeros_like(exposure.time), np.zeros_like(exposure.time)
        for index, family in enumerate(FAMILIES):
            mask = exposure.family == index
            if not mask.any():
                continue
            theta = np.concatenate([self.shared[family], self.drift_factor[family], self.diffusion_factor[family]])
            v, u = _law(theta, exposure.time, exposure.walk, scales)
            out_v, out_u = np.where(mask, v, out_v), np.where(mask, u * u, out_u)
        return out_v, out_u

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            name: {family: values.tolist() for family, values in getattr(self, name).items()}
            for name in ("shared", "drift_factor", "diffusion_factor")
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DisplacementLaw:
        """The inverse of :meth:`to_json`."""
        return cls(
            **{
                name: {family: np.array(values, dtype=float) for family, values in data[name].items()}
                for name in ("shared", "drift_factor", "diffusion_factor")
            }
        )


def _law(theta: FloatArray, time: FloatArray, walk: FloatArray, scales: TaskScales) -> tuple[FloatArray, FloatArray]:
    """Diffusion v and drift u of arrays [..., N]."""
    count = len(scales.names)
    a1, a2, nu, beta, omega, gamma = theta[:6]
    beta, gamma = 1 / (1 + np.exp(-beta)), 1 / (1 + np.exp(-gamma))
    nu = np.exp(nu) * scales.gradient_norm**2 / scales.initial_risk
    growth = np.expm1(beta * np.log1p(nu * time)) / (beta * nu)
    drift = np.exp(a2 + theta[6 : 6 + count]) * scales.gradient_norm * growth
    diffusion = np.exp(a1 + theta[6 + count :]) * walk / (1 + np.exp(omega) * scales.sharpness / 100 * time) ** gamma
    return diffusion, drift


def _measured(probes: ProbeData, scales: TaskScales) -> list[tuple[str, int, float, float, float]]:
    """(family, task, T, V, ||tau||^2) of every finite measurement, one for each expert and checkpoint."""
    seen: dict[tuple[Any, ...], float] = {}
    for merge in probes.merges:
        for task, value in merge.squared_displacements.items():
            seen[(task, merge.plan.recipes[task], merge.seed)] = value
    for trace in probes.traces:
        # A few looks at each trace, evenly in log k: neighbouring steps carry the same information.
        for k in np.unique(np.geomspace(1, len(trace.steps), num=min(8, len(trace.steps))).astype(int) - 1):
            recipe = trace.recipe
            if recipe.schedule == "constant":
                recipe = recipe.replace(steps=int(trace.steps[k]))
            elif k != len(trace.steps) - 1:
                continue
            seen[(trace.task, recipe, trace.seed)] = float(trace.squared_displacements[k])
    keys = [key for key, value in seen.items() if 0 < value < np.inf]
    if not keys:
        return []
    plans = [Plan(recipes={"one": recipe}, coefficients={"one": 1.0}) for _, recipe, _ in keys]
    table = PlanTable.from_plans(plans, {"one": 10**12})
    rows = []
    for row, (task, recipe, seed) in enumerate(keys):
        j = scales.names.index(task)
        exposure = Exposure.of(rows_of(table, slice(row, row + 1)), scales.only(j))
        family = FAMILIES[int(exposure.family[0, 0])]
        rows.append((family, j, float(exposure.time[0, 0]), float(exposure.walk[0, 0]), seen[(task, recipe, seed)]))
    return rows


def _fit_family(
    rows: Sequence[tuple[str, int, float, float, float]], prior_mean: FloatArray, scales: TaskScales
) -> FloatArray:
    count = len(scales.names)
    task = np.array([row[1] for row in rows])
    time, walk, squared = (np.array([row[k] for row in rows], dtype=float) for k in (2, 3, 4))
    mean = np.concatenate([prior_mean, np.zeros(2 * count)])
    width = np.concatenate([PRIOR_WIDTH, np.full(2 * count, TASK_WIDTH)])
    pick = (np.arange(len(rows)), task)
    shape = (len(rows), count)
    v, u = _law(mean, np.broadcast_to(time[:, None], shape), np.broadcast_to(walk[:, None], shape), scales)
    smooth = np.abs(0.5 * np.log((v + u * u)[pick] / squared)) < JUMP

    def residuals(theta: FloatArray) -> FloatArray:
        v, u = _law(theta, np.broadcast_to(time[:, None], shape), np.broadcast_to(walk[:, None], shape), scales)
        misfit = 0.5 * np.log((v + u * u)[pick] / squared)
        return np.concatenate([tempered(misfit / SCATTER, OUTLIER) * smooth, (theta - mean) / width])

    return np.asarray(least_squares(residuals, mean, max_nfev=60).x)


def tempered(residuals: FloatArray, scale: float) -> FloatArray:
    """Residuals whose squares grow like a Cauchy log-likelihood: sign(r) c sqrt(log(1 + (r/c)^2)).

    Runs beyond the stability edge jump by factors that no smooth law has; they must not bend it.

    >>> tempered(np.array([0.1, -1000.0]), 2.0).round(2).tolist()
    [0.1, -7.05]
    """
    return np.asarray(np.sign(residuals) * scale * np.sqrt(np.log1p((residuals / scale) ** 2)))
