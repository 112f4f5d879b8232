"""The whole path on workers: the bits of the path in this process, for any number of workers, also where one dies."""

import json
import os
import signal
from pathlib import Path

import pytest

from advisor import cli, pipeline
from advisor.dispatching import train_ahead
from advisor.engine import EngineSettings, LocalPool
from advisor.interrupts import RunInterrupted
from advisor.workspace import Workspace, open_workspace
from estimators.fine_tuning import Run
from estimators.recipe import Recipe
from estimators.snapshot_folder import SnapshotFolder
from tests.reliability.tiny_project import numbers, write_project

NAMES = ("constants.json", "probe_data.json", "risk_model.json", "recommendation.json", "validation.json")


def two(kind: str = "processes", **more: object) -> EngineSettings:
    return EngineSettings(kind=kind, workers=2, **more)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return write_project(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def here(project) -> Workspace:
    ws = open_workspace(project, project.parent / "here")
    pipeline.run_all(ws)
    return ws


def results(ws: Workspace) -> dict[str, object]:
    return {name: numbers(ws.run.read_json(name)) for name in NAMES if ws.run.has(name)}


def weights(ws: Workspace) -> dict[str, tuple[dict[str, object], bytes]]:
    """Header and bytes of every file; headers list their metadata in any order."""
    found = {}
    for name in ("experts/low.safetensors", "experts/high.safetensors", "merged/model.safetensors"):
        data = ws.run.read_bytes(name)
        start = 8 + int.from_bytes(data[:8], "little")
        found[name] = json.loads(data[8:start]), data[start:]
    return found


def test_two_workers_give_the_bits_of_this_process_from_probes_to_the_merge(project, here):
    ws = open_workspace(project, project.parent / "two", engine=two())
    pipeline.merge(ws)
    known = results(here)
    del known["validation.json"]
    assert results(ws) == known
    assert weights(ws) == weights(here)
    assert not ws.run.path_of("unfinished").exists()


@pytest.mark.slow
def test_the_comparison_on_two_workers_is_the_one_of_this_process(project, here):
    ws = open_workspace(project, project.parent / "two", engine=two())
    pipeline.run_all(ws)
    assert results(ws) == results(here)
    assert numbers(ws.costs()) == numbers(here.costs())


@pytest.mark.slow
def test_one_worker_gives_the_advice_of_two(project, here):
    ws = open_workspace(project, project.parent / "one", engine=EngineSettings(kind="processes", workers=1))
    pipeline.recommend(ws)
    assert results(ws).items() <= results(here).items()


RUNS = [
    Run(task=task, recipe=Recipe(learning_rate=1e-3, batch_size=4, steps=6), seed=seed, checkpoints=(2,))
    for seed in (1, 2)
    for task in ("low", "high")
]


@pytest.mark.slow
def test_what_was_finished_before_a_stop_is_kept_and_not_trained_again(project, here, tmp_path):
    ws = open_workspace(here.run.path, engine=two())
    store = SnapshotFolder(tmp_path / "kept")

    def stop(stage: str, done: int, total: int, **info: object) -> None:
        if stage == "jobs" and done == 2:
            ws.run.request_stop("test")

    ws.progress = stop
    with ws.session("test"), pytest.raises(RunInterrupted, match="everything done so far is kept"):
        train_ahead(ws, RUNS, store)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    assert len(kept) == 2
    again = open_workspace(here.run.path, engine=two())
    told: list[int] = []
    again.progress = lambda stage, done, total, **info: told.append(done)
    with again.session("test"):
        train_ahead(again, RUNS, SnapshotFolder(tmp_path / "kept"))
    assert told == [3, 4]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    assert len(after) == 4
    assert kept.items() <= after.items()


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_changes_nothing(project, here, tmp_path):
    ws = open_workspace(here.run.path, engine=two())
    killed: list[int] = []

    def kill(stage: str, done: int, total: int, **info: object) -> None:
        if stage == "jobs" and not killed:
            pool = ws.workers
            assert isinstance(pool, LocalPool)
            killed.append(next(iter(pool._executor._processes)))
            os.kill(killed[0], signal.SIGKILL)

    ws.progress = kill
    store, undisturbed = SnapshotFolder(tmp_path / "a"), SnapshotFolder(tmp_path / "b")
    with ws.session("test"):
        train_ahead(ws, RUNS, store)
        ws.progress = lambda *args, **info: None
        train_ahead(ws, RUNS, undisturbed)
    assert len(killed) == 1
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 4
    for name in names:
        one, other = (folder.load(name.removesuffix(".safetensors")) for folder in (store, undisturbed))
        assert {k: v.tolist() for k, v in one.tensors.items()} == {k: v.tolist() for k, v in other.tensors.items()}


@pytest.mark.slow
def test_the_command_takes_an_engine(project, here, tmp_path, capsys):
    out = str(project.parent / "command")
    assert cli.main(["probe", str(project), "--out", out, "--engine", "processes", "--workers", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["merges"] == len(pipeline.probe(here).merges)
    assert numbers(open_workspace(out).run.read_json("probe_data.json")) == results(here)["probe_data.json"]
    assert cli.main(["probe", out, "--engine", "cloud"]) == 2
    assert "engine='cloud' is not one of in-process, processes, ray" in " ".join(capsys.readouterr().err.split())
