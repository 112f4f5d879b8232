import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.interrupts import RunInterrupted
from advisor.run_listing import list_runs
from advisor.runs import RunDirectory
from tests.advisor import advice_samples as samples
from tests.advisor.cli_fakes import NAMES, FakePipeline, Ran, fake, project

__all__ = ["fake", "project"]


def only_run(folder: Path) -> RunDirectory:
    (summary,) = list_runs(folder / "runs")
    return RunDirectory.open(summary.path)


def test_a_run_prints_advice_and_comparison_and_leaves_a_run(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "run", project)
    assert ran.code == 0
    assert fake.called == ["recommend", "run_all"]
    for part in ("Advised: train one expert a task", "Recipes", "Why", "Caveats", "Predicted against measured", "Cost"):
        assert part in ran.out
    run = only_run(project.parent)
    assert str(run.path.relative_to(project.parent)) in ran.said
    assert [event["kind"] for event in run.events().records][-1] == "finished"
    assert "recommend: 2 of 2 (100 %)" in ran.err


def test_json_is_all_that_stands_on_standard_output(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("run", "probe", "recommend", "train", "merge", "validate"):
        ran = Ran(capsys, command, project, "--json", "--out", command)
        value = json.loads(ran.out)
        assert ran.code == 0
        assert Path(value["run"]).is_dir()
    assert value["validation"]["models"][0]["name"] == "advised merge"


def test_quiet_says_nothing_beside_the_result(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "recommend", project, "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert "Advised" in ran.out


@pytest.mark.parametrize("command", ["run", "recommend", "train", "merge", "validate"])
def test_refused_advice_ends_with_3_and_trains_nothing(
    command: str, fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.advice = samples.recommendation(NAMES, status="refuse", answer="do_not_merge")
    ran = Ran(capsys, command, project)
    assert ran.code == 3
    assert "Advice refused: don't merge" in ran.out
    assert not {"train", "merge", "validate", "run_all"} & set(fake.called)
    assert only_run(project.parent).events().records[-1]["kind"] == "finished"
    if command != "recommend":
        assert "--anyway goes on" in ran.said
        assert Ran(capsys, command, project, "--anyway").code == 0
        assert {"train", "merge", "validate", "run_all"} & set(fake.called)


def test_refused_advice_is_json_too(fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.advice = samples.recommendation(NAMES, status="refuse", answer="do_not_merge")
    ran = Ran(capsys, "run", project, "--json")
    assert ran.code == 3
    assert json.loads(ran.out)["recommendation"]["status"] == "refuse"


def test_the_same_command_goes_on_with_its_unfinished_run(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(stage: str, ws: Any) -> None:
        ws.run.write_json("probe_data.json", {})
        raise RunInterrupted("stopped by SIGTERM; everything done so far is kept")

    fake.during = stop
    ran = Ran(capsys, "run", project)
    run = only_run(project.parent)
    assert ran.code == 130
    assert (
        f"everything done so far is kept; go on with: merge-advisor run {run.path.relative_to(project.parent)}"
        in ran.said
    )
    fake.during = lambda stage, ws: None
    ran = Ran(capsys, "run", project)
    assert ran.code == 0
    assert f"Going on with run {run.path.relative_to(project.parent)} (interrupted)" in ran.said
    assert "Already there" in ran.said
    assert only_run(project.parent).id == run.id
    Ran(capsys, "run", project, "--new")
    assert len(list_runs(project.parent / "runs")) == 2
    Ran(capsys, "run", project, "--seed", "7")  # another seed is another project
    assert len(list_runs(project.parent / "runs")) == 3


def test_a_run_that_is_being_written_is_refused_by_name(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ran(capsys, "recommend", project)
    run = only_run(project.parent)
    with run.writing("run"):
        for source in (project, run.path):
            ran = Ran(capsys, "recommend", source)
            assert ran.code == 2
            assert f"is being written by process {os.getpid()}" in ran.said
    assert Ran(capsys, "recommend", run.path).code == 0


def test_bad_input_leaves_no_new_run_but_never_takes_results_away(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(stage: str, ws: Any) -> None:
        raise ValueError("data='x' holds no images; name another folder")

    fake.during = fail
    ran = Ran(capsys, "run", project, "--out", "mine")
    assert ran.code == 2
    assert "Error: data='x' holds no images; name another folder" in ran.said
    assert not (project.parent / "mine").exists()

    def fail_late(stage: str, ws: Any) -> None:
        ws.run.write_json("constants.json", {})
        fail(stage, ws)

    fake.during = fail_late
    assert Ran(capsys, "run", project, "--out", "mine").code == 2
    assert RunDirectory.open(project.parent / "mine").has("constants.json")
    fake.during = fail
    assert Ran(capsys, "run", project, "--out", "mine").code == 2
    assert RunDirectory.open(project.parent / "mine").has("constants.json")


def test_an_empty_folder_given_as_out_stays_when_the_input_is_bad(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(stage: str, ws: Any) -> None:
        raise ValueError("bad")

    fake.during = fail
    (project.parent / "mine").mkdir()
    assert Ran(capsys, "run", project, "--out", "mine").code == 2
    assert list((project.parent / "mine").iterdir()) == []


def test_a_run_of_another_project_is_refused(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ran(capsys, "recommend", project, "--out", "mine")
    other = project.with_name("other.yaml")
    other.write_text(project.read_text().replace("digits-high", "digits-rotated"))
    ran = Ran(capsys, "recommend", other, "--out", "mine")
    assert ran.code == 2
    assert "holds a run of another project" in ran.said


def test_damaged_pieces_are_named_when_a_run_goes_on(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ran(capsys, "recommend", project, "--out", "mine")
    run = RunDirectory.open(project.parent / "mine")
    run.write_json("probe_data.json", {"a": 1})
    (run.path / "probe_data.json").write_text("{")
    assert "Damaged and made again: probe_data.json" in Ran(capsys, "recommend", run.path).said


def test_a_report_needs_advice(fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory.create(project.parent / "runs", "p")
    ran = Ran(capsys, "report", run.path)
    assert ran.code == 2
    assert "has no whole recommendation.json yet" in ran.said
    Ran(capsys, "recommend", project, "--out", "mine")
    ran = Ran(capsys, "report", "mine", "--json")
    assert [Path(name).name for name in json.loads(ran.out)["files"]] == ["report.json", "report.md", "report.html"]


def test_a_dry_run_tells_stages_and_cost_and_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advisor.planned_cost.seconds_per_unit", lambda project, device=None: 0.06)
    ran = Ran(capsys, "run", project, "--dry-run", "--json")
    value = json.loads(ran.out)
    assert ran.code == 0
    # two tasks, 80 steps: a full fine-tune is 5,120; advice a quarter of it, experts 2 x 80 x 32
    assert [stage["units"] for stage in value["stages"]] == [1280.0, 5120.0, 0.0, 25600.0, 0.0]
    assert value["minutes"] == pytest.approx(32.0)
    assert {path.name for path in project.parent.iterdir()} == {"project.yaml"}
    ran = Ran(capsys, "train", project, "--dry-run", "--max-cost", "1000")
    assert "In all at most 6,120 per-sample gradients, about 6.1 minutes" in " ".join(ran.out.split())


SIGNALLED = """
import sys
from advisor import cli, pipeline

def forever(ws):
    print("begun", flush=True)
    while True:
        ws.interrupts.check()

pipeline.recommend = forever
sys.exit(cli.main(["run", "project.yaml", "--out", "mine"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_130_and_says_how_to_go_on(number: signal.Signals, project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project.parent,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    said = " ".join(err.split())
    assert process.returncode == 130
    assert f"stopped by {number.name}; everything done so far is kept; go on with: merge-advisor run mine" in said
    run = RunDirectory.open(project.parent / "mine")
    assert run.events().records[-1]["kind"] == "interrupted"
    assert run.writer() is None


def test_advice_that_was_made_again_while_training_is_shown_too(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(stage: str, ws: Any) -> None:
        if stage == "run_all":
            fake.advice = samples.recommendation(NAMES, plan=samples.plan(NAMES, rate=0.0017), sentence="Go slower.")

    fake.during = diverge
    ran = Ran(capsys, "run", project)
    assert ran.code == 0
    assert "An advised expert diverged; with that known the advice was made again" in ran.said
    assert ran.out.count("Recipes, merged by") == 2
    assert "Go slower." in ran.out
