"""Faults that are injected: divergence at any step, memory, a disk that is full or read-only, a clock that jumps."""

import errno
import itertools
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advisor import pipeline
from advisor.training import OutOfMemory, train_runs
from advisor.workspace import open_workspace
from estimators.files import StorageFailed
from estimators.fine_tuning import Run, fine_tune
from estimators.recipe import Recipe
from studies.storage import StudyNotWritten
from tests.reliability.figures import note
from tests.reliability.tiny_project import numbers
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


def without_schema(stored: Any) -> Any:
    """What a run's file holds, as it is read back."""
    return {key: value for key, value in stored.items() if key != "schema"}
