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
from advisor.exposure import Exposure, TaskScales
from advisor.observations import MergeObservation
from advisor.plan import FloatArray, Plan
from advisor.residuals import Residuals
from advisor.risk_form import KINDS, PRIORS, Moves, family_index, task_risk, unpack
from advisor.run_luck import OWN, TAIL, RunLuck, places_of, smooth_root

BASE_SCATTER = 0.122
EXCESS_SLOPE = 0.245
EARLY_WEIGHT = 0.429  # gamma: earlier checkpoints say less about long runs
RUN_WORTH = 1.348
STEP = 1e-4  # of finite differences in standardised parameters
WORST_LOG_RISK = 3.0  # a merge thrown further than this above x_0 says no more than that it was thrown
STRAY = 2.0  # a measured displacement counts up to this factor from the law; beyond it lies the stability edge

MovesOf = Callable[[Sequence[Plan], Mapping[str, tuple[float, float]]], Moves]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Posterior of one family.

    Attributes:
        theta: [kinds, 1 + N] standardised parameters at the maximum.
        covariance: of theta flattened, [kinds (1 + N)] squared.
        cost: half the sum of squares at the maximum.
        num_values: measured risks it rests on.
        luck: of the probe runs.
    """

    theta: FloatArray
    covariance: FloatArray
    cost: float
    num_values: int
    luck: RunLuck

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
            "luck": self.luck.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fit:
        """The inverse of :meth:`to_json`."""
        return cls(
            theta=np.array(data["theta"]),
            covariance=np.array(data["covariance"]),
            cost=float(data["cost"]),
            num_values=int(data["num_values"]),
            luck=RunLuck.from_json(data["luck"]),
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


def targets(
    merges: Sequence[MergeObservation], names: Sequence[str], *, scatter: float | None = None, paired: bool = False
) -> Targets:
    """Log risk ratios of merges and their weights (module docstring).

    Args:
        merges: M measured merges.
        names: the model's tasks.
        scatter: base scatter in log risk; default ``BASE_SCATTER``.
        paired: whether luck and error of the form cancel, as between methods on the same experts: all merges count.
    """
    base = BASE_SCATTER if scatter is None else scatter
    shape = (len(merges), len(names))
    values, weight = np.zeros(shape), np.zeros(shape)
    steps = np.array([max(recipe.steps for recipe in merge.plan.recipes.values()) for merge in merges], dtype=float)
    early = (steps.max() / steps) ** EARLY_WEIGHT
    runs: dict[Any, int] = {}
    keys = [_run(merge) for merge in merges]
    for key in keys:
        runs[key] = runs.get(key, 0) + 1
    for row, merge in enumerate(merges):
        crowd = 1.0 if paired else np.sqrt(max(1.0, runs[keys[row]] / RUN_WORTH))
        for name, risk in merge.risks.items():
            initial = merge.initial_risks[name]
            if np.isfinite(risk):
                change = min(np.log(max(risk, 1e-6) / initial), WORST_LOG_RISK)
                noise = merge.noise[name] / max(risk, 1e-6) if np.isfinite(merge.noise[name]) else 0.0
            else:
                change, noise = WORST_LOG_RISK, 0.0
            deviation = np.sqrt(noise**2 + base**2 + (EXCESS_SLOPE * max(0.0, change)) ** 2)
            column = list(names).index(name)
            values[row, column] = change
            weight[row, column] = 1.0 / (deviation * early[row] * crowd)
    return Targets(values=values, weight=weight)


def _run(merge: MergeObservation) -> tuple[Any, ...]:
    """What merges of the same runs share: recipes but for the checkpoint, and the seed."""
    recipes = merge.plan.recipes.items()
    return (*((name, recipe.replace(steps=1)) for name, recipe in recipes), merge.seed)


def _runs(merges: Sequence[MergeObservation]) -> NDArray[np.int64]:
    """Number of each merge's run, [M]."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(_run(merge), len(numbers)) for merge in merges], dtype=np.int64)


def _fit(
    merges: Sequence[MergeObservation], family: int, moves_of: MovesOf, scales: TaskScales, cosines: FloatArray
) -> Fit:
    names = scales.names
    moves = moves_of_all(merges, names, moves_of, None)
    problem = _Problem(
        family=family,
        moves=moves,
        target=targets(merges, names),
        scales=scales,
        cosines=cosines,
        run=_runs(merges),
    )
    start = np.zeros(problem.size)
    solution = least_squares(
        problem.residuals,
        start,
        jac=problem.jacobian,
        max_nfev=60,
        ftol=1e-5,
        xtol=1e-5,  # type: ignore[arg-type]
    )
    slopes = np.asarray(solution.jac)
    theta, smooth, own = problem.split(solution.x)
    block = slice(0, theta.size)
    return Fit(
        theta=theta,
        covariance=np.asarray(np.linalg.inv(slopes.T @ slopes)[block, block]),
        cost=float(solution.cost),
        num_values=int((problem.target.weight > 0).sum()),
        luck=RunLuck(places=problem.places, smooth=problem.root @ smooth, own=OWN * own),
    )


class _Problem:
    """The least-squares problem of one family: unknowns theta, then smooth and own luck of R runs, all standardised."""

    def __init__(
        self,
        *,
        family: int,
        moves: Moves,
        target: Targets,
        scales: TaskScales,
        cosines: FloatArray,
        run: NDArray[np.int64],
    ) -> None:
        self.family, self.moves, self.target, self.scales, self.cosines = family, moves, target, scales, cosines
        self.run = run
        self.shape = (len(KINDS), 1 + len(scales.names))
        self.count = int(run.max()) + 1
        steps = moves.exposure.steps.max(axis=1)
        last = [max(np.flatnonzero(run == r), key=lambda row: steps[row]) for r in range(self.count)]
        self.places = places_of(moves.exposure)[last]
        self.root = smooth_root(self.places)
        self.size = self.shape[0] * self.shape[1] + 2 * self.count
        self.bumps = np.zeros((self.shape[0], *self.shape))
        self.bumps[np.arange(self.shape[0]), np.arange(self.shape[0]), 0] = STEP
        self.ratio = np.array([PRIORS[kind].task_width / PRIORS[kind].width for kind in KINDS])

    def split(self, unknowns: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Theta [kinds, 1 + N], smooth luck [R], own luck [R]."""
        edge = self.shape[0] * self.shape[1]
        return unknowns[:edge].reshape(self.shape), unknowns[edge : edge + self.count], unknowns[edge + self.count :]

    def misfit(self, theta: FloatArray, luck: FloatArray) -> FloatArray:
        """[M, N], or [S, M, N] for S parameter sets."""
        moves = dataclasses.replace(self.moves, luck=luck[self.run])
        risk, _ = task_risk({self.family: unpack(theta, self.family)}, moves, self.scales, self.cosines)
        return np.asarray((np.log(risk / self.scales.initial_risk) - self.target.values) * self.target.weight)

    def residuals(self, unknowns: FloatArray) -> FloatArray:
        """Misfits, then the priors of all unknowns."""
        theta, smooth, own = self.split(unknowns)
        misfit = self.misfit(theta, self.root @ smooth + OWN * own)
        return np.concatenate([misfit.ravel(), theta.ravel(), smooth, tempered(own, TAIL)])

    def jacobian(self, unknowns: FloatArray) -> FloatArray:
        """Slopes of the residuals; a kind's own parameters move their task's column as the shared one does."""
        theta, smooth, own = self.split(unknowns)
        luck = self.root @ smooth + OWN * own
        here = self.misfit(theta, luck)
        slopes = (self.misfit(theta + self.bumps, luck) - here) / STEP
        tasks, count = here.shape[1], here.size
        out = np.zeros((count + self.size, self.size))
        for k in range(self.shape[0]):
            out[:count, k * self.shape[1]] = slopes[k].ravel()
            for j in range(tasks):
                out[j:count:tasks, k * self.shape[1] + 1 + j] = slopes[k][:, j] * self.ratio[k]
        by_luck = (self.misfit(theta, luck + STEP) - here) / STEP
        edge, run = theta.size, np.repeat(self.run, tasks)
        out[:count, edge : edge + self.count] = by_luck.ravel()[:, None] * self.root[run]
        out[np.arange(count), edge + self.count + run] = OWN * by_luck.ravel()
        out[count:] = np.eye(self.size)
        square = (own / TAIL) ** 2
        bend = np.sqrt(np.where(square > 1e-12, square / np.log1p(np.maximum(square, 1e-12)), 1.0)) / (1 + square)
        rows = count + edge + self.count + np.arange(self.count)
        out[rows, edge + self.count + np.arange(self.count)] = bend
        return out


def fit_residuals(
    merges: Sequence[MergeObservation], risk: FloatArray, exposure: Exposure, scales: TaskScales
) -> Residuals:
    """What the fitted form leaves over at the measured merges.

    Args:
        merges: R measured merges.
        risk: [R, N] the form's risks there.
        exposure: of the merges' plans.
        scales: constants of the tasks.
    """
    target = targets(merges, scales.names)
    leftover = np.where(target.weight > 0, target.values - np.log(risk / scales.initial_risk), np.nan)
    noise = np.zeros_like(leftover)
    for row, merge in enumerate(merges):
        for name, error in merge.noise.items():
            relative = error / max(merge.risks[name], 1e-6)
            noise[row, scales.names.index(name)] = relative if np.isfinite(relative) else 0.0
    return Residuals.fit(exposure, leftover, target.values, noise)


def moves_of_all(
    merges: Sequence[MergeObservation],
    names: Sequence[str],
    moves_of: MovesOf,
    shares: Mapping[str, tuple[float, float]] | None,
) -> Moves:
    """What the form sees of measured merges, displacement as measured."""
    plans = [over_all(merge.plan, names) for merge in merges]
    moves = moves_of(plans, {"task_arithmetic": (1.0, 1.0)} if shares is None else shares)
    return with_measured_displacement(moves, merges, names)


def with_measured_displacement(moves: Moves, merges: Sequence[MergeObservation], names: Sequence[str]) -> Moves:
    """Moves whose drift and walk are scaled to the measured ||tau|| where it was kept, by at most ``STRAY``.

    A run that moved further than the law says also helped and hurt more; that is its luck, not a parameter.
    """
    measured = np.array([[merge.squared_displacements.get(name, np.nan) for name in names] for merge in merges])
    ratio = np.sqrt(measured / np.maximum(moves.drift**2 + moves.walk, 1e-300))
    ratio = np.where(np.isfinite(ratio), np.clip(ratio, 1 / STRAY, STRAY), 1.0)
    return dataclasses.replace(moves, drift=moves.drift * ratio, walk=moves.walk * ratio**2)


def over_all(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan over all tasks; those it does not name get coefficient 0."""
    if plan.names == tuple(names):
        return plan
    spare = next(iter(plan.recipes.values()))
    return Plan(
        recipes={name: plan.recipes.get(name, spare) for name in names},
        coefficients={name: plan.coefficients.get(name, 0.0) for name in names},
        method=plan.method,
    )
