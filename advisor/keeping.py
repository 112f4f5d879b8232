r"""After a refit: keep the experts that were trained, or train others?

Experts that are there cost nothing more, and their merges were measured; every other plan is a prediction, and the best
of many predictions is on average too good.  So the trained recipes stay advised, at the coefficients that are best by
the refitted model, unless another plan's cautious goal (``advisor.searching``) lies below theirs by more than
``WORTH_TRAINING`` of x_0's risk.  The best of the search is then listed as an alternative.  Experts or coefficients
outside the search, which its owner may have narrowed since, are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.advice import Caveat
from advisor.observations import MergeObservation
from advisor.plan import Plan, PlanTable
from advisor.searching import allows, cautious_risk
from advisor.situation import Situation
from advisor.what_if import WhatIf, with_coefficients

MEASURED_SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)  # of the advised coefficients, measured on validation data before a refit
TRIED_SCALES = (0.8, 0.85, 0.92, 1.0, 1.08, 1.16, 1.25)  # of measured coefficients: what lies between, little beyond
WORTH_TRAINING = 0.02  # share of x_0's goal risk
KEPT = Caveat(
    name="experts_kept",
    text="The experts that were trained stay, with the coefficients that the refitted model finds best for them: no "
    f"other plan is predicted to be better by more than {WORTH_TRAINING:.0%} of the pretrained model's risk.",
)


def is_worth_training(kept: float, other: float, initial: float) -> bool:
    """Whether another plan's cautious goal is far enough below that of the trained experts, nats.

    >>> is_worth_training(0.80, 0.79, 1.0), is_worth_training(0.80, 0.77, 1.0)
    (False, True)
    """
    return kept - other > WORTH_TRAINING * initial


def scaled(plan: Plan, scale: float) -> Plan:
    """The same recipes with every coefficient multiplied."""
    return with_coefficients(plan, {name: value * scale for name, value in plan.coefficients.items()})


def best_trained(ask: WhatIf, merges: Sequence[MergeObservation], situation: Situation) -> tuple[Plan, float] | None:
    """The lowest cautious goal among merges of trained experts, with its plan; ``None`` if none is there.

    Args:
        ask: the refitted model under the project's goal.
        merges: what was measured of trained experts; those that diverged are no choice.
        situation: holds the search and the methods that a plan must keep to.
    """
    names = ask.model.scales_.names
    whole = [merge for merge in merges if merge.plan.names == names]
    trained = [merge.plan for merge in whole if np.isfinite(list(merge.risks.values())).all()]
    tried = [scaled(plan, scale) for plan in trained for scale in TRIED_SCALES]
    plans = [plan for plan in tried if allows(situation.search, situation.methods, plan)]
    if not plans:
        return None
    risk = cautious_risk(ask, PlanTable.from_plans(plans, ask.model.constants_.num_samples))
    goals = np.where(risk.violation <= 0, risk.goal, np.inf)
    best = int(np.argmin(goals))
    return (plans[best], float(goals[best])) if np.isfinite(goals[best]) else None


def keep_trained(
    ask: WhatIf, merges: Sequence[MergeObservation], situation: Situation, best_goal: float
) -> Plan | None:
    """The trained plan if no other is worth training.

    Args:
        ask: the refitted model under the project's goal.
        merges: what was measured of trained experts.
        situation: holds the search and the methods that a plan must keep to.
        best_goal: cautious goal of the search's best plan.
    """
    found = best_trained(ask, merges, situation)
    if found is None:
        return None
    plan, goal = found
    initial = float(ask.goal.of_array(ask.model.scales_.initial_risk[None])[0])
    return None if is_worth_training(goal, best_goal, initial) else plan
