"""What a clock decided once is recorded in the run and decided the same ever after."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from advisor import measuring, pipeline
from advisor.interrupts import Interrupts
from advisor.probe_session import DEADLINE_DECISION, SETTLED_DECISION
from advisor.probing import Probe
from advisor.run_log import read_log
from advisor.workspace import Workspace, open_workspace
from tests.reliability.whole_path import WholePath

AFTER_PROBES = ("probe_data.json", "recommendation.json", "risk_model.json", "studies.json", "study.journal")


def reopened(whole: WholePath, out: Path, probes: int | None = 4) -> Workspace:
    """The run with its two probes, of a project that now allows more."""
    project = yaml.safe_load((whole.folder / "project.yaml").read_text())
    project["budget"]["probes"] = probes
    path = whole.folder / f"probes-{probes}.yaml"
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


def test_probing_that_settled_the_advice_goes_on_only_for_a_project_that_names_a_number(
    whole: WholePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "run"
    shutil.copytree(whole.run, out)
    for name in AFTER_PROBES:
        (out / name).unlink()
    asked: list[int] = []

    def settles_at_three(*args: object) -> Callable[[Sequence[Probe]], bool]:
        return lambda probes: asked.append(len(probes)) or len(probes) >= 3

    monkeypatch.setattr(measuring, "Settling", settles_at_three)
    ws = reopened(whole, out, probes=None)
    with ws.session("probe"):
        ended = pipeline.probe(ws)
    records = read_log(out / "probes.jsonl").records
    assert asked == [3]  # the two stored probes are not asked about again
    assert sum("recipe" in record for record in records) == 3
    assert records[-1]["decision"] == SETTLED_DECISION
    events = ws.run.events().records
    assert [event["kind"] for event in events].count("probing_settled") == 1
    told = [event for event in events if event["kind"] == "progress" and event["stage"] == "probes"]
    assert told[-1]["ended"] == "the last probes did not change the advice"
    assert told[-1]["probes"] == 3
    # another session is not asked: what was decided stays
    (out / "probe_data.json").unlink()
    later = reopened(whole, out, probes=None)
    with later.session("probe"):
        again = pipeline.probe(later)
    assert asked == [3]
    assert again.to_json() == ended.to_json()
    # a number of probes in the project wins, and nobody is asked
    (out / "probe_data.json").unlink()
    more = reopened(whole, out, probes=4)
    with more.session("probe"):
        pipeline.probe(more)
    assert sum("recipe" in record for record in read_log(out / "probes.jsonl").records) == 4
    assert asked == [3]
