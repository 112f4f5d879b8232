"""Looking at a run while it is written, half there, damaged or huge."""

from pathlib import Path

import numpy as np
import pytest

from advisor.live_probe import LiveWriter
from advisor.run_log import append_record
from advisor.runs import RunDirectory
from advisor.watching import SHOWN_PROBES, read_tail, watch
from estimators.fine_tuning import Run
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld
from tests.app.run_samples import probe_record


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "sample", path=tmp_path / "run")


def test_running_stage_tells_share_and_time_left(run: RunDirectory) -> None:
    with run.writing("run"):
        run.tell(stage="probes", done=30, total=120)
        for second, done in ((0, 0), (10, 30)):
            record = {"time": f"2026-11-22T06:00:{second:02d}+00:00", "kind": "progress", "stage": "probes"}
            append_record(run.path / "events.jsonl", {**record, "done": done, "total": 120, "recipe": "sgd"})
        run._heartbeat.beat()
        watched = watch(run.path)
    assert watched.is_running
    assert watched.share == pytest.approx(0.25)
    assert watched.seconds_left == pytest.approx(30.0)  # 30 of 120 took 10 s
    assert watched.detail == {"recipe": "sgd"}
    assert watched.next_stage == "probe"


def test_the_running_probe_is_seen_only_while_probes_run(run: RunDirectory) -> None:
    recipe = Recipe(learning_rate=0.01, batch_size=4, steps=40)
    traces = [np.array([[1.0], [0.5], [0.1]]), np.array([[0.8], [0.5], [0.2]])]
    with run.writing("run"), LiveWriter(run.path, number=3, recipe=recipe) as live:
        live([Run(task="a", recipe=recipe, seed=0)], traces)
        run._heartbeat.beat()
        assert watch(run.path).live is None  # left by an earlier writer, for all that is known
        run.tell(stage="probes", done=30, total=120)
        run._heartbeat.beat()
        found = watch(run.path).live
        assert found is not None
        assert (found.number, found.traces[0].losses.tolist()) == (3, [1.0, 0.8])
    assert watch(run.path).live is None


def test_only_the_last_probes_are_read_and_the_others_counted(run: RunDirectory) -> None:
    record = probe_record(QuadraticWorld.drawn().probes())
    for _ in range(SHOWN_PROBES + 5):
        append_record(run.path / "probes.jsonl", record)
    watched = watch(run.path)
    assert len(watched.probes) == SHOWN_PROBES
    assert watched.hidden_probes == 5
    assert watched.probes[0].diverged == ("a",)
    assert watched.probes[0].best is not None


def test_damaged_lines_are_counted_not_raised(run: RunDirectory) -> None:
    append_record(run.path / "probes.jsonl", probe_record(QuadraticWorld.drawn().probes()))
    with (run.path / "probes.jsonl").open("ab") as file:
        file.write(b'{"recipe": 1}\n\xff\xfe\n')
    append_record(run.path / "probes.jsonl", {"recipe": "not a mapping"})
    watched = watch(run.path)
    assert len(watched.probes) == 1
    assert watched.damaged_lines == 3


def test_tail_of_a_log_leaves_out_the_record_it_cuts(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for k in range(100):
        append_record(path, {"k": k}, sync=False)
    part = read_tail(path, 200)
    assert part.damaged == ()
    assert part.records[-1] == {"k": 99}
    assert 1 < len(part.records) < 100
    assert read_tail(tmp_path / "none", 10).records == ()
