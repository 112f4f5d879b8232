from pathlib import Path

import pytest
import yaml

from benchmarks.suite_grid import Block, Grid
from estimators.recipe import Recipe

GRIDS = sorted((Path(__file__).parents[2] / "benchmarks" / "grids").glob("*.yaml"))
BLOCK = Block(optimizer="sgd", learning_rates=(0.1, 0.2), batch_sizes=(8, 16), steps=20)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_grid_of_the_repository_can_be_read(path: Path) -> None:
    grid = Grid.from_mapping(yaml.safe_load(path.read_text()), path.parent)
    assert len(grid.recipes) == len(set(grid.recipes)) >= 2
    assert (path.parents[1] / "projects" / path.name).exists()


def test_a_constant_run_counts_at_every_checkpoint_and_a_scheduled_one_at_its_end() -> None:
    grid = Grid(blocks=(BLOCK,), checkpoints=(5, 10, 40))
    constant = Recipe(learning_rate=0.1, batch_size=8, steps=20)
    assert grid.checkpoints_of(constant) == (5, 10, 20)
    assert grid.checkpoints_of(constant.replace(schedule="warmup_cosine")) == (20,)


def test_text_that_yaml_reads_for_numbers_is_understood(tmp_path: Path) -> None:
    block = {"optimizer": "sgd", "learning_rates": ["1e-4"], "batch_sizes": [8], "steps": 4}
    grid = Grid.from_mapping({"blocks": [block]}, tmp_path)
    assert grid.recipes[0].learning_rate == 1e-4


def test_the_task_merged_alone_changes_from_checkpoint_to_checkpoint() -> None:
    grid = Grid(blocks=(BLOCK,), checkpoints=(5, 10), alone=1.5)
    recipe = grid.recipes[0]
    assert {grid.alone_at(recipe, k, ("a", "b")) for k in (5, 10)} == {"a", "b"}
    assert grid.alone_at(recipe, 5, ("a",)) is None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"blocks": ()}, "must not be empty"),
        ({"blocks": (BLOCK,), "checkpoints": (4, 2)}, "must increase"),
        ({"blocks": (BLOCK,), "mixed": 3}, "mixed needs mixed_steps"),
        ({"blocks": (BLOCK,), "mixed_steps": (7,)}, "are no checkpoints"),
    ],
)
def test_a_grid_that_cannot_be_measured_is_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Grid(**values)  # type: ignore[arg-type]


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"grid holds unknown keys \['chekpoints'\]"):
        Grid.from_mapping({"chekpoints": [1]}, tmp_path)
