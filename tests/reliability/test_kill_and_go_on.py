"""SIGKILL at any moment of the whole path, then the same command again: the same results, to the last bit.

Half of the kills come at a random time, half at a random change of the file system (open for writing, rename, removal),
where a half-written file could be left.  A run is killed again and again until it comes through.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from advisor.run_listing import summarise
from advisor.run_lock import LOCK_NAME
from advisor.runs import RunDirectory
from tests.reliability.figures import note
from tests.reliability.whole_path import WholePath, command, file_names


def check_after_kill(out: Path) -> None:
    """What a kill leaves: every file whole, nobody's lock, and a state that a reader understands."""
    if not (out / "run.json").exists():
        return  # killed before there was a run
    run = RunDirectory.open(out)
    assert run.damaged() == ()
    assert run.writer() is None
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    assert summarise(out).state in ("new", "interrupted", "finished")


def kill_until_done(whole: WholePath, out: str, chance: random.Random, at_most: int) -> tuple[int, float]:
    """Kill a run until it comes through, ``at_most`` times; returns kills and seconds spent in all."""
    kills, seconds = 0, 0.0
    while True:
        there = summarise(whole.folder / out).stages if (whole.folder / out / "run.json").exists() else ()
        kill: dict[str, Any] = {}
        if kills < at_most:
            share = 0.5 * chance.random()
            if chance.random() < 0.5:
                kill = {"kill_after": share * whole.seconds}
            else:
                kill = {"kill_at_write": 1 + int(share * whole.writes)}
        answer = command(whole.server, whole.folder, out, **kill)
        seconds += answer["seconds"]
        if answer["status"] != -9:
            break
        kills += 1
        check_after_kill(whole.folder / out)
    assert answer["status"] == 0, answer["said"]
    if there:
        assert "Already there" in answer["said"]
        assert all(stage in answer["said"] for stage in there)
    return kills, seconds


def check_done(whole: WholePath, out: str) -> None:
    """The same results as the uninterrupted run, the same files, and nothing left of the killed processes."""
    assert whole.differing(whole.folder / out) == set()
    extra = file_names(whole.folder / out) ^ file_names(whole.run)
    # the study keeps a copy of a journal it mended, and removes lock files only once nobody can be using them
    assert {name for name in extra if not re.match(r"study\.journal\.(damaged-|lock.*\.rename)", name)} == set()
    assert not (whole.folder / out / LOCK_NAME).exists()


def kill_many(whole: WholePath, total: int, seed: int) -> None:
    chance = random.Random(seed)
    kills, lives, again = 0, 0, 0.0
    while kills < total:
        out = f"killed-{seed}-{lives}"
        more, seconds = kill_until_done(whole, out, chance, total - kills)
        if more:
            again = max(again, (seconds - whole.seconds) / more)
        check_done(whole, out)
        kills, lives = kills + more, lives + 1
    note("kills", kills)
    note("runs killed", lives)
    note("changes of the file system a run", whole.writes)
    note("seconds of the whole path", round(whole.seconds, 1))
    note("seconds again a kill, worst run", round(again, 1))
    assert kills == total


def test_five_kills_at_random_moments_change_nothing(whole: WholePath) -> None:
    kill_many(whole, 5, seed=1)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing(whole: WholePath) -> None:
    kill_many(whole, 50, seed=2)
