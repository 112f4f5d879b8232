"""Coefficients from weights against closed forms, brute force and what must not matter."""

import itertools

import numpy as np
import pytest

from advisor.coefficients_prior import (
    HELP,
    INTERFERENCE,
    describe_trust,
    interference_shares,
    prior_coefficients,
    prior_interval,
    quadratic,
)


def random_gram(seed, count=3):
    vectors = np.random.default_rng(seed).standard_normal((count, 12)) * np.array([[0.3], [1.0], [2.5]])[:count]
    vectors += 0.3
    return vectors @ vectors.T


def risk(row, gram, base, *, interference=INTERFERENCE):
    """The formula of the module's head, written out."""
    norms = np.sqrt(np.diag(gram))
    r, count = norms / base, len(norms)
    c = np.maximum(gram / np.outer(norms, norms), 0)
    total = 0.0
    for j in range(count):
        others = [i for i in range(count) if i != j]
        s = row[j] + HELP * sum(c[i, j] * r[i] / r[j] * row[i] for i in others)
        total += r[j] / 2 * (1 - s) ** 2
    pairs = itertools.product(range(count), repeat=2)
    return total + interference / 2 * count * sum(row[i] * row[j] * r[i] * r[j] * c[i, j] for i, j in pairs)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_experts_without_overlap_have_the_closed_form(count):
    norms = np.linspace(0.5, 4.0, count)
    found = prior_coefficients(np.diag(norms**2), 50.0)
    np.testing.assert_allclose(found, 1 / (1 + INTERFERENCE * count * norms / 50), rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_minimum_equals_a_brute_force_grids(seed):
    gram = random_gram(seed)
    found = prior_coefficients(gram, 60.0)
    axis = np.linspace(0, 0.6, 25)
    grid = min(itertools.product(axis, repeat=3), key=lambda row: risk(row, gram, 60.0))
    assert risk(found, gram, 60.0) <= risk(grid, gram, 60.0) + 1e-12
    np.testing.assert_allclose(found, grid, atol=0.05)


def test_order_and_scale_do_not_matter():
    gram = random_gram(1)
    found = prior_coefficients(gram, 60.0)
    order = [2, 0, 1]
    np.testing.assert_allclose(prior_coefficients(gram[np.ix_(order, order)], 60.0), found[order], atol=1e-5)
    np.testing.assert_allclose(prior_coefficients(gram * 49, 420.0), found, atol=1e-6)


def test_the_farther_an_expert_went_the_less_it_gets_but_never_moves_less():
    norms = np.array([0.1, 0.5, 1.0, 3.0])
    found = prior_coefficients(np.diag(norms**2), 50.0)
    assert (np.diff(found) < 0).all()
    assert (np.diff(found * norms) > 0).all()


def test_coefficients_on_the_simplex_add_up_and_are_the_best_there():
    gram = random_gram(2)
    found = prior_coefficients(gram, 60.0, total=1.0)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    for seed in range(50):
        other = np.random.default_rng(seed).dirichlet(np.ones(3))
        assert risk(found, gram, 60.0) <= risk(other, gram, 60.0) + 1e-9


def test_the_quadratic_is_the_risk():
    gram, base = random_gram(3), 60.0
    matrix, pull = quadratic(gram, base, INTERFERENCE, HELP)
    scale = np.sqrt(np.diag(gram)).max() / base
    one, two = np.array([0.1, 0.3, 0.2]), np.array([0.5, 0.0, 0.4])

    def value(row):
        return scale * (row @ matrix @ row / 2 - pull @ row)

    assert value(one) - value(two) == pytest.approx(risk(one, gram, base) - risk(two, gram, base))


def test_intervals_hold_their_coefficient_and_stay_in_bounds():
    row = np.array([0.0, 0.1, 1.5])
    low, high = prior_interval(row, (0.0, 2.0))
    assert ((low <= row) & (row <= high)).all()
    assert high[2] == 2.0


def test_shares_of_interference_add_up_to_one():
    shares = interference_shares(np.array([0.2, 0.4, 0.1]), random_gram(0))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(np.diag(shares), 0)


def test_far_travelled_experts_are_named():
    said = " ".join(describe_trust(("a", "b", "c"), np.array([1.0, 1.1, 9.0]), 40.0))
    assert "c (8.2 times)" in said
    assert "22%" in said
    assert "--data" in said


def test_an_expert_equal_to_the_base_is_refused():
    with pytest.raises(ValueError, match="leave experts out that equal the base"):
        prior_coefficients(np.diag([1.0, 0.0]), 10.0)
