"""Hedged coefficients: the condition they promise, the two ends of their path, and what must not matter."""

import numpy as np
import pytest
from scipy.optimize import brentq

from advisor.coefficients_hedging import LEAST_INTERFERENCE, describe_hedge, hedged_coefficients
from advisor.coefficients_prior import INTERFERENCE, prior_coefficients, prior_interval
from tests.advisor.test_coefficients_prior import random_gram, risk

BASE = 60.0


def at_least(row, gram):
    """The prior risk where interference is least."""
    return risk(row, gram, BASE, interference=LEAST_INTERFERENCE)


@pytest.mark.parametrize("scale", [0.05, 0.4, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_they_never_lose_against_the_average_where_interference_is_least(seed, scale):
    gram = random_gram(seed) * scale**2
    found = hedged_coefficients(gram, BASE)
    average = np.full(3, 1 / 3)
    assert at_least(found, gram) <= at_least(average, gram) + 1e-9
    assert risk(found, gram, BASE) <= risk(average, gram, BASE) + 1e-9  # nor where it is as guessed


def test_equal_orthogonal_experts_have_the_closed_form():
    # R_k is a parabola in the common coefficient around 1/(1 + k N r): nothing is lost between the average and its
    # mirror image, and the path comes from below.
    for count in (2, 4, 8):
        for r in (0.002, 0.02, 0.05, 0.2):
            guess, safe = (1 / (1 + k * count * r) for k in (INTERFERENCE, LEAST_INTERFERENCE))
            expected = max(guess, min(1 / count, 2 * safe - 1 / count))
            found = hedged_coefficients(np.eye(count) * (r * BASE) ** 2, BASE)
            np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_average_that_even_little_interference_spoils_is_left_for_the_best_guess():
    gram = np.diag([30.0, 0.3, 0.3]) ** 2  # one expert went very far
    np.testing.assert_allclose(hedged_coefficients(gram, BASE), prior_coefficients(gram, BASE))


def test_the_end_of_the_path_is_where_nothing_is_lost_any_more():
    gram = np.array([[4.0, 0.4, 0.2], [0.4, 3.0, 0.3], [0.2, 0.3, 5.0]])
    found = hedged_coefficients(gram, BASE)
    average = np.full(3, 1 / 3)

    def lost(log_interference):
        row = prior_coefficients(gram, BASE, interference=float(np.exp(log_interference)))
        return at_least(row, gram) - at_least(average, gram)

    assert lost(np.log(INTERFERENCE)) > 0
    end = brentq(lost, np.log(LEAST_INTERFERENCE), np.log(INTERFERENCE))
    np.testing.assert_allclose(found, prior_coefficients(gram, BASE, interference=float(np.exp(end))), rtol=1e-3)


def test_order_and_scale_do_not_matter():
    gram = random_gram(1)
    found = hedged_coefficients(gram, BASE)
    order = [2, 0, 1]
    np.testing.assert_allclose(hedged_coefficients(gram[np.ix_(order, order)], BASE), found[order], atol=1e-4)
    np.testing.assert_allclose(hedged_coefficients(gram * 49, 7 * BASE), found, atol=1e-4)


def test_on_the_simplex_they_add_up_and_in_narrow_bounds_they_stay():
    gram = random_gram(0)
    assert hedged_coefficients(gram, BASE, total=1.0).sum() == pytest.approx(1)
    inside = hedged_coefficients(gram, BASE, bounds=(0.05, 0.2))
    assert (inside >= 0.05).all()
    assert (inside <= 0.2).all()


def test_intervals_around_the_best_guess_hold_the_hedged_choice():
    gram = np.eye(4) * 4.0
    guess, chosen = prior_coefficients(gram, 50.0), hedged_coefficients(gram, 50.0)
    low, high = prior_interval(guess, (0.0, 2.0), chosen=chosen)
    assert (low <= guess).all()
    assert ((low <= chosen) & (chosen <= high)).all()


def test_the_best_guess_is_named_where_it_was_not_chosen():
    guess, chosen = np.array([0.08, 0.1]), np.array([0.2, 0.25])
    (said,) = describe_hedge(("a", "b"), guess, chosen)
    assert "a 0.08, b 0.1" in said
    assert "--data" in said
    assert describe_hedge(("a", "b"), guess, guess) == ()
