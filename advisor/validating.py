r"""The validation stage: make the contenders at equal cost, open the test data, compare."""

from __future__ import annotations

from collections.abc import Mapping

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
from advisor.diverging import DIVERGED_PURPOSE
from advisor.experts import expert_seed
from advisor.validation import judge, measure_models, open_tests, validation_risks
from advisor.workspace import BEFORE_ADVICE, RANGE_TEST_NAME, Workspace
from estimators.cost import CostMeter


def validate_advice(
    ws: Workspace, recommendation: Recommendation, merged: Tensor, experts: Mapping[str, Tensor]
) -> Validation:
    """Compare the advised merge with x_0, its experts, joint training and named defaults at equal cost.

    Raises:
        RunInterrupted: between two training steps; finished contenders are made again, being deterministic.
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
    others = make_contenders(ws, recommendation, budget=advised_cost)
    with meter.purpose("evaluation"):
        tests = open_tests(ws.run.path, tuple(ws.tasks))
        models = measure_models(advised, others, ws.objectives, tests, goal=ws.goal.of, meter=meter)
        splits = {name: task.validation for name, task in ws.tasks.items()}
        on_validation = validation_risks(advised, ws.objectives, splits, meter=meter)
    cost = {"contenders": sum(other.cost for other in others), "evaluation": meter.units}
    return Validation(
        models=models,
        predicted=recommendation.tasks,
        predicted_goal=recommendation.goal,
        validation_risks=on_validation,
        verdicts=judge(models, recommendation.tasks, recommendation.goal),
        cost=cost,
    )


def make_contenders(ws: Workspace, recommendation: Recommendation, *, budget: float) -> list[Contender]:
    """Default recipes' merges and joint training, each for ``budget`` units."""
    sizes = {name: len(task.validation) for name, task in ws.tasks.items()}
    recipes = default_recipes(
        float(ws.run.read_json(RANGE_TEST_NAME)["suggestion"]),
        smallest_task=min(ws.num_samples.values()),
        affordable=max(budget - selection_cost(sizes), 1.0),
        num_tasks=len(ws.tasks),
    )
    found: list[Contender] = []
    total = len(recipes) + 1
    try:
        for number, (name, recipe) in enumerate(recipes.items()):
            ws.progress("comparison", number, total, contender=name)
            found += merge_defaults(
                name,
                recipe,
                ws.tasks,
                ws.objectives,
                goal=ws.goal.of,
                seed=expert_seed(ws),
                control=ws.interrupts.control,
            )
        ws.progress("comparison", total - 1, total, contender="joint training")
        first = next(iter(recommendation.plan.recipes.values()))
        joint = train_jointly(
            first,
            ws.tasks,
            ws.objectives,
            ws.goal.shares,
            affordable=budget,
            seed=expert_seed(ws),
            control=ws.interrupts.control,
        )
    except TrainingInterrupted as error:
        raise ws.interrupts.interruption(ws.interrupts.reason or "stop") from error
    ws.progress("comparison", total, total)
    return [*found, joint]
