"""The benchmark's checks run on small settings, so that the stored figures stay reproducible."""

import pytest

from benchmarks.estimator_checks import _against_outside_truth
from benchmarks.estimators import environment
from tests.small_networks import small_objective


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "test_resnet", "test_vit"])
def test_figures_against_outside_truth_reach_their_targets(name):
    figures = _against_outside_truth(small_objective(name))
    for key, value in figures.items():
        if key.startswith("top_curvature_against"):
            assert abs(value) < 0.01, key
        if key.startswith("gradient_variance_against"):
            assert abs(value) < 1e-4, key
    assert figures["gram_against_loop"] < 1e-5


def test_the_environment_names_what_figures_depend_on():
    assert {"torch", "timm", "numpy"} <= set(environment()["packages"])
