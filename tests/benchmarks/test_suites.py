"""The stored suites: every one that has a role is there, whole, with the files that made it."""

from pathlib import Path

import pytest
import yaml

from benchmarks.suite_format import load_suite
from benchmarks.suite_grid import Grid

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROLES = yaml.safe_load((BENCHMARKS / "suites.yaml").read_text())
LARGEST_TABLE = 5_000_000  # bytes


def test_no_suite_has_two_roles_and_every_stored_suite_has_one() -> None:
    named = [name for names in ROLES.values() for name in names]
    assert sorted(named) == sorted(path.name for path in (BENCHMARKS / "suites").iterdir() if path.is_dir())
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("name", [name for names in ROLES.values() for name in names])
def test_a_stored_suite_holds_its_grid_for_every_seed(name: str) -> None:
    suite = load_suite(BENCHMARKS / "suites" / name)
    settings = yaml.safe_load((BENCHMARKS / "grids" / f"{name}.yaml").read_text())
    grid = Grid.from_mapping(settings, BENCHMARKS / "grids")
    assert suite.seeds == grid.seeds
    assert suite.max_steps == grid.max_steps
    assert set(grid.recipes) <= set(suite.recipes.values())
    assert (BENCHMARKS / "projects" / f"{name}.yaml").exists()
    for seed in suite.seeds:
        assert len(suite.rows(seed)) == sum(
            len(grid.coefficients.at(steps)) for recipe in grid.recipes for steps in grid.checkpoints_of(recipe)
        )
    assert all(path.stat().st_size <= LARGEST_TABLE for path in (BENCHMARKS / "suites" / name).iterdir())
