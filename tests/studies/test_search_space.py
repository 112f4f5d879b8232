from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.knobs import Axis, Grid, powers_of_two
from studies.search_space import SearchSpace, rows_of
from tests.studies.plan_problems import make_space

TWO_OPTIMIZERS = {"sgd": (1e-3, 1.0), "adamw": (1e-5, 1e-2)}


def test_loading_the_search_space_and_the_study_does_not_load_optuna() -> None:
    code = "import sys, studies.search_space, studies.recipes, studies.coefficients; print('optuna' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_a_plan_names_the_fields_of_a_plan_once_for_all_tasks() -> None:
    assert set(make_space().names()) == {
        *("method", "optimizer", "learning_rate", "batch_size", "steps", "schedule", "coefficient")
    }


def test_per_task_fields_carry_the_name_of_their_task() -> None:
    names = make_space(per_task_recipes=True, coefficient_scope="per_task").names()
    assert "learning_rate_a" in names
    assert "coefficient_b" in names
    assert "method" in names
    assert "steps" not in names


def test_single_values_are_no_free_knobs_but_stay_in_the_plan() -> None:
    space = make_space(steps=(100, 100), fixed={"momentum": 0.9})
    assert [knob.name for knob in space.knobs] == ["learning_rate", "batch_size", "coefficient"]
    row = rows_of(space.sample(np.random.default_rng(0), 1))[0]
    assert (row["steps"], row["momentum"], row["optimizer"]) == (100, 0.9, "sgd")


def test_sampled_plans_stay_inside_their_ranges_and_on_their_grids() -> None:
    space = make_space(learning_rate=TWO_OPTIMIZERS, schedules=("constant", "warmup_cosine"))
    plans = space.sample(np.random.default_rng(1), 4000)
    adamw = plans["optimizer"] == "adamw"
    assert 0.4 < adamw.mean() < 0.6
    assert plans["learning_rate"][adamw].min() >= 1e-5
    assert plans["learning_rate"][adamw].max() <= 1e-2
    assert plans["learning_rate"][~adamw].min() >= 1e-3
    assert set(plans["batch_size"].tolist()) == {8, 16, 32, 64, 128}
    assert plans["steps"].min() == 20
    assert plans["steps"].max() == 640
    assert plans["steps"].dtype == np.int64


def test_learning_rates_are_uniform_in_the_logarithm() -> None:
    rates = make_space().sample(np.random.default_rng(2), 8000)["learning_rate"]
    share = np.histogram(np.log10(rates), bins=4, range=(-4, 0))[0] / 8000
    np.testing.assert_allclose(share, 0.25, atol=0.02)


@pytest.mark.parametrize("per_task", [False, True])
def test_encoding_and_decoding_give_the_same_plan_back(per_task: bool) -> None:
    space = make_space(learning_rate=TWO_OPTIMIZERS, methods=("ties", "dare"), per_task_recipes=per_task)
    plans = space.sample(np.random.default_rng(3), 200)
    again = space.decode(space.encode(plans))
    for name, column in plans.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(again[name], column, rtol=1e-12, atol=1e-15)
        else:
            assert again[name].tolist() == column.tolist()
    assert np.array_equal(space.encode(space.columns(rows_of(plans))), space.encode(plans))


@given(low=st.integers(1, 500), span=st.integers(0, 900), log=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_whole_number_of_a_range_can_be_reached_and_found_again(low: int, span: int, log: bool) -> None:
    axis = Axis(low=low, high=low + span, log=log, integer=True)
    values = np.arange(low, low + span + 1)
    assert axis.value(axis.unit(values)).tolist() == values.tolist()
    assert axis.value(np.array([0.0, 1.0])).tolist() == [low, low + span]


def test_powers_of_two_keep_both_ends_of_the_range() -> None:
    assert powers_of_two(8, 128).values == (8, 16, 32, 64, 128)
    assert powers_of_two(10, 100).values == (10, 16, 32, 64, 100)
    assert powers_of_two(7, 7).values == (7,)


def test_a_grid_space_lists_each_of_its_points_once() -> None:
    space = SearchSpace.from_grid(
        tasks=["a", "b"],
        learning_rate={"sgd": [0.1, 0.01]},
        batch_size=[8, 32],
        steps=[10, 20, 40],
        coefficient=[0.5, 1],
    )
    rows = rows_of(space.decode(space.points()))
    seen = {(r["learning_rate"], r["batch_size"], r["steps"], r["coefficient"]) for r in rows}
    assert space.size == len(rows) == len(seen) == 2 * 2 * 3 * 2
    assert {rate for rate, *_ in seen} == {0.1, 0.01}


def test_points_of_a_range_of_whole_numbers_are_those_numbers() -> None:
    space = make_space(learning_rate={"sgd": (0.1, 0.1)}, batch_size=(8, 8), coefficient=(1.0, 1.0), steps=(3, 9))
    assert space.decode(space.points())["steps"].tolist() == list(range(3, 10))


def test_a_continuous_space_has_no_list_of_points() -> None:
    assert math.isinf(make_space().size)
    with pytest.raises(ValueError, match="cannot be listed; use Grid values or sample"):
        make_space().points()


def test_neighbours_differ_in_one_knob_and_always_in_value() -> None:
    space = make_space(learning_rate=TWO_OPTIMIZERS)
    unit = np.full(space.dimensions, 0.5)
    here = rows_of(space.decode(unit[None, :]))[0]
    for point in space.neighbours(unit, 1e-4):
        there = rows_of(space.decode(point[None, :]))[0]
        changed = {name for name in here if here[name] != there[name]}
        assert changed in (
            {"learning_rate"},
            {"batch_size"},
            {"steps"},
            {"coefficient"},
            {"optimizer", "learning_rate"},
        )


def test_neighbours_at_the_edge_stay_inside() -> None:
    space = make_space()
    for corner in (0.0, 1.0):
        points = space.neighbours(np.full(space.dimensions, corner), 0.1)
        assert len(points) == space.dimensions
        assert points.min() >= 0
        assert points.max() <= 1


def test_edges_name_the_knob_and_the_side() -> None:
    space = make_space()
    unit = space.encode(
        [
            {
                **{"method": "task_arithmetic", "optimizer": "sgd", "schedule": "constant"},
                **{"learning_rate": 1.0, "batch_size": 32, "steps": 20, "coefficient": 1.0},
            }
        ]
    )[0]
    assert space.edges(unit) == (("learning_rate", "high"), ("steps", "low"))


def test_the_order_of_tasks_changes_nothing_but_the_listing() -> None:
    first, second = (
        make_space(tasks=tasks, per_task_recipes=True, coefficient_scope="per_task")
        for tasks in (("a", "b"), ("b", "a"))
    )
    assert first.names() == second.names()
    assert first.describe() == second.describe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": {}}, "must name at least one optimizer"),
        ({"learning_rate": {"sgd": (1.0, 0.1)}}, r"learning_rate of sgd=\[1.0, 0.1\] is inverted"),
        ({"learning_rate": {"sgd": (0.0, 0.1)}}, "must be positive; start the range above 0"),
        ({"learning_rate": {"sgd": (0.1, math.inf)}}, "must be finite; give two numbers"),
        ({"learning_rate": {"sgd": (0.1, 0.2, 0.3)}}, r"must be a range \[low, high\]; use Grid"),
        ({"steps": (640, 20)}, r"steps=\[640, 20\] is inverted"),
        ({"steps": (0, 20)}, "whole numbers of at least 1"),
        ({"batch_size": (8, 12.5)}, "whole numbers of at least 1"),
        ({"coefficient": (-1.0, 1.0)}, "must be at least 0"),
        ({"coefficient": (math.nan, 1.0)}, "must be finite"),
        ({"tasks": ()}, "must list at least one name"),
        ({"tasks": ("a", "a")}, "names one twice"),
        ({"methods": ("",)}, "name that is not empty"),
        ({"schedules": "constant"}, "give a tuple of names"),
        ({"coefficient_scope": "both"}, "coefficient_scope='both' is not known"),
        ({"batch_sizes": "threes"}, "batch_sizes='threes' is not known"),
        ({"fixed": {"steps": 3}}, "fixed parameter 'steps' is also searched"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_space(**changes)


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="must hold at least one value"):
        Grid(values=())
    with pytest.raises(ValueError, match="must be finite; leave it out"):
        Grid(values=(math.nan,))


def test_points_of_another_shape_and_unknown_names_are_refused() -> None:
    space = make_space()
    with pytest.raises(ValueError, match=r"units has shape \(3, 2\); it must be \[plans, 4 knobs\]"):
        space.decode(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        space.decode(np.full((1, 4), 1.5))
    with pytest.raises(ValueError, match="parameter 'method' is missing"):
        space.encode([{"steps": 3}])
    two = make_space(learning_rate=TWO_OPTIMIZERS)
    plans = two.sample(np.random.default_rng(0), 1) | {"optimizer": np.array(["lion"])}
    with pytest.raises(ValueError, match="optimizer='lion' is not in the search space"):
        two.encode(plans)
