"""When snapshots are written, what a kill leaves of them, and what is done about damaged ones."""

import errno
import os
from pathlib import Path

import pytest
import torch

from estimators import snapshot_folder
from estimators.files import StorageFailed
from estimators.snapshot_folder import SnapshotFolder
from estimators.snapshots import Snapshot


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def state(number: int) -> Snapshot:
    return Snapshot(tensors={"x": torch.full((3,), float(number))}, facts={"number": number})


def number_in(folder: Path, name: str) -> int | None:
    """What a later process finds."""
    found = SnapshotFolder(folder).load(name)
    return None if found is None else int(found.facts["number"])


def test_nothing_is_written_before_its_time(tmp_path: Path) -> None:
    clock = Clock()
    store = SnapshotFolder(tmp_path / "a", seconds=10, clock=clock)
    for now in range(10):
        clock.now = float(now)
        store.keep("run", lambda now=now: state(now))  # type: ignore[misc]
    assert not (tmp_path / "a").exists()
    clock.now = 10.0
    store.keep("run", lambda: state(10))
    assert number_in(tmp_path / "a", "run") == 10


def test_finished_pieces_wait_and_are_written_together(tmp_path: Path) -> None:
    clock = Clock()
    store = SnapshotFolder(tmp_path, seconds=10, clock=clock)
    for piece in range(4):
        store.keep(f"piece-{piece}", lambda piece=piece: state(piece))  # type: ignore[misc]
        clock.now += 4.0
    assert [number_in(tmp_path, f"piece-{piece}") for piece in range(4)] == [0, 1, 2, 3]


def test_a_piece_that_waits_is_read_as_if_it_were_written(tmp_path: Path) -> None:
    store = SnapshotFolder(tmp_path, seconds=1e9)
    store.keep("run", lambda: state(3))
    found = store.load("run")
    assert found is not None
    assert found.facts == {"number": 3}


def test_slow_writing_is_done_more_seldom_but_never_beyond_the_longest_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    took = [3.0, 0.4, 0.1, 0.0]
    write = snapshot_folder.write_bytes_atomic

    def slow(path: Path, data: bytes) -> None:
        write(path, data)
        clock.now += took.pop()

    monkeypatch.setattr(snapshot_folder, "write_bytes_atomic", slow)
    store = SnapshotFolder(tmp_path, clock=clock)
    pauses = []
    while took:
        clock.now += 100
        store.keep("run", lambda: state(1))
        pauses.append(store.pause)
    assert pauses == pytest.approx([15.0, 15.0, 20.0, 25.0])
    assert max(pauses) < 30 - 2  # room for one step and the writing itself


def test_values_are_computed_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"risk": 0.1 + 0.2}

    for _ in range(3):
        store = SnapshotFolder(tmp_path, seconds=0, longest=0)
        assert store.value("risk", compute) == {"risk": 0.1 + 0.2}
    assert len(calls) == 1


def test_a_whole_takes_the_place_of_its_parts_only_once_it_is_written(tmp_path: Path) -> None:
    clock = Clock()
    store = SnapshotFolder(tmp_path, seconds=10, clock=clock)
    with store.parts() as names:
        clock.now = 10
        store.keep("part-1", lambda: state(1))  # written
        store.keep("part-2", lambda: state(2))  # waits
    assert names == ["part-1", "part-2"]
    store.keep("whole", lambda: state(3), instead_of=names)
    assert number_in(tmp_path, "part-1") == 1
    store.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["whole.safetensors"]
    assert number_in(tmp_path, "whole") == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_snapshot_is_named_and_thrown_away(tmp_path: Path, damage: str) -> None:
    store = SnapshotFolder(tmp_path / "expert-low", seconds=0, longest=0)
    store.keep("training-1", lambda: state(1))
    store.keep("training-2", lambda: state(2))
    path = tmp_path / "expert-low" / "training-1.safetensors"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-5], "flipped": data[:-1] + b"\x99", "emptied": b""}[damage])
    told: list[str] = []
    later = SnapshotFolder(tmp_path / "expert-low", told=told.append)
    assert later.load("training-1") is None
    assert len(told) == 1
    assert "training-1.safetensors of expert-low is damaged" in told[0]
    assert "thrown away" in told[0]
    assert not path.exists()
    assert number_in(tmp_path / "expert-low", "training-2") == 2


def test_a_disk_that_takes_no_more_stops_clearly_and_keeps_the_last_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotFolder(tmp_path, seconds=0, longest=0)
    store.keep("run", lambda: state(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="cannot be written .*; free some space or choose another --out"):
        store.keep("run", lambda: state(2))
    assert number_in(tmp_path, "run") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_removing_leaves_no_folder(tmp_path: Path) -> None:
    store = SnapshotFolder(tmp_path / "unfinished" / "probe-3", seconds=0, longest=0)
    other = SnapshotFolder(tmp_path / "unfinished" / "expert", seconds=0, longest=0)
    store.keep("run", lambda: state(1))
    other.keep("run", lambda: state(1))
    store.remove()
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == ["expert"]
    other.remove()
    assert not (tmp_path / "unfinished").exists()
