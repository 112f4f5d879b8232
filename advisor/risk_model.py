r"""The risk model: fitted on short probes, it predicts the merged risk of plans that nobody has trained.

    displacement first (``advisor.displacement_law``), then risk (``advisor.risk_form``): regularised least squares in

        (log(risk/initial risk) - log(model/r_0)) / sd,
        sd^2 = noise^2 + base^2 + (slope max(0, log(risk/initial risk)))^2,   times (K_max/K)^1/2

so that merges near and below the initial risk, and the longest checkpoints, count most.  The posterior is the Laplace
approximation around the fit; an interval holds parameter draws from it and the scatter of the form itself, which grows
with the distance beyond the probes in log units.  See ``docs/theory.md`` and ``docs/risk-model-log.md``.

Shapes: M plans, N tasks of the model (those of the constants); units: nats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advisor.displacement_law import DisplacementLaw
from advisor.drift_cosines import drift_cosines
from advisor.elasticities import local_exponents, neighbours
from advisor.exposure import FAMILIES, Exposure, TaskScales, rows
from advisor.jump_hazard import JumpHazard
from advisor.measured_on import MeasuredOn
from advisor.method_shares import fit_methods
from advisor.observations import MergeObservation, ProbeData
from advisor.plan import FloatArray, Plan, PlanTable
from advisor.probe_checks import ContradictoryProbes, ProbesDiverged, TooFewProbes, check_probes
from advisor.residuals import Residuals
from advisor.risk_fit import Fit, fit_families, fit_residuals, over_all
from advisor.risk_form import KINDS, Moves, family_index, task_risk, unpack
from advisor.risk_prediction import CHOSEN_KNOBS, RiskPrediction, distance_beyond, interval, joined, probed_ranges
from estimators.constants import Constants
from estimators.recipe import Optimizer, Recipe

__all__ = ["ContradictoryProbes", "ProbesDiverged", "RiskModel", "RiskPrediction", "TooFewProbes"]

MODEL_VERSION = 5
INITIAL = ("initial_risk", "initial_spread", "initial_samples")
NUM_DRAWS = 32  # posterior draws behind an interval
DRAWN_CELLS = 20_000  # risks evaluated at once when drawing
PIECE = 1_000  # plans evaluated at once


class RiskModel:
    """The effective risk model, scikit-learn style.

    Args:
        task_weights: task -> weight p_i in the goal; default 1/N.  Scaled to sum to one.
        level: nominal coverage of intervals.
        seed: seed of the posterior draws.
        measured_on: the test samples that predictions will be compared with.  Intervals of risks are then those of a
            figure measured there: its sampling error, s/sqrt(m) with s the relative spread of single losses at x_0, is
            added, and tasks that share samples err together.  Default: intervals of the risk itself.
    """

    def __init__(
        self,
        *,
        task_weights: Mapping[str, float] | None = None,
        level: float = 0.90,
        seed: int = 0,
        measured_on: MeasuredOn | None = None,
    ) -> None:
        if not 0 < level < 1:
            raise ValueError(f"level={level} must lie in (0, 1); 0.9 is usual")
        self.task_weights = None if task_weights is None else dict(task_weights)
        self.level = level
        self.seed = seed
        self.measured_on = measured_on

    def fit(self, probes: ProbeData) -> RiskModel:
        """Fit displacement, then risk; returns self.

        Raises:
            TooFewProbes: if the merges cannot determine the model.
            ProbesDiverged: if no merge stayed finite and near the initial risk.
            ContradictoryProbes: if two measurements of one merge disagree.
        """
        check_probes(probes)
        self.constants_: Constants = probes.constants
        self.scales_ = TaskScales.from_constants(probes.constants).with_initial(probes.merges)
        self.weights_ = _weights(self.task_weights, self.scales_.names)
        self.displacement_ = DisplacementLaw.fit(probes, self.scales_)
        self.hazard_ = JumpHazard.fit(probes, self.scales_)
        self.cosines_ = drift_cosines(probes.merges, self.displacement_, self.scales_, probes.constants.num_samples)
        self.fits_: dict[int, Fit] = {}
        linear = [merge for merge in probes.merges if merge.plan.method == "task_arithmetic"]
        self.fits_ = fit_families(linear, self._moves_of, self.scales_, self.cosines_)
        self.method_shares_ = {"task_arithmetic": (1.0, 1.0)}
        others = [merge for merge in probes.merges if merge.plan.method != "task_arithmetic"]
        self.method_shares_ |= fit_methods(others, self.fits_, self._moves_of, self.scales_, self.cosines_)
        self.residuals_ = self._leftover(linear)
        self.reach_ = probed_ranges([self._exposure([merge.plan]) for merge in probes.merges if not merge.diverged])
        return self

    @property
    def initial_risks(self) -> dict[str, float]:
        """Task -> r_0, the level that predictions start from."""
        self._check_fitted()
        return dict(zip(self.scales_.names, self.scales_.initial_risk.tolist(), strict=True))

    def predict(self, plans: PlanTable | Sequence[Plan], *, return_interval: bool = False) -> RiskPrediction:
        """Predicted risk of every task and of the goal.

        Args:
            plans: M plans; tasks that they do not name count as left out (coefficient 0).
            return_interval: whether to spend the ``NUM_DRAWS`` more evaluations that intervals take.
        """
        self._check_fitted()
        table = self._table(plans)
        # Pieces that fit the cache are several times faster than all rows at once.
        pieces = [
            self._predict(rows(table, slice(start, start + PIECE)), return_interval)
            for start in range(0, len(table), PIECE)
        ]
        return joined(pieces)

    def _predict(self, table: PlanTable, return_interval: bool) -> RiskPrediction:
        exposure = Exposure.of(table, self.scales_)
        moves = self._moves(exposure, table.method)
        self._check_families(exposure)
        form, terms = task_risk(self._parameters(), moves, self.scales_, self.cosines_)
        risk = self.residuals_.correct(form, self._floor(), exposure)
        terms["progress"] = terms["progress"] + risk - form
        jump = self.hazard_.mean_at(exposure, self.scales_)
        terms["collapse"] = terms["collapse"] + risk * np.expm1(jump)[:, None]
        risk = risk * np.exp(jump)[:, None]
        extrapolation = distance_beyond(exposure, self.reach_)
        goal = risk @ self.weights_
        low = high = risk
        relative = goal / (self.scales_.initial_risk @ self.weights_)
        goal_low, goal_high, relative_low, relative_high = goal, goal, relative, relative
        if return_interval:
            low, high, goal_low, goal_high, *ends = self._intervals(moves, risk, extrapolation)
            relative_low, relative_high = ends
        return RiskPrediction(
            names=self.scales_.names,
            task_risk=risk,
            task_low=low,
            task_high=high,
            goal=goal,
            goal_low=goal_low,
            goal_high=goal_high,
            relative_low=relative_low,
            relative_high=relative_high,
            terms=terms,
            extrapolation=extrapolation,
            untried=distance_beyond(exposure, self.reach_, CHOSEN_KNOBS),
            initial_risk=self.scales_.initial_risk,
            floor=self._floor(),
            level=self.level,
        )

    def predict_displacement(self, plans: PlanTable | Sequence[Plan]) -> FloatArray:
        """Predicted ||tau_i|| of every expert, [M, N]."""
        self._check_fitted()
        v, u2 = self.displacement_.parts(self._exposure(plans), self.scales_)
        return np.asarray(np.sqrt(v + u2))

    def edge(self, optimizer: Optimizer, batch_size: int) -> tuple[float, float, float]:
        """Learning rate at which the sharpest task meets the stability edge: (value, low, high)."""
        self._check_fitted()
        family = family_index(optimizer)
        if family not in self.fits_:
            raise TooFewProbes(
                f"optimizer={optimizer!r} was not probed; probe one of its family or ask for another optimizer"
            )
        recipe = Recipe(learning_rate=1.0, batch_size=batch_size, steps=1, optimizer=optimizer)
        exposure = self._exposure([Plan.uniform(self.scales_.names, recipe, 1.0)])
        k_edge, k_sample = KINDS.index("edge"), KINDS.index("sample_edge")

        def rate(values: FloatArray) -> float:
            curvature = self.scales_.curvature * (1 + np.exp(values[k_sample]) / batch_size)
            return float(np.min(2.0 / (exposure.rate[0] * curvature * np.exp(values[k_edge]))))

        draws = [rate(unpack(theta, family)) for theta in self._draws()[family]]
        tail = 50 * (1 - self.level)
        value = rate(unpack(self.fits_[family].theta, family))
        low, high = np.percentile(draws, [tail, 100 - tail])
        return value, min(float(low), value), max(float(high), value)

    def elasticities(self, plan: Plan, *, step: float = 0.05) -> dict[str, tuple[float, float, float]]:
        """Local exponents d log goal / d log knob at a plan, (value, low, high): see ``advisor.elasticities``."""
        self._check_fitted()
        table = neighbours(self._table([plan]), step)
        samples, _ = self._sampled(self._moves(Exposure.of(table, self.scales_), table.method))
        centre = self.predict(table).task_risk
        merged = np.flatnonzero(self._exposure([plan]).coefficients[0] > 0)
        return local_exponents(centre, samples, self.weights_, merged, step, self.level)

    def to_json(self) -> dict[str, Any]:
        """Plain values of the fitted model."""
        self._check_fitted()
        return {
            "version": MODEL_VERSION,
            "task_weights": self.task_weights,
            "level": self.level,
            "seed": self.seed,
            "measured_on": None if self.measured_on is None else self.measured_on.to_json(),
            "constants": self.constants_.to_json(),
            "displacement": self.displacement_.to_json(),
            "hazard": self.hazard_.to_json(),
            "cosines": self.cosines_.tolist(),
            "fits": {FAMILIES[family]: fit.to_json() for family, fit in self.fits_.items()},
            "method_shares": {name: list(shares) for name, shares in self.method_shares_.items()},
            "residuals": self.residuals_.to_json(),
            "initial": {name: getattr(self.scales_, name).tolist() for name in INITIAL},
            # null: family not probed
            "reach": [
                [[e if np.isfinite(e) else None for e in ends] for ends in block] for block in self.reach_.tolist()
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RiskModel:
        """The inverse of :meth:`to_json`; another version is refused."""
        if data.get("version") != MODEL_VERSION:
            raise ValueError(f"version={data.get('version')!r} of the risk model is not {MODEL_VERSION}; fit it again")
        figures = data.get("measured_on")  # models of older runs have none
        model = cls(
            task_weights=data["task_weights"],
            level=data["level"],
            seed=data["seed"],
            measured_on=None if figures is None else MeasuredOn.from_json(figures),
        )
        model.constants_ = Constants.from_json(data["constants"])
        model.scales_ = TaskScales.from_constants(model.constants_)
        initial: dict[str, Any] = {name: np.array(values, dtype=float) for name, values in data["initial"].items()}
        model.scales_ = dataclasses.replace(model.scales_, **initial)
        model.residuals_ = Residuals.from_json(data["residuals"])
        model.weights_ = _weights(model.task_weights, model.scales_.names)
        model.displacement_ = DisplacementLaw.from_json(data["displacement"])
        model.hazard_ = JumpHazard.from_json(data["hazard"])
        model.cosines_ = np.array(data["cosines"])
        model.fits_ = {FAMILIES.index(name): Fit.from_json(fit) for name, fit in data["fits"].items()}
        model.method_shares_ = {name: (pair[0], pair[1]) for name, pair in data["method_shares"].items()}
        model.reach_ = np.array(data["reach"], dtype=float)
        return model

    def _check_fitted(self) -> None:
        if not hasattr(self, "fits_"):
            raise ValueError("the risk model is not fitted; call fit(probes) first")

    def _table(self, plans: PlanTable | Sequence[Plan]) -> PlanTable:
        if isinstance(plans, PlanTable):
            return plans
        return PlanTable.from_plans(list(plans), self.constants_.num_samples)

    def _exposure(self, plans: PlanTable | Sequence[Plan]) -> Exposure:
        return Exposure.of(self._table(plans), self.scales_)

    def _moves_of(self, plans: Sequence[Plan], shares: Mapping[str, tuple[float, float]]) -> Moves:
        table = self._table(plans)
        return self._moves(Exposure.of(table, self.scales_), table.method, shares)

    def _moves(
        self, exposure: Exposure, methods: Sequence[str], shares: Mapping[str, tuple[float, float]] | None = None
    ) -> Moves:
        shares = self.method_shares_ if shares is None else shares
        unknown = sorted(set(methods) - set(shares))
        if unknown:
            raise ValueError(f"methods {unknown} were not among the probes' merges; merge the probes with them first")
        v, u2 = self.displacement_.parts(exposure, self.scales_)
        pairs = np.array([shares[name] for name in methods])
        return Moves(
            exposure=exposure,
            linear=exposure.coefficients * pairs[:, :1],
            square=exposure.coefficients * np.sqrt(pairs[:, 1:]),
            drift=np.sqrt(u2),
            walk=v,
            luck=self._luck(exposure)[0],
        )

    def _luck(self, exposure: Exposure) -> tuple[FloatArray, FloatArray]:
        """Mean and spread of the luck of plans [M], from the family of their first merged expert."""
        mean, spread = np.zeros(len(exposure.time)), np.zeros(len(exposure.time))
        leader = np.argmax(exposure.coefficients > 0, axis=1)
        family = np.take_along_axis(exposure.family, leader[:, None], axis=1)[:, 0]
        for index, fit in self.fits_.items():
            chosen = fit.luck.at(exposure)
            mean, spread = (
                np.where(family == index, new, old) for new, old in zip(chosen, (mean, spread), strict=True)
            )
        return mean, spread

    def _leftover(self, merges: Sequence[MergeObservation]) -> Residuals:
        table = PlanTable.from_plans(
            [over_all(merge.plan, self.scales_.names) for merge in merges], self.constants_.num_samples
        )
        exposure = Exposure.of(table, self.scales_)
        form, _ = task_risk(self._parameters(), self._moves(exposure, table.method), self.scales_, self.cosines_)
        return fit_residuals(merges, form, exposure, self.scales_)

    def _check_families(self, exposure: Exposure) -> None:
        used = set(np.unique(exposure.family[exposure.coefficients > 0]).tolist())
        missing = sorted(FAMILIES[family] for family in used - set(self.fits_))
        if missing:
            raise TooFewProbes(
                f"plans use optimizers of the {missing} family, which no probe used; probe that optimizer first"
            )

    def _parameters(self) -> dict[int, FloatArray]:
        return {family: unpack(fit.theta, family) for family, fit in self.fits_.items()}

    def _floor(self) -> FloatArray:
        gains = [1 / (1 + np.exp(-values[KINDS.index("gain")])) for values in self._parameters().values()]
        return np.asarray(self.scales_.initial_risk * (1 - np.max(gains, axis=0)))

    def _draws(self) -> dict[int, FloatArray]:
        generator = np.random.default_rng(self.seed)
        return {family: fit.draws(NUM_DRAWS, generator) for family, fit in self.fits_.items()}

    def _sampled(self, moves: Moves) -> tuple[FloatArray, FloatArray]:
        """Risks [S, M, N] and goals [S, M] under posterior draws, a few draws at a time."""
        draws = self._draws()
        chunk = max(1, DRAWN_CELLS // moves.drift.size)
        parts = [
            task_risk(
                {family: unpack(theta[start : start + chunk], family) for family, theta in draws.items()},
                moves,
                self.scales_,
                self.cosines_,
            )[0]
            for start in range(0, NUM_DRAWS, chunk)
        ]
        samples = self.residuals_.correct(np.concatenate(parts), self._floor(), moves.exposure)
        samples = samples * np.exp(self.hazard_.mean_at(moves.exposure, self.scales_))[:, None]
        return samples, samples @ self.weights_

    def _intervals(self, moves: Moves, risk: FloatArray, extrapolation: FloatArray) -> tuple[FloatArray, ...]:
        """Ends [M, N] for tasks, [M] for goal and goal/x_0's: parameter draws and the form's scatter, in log risk."""
        samples, goals = self._sampled(moves)
        scales, level = self.scales_, self.level
        unlucky = dataclasses.replace(moves, luck=moves.luck + self._luck(moves.exposure)[1])
        worse, _ = task_risk(self._parameters(), unlucky, scales, self.cosines_)
        worse = self.residuals_.correct(worse, self._floor(), moves.exposure)
        worse = worse * np.exp(self.hazard_.mean_at(moves.exposure, scales))[:, None]
        mean, start = risk @ self.weights_, scales.initial_risk @ self.weights_
        level_spread, overlap = self._level_spread()
        errors = risk * level_spread * self.weights_
        shared = np.sqrt(np.einsum("mi,ij,mj->m", errors, overlap, errors)) / mean
        chance, cost = self.hazard_.at(moves.exposure, scales)
        extra = np.hypot(np.log(worse / risk), level_spread)
        each = (chance[:, None], cost[:, None])
        tasks = interval(samples, risk, scales.initial_risk, extrapolation[:, None], level, extra, jump=each)
        own = np.log(worse @ self.weights_ / mean)
        goal = interval(goals, mean, start, extrapolation, level, np.hypot(own, shared), jump=(chance, cost))
        low, high = interval(goals, mean, start, extrapolation, level, own, jump=(chance, cost))
        return *tasks, *goal, low / start, high / start

    def _level_spread(self) -> tuple[FloatArray, FloatArray]:
        """Relative standard error [N] of r_0 and of the test figure, if its size is known, and its correlations [N, N].

        Splits put an image on the same side for every task, so tasks that share test samples share those of r_0 too.
        """
        scales, figures = self.scales_, self.measured_on
        if figures is None:
            return scales.initial_spread, np.eye(len(scales.names))
        growth = np.sqrt(1 + scales.initial_samples / figures.size_array(scales.names))
        return np.asarray(scales.initial_spread * growth), figures.overlap(scales.names)


def _weights(weights: Mapping[str, float] | None, names: Sequence[str]) -> FloatArray:
    if weights is None:
        return np.full(len(names), 1 / len(names))
    if set(weights) != set(names):
        raise ValueError(f"task_weights name {sorted(weights)}, the tasks are {sorted(names)}; give each one a weight")
    values = np.array([weights[name] for name in names], dtype=float)
    if not (np.all(values >= 0) and np.isfinite(values).all() and values.sum() > 0):
        raise ValueError(f"task_weights={dict(weights)} must be at least 0, finite and not all 0; change them")
    return np.asarray(values / values.sum())
