import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor import cli_looking
from advisor.runs import RunDirectory
from tests.advisor import advice_samples as samples
from tests.advisor.cli_fakes import NAMES, FakePipeline, Ran, fake, project

__all__ = ["fake", "project"]


def test_init_writes_a_project_that_check_accepts(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran(capsys, "init", "builtin/digits-low", "builtin/digits-high", "--out", "new.yaml")
    assert ran.code == 0
    assert "merge-advisor check new.yaml" in ran.out
    monkeypatch.setattr("advisor.planned_cost.seconds_per_unit", lambda project, device=None: 0.001)
    text = (project.parent / "new.yaml").read_text()
    (project.parent / "new.yaml").write_text(text.replace("pretrained: true", "pretrained: false"))
    ran = Ran(capsys, "check", "new.yaml", "--device", "cpu")
    assert ran.code == 0
    assert "The project can be run" in ran.out
    assert "digits-low" in ran.out
    again = Ran(capsys, "init", "builtin/digits-low", "--out", "new.yaml")
    assert again.code == 2
    assert "exists; choose another name" in again.said
    assert Ran(capsys, "init", "builtin/digits-low", "--out", "new.yaml", "--force").code == 0


def test_check_tells_figures_as_json_and_names_damage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "check", project, "--no-timing", "--json")
    value = json.loads(ran.out)
    assert value["cost"]["minutes"] is None
    assert sum(value["survey"]["tasks"]["low"]["classes"].values()) > 100
    run = RunDirectory.create(project.parent, "p", path=project.parent / "r")
    run.write_text("project.yaml", project.read_text())
    run.write_json("constants.json", {"a": 1})
    (run.path / "constants.json").write_text("{")
    ran = Ran(capsys, "check", run.path, "--no-timing", "--json")
    assert json.loads(ran.out)["damaged"] == ["constants.json"]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("test_resnet", "resnet_of_mine", "resnet_of_mine"),
        ("builtin/digits-high", "no/such/folder", "no/such/folder"),
        ("[20, 80]", "[80, 20]", "search.steps"),
        ("[8, 32]", "[8, 4096]", "4096"),
        ("search:", "serach:", "search"),
        ("image_size: 16", "image_size: 0", "image_size"),
    ],
)
def test_a_bad_project_is_explained_in_one_paragraph(
    before: str, after: str, text: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write_text(project.read_text().replace(before, after))
    ran = Ran(capsys, "check", project, "--no-timing")
    assert ran.code == 2
    assert text in ran.said
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_device_that_is_absent_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = Ran(capsys, "check", project, "--device", "cuda")
    assert ran.code == 2
    assert "device='cuda': this machine has no CUDA device" in ran.said


def test_the_demo_prints_advice_and_comparison(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_demo(out: Path, **options: Any) -> Any:
        from advisor.workspace import open_workspace

        assert options["seed"] == 3
        return open_workspace(project, out / "run-seed-3"), samples.validation(NAMES)

    monkeypatch.setattr("advisor.demo.run_demo", run_demo)
    ran = Ran(capsys, "demo", "--seed", 3)
    assert ran.code == 0
    assert "Advised: train one expert a task" in ran.out
    assert "Predicted against measured" in ran.out
    assert "report.html" in ran.said


def test_runs_are_listed_with_their_state(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no runs; begin with" in Ran(capsys, "runs").out
    run = RunDirectory.create("runs", "digits")
    with run.writing("run"):
        ran = Ran(capsys, "runs", "--json")
    assert [(r["id"], r["state"]) for r in json.loads(ran.out)] == [(run.id, "running")]
    assert run.id in Ran(capsys, "runs").out


def test_stop_asks_the_living_writer_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory.create("runs", "digits")
    ran = Ran(capsys, "stop", run.id)  # by id, below runs/
    assert ran.code == 2
    assert "there is nothing to stop" in ran.said
    with run.writing("run"):
        ran = Ran(capsys, "stop", run.path)
        assert ran.code == 0
        assert f"Asked process {os.getpid()}" in ran.said
        assert run.stop_requested() == "merge-advisor stop"


def test_the_app_listens_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "app")]})
    monkeypatch.setattr(cli_looking, "find_spec", lambda name: spec)
    command = cli_looking.app_command(tmp_path / "run", port=8600)
    assert command[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert command[4] == str(tmp_path / "app" / "main.py")
    assert {"--server.address=127.0.0.1", "--server.port=8600", "--client.showErrorDetails=none"} <= set(command)
    assert command[-2:] == ["--", str(tmp_path / "run")]
    assert "--" not in cli_looking.app_command(None, port=8600)
    (tmp_path / "app" / "main.py").unlink()
    with pytest.raises(ValueError, match="main.py' is not installed"):
        cli_looking.app_command(None, port=8600)
