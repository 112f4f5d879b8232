"""Long trainings that are killed go on from their last snapshot: in probes, experts and the comparison alike."""

import json
import random
import shutil
from pathlib import Path

import pytest

from advisor.run_listing import summarise
from tests.reliability.figures import note
from tests.reliability.test_kill_and_go_on import check_after_kill, check_done
from tests.reliability.whole_path import WholePath, command


def events(out: Path, kind: str) -> list[dict[str, object]]:
    """Events of a kind, in order."""
    lines = (out / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def kill_in_steps(whole: WholePath, out: str, shares: tuple[float, ...]) -> None:
    """With a snapshot after every step, all lives together do as many steps as one, whatever stage a kill hits."""
    done, kills, stages = 0, 0, set()
    for share in shares:
        answer = command(whole.server, whole.folder, out, snapshots=0.0, kill_at_step=int(share * whole.steps) - done)
        assert answer["status"] == -9, answer["said"]
        done, kills = done + answer["steps"], kills + 1
        stages |= {path.name.split("-")[0] for path in (whole.folder / out / "unfinished").iterdir()}
        check_after_kill(whole.folder / out)
    answer = command(whole.server, whole.folder, out)
    assert answer["status"] == 0, answer["said"]
    assert done + answer["steps"] == whole.steps  # a step that a kill hit was not done: none was done twice
    assert {str(event["what"]).split()[0] for event in events(whole.folder / out, "taken_up")} == stages
    assert "taken up where it was cut off" in answer["said"]
    check_done(whole, out)
    assert {"range", "probe", "validation"} <= stages
    note("kills inside training steps", kills)
    note("training steps of the whole path", whole.steps)


def test_no_kill_repeats_more_than_the_step_it_hit(whole: WholePath) -> None:
    kill_in_steps(whole, "killed-in-three-steps", (0.03, 0.12, 0.8))


@pytest.mark.slow
def test_none_of_sixteen_kills_repeats_more_than_the_step_it_hit(whole: WholePath) -> None:
    chance = random.Random(11)
    shares = sorted(chance.uniform(0.02, 0.99) for _ in range(16))
    kill_in_steps(whole, "killed-in-sixteen-steps", tuple(shares))


@pytest.mark.slow
def test_a_damaged_snapshot_is_named_and_its_piece_made_again_the_same(whole: WholePath) -> None:
    out = "killed-and-damaged"
    answer = command(whole.server, whole.folder, out, snapshots=0.0, kill_at_step=whole.steps // 2)
    assert answer["status"] == -9
    files = sorted((whole.folder / out / "unfinished").rglob("*.safetensors"))
    assert files
    hit = {}
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :])
        hit[path.name] = path
    answer = command(whole.server, whole.folder, out)
    assert answer["status"] == 0, answer["said"]
    told = " ".join(answer["said"].split())
    assert any(name in told for name in hit), told
    assert "is damaged" in told
    check_done(whole, out)


@pytest.mark.slow
def test_a_lost_folder_of_unfinished_work_costs_only_that_work(whole: WholePath) -> None:
    out = "killed-and-lost"
    command(whole.server, whole.folder, out, snapshots=0.0, kill_at_step=whole.steps * 2 // 3)
    there = summarise(whole.folder / out).stages
    shutil.rmtree(whole.folder / out / "unfinished")
    answer = command(whole.server, whole.folder, out)
    assert answer["status"] == 0, answer["said"]
    assert all(stage in answer["said"] for stage in there)
    check_done(whole, out)
