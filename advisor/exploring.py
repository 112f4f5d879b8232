r"""What if: one setting of a few knobs, answered at once by the stored risk model, which nothing is trained for.

All answers come from vectorised evaluations of ``advisor.risk_model`` (``docs/theory.md`` section 3), never from a
study: goal = sum_i p_i r_i in nats, with the 90 % predictive interval; the terms of the goal are the tasks' terms
weighted alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from advisor.advice import Alternative, Predicted
from advisor.curves import Knob, Surface, value_of
from advisor.goal import Goal, interval
from advisor.larger_rate import Larger, say_why_not
from advisor.observations import MergeObservation
from advisor.plan import OPTIMIZERS, SCHEDULES, FloatArray, Plan, PlanTable
from advisor.risk_form import family_index
from advisor.risk_model import RiskModel, RiskPrediction
from advisor.setting import Setting, axis_values, knob_value, with_knobs
from advisor.what_if import WhatIf
from estimators.recipe import DEFAULT_MOMENTUM, Optimizer
from studies.tradeoffs import pareto_front

START = "pretrained"  # the first part of every sum of terms: the risk of x_0
KEPT_WEIGHTS = 32  # models under other weights that are kept
LARGER = 2.0  # factor by which "why not a larger learning rate?" asks
SURFACE_POINTS = 21
FRONT_FACTORS = (1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # learning rates around the setting's that the front tries
FRONT_SCALES = (0.5, 0.75, 1.0, 1.5)  # of all coefficients


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the model says about a setting.

    Attributes:
        setting: the setting.
        goal: predicted goal risk.
        tasks: task -> predicted risk, of every task, those left out too.
        terms: task -> term -> nats, the risk of x_0 first; the parts sum to the prediction.
        initial_goal: goal risk of x_0 under the same weights.
        edge: learning rate of the stability edge at this optimizer and batch.
        beyond: factor by which the setting lies beyond the probes (1: inside).
        cost: units of training the experts.
    """

    setting: Setting
    goal: Predicted
    tasks: Mapping[str, Predicted]
    terms: Mapping[str, Mapping[str, float]]
    initial_goal: float
    edge: Predicted
    beyond: float
    cost: float


class Explorer:
    """Answers for one run.

    Args:
        model: the run's fitted risk model.
        goal: the project's goal.
    """

    def __init__(self, model: RiskModel, goal: Goal) -> None:
        self.model = model
        self.goal = goal
        self._stored = model.to_json()
        self._asks: dict[tuple[tuple[float, ...], bool], WhatIf] = {}
        self._last: tuple[Setting, float, RiskPrediction] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks."""
        return self.model.constants_.names

    @property
    def num_samples(self) -> dict[str, int]:
        """Training samples of each task."""
        return dict(self.model.constants_.num_samples)

    @property
    def methods(self) -> tuple[str, ...]:
        """Merge operators that the model knows."""
        return tuple(self.model.method_shares_)

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Optimizers whose family was probed."""
        return tuple(name for name in get_args(Optimizer) if family_index(name) in self.model.fits_)

    def at(self, plan: Plan) -> Setting:
        """The setting nearest to a plan: recipes that differ between tasks are averaged (geometrically)."""
        first = next(iter(plan.recipes.values()))
        return Setting(
            learning_rate=value_of(plan, "learning_rate"),
            batch_size=round(value_of(plan, "batch_size")),
            steps=round(value_of(plan, "steps")),
            optimizer=first.optimizer,
            schedule="constant" if first.schedule == "range_test" else first.schedule,
            num_samples=first.num_samples,
            coefficients={name: plan.coefficients.get(name, 0.0) for name in self.names},
            weights={name: self.goal.weights[name] for name in self.names},
            method=plan.method if plan.method in self.methods else "task_arithmetic",
        )

    def ask(self, setting: Setting) -> WhatIf:
        """The model under the setting's weights; tasks left out count 0."""
        weights = {n: 0.0 if n in setting.left_out else float(setting.weights[n]) for n in self.names}
        key = (tuple(weights.values()), False)
        found = self._asks.get(key)
        if found is None:
            model = RiskModel.from_json({**self._stored, "task_weights": weights})
            found = WhatIf(model=model, goal=dataclasses.replace(self.goal, weights=weights))
            self._asks = {**dict(list(self._asks.items())[-KEPT_WEIGHTS:]), key: found}
        return found

    def ask_goal(self) -> WhatIf:
        """The model under the project's own goal."""
        return WhatIf(model=self.model, goal=self.goal)

    def look(self, setting: Setting) -> Outlook:
        """Predicted goal, tasks and terms of a setting, with intervals."""
        ask, p = self.ask(setting), self._pair(setting, LARGER)
        return Outlook(
            setting=setting,
            goal=_goal(ask, p, 0),
            tasks={n: interval(p.task_risk[0, j], p.task_low[0, j], p.task_high[0, j]) for j, n in enumerate(p.names)},
            terms={
                name: {START: float(p.initial_risk[j])} | {term: float(v[0, j]) for term, v in p.terms.items()}
                for j, name in enumerate(p.names)
            },
            initial_goal=float(ask.goal.of_array(p.initial_risk[None, :])[0]),
            edge=interval(*self.model.edge(setting.optimizer, setting.batch_size)),
            beyond=float(np.exp(p.extrapolation[0])),
            cost=setting.cost,
        )

    def surface(self, setting: Setting, knobs: tuple[Knob, Knob], *, points: int = SURFACE_POINTS) -> Surface:
        """Predicted goal risk over two knobs around a setting."""
        first, second = knobs
        xs, ys = (axis_values(setting, knob, points) for knob in knobs)
        x, y = (grid.ravel() for grid in np.meshgrid(xs, ys))
        ask = self.ask(setting)
        table = self.table(setting, **{first: x, second: y})
        risks = ask.goal.of_array(ask.model.predict(table).task_risk).reshape(len(ys), len(xs))
        return Surface(
            x_knob=first,
            y_knob=second,
            x=tuple(xs.tolist()),
            y=tuple(ys.tolist()),
            goal=tuple(tuple(row) for row in risks.tolist()),
            at=(knob_value(setting, first), knob_value(setting, second)),
        )

    def front(self, setting: Setting, *, longest: int) -> tuple[Alternative, ...]:
        """The best predicted goal for each cost, over steps, batch size, learning rate and common coefficient scale."""
        steps = np.unique(np.round(np.geomspace(min(5, longest), longest, 8)))
        batches = np.unique(np.maximum(1.0, np.round(setting.batch_size * np.array([0.25, 0.5, 1.0, 2.0]))))
        rates = setting.learning_rate * np.array(FRONT_FACTORS)
        scales = knob_value(setting, "coefficient") * np.array(FRONT_SCALES)
        grid = [axis.ravel() for axis in np.meshgrid(rates, batches, steps, scales)]
        columns = dict(zip(("learning_rate", "batch_size", "steps", "coefficient"), grid, strict=True))
        ask = self.ask(setting)
        table = self.table(setting, **columns)
        goals = ask.goal.of_array(ask.model.predict(table).task_risk)
        costs = columns["batch_size"] * columns["steps"] * len(setting.kept)
        chosen = pareto_front(costs, goals)
        settings = [with_knobs(setting, {name: float(v[k]) for name, v in columns.items()}) for k in chosen]
        p = ask.predict(self.table(setting, **{name: v[chosen] for name, v in columns.items()}))
        return tuple(
            Alternative(label=s.recipe.describe(), plan=s.plan, goal=_goal(ask, p, k), cost=s.cost)
            for k, s in enumerate(settings)
        )

    def larger_rate(self, setting: Setting, *, factor: float = LARGER) -> Larger:
        """Why not a larger learning rate?  Answered from the goal's terms here and at ``factor`` times the rate."""
        ask, p = self.ask(setting), self._pair(setting, factor)
        rate = factor * setting.learning_rate
        shares = _shares(ask, p)
        changes = {term: float((v[1] - v[0]) @ shares) for term, v in p.terms.items()}
        ordered = dict(sorted(changes.items(), key=lambda cell: -abs(cell[1])))
        edge = interval(*self.model.edge(setting.optimizer, setting.batch_size))
        now, then = _goal(ask, p, 0), _goal(ask, p, 1)
        return Larger(
            learning_rate=rate,
            goal=then,
            changes=ordered,
            sentences=say_why_not(factor, rate, now, then, ordered, edge, setting),
        )

    def _pair(self, setting: Setting, factor: float) -> RiskPrediction:
        """The setting and the same at ``factor`` times the rate, at once; one position of the sliders asks twice."""
        last = self._last  # visitors share an explorer: what is read must be what is returned
        if last is None or last[:2] != (setting, factor):
            rates = setting.learning_rate * np.array([1.0, factor])
            last = (setting, factor, self.ask(setting).predict(self.table(setting, learning_rate=rates)))
            self._last = last
        return last[2]

    def interference(self, setting: Setting) -> tuple[tuple[float, ...], ...]:
        """[N][N]: by how much merging expert i (column) changes the risk of task j (row) whose own expert is merged."""
        names = self.names
        count = len(names)
        own = np.array([0.0 if n in setting.left_out else setting.coefficients[n] for n in names])
        rows = [np.eye(count)[j] * own for j in range(count)]
        rows += [(np.eye(count)[j] + np.eye(count)[i] * (i != j)) * own for j in range(count) for i in range(count)]
        table = self._table(setting, len(rows), {}, coefficients=np.array(rows))
        risks = self.model.predict(table).task_risk
        return tuple(
            tuple(float(risks[count + j * count + i, j] - risks[j, j]) for i in range(count)) for j in range(count)
        )

    def tuned(self, setting: Setting, *, upper: float = 2.0, rounds: int = 3) -> Setting:
        """The same recipes with the coefficients that the model likes best: a common scale first, then one by one."""
        ask = self.ask(setting)
        kept = np.array([name in setting.kept for name in self.names])
        best = np.where(kept, np.array([setting.coefficients[name] for name in self.names], dtype=float), 0.0)
        value = self._goals_of(ask, setting, best[None, :])[0]
        candidates = np.linspace(0.0, upper, 81)[:, None] * kept
        for turn in range(1 + rounds * len(best)):
            if turn:
                j = (turn - 1) % len(best)
                if not kept[j]:
                    continue
                candidates = np.tile(best, (41, 1))
                reach = upper / 2 ** ((turn - 1) // len(best))
                candidates[:, j] = np.clip(np.linspace(best[j] - reach, best[j] + reach, 41), 0.0, upper)
            goals = self._goals_of(ask, setting, candidates)
            if goals.min() < value:
                value, best = float(goals.min()), candidates[int(np.argmin(goals))]
        values = {n: float(c) if k else setting.coefficients[n] for n, c, k in zip(self.names, best, kept, strict=True)}
        return dataclasses.replace(setting, coefficients=values)

    def measured(
        self, setting: Setting, knobs: tuple[Knob, Knob], merges: Sequence[MergeObservation], *, most: int = 200
    ) -> tuple[tuple[float, float, float], ...]:
        """(x, y, goal risk) of measured merges of all tasks with the setting's optimizer; the last ``most`` of them."""
        ask = self.ask(setting)
        found = []
        for merge in merges[::-1]:
            recipe = next(iter(merge.plan.recipes.values()))
            whole = set(merge.risks) == set(self.names) and min(merge.plan.coefficients.values()) > 0
            if whole and not merge.diverged and recipe.optimizer == setting.optimizer:
                goal = ask.goal.of(merge.risks_at(ask.model.initial_risks))
                found.append((*(value_of(merge.plan, knob) for knob in knobs), goal))
            if len(found) == most:
                break
        return tuple(found[::-1])  # type: ignore[arg-type]

    def _goals_of(self, ask: WhatIf, setting: Setting, coefficients: FloatArray) -> FloatArray:
        table = self._table(setting, len(coefficients), {}, coefficients=coefficients)
        return ask.goal.of_array(ask.model.predict(table).task_risk)

    def table(self, setting: Setting, **columns: FloatArray) -> PlanTable:
        """M plans [M, N]: the setting with some knobs varied, each a column [M]."""
        count = len(next(iter(columns.values()))) if columns else 1
        kept = np.array([0.0 if n in setting.left_out else setting.coefficients[n] for n in self.names])
        scale = np.ones(count)
        if "coefficient" in columns:
            now = knob_value(setting, "coefficient")
            if now > 0:
                scale = columns["coefficient"] / now
            else:
                kept, scale = np.array([float(n in setting.kept) for n in self.names]), columns["coefficient"]
        return self._table(setting, count, columns, coefficients=scale[:, None] * kept)

    def _table(
        self, setting: Setting, count: int, columns: Mapping[str, FloatArray], *, coefficients: FloatArray
    ) -> PlanTable:
        samples = np.array([self.num_samples[name] for name in self.names], dtype=float)

        def filled(value: Any, dtype: Any = np.float64) -> Any:
            column = np.broadcast_to(np.asarray(value, dtype=dtype), (count,))
            return np.repeat(column[:, None], len(self.names), axis=1)

        batch = filled(columns.get("batch_size", setting.batch_size))
        return PlanTable(
            names=self.names,
            learning_rate=filled(columns.get("learning_rate", setting.learning_rate)),
            batch_size=np.minimum(np.maximum(np.round(batch), 1.0), samples),
            steps=np.maximum(np.round(filled(columns.get("steps", setting.steps))), 1.0),
            optimizer=filled(OPTIMIZERS.index(setting.optimizer), np.int64),
            momentum=filled(DEFAULT_MOMENTUM if setting.optimizer == "momentum" else 0.0),
            schedule=filled(SCHEDULES.index(setting.schedule), np.int64),
            num_samples=np.minimum(filled(setting.num_samples or np.inf), samples),
            coefficients=coefficients,
            method=(setting.method,) * count,
        )


def _goal(ask: WhatIf, p: RiskPrediction, row: int) -> Predicted:
    values, lows, highs = ask.goal.predicted(p.task_risk, p.task_low, p.task_high, (p.goal, p.goal_low, p.goal_high))
    return interval(values[row], lows[row], highs[row])


def _shares(ask: WhatIf, p: RiskPrediction) -> FloatArray:
    """Weight of each task's terms in the goal: p_i, or 1 for the worst task."""
    shares = np.array([ask.goal.shares[name] for name in p.names])
    if ask.goal.kind == "mean":
        return shares
    worst = int(np.argmax(np.where(shares > 0, p.task_risk[0], -np.inf)))
    return np.asarray(np.eye(len(shares))[worst])
