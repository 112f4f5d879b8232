"""Faults that are injected: divergence at any step, memory, a disk that is full or read-only, a clock that jumps."""

import errno
import itertools
import os
import random
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advisor import pipeline
from advisor.training import OutOfMemory, train_runs
from advisor.workspace import open_workspace
from estimators import snapshot_folder
from estimators.divergence import DIVERGENCE_PATIENCE
from estimators.files import StorageFailed
from estimators.fine_tuning import Run, fine_tune
from estimators.recipe import Recipe
from studies.storage import StudyNotWritten
from tests.reliability.figures import note
from tests.reliability.fuzzing import peak_megabytes, ran
from tests.reliability.tiny_project import PROJECT, numbers, write_project
from tests.reliability.whole_path import WholePath
from tests.small_networks import small_objective, small_split

STEPS = 12


class Faulty:
    """An objective that does something else at its k-th gradient."""

    def __init__(self, at: int, fault: Any) -> None:
        self.inner, self.at, self.fault, self.calls = small_objective("cnn"), at, fault, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        losses = self.inner.losses(weights, inputs, labels)
        return self.fault(losses) if self.calls == self.at else losses


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [1, 2, 7, STEPS])
def test_a_loss_that_is_not_finite_at_any_step_is_an_outcome_that_names_it(step: int, value: float) -> None:
    recipe = Recipe(learning_rate=0.01, batch_size=8, steps=STEPS)
    faulty = Faulty(step, lambda losses: losses * value)
    found = fine_tune(faulty, small_split(32), Run(task="a", recipe=recipe, seed=0))  # type: ignore[arg-type]
    assert found.outcome == "diverged"
    assert f"at step {step}" in found.cause
    assert np.isfinite(found.losses[: step - 1]).all()


@pytest.mark.parametrize("begins", [2, 7, 20])
def test_a_loss_that_stays_high_from_any_step_on_is_an_outcome_that_names_the_end_of_patience(begins: int) -> None:
    class Lasting(Faulty):
        def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            losses: Tensor = self.inner.losses(weights, inputs, labels)
            return losses + 1000.0 if self.calls >= begins else losses

    recipe = Recipe(learning_rate=1e-4, batch_size=8, steps=60)
    run = Run(task="a", recipe=recipe, seed=0)
    found = fine_tune(Lasting(0, None), small_split(32), run)  # type: ignore[arg-type]
    assert found.outcome == "diverged"
    last = begins - 1 + DIVERGENCE_PATIENCE
    assert f"for {DIVERGENCE_PATIENCE} steps up to step {last}" in found.cause
    assert len(found.losses) == last  # nothing is trained after that
    assert found.checkpoints == {}


def test_memory_that_runs_out_once_at_any_step_changes_only_the_rounding() -> None:
    recipe = Recipe(learning_rate=0.01, batch_size=8, steps=STEPS)
    run = Run(task="a", recipe=recipe, seed=0)
    split = {"a": small_split(32)}
    whole = next(iter(train_runs({"a": small_objective("cnn")}, split, [run])))[0]

    def out_of_memory(losses: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (injected)")

    for step in (1, 5, STEPS):
        found = next(iter(train_runs({"a": Faulty(step, out_of_memory)}, split, [run])))[0]  # type: ignore[dict-item]
        assert found.outcome == "finished"
        torch.testing.assert_close(found.weights, whole.weights, rtol=1e-4, atol=1e-5)


def test_memory_that_never_suffices_is_a_clear_stop() -> None:
    def out_of_memory(losses: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    class Never(Faulty):
        def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
            return out_of_memory(weights)

    run = Run(task="a", recipe=Recipe(learning_rate=0.01, batch_size=8, steps=2), seed=0)
    with pytest.raises(OutOfMemory, match="task='a': the gradient of a single sample does not fit into memory"):
        list(train_runs({"a": Never(1, None)}, {"a": small_split(32)}, [run]))  # type: ignore[dict-item]


def test_a_deadline_that_passes_inside_a_step_ends_training_after_that_step() -> None:
    passed = False

    def slow(losses: Tensor) -> Tensor:
        nonlocal passed
        passed = True
        return losses

    run = Run(task="a", recipe=Recipe(learning_rate=0.01, batch_size=8, steps=STEPS), seed=0)
    found = fine_tune(
        Faulty(4, slow),  # type: ignore[arg-type]
        small_split(32),
        run,
        control=lambda done, total: "deadline" if passed else "go",
    )
    assert found.outcome == "deadline"
    assert len(found.losses) == 4


def test_full_and_read_only_disks_and_jumping_clocks_change_no_result(
    whole: WholePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice, made through a fault at every so-many-th write; the clock jumps by up to a day at every look."""
    torch.set_num_threads(1)
    chance = random.Random(8)
    clock, sync = time.time, os.fsync
    monkeypatch.setattr(time, "time", lambda: clock() + chance.uniform(-86_400, 86_400))
    written = itertools.count(1)
    fault_at = 0

    def failing(descriptor: int) -> None:
        if next(written) in (fault_at, fault_at + 1):  # two in a row, since a folder's sync may fail unseen
            kind = chance.choice([errno.ENOSPC, errno.EROFS, errno.EDQUOT])
            raise OSError(kind, os.strerror(kind))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    told, out = [], tmp_path / "run"
    for distance in (5, 9, 15, 22, 31, 40, -9):
        written = itertools.count(1)
        fault_at = distance
        try:
            ws = open_workspace(whole.folder / "project.yaml", out)
            pipeline.recommend(ws)
        except (StorageFailed, StudyNotWritten) as error:
            told.append(str(error))
        else:
            break
    assert len(told) >= 3
    assert all("cannot be written" in text and "choose another --out" in text for text in told)
    assert not list(out.rglob(".*.tmp"))
    note("disk faults", len(told))
    for name in ("constants", "probe_data", "recommendation"):
        assert numbers(ws.run.read_json(f"{name}.json")) == without_schema(whole.results[name]), name


@pytest.mark.slow
def test_full_disks_anywhere_on_the_whole_path_change_no_result(
    whole: WholePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot after every step, and a fault at a random write, life after life until the path comes through."""
    torch.set_num_threads(1)
    monkeypatch.setattr(snapshot_folder, "SECONDS", 0.0)
    monkeypatch.setattr(snapshot_folder, "LONGEST", 0.0)
    chance, sync, left = random.Random(21), os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left in (0, -1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    told: list[str] = []
    while True:
        left = chance.randint(40, 400) if len(told) < 8 else -9
        try:
            ws = open_workspace(whole.folder / "project.yaml", tmp_path / "run")
            pipeline.run_all(ws)
        except (StorageFailed, StudyNotWritten) as error:
            told.append(str(error))
        else:
            break
    assert all("cannot be written" in text and "choose another --out" in text for text in told)
    assert not list((tmp_path / "run").rglob(".*.tmp"))
    assert whole.differing(tmp_path / "run") == set()
    note("disk faults on the whole path", len(told))
    assert len(told) >= 4


def test_an_image_that_would_unpack_to_gigabytes_ends_the_command_with_its_name(tmp_path: Path) -> None:
    """Sixteen thousand million pixels in a file of a few hundred bytes, among the images of a project."""
    from PIL import Image

    folder = write_project(tmp_path, BOMBED).parent
    for kind in ("cat", "dog"):
        for number in range(12):
            path = folder / "images" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 20 * number, dtype=np.uint8)).save(path)
    (folder / "images" / "cat" / "bomb.png").write_bytes(bomb(126_000, 126_000))
    before = peak_megabytes()
    code, said = ran(folder, "run", "project.yaml", "--out", "run")
    assert code == 2
    assert "bomb.png" in said
    assert peak_megabytes() - before < 1000
    assert not (folder / "run" / "run.json").exists()


BOMBED = PROJECT.replace("builtin/digits-rotated-low", "images").replace("limit: 40, ", "")


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size; its pixels are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


def without_schema(stored: Any) -> Any:
    """What a run's file holds, as it is read back."""
    return {key: value for key, value in stored.items() if key != "schema"}
