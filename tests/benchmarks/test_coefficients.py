"""The arithmetic of the coefficient benchmarks on made-up figures, and Optuna's search on a bowl."""

import numpy as np
import optuna
import pytest

from benchmarks.coefficients import BEST, EVOLVED, OURS, evaluations, search_by_optuna, summarise
from benchmarks.develop_hedging import LEAST
from benchmarks.develop_hedging import summarise as summarise_hedges
from benchmarks.mergeability import correlations

D = OURS["validation"]


def case(average: float, best: float, ours: float, x0: float = 0.5):
    accuracy = {"simple average": average, BEST: best, D: ours, "x0": x0}
    return {
        "test": {name: {"accuracy": value, "risk": 1 - value} for name, value in accuracy.items()},
        "evaluations": evaluations({D: [0.9, 0.5, 0.4], BEST: [0.9, 0.8, 0.4004], EVOLVED: [0.9, 0.6, 0.6]}),
        "cost": {D: {"intervals_hold": [True, False], "merges": 7}},
    }


def test_the_gap_is_pooled_over_problems_where_it_is_a_point() -> None:
    cases = {"one": case(0.70, 0.80, 0.75), "two": case(0.60, 0.62, 0.63), "none": case(0.80, 0.805, 0.70)}
    summary = summarise(cases)
    closed = summary["gap_closed"]["accuracy"]
    assert closed["problems"] == 2
    assert closed["closed"][D] == pytest.approx((0.05 + 0.03) / (0.10 + 0.02))
    assert closed["closed"][BEST] == pytest.approx(1)
    assert summary["worst_accuracy_against_average"][D] == pytest.approx(-0.10)
    assert summary["task_intervals_hold"] == 0.5
    better = summary["gap_closed_over_better_of_x0_and_average"]["closed"]
    assert better[D] == pytest.approx((0.05 + 0.03 - 0.10) / (0.10 + 0.02 + 0.005))


def test_evaluations_count_until_the_same_risk_and_censor() -> None:
    found = case(0.7, 0.8, 0.75)["evaluations"]
    assert found["first"] == {D: 3, BEST: 3, EVOLVED: None}
    summary = summarise({"one": case(0.7, 0.8, 0.75)})["evaluations"]
    assert summary[EVOLVED] == {"median_until_same_risk": 150, "never": 1}
    assert summary[D]["median_until_it_stops"] == 3
    assert summary[D]["median_with_verdicts"] == 7
    assert summary[D]["times_fewer"] == {BEST: 1, EVOLVED: 50}


def test_a_sampler_starts_at_the_average_and_finds_a_bowls_bottom() -> None:
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True)
    row, risks = search_by_optuna(sampler, lambda row: float(((row - 0.4) ** 2).sum()), 2, 60)
    assert len(risks) == 60
    assert risks[0] == pytest.approx(2 * 0.1**2)
    np.testing.assert_allclose(row, 0.4, atol=0.15)


def test_a_signal_that_orders_subsets_rightly_correlates_fully() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(20):
        risk, start = rng.uniform(0.2, 1), rng.uniform(0.2, 1)
        noise = {name: float(rng.uniform()) for name in ("alone", "validation")}
        rows.append(
            {
                "measured": risk,
                "initial": start,
                "foretold": risk**2,
                "initial_validation": float(rng.uniform()),
                "signals": {"minus cosine": float(rng.uniform())},
                **noise,
            }
        )
    found = correlations(rows)
    assert found["ours"]["risk"] == pytest.approx(1)
    assert abs(found["minus cosine"]["risk"]) < 0.7


def test_hedges_are_compared_over_problems_with_a_gap_and_losses_over_all() -> None:
    names = ["best guess", *(f"hedged {least:g}" for least in LEAST)]
    one = {"average": 0.7, "x0": 0.8, **dict.fromkeys(names, 0.75)}
    two = {"average": 0.9, "x0": 0.8, **dict.fromkeys(names, 0.89)}
    found = summarise_hedges({"one": one, "two": two})["best guess"]
    assert found["gap_closed"] == pytest.approx(0.5)
    assert found["worst"] == pytest.approx(-0.01)
    assert found["more_than_half_a_point_below"] == 1
