"""Losses of logits against torch, scipy and brute force."""

import numpy as np
import pytest
import torch
from scipy import stats

from advisor.coefficients_evidence import (
    EXPERT_ERROR_SHARE,
    LIMIT_PRICE,
    Criterion,
    TaskEvidence,
    agreeing,
    concatenated,
    label_share,
    labelled,
    partly_labelled,
    softmax,
    unsure,
)
from advisor.goal import Goal

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (30, 4))
TEACHER = RNG.normal(0, 2, (30, 4))
LABELS = RNG.integers(0, 4, 30)
KNOWN = np.arange(30) % 3 == 0


def evidences():
    return {
        "labels": labelled(LABELS, 4),
        "agreement": agreeing(TEACHER),
        "few": partly_labelled(LABELS, KNOWN, TEACHER),
        "entropy": unsure(30, 4),
    }


def test_losses_equal_torchs_and_scipys():
    z = torch.from_numpy(LOGITS)
    cross = torch.nn.functional.cross_entropy
    labels = float(cross(z, torch.from_numpy(LABELS)))
    soft = float(cross(z, torch.softmax(torch.from_numpy(TEACHER), 1)))
    entropy = stats.entropy(softmax(LOGITS), axis=1).mean()
    found = {name: e.losses(LOGITS).mean() for name, e in evidences().items()}
    assert found["labels"] == pytest.approx(labels)
    assert found["agreement"] == pytest.approx(soft)
    assert found["entropy"] == pytest.approx(entropy)


@pytest.mark.parametrize("name", list(evidences()))
def test_slopes_equal_finite_differences(name):
    evidence = evidences()[name]
    step = 1e-6
    for s, c in ((0, 0), (3, 2), (29, 3)):
        up, down = LOGITS.copy(), LOGITS.copy()
        up[s, c] += step
        down[s, c] -= step
        numeric = (evidence.losses(up).mean() - evidence.losses(down).mean()) / (2 * step)
        assert evidence.slope(LOGITS)[s, c] == pytest.approx(numeric, abs=1e-8)


def test_agreement_is_least_where_the_merge_says_what_the_expert_says():
    evidence = agreeing(TEACHER)
    lowest = evidence.losses(TEACHER).mean()
    assert lowest == pytest.approx(stats.entropy(softmax(TEACHER), axis=1).mean())
    for seed in range(20):
        other = TEACHER + np.random.default_rng(seed).normal(0, 1, TEACHER.shape)
        assert evidence.losses(other).mean() > lowest


def test_few_labels_lie_between_none_and_all():
    none = partly_labelled(LABELS, np.zeros(30, dtype=bool), TEACHER)
    every = partly_labelled(LABELS, np.ones(30, dtype=bool), TEACHER)
    np.testing.assert_allclose(none.losses(LOGITS), agreeing(TEACHER).losses(LOGITS))
    np.testing.assert_allclose(every.losses(LOGITS), labelled(LABELS, 4).losses(LOGITS))
    few = partly_labelled(LABELS, KNOWN, TEACHER)
    share = label_share(TEACHER[KNOWN].argmax(1) == LABELS[KNOWN], int((~KNOWN).sum()))
    expected = share * labelled(LABELS[KNOWN], 4).losses(LOGITS[KNOWN]).mean()
    expected += (1 - share) * agreeing(TEACHER[~KNOWN]).losses(LOGITS[~KNOWN]).mean()
    assert few.losses(LOGITS).mean() == pytest.approx(expected)
    assert few.weights.sum() == pytest.approx(1)


def test_the_share_of_labels_has_the_least_mean_squared_error():
    right = np.array([True] * 34 + [False] * 6)
    bias = EXPERT_ERROR_SHARE * 6.5 / 41
    shares = np.linspace(0, 1, 2001)
    error = shares**2 / 40 + (1 - shares) ** 2 / 200 + ((1 - shares) * bias) ** 2
    assert label_share(right, 200) == pytest.approx(shares[error.argmin()], abs=1e-3)
    worse = np.array([True] * 20 + [False] * 20)
    assert label_share(worse, 200) > label_share(right, 200)


def two_tasks(goal, **limits):
    return Criterion(evidence={"a": labelled(LABELS, 4), "b": agreeing(TEACHER)}, goal=goal, limits=limits)


def test_the_goal_weighs_tasks_and_follows_the_worst():
    values = concatenated([LOGITS, LOGITS[::-1]])
    mean = two_tasks(Goal(weights={"a": 3.0, "b": 1.0}))
    risks = mean.risks(values)
    assert mean.value(values) == pytest.approx(0.75 * risks["a"] + 0.25 * risks["b"])
    worst = two_tasks(Goal(weights={"a": 1.0, "b": 1.0}, kind="worst"))
    top = max(risks.values())
    assert top <= worst.value(values) <= top + np.log(2) / 50


@pytest.mark.parametrize("kind", ["mean", "worst"])
def test_the_goals_slope_equals_finite_differences(kind):
    criterion = two_tasks(Goal(weights={"a": 2.0, "b": 1.0}, kind=kind), a=0.5)
    values = concatenated([LOGITS, TEACHER + 0.5])
    _, slope = criterion.value_and_slope(values)
    direction = np.random.default_rng(4).standard_normal(len(values))
    step = 1e-6
    numeric = (criterion.value(values + step * direction) - criterion.value(values - step * direction)) / (2 * step)
    assert slope @ direction == pytest.approx(numeric, rel=1e-5)


def test_a_task_beyond_its_limit_costs():
    goal = Goal(weights={"a": 1.0, "b": 1.0})
    values = concatenated([LOGITS, TEACHER])
    risk = two_tasks(goal).risks(values)["a"]
    assert two_tasks(goal, a=risk + 1).value(values) == two_tasks(goal).value(values)
    beyond = two_tasks(goal, a=risk - 0.1).value(values) - two_tasks(goal).value(values)
    assert beyond == pytest.approx(0.1 * LIMIT_PRICE)


def test_the_error_of_a_difference_is_paired():
    criterion = two_tasks(Goal(weights={"a": 1.0, "b": 1.0}))
    left, right = concatenated([LOGITS, TEACHER]), concatenated([LOGITS + 0.1, TEACHER * 1.1])
    parts = []
    for name, (x, y) in {"a": (LOGITS, LOGITS + 0.1), "b": (TEACHER, TEACHER * 1.1)}.items():
        evidence = criterion.evidence[name]
        parts.append(stats.sem(evidence.losses(x) - evidence.losses(y)) / 2)
    assert criterion.error(left, right) == pytest.approx(np.hypot(*parts))
    assert criterion.error(left, left) == 0


def test_evidence_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="give samples"):
        TaskEvidence(kind="labels", weights=np.ones(3), targets=np.ones((2, 2)))
    with pytest.raises(ValueError, match="look for NaN"):
        agreeing(np.full((2, 2), np.nan))
