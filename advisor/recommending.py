r"""From a fitted risk model to advice: search, predict, explain, say the limits.

The plan with the lowest predicted goal is advised; everything else in a ``Recommendation`` answers a question about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from advisor.advice import Alternative, Answer, Caveat, Predicted, Recommendation, Status
from advisor.caveats import find_caveats
from advisor.goal import interval
from advisor.keeping import KEPT, keep_trained
from advisor.observations import MergeObservation
from advisor.plan import Plan
from advisor.plan_columns import parameters_to_plan
from advisor.reasons import give_reasons
from advisor.refusing import refuse_infeasible
from advisor.risk_model import RiskModel
from advisor.searching import risk_of, search_space, training_cost_of
from advisor.situation import Situation
from advisor.status import decide_answer, decide_status
from advisor.what_if import WhatIf, with_coefficients
from studies.evaluation import Evaluations
from studies.recipes import search_recipes
from studies.result import NoFeasiblePlanError, StudyResult
from studies.storage import StudyStorage
from studies.tradeoffs import pareto_front

PARETO_POINTS = 12


def recommend_plan(
    ask: WhatIf,
    situation: Situation,
    *,
    seed: int,
    trained: Sequence[MergeObservation] = (),
    storage: StudyStorage | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Recommendation:
    """Search the space for the lowest predicted goal and say everything about the winner.

    Args:
        ask: the fitted model under the project's goal.
        situation: what the advice starts from.
        seed: seed of the study.
        trained: merges of trained experts that the model was refitted with: they stay advised where nothing else is
            worth training (``advisor.keeping``).
        storage: where the study is kept.
        progress: called with (trials done, trials planned, best goal).
        stop: asked between batches of trials.
    """
    names = ask.model.scales_.names
    space = search_space(situation.search, names, situation.methods, min(situation.num_samples.values()))
    cost = training_cost_of(names, situation.num_samples)
    limit = situation.affordable

    def search(ask: WhatIf, limit: float | None, storage: StudyStorage | None) -> StudyResult:
        return search_recipes(
            space,
            risk_of(ask, situation.num_samples),
            cost=cost,
            constraint=None if limit is None else lambda columns: cost(columns) / max(limit, 1.0) - 1.0,
            seed=seed,
            storage=storage,
            progress=progress,
            stop=stop,
        )

    try:
        study = search(ask, limit, storage)
    except NoFeasiblePlanError as error:
        free = replace(ask, goal=replace(ask.goal, max_drop=None))
        aside = None if storage is None else replace(storage, name=f"{storage.name}-without-limits")
        nearest = parameters_to_plan(error.parameters, names, situation.num_samples)
        return refuse_infeasible(
            describe_plan(nearest, search(free, None, aside), free, situation, label="best without the limits"),
            ask.goal,
            situation,
        )
    plan = parameters_to_plan(study.parameters, names, situation.num_samples)
    kept = keep_trained(ask, trained, situation, study.best.goal)
    return describe_plan(plan if kept is None else kept, study, ask, situation, further=() if kept is None else (KEPT,))


def describe_plan(
    plan: Plan,
    study: StudyResult,
    ask: WhatIf,
    situation: Situation,
    *,
    label: str = "best of the search",
    further: tuple[Caveat, ...] = (),
) -> Recommendation:
    """Everything about a plan: the study's best, or another one, which lists that as the alternative ``label``.

    Args:
        plan: the plan.
        study: the study behind the advice.
        ask: the fitted model under the project's goal.
        situation: what the advice starts from.
        label: of the study's best where that is not the plan.
        further: caveats beside those that plan and situation give.
    """
    is_best = plan == parameters_to_plan(study.parameters, ask.model.scales_.names, situation.num_samples)
    prediction = ask.predict([plan])
    goal, gain = ask.goals([plan])[0], ask.gain(plan)
    tasks = ask.tasks(plan)
    names = prediction.names
    initial = {name: float(value) for name, value in zip(names, prediction.initial_risk, strict=True)}
    initial_goal = ask.goal.of(initial)
    extrapolation = math.exp(float(prediction.extrapolation[0]))
    edges = stability_edges(ask.model, plan)
    other_optimizers = best_of_other_optimizers(plan, study, situation.num_samples)
    turning = ask.turning_point(plan, longest=4 * situation.search.steps[1])
    caveats = find_caveats(
        plan,
        constants=situation.constants,
        probes=situation.probes,
        gain=gain,
        extrapolation=extrapolation,
        edges_of_space=telling_edges(study.edges, situation) if is_best else (),
        range_suggestion=situation.range_suggestion,
        notes=(*situation.notes, *study.caveats),
        left_out=(*situation.left_out, *further),
        broken_assumptions=situation.broken_assumptions(plan),
    )
    status = decide_status(initial_goal, gain, extrapolation=extrapolation, caveats=caveats)
    expert_gain = ask.expert_gain(plan)
    answer = decide_answer(status, merged_gain=max(gain.value, 0.0), expert_gain=expert_gain)
    return Recommendation(
        status=status,
        answer=answer,
        sentence=say(status, answer, plan, goal, gain, initial_goal, caveats),
        plan=plan,
        tasks=tasks,
        goal=goal,
        initial_tasks=initial,
        initial_goal=initial_goal,
        floor={name: float(value) for name, value in zip(names, prediction.floor, strict=True)},
        terms={
            name: {"pretrained": initial[name]} | {term: float(v[0, j]) for term, v in prediction.terms.items()}
            for j, name in enumerate(names)
        },
        edges=edges,
        displacement=dict(zip(names, map(float, ask.model.predict_displacement([plan])[0]), strict=True)),
        turning_point=turning,
        elasticities={k: interval(*cell) for k, cell in ask.model.elasticities(plan).items()},
        reasons=give_reasons(
            plan,
            ask,
            goal=goal,
            edges=edges,
            turning_point=turning,
            steps_range=situation.search.steps,
            num_samples=situation.num_samples,
            other_optimizers={name: ask.goals([best])[0] for name, best in other_optimizers.items()},
        ),
        caveats=caveats,
        alternatives=find_alternatives(
            plan, study, ask, situation, label=None if is_best else label, other_optimizers=other_optimizers
        ),
        pareto=find_front(study, ask, situation, names),
        extrapolation=extrapolation,
        cost=dict(situation.cost),
        full_fine_tune=situation.full_fine_tune,
        training_cost=float(plan.training_cost()),
        seconds=situation.seconds,
    )


def say(
    status: Status,
    answer: Answer,
    plan: Plan,
    goal: Predicted,
    gain: Predicted,
    initial_goal: float,
    caveats: Sequence[Caveat],
) -> str:
    """The advice in one sentence."""
    recipes = sorted({recipe.describe() for recipe in plan.recipes.values()})
    what = recipes[0] if len(recipes) == 1 else f"{len(recipes)} different recipes"
    risk = (
        f"{goal.value:.3f} [{goal.low:.3f}, {goal.high:.3f}] against {initial_goal:.3f} for the pretrained model, "
        f"a gain of {gain.value:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
    )
    if answer == "train_jointly":
        return f"Train jointly instead: interference would eat most of what the experts learn (merged risk {risk})."
    if status == "refuse":
        return f"Don't merge: the best plan found is predicted at {risk}."
    warned = [caveat.name.replace("_", " ") for caveat in caveats if caveat.weight == "warning"]
    doubt = f", with caution ({', '.join(dict.fromkeys(warned))})" if status == "caution" and warned else ""
    train = f"Keep the experts trained with {what}" if KEPT in caveats else f"Train every expert with {what}"
    return f"{train} and merge{doubt}: predicted risk {risk}."


def stability_edges(model: RiskModel, plan: Plan) -> dict[str, Predicted]:
    """Stability edge of each advised optimizer at its advised batch size."""
    sizes = {recipe.optimizer: recipe.batch_size for recipe in plan.recipes.values()}
    return {optimizer: interval(*model.edge(optimizer, size)) for optimizer, size in sizes.items()}


def best_of_other_optimizers(plan: Plan, study: StudyResult, num_samples: Mapping[str, int]) -> dict[str, Plan]:
    """The study's best plan with each optimizer that was not advised."""
    found = study.evaluations
    if "optimizer" not in found.columns:
        return {}
    column = found.columns["optimizer"]
    advised = {recipe.optimizer for recipe in plan.recipes.values()}
    best = {}
    for name in sorted(set(column.tolist()) - advised):
        index = np.flatnonzero((column == name) & found.feasible)
        if len(index):
            best[name] = _plan_at(found, int(index[np.argmin(found.goal[index])]), plan.names, num_samples)
    return best


def telling_edges(edges: Sequence[tuple[str, str]], situation: Situation) -> list[tuple[str, str]]:
    """Edges of the space beyond which a better plan may lie: a coefficient of 0 is none, as nothing lies below."""
    lowest = situation.search.coefficients.range[0]
    return [edge for edge in edges if not (edge[0].startswith("coefficient") and edge[1] == "low" and lowest == 0)]


def find_alternatives(
    plan: Plan,
    study: StudyResult,
    ask: WhatIf,
    situation: Situation,
    *,
    label: str | None,
    other_optimizers: Mapping[str, Plan],
) -> tuple[Alternative, ...]:
    """The cheapest near-optimal plan, the best with each other optimizer, the simple average of the advised experts.

    A plan that is not the study's best was taken for its limits, or because its experts are trained: then the study's
    best comes first, labelled ``label``.
    """
    names = plan.names
    cheapest = parameters_to_plan(study.cheapest.parameters, names, situation.num_samples)
    best = parameters_to_plan(study.parameters, names, situation.num_samples)
    listed = [] if label is None else [(label, best)]
    listed.append(("cheapest near-optimal", cheapest))
    listed += [(f"best with {name}", other) for name, other in other_optimizers.items()]
    listed.append(("simple average of the advised experts", with_coefficients(plan, 1.0 / len(names))))
    return predicted_alternatives(listed, ask)


def find_front(
    study: StudyResult, ask: WhatIf, situation: Situation, names: tuple[str, ...]
) -> tuple[Alternative, ...]:
    """Plans on the front of predicted risk against training cost, at most ``PARETO_POINTS`` of them, cheapest first.

    Chosen by the study's cautious goal, reported by the prediction itself (``advisor/searching.py``).
    """
    found = study.evaluations
    index = np.flatnonzero(found.feasible)
    cautious = index[pareto_front(found.cost[index], found.goal[index])]
    listed = [("front", _plan_at(found, int(k), names, situation.num_samples)) for k in cautious]
    front = predicted_alternatives(listed, ask)
    kept = pareto_front([point.cost for point in front], [point.goal.value for point in front])
    shown = np.unique(np.linspace(0, len(kept) - 1, PARETO_POINTS).round().astype(int))
    return tuple(front[k] for k in kept[shown])


def predicted_alternatives(listed: Sequence[tuple[str, Plan]], ask: WhatIf) -> tuple[Alternative, ...]:
    """Labelled plans with their predicted goals and training costs."""
    goals = ask.goals([plan for _, plan in listed])
    return tuple(
        Alternative(label=label, plan=plan, goal=goal, cost=float(plan.training_cost()))
        for (label, plan), goal in zip(listed, goals, strict=True)
    )


def _plan_at(found: Evaluations, index: int, names: tuple[str, ...], num_samples: Mapping[str, int]) -> Plan:
    return parameters_to_plan(dict(found.take([index]).rows()[0]), names, num_samples)
