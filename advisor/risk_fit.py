r"""Fitting the effective form: maximum a posteriori with a Laplace approximation around it.

    minimise  sum_o w_o^2 r_o^2 + ||theta||^2,    r_o = log(risk/initial risk) - log(model/r_0)
    1/w_o^2 = (noise^2 + base^2 + (slope max(0, log(risk/initial risk)))^2) (K_max/K)^(2 gamma) m

theta [kinds, 1 + N] is standard normal a priori (``advisor.risk_form``); ``m`` is the number of merges of one
run over ``RUN_WORTH``: its merges at several coefficients and checkpoints share its luck, so together they count as
about that many independent ones.  Task j's risk depends on the shared and on its own column alone, so the Jacobian
takes one evaluation a kind, whatever N.  Posterior covariance: (J'J)^-1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from advisor.displacement_law import tempered
from advisor.exposure import TaskScales
from advisor.observations import MergeObservation
from advisor.plan import FloatArray, Plan
from advisor.risk_form import KINDS, PRIORS, Moves, family_index, task_risk, unpack

BASE_SCATTER = 0.082
EXCESS_SLOPE = 0.245
EARLY_WEIGHT = 0.429  # gamma: earlier checkpoints say less about long runs
RUN_WORTH = 3.0
OUTLIER = 3.0  # residuals of more standard deviations than this hardly count
WORST_LOG_RISK = 3.0  # a merge thrown further than this above x_0 says no more than that it was thrown
LUCK = 2.0  # a measured displacement counts up to this factor from the law; beyond it lies the stability edge
METHOD_WIDTH = 0.4  # prior width of a method's log shares of progress and interference

MovesOf = Callable[[Sequence[Plan], Mapping[str, tuple[float, float]]], Moves]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Posterior of one family.

    Attributes:
        theta: [kinds, 1 + N] standardised parameters at the maximum.
        covariance: of theta flattened, [kinds (1 + N)] squared.
        cost: half the sum of squares at the maximum.
        num_values: measured risks it rests on.
    """

    theta: FloatArray
    covariance: FloatArray
    cost: float
    num_values: int

    def draws(self, count: int, generator: np.random.Generator) -> FloatArray:
        """Posterior draws [count, kinds, 1 + N], in pairs mirrored at the maximum."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        half = generator.standard_normal((-(-count // 2), self.theta.size))
        normal = np.concatenate([half, -half])[:count]
        return np.asarray((self.theta.ravel() + normal @ root.T).reshape(count, *self.theta.shape))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "theta": self.theta.tolist(),
            "covariance": self.covariance.tolist(),
            "cost": self.cost,
            "num_values": self.num_values,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fit:
        """The inverse of :meth:`to_json`."""
        return cls(
            theta=np.array(data["theta"]),
            covariance=np.array(data["covariance"]),
            cost=float(data["cost"]),
            num_values=int(data["num_values"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """Measured log risk ratios of some merges.

    Attributes:
        values: [M, N] log(risk/initial risk); 0 where not measured.
        weight: [M, N] 1/standard deviation; 0 where not measured.
    """

    values: FloatArray
    weight: FloatArray


def fit_families(
    merges: Sequence[MergeObservation], moves_of: MovesOf, scales: TaskScales, cosines: FloatArray
) -> dict[int, Fit]:
    """One fit for each family of optimizers among the merges (mixed merges belong to no family)."""
    groups: dict[int, list[MergeObservation]] = {}
    for merge in merges:
        families = {family_index(recipe.optimizer) for recipe in merge.plan.recipes.values()}
        if len(families) == 1:
            groups.setdefault(families.pop(), []).append(merge)
    return {family: _fit(group, family, moves_of, scales, cosines) for family, group in sorted(groups.items())}


def targets(merges: Sequence[MergeObservation], names: Sequence[str]) -> Targets:
    """Log risk ratios of merges and their weights (module docstring)."""
    shape = (len(merges), len(names))
    values, weight = np.zeros(shape), np.zeros(shape)
    steps = np.array([max(recipe.steps for recipe in merge.plan.recipes.values()) for merge in merges], dtype=float)
    early = (steps.max() / steps) ** EARLY_WEIGHT
    runs: dict[Any, int] = {}
    keys = [_run(merge) for merge in merges]
    for key in keys:
        runs[key] = runs.get(key, 0) + 1
    for row, merge in enumerate(merges):
        crowd = np.sqrt(max(1.0, runs[keys[row]] / RUN_WORTH))
        for name, risk in merge.risks.items():
            initial = merge.initial_risks[name]
            if np.isfinite(risk):
                change = min(np.log(max(risk, 1e-6) / initial), WORST_LOG_RISK)
                noise = merge.noise[name] / max(risk, 1e-6) if np.isfinite(merge.noise[name]) else 0.0
            else:
                change, noise = WORST_LOG_RISK, 0.0
            deviation = np.sqrt(noise**2 + BASE_SCATTER**2 + (EXCESS_SLOPE * max(0.0, change)) ** 2)
            column = list(names).index(name)
            values[row, column] = change
            weight[row, column] = 1.0 / (deviation * early[row] * crowd)
    return Targets(values=values, weight=weight)


def _run(merge: MergeObservation) -> tuple[Any, ...]:
    """What merges of the same runs share: recipes but for the checkpoint, and the seed."""
    recipes = merge.plan.recipes.items()
    return (*((name, recipe.replace(steps=1)) for name, recipe in recipes), merge.seed)


def _fit(
    merges: Sequence[MergeObservation], family: int, moves_of: MovesOf, scales: TaskScales, cosines: FloatArray
) -> Fit:
    names = scales.names
    moves = _moves_of_all(merges, names, moves_of, None)
    target = targets(merges, names)
    shape = (len(KINDS), 1 + len(names))
    ratio = np.array([PRIORS[kind].task_width / PRIORS[kind].width for kind in KINDS])

    count = target.values.size
    bumps = np.zeros((shape[0], *shape))
    bumps[np.arange(shape[0]), np.arange(shape[0]), 0] = 1e-4

    def misfit(theta: FloatArray) -> FloatArray:
        """[M, N], or [S, M, N] for S parameter sets."""
        risk, _ = task_risk({family: unpack(theta, family)}, moves, scales, cosines)
        return tempered((np.log(risk / scales.initial_risk) - target.values) * target.weight, OUTLIER)

    def residuals(theta: FloatArray) -> FloatArray:
        return np.concatenate([misfit(theta.reshape(shape)).ravel(), theta])

    def jacobian(theta: FloatArray) -> FloatArray:
        here = theta.reshape(shape)
        slopes = (misfit(here + bumps) - misfit(here)) / 1e-4
        out = np.zeros((count + theta.size, theta.size))
        for k in range(shape[0]):
            out[:count, k * shape[1]] = slopes[k].ravel()
            for j in range(len(names)):
                out[j : count : len(names), k * shape[1] + 1 + j] = slopes[k][:, j] * ratio[k]
        out[count:] = np.eye(theta.size)
        return out

    solution = least_squares(residuals, np.zeros(shape[0] * shape[1]), jac=jacobian, max_nfev=60, ftol=1e-5, xtol=1e-5)
    slopes = np.asarray(solution.jac)
    return Fit(
        theta=solution.x.reshape(shape),
        covariance=np.asarray(np.linalg.inv(slopes.T @ slopes)),
        cost=float(solution.cost),
        num_values=int((target.weight > 0).sum()),
    )


def fit_methods(
    merges: Sequence[MergeObservation],
    fits: Mapping[int, Fit],
    moves_of: MovesOf,
    scales: TaskScales,
    cosines: FloatArray,
) -> dict[str, tuple[float, float]]:
    """Shares (progress pi, interference kappa) of every other merge method, given the fit of the linear merge.

    A method's merge at lambda acts like the linear merge with lambda pi in progress and lambda sqrt(kappa) in
    interference; both shares are fitted in logarithms around the linear merge's (1, 1).
    """
    shares = {}
    parameters = {family: unpack(fit.theta, family) for family, fit in fits.items()}
    for method in sorted({merge.plan.method for merge in merges}):
        group = [merge for merge in merges if merge.plan.method == method]
        target = targets(group, scales.names)

        def residuals(
            logs: NDArray[np.float64],
            method: str = method,
            group: list[MergeObservation] = group,
            target: Targets = target,
        ) -> FloatArray:
            pair = (float(np.exp(logs[0])), float(np.exp(logs[1])))
            moves = _moves_of_all(group, scales.names, moves_of, {method: pair})
            risk, _ = task_risk(parameters, moves, scales, cosines)
            misfit = (np.log(risk / scales.initial_risk) - target.values) * target.weight
            return np.concatenate([misfit.ravel(), logs / METHOD_WIDTH])

        logs = least_squares(residuals, np.zeros(2), max_nfev=40).x
        shares[method] = (float(np.exp(logs[0])), float(np.exp(logs[1])))
    return shares


def _moves_of_all(
    merges: Sequence[MergeObservation],
    names: Sequence[str],
    moves_of: MovesOf,
    shares: Mapping[str, tuple[float, float]] | None,
) -> Moves:
    plans = [_over_all(merge.plan, names) for merge in merges]
    moves = moves_of(plans, {"task_arithmetic": (1.0, 1.0)} if shares is None else shares)
    return with_measured_displacement(moves, merges, names)


def with_measured_displacement(moves: Moves, merges: Sequence[MergeObservation], names: Sequence[str]) -> Moves:
    """Moves whose drift and walk are scaled to the measured ||tau||, where it was kept, by at most ``LUCK`` either way.

    A run that moved further than the law says also helped and hurt more; that is its luck, not a parameter.
    """
    measured = np.array([[merge.squared_displacements.get(name, np.nan) for name in names] for merge in merges])
    ratio = np.sqrt(measured / np.maximum(moves.drift**2 + moves.walk, 1e-300))
    ratio = np.where(np.isfinite(ratio), np.clip(ratio, 1 / LUCK, LUCK), 1.0)
    return dataclasses.replace(moves, drift=moves.drift * ratio, walk=moves.walk * ratio**2)


def _over_all(plan: Plan, names: Sequence[str]) -> Plan:
    if plan.names == tuple(names):
        return plan
    spare = next(iter(plan.recipes.values()))
    return Plan(
        recipes={name: plan.recipes.get(name, spare) for name in names},
        coefficients={name: plan.coefficients.get(name, 0.0) for name in names},
        method=plan.method,
    )
