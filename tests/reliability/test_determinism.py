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
def test_the_order_of_tasks_changes_no_constant_of_a_task_but_by_rounding(whole: WholePath, tmp_path: Path) -> None:
    project = yaml.safe_load(PROJECT)
    project["tasks"] = dict(reversed(project["tasks"].items()))
    found = measured(tmp_path, yaml.safe_dump(project, sort_keys=False))
    first = whole.results["constants"]["constants"]
    assert list(found["tasks"]) == ["high", "low"]
    for name, task in first["tasks"].items():
        for key in ("initial_risk", "gradient_variance", "top_curvature", "initial_gradient_norm"):
            assert found["tasks"][name][key]["value"] == pytest.approx(task[key]["value"], rel=1e-5), (name, key)
