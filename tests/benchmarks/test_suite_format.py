import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.suite_format import Suite, candidate_plans, evaluation_units, load_suite
from tests.benchmarks.synthetic_suites import NAMES, best_uniform, constants, risk, synthetic_grid


def test_every_stored_merge_comes_back_with_the_plan_and_the_risk_of_the_formula(suite: Suite) -> None:
    assert len(suite) > 100
    for row in range(len(suite)):
        plan, seed = suite.plan(row), int(suite.seed[row])
        for column, name in enumerate(NAMES):
            recipe = plan.recipes[name]
            expected = risk(name, recipe, recipe.steps, dict(plan.coefficients), seed)
            assert suite.figures["test"][row, column] == pytest.approx(expected, rel=1e-5)


def test_candidates_are_the_equal_recipes_of_one_seed(suite: Suite) -> None:
    candidates = candidate_plans(suite, 1)
    grid = synthetic_grid()
    assert len(candidates) == len(grid.recipes) * 9  # three checkpoints with three coefficients each
    assert candidates.test.min() == pytest.approx(best_uniform(grid, 1), rel=1e-5)
    assert candidates.training_cost[0] == sum(r.cost() for r in candidates.plans[0].recipes.values())


def test_units_follow_the_protocol(suite: Suite) -> None:
    assert suite.full_fine_tune == 2 * 32 * 32
    assert evaluation_units(suite, 0, "validation") == pytest.approx(2 * 16 / 3)
    assert suite.constants(0) == constants()


def test_a_diverged_run_is_infinite_and_not_lost(suite: Suite) -> None:
    rows = suite.rows(0)
    wild = [int(r) for r in rows if suite.plan(int(r)).recipes["a"].learning_rate > 1]
    assert len(wild) == 9
    assert np.isinf(suite.goal(np.array(wild))).all()


def test_a_suite_of_another_version_is_refused(suite_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(suite_folder, tmp_path / "old"))
    content = json.loads((copy / "suite.json").read_text())
    (copy / "suite.json").write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(ValueError, match="version=99 of suite 'old' is not 1; make the suite again"):
        load_suite(copy)


def test_a_folder_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no suite\.json"):
        load_suite(tmp_path)


def test_an_unknown_seed_is_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match="seed=7 is not in suite 'synthetic'"):
        suite.record(7)
