"""Two hundred short rounds of advice and validation in one process leave nothing behind: memory, files, threads."""

import gc
import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from advisor import baselines, pipeline, recommending, validating
from advisor.workspace import open_workspace
from estimators import snapshot_folder
from estimators.recipe import Recipe
from tests.reliability.figures import note
from tests.reliability.whole_path import WholePath

ROUNDS, WARM_UP = 200, 20
GROWTH = 1.05
AGAIN = ("recommendation.json", "risk_model.json", "studies.json", "study.journal", "validation.json")


def resident_megabytes() -> float:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_things() -> tuple[int, int, int]:
    """Open files, threads and child processes."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(children)


def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a round does, less often: one default, a few steps, a small study."""
    defaults, jointly, search = baselines.default_recipes, baselines.train_jointly, recommending.search_recipes

    def one_default(*arguments: Any, **options: Any) -> dict[str, Recipe]:
        name, recipe = next(iter(defaults(*arguments, **options).items()))
        return {name: recipe.replace(steps=min(recipe.steps, 6))}

    def briefly(*arguments: Any, affordable: float, **options: Any) -> baselines.Contender:
        return jointly(*arguments, affordable=affordable / 8, **options)

    monkeypatch.setattr(validating, "default_recipes", one_default)
    monkeypatch.setattr(validating, "train_jointly", briefly)
    monkeypatch.setattr(recommending, "search_recipes", partial(search, trials=16, batch=8, sweep=256))


@pytest.mark.slow
def test_two_hundred_rounds_leave_nothing_behind(
    whole: WholePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    short_rounds(monkeypatch)
    monkeypatch.setattr(baselines, "LAMBDA_GRID", (0.3, 1.0))
    monkeypatch.setattr(snapshot_folder, "SECONDS", 0.2)  # so that short rounds write snapshots, too
    monkeypatch.setattr(snapshot_folder, "LONGEST", 0.2)
    memory: list[float] = []
    things = open_things()
    advice, base = None, whole.run
    for round_ in range(ROUNDS):
        out = tmp_path / "run"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(base, out)
        for name in AGAIN:
            (out / name).unlink(missing_ok=True)
        ws = open_workspace(out)
        with ws.session("soak"):
            found = pipeline.recommend(ws).to_json()["plan"]
            pipeline.validate(ws)
        if advice is None:  # later rounds find the experts of their own, smaller study
            advice, base = found, Path(shutil.copytree(out, tmp_path / "base"))
        assert found == advice
        del ws
        gc.collect()
        memory.append(resident_megabytes())
        note("soak rounds done", round_ + 1)
        note("soak memory now, MiB", round(memory[-1], 1))
        if round_ == WARM_UP:
            things = open_things()
    first, last = max(memory[WARM_UP : 2 * WARM_UP]), max(memory[-WARM_UP:])
    note("soak memory after 20 to 40 rounds, MiB", round(first, 1))
    note("soak memory in the last 20 rounds, MiB", round(last, 1))
    assert last <= GROWTH * first, memory[:: ROUNDS // 20]
    assert open_things() == things
