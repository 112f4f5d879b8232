"""What changes nothing in what is measured: the order of the tasks, and the process that measures."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from advisor import pipeline
from advisor.workspace import open_workspace
from tests.reliability.tiny_project import PROJECT, numbers, write_project
from tests.reliability.whole_path import WholePath


def measured(folder: Path, text: str) -> Any:
    torch.set_num_threads(1)
    write_project(folder, text)
    ws = open_workspace(folder / "project.yaml", folder / "run")
    pipeline.measure(ws)
    return ws.run.read_json("constants.json")["constants"]


def test_another_process_measures_the_same_to_the_last_bit(whole: WholePath, tmp_path: Path) -> None:
    assert numbers(measured(tmp_path, PROJECT)) == whole.results["constants"]["constants"]


@pytest.mark.slow
def test_the_order_of_tasks_changes_merges_by_rounding_and_advice_within_its_interval(
    whole: WholePath, tmp_path: Path
) -> None:
    """Probes take turns in the order of tasks: which expert a probe merges alone changes with it, and nothing else."""
    found = advised(tmp_path, PROJECT, reverse=True)
    first = whole.results
    merges, others = first["probe_data"]["merges"], found["probe_data"]["merges"]
    assert len(merges) == len(others)
    for one, other in zip(merges, others, strict=True):
        coefficients, reordered = one["plan"]["coefficients"], other["plan"]["coefficients"]
        if 0.0 in coefficients.values():  # one expert alone
            assert sorted(coefficients.values()) == pytest.approx(sorted(reordered.values()))
            continue
        assert coefficients == pytest.approx(reordered)
        for name, risk in one["risks"].items():
            assert other["risks"][name] == pytest.approx(risk, rel=1e-4)
    one, other = first["recommendation"]["goal"], found["recommendation"]["goal"]
    assert one["low"] <= other["value"] <= one["high"]
    assert other["low"] <= one["value"] <= other["high"]


@pytest.mark.slow
def test_another_order_of_batches_stays_within_the_stated_noise(
    whole: WholePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes that see their batches in three other orders foretell a goal that lies in the first one's interval."""
    from estimators import training_loop

    seed = training_loop.stable_seed
    first = whole.results["recommendation"]["goal"]
    inside = 0
    for salt in (1, 2, 3):
        monkeypatch.setattr(training_loop, "stable_seed", lambda *parts, salt=salt: seed(*parts, salt))
        other = advised(tmp_path / str(salt), PROJECT)["recommendation"]["goal"]
        inside += first["low"] <= other["value"] <= first["high"] and other["low"] <= first["value"] <= other["high"]
    assert inside >= 2  # of three, at 90 %


def advised(folder: Path, text: str, *, reverse: bool = False) -> Any:
    """Probe data and advice of a project in this process, without what the clock says."""
    torch.set_num_threads(1)
    project = yaml.safe_load(text)
    if reverse:
        project["tasks"] = dict(reversed(project["tasks"].items()))
    write_project(folder, yaml.safe_dump(project, sort_keys=False))
    ws = open_workspace(folder / "project.yaml", folder / "run")
    pipeline.recommend(ws)
    return {name: numbers(ws.run.read_json(f"{name}.json")) for name in ("probe_data", "recommendation")}


@pytest.mark.slow
def test_the_order_of_tasks_changes_no_constant_of_a_task_but_by_rounding(whole: WholePath, tmp_path: Path) -> None:
    project = yaml.safe_load(PROJECT)
    project["tasks"] = dict(reversed(project["tasks"].items()))
    found = measured(tmp_path, yaml.safe_dump(project, sort_keys=False))
    first = whole.results["constants"]["constants"]
    assert list(found["tasks"]) == ["high", "low"]
    for name, task in first["tasks"].items():
        for key in ("initial_risk", "gradient_variance", "top_curvature", "initial_gradient_norm"):
            assert found["tasks"][name][key]["value"] == pytest.approx(task[key]["value"], rel=1e-5), (name, key)
