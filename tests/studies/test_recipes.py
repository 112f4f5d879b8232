from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.evaluation import RiskBatch
from studies.knobs import Columns
from studies.recipes import rank_candidates, search_recipes
from studies.result import NoFeasiblePlanError, StudyResult
from studies.search_space import SearchSpace, rows_of
from studies.storage import ForeignStudyError, StudyStorage
from tests.studies.plan_problems import (
    BEST_COEFFICIENT,
    BEST_RATE,
    BEST_STEPS,
    diverging_risk,
    make_space,
    quadratic_risk,
    quadratic_terms,
    task_risk,
)

FEW: dict[str, Any] = {"trials": 12, "batch": 4, "sweep": 512}


def same(first: StudyResult, second: StudyResult) -> bool:
    """Bit-identical plans and numbers."""
    return (
        first.best == second.best
        and first.cheapest == second.cheapest
        and np.array_equal(first.near_optimal.units, second.near_optimal.units)
        and np.array_equal(first.near_optimal.goal, second.near_optimal.goal)
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_known_minimum_of_a_quadratic_with_interactions_is_found(seed: int) -> None:
    found = search_recipes(make_space(), quadratic_risk, seed=seed, **FEW)
    assert found.parameters["steps"] == BEST_STEPS
    assert found.parameters["learning_rate"] == pytest.approx(BEST_RATE, rel=1e-3)
    assert found.parameters["coefficient"] == pytest.approx(BEST_COEFFICIENT, abs=1e-3)
    assert found.best.goal == pytest.approx(0.3, abs=1e-6)
    assert found.edges == (("batch_size", "low"),) or found.edges == (("batch_size", "high"),) or found.edges == ()


def test_per_task_recipes_reach_each_tasks_minimum() -> None:
    tasks = tuple("abcdefgh")
    space = make_space(tasks=tasks, per_task_recipes=True, coefficient_scope="per_task", batch_size=(32, 32))
    found = search_recipes(space, task_risk, seed=0, trials=8, batch=4, sweep=1024)
    assert space.dimensions == 24
    assert found.best.goal == pytest.approx(0.3, abs=1e-4)
    for task in tasks:
        assert found.parameters[f"coefficient_{task}"] == pytest.approx(BEST_COEFFICIENT, abs=0.03)


def test_the_best_plan_below_a_stability_edge_lies_on_the_edge() -> None:
    found = search_recipes(make_space(), diverging_risk, seed=0, **FEW)
    assert found.best.violation <= 0
    assert found.parameters["learning_rate"] == pytest.approx(0.005, rel=1e-2)
    # With the rate r below its best, the best steps follow from the gradient: log k/k* = -0.8 log r/r*.
    assert np.log(found.parameters["steps"] / BEST_STEPS) == pytest.approx(-0.8 * np.log(0.005 / BEST_RATE), abs=0.02)


def test_an_extra_constraint_is_obeyed() -> None:
    def affordable(columns: Columns) -> np.ndarray:
        return 2 * columns["batch_size"] * columns["steps"] / 1600 - 1

    found = search_recipes(make_space(), quadratic_risk, constraint=affordable, seed=0, **FEW)
    assert found.best.cost <= 1600
    assert found.parameters["batch_size"] == 8
    assert found.parameters["steps"] == 100


def test_a_space_wholly_beyond_the_edge_is_refused_with_the_least_bad_plan() -> None:
    space = make_space(learning_rate={"sgd": (0.05, 1.0)})
    with pytest.raises(NoFeasiblePlanError, match="no plan of the search space is feasible; widen the space") as caught:
        search_recipes(space, diverging_risk, seed=0, **FEW)
    assert caught.value.parameters["learning_rate"] == pytest.approx(0.05)
    assert caught.value.violation == pytest.approx(np.log(10))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random", "qmc"])
def test_every_sampler_finds_the_minimum_and_repeats_itself(sampler: str) -> None:
    few = {"trials": 12, "batch": 6, "sweep": 128}
    first, second = (search_recipes(make_space(), quadratic_risk, seed=3, sampler=sampler, **few) for _ in range(2))
    assert same(first, second)
    assert first.best.goal == pytest.approx(0.3, abs=1e-6)
    assert first.sampler == sampler


def test_the_gaussian_process_repeats_itself() -> None:
    few = {"trials": 2, "batch": 2, "sweep": 64}
    first, second = (search_recipes(make_space(), diverging_risk, seed=3, sampler="gp", **few) for _ in range(2))
    assert same(first, second)
    assert first.sampler == "gp"


def test_samplers_steer_away_from_divergence() -> None:
    """With the sweep all but off, TPE must put more trials below the edge than chance does."""

    def feasible_share(sampler: str) -> float:
        shares = []
        for seed in range(3):
            found = search_recipes(
                make_space(), diverging_risk, seed=seed, sampler=sampler, trials=40, batch=4, sweep=16
            )
            tried = found.evaluations.take(slice(16, 56))
            shares.append(tried.feasible.mean())
        return float(np.mean(shares))

    assert feasible_share("tpe") > feasible_share("random") + 0.1


def test_another_seed_finds_the_same_plan_by_another_way() -> None:
    first, second = (search_recipes(make_space(), quadratic_risk, seed=seed, **FEW) for seed in (1, 2))
    assert not np.array_equal(first.evaluations.units[:10], second.evaluations.units[:10])
    assert first.parameters["learning_rate"] == pytest.approx(second.parameters["learning_rate"], rel=1e-3)


def test_the_order_of_tasks_changes_nothing() -> None:
    found = [
        search_recipes(
            make_space(tasks=tasks, per_task_recipes=True, coefficient_scope="per_task"), task_risk, seed=0, **FEW
        )
        for tasks in (("a", "b", "c"), ("c", "a", "b"))
    ]
    assert same(*found)


def test_a_finite_space_is_evaluated_whole_and_solved_exactly() -> None:
    space = SearchSpace.from_grid(
        tasks=["a"],
        learning_rate={"sgd": [0.001, 0.01, 0.1]},
        batch_size=[8, 32],
        steps=[20, 80, 320],
        coefficient=[0, 0.5, 1],
    )
    found = search_recipes(space, quadratic_risk, seed=0)
    rows = rows_of(space.decode(space.points()))
    goals = [float(quadratic_risk(space.columns([row])).goal[0]) for row in rows]
    assert found.best.goal == min(goals)
    assert found.parameters == rows[int(np.argmin(goals))]
    assert (found.sampler, found.evaluated) == ("exhaustive", len(rows))


def test_candidates_are_ranked_as_they_are() -> None:
    space = make_space()
    rows = rows_of(space.sample(np.random.default_rng(0), 50))
    found = rank_candidates(space, rows, quadratic_risk)
    goals = quadratic_risk(space.columns(rows)).goal
    assert found.parameters == rows[int(np.argmin(goals))]
    with pytest.raises(ValueError, match="must list at least one plan"):
        rank_candidates(space, [], quadratic_risk)


def test_the_near_optimal_set_is_what_the_interval_cannot_tell_from_the_best() -> None:
    found = search_recipes(make_space(), quadratic_risk, seed=0, **FEW)
    assert found.threshold == found.best.high
    assert (found.near_optimal.goal <= found.threshold).all()
    assert len(found.near_optimal) == int((found.evaluations.goal <= found.threshold).sum())
    narrow = search_recipes(make_space(), quadratic_risk, seed=0, tolerance=1e-3, **FEW)
    assert narrow.threshold == pytest.approx(narrow.best.goal + 1e-3)
    assert narrow.best == found.best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cheapest_near_optimal_plan_is_close_to_the_cheapest_there_is(seed: int) -> None:
    found = search_recipes(make_space(), quadratic_risk, seed=seed, **FEW)
    # Fewest steps with 0.1 q <= 0.01: q minimised over the rate is 0.36 s^2 (s = log k/k*), so s >= -sqrt(0.1/0.36).
    fewest = BEST_STEPS * np.exp(-np.sqrt(0.1 / 0.36))
    assert found.cheapest.parameters["batch_size"] == 8
    assert found.cheapest.parameters["steps"] <= 1.02 * fewest + 1
    assert found.cheapest.goal <= found.threshold
    assert found.cheapest.cost == 2 * 8 * found.cheapest.parameters["steps"]


def test_edges_are_named_when_the_optimum_lies_outside_the_space() -> None:
    found = search_recipes(make_space(learning_rate={"sgd": (1e-4, 1e-3)}), quadratic_risk, seed=0, **FEW)
    assert ("learning_rate", "high") in found.edges


def store(folder: Path, **changes: Any) -> StudyStorage:
    return dataclasses.replace(StudyStorage(path=folder / "study.log", fingerprint="project-1"), **changes)


class KilledError(RuntimeError):
    """Stands for a kill: raised in the middle of a study."""


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_study_killed_after_some_batches_and_resumed_is_bit_identical(
    tmp_path: Path, sampler: str, after: int
) -> None:
    whole = search_recipes(make_space(), quadratic_risk, seed=5, sampler=sampler, **FEW)
    batches = 0

    def kill(done: int, planned: int, best: float) -> None:
        nonlocal batches
        batches += 1
        if batches > after:
            raise KilledError("killed")

    with pytest.raises(KilledError, match="killed"):
        search_recipes(
            make_space(), quadratic_risk, seed=5, sampler=sampler, storage=store(tmp_path), progress=kill, **FEW
        )
    again = search_recipes(make_space(), quadratic_risk, seed=5, sampler=sampler, storage=store(tmp_path), **FEW)
    assert same(whole, again)
    assert again.trials == whole.trials


def test_a_study_killed_inside_a_batch_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    storage = store(tmp_path)
    whole = search_recipes(make_space(), quadratic_risk, seed=5, storage=storage, **FEW)
    lines = storage.path.read_bytes().splitlines(keepends=True) if storage.path else []
    for kept in (3, 9, 12, 14, 17):
        (tmp_path / "study.log").write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
        again = search_recipes(make_space(), quadratic_risk, seed=5, storage=storage, **FEW)
        assert same(whole, again)
        assert any("cut short by a kill" in caveat for caveat in again.caveats)


def test_a_resumed_study_asks_the_sampler_for_nothing_that_is_stored(tmp_path: Path, monkeypatch: Any) -> None:
    first = search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **FEW)

    def refuse(*args: Any, **others: Any) -> None:
        raise AssertionError("a stored batch was proposed again")

    monkeypatch.setattr("studies.trials.propose", refuse)
    assert same(first, search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **FEW))


def test_the_number_of_trials_can_be_raised_later(tmp_path: Path) -> None:
    more = FEW | {"trials": 20}
    search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **FEW)
    raised = search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **more)
    assert same(raised, search_recipes(make_space(), quadratic_risk, seed=5, **more))


def test_an_end_by_the_clock_is_recorded_and_replayed(tmp_path: Path, monkeypatch: Any) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("studies.trials.time.monotonic", lambda: next(clock))
    first = search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), max_seconds=3.0, **FEW)
    assert first.stopped == "time"
    assert any("time limit" in caveat for caveat in first.caveats)
    monkeypatch.undo()
    again = search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), max_seconds=3.0, **FEW)
    assert again.stopped == "time"
    assert same(first, again)
    longer = search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), max_seconds=300.0, **FEW)
    assert longer.stopped is None


def test_a_stop_ends_the_search_and_going_on_later_completes_it(tmp_path: Path) -> None:
    answers = iter([False, True])
    short = search_recipes(
        make_space(), quadratic_risk, seed=5, storage=store(tmp_path), stop=lambda: next(answers), **FEW
    )
    assert short.stopped == "asked"
    again = search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **FEW)
    assert same(again, search_recipes(make_space(), quadratic_risk, seed=5, **FEW))


def test_another_projects_study_is_refused(tmp_path: Path) -> None:
    search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **FEW)
    with pytest.raises(ForeignStudyError, match="belongs to project 'project-1', not 'project-2'"):
        search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path, fingerprint="project-2"), **FEW)
    with pytest.raises(ForeignStudyError, match=r"started with other settings \(seed differ\)"):
        search_recipes(make_space(), quadratic_risk, seed=6, storage=store(tmp_path), **FEW)


def test_a_risk_that_has_changed_since_is_noticed(tmp_path: Path) -> None:
    search_recipes(make_space(), quadratic_risk, seed=5, storage=store(tmp_path), **FEW)

    def refitted(columns: Columns) -> RiskBatch:
        return RiskBatch.exact(0.4 + 0.2 * quadratic_terms(columns))

    with pytest.raises(ValueError, match="present risk, which has changed since; use another study name"):
        search_recipes(make_space(), refitted, seed=5, storage=store(tmp_path), **FEW)
    renamed = search_recipes(make_space(), refitted, seed=5, storage=store(tmp_path, name="refit"), **FEW)
    assert renamed.best.goal == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "grid"}, "sampler='grid' is not known"),
        ({"sampler": "nsga2"}, "needs two objectives"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
        ({"batch": 1}, "batch=1 must be at least 2"),
        ({"trials": -1}, "trials=-1 must be at least 0"),
        ({"sweep": 0}, "sweep=0 must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds=0.0 must be positive"),
        ({"tolerance": -1.0}, "tolerance=-1.0 must be at least 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search_recipes(make_space(), quadratic_risk, **({"seed": 0, **FEW} | changes))


def test_cmaes_needs_two_free_knobs() -> None:
    space = make_space(learning_rate={"sgd": (0.1, 0.1)}, batch_size=(8, 8), steps=(20, 20))
    with pytest.raises(ValueError, match="needs at least two free knobs, not 1"):
        search_recipes(space, quadratic_risk, seed=0, sampler="cmaes")


def test_a_risk_that_is_silent_about_divergence_is_refused() -> None:
    def silent(columns: Columns) -> RiskBatch:
        return RiskBatch.exact(np.full(len(columns["steps"]), np.nan))

    with pytest.raises(ValueError, match="mark a plan that diverges by violation > 0"):
        search_recipes(make_space(), silent, seed=0, **FEW)


def test_a_result_is_plain_values_in_json() -> None:
    found = search_recipes(make_space(), quadratic_risk, seed=0, **FEW).to_json()
    assert found["best"]["parameters"]["steps"] == BEST_STEPS
    assert found["sampler"] == "tpe"
    assert found["near_optimal"] > 1
