"""The last metres of a study: from the best plan found so far to the nearest minimum.

Three moves alternate, each a few vectorised calls of the risk:
1. descent over the continuous knobs (``studies/descent.py``), from all starts at once;
2. hops: another optimizer, schedule or method, the next batch size, a tenth of the range of steps, for all tasks alike;
   after each the continuous knobs find their new minimum (1) before plans are compared;
3. pattern search over all knobs.  At each scale from 1/4 to 1/4096 of a range it evaluates every single move, every
   move of one field for all tasks together, and pairs (raise the learning rate *and* shorten), and takes the best.
Nothing is random but which pairs are tried where there are more than ``MAX_PAIRS``; that is seeded.  Infeasible plans
rank behind feasible ones throughout (``studies/evaluation.py``), so the result is never worse than the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studies.descent import Movable, descend
from studies.evaluation import Evaluations, Evaluator
from studies.knobs import FloatArray

SCALES = tuple(2.0**-k for k in range(2, 13))
MAX_PAIRS = 2048
MOVES_A_SCALE = 32
HOP = 0.1  # of a range, at least one value
HOP_ITERATIONS, HOP_PASSES = 25, 2  # enough to compare plans; the winner is descended to the end
KEPT = 16  # evaluations kept from each call; they feed the near-optimal set


@dataclass(frozen=True, slots=True, kw_only=True)
class Polished:
    """A polished plan: the path to it, its evaluations, best last, and how many plans were evaluated."""

    path: Evaluations
    evaluated: int

    @property
    def best(self) -> Evaluations:
        """The polished plan alone."""
        return self.path.take([-1])


def polish(
    space: Movable,
    evaluate: Evaluator,
    starts: FloatArray,
    *,
    seed: int,
    rounds: int = 2,
    smooth: bool = True,
    scales: Sequence[float] = SCALES,
) -> Polished:
    """Improve the best of some plans.

    Args:
        space: the search space.
        evaluate: points to evaluated plans.
        starts: [S, D] points of the unit cube; after the first descent only the best plan goes on.
        seed: chooses among pairs of moves where there are too many.
        rounds: how often the moves alternate.
        smooth: whether to descend and hop; without, the pattern search works alone, from the best start.
        scales: of the pattern search, in shares of a range.
    """
    known = evaluate(starts)
    kept, evaluated = [known], len(known)
    rng = np.random.default_rng(seed)
    here = known.take([known.best()])
    for number in range(rounds):
        before = here
        if smooth:
            around = known.units if number == 0 else here.units
            landed, count = land(space, evaluate, around)
            evaluated += count
            kept.append(landed)
            best = landed.take([landed.best()])
            here = best if better(best, here) else here
            here, count = descend(space, evaluate, here)
            evaluated += count
        for scale in scales:
            here, seen, count = _search(space, evaluate, here, scale, rng)
            kept += seen
            evaluated += count
        if number and not better(here, before):
            break
    kept.append(here)
    return Polished(path=Evaluations.join(kept), evaluated=evaluated)


def land(space: Movable, evaluate: Evaluator, units: FloatArray) -> tuple[Evaluations, int]:
    """Where the plans ``units`` [S, D] and all plans one hop away land after a short descent; how many evaluations."""
    points = np.vstack([units, *(np.reshape(hops(space, unit), (-1, len(unit))) for unit in units)])
    landed, count = descend(space, evaluate, evaluate(points), iterations=HOP_ITERATIONS, passes=HOP_PASSES)
    return landed, count + len(points)


def better(first: Evaluations, second: Evaluations) -> bool:
    """Whether one plan is better than another by more than rounding."""
    a, b = first.feasible[0], second.feasible[0]
    if a != b:
        return bool(a)
    x, y = (first.goal[0], second.goal[0]) if a else (first.violation[0], second.violation[0])
    return bool(x < y - 1e-12 * max(1.0, abs(y)))


def _search(
    space: Movable, evaluate: Evaluator, here: Evaluations, scale: float, rng: np.random.Generator
) -> tuple[Evaluations, list[Evaluations], int]:
    """Pattern search at one scale: the best plan, evaluations worth keeping, how many were made."""
    seen, count = [], 0
    for _ in range(MOVES_A_SCALE):
        unit = here.units[0]
        points = candidates(space, unit, scale, rng)
        if not len(points):
            break
        found = evaluate(points)
        count += len(points)
        order = found.order()
        seen.append(found.take(order[:KEPT]))
        best = found.take(order[:1])
        if not better(best, here):
            break
        # Going on in the same direction often pays: twice and four times the move, where it stays inside.
        further = np.clip(unit + np.array([[2.0], [4.0]]) * (best.units[0] - unit), 0.0, 1.0)
        longer = evaluate(further)
        count += len(further)
        longest = longer.take([longer.best()])
        here = longest if better(longest, best) else best
    return here, seen, count


def candidates(space: Movable, unit: FloatArray, scale: float, rng: np.random.Generator) -> FloatArray:
    """Points to try around ``unit``: single moves, the same move for all tasks, and pairs of these."""
    moves = space.neighbours(unit, scale) - unit
    if not len(moves):
        return moves
    groups: dict[tuple[str, bool], FloatArray] = {}
    for move in moves:
        index = int(np.flatnonzero(move)[0]) if move.any() else 0
        knob = space.knobs[index]
        if knob.task is not None and not knob.categorical:
            key = (knob.field, bool(move[index] > 0))
            groups[key] = groups.get(key, np.zeros_like(unit)) + move
    atoms = np.vstack([moves, *groups.values()])
    first, second = np.triu_indices(len(atoms), k=1)
    disjoint = ~((atoms[first] != 0) & (atoms[second] != 0)).any(axis=1)
    first, second = first[disjoint], second[disjoint]
    if len(first) > MAX_PAIRS:
        chosen = np.sort(rng.choice(len(first), MAX_PAIRS, replace=False))
        first, second = first[chosen], second[chosen]
    return np.asarray(np.clip(unit + np.vstack([atoms, atoms[first] + atoms[second]]), 0.0, 1.0))


def moved(unit: FloatArray, scale: float) -> FloatArray:
    """Points [C, D] that differ from ``unit`` [D] in one coordinate by ``scale``, cut at the edge of the unit cube."""
    steps = np.vstack([np.eye(len(unit)), -np.eye(len(unit))]) * scale
    points = np.clip(unit + steps, 0.0, 1.0)
    return np.asarray(points[(points != unit).any(axis=1)])


def hops(space: Movable, unit: FloatArray) -> list[FloatArray]:
    """Points [D] one hop away: every knob of one field that is not continuous moves at once, the others stay."""
    found = []
    for field in dict.fromkeys(knob.field for knob in space.knobs if not knob.continuous):
        members = [index for index, knob in enumerate(space.knobs) if knob.field == field]
        knob = space.knobs[members[0]]
        if knob.categorical:
            for k in range(len(knob.choices)):
                point = unit.copy()
                point[members] = (k + 0.5) / len(knob.choices)
                found.append(point)
        else:
            moves = space.neighbours(unit, HOP) - unit
            for side in (-1, 1):
                own = [move for move in moves if any(side * move[index] > 0 for index in members)]
                if own:
                    found.append(np.clip(unit + np.sum(own, axis=0), 0.0, 1.0))
    return found
