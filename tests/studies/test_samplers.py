from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from studies.knobs import Axis, Knob
from studies.samplers import ceiling_of, check_sampler, frozen_trial, propose, sobol
from studies.storage import Record
from tests.studies.plan_problems import make_space


def history(count: int, dimensions: int = 2, objectives: int = 1) -> list[Record]:
    """Trials of a bowl, every fifth infeasible and without a goal."""
    units = np.random.default_rng(0).random((count, dimensions))
    return [
        Record(
            key=f"trial-{k:06d}",
            kind="sampler",
            unit=tuple(unit),
            goal=float("inf") if k % 5 == 4 else float(((unit - 0.4) ** 2).sum()),
            low=0.0,
            high=9.0,
            violation=1.0 if k % 5 == 4 else -1.0,
            cost=float(unit[0]),
        )
        for k, unit in enumerate(units.tolist())
        for unit in [np.array(unit)]
    ]


KNOBS = tuple(Knob(name=f"x{k}", field="x", axes=(Axis(low=0.0, high=1.0),)) for k in range(2))


@pytest.mark.parametrize("name", ["random", "qmc", "tpe", "cmaes", "nsga2"])
def test_a_proposal_is_a_function_of_seed_number_and_history(name: str) -> None:
    objectives = 2 if name == "nsga2" else 1
    records = history(16)

    def ask(seed: int, records: list[Record] = records) -> np.ndarray:
        return propose(name, KNOBS, records, seed=seed, start=8, batch=8, objectives=objectives)

    first = ask(1)
    assert first.shape == (8, 2)
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, ask(1))
    assert not np.array_equal(first, ask(2))
    assert len(np.unique(first, axis=0)) == 8


def test_quasi_random_trials_continue_one_sequence() -> None:
    batches = [propose("qmc", KNOBS, [], seed=3, start=start, batch=8) for start in (0, 8, 16, 24)]
    whole = np.concatenate(batches)
    assert np.array_equal(whole, sobol(2, 32, 3))
    assert qmc.discrepancy(whole) < qmc.discrepancy(np.random.default_rng(0).random((32, 2)))


def test_random_trials_of_a_batch_do_not_depend_on_its_size() -> None:
    one = propose("random", KNOBS, [], seed=3, start=0, batch=8)
    two = [propose("random", KNOBS, [], seed=3, start=start, batch=4) for start in (0, 4)]
    assert np.array_equal(one, np.concatenate(two))


def test_informed_samplers_gather_where_the_goal_is_low() -> None:
    records = history(64)

    def distance(name: str) -> float:
        points = [propose(name, KNOBS, records, seed=s, start=0, batch=8) for s in range(4)]
        return float(np.linalg.norm(np.concatenate(points) - 0.4, axis=1).mean())

    assert distance("tpe") < 0.7 * distance("random")
    assert distance("cmaes") < 0.7 * distance("random")


def test_trials_show_plain_values_and_violations_to_optuna() -> None:
    space = make_space(learning_rate={"sgd": (1e-3, 1.0), "adamw": (1e-5, 1e-2)}, schedules=("constant", "cosine"))
    unit = tuple(np.full(space.dimensions, 0.5).tolist())
    record = Record(key="k", kind="sweep", unit=unit, goal=np.inf, low=0.0, high=1.0, violation=2.0)
    trial = frozen_trial(space.knobs, record, objectives=1, ceiling=5.0, meta=True)
    assert trial.value == 7.0
    assert trial.constraints == {"violation": 2.0}
    assert trial.params["learning_rate_position"] == 0.5
    assert trial.params["optimizer"] == "adamw"
    assert trial.params["batch_size"] == 32
    assert Record.from_json(trial.user_attrs["record"]) == record


def test_the_ceiling_is_the_largest_finite_goal() -> None:
    assert ceiling_of(history(10)) == max(r.goal for r in history(10) if np.isfinite(r.goal))
    assert ceiling_of([]) == 0


@pytest.mark.parametrize(
    ("name", "dimensions", "objectives", "message"),
    [
        ("grid", 3, 1, "sampler='grid' is not known; choose from"),
        ("gp", 3, 2, "sampler='gp' works on one objective"),
        ("nsga2", 3, 1, "sampler='nsga2' needs two objectives"),
        ("cmaes", 1, 1, "needs at least two free knobs, not 1"),
    ],
)
def test_samplers_that_cannot_do_the_job_are_refused(name: str, dimensions: int, objectives: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_sampler(name, dimensions=dimensions, objectives=objectives)
