"""Verdicts from logits whose risks are known."""

import math

import numpy as np
import pytest

from advisor.coefficients_evidence import Criterion, concatenated, labelled
from advisor.coefficients_verdicts import MeasuredModels, describe
from advisor.goal import Goal

RNG = np.random.default_rng(0)
LABELS = {"a": RNG.integers(0, 2, 80), "b": RNG.integers(0, 2, 80)}


def logits(a: float, b: float, jitter: float = 0.05, seed: int = 1) -> np.ndarray:
    """Every sample of a task is right with about this margin."""
    rng = np.random.default_rng(seed)
    parts = []
    for name, margin in (("a", a), ("b", b)):
        sign = 2.0 * LABELS[name] - 1.0
        z = (margin + jitter * rng.standard_normal(80)) * sign
        parts.append(np.stack([-z / 2, z / 2], axis=1))
    return concatenated(parts)


def risk(margin: float) -> float:
    return math.log1p(math.exp(-margin))


def models(merged=(1.5, 1.5), without_a=(0.5, 1.8), without_b=(1.5, 1.5), initial=(0.5, 0.5)):
    criterion = Criterion(
        evidence={name: labelled(y, 2) for name, y in LABELS.items()}, goal=Goal(weights={"a": 1.0, "b": 1.0})
    )
    return MeasuredModels(
        criterion=criterion,
        initial=logits(*initial),
        experts={"a": logits(3.0, -1.0), "b": logits(-1.0, 3.0)},
        merged=logits(*merged),
        without={"a": logits(*without_a), "b": logits(*without_b)},
    )


def test_disturbance_is_what_a_task_gains_without_an_expert():
    matrix = models().disturbance()
    expected = [[risk(1.5) - risk(0.5), 0.0], [risk(1.5) - risk(1.8), 0.0]]
    np.testing.assert_allclose(matrix, expected, atol=0.01)


def test_an_expert_without_whom_nothing_is_lost_may_stay_out():
    assert models().leave_out() == ("b",)
    assert models(without_b=(1.2, 1.2)).leave_out() == ()


def test_merging_is_worth_it_where_the_merge_beats_every_single_model():
    good, poor = models(), models(merged=(0.6, 0.6))
    assert good.best_single()[0] == "x_0"
    assert good.is_worth_merging()
    assert not models(merged=(0.4, 0.4)).is_worth_merging()
    assert models(initial=(-3.0, -3.0)).best_single()[0] in ("a", "b")
    said = " ".join(describe(poor, poor.outcomes({"a": 0.0, "b": 0.0}), "risk"))
    assert "worse than the task's own expert on 2 of 2 tasks (a, b) and worse than x_0 on 0" in said


def test_harm_is_named_with_its_size():
    found = models()
    said = " ".join(describe(found, found.outcomes({"a": 0.0, "b": 0.0}), "risk"))
    assert f"a costs task b {risk(1.5) - risk(1.8):.2f}" in said.replace("0.0486", "0.05").replace("0.0487", "0.05")


def test_predictions_add_the_optimism_and_hold_the_measured_risk():
    found = models(merged=(1.5, 1.5))
    outcomes = found.outcomes({"a": 0.02, "b": 0.0})
    cell = outcomes["a"]
    assert cell.measured == pytest.approx(risk(1.5), abs=0.01)
    assert cell.predicted.value == pytest.approx(cell.measured + 0.02)
    assert cell.predicted.holds(cell.measured)
    assert cell.expert == pytest.approx(risk(3.0), abs=0.01)
    assert cell.initial == pytest.approx(risk(0.5), abs=0.01)
    assert (cell.best_single, outcomes["b"].best_single) == ("a", "b")


def test_a_broken_expert_is_never_the_best_single_model():
    found = models()
    broken = MeasuredModels(
        criterion=found.criterion,
        initial=found.initial,
        experts={"a": np.full_like(found.initial, np.nan), "b": found.experts["b"]},
        merged=found.merged,
        without=found.without,
    )
    assert broken.best_single()[0] == "x_0"
    assert broken.outcomes({"a": 0.0, "b": 0.0})["a"].expert == math.inf
