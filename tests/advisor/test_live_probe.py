"""The running probe's curves: what the training loop traces is what a reader sees, while it is written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from advisor.live_probe import LIVE_NAME, LIVE_POINTS, LIVE_SECONDS, LiveWriter, read_live
from advisor.training import train_runs
from estimators.fine_tuning import Run
from estimators.recipe import Recipe
from tests.small_networks import small_objective, small_split

RECIPE = Recipe(learning_rate=0.01, batch_size=4, steps=500)
RUNS = (Run(task="a", recipe=RECIPE, seed=1), Run(task="b", recipe=RECIPE, seed=2))


class Clock:
    """Seconds that stand still until they are moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def steps(count: int) -> list[np.ndarray]:
    """[3, 2] a step: loss 1/k and displacement k of the first run; the second's loss is infinite from step 3 on."""
    return [np.array([[1 / k, np.inf if k >= 3 else 2.0], [0.5, 0.5], [k, 2 * k]]) for k in range(1, count + 1)]


def test_curves_grow_with_the_steps_and_diverged_runs_are_named(tmp_path: Path) -> None:
    clock = Clock()
    with LiveWriter(tmp_path, number=4, recipe=RECIPE, clock=clock) as live:
        assert read_live(tmp_path) is None
        live(RUNS, steps(2))
        early = read_live(tmp_path)
        assert early is not None
        assert [trace.steps.tolist() for trace in early.traces] == [[1, 2], [1, 2]]
        assert early.diverged == {}
        clock.now += LIVE_SECONDS
        live(RUNS, steps(300))
        later = read_live(tmp_path)
        assert later is not None
        assert (later.number, later.recipe) == (4, RECIPE)
        first, second = later.traces
        assert len(first.steps) == LIVE_POINTS
        assert (first.steps[0], first.steps[-1]) == (1, 300)
        assert first.losses == pytest.approx(1 / first.steps)
        assert second.squared_displacements == pytest.approx(2.0 * second.steps)
        assert np.isinf(second.losses[-1])
        assert later.diverged == {"b": "loss became inf at step 3"}
    assert list(tmp_path.iterdir()) == []  # its curves are in the log of probes now


def test_steps_between_two_seconds_are_not_written(tmp_path: Path) -> None:
    clock = Clock()
    with LiveWriter(tmp_path, number=0, recipe=RECIPE, clock=clock) as live:
        live(RUNS, steps(1))
        before = (tmp_path / LIVE_NAME).stat().st_mtime_ns, (tmp_path / LIVE_NAME).read_bytes()
        clock.now += 0.9 * LIVE_SECONDS
        live(RUNS, steps(50))
        assert ((tmp_path / LIVE_NAME).stat().st_mtime_ns, (tmp_path / LIVE_NAME).read_bytes()) == before


def test_tasks_trained_one_after_another_stay_together(tmp_path: Path) -> None:
    clock = Clock()
    with LiveWriter(tmp_path, number=0, recipe=RECIPE, clock=clock) as live:
        growing = steps(1)
        live(RUNS[:1], growing)
        growing += steps(9)[1:]  # the loop goes on tracing after the last write
        clock.now += LIVE_SECONDS
        live([RUNS[1]], steps(1))
        found = read_live(tmp_path)
        assert found is not None
        assert [(trace.task, int(trace.steps[-1])) for trace in found.traces] == [("a", 9), ("b", 1)]


def test_what_a_killed_probe_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / LIVE_NAME).write_text("rest of a killed one", encoding="utf-8")
    assert read_live(tmp_path) is None
    with LiveWriter(tmp_path, number=0, recipe=RECIPE):
        assert not (tmp_path / LIVE_NAME).exists()


def test_a_folder_that_takes_nothing_stops_no_work(tmp_path: Path) -> None:
    with LiveWriter(tmp_path / "gone", number=0, recipe=RECIPE) as live:
        live(RUNS, steps(3))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("limit", [1, 8])
def test_what_the_training_loop_shows_is_what_its_results_hold(tmp_path: Path, limit: int) -> None:
    recipe = Recipe(learning_rate=0.05, batch_size=8, steps=12)
    runs = [Run(task=name, recipe=recipe, seed=k) for k, name in enumerate("ab")]
    objective, split, clock = small_objective("cnn"), small_split(32), Clock()
    seen = []
    with LiveWriter(tmp_path, number=0, recipe=recipe, clock=clock) as live:

        def watcher(runs: Sequence[Run], traces: Sequence[np.ndarray]) -> None:
            clock.now += LIVE_SECONDS
            live(runs, traces)
            seen.append(read_live(tmp_path))

        groups = train_runs(
            dict.fromkeys("ab", objective), dict.fromkeys("ab", split), runs, stack_limit=limit, watcher=watcher
        )
        results = {result.run.task: result for group in groups for result in group}
    last = seen[-1]
    assert last is not None
    for trace in last.traces:
        assert trace.steps.tolist() == list(range(1, 13))
        assert trace.losses == pytest.approx(results[trace.task].losses, rel=1e-6)
        assert trace.squared_displacements == pytest.approx(results[trace.task].squared_displacements, rel=1e-6)
    lengths = [sum(len(trace.steps) for trace in found.traces) for found in seen if found is not None]
    assert lengths == sorted(lengths)
    assert lengths[0] == (1 if limit == 1 else 2)
