import json

import numpy as np
import pytest

from estimators.constants import Constants, Estimate, TaskConstants


def estimate(value=1.0, **options):
    return Estimate(value=value, low=value / 2, high=options.pop("high", 2 * value), **options)


def constants(**changes):
    tasks = {
        "a": TaskConstants(
            initial_risk=estimate(), noise_scale=estimate(high=np.inf), failures={"top_curvature": "why"}
        ),
        "b": TaskConstants(initial_risk=estimate(2.0)),
    }
    cell = estimate()
    values = {
        "tasks": tasks,
        "num_samples": {"a": 5, "b": 6},
        "num_classes": {"a": 2, "b": 3},
        "num_parameters": 7,
        "gradient_gram": ((cell, cell), (cell, cell)),
        "goal_top_curvature": cell,
    }
    return Constants(**(values | changes))


def test_constants_survive_strict_json_with_infinite_ends():
    text = json.dumps(constants().to_json(), allow_nan=False)
    assert Constants.from_json(json.loads(text)) == constants()


def test_numbers_of_numpy_become_plain():
    made = Estimate(value=np.float64(1), low=np.float32(0), high=np.float64(2), identifiable=np.bool_(True))
    assert type(made.value) is float
    assert type(made.identifiable) is bool


def test_measured_names_what_is_there():
    assert list(constants().tasks["a"].measured()) == ["initial_risk", "noise_scale"]


def test_intervals_must_hold_their_value():
    with pytest.raises(ValueError, match="must lie in its interval"):
        Estimate(value=3.0, low=0.0, high=1.0)
    with pytest.raises(ValueError, match="left out"):
        Estimate(value=float("nan"), low=0.0, high=1.0)


def test_every_part_speaks_of_the_same_tasks():
    with pytest.raises(ValueError, match="num_samples names"):
        constants(num_samples={"b": 6, "a": 5})
    with pytest.raises(ValueError, match="must be 2 x 2"):
        constants(gradient_gram=((estimate(),),))
    with pytest.raises(ValueError, match="at least one task"):
        constants(tasks={})


def test_description_flags_what_is_not_identified():
    assert estimate().describe() == "1 [0.5, 2]"
    assert estimate(identifiable=False).describe().endswith("(not identified)")
