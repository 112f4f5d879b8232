r"""The chance that a run of plain or heavy-ball SGD jumps over the stability edge, learnt from the probes' runs.

Where the edge lies differs from problem to problem by more than the measured curvature says, and a run beyond it may
jump at any step, so neighbouring recipes, and two seeds of one recipe, end far apart.  With

    x = log(e L (1 + z/b) / 2)            how far the recipe is beyond 2/L, with e, b of ``advisor.exposure``
    P(jump) = Phi((x - t)/RUN_SPREAD)     t: where this problem's edge lies, a priori N(EDGE_MEAN, EDGE_SPREAD^2)

every expert of every probe is one look at t: it jumped if it moved more than ``JUMP`` log units further than the
displacement law lets expect.  The posterior of t is kept as a normal.  A merge with such experts has its risk raised by
the factor 1 + COST sum_i lambda_i if they jump:

    log risk += C with chance P, else 0;   C = log(1 + COST sum_i lambda_i)

P is the experts' mean, weighted by their coefficients, times ``CALMED`` where the rate falls to 0: warm-up meets the
edge later, and what was thrown comes back.  A prediction holds the mean P C; an interval ends at quantiles
of the mixture, so a jump that is less likely than its tail does not widen it, and none reaches below calm runs.
AdamW's steps are bounded, so its experts do not jump.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from advisor.displacement_law import JUMP, DisplacementLaw
from advisor.exposure import FAMILIES, Exposure, TaskScales
from advisor.observations import ProbeData
from advisor.plan import FloatArray, Plan, PlanTable
from advisor.risk_form import CALMED
from estimators.recipe import Recipe

# Chosen on the exploration tables, the development suites and two digit problems (``docs/risk-model-log.md``).
EDGE_MEAN = 0.0
EDGE_SPREAD = 0.8
RUN_SPREAD = 0.4
SAMPLE_EDGE = 5.6  # z: curvature of a single sample over that of the mean, less 1
COST = 2.0
GRID = np.linspace(-4.0, 4.0, 161)  # of (t - EDGE_MEAN) / EDGE_SPREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpHazard:
    """Posterior of the edge.

    Attributes:
        mean: of t.
        spread: standard deviation of t.
        runs: expert runs that it rests on.
        jumps: how many of them jumped.
    """

    mean: float = EDGE_MEAN
    spread: float = EDGE_SPREAD
    runs: int = 0
    jumps: int = 0

    @classmethod
    def fit(cls, probes: ProbeData, scales: TaskScales) -> JumpHazard:
        """Look at every expert run of SGD that was measured."""
        places, jumped = [], []
        law = DisplacementLaw.prior(len(scales.names))
        for task, recipe, moved in _runs(probes):
            j = scales.names.index(task)
            plan = Plan(recipes=dict.fromkeys(scales.names, recipe), coefficients=dict.fromkeys(scales.names, 1.0))
            exposure = Exposure.of(PlanTable.from_plans([plan], probes.constants.num_samples), scales)
            walk, drift = law.parts(exposure, scales)
            expected = float(walk[0, j] + drift[0, j])
            places.append(float(beyond(exposure, scales)[0, j]))
            jumped.append(not math.isfinite(moved) or 0.5 * math.log(max(moved, 1e-300) / expected) > JUMP)
        edge = EDGE_MEAN + EDGE_SPREAD * GRID
        logs = -0.5 * GRID**2
        for place, did in zip(places, jumped, strict=True):
            chance = np.clip(ndtr((place - edge) / RUN_SPREAD), 1e-6, 1 - 1e-6)
            logs = logs + np.log(chance if did else 1 - chance)
        weight = np.exp(logs - logs.max())
        weight /= weight.sum()
        mean = float(weight @ edge)
        spread = float(np.sqrt(weight @ (edge - mean) ** 2))
        return cls(mean=mean, spread=spread, runs=len(places), jumps=sum(jumped))

    def chance(self, exposure: Exposure, scales: TaskScales) -> FloatArray:
        """P(jump) of every expert, [M, N]; 0 for AdamW."""
        argument = (beyond(exposure, scales) - self.mean) / math.hypot(RUN_SPREAD, self.spread)
        return np.asarray(np.where(exposure.family == FAMILIES.index("gradient"), ndtr(argument), 0.0))

    def at(self, exposure: Exposure, scales: TaskScales) -> tuple[FloatArray, FloatArray]:
        """Chance P in [0, 1] of a jump, and what it adds to log risk, C, of plans, [M] each."""
        total = exposure.coefficients.sum(axis=1)
        weight = exposure.coefficients / np.maximum(total, 1e-12)[:, None]
        stays = self.chance(exposure, scales) * np.where(exposure.falls, CALMED, 1.0)
        chance = np.minimum(np.sum(weight * stays, axis=1), 1.0)  # 1 + rounding
        return chance, np.log1p(COST * total)

    def mean_at(self, exposure: Exposure, scales: TaskScales) -> FloatArray:
        """Mean P C of what jumps add to log risk of plans, [M]."""
        chance, cost = self.at(exposure, scales)
        return np.asarray(chance * cost)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"mean": self.mean, "spread": self.spread, "runs": self.runs, "jumps": self.jumps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JumpHazard:
        """The inverse of :meth:`to_json`."""
        return cls(
            mean=float(data["mean"]), spread=float(data["spread"]), runs=int(data["runs"]), jumps=int(data["jumps"])
        )


def _runs(probes: ProbeData) -> list[tuple[str, Recipe, float]]:
    """(task, recipe up to its last measured step, ||tau||^2 there) of every expert run of SGD."""
    found: dict[tuple[Any, ...], tuple[str, Recipe, float]] = {}

    def add(task: str, recipe: Recipe, seed: int, moved: float) -> None:
        key = (task, recipe.replace(steps=1), seed)
        if recipe.optimizer != "adamw" and (key not in found or found[key][1].steps <= recipe.steps):
            found[key] = (task, recipe, moved)

    for merge in probes.merges:
        for task, moved in merge.squared_displacements.items():
            add(task, merge.plan.recipes[task], merge.seed, moved)
    for trace in probes.traces:
        recipe = trace.recipe.replace(steps=int(trace.steps[-1]))
        add(trace.task, recipe, trace.seed, float(trace.squared_displacements[-1]))
    return list(found.values())


def beyond(exposure: Exposure, scales: TaskScales) -> FloatArray:
    """How far recipes lie beyond 2/L: x of the module's head, [M, N]."""
    curvature = scales.curvature * (1 + SAMPLE_EDGE / exposure.batch_size)
    return np.asarray(np.log(exposure.rate * curvature / 2))
