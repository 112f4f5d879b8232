r"""Probes: which short fine-tunes to run, one after another, and what is measured on them.

A probe trains every task with one short recipe and merges the experts at several coefficients, up to
``LAMBDAS[-1]``: merging short probes with large coefficients shows the interference that long fine-tunes will have, for
the price of an evaluation.  For each optimizer the rates are bracketed: start at an anchor below the measured edge (a
quarter of 2/L for SGD), go up by ``RATE_FACTOR`` while merging helps, down while it hurts, then vary the batch size at
the best rate.

``next_probe`` is a pure function of the design and of the probes done, so a resumed session continues as if it had
never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from advisor.observations import DisplacementTrace, MergeObservation
from estimators.constants import Constants
from estimators.cost import FORWARD_UNITS
from estimators.recipe import DEFAULT_MOMENTUM, Optimizer, Recipe

RATE_FACTOR = math.sqrt(10.0)
LAMBDAS = (0.35, 1.0, 3.0)
EARLY_LAMBDAS = (2.0,)  # at a third of the probe's steps
ALONE_LAMBDA = 1.5  # one expert alone, a different one on each probe: who helps and who hurts whom
METHOD_LAMBDAS = (0.7, 2.0)  # for each further merge method, on the first probe of each optimizer
LINEAR_METHOD = "task_arithmetic"
PROBES_PER_OPTIMIZER = 5
ANCHOR_BELOW_EDGE = 4.0  # the first SGD probe runs at 2/L divided by this
EVALUATION_SAMPLES = 96  # validation samples a task for each merged evaluation
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
    """

    tasks: tuple[str, ...]
    rates: Mapping[Optimizer, tuple[float, float]]
    batch_sizes: tuple[int, int]
    max_steps: int
    budget: float
    evaluation_samples: int
    anchors: Mapping[Optimizer, float]
    methods: tuple[str, ...] = (LINEAR_METHOD,)

    def steps(self, batch_size: int) -> int:
        """Steps of a probe at a batch size: equal cost for each, never above a quarter of K_max.

        The budget divided by ``PROBES_PER_OPTIMIZER`` probes an optimizer, but rather fewer probes than probes so short
        that evaluating them costs more than half of training them.
        """
        evaluation = (len(LAMBDAS) + len(EARLY_LAMBDAS) + 1) * self.merge_cost()
        share = self.budget / (len(self.rates) * PROBES_PER_OPTIMIZER) - evaluation
        training = max(share, TRAINING_TO_EVALUATION * evaluation)
        longest = max(SHORTEST_PROBE, int(LONGEST_SHARE * self.max_steps))
        affordable = int(min(training, self.budget - evaluation) / (len(self.tasks) * batch_size))
        return max(SHORTEST_PROBE, min(affordable, longest))

    def merge_cost(self) -> float:
        """Units of evaluating one merge on all tasks."""
        return len(self.tasks) * self.evaluation_samples * FORWARD_UNITS

    def merges(self, recipe: Recipe, *, number: int, first: bool) -> list[MergePoint]:
        """What to measure on probe ``number``; ``first`` says that it is the first of its optimizer."""
        alone = self.tasks[number % len(self.tasks)]
        return merges_to_measure(recipe, len(self.tasks), alone=alone, methods=self.methods if first else ())

    def cost(self, recipe: Recipe, *, first: bool) -> float:
        """Units of one probe: training and its merged evaluations."""
        return len(self.tasks) * recipe.cost() + len(self.merges(recipe, number=0, first=first)) * self.merge_cost()


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
        return max((_gain(merge, weights) for merge in self.merges), default=-math.inf)

    def hurts(self, weights: Mapping[str, float]) -> bool:
        """Whether even the smallest coefficient at the last step is no better than x_0 beyond its noise."""
        linear = [m for m in self.merges if m.plan.method == LINEAR_METHOD and all(m.plan.coefficients.values())]
        last = [merge for merge in linear if _steps(merge) == self.recipe.steps] or linear
        if not last:
            return True
        smallest = min(last, key=lambda merge: max(merge.plan.coefficients.values()))
        total = sum(weights.values())
        error = math.sqrt(sum((weights[t] / total * smallest.noise[t]) ** 2 for t in smallest.risks))
        return not _gain(smallest, weights) > -2 * error


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
    cheapest_cost = design.cost(cheapest, first=True)
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
    for name in sorted(by_optimizer, key=lambda o: len(by_optimizer[o])):
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
    if lowest.hurts(weights) and lowest.recipe.learning_rate > low * 1.01:
        return recipe(max(low, lowest.recipe.learning_rate / RATE_FACTOR), small)
    if not highest.hurts(weights) and highest.recipe.learning_rate < high / 1.01:
        return recipe(min(high, highest.recipe.learning_rate * RATE_FACTOR), small)
    best = max(at_small, key=lambda p: p.gain(weights)).recipe.learning_rate
    tried_large = [p for p in probes if p.recipe.batch_size == large]
    if large > small and not tried_large:
        return recipe(best, large)
    if large > small and len(tried_large) == 1 and best * RATE_FACTOR <= high * 1.01:
        return recipe(best * RATE_FACTOR, large)
    below = lowest.recipe.learning_rate / RATE_FACTOR
    return recipe(below, small) if below >= low / 1.01 else None


def merges_to_measure(
    recipe: Recipe, num_tasks: int, *, alone: str | None = None, methods: Sequence[str] = ()
) -> list[MergePoint]:
    """Merges at which a probe's experts are evaluated: linear ones early and late, one expert alone, other methods.

    Coefficients are scaled down by 4/N from five tasks on, where sums of many task vectors grow.

    >>> [(p.step, p.coefficient) for p in merges_to_measure(Recipe(learning_rate=0.1, batch_size=8, steps=30), 4)]
    [(10, 2.0), (30, 0.35), (30, 1.0), (30, 3.0)]
    """
    early, last = max(1, recipe.steps // 3), recipe.steps
    scale = min(1.0, 4.0 / num_tasks)
    points = [MergePoint(step=early, coefficient=value * scale) for value in EARLY_LAMBDAS if early < last]
    points += [MergePoint(step=last, coefficient=value * scale) for value in LAMBDAS]
    if alone is not None and num_tasks > 1:
        points.append(MergePoint(step=last, coefficient=ALONE_LAMBDA, alone=alone))
    return points + [
        MergePoint(step=last, coefficient=value * scale, method=method)
        for method in methods
        if method != LINEAR_METHOD
        for value in METHOD_LAMBDAS
    ]


def _steps(merge: MergeObservation) -> int:
    return max(recipe.steps for recipe in merge.plan.recipes.values())


def _gain(merge: MergeObservation, weights: Mapping[str, float]) -> float:
    total = sum(weights[task] for task in merge.risks)
    return sum(weights[t] / total * (merge.initial_risks[t] - merge.risks[t]) for t in merge.risks)
