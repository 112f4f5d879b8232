"""Verdicts and baselines, on hand-made figures and a tiny network."""

import math

import pytest
import torch

from advisor.advice import Measured, Predicted
from advisor.baselines import LAMBDA_GRID, Contender, default_recipes, merge_defaults, selection_cost, train_jointly
from advisor.goal import Goal
from advisor.validation import judge, measure_models
from estimators.objectives import ClassificationObjective
from estimators.recipe import Recipe
from tests.estimators.test_joint_training import problem


def model(kind: str, goal: float, name: str = "x", risk: float | None = None) -> Measured:
    risks = {"a": goal if risk is None else risk, "b": goal}
    return Measured(name=name, kind=kind, risks=risks, accuracies={"a": 0.5, "b": 0.5}, goal=goal, cost=1.0)


def verdicts(advised: float, *, start: float = 1.0, rivals=(), predicted=(0.5, 0.4, 0.6), **changes) -> dict[str, str]:
    p = Predicted(value=predicted[0], low=predicted[1], high=predicted[2])
    models = [model("advised", advised, **changes), model("pretrained", start)]
    models += [model("baseline", goal, name) for name, goal in rivals]
    return {name: verdict for name, verdict, _ in judge(models, {"a": p, "b": p}, p)}


def test_the_interval_verdict_passes_inside_warns_near_and_fails_far():
    assert [verdicts(v)["interval"] for v in (0.5, 0.4, 0.69, 0.75)] == ["pass", "pass", "warn", "fail"]


def test_a_merge_worse_than_the_start_fails_the_gain():
    assert verdicts(0.9)["gain"] == "pass"
    assert verdicts(1.1)["gain"] == "fail"


def test_losing_to_a_tuned_default_warns_and_losing_to_an_average_fails():
    rivals = [("average: d", 0.7), ("best lambda: d", 0.5)]
    assert verdicts(0.45, rivals=rivals)["baselines"] == "pass"
    assert verdicts(0.6, rivals=rivals)["baselines"] == "warn"
    assert verdicts(0.8, rivals=rivals)["baselines"] == "fail"
    assert verdicts(0.5)["baselines"] == "warn"


def test_task_intervals_are_counted():
    assert verdicts(0.5)["tasks"] == "pass"
    assert verdicts(0.5, risk=2.0)["tasks"] == "warn"
    assert verdicts(2.0)["tasks"] == "fail"


def test_defaults_get_the_steps_that_the_cost_pays_for():
    recipes = default_recipes(0.02, smallest_task=100, affordable=8192.0, num_tasks=4)
    assert recipes["FusionBench"] == Recipe(learning_rate=1e-3, batch_size=64, steps=32, schedule="warmup_cosine")
    assert recipes["task vectors"].batch_size == 100  # cut to the smallest task
    assert recipes["range test"].learning_rate == 0.02
    assert all(r.cost() * 4 <= 8192 for r in recipes.values())


def test_defaults_are_merged_by_average_and_by_the_best_lambda_on_validation_data():
    backbone, tasks = problem()
    objectives = {n: ClassificationObjective(backbone, t.fitted_head()) for n, t in tasks.items()}
    goal = Goal(weights=dict.fromkeys(tasks, 1.0))
    recipe = Recipe(learning_rate=0.1, batch_size=10, steps=20)
    average, best = merge_defaults("d", recipe, tasks, objectives, goal=goal.of, seed=0)
    assert (average.name, best.name) == ("average: d", "best lambda: d")
    sizes = {name: len(task.validation) for name, task in tasks.items()}
    assert best.cost == pytest.approx(average.cost + selection_cost(sizes))
    joint = train_jointly(recipe, tasks, objectives, goal.shares, affordable=average.cost, seed=0)
    assert joint is not None
    assert joint.cost <= average.cost
    splits = {name: task.validation for name, task in tasks.items()}
    models = measure_models(best, [average, joint], objectives, splits, goal=goal.of)
    by_name = {m.name: m for m in models}
    assert models[0].goal <= by_name["average: d"].goal + 1e-9  # its lambda was chosen on these very samples
    start = backbone.initial
    lambdas = []
    for value in LAMBDA_GRID:
        merged = start + value * sum(e - start for e in best.experts.values())
        lambdas.append((torch.norm(merged - best.weights).item(), value))
    assert min(lambdas)[0] < 1e-5
    assert {"pretrained", "expert: a", "expert: b", "joint training"} <= set(by_name)
    assert by_name["joint training"].kind == "joint"


def test_a_default_that_diverges_is_compared_as_lost():
    backbone, tasks = problem()
    objectives = {n: ClassificationObjective(backbone, t.fitted_head()) for n, t in tasks.items()}
    recipe = Recipe(learning_rate=1e38, batch_size=10, steps=40, weight_decay=1.0)
    goal = Goal(weights=dict.fromkeys(tasks, 1.0))
    (lost,) = merge_defaults("d", recipe, tasks, objectives, goal=goal.of, seed=0)
    joint = train_jointly(recipe, tasks, objectives, goal.shares, affordable=1000.0, seed=0)
    assert lost.weights is joint.weights is None
    assert lost.cost > 0
    assert "diverged" in lost.note
    assert "diverged" in joint.note
    start = Contender(name="advised", weights=backbone.initial, experts={}, cost=0.0, note="")
    tests = {name: task.validation for name, task in tasks.items()}
    models = {m.name: m for m in measure_models(start, [lost, joint], objectives, tests, goal=goal.of)}
    for name in ("average: d", "joint training"):
        assert models[name].diverged
        assert models[name].goal == math.inf
    assert not models["advised"].diverged


def test_an_advised_merge_that_is_lost_fails_every_verdict_in_words():
    wide = (0.5, 0.4, math.inf)
    found = verdicts(math.inf, predicted=wide, rivals=[("average: d", math.inf)])
    assert (found["interval"], found["gain"]) == ("fail", "fail")
    assert found["baselines"] != "pass"
    models = [model("advised", math.inf), model("pretrained", 1.0)]
    p = Predicted(value=0.5, low=0.4, high=0.6)
    texts = {name: text for name, _, text in judge(models, {"a": p, "b": p}, p)}
    assert texts["gain"] == "goal risk diverged after merging, 1.000 before"
