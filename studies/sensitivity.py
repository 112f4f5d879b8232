"""Which knob matters, and how free is the choice around the best plan?

**Near-optimal ranges.** For each knob the values that occur in the near-optimal set of a study
(``studies/recipes.py``), and the share of the knob's range that they span: near 1 the knob hardly matters, near 0 it
must be set with care.

**Sobol' indices** split the variance of the risk over a box of independent uniform knobs: the *first-order* index is
the share that a knob explains alone, the *total* index the share that would go if it were known, interactions included,

    V = var f,   S_i = 1 - E (f(B) - f(A_B^i))^2 / 2V,   T_i = E (f(A) - f(A_B^i))^2 / 2V

with A, B two independent samples and A_B^i equal to A but for column i of B (Jansen 1999; Saltelli et al. 2010).  They
are computed over the box around the near-optimal set, where one chooses; over the whole space collapse drowns all else.
An infeasible plan counts as the worst feasible one of the sample; ``infeasible`` says how many there were.

**PED-ANOVA** (Watanabe et al. 2023, Optuna's evaluator) asks instead which knobs tell the best tenth of evenly spread
plans from the rest, over the whole space; it sees main effects only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.evaluation import ConstraintFunction, CostFunction, Evaluations, RiskFunction, make_evaluator
from studies.knobs import FloatArray
from studies.recipes import records_of
from studies.result import StudyResult
from studies.samplers import ceiling_of, frozen_trial, label, sobol
from studies.search_space import SearchSpace
from studies.storage import quiet_optuna

SAMPLES = 1024
TOLD = 512  # plans shown to PED-ANOVA: enough for its densities, a few tenths of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobSensitivity:
    """How much one knob matters.

    Attributes:
        name: the knob.
        first: share of the risk's variance near the optimum that it explains alone.
        total: share that it has a part in.
        importance: PED-ANOVA importance over the whole space; the knobs' sum is 1.
        low: smallest near-optimal value, or ``None`` for a knob of names.
        high: largest near-optimal value.
        choices: near-optimal names, best first; empty for a number.
        freedom: share of the knob's range, or of its names, that is near-optimal.
    """

    name: str
    first: float
    total: float
    importance: float
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    freedom: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"choices": list(self.choices)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How much each knob matters, most important (total index) first.

    Attributes:
        knobs: one entry for each free knob.
        spread: standard deviation of the risk over the box around the near-optimal set.
        infeasible: share of the box's sample that violates a constraint.
    """

    knobs: tuple[KnobSensitivity, ...]
    spread: float
    infeasible: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "knobs": [knob.to_json() for knob in self.knobs],
            "spread": self.spread,
            "infeasible": self.infeasible,
        }


def find_sensitivity(
    space: SearchSpace,
    risk: RiskFunction,
    study: StudyResult,
    *,
    cost: CostFunction | None = None,
    constraint: ConstraintFunction | None = None,
    seed: int = 0,
    samples: int = SAMPLES,
) -> Sensitivity:
    """Ranges, Sobol' indices and PED-ANOVA importances around the best plan of a study.

    Arguments as in the study; ``samples`` plans are drawn twice, and once more for each knob.
    """
    evaluate = make_evaluator(space, risk, cost, constraint)
    low, high = near_box(space, study.near_optimal)
    bad: list[FloatArray] = []

    def goal(units: FloatArray) -> FloatArray:
        found = evaluate(units)
        bad.append((~found.feasible).astype(np.float64))
        return np.where(found.feasible, found.goal, np.nan)

    first, total, spread = sobol_indices(goal, low, high, samples=samples, seed=seed)
    # Evenly spread plans: those of the study crowd around its optimum, which would bias the densities.
    importance = trial_importance(space, evaluate(sobol(space.dimensions, TOLD, seed)))
    ranges = [_range(space, study.near_optimal, index) for index in range(space.dimensions)]
    knobs = [
        KnobSensitivity(name=k.name, first=float(f), total=float(t), importance=importance[k.name], **r)
        for k, f, t, r in zip(space.knobs, first, total, ranges, strict=True)
    ]
    return Sensitivity(
        knobs=tuple(sorted(knobs, key=lambda knob: -knob.total)),
        spread=spread,
        infeasible=float(np.mean(np.concatenate(bad))),
    )


def sobol_indices(
    function: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, *, samples: int, seed: int
) -> tuple[FloatArray, FloatArray, float]:
    """First-order and total indices [D] of a vectorised function over a box, and its standard deviation there.

    Args:
        function: points [M, D] -> values [M]; NaN counts as the largest value of the sample.
        low: [D] lower corner.
        high: [D] upper corner.
        samples: points of A and of B.
        seed: scrambles the Sobol' sequence.
    """
    dimensions = len(low)
    if not samples >= 2:
        raise ValueError(f"samples={samples} must be at least 2; {SAMPLES} gives indices to about 0.03")
    if dimensions == 0:
        return np.empty(0), np.empty(0), 0.0
    both = sobol(2 * dimensions, samples, seed)
    a, b = both[:, :dimensions], both[:, dimensions:]
    mixed = np.repeat(a[None], dimensions, axis=0)
    for index in range(dimensions):
        mixed[index, :, index] = b[:, index]
    points = np.concatenate([a, b, mixed.reshape(-1, dimensions)])
    values = function(low + points * (high - low))
    if np.isnan(values).all():
        raise ValueError("no point of the box is feasible; ask for the sensitivity around a feasible plan")
    values = np.where(np.isnan(values), np.nanmax(values), values)
    at_a, at_b = values[:samples], values[samples : 2 * samples]
    at_mixed = values[2 * samples :].reshape(dimensions, samples)
    variance = float(np.var(values[: 2 * samples]))
    if variance <= 1e-30:
        return np.zeros(dimensions), np.zeros(dimensions), 0.0
    first = 1 - ((at_b - at_mixed) ** 2).mean(axis=1) / (2 * variance)
    total = ((at_a - at_mixed) ** 2).mean(axis=1) / (2 * variance)
    return first, total, float(np.sqrt(variance))


def near_box(space: SearchSpace, near: Evaluations) -> tuple[FloatArray, FloatArray]:
    """The smallest box of the unit cube around the near-optimal set; a knob of names keeps whole names."""
    low, high = near.units.min(axis=0), near.units.max(axis=0)
    for index, knob in enumerate(space.knobs):
        if knob.categorical:
            count = len(knob.choices)
            low[index] = min(int(low[index] * count), count - 1) / count
            high[index] = (min(int(high[index] * count), count - 1) + 1) / count
    return low, high


def trial_importance(space: SearchSpace, found: Evaluations) -> dict[str, float]:
    """PED-ANOVA importance of each free knob over the feasible ones of some plans; equal shares if nothing varies."""
    optuna = quiet_optuna()
    even = {knob.name: 1.0 / space.dimensions for knob in space.knobs}
    possible = np.flatnonzero(found.feasible)
    if len(possible) < 4 or np.ptp(found.goal[possible]) == 0:
        return even
    records = records_of(found.take(possible), [str(k) for k in range(len(possible))], "told")
    study = optuna.create_study(direction="minimize")
    ceiling = ceiling_of(records)
    for record in records:
        study.add_trial(frozen_trial(space.knobs, record, objectives=1, ceiling=ceiling))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    whole = sum(shares.values())
    if not whole > 0:
        return even
    return {knob.name: float(shares.get(label(knob), 0.0)) / whole for knob in space.knobs}


def _range(space: SearchSpace, near: Evaluations, index: int) -> dict[str, Any]:
    knob = space.knobs[index]
    column = near.columns[knob.name]
    if knob.categorical:
        names = tuple(dict.fromkeys(str(name) for name in column.tolist()))
        return {"low": None, "high": None, "choices": names, "freedom": len(names) / len(knob.choices)}
    units = knob_units(space, near, index)
    freedom = float(units.max() - units.min())
    return {"low": float(column.min()), "high": float(column.max()), "choices": (), "freedom": freedom}


def knob_units(space: SearchSpace, near: Evaluations, index: int) -> FloatArray:
    """Positions of a knob's values in its range: whole numbers and grids at the place of the value itself."""
    knob = space.knobs[index]
    if knob.selector is not None:
        return near.units[:, index]
    return knob.encode(near.columns[knob.name])
