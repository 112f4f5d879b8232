r"""Figures 0 and 1: how well predictions order the recipes, and how well anything could.

Rank correlations are Spearman's, between predicted and measured test goal, over merges that were not probed and are at
least ``LONGER`` times longer than any probe: overall; in the useful region (better than x_0); and the worst stratum,
the lowest value when one knob is held fixed inside the useful region.  A correlation that comes only from collapse at
large learning rates vanishes in the last two (Simpson's paradox).

The ceiling is the same correlation between two seeds' measured risks of the same plans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from advisor.plan import Plan
from benchmarks.suite_format import FloatArray, IntArray, Suite

LONGER = 4
SMALLEST_STRATUM = 15
RANKED_KINDS = ("uniform", "alone", "mixed", "subset", "method")

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Rank correlations; NaN where too few rows are there.

    Attributes:
        overall: over all rows.
        useful: over rows better than x_0.
        worst: lowest value over strata of the useful region.
        worst_stratum: which one.
        rows: how many rows.
        useful_rows: how many of them are useful.
    """

    overall: float
    useful: float
    worst: float
    worst_stratum: str
    rows: int
    useful_rows: int


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Spearman's correlation; infinite values are tied at the top; NaN for fewer than three rows.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, np.inf])), 3)
    1.0
    """
    if len(a) < 3:
        return math.nan
    ranks = rankdata(a), rankdata(b)
    if ranks[0].std() == 0 or ranks[1].std() == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def unseen_rows(suite: Suite, seed: int, seen: frozenset[int], longest: int) -> IntArray:
    """Rows not probed and on average at least ``LONGER`` times longer than the longest probe."""
    rows = suite.rows(seed, RANKED_KINDS)
    long_enough = [np.mean(suite.groups[int(suite.group[row])].steps) >= LONGER * longest for row in rows]
    unseen = [int(row) not in seen for row in rows]
    return np.asarray(rows[np.array(long_enough, dtype=bool) & np.array(unseen, dtype=bool)])


def strata(plans: Sequence[Plan]) -> list[dict[str, str]]:
    """Knob -> value of every plan with equal recipes; an empty entry for the others."""
    found: list[dict[str, str]] = []
    for plan in plans:
        recipes, values = set(plan.recipes.values()), set(plan.coefficients.values())
        if len(recipes) > 1 or len(values) > 1:
            found.append({})
            continue
        recipe = next(iter(recipes))
        found.append(
            {
                "learning rate": f"{recipe.optimizer} {recipe.learning_rate:g}",
                "batch size": str(recipe.batch_size),
                "steps": str(recipe.steps),
                "coefficient": f"{next(iter(values)):g}",
                "method": plan.method,
            }
        )
    return found


def rank(predicted: FloatArray, measured: FloatArray, useful: BoolArray, knobs: Sequence[Mapping[str, str]]) -> Ranks:
    """All three correlations.

    Args:
        predicted: [M] predicted goal.
        measured: [M] measured goal.
        useful: [M] whether the row counts as better than x_0.
        knobs: [M] knob -> value.
    """
    worst, name = math.nan, ""
    cells = sorted({(knob, value) for row in knobs for knob, value in row.items()})
    for knob, value in cells:
        inside = useful & np.array([row.get(knob) == value for row in knobs])
        if inside.sum() < SMALLEST_STRATUM:
            continue
        here = spearman(predicted[inside], measured[inside])
        if not here >= worst and not math.isnan(here):
            worst, name = here, f"{knob} {value}"
    return Ranks(
        overall=spearman(predicted, measured),
        useful=spearman(predicted[useful], measured[useful]),
        worst=worst,
        worst_stratum=name,
        rows=len(measured),
        useful_rows=int(useful.sum()),
    )


def ceiling(suite: Suite, first: int, second: int, longest: int) -> Ranks:
    """The same correlations between two seeds' measured risks of the same plans; useful by the second seed."""
    rows = {seed: unseen_rows(suite, seed, frozenset(), longest) for seed in (first, second)}
    keyed = {seed: {_key(suite, int(row)): int(row) for row in found} for seed, found in rows.items()}
    common = [key for key in keyed[first] if key in keyed[second]]
    pairs = {seed: np.array([keyed[seed][key] for key in common], dtype=np.int64) for seed in (first, second)}
    if not common:
        return Ranks(overall=math.nan, useful=math.nan, worst=math.nan, worst_stratum="", rows=0, useful_rows=0)
    measured = {seed: suite.goal(pairs[seed]) for seed in (first, second)}
    useful = measured[second] < suite.initial(second).mean()
    return rank(measured[first], measured[second], useful, strata([suite.plan(int(r)) for r in pairs[second]]))


def noise_floor(suite: Suite, first: int, second: int) -> float:
    """Regret on the second seed of the recipe that is best on the first; NaN where nothing beats x_0."""
    rows = {seed: suite.rows(seed) for seed in (first, second)}
    keyed = {_key(suite, int(row)): int(row) for row in rows[second]}
    goal = suite.goal(rows[second])
    initial, best = float(suite.initial(second).mean()), float(goal.min())
    if best >= initial:
        return math.nan
    chosen = _key(suite, int(rows[first][int(np.argmin(suite.goal(rows[first])))]))
    risk = float(suite.goal(np.array([keyed[chosen]]))[0]) if chosen in keyed else math.inf
    return (min(risk, 1e6) - best) / (initial - best)


def _key(suite: Suite, row: int) -> tuple[object, ...]:
    group = suite.groups[int(suite.group[row])]
    return group.recipes, group.steps, tuple(suite.coefficients[row].tolist()), str(suite.method[row])
