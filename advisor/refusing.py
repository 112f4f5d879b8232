r"""Advice where no plan can be advised: nothing could be fitted, or nothing meets the limits that were set.

Refusing is an answer like any other, with numbers, reasons and a way on.  Where nothing could be fitted the only model
whose risk is known is x_0, so that is what the plan says: all coefficients 0, predicted risk

    r_0 (1 +- z90 s),    s the relative standard error of r_0 from the samples that it was measured on

Where no plan meets the limits, the plan that comes nearest is described, with what each limit asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from advisor.advice import Caveat, Predicted, Recommendation
from advisor.caveats import find_caveats
from advisor.exposure import Z90, TaskScales
from advisor.goal import Goal
from advisor.observations import ProbeData
from advisor.plan import Plan
from advisor.situation import Situation
from estimators.recipe import Recipe

SLOWER = 10.0  # the recipe to try next is so many times slower than the slowest probe


def refuse_unfitted(probes: ProbeData, goal: Goal, situation: Situation, why: str) -> Recommendation:
    """Refused advice where the probes allow no fit: x_0 as it is, and what to try next.

    Args:
        probes: what was measured.
        goal: the project's goal.
        situation: what the advice starts from.
        why: why nothing could be fitted, with the next step.
    """
    scales = TaskScales.from_constants(probes.constants).with_initial(probes.merges)
    tasks = {
        name: Predicted(value=float(r), low=float(r * max(0.0, 1 - Z90 * s)), high=float(r * (1 + Z90 * s)))
        for name, r, s in zip(scales.names, scales.initial_risk, scales.initial_spread, strict=True)
    }
    initial = {name: cell.value for name, cell in tasks.items()}
    value = goal.of(initial)
    whole = Predicted(
        value=value,
        low=min(value, goal.of({name: cell.low for name, cell in tasks.items()})),
        high=max(value, goal.of({name: cell.high for name, cell in tasks.items()})),
    )
    plan = Plan.uniform(scales.names, slower_recipe(probes, situation), 0.0)
    caveats = find_caveats(
        plan,
        constants=situation.constants,
        probes=situation.probes,
        gain=Predicted(value=0.0, low=0.0, high=0.0),
        extrapolation=1.0,
        edges_of_space=(),
        range_suggestion=None,
        notes=situation.notes,
        broken_assumptions=situation.broken_assumptions(plan),
    )
    unfitted = Caveat(name="nothing_fitted", text=f"No risk model could be fitted: {why}.", weight="warning")
    return Recommendation(
        status="refuse",
        answer="do_not_merge",
        sentence=f"Don't merge: nothing can be predicted, since {why}.  The pretrained model as it is has goal risk "
        f"{value:.3f} [{whole.low:.3f}, {whole.high:.3f}].",
        plan=plan,
        tasks=tasks,
        goal=whole,
        initial_tasks=initial,
        initial_goal=value,
        floor={},
        terms={name: {"pretrained": risk} for name, risk in initial.items()},
        edges={},
        displacement={},
        turning_point=None,
        elasticities={},
        reasons=(
            "Coefficients 0: the pretrained model is the only one whose risk is known, "
            f"{_listed(initial)} nats on validation data.",
            *_seen(probes),
        ),
        caveats=(unfitted, *(caveat for caveat in caveats if caveat.name != "gain_uncertain")),
        alternatives=(),
        pareto=(),
        extrapolation=1.0,
        cost=dict(situation.cost),
        full_fine_tune=situation.full_fine_tune,
        training_cost=float(plan.training_cost()),
        seconds=situation.seconds,
    )


def slower_recipe(probes: ProbeData, situation: Situation) -> Recipe:
    """The recipe to try next where every probe diverged: the slowest probe's, ``SLOWER`` times slower."""
    tried = [recipe for merge in probes.merges for recipe in merge.plan.recipes.values()]
    if tried:
        slowest = min(tried, key=lambda recipe: recipe.learning_rate)
        return slowest.replace(learning_rate=slowest.learning_rate / SLOWER)
    optimizer, (low, _) = next(iter(situation.search.learning_rate.items()))
    return Recipe(
        learning_rate=low,
        batch_size=min(situation.search.batch_size[0], *situation.num_samples.values()),
        steps=situation.search.steps[0],
        optimizer=optimizer,
    )


def refuse_infeasible(found: Recommendation, goal: Goal, situation: Situation) -> Recommendation:
    """Refused advice where every plan breaks a limit; ``found`` describes the plan that comes nearest."""
    broken = _broken_limits(found, goal, situation)
    nearest = f"the plan that comes nearest is predicted at {found.goal.value:.3f} against {found.initial_goal:.3f}"
    caveat = Caveat(name="no_feasible_plan", text=" ".join(broken), weight="warning")
    return dataclasses.replace(
        found,
        status="refuse",
        answer="do_not_merge",
        sentence=f"Don't merge: no plan of the search meets the limits ({nearest}).  {' '.join(broken)}",
        caveats=(caveat, *found.caveats),
    )


def _broken_limits(found: Recommendation, goal: Goal, situation: Situation) -> list[str]:
    said = []
    if goal.max_drop is not None:
        losses = {name: cell.value - found.initial_tasks[name] for name, cell in found.tasks.items()}
        worst = max(losses, key=lambda name: losses[name])
        if losses[worst] > goal.max_drop:
            said.append(
                f"objective.max_drop={goal.max_drop:g}: it is predicted to lose {losses[worst]:.3g} nats on {worst}; "
                "allow a larger drop, or let search.coefficients.range begin at 0."
            )
    left = situation.affordable
    if left is not None and found.training_cost > left:
        said.append(
            f"max_cost leaves {max(left, 0.0):,.0f} per-sample gradients for training, the cheapest plan takes "
            f"{found.training_cost:,.0f}; raise --max-cost by {found.training_cost - max(left, 0.0):,.0f}, or let "
            "search.steps and search.batch_size begin lower."
        )
    return said or ["Every limit can be met alone, but no plan meets them all at once; relax one of them."]


def _seen(probes: ProbeData) -> Sequence[str]:
    rates: dict[str, list[float]] = {}
    for merge in probes.merges:
        for recipe in merge.plan.recipes.values():
            rates.setdefault(recipe.optimizer, []).append(recipe.learning_rate)
    count = sum(merge.diverged for merge in probes.merges)
    return [
        f"Probes with {name}: learning rates {min(tried):.3g} to {max(tried):.3g}; {count} of all {len(probes.merges)} "
        "measured merges diverged."
        for name, tried in rates.items()
    ]


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
