"""Explorer against the risk model asked plan by plan."""

import dataclasses

import numpy as np
import pytest

from advisor.exploring import Explorer
from advisor.goal import Goal
from advisor.observations import ProbeData
from advisor.plan import Plan
from advisor.risk_model import RiskModel
from advisor.setting import Setting, knob_value, with_knobs
from tests.advisor.quadratic_merges import QuadraticWorld

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def probes() -> ProbeData:
    return QuadraticWorld.drawn().probes()


@pytest.fixture(scope="module")
def explorer(probes: ProbeData) -> Explorer:
    return Explorer(RiskModel().fit(probes), Goal(weights=dict.fromkeys(NAMES, 1.0)))


def setting(**changes: object) -> Setting:
    values = {
        "learning_rate": 0.01,
        "batch_size": 16,
        "steps": 80,
        "coefficients": {"a": 0.2, "b": 0.4, "c": 0.6},
        "weights": dict.fromkeys(NAMES, 1.0),
    }
    return Setting(**{**values, **changes})  # type: ignore[arg-type]


def test_look_agrees_with_the_model_asked_for_the_plan(explorer: Explorer) -> None:
    for optimizer, schedule in (("sgd", "constant"), ("momentum", "warmup_cosine")):
        chosen = setting(optimizer=optimizer, schedule=schedule)
        found = explorer.look(chosen)
        expected = explorer.model.predict([chosen.plan], return_interval=True)
        assert found.goal.value == pytest.approx(expected.goal[0])
        assert (found.goal.low, found.goal.high) == pytest.approx((expected.goal_low[0], expected.goal_high[0]))
        assert [cell.value for cell in found.tasks.values()] == pytest.approx(expected.task_risk[0].tolist())


def test_terms_sum_to_the_prediction(explorer: Explorer) -> None:
    found = explorer.look(setting())
    for name, parts in found.terms.items():
        assert sum(parts.values()) == pytest.approx(found.tasks[name].value)


def test_weights_of_the_setting_replace_those_of_the_project(explorer: Explorer) -> None:
    found = explorer.look(setting(weights={"a": 3.0, "b": 1.0, "c": 0.0}))
    risks = [cell.value for cell in found.tasks.values()]
    assert found.goal.value == pytest.approx(0.75 * risks[0] + 0.25 * risks[1])


def test_task_left_out_is_neither_merged_nor_counted_nor_paid(explorer: Explorer) -> None:
    chosen = setting(left_out=("c",))
    found = explorer.look(chosen)
    two = Plan(recipes=dict.fromkeys("ab", chosen.recipe), coefficients={"a": 0.2, "b": 0.4})
    risks = explorer.model.predict([two]).task_risk[0]
    assert found.goal.value == pytest.approx((risks[0] + risks[1]) / 2)
    assert found.cost == 2 * 16 * 80


def test_surface_agrees_with_single_settings(explorer: Explorer) -> None:
    chosen = setting()
    surface = explorer.surface(chosen, ("steps", "coefficient"), points=5)
    for row, scale in zip(surface.goal, surface.y, strict=True):
        for value, steps in zip(row, surface.x, strict=True):
            one = with_knobs(chosen, {"steps": steps, "coefficient": scale})
            assert value == pytest.approx(explorer.look(one).goal.value)


def test_front_falls_with_cost_and_is_no_worse_than_the_setting(explorer: Explorer) -> None:
    chosen = setting()
    front = explorer.front(chosen, longest=320)
    costs, goals = [plan.cost for plan in front], [plan.goal.value for plan in front]
    assert costs == sorted(costs)
    assert goals == sorted(goals, reverse=True)
    for plan in front:
        assert plan.goal.value == pytest.approx(float(explorer.model.predict([plan.plan]).goal[0]))
    assert min(goals) <= explorer.look(chosen).goal.value


def test_answer_about_a_larger_rate_adds_up(explorer: Explorer) -> None:
    chosen = setting()
    larger = explorer.larger_rate(chosen)
    then = explorer.look(dataclasses.replace(chosen, learning_rate=0.02))
    assert larger.goal.value == pytest.approx(then.goal.value)
    assert sum(larger.changes.values()) == pytest.approx(then.goal.value - explorer.look(chosen).goal.value)


def test_rate_far_above_the_edge_is_said_to_be_above_it(explorer: Explorer) -> None:
    edge = explorer.model.edge("sgd", 16)[0]
    assert "lies above" in explorer.larger_rate(setting(learning_rate=2 * edge)).sentences[-1]
    assert "would cross" in explorer.larger_rate(setting(learning_rate=0.7 * edge)).sentences[-1]
    assert "still lie below" in explorer.larger_rate(setting(learning_rate=0.1 * edge)).sentences[-1]


def test_interference_is_the_change_that_one_more_expert_makes(explorer: Explorer) -> None:
    chosen = setting()
    matrix = np.array(explorer.interference(chosen))
    alone = Plan(recipes=chosen.plan.recipes, coefficients={"a": 0.2, "b": 0.0, "c": 0.0})
    both = Plan(recipes=chosen.plan.recipes, coefficients={"a": 0.2, "b": 0.0, "c": 0.6})
    risks = explorer.model.predict([alone, both]).task_risk
    assert matrix[0, 2] == pytest.approx(risks[1, 0] - risks[0, 0])
    assert np.diag(matrix) == pytest.approx(np.zeros(3), abs=1e-12)


def test_tuned_coefficients_are_at_least_as_good_as_a_grid_of_common_ones(explorer: Explorer) -> None:
    chosen = setting()
    tuned = explorer.tuned(chosen)
    grid = [Plan.uniform(NAMES, chosen.recipe, float(c)) for c in np.linspace(0, 2, 81)]
    assert explorer.look(tuned).goal.value <= explorer.model.predict(grid).goal.min() + 1e-12
    assert tuned.recipe == chosen.recipe


def test_plan_with_unequal_recipes_becomes_their_geometric_mean(explorer: Explorer) -> None:
    recipe = setting().recipe
    plan = Plan(
        recipes={"a": recipe.replace(steps=40), "b": recipe.replace(steps=80), "c": recipe.replace(steps=160)},
        coefficients=dict.fromkeys(NAMES, 0.3),
    )
    assert explorer.at(plan).steps == 80


def test_measured_points_are_merges_of_all_tasks_with_that_optimizer(explorer: Explorer, probes: ProbeData) -> None:
    points = explorer.measured(setting(), ("learning_rate", "coefficient"), probes.merges, most=7)
    assert len(points) == 7
    last = probes.merges[-1]
    assert points[-1] == pytest.approx((0.03, 4.0, sum(last.risks.values()) / 3))
    assert explorer.measured(setting(optimizer="adamw"), ("steps", "coefficient"), probes.merges) == ()


def test_setting_without_any_task_or_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="keep at least one"):
        setting(left_out=NAMES)
    with pytest.raises(ValueError, match="positive weight"):
        setting(weights=dict.fromkeys(NAMES, 0.0))
    with pytest.raises(ValueError, match="are no tasks"):
        setting(left_out=("d",))


def test_common_coefficient_keeps_ratios() -> None:
    moved = with_knobs(setting(), {"coefficient": 0.8})
    assert knob_value(moved, "coefficient") == pytest.approx(0.8)
    assert moved.coefficients["c"] / moved.coefficients["a"] == pytest.approx(3.0)
