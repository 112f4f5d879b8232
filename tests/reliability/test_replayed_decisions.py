"""What a clock decided once is recorded in the run and decided the same ever after."""

import shutil
from pathlib import Path

import torch
import yaml

from advisor import pipeline
from advisor.interrupts import Interrupts
from advisor.probe_session import DEADLINE_DECISION
from advisor.run_log import read_log
from advisor.workspace import Workspace, open_workspace
from tests.reliability.whole_path import WholePath

AFTER_PROBES = ("probe_data.json", "recommendation.json", "risk_model.json", "studies.json", "study.journal")


def reopened(whole: WholePath, out: Path) -> Workspace:
    """The run with its two probes, of a project that now allows four."""
    project = yaml.safe_load((whole.folder / "project.yaml").read_text())
    project["budget"]["probes"] = 4
    path = whole.folder / "four.yaml"
    path.write_text(yaml.safe_dump(project, sort_keys=False))
    return open_workspace(path, out)


def test_a_deadline_that_ended_probing_is_replayed_without_a_clock(whole: WholePath, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "run"
    shutil.copytree(whole.run, out)
    for name in AFTER_PROBES:
        (out / name).unlink()
    ws, asked = reopened(whole, out), 0

    def clock() -> float:  # the deadline passes inside the third probe's training
        nonlocal asked
        asked += 1
        return 0.0 if asked < 9 else 1e9

    ws.interrupts = Interrupts(ws.run.stop_requested, time_limit=10.0, clock=clock)
    with ws.session("probe"):
        ended = pipeline.probe(ws)
    records = read_log(out / "probes.jsonl").records
    assert asked >= 9
    assert [record["decision"] for record in records if "decision" in record] == [DEADLINE_DECISION]
    assert sum("recipe" in record for record in records) == 2
    assert not (out / "unfinished").exists()
    # later, with all the time there is: the same two probes
    (out / "probe_data.json").unlink()
    later = reopened(whole, out)
    with later.session("probe"):
        again = pipeline.probe(later)
    assert again.to_json() == ended.to_json()
    assert read_log(out / "probes.jsonl").records == records
