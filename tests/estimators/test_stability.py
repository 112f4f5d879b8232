import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators.cost import CostMeter
from estimators.outcomes import TooFewSamples
from estimators.recipe import Recipe
from estimators.stability import StabilityTwins, TwinDiverged, stability_bound
from tests.known_problems import QuadraticTask
from tests.quadratic_objectives import QuadraticObjective, split_of

RECIPE = Recipe(learning_rate=0.05, batch_size=4, steps=30, sampling="with_replacement")


def isotropic(size=3):
    return QuadraticTask(hessian=np.eye(size), centre=np.zeros(size), covariance=np.eye(size))


def twins_of(recipe, num_samples, num_pairs=16, seed=0):
    rng = np.random.default_rng(seed)
    task = isotropic()
    return StabilityTwins(recipe, num_pairs=num_pairs, random_state=seed).fit(
        QuadraticObjective(task, np.zeros(3)), split_of(task.sample(num_samples, rng)), split_of(task.sample(100, rng))
    )


def test_full_batches_follow_the_closed_form():
    """With b = n every step adds (eta/n) (z' - z) to the difference and shrinks it by 1 - eta."""
    recipe = Recipe(learning_rate=0.05, batch_size=10, steps=30)
    rng = np.random.default_rng(0)
    train, fresh = isotropic().sample(10, rng), isotropic().sample(50, rng)
    twins = StabilityTwins(recipe, num_pairs=5).fit(
        QuadraticObjective(isotropic(), np.zeros(3)), split_of(train), split_of(fresh)
    )
    factor = (0.05 / 10 * (1 - 0.95**30) / 0.05) ** 2
    for pair, old in enumerate(twins.replaced_):
        candidates = factor * np.square(train[old] - fresh).sum(1)
        assert np.isclose(candidates, twins.squared_distances_[pair], rtol=1e-4).any()


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_measured_stability_stays_below_the_refined_bound(batch_size):
    recipe = RECIPE.replace(batch_size=batch_size)
    measured = twins_of(recipe, 20).estimate_
    bound = stability_bound(gradient_variance=3.0, learning_rate=0.05, batch_size=batch_size, steps=30, num_samples=20)
    assert 0 < measured.value < bound


def test_a_bound_with_too_small_a_constant_is_caught():
    measured = twins_of(RECIPE.replace(learning_rate=0.001, batch_size=1), 20, num_pairs=40).estimate_
    bound = stability_bound(gradient_variance=3.0, learning_rate=0.001, batch_size=1, steps=30, num_samples=20)
    assert bound / 4 < measured.value < bound


def test_larger_training_sets_are_more_stable():
    assert twins_of(RECIPE, 200).estimate_.value < twins_of(RECIPE, 20).estimate_.value / 3


def test_forms_of_the_bound_differ_in_the_sign_of_the_batch_size():
    common = {"gradient_variance": 1.0, "learning_rate": 0.1, "steps": 50, "num_samples": 100, "smoothness": 0.1}
    refined = [stability_bound(batch_size=b, form="refined", **common) for b in (1, 32)]
    paper = [stability_bound(batch_size=b, form="paper", **common) for b in (1, 32)]
    assert refined[1] < refined[0]
    assert paper[1] > paper[0]
    with pytest.raises(ValueError, match="form='crude' is not one of"):
        stability_bound(batch_size=1, form="crude", **common)


def test_a_trainer_can_be_passed_in_and_is_told_the_same_seed_twice():
    seen = []

    def trainer(objective, train, recipe, seed, meter):
        seen.append(seed)
        return train.inputs.mean(0)

    rng = np.random.default_rng(0)
    train, fresh = rng.standard_normal((8, 3)), rng.standard_normal((8, 3))
    twins = StabilityTwins(RECIPE, num_pairs=2, trainer=trainer).fit(
        QuadraticObjective(isotropic(), np.zeros(3)), split_of(train), split_of(fresh)
    )
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert (twins.squared_distances_ > 0).all()


def test_pairs_trained_in_other_processes_give_the_same_bits():
    task, rng = isotropic(), np.random.default_rng(0)
    train, fresh = split_of(task.sample(20, rng)), split_of(task.sample(20, rng))
    found = []
    for n_jobs in (None, 2):
        meter = CostMeter()
        twins = StabilityTwins(RECIPE, num_pairs=4, n_jobs=n_jobs)
        twins.fit(QuadraticObjective(task, np.zeros(3)), train, fresh, meter=meter)
        found.append((twins.squared_distances_.tolist(), meter.units, twins.estimate_))
    assert found[0] == found[1]


def test_divergence_and_too_few_pairs_are_named_outcomes():
    with pytest.raises(TwinDiverged, match="lower the learning rate"):
        twins_of(RECIPE.replace(learning_rate=1e6), 20, num_pairs=2)
    with pytest.raises(TooFewSamples, match="num_samples=1 is too few for a stability"):
        twins_of(RECIPE, 20, num_pairs=1)


def test_training_both_twins_is_booked():
    meter = CostMeter()
    task, rng = isotropic(), np.random.default_rng(0)
    twins = StabilityTwins(RECIPE, num_pairs=2).fit(
        QuadraticObjective(task, np.zeros(3)), split_of(task.sample(9, rng)), split_of(task.sample(9, rng)), meter=meter
    )
    assert meter.units == twins.estimate_.cost == 4 * RECIPE.cost()
    assert clone(twins).get_params()["num_pairs"] == 2
    assert torch.get_default_dtype() == torch.float32
