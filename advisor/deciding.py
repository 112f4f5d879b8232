"""The deciding stage of a workspace: fit the risk model on what was measured, search it, explain the plan."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.advice import Recommendation, Validation
from advisor.bound import worst_case
from advisor.bound_constants import from_constants
from advisor.experts import expert_seed, load_expert
from advisor.measuring import methods_of
from advisor.merged_risks import MergedRisks
from advisor.observations import MergeObservation, ProbeData
from advisor.plan import Plan, PlanTable
from advisor.probe_session import stored_probes
from advisor.recommending import Situation, recommend_plan
from advisor.risk_model import RiskModel
from advisor.validity import Situation as FactsOfTraining
from advisor.validity import broken_assumptions
from advisor.what_if import WhatIf
from advisor.workspace import BEFORE_ADVICE, EXPERTS_NAME, RANGE_TEST_NAME, VALIDATION_NAME, Workspace
from estimators.sampling import stable_seed
from studies.storage import StudyStorage

STUDY_NAME = "study.journal"


def decide(ws: Workspace, probes: ProbeData, *, refit: bool) -> tuple[RiskModel, Recommendation]:
    """Fit, search, explain.

    Args:
        ws: the workspace.
        probes: what was measured.
        refit: add the validation figures of the advised merge, where it was measured.
    """
    data = probes.with_merges(measured_merges(ws)) if refit else probes
    ws.progress("advice", 0, 1)
    model = RiskModel(task_weights=ws.goal.shares, seed=ws.project.seed).fit(data)
    costs = ws.costs()
    before = {name: costs[name] for name in BEFORE_ADVICE if name in costs}
    seconds = ws.seconds()
    situation = Situation(
        search=ws.project.search,
        methods=methods_of(ws),
        constants=probes.constants,
        probes=stored_probes(ws)[0],
        num_samples=ws.num_samples,
        range_suggestion=float(ws.run.read_json(RANGE_TEST_NAME)["suggestion"]),
        notes=ws.prepared.notes,
        broken_assumptions=lambda plan: assumptions(ws, probes, plan),
        cost=before,
        seconds=sum(seconds.get(name, 0.0) for name in before),
        full_fine_tune=ws.full_fine_tune,
        affordable=None if ws.max_cost is None else ws.max_cost - sum(before.values()),
    )
    name = f"recipes-refit-{len(data.merges)}" if refit else "recipes"
    recommendation = recommend_plan(
        WhatIf(model=model, goal=ws.goal),
        situation,
        seed=stable_seed(ws.project.seed, "study") % 2**31,
        storage=StudyStorage(path=ws.run.path_of(STUDY_NAME), fingerprint=ws.project.content_hash(), name=name),
        progress=lambda done, total, best: ws.progress("advice", done, total, best=best),
        stop=lambda: ws.interrupts.reason in ("signal", "stop"),
    )
    ws.interrupts.check(deadline=False)
    return model, recommendation


def measured_merges(ws: Workspace) -> Sequence[MergeObservation]:
    """The advised merge on *validation* data, if it was made: what a refit may learn from.

    Raises:
        ValueError: if nothing was validated yet.
    """
    if not ws.run.has(VALIDATION_NAME):
        raise ValueError("refit=True needs a validated merge; run `merge-advisor validate` on this run first")
    stored = ws.run.read_json(VALIDATION_NAME)
    plan = Plan.from_json(stored["identity"]["plan"])
    validation = Validation.from_json(stored["validation"])
    risks = MergedRisks(objectives=ws.objectives, splits={name: task.validation for name, task in ws.tasks.items()})
    assert ws.run.has(EXPERTS_NAME)
    observation = risks.measure(plan, {name: load_expert(ws, name) for name in plan.names}, seed=expert_seed(ws))
    for name, value in validation.validation_risks.items():
        if abs(observation.risks[name] - value) > 1e-3 * max(value, 1e-3):
            raise ValueError(
                f"task={name!r}: stored experts give {observation.risks[name]:.6f}, not {value:.6f}; validate again"
            )
    return (observation,)


def assumptions(ws: Workspace, probes: ProbeData, plan: Plan) -> list[tuple[str, str]]:
    """(name, sentence) of the theorem's conditions that this plan breaks, the worst-case bound's value last."""
    constants = from_constants(probes.constants, list(ws.goal.shares.values()))
    situation = FactsOfTraining(
        nonnegative_loss=True,
        batch_norm_in_train_mode=False,
        dropout=False,
        augmentation=False,
        gradient_clipping=False,
        checkpoint_chosen_from_data=False,
        heads_fitted_on_training_samples=True,
        batch_order_shared_between_tasks=False,
        goal_weights_fixed_beforehand=True,
        coefficients_chosen_after_training=False,
        layerwise_coefficients=False,
    )
    broken = [(item.name, item.sentence) for item in broken_assumptions(constants, plan, situation)]
    table = PlanTable.from_plans([plan], probes.constants.num_samples)
    power = float(worst_case(constants, table).log10("total")[0])
    text = f"The worst-case bound on the excess risk of this plan is 10^{power:.1f} nats; it is for understanding only."
    return [*broken, ("worst_case_bound", text)]
