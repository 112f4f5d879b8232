r"""Probes: which short fine-tunes to run, one after another, and what is measured on them.

A probe trains every task with one short recipe and merges the experts at several coefficients: up a ladder while
merging helps, down while it hurts (``next_coefficient``), since merging short probes with large coefficients shows the
interference that long fine-tunes will have, for the price of an evaluation; then early, with one expert alone and with
other methods, at multiples of the best coefficient.  For each optimizer the rates are bracketed in steps of
``RATE_FACTOR`` around the one whose merges gain most, from an anchor below the measured edge (a quarter of 2/L for
SGD); then the batch size is varied at the best rate.

``next_probe`` and ``next_merge`` are pure functions of the design and of what was measured, so a resumed session
continues as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from advisor.observations import DisplacementTrace, MergeObservation
from estimators.constants import Constants
from estimators.cost import FORWARD_UNITS
from estimators.recipe import DEFAULT_MOMENTUM, Optimizer, Recipe

RATE_FACTOR = math.sqrt(10.0)
LADDER = (0.04, 0.12, 0.35, 1.0, 3.0)  # coefficients of linear merges at the probe's end ...
FIRST_RUNG = 2
RUNGS = 3  # ... of which so many are measured
# In units of the ladder's best coefficient: at a third of the steps; one expert alone, a different one on each probe
# (who helps and who hurts whom); each further merge method, on the first probe of each optimizer.  At most ``LARGEST``.
EARLY_FACTOR = 3.0
ALONE_FACTOR = 4.0
METHOD_FACTORS = (1.0, 3.0)
LARGEST = 3.0
LINEAR_METHOD = "task_arithmetic"
PROBES_PER_OPTIMIZER = 5
ANCHOR_BELOW_EDGE = 4.0  # the first SGD probe runs at 2/L divided by this
EVALUATION_SAMPLES = 96  # validation samples a task for each merged evaluation
LEAN_SAMPLES = 48  # the same where a budget does not pay for one whole probe of each optimizer
TRAINING_TO_EVALUATION = 2.0  # a probe trains for at least so many times the units that its merges cost
SHORTEST_PROBE = 8
LONGEST_SHARE = 0.25  # of the longest run: advice must extrapolate at least so far


class BudgetTooSmall(ValueError):
    """The budget does not pay for one probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePoint:
    """One merge of a probe's experts.

    Attributes:
        step: checkpoint that is merged.
        coefficient: common coefficient of the merged experts.
        method: merge operator.
        alone: the one expert that is merged, or ``None`` for all.
    """

    step: int
    coefficient: float
    method: str = LINEAR_METHOD
    alone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeDesign:
    """What probing may do.

    Attributes:
        tasks: names of the tasks.
        rates: optimizer -> (lowest, highest) learning rate of the search.
        batch_sizes: (small, large) batch sizes of probes.
        max_steps: longest run of the search, K_max.
        budget: units for probes and their evaluations.
        evaluation_samples: validation samples a task for one merged evaluation.
        anchors: optimizer -> learning rate of its first probe.
        methods: merge methods to choose from.
        is_lean: whether the budget does not pay for one whole probe of each optimizer: then only the ladder is
            measured, on ``LEAN_SAMPLES``, so that as many optimizers as possible are probed.
    """

    tasks: tuple[str, ...]
    rates: Mapping[Optimizer, tuple[float, float]]
    batch_sizes: tuple[int, int]
    max_steps: int
    budget: float
    evaluation_samples: int
    anchors: Mapping[Optimizer, float]
    methods: tuple[str, ...] = (LINEAR_METHOD,)
    is_lean: bool = False

    def steps(self, batch_size: int) -> int:
        """Steps of a probe at a batch size: equal cost for each, never above a quarter of K_max.

        The budget divided by ``PROBES_PER_OPTIMIZER`` probes an optimizer, but rather fewer probes than probes so short
        that evaluating them costs more than half of training them; one for each optimizer, though, unless the budget
        does not even pay for the shortest ones.
        """
        evaluation = (RUNGS + (0 if self.is_lean else 2)) * self.merge_cost()
        share = self.budget / (len(self.rates) * PROBES_PER_OPTIMIZER) - evaluation
        # x_0 is evaluated once; an optimizer's first probe measures the other methods too
        methods = len(METHOD_FACTORS) * len(set(self.methods) - {LINEAR_METHOD})
        first, left = evaluation + methods * self.merge_cost(), self.budget - self.merge_cost()
        each = left / len(self.rates) - first
        room = each if each >= SHORTEST_PROBE * len(self.tasks) * batch_size else left - first
        training = min(max(share, TRAINING_TO_EVALUATION * evaluation), room)
        longest = max(SHORTEST_PROBE, int(LONGEST_SHARE * self.max_steps))
        affordable = int(training / (len(self.tasks) * batch_size))
        return max(SHORTEST_PROBE, min(affordable, longest))

    def merge_cost(self) -> float:
        """Units of evaluating one merge on all tasks."""
        return len(self.tasks) * self.evaluation_samples * FORWARD_UNITS

    def next_merge(
        self, recipe: Recipe, done: Sequence[tuple[MergePoint, float]], *, number: int, first: bool
    ) -> MergePoint | None:
        """What to measure next on a probe, or ``None`` when all is measured.

        Args:
            recipe: the probe's recipe.
            done: what was measured on it so far, in order, each with the fall of the goal risk below x_0.
            number: position of the probe: whose expert is merged alone.
            first: whether it is the first probe of its optimizer.
        """
        scale = coefficient_scale(len(self.tasks))
        rungs = [(point.coefficient / scale, gain) for point, gain in done[:RUNGS]]
        coefficient = next_coefficient(rungs)
        if coefficient is not None:
            return MergePoint(step=recipe.steps, coefficient=coefficient * scale)
        best = max(rungs, key=lambda rung: rung[1])[0]
        alone = self.tasks[number % len(self.tasks)]
        further = self._further(recipe, best=best, alone=alone, first=first)
        return further[len(done) - RUNGS] if len(done) - RUNGS < len(further) else None

    def checkpoints(self, recipe: Recipe) -> tuple[int, ...]:
        """Steps whose experts are merged."""
        return (recipe.steps,) if self.is_lean else tuple(sorted({early_step(recipe), recipe.steps}))

    def cost(self, recipe: Recipe, *, first: bool) -> float:
        """Units of one probe: training and its merged evaluations."""
        further = self._further(recipe, best=1.0, alone=self.tasks[0], first=first)
        return len(self.tasks) * recipe.cost() + (RUNGS + len(further)) * self.merge_cost()

    def _further(self, recipe: Recipe, *, best: float, alone: str, first: bool) -> list[MergePoint]:
        methods = self.methods if first else ()
        points = further_merges(recipe, len(self.tasks), best=best, alone=alone, methods=methods)
        return [point for point in points if point.method != LINEAR_METHOD] if self.is_lean else points


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe that was run: its recipe, what was measured, and what it cost."""

    recipe: Recipe
    traces: tuple[DisplacementTrace, ...]
    merges: tuple[MergeObservation, ...]
    outcomes: Mapping[str, str]
    cost: float

    def gain(self, weights: Mapping[str, float]) -> float:
        """Largest fall of the goal risk below x_0 over the coefficients tried; -inf if every merge diverged."""
        return max((measured_gain(merge, weights) for merge in self.merges), default=-math.inf)

    def hurts(self, weights: Mapping[str, float]) -> bool:
        """Whether merging at the ladder's first coefficient was no better than x_0."""
        return not self.merges or not measured_gain(self.merges[0], weights) > 0


def design_probes(
    constants: Constants,
    *,
    rates: Mapping[Optimizer, tuple[float, float]],
    batch_range: tuple[int, int],
    max_steps: int,
    budget: float,
    validation_samples: int,
    methods: Sequence[str] = (LINEAR_METHOD,),
) -> ProbeDesign:
    """A design from the constants and the search.

    Args:
        constants: measured at x_0; the top curvature places the anchors.
        rates: optimizer -> (lowest, highest) learning rate.
        batch_range: (lowest, highest) batch size of the search.
        max_steps: longest run of the search.
        budget: units left for probes and their evaluations.
        validation_samples: validation samples of the smallest task.
        methods: merge methods to choose from.

    Raises:
        BudgetTooSmall: if not even one probe of ``SHORTEST_PROBE`` steps is affordable.
    """
    small = max(batch_range[0], min(8, batch_range[1]))
    large = min(batch_range[1], 4 * small, min(constants.num_samples.values()))
    design = ProbeDesign(
        tasks=constants.names,
        rates=dict(rates),
        batch_sizes=(min(small, large), large),
        max_steps=max_steps,
        budget=budget,
        evaluation_samples=min(validation_samples, EVALUATION_SAMPLES),
        anchors={name: anchor(constants, name, bounds) for name, bounds in rates.items()},
        methods=tuple(methods),
    )
    cheapest = Recipe(learning_rate=1e-3, batch_size=design.batch_sizes[0], steps=SHORTEST_PROBE)
    if len(rates) * design.cost(cheapest, first=True) + design.merge_cost() > budget:
        wanted = (LINEAR_METHOD,) if LINEAR_METHOD in methods else design.methods
        samples = min(validation_samples, LEAN_SAMPLES)
        design = replace(design, is_lean=True, methods=wanted, evaluation_samples=samples)
    cheapest_cost = design.cost(cheapest, first=True) + design.merge_cost()
    if cheapest_cost > budget:
        raise BudgetTooSmall(
            f"budget={budget:.0f} per-sample gradients are left for probes, but the cheapest probe takes "
            f"{cheapest_cost:.0f}; raise budget.probe_share or budget.max_cost, or allow more steps"
        )
    return design


def anchor(constants: Constants, optimizer: Optimizer, bounds: tuple[float, float]) -> float:
    """Learning rate of an optimizer's first probe, inside ``bounds``.

    SGD: (2/L)/4 with L the largest top curvature of the tasks; momentum: that times 1 - m; AdamW: the geometric mean of
    the range, since its edge lives in another metric.
    """
    low, high = bounds
    curvatures = [task.top_curvature.value for task in constants.tasks.values() if task.top_curvature is not None]
    if optimizer == "adamw" or not curvatures or max(curvatures) <= 0:
        return math.sqrt(low * high)
    rate = 2.0 / max(curvatures) / ANCHOR_BELOW_EDGE
    if optimizer == "momentum":
        rate *= 1.0 - DEFAULT_MOMENTUM
    return min(max(rate, low), high)


def next_probe(
    design: ProbeDesign, done: Sequence[Probe], weights: Mapping[str, float], *, spent: float
) -> Recipe | None:
    """The next probe's recipe, or ``None`` when another one is not affordable or would not add a new setting.

    Args:
        design: what probing may do.
        done: probes so far, in order.
        weights: goal weight of each task.
        spent: units that probes and evaluations took so far.
    """
    by_optimizer: dict[Optimizer, list[Probe]] = {name: [] for name in design.rates}
    for probe in done:
        by_optimizer[probe.recipe.optimizer].append(probe)
    # AdamW first: its bounded steps survive a guessed rate more often, should the budget end after one probe
    for name in sorted(by_optimizer, key=lambda o: (len(by_optimizer[o]), o != "adamw")):
        if len(by_optimizer[name]) >= PROBES_PER_OPTIMIZER:
            continue
        recipe = _next_for_optimizer(design, name, by_optimizer[name], weights)
        if recipe is None:
            continue
        if spent + design.cost(recipe, first=not by_optimizer[name]) <= design.budget:
            return recipe
    return None


def _next_for_optimizer(
    design: ProbeDesign, optimizer: Optimizer, probes: Sequence[Probe], weights: Mapping[str, float]
) -> Recipe | None:
    small, large = design.batch_sizes
    low, high = design.rates[optimizer]

    def recipe(rate: float, batch_size: int) -> Recipe:
        return Recipe(learning_rate=rate, batch_size=batch_size, steps=design.steps(batch_size), optimizer=optimizer)

    if not probes:
        return recipe(design.anchors[optimizer], small)
    at_small = sorted(
        (p for p in probes if p.recipe.batch_size == small and p.recipe.schedule == "constant"),
        key=lambda p: p.recipe.learning_rate,
    )
    lowest, highest = at_small[0], at_small[-1]
    winner = max(at_small, key=lambda p: p.gain(weights))
    best = winner.recipe.learning_rate
    down = winner is lowest and (len(at_small) > 1 or winner.hurts(weights))
    if down and best > low * 1.01:
        return recipe(max(low, best / RATE_FACTOR), small)
    if winner is highest and best < high / 1.01:
        return recipe(min(high, best * RATE_FACTOR), small)
    tried_large = [p for p in probes if p.recipe.batch_size == large]
    if large > small and not tried_large:
        return recipe(best, large)
    if large > small and len(tried_large) == 1 and best * RATE_FACTOR <= high * 1.01:
        return recipe(best * RATE_FACTOR, large)
    below = lowest.recipe.learning_rate / RATE_FACTOR
    return recipe(below, small) if below >= low / 1.01 else None


def next_coefficient(rungs: Sequence[tuple[float, float]]) -> float | None:
    """The next coefficient of the ladder, given (coefficient, gain) so far; ``None`` after ``RUNGS`` of them.

    Up while merging helps, down while it hurts; between the two, once it is bracketed.

    >>> next_coefficient([]), next_coefficient([(0.35, 0.1)]), next_coefficient([(0.35, -0.1)])
    (0.35, 1.0, 0.12)
    >>> round(next_coefficient([(0.35, 0.1), (1.0, -0.2)]), 2)
    0.59
    """
    if len(rungs) >= RUNGS:
        return None
    if not rungs:
        return LADDER[FIRST_RUNG]
    last, gain = rungs[-1]
    better = [value for value, measured in rungs if measured > 0]
    worse = [value for value, measured in rungs if not measured > 0]
    if better and worse:
        return math.sqrt(max(better) * min(worse))
    rung = min(range(len(LADDER)), key=lambda number: abs(LADDER[number] - last))
    return LADDER[rung + (1 if gain > 0 else -1)]


def early_step(recipe: Recipe) -> int:
    """The step of a probe's early merge."""
    return max(1, recipe.steps // 3)


def coefficient_scale(num_tasks: int) -> float:
    """Coefficients of probes are scaled down by 4/N from five tasks on, where sums of many task vectors grow."""
    return min(1.0, 4.0 / num_tasks)


def further_merges(
    recipe: Recipe, num_tasks: int, *, best: float, alone: str | None = None, methods: Sequence[str] = ()
) -> list[MergePoint]:
    """Merges beside the ladder: early, one expert alone, other methods.

    >>> recipe = Recipe(learning_rate=0.1, batch_size=8, steps=30)
    >>> [(point.step, point.coefficient) for point in further_merges(recipe, 4, best=0.35)]
    [(10, 1.05)]
    """
    early, last = early_step(recipe), recipe.steps
    scale = coefficient_scale(num_tasks)

    def times(factor: float) -> float:
        return round(min(LARGEST, factor * best), 6)

    points = [MergePoint(step=early, coefficient=times(EARLY_FACTOR) * scale)] if early < last else []
    if alone is not None and num_tasks > 1:
        points.append(MergePoint(step=last, coefficient=times(ALONE_FACTOR), alone=alone))
    return points + [
        MergePoint(step=last, coefficient=times(factor) * scale, method=method)
        for method in methods
        if method != LINEAR_METHOD
        for factor in METHOD_FACTORS
    ]


def measured_gain(merge: MergeObservation, weights: Mapping[str, float]) -> float:
    """Fall of the goal risk below x_0, nats; -inf if the merge diverged."""
    total = sum(weights[task] for task in merge.risks)
    return sum(weights[t] / total * (merge.initial_risks[t] - merge.risks[t]) for t in merge.risks)
