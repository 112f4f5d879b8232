r"""After a refit: keep the experts that were trained, or train others?

Experts that are there cost nothing more, and their merges were measured; every other plan is a prediction, and the best
of many predictions is on average too good.  So the trained recipes stay advised, at the coefficients that are best by
the refitted model, unless another plan's cautious goal (``advisor.searching``) lies below theirs by more than
``WORTH_TRAINING`` of x_0's risk.  The best of the search is then listed as an alternative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.advice import Caveat
from advisor.observations import MergeObservation
from advisor.plan import Plan, PlanTable
from advisor.searching import cautious_risk
from advisor.what_if import WhatIf, with_coefficients

MEASURED_SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)  # of the advised coefficients, measured on validation data before a refit
WORTH_TRAINING = 0.02  # share of x_0's goal risk
KEPT = Caveat(
    name="experts_kept",
    text="The experts that were trained stay, with the coefficients that the refitted model finds best for them: no "
    f"other plan is predicted to be better by more than {WORTH_TRAINING:.0%} of the pretrained model's risk.",
)
TRIED_SCALES = tuple(float(scale) for scale in np.geomspace(0.4, 2.5, 23))  # of measured coefficients; 1 among them


def scaled(plan: Plan, scale: float) -> Plan:
    """The same recipes with every coefficient multiplied."""
    return with_coefficients(plan, {name: value * scale for name, value in plan.coefficients.items()})


def best_trained(ask: WhatIf, merges: Sequence[MergeObservation]) -> tuple[Plan, float] | None:
    """The lowest cautious goal among merges of trained experts, with its plan; ``None`` if none is there.

    Args:
        ask: the refitted model under the project's goal.
        merges: what was measured of trained experts; those that diverged are no choice.
    """
    names = ask.model.scales_.names
    whole = [merge for merge in merges if merge.plan.names == names]
    trained = [merge.plan for merge in whole if np.isfinite(list(merge.risks.values())).all()]
    if not trained:
        return None
    plans = [scaled(plan, scale) for plan in trained for scale in TRIED_SCALES]
    table = PlanTable.from_plans(plans, ask.model.constants_.num_samples)
    risk = cautious_risk(ask, table)
    if not (risk.violation <= 0).any():
        return None
    goals = np.where(risk.violation <= 0, risk.goal, np.inf)
    best = int(np.argmin(goals))
    return plans[best], float(goals[best])


def keep_trained(ask: WhatIf, merges: Sequence[MergeObservation], best_goal: float) -> Plan | None:
    """The trained plan if no other is worth training.

    Args:
        ask: the refitted model under the project's goal.
        merges: what was measured of trained experts.
        best_goal: cautious goal of the search's best plan.
    """
    found = best_trained(ask, merges)
    if found is None:
        return None
    plan, goal = found
    initial_goal = float(ask.goal.of_array(ask.model.scales_.initial_risk[None])[0])
    return plan if goal - best_goal <= WORTH_TRAINING * initial_goal else None
