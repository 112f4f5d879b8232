"""The rules that turn statistics of units into verdicts, and each claim's statistics on tables with known laws."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.claim_page import judge_all
from benchmarks.claim_parts import ALPHA, LEAST_SEEDS, Claim, Part
from benchmarks.claim_thresholds import CLAIMS, claim_of
from benchmarks.claim_verdicts import combine, judge_claim, judge_part, t_interval
from tests.benchmarks.synthetic_claims import Truth, unit, units

UNITS = [(network, seed) for network in ("resnet", "vit") for seed in range(3)]


def part(rule="above", low=0.0, high=math.nan, role="claim"):
    return Part(key="it", statement="s", statistic="t", rule=rule, low=low, high=high, role=role)


def values(centre, spread=0.01):
    return {unit: centre + spread * (k - 2.5) for k, unit in enumerate(UNITS)}


@pytest.mark.parametrize(
    ("rule", "ends", "centre", "outcome"),
    [
        ("above", (0.0,), 1.0, "holds"),
        ("above", (0.0,), -1.0, "does not hold"),
        ("above", (0.0,), 0.0, "not decidable"),
        ("below", (0.0,), -1.0, "holds"),
        ("below", (0.0,), 1.0, "does not hold"),
        ("below", (0.0,), 0.0, "not decidable"),
        ("within", (-1.0, 1.0), 0.0, "holds"),
        ("within", (-1.0, 1.0), 2.0, "does not hold"),
        ("within", (-1.0, 1.0), -2.0, "does not hold"),
        ("within", (-1.0, 1.0), 1.0, "not decidable"),
    ],
)
def test_a_rule_compares_the_interval_with_its_threshold(rule, ends, centre, outcome):
    assert judge_part(part(rule, *ends), values(centre)).outcome == outcome


def test_a_wide_interval_decides_nothing_though_its_mean_lies_on_the_right_side():
    verdict = judge_part(part(), values(0.5, spread=2.0))
    assert verdict.interval.mean == pytest.approx(0.5)
    assert verdict.outcome == "not decidable"


def test_the_interval_is_that_of_students_t():
    found = [0.3, 0.5, 0.9, 0.4]
    low, high = stats.t.interval(1 - 2 * ALPHA, 3, loc=sum(found) / 4, scale=stats.sem(found))
    assert (t_interval(found).low, t_interval(found).high) == pytest.approx((low, high))


def test_a_true_mean_is_called_false_in_at_most_alpha_of_all_draws():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.0, 1.0, (1500, 6))
    wrong = [
        judge_part(part(), dict(zip(UNITS, row.tolist(), strict=True))).outcome == "does not hold" for row in draws
    ]
    assert np.mean(wrong) < ALPHA + 4 * math.sqrt(ALPHA / 1500)


def test_networks_that_contradict_each_other_decide_nothing():
    mixed = {unit: (100.0 if unit[0] == "resnet" else -1.0) + 0.01 * unit[1] for unit in UNITS}
    verdict = judge_part(part(), mixed)
    assert verdict.by_network == {"resnet": "holds", "vit": "does not hold"}
    assert (verdict.outcome, verdict.reason) == ("not decidable", "the networks contradict each other")


def test_too_few_seeds_decide_nothing():
    few = {unit: 1.0 + 0.01 * unit[1] for unit in UNITS if unit != ("vit", 2)}
    assert LEAST_SEEDS == 3
    assert judge_part(part(), few).reason == "vit: fewer than 3 seeds"
    assert judge_part(part(), few).outcome == "not decidable"
    assert judge_part(part(), {}).reason == "no unit was measured"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_statistic_that_is_no_number_decides_nothing_and_names_its_unit(broken):
    verdict = judge_part(part(), values(1.0) | {("vit", 1): broken})
    assert (verdict.outcome, verdict.reason) == ("not decidable", "no finite statistic in vit-1")
    assert verdict.by_network == {"resnet": "holds", "vit": "not decidable"}


def test_a_missing_statistic_counts_as_no_number():
    claim = Claim(number=99, title="t", statement="s", parts=(part(),))
    verdict = judge_claim(claim, {unit: {} for unit in UNITS})
    assert verdict.outcome == "not decidable"
    assert verdict.prediction is None


def test_predictions_have_a_verdict_of_their_own_and_side_parts_decide_nothing():
    claim = Claim(
        number=99,
        title="t",
        statement="s",
        parts=(
            part(),
            Part(key="p", statement="s", statistic="t", rule="above", low=0.0, role="prediction"),
            Part(key="q", statement="s", statistic="t", rule="above", low=0.0, role="side"),
        ),
    )
    verdict = judge_claim(claim, {unit: {"it": 1.0, "p": -1.0, "q": -1.0} for unit in UNITS})
    assert (verdict.outcome, verdict.prediction) == ("holds", "does not hold")


def test_one_part_that_fails_decides_and_one_that_is_open_leaves_open():
    assert combine(["holds", "holds"]) == "holds"
    assert combine(["holds", "not decidable"]) == "not decidable"
    assert combine(["not decidable", "does not hold", "holds"]) == "does not hold"
    assert combine([]) == "not decidable"


def test_parts_that_cannot_be_judged_are_refused():
    with pytest.raises(ValueError, match="give a band"):
        part("within", 1.0, 0.0)
    with pytest.raises(ValueError, match="one of role 'claim'"):
        Claim(number=1, title="t", statement="s", parts=(part(role="side"),))
    with pytest.raises(ValueError, match="unique keys"):
        Claim(number=1, title="t", statement="s", parts=(part(), part()))
    with pytest.raises(ValueError, match="claim=11 is not one of"):
        claim_of(11)


def test_every_claim_from_1_to_10_is_there_once():
    assert [claim.number for claim in CLAIMS] == list(range(1, 11))


def verdict_of(tables, number, key):
    (claim,) = judge_all(tables, [number])
    return next(part.outcome for part in claim.parts if part.part.key == key)


@pytest.mark.parametrize(
    ("number", "key", "truth", "outcome"),
    [
        (1, "stability_exponent", {}, "holds"),
        (1, "stability_exponent", {"stability_rate": 1.0}, "does not hold"),
        (1, "stability_exponent", {"stability_rate": 2.5}, "not decidable"),
        (1, "safe_below", {}, "holds"),
        (1, "safe_below", {"edge": 0.05}, "does not hold"),
        (1, "collapse", {}, "holds"),
        (1, "collapse", {"edge": 3.9}, "does not hold"),
        (1, "edge", {}, "holds"),
        (1, "edge", {"predicted_edge": 4.0}, "does not hold"),
        (1, "edge", {"edge": 20.0}, "not decidable"),
        (2, "optimisation", {}, "holds"),
        (2, "optimisation", {"small_batch_loss": -0.3}, "does not hold"),
        (2, "optimisation", {"small_batch_loss": 0.0}, "not decidable"),
        (2, "stability_linear", {}, "holds"),
        (2, "stability_linear", {"stability_batch": -0.4}, "does not hold"),
        (2, "refined_slope", {"stability_batch": -0.2}, "holds"),
        (2, "refined_slope", {}, "does not hold"),
        (2, "refined_above", {}, "holds"),
        (3, "turns_average", {}, "holds"),
        (3, "turns_average", {"turn": 10_000.0}, "does not hold"),
        (3, "turns_sum", {}, "holds"),
        (3, "turns_tuned", {}, "holds"),
        (3, "experts_improve", {}, "holds"),
        (3, "experts_improve", {"turn": 10_000.0}, "not decidable"),
        (3, "turning_point", {}, "holds"),
        (3, "turning_point", {"predicted_turn": 1 / 8}, "does not hold"),
        (3, "turning_point_tuned", {"predicted_turn": 1 / 8}, "does not hold"),
        (4, "doubling_1", {}, "holds"),
        (4, "doubling_3", {"num_samples": 0.3}, "does not hold"),
        (4, "gap_exponent", {}, "holds"),
        (4, "gap_exponent", {"gap": -2.0}, "does not hold"),
        (4, "exponent", {}, "holds"),
        (4, "exponent", {"predicted_exponents": 0.3}, "does not hold"),
        (5, "gain", {}, "holds"),
        (5, "gain", {"gain": -0.3}, "does not hold"),
        (5, "penalty", {}, "holds"),
        (5, "penalty", {"penalty": -0.05}, "does not hold"),
        (5, "penalty", {"penalty": 0.0}, "not decidable"),
        (5, "best_number", {}, "holds"),
        (6, "ties", {}, "holds"),
        (6, "dare", {"method_share": 1.5}, "does not hold"),
        (6, "sam", {"method_share": 1.0}, "not decidable"),
        (6, "tangent", {"method_share": -1.0}, "not decidable"),
        (6, "average_chi", {}, "holds"),
        (6, "adamerging", {}, "holds"),
        (6, "adamerging", {"adamerging": 1.2}, "does not hold"),
        (7, "average_fails", {}, "holds"),
        (7, "average_fails", {"average_loss": -0.1}, "does not hold"),
        (7, "advisor_recovers", {}, "holds"),
        (7, "predicted_gain", {}, "holds"),
        (8, "generalisation", {}, "holds"),
        (8, "optimisation", {}, "holds"),
        (8, "worst_case", {}, "holds"),
        (9, "learning_rate", {}, "holds"),
        (9, "learning_rate", {"predicted_exponents": 0.3}, "does not hold"),
        (9, "batch_size", {"predicted_exponents": -0.3}, "does not hold"),
        (9, "steps", {}, "holds"),
        (9, "steps", {"predicted_turn": 8.0}, "does not hold"),
        (9, "num_samples", {}, "holds"),
        (9, "coefficients", {"predicted_exponents": 0.3}, "does not hold"),
        (9, "num_tasks", {}, "holds"),
        (9, "harmonic", {}, "holds"),
        (9, "harmonic_amplitude", {"gain": -0.3}, "does not hold"),
        (10, "average_turns", {}, "holds"),
        (10, "average_turns", {"turn": 10_000.0}, "does not hold"),
        (10, "ties_later", {"turn_of_method": 320.0}, "holds"),
        (10, "ties_later", {"turn_of_method": 20.0}, "does not hold"),
        (10, "dare_later", {}, "not decidable"),
        (10, "turning_point_ties", {}, "holds"),
        (10, "turning_point_average", {"predicted_turn": 1 / 8}, "does not hold"),
    ],
)
def test_a_part_finds_the_truth_behind_synthetic_tables(number, key, truth, outcome):
    assert verdict_of(units(Truth(**truth)), number, key) == outcome


def test_claims_hold_where_all_laws_are_as_claimed():
    laws = Truth(turn_of_method=320.0)
    assert {v.claim.number: v.outcome for v in judge_all(units(laws))} == dict.fromkeys(range(1, 11), "holds")


def test_networks_with_opposite_laws_leave_a_claim_open():
    (claim,) = judge_all(units(Truth(), vit=Truth(penalty=-0.05)), [5])
    assert claim.outcome == "not decidable"


def test_without_predictions_the_claims_stand_and_the_predictions_are_open():
    tables = [unit(network, seed, with_predictions=False) for network, seed in UNITS]
    for verdict in judge_all(tables, [1, 3, 5]):
        assert verdict.outcome == "holds"
        assert verdict.prediction == "not decidable"
