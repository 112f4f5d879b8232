"""What is kept of work that was cut off: written at an interruption, counted once, removed with the result."""

from pathlib import Path

import pytest
import torch

from advisor.interrupts import RunInterrupted
from advisor.project import Project
from advisor.runs import RunDirectory
from advisor.unfinished import clear_unfinished, measured_once, piece_name, unfinished
from advisor.workspace import Spending, Workspace
from estimators.cost import CostMeter
from estimators.snapshot_folder import NotKept, SnapshotFolder
from estimators.snapshots import Snapshot


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    run = RunDirectory.create(tmp_path, "a", path=tmp_path / "run")
    return Workspace(project=Project.model_construct(), run=run)


def state() -> Snapshot:
    return Snapshot(tensors={"x": torch.ones(2)}, facts={"seconds": 7.5})


def cut_off(ws: Workspace, what: str, spending: Spending, error: Exception) -> None:
    """Work that keeps a state and then ends early."""
    with unfinished(ws, what, spending) as kept:
        kept.keep("training-1", state)
        raise error


def kinds(ws: Workspace) -> list[str]:
    return [str(record["kind"]) for record in ws.run.events().records]


def test_an_interruption_writes_what_there_is_and_going_on_tells_so(ws: Workspace) -> None:
    spending = Spending(what="expert low")
    with pytest.raises(RunInterrupted, match="asked"):
        cut_off(ws, "expert low", spending, RunInterrupted("asked to stop"))
    assert (ws.run.path / "unfinished" / "expert-low" / "training-1.safetensors").exists()
    later = Spending(what="expert low")
    with unfinished(ws, "expert low", later) as kept:
        assert kept.load("training-1") is not None
        assert kept.load("training-2") is None
    assert later.seconds >= 7.5  # seconds of the earlier process are seconds of the work
    assert kinds(ws) == ["taken_up"]
    assert not (ws.run.path / "unfinished").exists()


def test_another_error_writes_nothing_for_it_may_come_from_the_middle_of_a_step(ws: Workspace) -> None:
    with pytest.raises(RuntimeError, match="no memory"):
        cut_off(ws, "probe 1", Spending(what="probes"), RuntimeError("no memory"))
    assert not (ws.run.path / "unfinished").exists()


def test_a_signal_stops_between_two_measurements_and_keeps_the_first(ws: Workspace) -> None:
    measured = []

    def measure(meter: CostMeter) -> dict[str, float]:
        measured.append(1)
        ws.run.request_stop("enough")
        return {"risk": 0.5}

    def validate() -> None:
        with unfinished(ws, "validation", Spending(what="validation")) as kept:
            measured_once(kept, "a", None, measure)
            measured_once(kept, "b", None, measure)

    ws.interrupts._stop_requested = ws.run.stop_requested
    with pytest.raises(RunInterrupted, match="enough"):
        validate()
    assert len(measured) == 1
    ws.run.clear_stop()
    with unfinished(ws, "validation", Spending(what="validation")) as kept:
        assert measured_once(kept, "a", None, measure) == {"risk": 0.5}
    assert len(measured) == 1


def test_what_a_measurement_cost_is_counted_whether_it_was_made_now_or_before(tmp_path: Path) -> None:
    def measure(meter: CostMeter) -> dict[str, float]:
        meter.add(forwards=31, gradients=5)
        return {"risk": 0.25}

    units = []
    for kept in (NotKept(), SnapshotFolder(tmp_path, seconds=0), SnapshotFolder(tmp_path, seconds=0)):
        meter = CostMeter()
        assert measured_once(kept, "m", meter, measure) == {"risk": 0.25}
        units.append(meter.units)
    assert units[0] == units[1] == units[2] == 5 + 31 * (1 / 3)


def test_names_tell_what_a_result_depends_on() -> None:
    names = {piece_name("merge", {"rate": rate}, seed) for rate in (0.1, 0.2) for seed in (0, 1)}
    assert len(names) == 4
    assert piece_name("merge", {"a": 1, "b": 2}) == piece_name("merge", {"b": 2, "a": 1})


def test_clearing_takes_one_kind(ws: Workspace) -> None:
    for name in ("probe-0", "probe-1", "expert-low", "expert-lower"):
        (ws.run.path / "unfinished" / name).mkdir(parents=True)
    clear_unfinished(ws, "probe")
    clear_unfinished(ws, "expert low")
    assert [path.name for path in (ws.run.path / "unfinished").iterdir()] == ["expert-lower"]
    clear_unfinished(ws, "expert")
    assert not (ws.run.path / "unfinished").exists()


def test_a_link_that_leads_out_of_the_run_is_refused(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (ws.run.path / "unfinished").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of run"):
        cut_off(ws, "expert low", Spending(what="expert low"), RunInterrupted("asked to stop"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
