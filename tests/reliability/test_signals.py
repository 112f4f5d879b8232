"""SIGINT and SIGTERM stop within one training step, keep everything, say how to go on; going on changes nothing."""

import os
import random
import signal
from pathlib import Path

import pytest

from estimators.training_loop import TrainingLoop
from tests.reliability.figures import note
from tests.reliability.whole_path import WholePath, command

STEPLESS_SECONDS = 60.0  # far above what is measured; a guard against work that never asks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_not_one_training_step_is_done_after_a_signal(
    number: signal.Signals, whole: WholePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advisor import pipeline
    from advisor.interrupts import RunInterrupted
    from advisor.workspace import open_workspace

    steps, after = 0, 5 if number == signal.SIGINT else 11
    step = TrainingLoop.step

    def counted(self: TrainingLoop, k: int) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            os.kill(os.getpid(), number)
        step(self, k)

    ws = open_workspace(whole.folder / "project.yaml", tmp_path / "run")
    with ws.session("test"):
        pipeline.measure(ws)
        monkeypatch.setattr(TrainingLoop, "step", counted)
        with pytest.raises(RunInterrupted, match=f"stopped by {number.name}; everything done so far is kept"):
            pipeline.probe(ws)
    assert steps == after


@pytest.mark.slow
def test_signals_at_random_moments_keep_everything(whole: WholePath) -> None:
    chance = random.Random(4)
    slowest, signals = 0.0, 0
    out = "signalled"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT, None):
        kill = {} if number is None else {"kill_after": chance.uniform(0.1, 0.5) * whole.seconds, "with_signal": number}
        answer = command(whole.server, whole.folder, out, **kill)
        said = " ".join(answer["said"].split())
        if answer["status"] == 0:
            break
        assert number is not None
        if answer["status"] in (-number, -signal.SIGINT, 1) and not (whole.folder / out / "run.json").exists():
            continue  # it came before there was a run to keep
        assert answer["status"] == 130, said
        assert f"go on with: merge-advisor run {out}" in said
        slowest, signals = max(slowest, answer["seconds_after_signal"]), signals + 1
    assert whole.differing(whole.folder / out) == set()
    note("signals", signals)
    note("seconds from a signal to the end, slowest", round(slowest, 2))
    assert slowest < STEPLESS_SECONDS
