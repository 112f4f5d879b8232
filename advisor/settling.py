r"""When to stop probing: once the last probes did not change the advice.

After each probe the model is fitted on the probes so far, and the plans of a fixed coarse grid over the search space
(one recipe and coefficient for all tasks) are ranked by the goal with the advice's own prices
(``advisor.searching.caution``).  With g_n the ranking after n probes, and gain the best predicted fall below x_0,

    settled = what was best before each of the last UNCHANGED probes is all but the best now:
              g_n(best plan of g_{n-k}) - min g_n <= TOLERANCE gain,    k = 1..UNCHANGED

and every optimizer had been probed before them.  A pure function of design, goal and probes, so a resumed session
decides the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from advisor.goal import Goal
from advisor.observations import ProbeData
from advisor.plan import FloatArray, Plan, PlanTable
from advisor.probe_checks import ContradictoryProbes, ProbesDiverged, TooFewProbes
from advisor.probing import LINEAR_METHOD, Probe, ProbeDesign
from advisor.project_search import SearchSettings
from advisor.risk_form import family_index
from advisor.risk_model import RiskModel
from advisor.searching import caution
from estimators.constants import Constants
from estimators.recipe import Optimizer, Recipe

UNCHANGED = 2  # probes in a row that did not change the advice
TOLERANCE = 0.05  # of the predicted gain: a difference that counts as none
LEAST_GAIN = 0.02  # of x_0's risk: gains below count as this much
RATES, BATCHES, LENGTHS = 9, 3, 4  # values of the grid for each knob
COEFFICIENTS = (0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.45, 0.65, 0.95, 1.4, 2.0)
SHORTEST = 0.125  # of the longest run

Ranking = tuple[FloatArray | None, float]


def coarse_plans(search: SearchSettings, constants: Constants, design: ProbeDesign) -> dict[Optimizer, list[Plan]]:
    """A grid over the search space: every optimizer and schedule, a few values of the other knobs."""
    low, high = search.steps
    steps = sorted({int(k) for k in np.geomspace(max(low, SHORTEST * high), high, LENGTHS)})
    largest = min(search.batch_size[1], min(constants.num_samples.values()))
    batches = sorted({int(b) for b in np.geomspace(min(search.batch_size[0], largest), largest, BATCHES)})
    method = LINEAR_METHOD if LINEAR_METHOD in design.methods else design.methods[0]
    ends = search.coefficients.range
    coefficients = sorted({min(max(value, ends[0]), ends[1]) for value in COEFFICIENTS})
    knobs = list(itertools.product(range(RATES), batches, steps, search.schedule))
    plans: dict[Optimizer, list[Plan]] = {}
    for optimizer, bounds in search.learning_rate.items():
        rates = np.geomspace(*bounds, RATES).tolist()
        plans[optimizer] = [
            Plan.uniform(
                constants.names,
                Recipe(learning_rate=rates[k], batch_size=b, steps=length, optimizer=optimizer, schedule=schedule),
                value,
                method,
            )
            for k, b, length, schedule in knobs
            for value in coefficients
        ]
    return plans


class Settling:
    """Asks after each probe whether the advice has settled.

    Args:
        design: what probing may do.
        search: the project's search space.
        constants: measured at x_0.
        goal: what the advice minimises.
    """

    def __init__(self, design: ProbeDesign, search: SearchSettings, constants: Constants, goal: Goal) -> None:
        self.design, self.constants, self.goal = design, constants, goal
        self.tables = {
            optimizer: PlanTable.from_plans(plans, constants.num_samples)
            for optimizer, plans in coarse_plans(search, constants, design).items()
        }
        self._ranked: dict[int, Ranking] = {}

    def __call__(self, probes: Sequence[Probe]) -> bool:
        """Whether the last ``UNCHANGED`` probes left the advice as it was; ``probes`` grows from call to call."""
        optimizers = [probe.recipe.optimizer for probe in probes]
        if not may_settle(optimizers, self.design.rates):
            return False
        *before, (goal, initial) = (self._ranking(probes[:count]) for count in last_counts(len(probes)))
        return is_settled(goal, [ranking for ranking, _ in before], initial)

    def _ranking(self, probes: Sequence[Probe]) -> Ranking:
        """Priced goals [plans], infinite where no probe speaks of an optimizer, and x_0's; ``None`` if nothing fits."""
        if len(probes) not in self._ranked:
            try:
                self._ranked[len(probes)] = self._fitted(probes)
            except (TooFewProbes, ProbesDiverged, ContradictoryProbes):
                self._ranked[len(probes)] = None, 0.0
        return self._ranked[len(probes)]

    def _fitted(self, probes: Sequence[Probe]) -> tuple[FloatArray, float]:
        shares = self.goal.shares
        model = RiskModel(task_weights=shares).fit(ProbeData.of(self.constants, probes))
        goals = []
        for optimizer, table in self.tables.items():
            if family_index(optimizer) not in model.fits_:
                goals.append(np.full(len(table), np.inf))
                continue
            prediction = model.predict(table)
            price = 1.0 + caution(table, np.array([shares[name] for name in table.names]), prediction.untried)
            goals.append(self.goal.of_array(prediction.task_risk) * price)
        return np.concatenate(goals), float(self.goal.of_array(model.scales_.initial_risk[None])[0])


def may_settle(optimizers: Sequence[str], wanted: Iterable[str]) -> bool:
    """Whether every optimizer was probed before the last ``UNCHANGED`` probes.

    >>> may_settle(["adamw", "sgd", "adamw", "sgd"], ["sgd", "adamw"]), may_settle(["adamw", "sgd", "adamw"], ["sgd"])
    (True, False)
    """
    return set(optimizers[:-UNCHANGED]) >= set(wanted)


def last_counts(count: int) -> range:
    """Numbers of probes whose rankings are compared, the present one last."""
    return range(count - UNCHANGED, count + 1)


def is_settled(goal: FloatArray | None, before: Sequence[FloatArray | None], initial: float) -> bool:
    """Whether what was best in each earlier ranking is still all but the best.

    Args:
        goal: [M] priced goals now; ``None`` where the probes could not be fitted, which settles nothing.
        before: earlier rankings of the same plans.
        initial: x_0's goal.

    >>> now = np.array([0.80, 0.805, 0.95])
    >>> is_settled(now, [np.array([0.7, 0.9, 1.0]), np.array([0.9, 0.7, 1.0])], 1.0)
    True
    >>> is_settled(now, [np.array([0.7, 0.9, 1.0]), np.array([0.9, 0.8, 0.7])], 1.0)
    False
    """
    known = [ranking for ranking in before if ranking is not None]
    if goal is None or len(known) < len(before):
        return False
    best = float(goal.min())
    allowed = TOLERANCE * max(initial - best, LEAST_GAIN * initial)
    return all(float(goal[int(np.argmin(ranking))]) - best <= allowed for ranking in known)
