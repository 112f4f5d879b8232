"""The deciding stage of a workspace: fit the risk model on what was measured, search it, explain the plan."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.advice import Recommendation, Validation
from advisor.bound import worst_case
from advisor.bound_constants import from_constants
from advisor.diverging import DIVERGED_PURPOSE, diverged_experts
from advisor.experts import expert_seed, load_expert
from advisor.fitted_model import fit_model
from advisor.importing import imported_notes
from advisor.keeping import MEASURED_SCALES, scaled
from advisor.measuring import methods_of
from advisor.merged_risks import MergedRisks
from advisor.narrowing import NothingToSearch, diverged_rates, narrow_search
from advisor.observations import MergeObservation, ProbeData
from advisor.plan import Plan, PlanTable
from advisor.probe_session import stored_probes
from advisor.recommending import recommend_plan
from advisor.refusing import refuse_unfitted
from advisor.risk_form import family_index
from advisor.risk_model import ProbesDiverged, RiskModel, TooFewProbes
from advisor.situation import Situation
from advisor.training_facts import facts_of
from advisor.validity import Situation as FactsOfTraining
from advisor.validity import broken_assumptions
from advisor.what_if import WhatIf
from advisor.workspace import BEFORE_ADVICE, EXPERTS_NAME, RANGE_TEST_NAME, VALIDATION_NAME, Workspace
from estimators.cost import CostMeter
from estimators.sampling import stable_seed
from studies.storage import StudyStorage

STUDY_NAME = "study.journal"
STUDIES_NAME = "studies.json"
FIRST_STUDY = "recipes"


def decide(
    ws: Workspace, probes: ProbeData, merges: Sequence[MergeObservation]
) -> tuple[RiskModel | None, Recommendation]:
    """Fit, search, explain; without a model where the probes allow none, and then the advice is refused.

    Args:
        ws: the workspace.
        probes: what was measured.
        merges: full merges that were measured since, on validation data.
    """
    data = probes.with_merges(merges)
    ws.progress("advice", 0, 1)
    situation = situation_of(ws, probes)
    try:
        model = fit_model(ws.run, data, ws.goal.weights, ws.project.seed)
        situation = searchable(situation, model, diverged_rates(diverged_experts(ws.run)))
    except (ProbesDiverged, TooFewProbes, NothingToSearch) as error:
        return None, refuse_unfitted(data, ws.goal, situation, str(error))
    recommendation = recommend_plan(
        WhatIf(model=model, goal=ws.goal),
        situation,
        seed=stable_seed(ws.project.seed, "study") % 2**31,
        trained=merges,
        storage=study_storage(ws, model),
        progress=lambda done, total, best: ws.progress("advice", done, total, cautious_goal=best),
        stop=lambda: ws.interrupts.reason in ("signal", "stop"),
    )
    ws.interrupts.check(deadline=False)
    return model, recommendation


def situation_of(ws: Workspace, probes: ProbeData) -> Situation:
    """What the advice starts from."""
    costs, seconds = ws.costs(), ws.seconds()
    before = {name: costs[name] for name in (*BEFORE_ADVICE, DIVERGED_PURPOSE) if name in costs}
    facts = facts_of(ws)
    return Situation(
        search=ws.project.search,
        methods=methods_of(ws),
        constants=probes.constants,
        probes=stored_probes(ws),
        num_samples=ws.num_samples,
        range_suggestion=float(ws.run.read_json(RANGE_TEST_NAME)["suggestion"]),
        notes=(*ws.prepared.notes, *imported_notes(ws.run)),
        broken_assumptions=lambda plan: assumptions(probes, plan, facts, list(ws.goal.shares.values())),
        cost=before,
        seconds=sum(seconds.get(name, 0.0) for name in before),
        full_fine_tune=ws.full_fine_tune,
        affordable=None if ws.max_cost is None else ws.max_cost - sum(before.values()),
    )


def searchable(situation: Situation, model: RiskModel, diverged: Mapping[str, float]) -> Situation:
    """The same with what the model cannot predict, or what diverged before, left out of the search."""
    predictable = {name for name in situation.search.learning_rate if family_index(name) in model.fits_}
    probed = {probe.recipe.optimizer for probe in situation.probes}
    search, left_out = narrow_search(
        situation.search, predictable=predictable, probed=probed or None, diverged=diverged
    )
    methods = tuple(method for method in situation.methods if method in model.method_shares_)
    if not methods:
        raise NothingToSearch(
            f"merge.method={situation.methods[0]!r} was not measured on any probe; choose auto or task_arithmetic"
        )
    return replace(situation, search=search, methods=methods, left_out=left_out)


def asked(ws: Workspace) -> dict[str, Any]:
    """What the advice answers beside the data: hash of the project's objective, search and merge, and the limit."""
    parts = ws.project.model_dump(mode="json", include={"objective", "search", "merge"})
    return {"project": _digest(parts), "max_cost": ws.max_cost}


def is_outdated(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a stored advice answers another question than the one asked now.

    A limit on cost matters only to an advice that was refused for its limits: later commands need not repeat it.
    """
    before = stored.get("asked")
    if before is None:
        return False
    refused = any(caveat["name"] == "no_feasible_plan" for caveat in stored["caveats"])
    return bool(before["project"] != now["project"] or (refused and before["max_cost"] != now["max_cost"]))


def study_storage(ws: Workspace, model: RiskModel) -> StudyStorage:
    """Where the study is kept: the run's journal, or a database that many runs share.

    In a database a study is named after its project, its fit and its question, so runs of equal numbers share it.
    """
    owner, basis = ws.project.content_hash(), study_basis(ws, model)
    if ws.storage is not None:
        return StudyStorage(url=ws.storage, fingerprint=owner, name=f"{FIRST_STUDY}-{owner[:8]}-{basis}")
    return StudyStorage(path=ws.run.path_of(STUDY_NAME), fingerprint=owner, name=study_name(ws, basis))


def study_basis(ws: Workspace, model: RiskModel) -> str:
    """What a study belongs to: one fit and one question."""
    return _digest({"model": model.to_json(), "asked": asked(ws)})[:8]


def study_name(ws: Workspace, basis: str) -> str:
    """Name of the study in the run's journal; the first one has the plain name."""
    if not ws.run.has(STUDIES_NAME) and not ws.run.path_of(STUDY_NAME).exists():
        ws.run.write_json(STUDIES_NAME, {FIRST_STUDY: basis})
    known = ws.run.read_json(STUDIES_NAME) if ws.run.has(STUDIES_NAME) else {}
    return FIRST_STUDY if known.get(FIRST_STUDY) == basis else f"{FIRST_STUDY}-{basis}"


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def measured_merges(
    ws: Workspace, probes: ProbeData, known: Sequence[MergeObservation], meter: CostMeter
) -> tuple[MergeObservation, ...]:
    """What a refit may learn from: merges of the advised experts on *validation* data, and experts that diverged.

    The advised coefficients are measured, and some below and above them: the experts are there, so that costs a few
    evaluations.  What is known is not measured again, but for the advised merge, which shows that the experts are those
    that were validated.

    Raises:
        ValueError: if nothing was validated and nothing diverged yet.
    """
    found = [_diverged_merge(plan, probes) for _, plan in diverged_experts(ws.run)]
    if ws.run.has(VALIDATION_NAME) and ws.run.has(EXPERTS_NAME):
        found += _validated_merges(ws, [merge.plan for merge in known], meter)
    if not found:
        raise ValueError("refit=True needs a validated merge; run `merge-advisor validate` on this run first")
    return tuple(found)


def _validated_merges(ws: Workspace, known: Sequence[Plan], meter: CostMeter) -> list[MergeObservation]:
    stored = ws.run.read_json(VALIDATION_NAME)
    plan = Plan.from_json(stored["identity"]["plan"])
    validation = Validation.from_json(stored["validation"])
    splits = {name: task.validation for name, task in ws.tasks.items()}
    risks = MergedRisks(objectives=ws.objectives, splits=splits, meter=meter)
    experts = {name: load_expert(ws, name) for name in plan.names}
    advised = risks.measure(plan, experts, seed=expert_seed(ws))
    for name, value in validation.validation_risks.items():
        again = advised.risks[name]
        if again != value and not abs(again - value) <= 1e-3 * max(value, 1e-3):
            raise ValueError(f"task={name!r}: stored experts give {again:.6f}, not {value:.6f}; validate again")
    ladder = [scaled(plan, scale) for scale in MEASURED_SCALES]
    others = [other for other in ladder if other not in (plan, *known)]
    return [advised, *(risks.measure(other, experts, seed=expert_seed(ws)) for other in others)]


def _diverged_merge(plan: Plan, probes: ProbeData) -> MergeObservation:
    """A merge that could not be made: every risk is infinite."""
    widest = max(probes.merges, key=lambda merge: (len(merge.initial_risks), merge.num_samples))
    names = tuple(widest.initial_risks)
    return MergeObservation(
        plan=plan,
        risks=dict.fromkeys(names, math.inf),
        initial_risks=dict(widest.initial_risks),
        num_samples=widest.num_samples,
        noise=dict.fromkeys(names, 0.0),
    )


def assumptions(
    probes: ProbeData, plan: Plan, facts: FactsOfTraining, shares: Sequence[float]
) -> list[tuple[str, str]]:
    """(name, sentence) of the theorem's conditions that this plan breaks, the worst-case bound's value last."""
    constants = from_constants(probes.constants, list(shares))
    found = [(item.name, item.sentence) for item in broken_assumptions(constants, plan, facts)]
    if any(name == "vacuous" for name, _ in found):  # it says the bound's value itself
        return found
    table = PlanTable.from_plans([plan], probes.constants.num_samples)
    power = float(worst_case(constants, table).log10("total")[0])
    text = f"The worst-case bound on the excess risk of this plan is 10^{power:.1f} nats; it is for understanding only."
    return [*found, ("worst_case_bound", text)]
