"""A tiny suite from a project file to the judge, and one of its merges computed again by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from advisor.project import Project, load_project
from benchmarks.judge import judge_suites, log_held_out, plain
from benchmarks.make_suite import make_suite
from benchmarks.suite_format import Suite, load_suite
from benchmarks.suite_grid import Grid
from benchmarks.suite_inputs import prepare_inputs
from estimators.fine_tuning import Run, fine_tune
from estimators.objectives import evaluate
from tests.benchmarks.synthetic_suites import write_synthetic

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Project, Grid, Path]:
    folder = tmp_path_factory.mktemp("made")
    project = load_project(BENCHMARKS / "projects" / "tiny.yaml")
    grid = Grid.from_mapping(yaml.safe_load((BENCHMARKS / "grids" / "tiny.yaml").read_text()), BENCHMARKS / "grids")
    make_suite(project, grid, folder / "tiny", work=folder / "work", seeds=(0,), say=lambda line: None)
    return load_suite(folder / "tiny"), project, grid, folder


def test_a_stored_merge_is_what_training_alone_and_merging_by_hand_give(
    made: tuple[Suite, Project, Grid, Path],
) -> None:
    suite, project, _, folder = made
    inputs = prepare_inputs(project, folder / "again", seed=0)
    row = next(int(r) for r in suite.rows(0) if suite.plan(int(r)).recipes["low"].steps == 4)
    plan = suite.plan(row)
    start = inputs.backbone.initial
    merged = start.clone()
    for name, recipe in plan.recipes.items():
        whole = recipe.replace(steps=8)
        run = Run(task=name, recipe=whole, seed=0, checkpoints=(4,))
        merged += plan.coefficients[name] * (
            fine_tune(inputs.objectives[name], inputs.trains[name], run).checkpoints[4] - start
        )
    for column, name in enumerate(suite.tasks):
        test = inputs.tests[name].head(suite.evaluation_size(0, "test"))
        expected = evaluate(inputs.objectives[name], merged, test)
        assert suite.figures["test"][row, column] == pytest.approx(expected.risk, rel=1e-3)
        assert suite.figures["test_accuracy"][row, column] == pytest.approx(expected.accuracy, abs=0.05)


def test_the_grid_is_stored_whole(made: tuple[Suite, Project, Grid, Path]) -> None:
    suite, _, grid, _ = made
    assert {str(kind) for kind in suite.kind} == {"uniform", "method", "mixed", "subset"}
    assert (suite.kind == "mixed").sum() == grid.mixed
    assert (suite.kind == "subset").sum() == grid.subsets
    assert set(suite.recipes.values()) >= set(grid.recipes)
    gram = suite.groups[0].gram
    assert np.allclose(gram, gram.T)
    assert (np.linalg.eigvalsh(gram) >= -1e-9).all()
    assert suite.constants(0).names == ("low", "high")


def test_a_second_run_measures_nothing_and_writes_the_same(made: tuple[Suite, Project, Grid, Path]) -> None:
    suite, project, grid, folder = made
    before = (folder / "tiny" / "merges.csv.gz").read_bytes()
    said: list[str] = []
    make_suite(project, grid, folder / "tiny", work=folder / "work", seeds=(0,), say=said.append)
    assert not any("chunk" in line for line in said)
    assert (folder / "tiny" / "merges.csv.gz").read_bytes() == before
    assert len(load_suite(folder / "tiny")) == len(suite)


def test_the_judge_fills_every_figure(made: tuple[Suite, Project, Grid, Path], tmp_path: Path) -> None:
    suites = [load_suite(write_synthetic(tmp_path / name, seeds=(0, 1))) for name in ("first", "second")]
    torch.manual_seed(0)
    figures = plain(judge_suites(suites, sampler_seeds=1, cache=tmp_path / "cache", plots=tmp_path / "plots"))
    first = figures["suites"]["first"]
    assert first["rank"]["overall"]["value"] is None or -1 <= first["rank"]["overall"]["value"] <= 1
    assert set(first["overhead"]) >= {"random", "tpe", "gp", "hyperband"}
    assert 0 <= first["regret"]["value"] <= 3
    assert (tmp_path / "plots" / "regret-first.png").stat().st_size > 1000
    assert log_held_out(figures, tmp_path / "log.jsonl") == []
