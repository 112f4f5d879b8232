"""Foretold merges on problems whose logits are exactly affine in the coefficients: every subset is known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from advisor.coefficients import Settings
from advisor.coefficients_tuning import Tuning
from advisor.mergeability import measure_responses
from tests.advisor.logistic_merges import logistic_problem, true_risks

NAMES = ("a", "b", "c", "d")


def responses(seed=0, scale=0.5, stretch=1.0):
    problem = logistic_problem(NAMES, seed=seed)
    problem.merges.vectors[1] *= stretch
    criterion = Tuning(problem=problem, settings=Settings()).criterion()
    return problem, measure_responses(problem, criterion, scale=scale)


@pytest.mark.parametrize("stretch", [1.0, 8.0])
def test_every_subset_is_foretold_where_experts_do_not_disturb_each_others_logits(stretch):
    problem, found = responses(stretch=stretch)
    assert problem.meter.units == pytest.approx(7 * 4 * 60 / 3)
    for size in (1, 2, 3, 4):
        for members in itertools.combinations(range(4), size):
            row = np.zeros(4)
            row[list(members)] = 1 / size
            told = found.risks({NAMES[i]: 1 / size for i in members})
            np.testing.assert_allclose([told[name] for name in NAMES], true_risks(problem, row), rtol=2e-3)


def test_the_order_of_experts_does_not_matter():
    problem, found = responses()
    merges = problem.merges
    turned = [2, 0, 3, 1]
    order = replace(
        merges,
        labels=tuple(NAMES[i] for i in turned),
        vectors=merges.vectors[turned],
        experts=tuple(merges.experts[i] for i in turned),
    )
    again = measure_responses(replace(problem, merges=order), found.criterion, scale=0.5)
    plan = {"a": 0.4, "c": 0.3}
    assert again.risks(plan) == pytest.approx(found.risks(plan), rel=1e-4)


def test_what_cannot_be_foretold_is_refused():
    problem, found = responses()
    with pytest.raises(ValueError, match="name experts that were measured"):
        found.risks({"z": 0.5})
    with pytest.raises(ValueError, match="must be finite; give numbers"):
        found.risks({"a": float("nan")})
    with pytest.raises(ValueError, match="scale=0 must be positive"):
        measure_responses(problem, found.criterion, scale=0)
    problem.merges.vectors[2] = 3e38  # its merge overflows, merges without it do not
    with pytest.raises(ValueError, match=r"\['c'\] has no finite output at scale=1"):
        measure_responses(problem, found.criterion, scale=1)
