r"""Coefficients for each layer group: a short descent from the task-wise best, with exact gradients.

    min over lambda [G, N] of  goal(lambda) + strength/2 ||x(lambda) - x(lambda_task)||^2 / ||x(lambda_task) - x_0||^2

One backward pass gives all G N derivatives (``Recombination.project``), so a step costs three evaluations whatever G
is: L-BFGS-B in the box, about ``max_steps`` evaluations with gradients.  G N coefficients fit the samples better than
N do even where layers do not differ; the result is kept only where it gains more than that would: (G - 1) N / n nats
for n samples in all, the optimism of as many coefficients (Akaike 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_descent import descend
from advisor.coefficients_evidence import Criterion
from advisor.coefficients_memory import Answer, MeasuredMemory, key_of
from advisor.coefficients_problem import TuningProblem

FloatArray = NDArray[np.float64]
STRENGTH = 0.02  # nats for a change as long as the merge itself


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerOutcome:
    """How the descent ended.

    Attributes:
        row: coefficients [G N], group by group.
        goal: goal there; that of the start where nothing was gained.
        kept: whether it gains more than chance would.
        steps: evaluations with gradients.
    """

    row: FloatArray
    goal: float
    kept: bool
    steps: int


def descend_layers(
    problem: TuningProblem,
    criterion: Criterion,
    start: FloatArray,
    *,
    bounds: tuple[float, float],
    max_steps: int,
    memory: MeasuredMemory | None = None,
    question: str = "",
) -> LayerOutcome:
    """Descend from task-wise coefficients [N].

    Args:
        problem: with layer groups in its merges.
        criterion: the goal.
        start: the task-wise best [N].
        bounds: smallest and largest coefficient.
        max_steps: most evaluations with gradients.
        memory: answers of an earlier descent, and where these are kept.
        question: identity of experts, samples and goal.
    """
    memory = memory or MeasuredMemory()
    groups = len(problem.merges.groups)
    first = np.tile(start, groups)
    gram = problem.merges.gram()
    size = max(float(first @ gram @ first), 1e-12)
    seen: list[tuple[float, float, FloatArray]] = []

    def loss(row: FloatArray) -> tuple[float, FloatArray]:
        key = key_of("layers", question, list(problem.merges.groups), row)
        known = memory.find(key)
        if known is None:
            known = _measure(problem, criterion, row)
            memory.keep(key, known)
        goal = float(known["goal"][0])
        if not np.isfinite(goal):
            return 1e6, np.zeros_like(row)
        away = row - first
        pulled = STRENGTH / size * (gram @ away)
        total = goal + float(away @ pulled) / 2
        seen.append((total, goal, row.copy()))
        return total, known["slope"] + pulled

    descend(loss, first, [bounds] * len(first), max_steps=max_steps)
    _, goal, row = min(seen, key=lambda cell: cell[0])
    samples = sum(len(e.weights) for e in criterion.evidence.values())
    chance = (groups - 1) * len(start) / samples
    return LayerOutcome(row=row, goal=goal, kept=seen[0][1] - goal > chance, steps=len(seen))


def _measure(problem: TuningProblem, criterion: Criterion, row: FloatArray) -> Answer:
    """Goal and its derivatives [G N]; an infinite goal where the merge broke."""
    weights = problem.merges.weights(row)
    values = problem.logits(weights)
    if not np.isfinite(values).all():
        return {"goal": np.array([np.inf]), "slope": np.zeros_like(row)}
    goal, slope = criterion.value_and_slope(values)
    return {"goal": np.array([goal]), "slope": problem.pull(weights, slope)}
