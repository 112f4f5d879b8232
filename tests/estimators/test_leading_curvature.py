import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators.cost import CostMeter
from estimators.gradient_variance import GradientVariance
from estimators.leading_curvature import LeadingCurvature
from estimators.outcomes import LostInNoise
from estimators.sample_design import SampleKnowledge
from estimators.smoothness import TopCurvature
from tests.small_networks import small_objective, small_split


def prepared(name, count=60, taken=40, seed=0):
    objective, split = small_objective(name), small_split(count, seed=seed)
    features = objective.backbone.features(objective.initial, split.inputs).detach()
    knowledge = SampleKnowledge.of(features, objective.head, split.labels)
    rows = GradientVariance(num_samples=taken).fit(objective, split, knowledge=knowledge).gradients_.best
    return objective, split, rows, knowledge


@pytest.mark.parametrize("name", ["cnn", "test_resnet", "test_vit"])
def test_all_samples_give_the_top_curvature_of_both_matrices(name):
    objective, split, rows, knowledge = prepared(name, taken=60)
    found = LeadingCurvature(num_leading=60, num_curved=60, num_exact=60).fit(objective, split, rows, knowledge)
    gauss_newton = TopCurvature(kind="gauss_newton", max_products=40).fit(objective, split).estimate_.value
    assert found.gauss_newton_.value <= gauss_newton * (1 + 1e-4)
    assert (
        found.gauss_newton_.low <= gauss_newton <= found.gauss_newton_.high * 1.25
    )  # an untrained network's direction
    along = TopCurvature(max_products=40).fit(objective, split).estimate_.value
    assert found.estimate_.value <= along * (1 + 1e-4)
    assert float(found.direction_.norm()) == pytest.approx(1.0, abs=1e-5)
    assert found.sample_smoothness_.value >= found.sample_curvatures_.max() * 0.9


def test_the_direction_is_the_top_eigenvector_of_the_second_moment_of_the_gradients():
    objective, split, rows, knowledge = prepared("cnn", taken=60)
    found = LeadingCurvature(num_leading=60).fit(objective, split, rows, knowledge)
    moment = rows.sketches.double().T @ rows.sketches.double()  # a small network's sketches are the gradients
    vector = torch.linalg.eigh(moment)[1][:, -1]
    assert abs(float(vector @ found.direction_.double())) == pytest.approx(1.0, abs=1e-3)


def test_the_goal_of_one_task_is_that_task_and_tasks_count_by_their_weights():
    objective, split, rows, knowledge = prepared("cnn")
    other = small_split(60, seed=5)
    features = objective.backbone.features(objective.initial, other.inputs).detach()
    known = SampleKnowledge.of(features, objective.head, other.labels)
    more = GradientVariance(num_samples=40).fit(objective, other, knowledge=known).gradients_.best
    parts = (
        {"a": objective, "b": objective},
        {"a": split, "b": other},
        {"a": rows, "b": more},
        {"a": knowledge, "b": known},
    )
    both = {"num_leading": 120, "num_curved": 120, "num_exact": 40}
    alone = LeadingCurvature(num_leading=60, num_curved=60, num_exact=20).fit(objective, split, rows, knowledge)
    found = LeadingCurvature(**both).fit_goal(*parts, task_weights={"a": 1.0, "b": 0.0})
    assert found.estimate_.value == pytest.approx(alone.estimate_.value, rel=0.15)
    mixed = LeadingCurvature(**both).fit_goal(*parts)
    truth = TopCurvature(max_products=40).fit_goal({"a": objective, "b": objective}, {"a": split, "b": other})
    assert mixed.estimate_.value == pytest.approx(truth.estimate_.value, rel=0.3)


def test_cost_is_one_unit_a_leading_and_a_fresh_sample_and_five_an_exact_one():
    objective, split, rows, knowledge = prepared("cnn")
    meter = CostMeter()
    LeadingCurvature(num_leading=10, num_curved=20, num_exact=4).fit(objective, split, rows, knowledge, meter=meter)
    assert meter.units == pytest.approx(10 + 20 + 4 * 5 + 12, abs=8)


def test_seeds_change_the_samples_and_nothing_else():
    parts = prepared("cnn")
    found = [LeadingCurvature(num_curved=20, random_state=s).fit(*parts).estimate_.value for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert np.isfinite(found).all()


def test_rows_of_equal_chances_and_zero_gradients_are_named():
    objective, split, rows, knowledge = prepared("cnn")
    equal = GradientVariance(num_samples=20).fit(objective, split).gradients_.best
    with pytest.raises(ValueError, match="drawn with equal chances; use SampledTopCurvature"):
        LeadingCurvature().fit(objective, split, equal, knowledge)
    objective.head = type(objective.head)(weight=objective.head.weight * 0, bias=objective.head.bias)
    with pytest.raises(LostInNoise, match="gradients are zero for every sample"):
        LeadingCurvature().fit(objective, split, rows, knowledge)


def test_parameters_are_cloned_in_scikit_learns_way():
    assert clone(LeadingCurvature(num_curved=9)).get_params()["num_curved"] == 9
