"""Which merges come first: x_0, what they are compared with, and a direction for each expert."""

import numpy as np
import pytest

from advisor.coefficients import Settings
from advisor.coefficients_design import first_merges, operator_merges, response_metric
from advisor.coefficients_prior import prior_coefficients
from advisor.coefficients_search import is_allowed
from tests.advisor.logistic_merges import logistic_problem

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("labels", ["all", 3, 0])
@pytest.mark.parametrize("simplex", [False, True])
def test_the_first_merges_move_every_expert_on_its_own(labels, simplex):
    merges = logistic_problem(NAMES).merges
    settings = Settings(labels=labels, simplex=simplex)
    rows = np.stack(first_merges(merges, settings))
    assert rows.shape == (6, 3)
    assert not rows[0].any()
    assert np.linalg.matrix_rank(rows) == 3
    assert any(np.allclose(row, 1 / 3) for row in rows)
    total = 1.0 if simplex else None
    prior = prior_coefficients(merges.gram(), float(merges.start.norm()), total=total)
    assert any(np.allclose(row, prior) for row in rows)
    alone = [row for row in rows if np.sort(row).tolist() == [0, 0, 1]]
    assert len(alone) == (0 if labels == "all" else 3)
    assert all(is_allowed(settings.space(NAMES), row) for row in rows[1:])


def test_with_all_labels_each_expert_is_raised_once():
    merges = logistic_problem(NAMES).merges
    _, _, prior, *raised = first_merges(merges, Settings())
    for i, row in enumerate(raised):
        np.testing.assert_allclose(np.delete(row, i), np.delete(prior, i))
        assert row[i] >= 1.25 * prior[i]


def test_an_operators_merges_have_the_shape_of_the_best_linear_one():
    rows = operator_merges("ties", np.array([0.1, 0.3]), Settings())
    np.testing.assert_allclose(rows[1], 1.0)
    np.testing.assert_allclose(rows[3] / rows[3].sum(), [0.25, 0.75])


def test_a_step_that_tells_nothing_leaves_the_gram_matrix():
    gram = np.array([[2.0, 0.3], [0.3, 1.0]])
    rows = [np.array([0.1, 0.1]), np.array([0.2, 0.1]), np.array([0.1, 0.3])]
    values = [np.zeros(4), np.full(4, 0.5), np.full(4, 0.1)]
    told = response_metric(gram, rows, values)
    # 1.0/(0.1 sqrt 2) against 0.2/0.2: the first expert is 7.07 times as effective for its length
    np.testing.assert_allclose(told[0, 0] / told[1, 1], 2 * (10 / np.sqrt(2)) ** 2)
    for broken in (np.full(4, np.nan), np.zeros(4)):
        np.testing.assert_array_equal(response_metric(gram, rows, [values[0], values[1], broken]), gram)
    np.testing.assert_array_equal(response_metric(gram, [rows[0], rows[1], rows[0]], values), gram)
