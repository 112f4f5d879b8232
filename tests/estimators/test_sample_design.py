import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from estimators.gradient_variance import GradientVariance
from estimators.heterogeneity import MeanGradients
from estimators.initial_gradient import InitialGradientNorm
from estimators.sample_design import SampleKnowledge, corrections_of, design_gradients, draw_weighted, inclusion_chances
from estimators.tasks import LinearHead, Task
from tests.small_networks import small_objective, small_split
from tests.weighted_draw_trials import WEIGHTED_SETTINGS, drawn_gradients, known_split, run_weighted_trials

SEEDS = 300


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    return known_split(rng.standard_normal((5, 8)) / np.sqrt(8), rng, 300)


def test_slopes_and_curvatures_are_the_derivatives_of_the_loss_by_the_features():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    head = LinearHead(
        weight=torch.randn(3, 4, generator=generator, dtype=torch.float64),
        bias=torch.randn(3, generator=generator, dtype=torch.float64),
    )
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    known = SampleKnowledge.of(features, head, labels)
    for i in range(6):

        def loss(phi, i=i):
            return torch.nn.functional.cross_entropy(head.weight @ phi + head.bias, labels[i])

        np.testing.assert_allclose(known.slopes[i], torch.func.grad(loss)(features[i]).numpy(), rtol=1e-10)
        trace = float(torch.trace(torch.func.hessian(loss)(features[i])))
        assert known.curvatures[i] == pytest.approx(trace, rel=1e-9)
    assert (known.features**2).sum(1).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(known.features.mean(0), 0.0, atol=1e-12)


def test_chances_are_in_proportion_until_they_are_certain():
    sizes = np.random.default_rng(0).lognormal(0, 2, 200)
    chances = inclusion_chances(sizes, 80)
    assert chances.sum() == pytest.approx(80)
    assert chances.max() == 1.0
    free = chances < 1
    ratio = chances[free] / sizes[free]
    np.testing.assert_allclose(ratio, ratio[0])
    assert sizes[~free].min() * ratio[0] >= 1 - 1e-12
    assert inclusion_chances(sizes, 200).tolist() == [1.0] * 200


def test_each_sample_is_drawn_as_often_as_its_chance_says_and_never_twice():
    sizes = np.random.default_rng(1).lognormal(0, 1, 40)
    counts, draws = np.zeros(40), 4000
    for seed in range(draws):
        places = draw_weighted(sizes, 12, seed).places.numpy()
        assert len(set(places.tolist())) == 12
        counts[places] += 1
    expected = inclusion_chances(sizes, 12)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(counts / draws - expected) <= 4.5 * error + 1e-12).all()


def test_the_mean_has_no_bias_and_far_less_error_than_an_equal_draw(split):
    truth, count = split.gradients.mean(0), 100
    found, equal = [], []
    for seed in range(SEEDS):
        design = design_gradients(split.knowledge, count, seed)
        found.append(design.mean_weights @ split.gradients[design.draw.places.numpy()] - truth)
        chosen = np.random.default_rng(seed).choice(len(split.gradients), count, replace=False)
        equal.append(split.gradients[chosen].mean(0) - truth)
    errors = np.array(found)
    square = (errors**2).sum(1).mean()
    bias = (errors.mean(0) ** 2).sum()
    assert bias < 4 * square / SEEDS  # what chance alone leaves of SEEDS errors, four times
    assert square < 0.4 * (np.array(equal) ** 2).sum(1).mean()


def test_its_error_is_told_by_the_deviations(split):
    truth, errors, told = split.gradients.mean(0), [], []
    for seed in range(SEEDS):
        rows = drawn_gradients(split, 100, seed).best
        errors.append(float(((rows.mean.numpy() - truth) ** 2).sum()))
        told.append(rows.noise_trace())
        assert rows.noise_trace() == pytest.approx(float(rows.noise_rows().square().sum()))
    assert np.mean(told) == pytest.approx(np.mean(errors), rel=0.2)


def test_taking_every_sample_leaves_nothing_to_chance(split):
    rows = drawn_gradients(split, 300, 0).best
    np.testing.assert_allclose(rows.mean.numpy(), split.gradients.mean(0), atol=1e-12)
    assert rows.noise_trace() == 0
    squared = InitialGradientNorm().fit(rows).squared_
    assert squared.low == pytest.approx(squared.high)
    assert squared.value == pytest.approx(float((split.gradients.mean(0) ** 2).sum()))
    found = GradientVariance().fit_gradients(drawn_gradients(split, 300, 0)).estimate_
    assert found.value == pytest.approx(float(split.gradients.var(0, ddof=1).sum()), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((found.value, found.value))


def test_a_head_that_fits_perfectly_leaves_equal_chances():
    features = torch.zeros(10, 3, dtype=torch.float64)
    head = LinearHead(weight=torch.zeros(2, 3), bias=torch.zeros(2))
    known = SampleKnowledge.of(features, head, torch.tensor([0, 1] * 5))
    design = design_gradients(known, 4, 0)
    np.testing.assert_allclose(design.draw.chances, 0.4)
    np.testing.assert_allclose(design.mean_weights, 0.25)
    assert corrections_of(np.array([1.0, 0.5])).tolist() == [0.0, 0.0]  # one draw tells nothing of its scatter


def test_a_task_without_features_has_nothing_known():
    task = Task(name="a", train=small_split(4), validation=small_split(4), class_names=("x", "y", "z"))
    assert SampleKnowledge.of_task(task) is None
    headed = dataclasses.replace(task, head=LinearHead(weight=torch.ones(3, 2), bias=torch.zeros(3)))
    assert SampleKnowledge.of_task(headed) is None
    full = dataclasses.replace(headed, features=torch.ones(4, 2, dtype=torch.bfloat16))
    assert SampleKnowledge.of_task(full).slopes.shape == (4, 2)


@pytest.mark.parametrize("name", ["cnn", "test_resnet", "test_vit"])
def test_on_networks_the_design_finds_the_gradient_of_the_whole_split(name):
    objective, split = small_objective(name), small_split(60)
    features = objective.backbone.features(objective.initial, split.inputs).detach()
    known = SampleKnowledge.of(features, objective.head, split.labels)
    rows = [
        torch.func.grad(lambda w, i=i: objective.losses(w, split.inputs[i : i + 1], split.labels[i : i + 1])[0])(
            objective.initial
        )
        for i in range(60)
    ]
    truth = torch.stack(rows).double()
    lengths = truth.norm(dim=1).numpy()
    assert stats.spearmanr(lengths, known.slope_sizes)[0] > 0.25  # the chain rule; on trained networks 0.8
    found = GradientVariance(num_samples=40, random_state=1).fit(objective, split, knowledge=known)
    best = found.gradients_.best
    assert best.num_rows == 40
    assert best.sketched_mean().shape == best.sketches[0].shape
    error = float((best.mean.double() - truth.mean(0)).square().sum())
    assert error < 8 * best.noise_trace()
    norms = truth[best.draw.places].square().sum(1).numpy()
    np.testing.assert_allclose(best.squared_norms, norms, rtol=1e-3)
    exact = GradientVariance(num_samples=60).fit(objective, split, knowledge=known)
    assert exact.estimate_.value == pytest.approx(float((truth - truth.mean(0)).square().sum() / 59), rel=1e-4)
    gram = MeanGradients([exact.gradients_.best]).unbiased_gram()
    assert gram[0, 0] == pytest.approx(float(truth.mean(0).square().sum()), rel=1e-3)


def test_intervals_of_weighted_draws_hold_the_truth_in_about_nine_of_ten_splits():
    small = dataclasses.replace(WEIGHTED_SETTINGS[2], population=90, count=45)
    for name, figures in run_weighted_trials(small, 60).items():
        assert 0.77 <= figures["coverage"], name


@pytest.mark.slow
@pytest.mark.parametrize("setting", WEIGHTED_SETTINGS, ids=lambda setting: setting.name)
def test_intervals_of_weighted_draws_hold_the_truth_in_nine_of_ten(setting):
    for name, figures in run_weighted_trials(setting, 400).items():
        assert 0.84 <= figures["coverage"] <= 0.95, name


def test_too_many_gradients_for_a_regression_are_weighted_without_one(split, monkeypatch):
    monkeypatch.setattr("estimators.sample_design.MOST_CALIBRATED", 50)
    truth, errors, told = split.gradients.mean(0), [], []
    for seed in range(SEEDS):
        design = design_gradients(split.knowledge, 100, seed)
        assert design.residuals is None
        rows = drawn_gradients(split, 100, seed).best
        errors.append(rows.mean.numpy() - truth)
        told.append(rows.noise_trace())
    square = (np.array(errors) ** 2).sum(1).mean()
    assert (np.mean(errors, axis=0) ** 2).sum() < 4 * square / SEEDS
    assert np.mean(told) == pytest.approx(square, rel=0.2)


def test_a_variance_that_unforeseen_samples_make_up_is_flagged(split):
    """Gradients long for another reason than the head's slope: of 300, 12 with short slopes are 12 times as long."""
    calm = [GradientVariance().fit_gradients(drawn_gradients(split, 200, seed)).estimate_ for seed in range(20)]
    assert all(estimate.identifiable for estimate in calm)
    short = np.argsort(split.knowledge.slope_sizes)[60:72]
    longer = split.gradients.copy()
    longer[short] *= 12
    wild = dataclasses.replace(split, gradients=longer)
    for seed in range(20):
        found = GradientVariance().fit_gradients(drawn_gradients(wild, 200, seed)).estimate_
        assert not found.identifiable
        assert "left to chance makes up" in found.note
