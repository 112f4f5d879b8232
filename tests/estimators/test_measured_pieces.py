"""Measuring that is killed after any piece ends with the same constants, to the last bit; nothing is measured twice."""

from pathlib import Path
from typing import Any

import pytest
import torch

from estimators.cost import CostMeter
from estimators.measuring import measure_constants
from estimators.snapshot_folder import SnapshotFolder
from estimators.snapshots import Snapshot
from tests.estimators.test_measuring import project
from tests.small_networks import small_split


class Killed(BaseException):
    """Stands for SIGKILL."""


class Folder(SnapshotFolder):
    """Counts pieces that are measured, and dies instead of measuring one more than allowed."""

    def __init__(self, folder: Path, allowed: int) -> None:
        super().__init__(folder, seconds=0.0, longest=0.0)
        self.allowed, self.measured = allowed, 0

    def keep(self, name: str, take: Any, **options: Any) -> None:
        if self.measured == self.allowed:
            raise Killed
        self.measured += 1
        super().keep(name, take, **options)


def test_constants_of_a_killed_process_are_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    objectives, tasks = project()
    meter = CostMeter()
    whole = measure_constants(objectives, tasks, seed=3, max_units=1600, meter=meter)
    lives = 0
    while True:
        objectives, tasks = project()  # as another process would make them
        again, folder = CostMeter(), Folder(tmp_path, allowed=2)
        try:
            found = measure_constants(objectives, tasks, seed=3, max_units=1600, meter=again, kept=folder)
        except Killed:
            lives += 1
            continue
        break
    assert lives >= 4
    assert found.to_json() == whole.to_json()
    assert again.by_purpose() == meter.by_purpose()
    assert len(list(tmp_path.iterdir())) == 2 * lives + folder.measured


@pytest.mark.parametrize("change", [{"seed": 4}, {"max_units": 1500}])
def test_other_questions_get_their_own_pieces(tmp_path: Path, change: dict[str, Any]) -> None:
    objectives, tasks = project()
    options = {"seed": 3, "max_units": 1600}
    measure_constants(objectives, tasks, kept=Folder(tmp_path, allowed=99), **options)
    folder = Folder(tmp_path, allowed=99)
    measure_constants(objectives, tasks, kept=folder, **(options | change))
    assert folder.measured > 5


def test_a_piece_that_says_nothing_is_a_piece(tmp_path: Path) -> None:
    """A failure is kept like a result: it is not tried again."""
    objectives, tasks = project(task0={"splits": {"train": small_split(1)}})
    small = {"seed": 0, "max_units": 200.0}
    first = measure_constants(objectives, tasks, kept=Folder(tmp_path, allowed=99), **small)
    assert first.tasks["task0"].failures != {}
    folder = Folder(tmp_path, allowed=0)
    assert measure_constants(objectives, tasks, kept=folder, **small).to_json() == first.to_json()
    assert all(isinstance(folder.load(path.stem), Snapshot) for path in tmp_path.iterdir())
