import numpy as np
import pytest

from advisor.plan import Plan, PlanTable
from advisor.plan_columns import columns_to_table, parameters_to_plan
from estimators.recipe import Recipe

NAMES = ("a", "b")
SAMPLES = {"a": 100, "b": 20}


def recipe(**changes):
    return Recipe(**({"learning_rate": 0.1, "batch_size": 8, "steps": 10} | changes))


def test_json_round_trip():
    plan = Plan(recipes={"a": recipe(), "b": recipe(optimizer="adamw")}, coefficients={"a": 0.3, "b": 0.0})
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.training_cost() == 160


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        ({"b": 1.0, "a": 1.0}, "coefficients name .* use the same tasks"),
        ({"a": -0.1, "b": 1.0}, "coefficient of a=-0.1 must be at least 0"),
        ({"a": float("nan"), "b": 1.0}, "coefficient of a=nan"),
    ],
)
def test_bad_coefficients_are_refused(coefficients, message):
    with pytest.raises(ValueError, match=message):
        Plan(recipes={"a": recipe(), "b": recipe()}, coefficients=coefficients)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
@pytest.mark.parametrize("steps", [1, 2, 13, 160])
def test_step_mass_and_energy_are_sums_over_the_effective_step_vector(optimizer, schedule, steps):
    chosen = recipe(optimizer=optimizer, schedule=schedule, steps=steps)
    table = PlanTable.from_plans([Plan.uniform(NAMES, chosen, 1.0)], SAMPLES)
    np.testing.assert_allclose(table.step_mass(), chosen.step_weights().sum(), rtol=1e-12)
    np.testing.assert_allclose(table.step_energy(), np.sum(chosen.step_weights() ** 2), rtol=1e-9)


def test_columns_and_plans_give_the_same_table():
    columns = {
        "optimizer": np.array(["sgd", "momentum"]),
        "learning_rate_a": np.array([0.1, 0.2]),
        "learning_rate_b": np.array([0.3, 0.4]),
        "batch_size": np.array([8, 32]),
        "steps": np.array([10, 20]),
        "schedule": np.array(["constant", "warmup_cosine"]),
        "method": np.array(["task_arithmetic", "ties"]),
        "coefficient": np.array([0.5, 1.0]),
    }
    table = columns_to_table(columns, NAMES, SAMPLES)
    rows = [{name: column[m].item() for name, column in columns.items()} for m in range(2)]
    twin = PlanTable.from_plans([parameters_to_plan(row, NAMES, SAMPLES) for row in rows], SAMPLES)
    for field in (
        "learning_rate",
        "batch_size",
        "steps",
        "optimizer",
        "momentum",
        "schedule",
        "num_samples",
        "coefficients",
    ):
        np.testing.assert_array_equal(getattr(table, field), getattr(twin, field), err_msg=field)
    assert table.method == twin.method
    assert table.batch_size[1].tolist() == [32, 20]  # cut to the samples of b


def test_an_unknown_optimizer_in_a_column_is_refused():
    columns = {key: np.array([value]) for key, value in {"learning_rate": 0.1, "batch_size": 8, "steps": 4}.items()}
    with pytest.raises(ValueError, match="'lion' is not one of sgd, momentum, adamw"):
        columns_to_table(columns | {"optimizer": np.array(["lion"])}, NAMES, SAMPLES)


def test_plans_of_different_tasks_are_not_put_into_one_table():
    plans = [Plan.uniform(("a",), recipe(), 1.0), Plan.uniform(("b",), recipe(), 1.0)]
    with pytest.raises(ValueError, match="different tasks"):
        PlanTable.from_plans(plans, SAMPLES)
