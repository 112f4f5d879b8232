import numpy as np
import pytest

from estimators.sampling import batch_indices, stable_seed


def test_shuffled_epochs_see_every_sample_once_before_any_twice():
    order = batch_indices(10, 4, 5, sampling="shuffled", generator=np.random.default_rng(0)).reshape(-1)
    assert sorted(order[:10]) == list(range(10))
    assert sorted(order[10:20]) == list(range(10))


def test_draws_with_replacement_are_uniform_over_seeds():
    counts = sum(
        np.bincount(
            batch_indices(5, 5, 40, sampling="with_replacement", generator=np.random.default_rng(seed)).reshape(-1),
            minlength=5,
        )
        for seed in range(20)
    )
    expected = 20 * 200 / 5
    assert float((((counts - expected) ** 2) / expected).sum()) < 18.5  # chi-square, 4 degrees of freedom, p = 0.001


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size=6 must not exceed the task's 5"):
        batch_indices(5, 6, 1, sampling="shuffled", generator=np.random.default_rng(0))


def test_stable_seeds_tell_their_parts_apart():
    assert len({stable_seed(0, "a"), stable_seed(0, "b"), stable_seed(1, "a"), stable_seed("0a"), stable_seed()}) == 5
    assert stable_seed(1, "probe", 3) == stable_seed(1, "probe", 3)
