import numpy as np
import pytest

from benchmarks.baselines import Table, default_curves, regrets, search_curve
from benchmarks.judge_advisor import CurvePoint
from benchmarks.judge_regret import at_costs, judge_regret, overhead, whole_grid_cost
from benchmarks.suite_format import Suite, candidate_plans


def point(cost: float, choice: int | None, training: float = 0.0, *, trained: bool = True) -> CurvePoint:
    return CurvePoint(cost=cost, choice=choice, training=training, trained=trained)


def test_going_on_from_a_shorter_run_costs_the_difference(suite: Suite) -> None:
    table = Table(suite, 0)
    number = next(n for n, recipe in table.runs.items() if recipe.learning_rate == 0.1 and recipe.batch_size == 4)
    start = table.cost
    assert start == pytest.approx(12.0 + 2 * 16 / 3)
    table.train(number, 8)
    six_merges = 6 * 2 * 16 / 3  # two checkpoints with three coefficients each
    assert table.cost - start == pytest.approx(2 * 4 * 8 + six_merges)
    table.train(number, 32)
    assert table.cost - start == pytest.approx(2 * 4 * 32 + 9 * 2 * 16 / 3)
    spent = table.cost
    table.train(number, 32)
    assert table.cost == spent


def test_a_naive_trial_trains_from_the_start_and_merges_once(suite: Suite) -> None:
    table = Table(suite, 0, refined=False)
    number = next(iter(table.runs))
    start = table.cost
    table.train(number, 8, coefficient=1.0)
    table.train(number, 32, coefficient=1.0)
    assert table.cost - start == pytest.approx(2 * 4 * (8 + 32) + 2 * 2 * 16 / 3)
    assert len(table.measured) == 2


@pytest.mark.parametrize("method", ["random", "tpe", "hyperband"])
def test_a_search_that_runs_long_enough_finds_the_best_of_the_grid(suite: Suite, method: str) -> None:
    candidates = candidate_plans(suite, 0)
    found = [search_curve(suite, 0, method, sampler_seed=seed)[-1] for seed in range(3)]
    best = float(candidates.validation.min())
    assert min(candidates.validation[p.choice] for p in found if p.choice is not None) == pytest.approx(best)
    assert all(p.cost <= whole_grid_cost(suite, 0) * (1 + 1e-9) for p in found)


def test_a_search_repeats_with_its_seed_and_costs_never_fall(suite: Suite) -> None:
    first = search_curve(suite, 0, "tpe", sampler_seed=3)
    assert first == search_curve(suite, 0, "tpe", sampler_seed=3)
    costs = np.array([p.cost for p in first])
    assert (np.diff(costs) >= 0).all()


def test_an_unknown_search_is_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match="method='annealing' must be random or one of"):
        search_curve(suite, 0, "annealing", sampler_seed=0)


def test_regret_is_nought_at_the_best_and_one_at_the_start() -> None:
    test = np.array([0.5, 0.75, np.inf])
    points = [point(1, None), point(2, 1), point(3, 0)]
    assert regrets(points, test, 1.0).tolist() == [1.0, 0.5, 0.0]


def test_where_nothing_beats_the_start_refusing_is_right() -> None:
    assert regrets([point(1, None), point(2, 0)], np.array([1.2]), 1.0).tolist() == [0.0, 1.0]


def test_overhead_leaves_out_only_training_that_was_paid(suite: Suite) -> None:
    points = [point(100, 0, 30), point(300, 1, 200), point(500, 1, 200)]
    regret = np.array([0.5, 0.01, 0.02])
    assert overhead(points, regret, suite, 9999.0) == (100 / suite.full_fine_tune, False)
    unpaid = [point(100, 1, 200, trained=False)]
    assert overhead(unpaid, np.array([0.0]), suite, 9999.0) == (100 / suite.full_fine_tune, False)
    assert overhead(points, np.array([0.01, 0.2, 0.2]), suite, 4096.0) == (4096.0 / suite.full_fine_tune, True)


def test_a_curve_is_read_between_its_points() -> None:
    curve = (np.array([1.0, 2.0]), np.array([0.6, 0.1]))
    assert at_costs(curve, np.array([0.5, 1.0, 1.5, 5.0])).tolist() == [1.0, 0.6, 0.6, 0.1]


def test_defaults_take_the_nearest_stored_run_of_their_optimizer(suite: Suite) -> None:
    curves = default_curves(suite, 0)
    assert set(curves) == {"FusionBench", "range test"}  # no AdamW run is stored
    paid = 12.0 + 2 * 16 / 3 + 2 * 16 * 32 + 3 * 2 * 16 / 3
    assert curves["FusionBench"][0].cost == pytest.approx(paid)
    assert curves["range test"][0].cost == pytest.approx(paid + 100.0)


def test_cached_curves_are_the_same(suite: Suite, tmp_path: object) -> None:
    cold = judge_regret(suite, 0, None, range(1), tmp_path)  # type: ignore[arg-type]
    warm = judge_regret(suite, 0, None, range(1), tmp_path)  # type: ignore[arg-type]
    assert cold["overhead"] == warm["overhead"]
    assert "advisor" not in cold["curves"]
