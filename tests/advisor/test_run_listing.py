import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from advisor.run_listing import LAST_BYTES, list_runs, runs_of_project, summarise
from advisor.run_lock import Writer
from advisor.runs import RunDirectory


def make(root: Path, name: str, project_text: str = "seed: 0\n") -> RunDirectory:
    run = RunDirectory.create(root, "p", path=root / name)
    run.write_text("project.yaml", project_text)
    return run


def test_each_state_of_a_run_is_told_apart(tmp_path: Path) -> None:
    make(tmp_path, "new")
    with make(tmp_path, "finished").writing("probe"):
        pass
    with pytest.raises(ValueError, match="no images"), make(tmp_path, "failed").writing("run"):
        raise ValueError("no images")
    killed = make(tmp_path, "killed")
    killed.event("started", command="run")
    (killed.path / "lock").write_text(json.dumps(asdict(replace(Writer.here("run"), ticks=-5))))
    (make(tmp_path, "damaged").path / "run.json").write_text("{")
    (make(tmp_path, "no-manifest").path / "manifest.json").write_text("{")
    (tmp_path / "not a run").mkdir()
    with make(tmp_path, "running").writing("run"):
        states = {run.id: run.state for run in list_runs(tmp_path)}
    assert states == {
        "new": "new",
        "finished": "finished",
        "failed": "failed",
        "killed": "interrupted",
        "damaged": "damaged",
        "no-manifest": "damaged",
        "running": "running",
    }
    assert summarise(tmp_path / "failed").message == "no images"
    assert "killed" in summarise(tmp_path / "killed").message
    assert "run.json" in summarise(tmp_path / "damaged").message


def test_stages_are_those_whose_results_are_there(tmp_path: Path) -> None:
    run = make(tmp_path, "r")
    run.write_json("probe_data.json", {})
    (run.path / "experts").mkdir()
    assert summarise(run.path).stages == ("probe",)
    run.write_bytes("experts/a.safetensors", b"")
    assert summarise(run.path).stages == ("probe", "train")


def test_runs_of_the_same_project_are_found_newest_first(tmp_path: Path) -> None:
    assert runs_of_project(tmp_path / "none", "seed: 0\n") == ()
    make(tmp_path, "a", "seed: 1\n")
    make(tmp_path, "b")
    make(tmp_path, "c")
    assert [run.id for run in runs_of_project(tmp_path, "seed: 0\n")] == ["c", "b"]


def test_a_run_is_complete_once_its_last_stage_is_there_and_its_command_finished(tmp_path: Path) -> None:
    run = make(tmp_path, "a")
    with run.writing("run"):
        for name in ("probe_data.json", "recommendation.json", "validation.json", "report.json"):
            run.write_json(name, {})
        run.write_bytes("experts/a.safetensors", b"")
        run.write_bytes("merged/model.safetensors", b"")
        assert not summarise(run.path).is_complete
    assert summarise(run.path).is_complete


@pytest.mark.parametrize("length", [10, 3 * LAST_BYTES])
def test_the_end_of_a_long_log_tells_how_the_last_command_ended(tmp_path: Path, length: int) -> None:
    run = RunDirectory.create(tmp_path, "long", path=tmp_path / "long")
    for k in range(400):
        run.event("progress", stage="probes", done=k, total=400)
    run.event("failed", command="run", text="x" * length)  # one record longer than what is read at first
    found = summarise(run.path)
    assert (found.state, len(found.message)) == ("failed", length)
