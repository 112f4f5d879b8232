from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.coefficient_space import CoefficientSpace
from studies.coefficients import CoefficientResult, search_coefficients
from studies.evaluation import RiskBatch
from studies.knobs import FloatArray
from studies.result import NoFeasiblePlanError
from studies.storage import StudyStorage
from studies.trials import Worker

NAMES = ("a", "b", "c")
TARGET = np.array([0.9, 0.3, 1.2])
CURVATURE = np.array([[2.0, 0.7, 0.2], [0.7, 1.0, -0.3], [0.2, -0.3, 1.5]])


def merged_quadratic(rows: FloatArray) -> RiskBatch:
    """(lambda - target)^T A (lambda - target) + 0.5, with interactions."""
    away = rows - TARGET
    return RiskBatch.exact(0.5 + np.einsum("mi,ij,mj->m", away, CURVATURE, away))


def measured_quadratic(rows: FloatArray) -> RiskBatch:
    """The same, one merge at a time only."""
    assert len(rows) == 1
    return merged_quadratic(rows)


def diverging(rows: FloatArray) -> RiskBatch:
    """Infinite where the coefficients add up to more than 2."""
    violation = rows.sum(axis=1) - 2.0
    return RiskBatch.exact(np.where(violation > 0, np.inf, merged_quadratic(rows).goal), violation)


def same(first: CoefficientResult, second: CoefficientResult) -> bool:
    """Bit-identical trials and result."""
    return (
        first.coefficients == second.coefficients
        and np.array_equal(first.rows, second.rows)
        and np.array_equal(first.goals, second.goals)
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc"])
def test_the_minimum_in_a_box_is_found(seed: int, sampler: str) -> None:
    found = search_coefficients(merged_quadratic, NAMES, seed=seed, sampler=sampler, trials=24)
    np.testing.assert_allclose(list(found.coefficients.values()), TARGET, atol=1e-4)
    assert found.goal == pytest.approx(0.5, abs=1e-7)
    assert found.edges == ()
    assert found.start_goal == pytest.approx(float(merged_quadratic(np.full((1, 3), 1 / 3)).goal[0]))


def test_the_minimum_on_the_simplex_is_that_of_the_lagrange_conditions() -> None:
    found = search_coefficients(merged_quadratic, NAMES, simplex=True, total=2.0, seed=0, trials=24)
    # minimise (x - t)^T A (x - t) with 1^T x = 2: x = t + A^-1 1 (2 - 1^T t) / (1^T A^-1 1).
    pull = np.linalg.solve(CURVATURE, np.ones(3))
    expected = TARGET + pull * (2.0 - TARGET.sum()) / pull.sum()
    np.testing.assert_allclose(list(found.coefficients.values()), expected, atol=2e-3)
    assert sum(found.coefficients.values()) == pytest.approx(2.0)


def test_uniform_points_of_the_cube_are_uniform_on_the_simplex() -> None:
    space = CoefficientSpace(names=tuple("abcd"), total=1.0)
    rows = space.decode(np.random.default_rng(0).random((40000, 4)))
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    np.testing.assert_allclose(rows.mean(axis=0), 0.25, atol=0.005)
    # Dirichlet(1, 1, 1, 1): variance (1/4)(3/4)/5, covariance -(1/4)(1/4)/5.
    expected = np.full((4, 4), -1 / 80) + np.eye(4) * (3 / 80 + 1 / 80)
    np.testing.assert_allclose(np.cov(rows.T), expected, atol=1e-3)


@pytest.mark.parametrize("total", [None, 1.5])
def test_coefficients_survive_the_way_to_the_cube_and_back(total: float | None) -> None:
    space = CoefficientSpace(names=("b", "a", "c"), total=total)
    row = np.array([0.2, 0.5, 0.8])
    np.testing.assert_allclose(space.decode(space.encode(row)[None, :])[0], row, rtol=1e-12)
    corner = space.decode(np.zeros((1, 3)))
    np.testing.assert_allclose(corner, 0.0 if total is None else 0.5)


def test_the_first_trials_are_the_uniform_merge_and_its_multiples() -> None:
    found = search_coefficients(measured_quadratic, NAMES, seed=0, trials=13, measured=True)
    np.testing.assert_allclose(found.rows[:5], np.outer([1, 0.5, 1.5, 2, 3], np.full(3, 1 / 3)))
    on_simplex = search_coefficients(measured_quadratic, NAMES, simplex=True, seed=0, trials=9, measured=True)
    np.testing.assert_allclose(on_simplex.rows[0], 1 / 3)


def test_a_measured_study_keeps_to_its_number_of_trials_and_never_loses_to_its_start() -> None:
    calls = []

    def counted(rows: FloatArray) -> RiskBatch:
        calls.append(len(rows))
        return measured_quadratic(rows)

    found = search_coefficients(counted, NAMES, seed=0, trials=40, measured=True)
    assert len(calls) == found.evaluated == found.trials == 37  # 5 at the start and 4 whole batches of 8
    assert found.goal == found.goals.min() < found.start_goal


def test_more_trials_come_closer_on_average() -> None:
    def mean_excess(trials: int) -> float:
        goals = [
            search_coefficients(measured_quadratic, NAMES, seed=s, trials=trials, measured=True, sampler="cmaes").goal
            for s in range(4)
        ]
        return float(np.mean(goals)) - 0.5

    assert mean_excess(165) < 0.2 * mean_excess(13)


def test_divergence_is_a_constraint() -> None:
    found = search_coefficients(diverging, NAMES, seed=0, trials=29)
    assert sum(found.coefficients.values()) <= 2.0
    pull = np.linalg.solve(CURVATURE, np.ones(3))
    expected = TARGET + pull * (2.0 - TARGET.sum()) / pull.sum()
    assert found.goal == pytest.approx(float(merged_quadratic(expected[None, :]).goal[0]), abs=2e-3)
    with pytest.raises(NoFeasiblePlanError, match="coefficient_a"):
        search_coefficients(diverging, NAMES, bounds=(1.0, 2.0), start=[1, 1, 1], seed=0, trials=16)


def test_edges_of_the_box_are_named() -> None:
    found = search_coefficients(merged_quadratic, NAMES, bounds=(0.0, 0.8), seed=0, trials=16)
    assert ("a", "high") in found.edges
    assert ("c", "high") in found.edges


def test_the_order_of_experts_changes_nothing() -> None:
    def risk_of(order: tuple[str, ...]) -> Any:
        columns = [NAMES.index(name) for name in order]

        def risk(rows: FloatArray) -> RiskBatch:
            return merged_quadratic(rows[:, np.argsort(columns)])

        return risk

    first = search_coefficients(risk_of(NAMES), NAMES, seed=0, trials=13)
    second = search_coefficients(risk_of(("c", "a", "b")), ("c", "a", "b"), seed=0, trials=13)
    assert first.coefficients == second.coefficients


def test_a_stopped_measured_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    storage = StudyStorage(path=tmp_path / "study.log", fingerprint="p", name="coefficients")
    whole = search_coefficients(measured_quadratic, NAMES, seed=0, trials=29, measured=True)
    measured = 0

    def counted(rows: FloatArray) -> RiskBatch:
        nonlocal measured
        measured += 1
        return measured_quadratic(rows)

    options: dict[str, Any] = {"seed": 0, "trials": 29, "measured": True, "storage": storage}
    for limit in (3, 11, 20):
        short = search_coefficients(counted, NAMES, stop=lambda limit=limit: measured >= limit, **options)
        assert short.stopped == "asked"
    again = search_coefficients(counted, NAMES, **options)
    assert same(whole, again)
    assert measured == 29


def work(path: str, rank: int, count: int, queue: Any) -> None:
    """One of several processes on a measured study."""
    storage = StudyStorage(path=Path(path), fingerprint="p", name="coefficients")
    found = search_coefficients(
        measured_quadratic,
        NAMES,
        seed=0,
        trials=29,
        measured=True,
        storage=storage,
        worker=Worker(rank=rank, count=count),
    )
    queue.put((rank, found.rows.tolist(), found.goals.tolist(), found.coefficients, found.evaluated))


def test_two_workers_give_the_same_trials_as_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    path = str(tmp_path / "study.log")
    processes = [context.Process(target=work, args=(path, rank, 2, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    alone = search_coefficients(measured_quadratic, NAMES, seed=0, trials=29, measured=True)
    for _, rows, goals, coefficients, _ in answers:
        assert rows == alone.rows.tolist()
        assert goals == alone.goals.tolist()
        assert coefficients == alone.coefficients
    assert sum(evaluated for *_, evaluated in answers) >= 29


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ()}, "must name each expert once"),
        ({"names": ("a", "a", "b")}, "must name each expert once"),
        ({"bounds": (2.0, 0.0)}, r"bounds=\(2.0, 0.0\) must rise"),
        ({"simplex": True, "total": -1.0}, "total=-1.0 must be positive"),
        ({"trials": 2}, "trials=2 must be at least 5"),
        ({"start": [0.5]}, "must be 3 finite numbers"),
        ({"start": [0.5, 0.5, 9.0]}, "must lie inside the bounds"),
        ({"start": [0.5, 0.5, 0.5], "simplex": True}, "add up to total=1.0"),
        ({"worker": Worker(rank=0, count=2)}, "needs measured=True and a storage"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"names": NAMES, "seed": 0, "trials": 13} | changes
    with pytest.raises(ValueError, match=message):
        search_coefficients(merged_quadratic, **options)


def test_a_rank_outside_the_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="rank=2 must lie in 0 ... 1"):
        Worker(rank=2, count=2)
