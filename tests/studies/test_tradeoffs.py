from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.evaluation import RiskBatch
from studies.knobs import Columns
from studies.recipes import search_recipes
from studies.result import NoFeasiblePlanError
from studies.search_space import SearchSpace
from studies.storage import StudyStorage
from studies.tradeoffs import TradeOff, find_knee, pareto_front, search_tradeoffs, trade_off
from tests.studies.plan_problems import BEST_COEFFICIENT, BEST_RATE, diverging_risk, make_space, quadratic_risk

FEW: dict[str, Any] = {"trials": 32, "batch": 16, "sweep": 512}
TARGET = 4.0  # best rate x steps of the law below


def power_law_risk(columns: Columns) -> RiskBatch:
    """0.1 + 10 / steps at the best rate and coefficient, whatever the batch: the front is known at every cost."""
    rate = np.log(columns["learning_rate"] / BEST_RATE)
    bend = 0.05 * rate**2 + (columns["coefficient"] - BEST_COEFFICIENT) ** 2
    return RiskBatch.exact(0.1 + 10.0 / columns["steps"] + bend)


def brute_force_front(first: np.ndarray, second: np.ndarray) -> list[tuple[float, float]]:
    """Numbers of the plans that no other dominates, by comparing every pair."""
    points = sorted(set(zip(first.tolist(), second.tolist(), strict=True)))
    return [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_the_front_is_that_of_brute_force(points: list[tuple[int, int]]) -> None:
    first, second = np.array(points, dtype=float).T
    front = pareto_front(first, second)
    assert list(zip(first[front].tolist(), second[front].tolist(), strict=True)) == brute_force_front(first, second)


def test_the_front_falls_strictly_and_keeps_both_ends() -> None:
    rng = np.random.default_rng(0)
    cost, goal = rng.random(5000), rng.random(5000)
    front = pareto_front(cost, goal)
    assert (np.diff(cost[front]) > 0).all()
    assert (np.diff(goal[front]) < 0).all()
    assert cost[front[0]] == cost.min()
    assert goal[front[-1]] == goal.min()


def test_a_front_of_nothing_is_empty_and_odd_input_is_refused() -> None:
    assert pareto_front([], []).tolist() == []
    with pytest.raises(ValueError, match="holds NaN; leave plans without a number out"):
        pareto_front([1.0], [np.nan])
    with pytest.raises(ValueError, match="two lists of equal length"):
        pareto_front([1.0, 2.0], [1.0])


def test_the_knee_of_a_power_law_is_where_calculus_puts_it() -> None:
    cost = np.geomspace(1e3, 1e6, 20001) - 1
    goal = 1 / np.sqrt(cost + 1)
    # y = (e^{-sX/2} - e^{-S/2}) / (1 - e^{-S/2}) with S = log 1000; 1 - x - y is largest where dy/dx = -1.
    s = np.log(1e3)
    x = 2 / s * np.log((s / 2) / (1 - np.exp(-s / 2)))
    knee = find_knee(cost, goal)
    assert knee is not None
    assert np.log((cost[knee] + 1) / 1e3) / s == pytest.approx(x, abs=1e-3)


def test_a_straight_or_short_front_has_no_knee() -> None:
    assert find_knee([1, 2], [2, 1]) is None
    cost = np.geomspace(10, 1e4, 50) - 1
    assert find_knee(cost, 5 - np.log(cost + 1)) is None


def test_a_change_of_units_does_not_move_the_knee() -> None:
    cost, goal = np.geomspace(1e4, 1e7, 60), np.geomspace(1, 0.1, 60)
    assert find_knee(cost, goal) == find_knee(cost * 1000, goal * 7 + 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_front_of_a_known_law_is_found(seed: int) -> None:
    found = search_tradeoffs(make_space(), power_law_risk, seed=seed, **FEW)
    assert set(found.front.columns["batch_size"].tolist()) == {8}
    np.testing.assert_allclose(found.front.cost, 2 * 8 * found.front.columns["steps"])
    excess = found.front.goal - (0.1 + 10.0 / found.front.columns["steps"])
    assert np.quantile(excess, 0.5) < 0.005
    assert found.front.goal[-1] == pytest.approx(0.1 + 10 / 640, abs=1e-3)
    assert found.knee is not None
    assert 0 < found.knee < len(found.front) - 1


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "qmc", "random"])
def test_the_search_repeats_itself_and_resumes_bit_identically(tmp_path: Path, sampler: str) -> None:
    storage = StudyStorage(path=tmp_path / "study.log", fingerprint="p")
    whole = search_tradeoffs(make_space(), quadratic_risk, seed=1, sampler=sampler, **FEW)
    asked = iter([False, True])
    short = search_tradeoffs(
        make_space(), quadratic_risk, seed=1, sampler=sampler, storage=storage, stop=lambda: next(asked), **FEW
    )
    again = search_tradeoffs(make_space(), quadratic_risk, seed=1, sampler=sampler, storage=storage, **FEW)
    assert (short.stopped, short.trials, again.trials) == ("asked", 16, 32)
    assert np.array_equal(whole.front.units, again.front.units)
    assert np.array_equal(whole.front.goal, again.front.goal)


@pytest.mark.slow
def test_evolution_improves_on_chance() -> None:
    """The sampler's own front, before any polish: area above it, mean of five seeds, against random trials."""

    def area(sampler: str, seed: int) -> float:
        batches = iter(range(100))
        found = search_tradeoffs(
            make_space(),
            power_law_risk,
            seed=seed,
            sampler=sampler,
            trials=480,
            batch=16,
            sweep=16,
            stop=lambda: next(batches) == 24,
        )
        cost, goal = np.log(found.front.cost), found.front.goal
        return float(np.sum(np.diff(np.append(cost, np.log(2 * 128 * 640))) * (2.0 - goal)))

    means = {name: np.mean([area(name, seed) for seed in range(5)]) for name in ("nsga2", "random")}
    assert means["nsga2"] > means["random"]


def test_divergence_never_enters_the_front() -> None:
    found = search_tradeoffs(make_space(), diverging_risk, seed=0, **FEW)
    assert (found.front.columns["learning_rate"] <= 0.005).all()
    with pytest.raises(NoFeasiblePlanError, match="no plan of the search space is feasible"):
        search_tradeoffs(make_space(learning_rate={"sgd": (0.05, 1.0)}), diverging_risk, seed=0, **FEW)


def test_a_finite_space_gives_its_exact_front() -> None:
    space = SearchSpace.from_grid(
        tasks=["a"], learning_rate={"sgd": [0.01, 0.02]}, batch_size=[8, 32], steps=[20, 80, 320], coefficient=[0.5]
    )
    found = search_tradeoffs(space, power_law_risk, seed=0)
    plans = space.decode(space.points())
    cost = (plans["batch_size"] * plans["steps"]).astype(float)
    numbers = list(zip(found.front.cost.tolist(), found.front.goal.tolist(), strict=True))
    assert numbers == brute_force_front(cost, power_law_risk(plans).goal)


def test_a_studys_evaluations_already_hold_a_front() -> None:
    study = search_recipes(make_space(), quadratic_risk, seed=0, trials=8, batch=4, sweep=256)
    found = trade_off(study.evaluations)
    assert found.front.goal[-1] == study.best.goal
    assert isinstance(found, TradeOff)
    assert len(found.to_json()["front"]) == len(found.points)


def test_the_best_plan_within_a_budget_and_a_budget_too_small() -> None:
    found = search_tradeoffs(make_space(), power_law_risk, seed=0, **FEW)
    plan = found.best_within(2000)
    assert plan.cost <= 2000
    assert plan.goal == found.front.goal[found.front.cost <= 2000].min()
    with pytest.raises(ValueError, match="max_cost=10 is below the cheapest plan's 320"):
        found.best_within(10)


def test_one_objective_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match="sampler='cmaes' works on one objective"):
        search_tradeoffs(make_space(), quadratic_risk, seed=0, sampler="cmaes")
