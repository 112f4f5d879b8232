"""What the bound's constants refuse, and how measured ones stand in for them on the safe side."""

import numpy as np
import pytest

from advisor.bound_constants import BoundConstants, from_constants
from estimators.constants import Constants, Estimate, TaskConstants

PLAIN = {
    "names": ("a", "b"),
    "task_weights": [0.25, 0.75],
    "num_samples": [10, 20],
    "smoothness": 4.0,
    "task_smoothness": [1.0, 4.0],
    "gradient_variance": [1.0, 2.0],
    "initial_gradient_norm": [1.0, 1.0],
    "initial_risk": [2.0, 4.0],
    "gradient_gram": np.eye(2),
}


def estimate(value, width=0.5):
    return Estimate(value=value, low=value - width, high=value + width)


def measured(*, gram=None, **changes):
    fields = {
        "initial_risk": estimate(1.0),
        "initial_gradient_norm": estimate(2.0),
        "gradient_variance": estimate(30.0),
        "top_curvature": estimate(10.0),
    } | changes
    task = TaskConstants(**fields)
    return Constants(
        tasks={"a": task, "b": task},
        num_samples={"a": 10, "b": 100},
        num_classes={"a": 2, "b": 2},
        num_parameters=5,
        gradient_gram=gram,
    )


def test_gaps_default_to_the_risk_at_the_start_and_arrays_are_frozen():
    constants = BoundConstants(**PLAIN)
    assert constants.goal_risk == constants.initial_gap == 3.5
    assert constants.gap_of_tasks.tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="read-only"):
        constants.initial_risk[0] = 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_weights": [0.5, 0.6]}, "must sum to 1; divide"),
        ({"task_weights": [1.0]}, "task_weights has shape"),
        ({"smoothness": 0.0}, "smoothness=0.0 must be positive"),
        ({"smoothness": float("nan")}, "smoothness=nan must be positive"),
        ({"smoothness": 2.0}, "must not exceed smoothness=2.0"),
        ({"num_samples": [0, 1]}, "num_samples=.* must be at least 1"),
        ({"gradient_variance": [-1.0, 1.0]}, "gradient_variance=.* finite and at least 0"),
        ({"initial_risk": [np.inf, 1.0]}, "initial_risk=.* finite and at least 0"),
        ({"pl_constant": 5.0}, r"pl_constant=5.0 must lie in \[0, smoothness=4.0\]"),
        ({"initial_gap": 1.0, "initial_gap_floor": 2.0}, "initial_gap_floor=2.0 must lie in"),
        ({"gradient_gram": [[1.0, 2.0], [2.0, 1.0]]}, "has the eigenvalue -1; a Gram matrix has none below 0"),
    ],
)
def test_impossible_constants_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BoundConstants(**(PLAIN | changes))


def test_every_stand_in_is_the_upper_end_and_the_sampling_part_is_put_back():
    constants = from_constants(measured(heldout_gradient_variance=estimate(40.0), sample_smoothness=estimate(90.0)))
    assert constants.task_weights.tolist() == [0.5, 0.5]
    assert constants.smoothness == 90.5
    assert constants.task_smoothness.tolist() == [10.5, 10.5]
    assert constants.gradient_variance.tolist() == [40.5, 40.5]
    np.testing.assert_allclose(constants.initial_gradient_norm**2, [2.5**2 + 4.05, 2.5**2 + 0.405])
    assert constants.initial_gap == 1.5
    assert constants.initial_gap_floor == constants.pl_constant == 0
    assert constants.sources["smoothness"] == "sample_smoothness"


def test_without_the_smoothness_of_samples_the_largest_curvature_stands_in_and_says_so():
    constants = from_constants(measured(path_curvature=estimate(25.0)), [0.9, 0.1])
    assert constants.smoothness == 25.5
    assert "path_curvature" in constants.sources["smoothness"]
    assert constants.task_weights.tolist() == [0.9, 0.1]


def test_without_curvature_the_smoothness_of_samples_serves_each_task():
    constants = from_constants(measured(top_curvature=None, sample_smoothness=estimate(90.0)))
    assert constants.task_smoothness.tolist() == [90.5, 90.5]


def test_without_a_gradient_norm_self_bounding_gives_one():
    constants = from_constants(measured(initial_gradient_norm=None))
    np.testing.assert_allclose(constants.initial_gradient_norm**2, 2 * 10.5 * 1.5)
    assert constants.sources["initial_gradient_norm"] == "initial_risk and task_smoothness"


@pytest.mark.parametrize("seed", range(5))
def test_the_gram_matrix_lies_above_every_matrix_in_its_intervals(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((2, 3))
    truth = vectors @ vectors.T
    noise = rng.uniform(-0.5, 0.5, (2, 2))
    noise = (noise + noise.T) / 2
    gram = tuple(tuple(estimate(value) for value in row) for row in (truth + noise).tolist())
    sampling = np.diag([30.5 / 10, 30.5 / 100])
    lifted = from_constants(measured(gram=gram)).gradient_gram
    assert np.linalg.eigvalsh(lifted - truth - sampling)[0] >= -1e-12


def test_without_a_gram_matrix_the_norms_give_one_that_dominates():
    constants = from_constants(measured())
    norm = constants.initial_gradient_norm
    for sign in (-1, 1):
        worst = np.outer(norm, norm) * np.array([[1, sign], [sign, 1]])
        assert np.linalg.eigvalsh(constants.gradient_gram - worst)[0] >= -1e-9


def test_constants_that_cannot_do_are_named():
    with pytest.raises(ValueError, match="task a: sample_smoothness, top_curvature"):
        from_constants(measured(top_curvature=None))
    with pytest.raises(ValueError, match="task a: gradient_variance is missing"):
        from_constants(measured(gradient_variance=None))
