"""Every file of a finished run, cut off, emptied or with a flipped bit: named, made again the same, the rest kept."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.whole_path import WholePath, command, results

# The contract with other processes, what is only told, and the study, which nothing rests on once there is advice.
TOLD = {"events.jsonl", "heartbeat", "test_openings.jsonl", "study.journal"}
KEY_FILES = (
    "probes.jsonl",
    "backbone.safetensors",
    "recommendation.json",
    "experts/low.safetensors",
    "manifest.json",
    "splits.json",
    "data/low-train.safetensors",
    "heads/high.safetensors",
)
ALL_FILES = (
    *KEY_FILES,
    "backbone.json",
    "constants.json",
    "data/high-test.safetensors",
    "data/low-validation.safetensors",
    "experts.json",
    "experts/high-head.safetensors",
    "experts/low.md",
    "experts/low-record.json",
    "heads.json",
    "merged/README.md",
    "merged/model.safetensors",
    "prepared.json",
    "probe_data.json",
    "project.yaml",
    "range_test.json",
    "report.html",
    "report.json",
    "report.md",
    "risk_model.json",
    "run.json",
    "studies.json",
    "validation.json",
    *sorted(TOLD),
)


def flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(7))]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": flipped,
    "truncated": lambda data, chance: data[: chance.randrange(1, len(data))],
    "emptied": lambda data, chance: b"",
}


def damage_and_run(whole: WholePath, name: str, how: str, seed: int) -> None:
    out = whole.folder / "copy"  # the folder's name must not tell what is asked for
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole.run, out)
    chance = random.Random(f"{name}|{how}|{seed}")
    path = out / name
    before = path.read_bytes()
    path.write_bytes(DAMAGES[how](before, chance))
    logged = (out / "events.jsonl").read_bytes() if name != "events.jsonl" else b""
    kept = {other: stamp(other) for other in (out / "experts").iterdir() if other.stem[:3] != path.stem[:3]}
    answer = command(whole.server, whole.folder, out.name)
    said = " ".join(answer["said"].split())
    assert "Traceback" not in said
    assert answer["status"] == 0, said
    assert whole.differing(out) == set(), said
    if name not in TOLD and (name, how) != ("manifest.json", "flipped"):  # that names the artefact whose sum it hit
        told = said + (out / "events.jsonl").read_bytes()[len(logged) :].decode(errors="replace")
        assert Path(name).name in told, f"{name} is not named: {told}"
    assert {other: stamp(other) for other in kept} == kept


def stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size


@pytest.mark.parametrize("name", KEY_FILES[:6])
def test_a_flipped_bit_in_a_file_that_others_rest_on_is_named_and_mended(whole: WholePath, name: str) -> None:
    damage_and_run(whole, name, "flipped", 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ALL_FILES)
def test_any_damage_to_any_file_is_named_and_mended(whole: WholePath, name: str, how: str) -> None:
    damage_and_run(whole, name, how, 1)


def test_every_file_of_a_run_is_tried(whole: WholePath) -> None:
    found = {path.relative_to(whole.run).as_posix() for path in whole.run.rglob("*") if path.is_file()}
    assert {name.split("/")[0] for name in found} == {name.split("/")[0] for name in ALL_FILES}
    assert set(ALL_FILES) <= found


@pytest.mark.parametrize(
    "how", [how if how == "flipped" else pytest.param(how, marks=pytest.mark.slow) for how in DAMAGES]
)
def test_a_damaged_study_file_is_named_and_the_same_plan_found(whole: WholePath, how: str) -> None:
    out = whole.folder / "copy"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole.run, out)
    journal = out / "study.journal"
    journal.write_bytes(DAMAGES[how](journal.read_bytes(), random.Random(how)))
    (out / "recommendation.json").unlink()
    answer = whole.server.order(whole.folder, "recommend", "copy")
    if answer["status"] == 2:  # the damaged line is one on which all others rest
        said = " ".join(answer["said"].split())
        assert re.search("study.journal .*; move (it|the file) away and run again", said), said
        journal.unlink()
        answer = whole.server.order(whole.folder, "recommend", "copy")
    assert answer["status"] in (0, 3), answer["said"]  # 3: the advice of so small a project may be a refusal
    found, kept = results(out)["recommendation"], whole.results["recommendation"]
    assert found.pop("caveats") != [] or how == "emptied"
    assert {key: value for key, value in found.items() if value != kept[key]} == {}
