r"""The validation stage: make the contenders at equal cost, open the test data, compare.

Each contender is made once and each model measured once; what is finished is kept until the comparison is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from advisor.advice import Recommendation, Validation
from advisor.baselines import (
    Contender,
    TrainingInterrupted,
    default_recipes,
    merge_defaults,
    selection_cost,
    train_jointly,
)
from advisor.dispatching import evaluating_of, training_of
from advisor.diverging import DIVERGED_PURPOSE
from advisor.experts import expert_seed
from advisor.unfinished import piece_name
from advisor.validation import judge, measure_models, open_tests, validation_risks
from advisor.workspace import BEFORE_ADVICE, RANGE_TEST_NAME, Workspace
from estimators.cost import CostMeter
from estimators.snapshot_folder import Pieces
from estimators.snapshots import Snapshot


def validate_advice(
    ws: Workspace, recommendation: Recommendation, merged: Tensor, experts: Mapping[str, Tensor], kept: Pieces
) -> Validation:
    """Compare the advised merge with x_0, its experts, joint training and named defaults at equal cost.

    Args:
        ws: the workspace.
        recommendation: the advice.
        merged: shared weights of the advised merge [P].
        experts: task -> weights of the advised expert [D].
        kept: where contenders, their training and their measurement are kept on the way.

    Raises:
        RunInterrupted: between two training steps or measurements.
    """
    costs = ws.costs()
    advised_cost = sum(costs.get(name, 0.0) for name in (*BEFORE_ADVICE, DIVERGED_PURPOSE, "experts"))
    advised = Contender(
        name="advised merge",
        weights=merged,
        experts=dict(experts),
        cost=advised_cost,
        note="probing, advice and experts, everything counted",
    )
    meter = CostMeter()
    others = make_contenders(ws, recommendation, kept, budget=advised_cost)
    with meter.purpose("evaluation"):
        tests = open_tests(ws.run.path, tuple(ws.tasks))
        models = measure_models(advised, others, ws.objectives, tests, goal=ws.goal.of, meter=meter, kept=kept)
        splits = {name: task.validation for name, task in ws.tasks.items()}
        on_validation = validation_risks(advised, ws.objectives, splits, meter=meter, kept=kept)
    cost = {"contenders": sum(other.cost for other in others), "evaluation": meter.units}
    return Validation(
        models=models,
        predicted=recommendation.tasks,
        predicted_goal=recommendation.goal,
        validation_risks=on_validation,
        verdicts=judge(models, recommendation.tasks, recommendation.goal),
        cost=cost,
    )


def make_contenders(ws: Workspace, recommendation: Recommendation, kept: Pieces, *, budget: float) -> list[Contender]:
    """Default recipes' merges and joint training, each for ``budget`` units."""
    sizes = {name: len(task.validation) for name, task in ws.tasks.items()}
    recipes = default_recipes(
        float(ws.run.read_json(RANGE_TEST_NAME)["suggestion"]),
        smallest_task=min(ws.num_samples.values()),
        affordable=max(budget - selection_cost(sizes), 1.0),
        num_tasks=len(ws.tasks),
    )
    found: list[Contender] = []
    seed, goal, device = expert_seed(ws), (ws.goal.kind, dict(ws.goal.weights)), ws.prepared.backbone.device
    total = len(recipes) + 1
    try:
        for number, (name, recipe) in enumerate(recipes.items()):
            ws.progress("comparison", number, total, contender=name)
            found += _made_once(
                kept,
                piece_name("default", name, recipe.to_json(), seed, goal),
                device,
                lambda name=name, recipe=recipe: merge_defaults(  # type: ignore[misc]
                    name,
                    recipe,
                    ws.tasks,
                    ws.objectives,
                    goal=ws.goal.of,
                    seed=seed,
                    control=ws.interrupts.control,
                    kept=kept,
                    train=training_of(ws),
                    elsewhere=evaluating_of(ws),
                ),
            )
        ws.progress("comparison", total - 1, total, contender="joint training")
        first = next(iter(recommendation.plan.recipes.values()))
        found += _made_once(
            kept,
            piece_name("joint", first.to_json(), budget, seed, goal),
            device,
            lambda: [
                train_jointly(
                    first,
                    ws.tasks,
                    ws.objectives,
                    ws.goal.shares,
                    affordable=budget,
                    seed=seed,
                    control=ws.interrupts.control,
                    kept=kept,
                )
            ],
        )
    except TrainingInterrupted as error:
        raise ws.interrupts.interruption(ws.interrupts.reason or "stop") from error
    ws.progress("comparison", total, total)
    return found


def _made_once(
    kept: Pieces, name: str, device: torch.device, make: Callable[[], Sequence[Contender]]
) -> Sequence[Contender]:
    """Contenders that are made once; once they are kept, the training and measurements behind them are not."""
    stored = kept.load(name)
    if stored is not None:
        return contenders_from(stored, device)
    with kept.parts() as parts:
        made = make()
    snapshot = contenders_snapshot(made)
    kept.keep(name, lambda: snapshot, instead_of=parts)
    return made


def contenders_snapshot(contenders: Sequence[Contender]) -> Snapshot:
    """Contenders as a snapshot; of experts what a merge does not have, their trained heads."""
    tensors: dict[str, Tensor] = {}
    for place, contender in enumerate(contenders):
        if contender.weights is not None:
            shared = contender.weights.numel()
            tensors[f"{place}/weights"] = contender.weights
            heads = {task: value[shared:] for task, value in contender.experts.items() if value.numel() > shared}
            tensors |= {f"{place}/head/{task}": head for task, head in heads.items()}
    facts = [{"name": one.name, "cost": one.cost, "note": one.note} for one in contenders]
    return Snapshot(tensors=tensors, facts={"contenders": facts})


def contenders_from(snapshot: Snapshot, device: torch.device) -> list[Contender]:
    """The inverse: where heads were trained, an expert is the merged weights with its own head, as it is measured."""
    found, tensors = [], {name: value.to(device) for name, value in snapshot.tensors.items()}
    for place, facts in enumerate(snapshot.facts["contenders"]):
        weights = tensors.get(f"{place}/weights")
        start = f"{place}/head/"
        heads = {name.removeprefix(start): head for name, head in tensors.items() if name.startswith(start)}
        experts = {} if weights is None else {task: torch.cat([weights, head]) for task, head in heads.items()}
        found.append(Contender(weights=weights, experts=experts, **facts))
    return found
