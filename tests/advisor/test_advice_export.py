"""What is exported reads back as the same plan."""

from pathlib import Path

import yaml

from advisor.advice_export import advice_yaml, commands, plan_csv, study_code
from advisor.plan import Plan
from advisor.plans_csv import parse_plans
from estimators.recipe import Recipe
from tests.advisor.advice_samples import NAMES, plan, recommendation


def test_plan_survives_the_way_through_csv() -> None:
    unequal = Plan(
        recipes={
            "a": Recipe(learning_rate=0.0123456789, batch_size=8, steps=30, optimizer="momentum", momentum=0.8),
            "b": Recipe(learning_rate=1e-5, batch_size=16, steps=40, optimizer="adamw", schedule="warmup_cosine"),
        },
        coefficients={"a": 0.1, "b": 0.7},
    )
    for given in (plan(NAMES), unequal):
        (row,) = parse_plans(plan_csv(given), dict.fromkeys(given.names, 500))
        assert row.plan == given
        assert row.label == "advised"


def test_yaml_holds_the_recipes_and_the_prediction() -> None:
    advice = recommendation()
    content = yaml.safe_load(advice_yaml(advice))
    assert {n: Recipe.from_json(r) for n, r in content["recipes"].items()} == dict(advice.plan.recipes)
    assert content["predicted_goal_risk"]["value"] == advice.goal.value


def test_commands_quote_the_run() -> None:
    assert commands(Path("runs/my run")).splitlines()[0] == "merge-advisor train 'runs/my run'"


def test_study_code_is_python_that_names_the_journal() -> None:
    compile(study_code(Path("runs/x")), "code", "exec")
    assert "runs/x/study.journal" in study_code(Path("runs/x"))
