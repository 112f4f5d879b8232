from dataclasses import replace

import pytest

from advisor.advice import Alternative, Caveat
from advisor.plan import Plan
from advisor.report_sections import (
    Table,
    constants_section,
    cost_section,
    describe_plan,
    prediction_table,
    recipe_table,
    recommendation_sections,
    term_table,
    validation_section,
)
from estimators.recipe import Recipe
from tests.advisor import advice_samples as samples


def test_a_recipe_table_shows_what_differs_and_leaves_out_empty_columns() -> None:
    assert "momentum" not in recipe_table(samples.plan()).head
    plan = Plan(
        recipes={
            "a": Recipe(learning_rate=0.01, batch_size=8, steps=10, optimizer="momentum", num_samples=50),
            "b": Recipe(learning_rate=0.001, batch_size=16, steps=20, optimizer="adamw"),
        },
        coefficients={"a": 0.25, "b": 0.0},
    )
    table = recipe_table(plan)
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert rows[0] == {
        "task": "a",
        "learning rate": "0.01",
        "batch": "8",
        "steps": "10",
        "optimizer": "momentum",
        "momentum": "0.9",
        "schedule": "constant",
        "samples": "50",
        "coefficient": "0.25",
    }
    assert rows[1]["coefficient"] == "0"
    assert describe_plan(plan).endswith("coefficients a 0.25, b 0")


def test_predictions_stand_beside_the_pretrained_model() -> None:
    table = prediction_table(samples.recommendation())
    assert table.rows[0] == ("goal", "0.950", "0.375", "0.338 to 0.431", "")
    assert table.rows[1] == ("low", "0.800", "0.300", "0.270 to 0.345", "0.200")


def test_terms_of_a_task_stand_beside_their_sum() -> None:
    table = term_table({"a": {"initial risk": 0.9, "progress": -0.5}, "b": {"noise": 0.1}})
    assert table.head == ("", "initial risk", "progress", "noise", "sum")
    assert table.rows == (("a", "+0.900", "-0.500", "", "0.400"), ("b", "", "", "+0.100", "0.100"))


def test_a_refusal_says_so_first() -> None:
    refused = samples.recommendation(status="refuse", answer="do_not_merge", caveats=(), elasticities={})
    head, _, caveats, alternatives, theorem = recommendation_sections(refused)
    assert head.title == "Advice refused: don't merge"
    assert caveats.sentences == ("None was found.",)
    assert alternatives.sentences == ()
    assert theorem.sentences == ()


def test_warnings_are_told_from_information() -> None:
    broken = Caveat(name="theorem: kinks", text="a network with kinks has no finite L")
    caveats = (*samples.recommendation().caveats, broken)
    _, _, said, _, theorem = recommendation_sections(samples.recommendation(caveats=caveats))
    assert [bullet.startswith("Warning: ") for bullet in said.bullets] == [False, True]
    assert theorem.bullets == ("a network with kinks has no finite L",)


def test_costs_are_summed_and_compared() -> None:
    section = cost_section(
        {"heads": 100.0, "probes": 400.0}, {"probes": 2.0}, full_fine_tune=1000.0, training_cost=5000.0
    )
    assert section.tables[0].rows == (
        ("heads", "100", "0.100", ""),
        ("probes", "400", "0.400", "2.0"),
        ("in all", "500", "0.500", "2.0"),
    )


def test_measured_values_stand_beside_predictions_and_misses_are_said() -> None:
    section = validation_section(samples.validation())
    rows = {row[0]: row for row in section.tables[0].rows}
    assert rows["low"][3:5] == ("0.360", "no")
    assert rows["goal"][3:] == ("0.390", "yes", "80.5 %")
    assert section.bullets[1].startswith("! baselines (warn): ")
    expert = next(row for row in section.tables[1].rows if row[0] == "expert: low")
    assert expert[1:4] == ("–", "0.200", "–")


def test_what_could_not_be_measured_is_named_with_its_reason() -> None:
    constants = samples.constants()
    broken = replace(constants.tasks["low"], failures={"path_curvature": "probe first"})
    section = constants_section(replace(constants, tasks={**constants.tasks, "low": broken}))
    assert section.bullets == ("low: path curvature was not measured: probe first",)


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="must have 2 cells"):
        Table(head=("a", "b"), rows=(("1",),))


def test_alternatives_that_share_a_recipe_say_it_once() -> None:
    plan = samples.plan()
    alternative = Alternative(label="x", plan=plan, goal=samples.predicted(0.4), cost=1.0)
    assert describe_plan(alternative.plan).count("learning rate") == 1
