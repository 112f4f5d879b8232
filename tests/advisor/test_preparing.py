import copy
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from advisor import preparing
from advisor.preparing import OtherProject, Prepared, prepare
from advisor.project import Project
from estimators.backbone_loading import BackboneSource, build_backbone
from estimators.cost import CostMeter
from estimators.files import StorageFailed
from estimators.heads import initial_features
from estimators.splits import data_path, open_test
from tests.estimators.image_files import write_classes

BASE: dict[str, Any] = {
    "backbone": {"name": "test_resnet", "in_chans": 1, "image_size": 32},
    "tasks": {
        "low": {"data": "builtin/digits-low", "limit": 60},
        "rotated": {"data": "builtin/digits-rotated", "limit": 90},
    },
    "search": {"batch_size": [4, 16]},
    "device": "cpu",
}


def project(origin: Path | str = ".", **changes: Any) -> Project:
    data = copy.deepcopy(BASE)
    for place, value in changes.items():
        *owners, last = place.split("__")
        owner = data
        for key in owners:
            owner = owner.setdefault(key, {})
        owner[last] = value
    return Project.from_mapping(data, origin=origin)


def prepared(run: Path, wanted: Project | None = None, **options: Any) -> tuple[Prepared, CostMeter]:
    meter = CostMeter()
    return prepare(wanted or project(), run, meter=meter, **options), meter


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    prepared(run)
    return run


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def same(first: Prepared, second: Prepared) -> bool:
    return (
        first.fingerprint == second.fingerprint
        and torch.equal(first.backbone.initial, second.backbone.initial)
        and all(
            torch.equal(a.train.inputs, b.train.inputs)
            and torch.equal(a.train.labels, b.train.labels)
            and torch.equal(a.validation.inputs, b.validation.inputs)
            and torch.equal(a.fitted_head().flat(), b.fitted_head().flat())
            for a, b in zip(first.tasks, second.tasks, strict=True)
        )
    )


def contents(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def test_a_project_becomes_backbone_tasks_and_heads(tmp_path: Path) -> None:
    found, meter = prepared(tmp_path)
    assert [task.name for task in found.tasks] == ["low", "rotated"]
    assert [task.num_classes for task in found.tasks] == [5, 10]
    assert found.image_size == 32
    for task in found.tasks:
        assert task.train.inputs.shape[1:] == (1, 32, 32)
        features = initial_features(found.backbone, task.train.inputs)
        predicted = (features @ task.fitted_head().weight.T + task.fitted_head().bias).argmax(1)
        assert float((predicted == task.train.labels).float().mean()) == pytest.approx(
            found.heads[task.name].train_accuracy
        )
    samples = sum(len(task.train) for task in found.tasks)
    assert meter.by_purpose() == {"heads": pytest.approx(samples / 3)}
    assert any("starts from random weights" in note for note in found.notes)


def test_a_second_call_reads_the_run_and_costs_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, spent = prepared(tmp_path)
    before = contents(tmp_path)
    for name in ("build_backbone", "split_catalogue", "store_task", "fit_head"):
        monkeypatch.setattr(preparing, name, lambda *_, **__: pytest.fail("made again"))
    second, again = prepared(tmp_path)
    assert same(first, second)
    assert second.notes == first.notes
    assert again.by_purpose() == spent.by_purpose()
    assert contents(tmp_path) == before


def test_two_runs_of_one_project_are_byte_for_byte_the_same(run: Path, tmp_path: Path) -> None:
    prepared(tmp_path / "other")
    assert contents(tmp_path / "other") == contents(run)


def test_the_order_of_tasks_changes_nothing_in_them(run: Path, tmp_path: Path) -> None:
    turned = project(tasks=dict(reversed(BASE["tasks"].items())))
    first, second = prepared(run)[0], prepared(tmp_path / "other", turned)[0]
    low = [next(task for task in found.tasks if task.name == "low") for found in (first, second)]
    assert torch.equal(low[0].train.inputs, low[1].train.inputs)
    assert torch.equal(low[0].fitted_head().flat(), low[1].fitted_head().flat())


DAMAGED = ["backbone.safetensors", "backbone.json", "splits.json", "data/low-train.safetensors"]
DAMAGED += ["data/rotated-validation.safetensors", "heads/low.safetensors"]


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("damage", ["truncated", "gone", "flipped"])
def test_a_damaged_piece_is_made_again_the_same_and_the_rest_is_kept(run: Path, name: str, damage: str) -> None:
    before = contents(run)
    path = run / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0xFF if damage == "flipped" else 0
        path.write_bytes(data[: len(data) - (7 if damage == "truncated" else 0)])
    second, _ = prepared(run)
    assert contents(run) == before
    assert same(second, prepared(run)[0])
    if damage != "gone":
        assert any(Path(name).name in text for text in second.mended), second.mended
        assert second.notes == prepared(run)[0].notes


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"backbone__image_size": 64}, {"tasks__low__limit": 70}, {"tasks__more": "builtin/digits-odd"}],
)
def test_a_run_of_another_project_is_refused_by_name(run: Path, changes: dict[str, Any]) -> None:
    before = contents(run)
    with pytest.raises(OtherProject, match="was made from another project .*choose another --out"):
        prepared(run, project(**changes))
    assert contents(run) == before


def test_what_an_unfinished_other_project_left_is_not_taken_over(run: Path, tmp_path: Path) -> None:
    (run / "prepared.json").unlink()  # killed before it was done
    other = project(seed=1, tasks__low__data="builtin/digits-high", backbone__frozen=["conv1"])
    mixed, fresh = prepared(run, other)[0], prepared(tmp_path / "fresh", other)[0]
    assert same(mixed, fresh)
    for name in ("splits.json", "heads/low.safetensors", "backbone.json"):
        assert (run / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_search_and_budget_may_change_on_a_run(run: Path) -> None:
    first, _ = prepared(run)
    second, _ = prepared(run, project(search__steps=[5, 50], budget__probe_share=0.1, objective__goal="worst"))
    assert same(first, second)


def test_a_checkpoint_that_changed_since_is_refused_when_it_is_needed_again(tmp_path: Path) -> None:
    source = BackboneSource(name="test_resnet", in_chans=1, image_size=32, seed=1)
    for seed in (1, 2):
        backbone, _ = build_backbone(
            source if seed == 1 else BackboneSource(name="test_resnet", in_chans=1, image_size=32, seed=2)
        )
        save_file(backbone.state_dict(backbone.initial), tmp_path / "base.safetensors")
        wanted = project(tmp_path, backbone__checkpoint="base.safetensors")
        if seed == 1:
            first, _ = prepared(tmp_path / "run", wanted)
    assert same(first, prepared(tmp_path / "run", wanted)[0])
    (tmp_path / "run" / "backbone.safetensors").unlink()
    with pytest.raises(OtherProject, match="rests on other backbone weights than their source holds now"):
        prepared(tmp_path / "run", wanted)


def flowers(tmp_path: Path) -> Project:
    write_classes(tmp_path / "data" / "flowers", {"rose": 14, "tulip": 12})
    write_classes(tmp_path / "data" / "more" / "train", {"violet": 12, "daisy": 12})
    write_classes(tmp_path / "data" / "more" / "test", {"violet": 4, "daisy": 4}, seed=9)
    return project(
        tmp_path,
        backbone={"name": "test_resnet", "image_size": 32},
        tasks={"flowers": "data/flowers", "more": "data/more"},
    )


def test_folders_relative_to_the_project_file_are_prepared(tmp_path: Path) -> None:
    found, _ = prepared(tmp_path / "run", flowers(tmp_path))
    assert found.tasks[0].class_names == ("rose", "tulip")
    assert found.tasks[0].train.inputs.shape[1:] == (3, 32, 32)
    record = json.loads((tmp_path / "run" / "splits.json").read_text())["tasks"]["more"]
    assert all(name.startswith("test/") for name in record["samples"]["test"])
    assert all(name.startswith("train/") for name in record["samples"]["validation"])


def test_a_run_lives_on_when_its_data_are_gone_and_says_when_they_changed(tmp_path: Path) -> None:
    wanted = flowers(tmp_path)
    first, _ = prepared(tmp_path / "run", wanted)
    write_classes(tmp_path / "data" / "flowers", {"rose": 16})
    changed, _ = prepared(tmp_path / "run", wanted)
    assert same(first, changed)
    assert any("data='data/flowers' has changed since" in note for note in changed.notes)
    shutil.rmtree(tmp_path / "data")
    assert same(first, prepared(tmp_path / "run", wanted)[0])


def test_damaged_samples_whose_source_changed_cannot_be_restored(tmp_path: Path) -> None:
    wanted = flowers(tmp_path)
    prepared(tmp_path / "run", wanted)
    data_path(tmp_path / "run", "flowers", "train").unlink()
    write_classes(tmp_path / "data" / "flowers", {"rose": 20})
    with pytest.raises(OtherProject, match="samples of task 'flowers' are damaged there and their source has changed"):
        prepared(tmp_path / "run", wanted)


def test_unreadable_images_stop_or_are_left_out_as_told(tmp_path: Path) -> None:
    wanted = flowers(tmp_path)
    (tmp_path / "data" / "flowers" / "rose" / "003.png").write_bytes(b"x")
    with pytest.raises(
        ValueError, match="tasks.flowers: data='data/flowers': 1 of 26 images cannot be read: rose/003.png"
    ):
        prepared(tmp_path / "run", wanted)
    assert not (tmp_path / "run" / "data").exists()
    for _ in range(2):  # the caveat stays when the run goes on
        found, _ = prepared(tmp_path / "run", wanted, allow_unreadable=True)
        assert any("1 unreadable images were left out (rose/003.png)" in note for note in found.notes)


def test_tasks_that_share_images_carry_a_note(tmp_path: Path) -> None:
    wanted = project(
        tasks={"low": {"data": "builtin/digits-low"}, "even": {"data": "builtin/digits-even", "limit": 30}}
    )
    assert any("tasks 'low' and 'even' share" in note for note in prepared(tmp_path, wanted)[0].notes)


def test_test_data_stay_closed_until_they_are_opened(run: Path) -> None:
    found, _ = prepared(run)
    assert not (run / "test_openings.jsonl").exists()
    test = open_test(run, "low", reader="validation")
    seen = {
        bytes(image.numpy().tobytes())
        for task in found.tasks
        for s in (task.train, task.validation)
        for image in s.inputs
    }
    fresh = [bytes(image.numpy().tobytes()) not in seen for image in test.inputs]
    assert all(fresh)
    assert (run / "test_openings.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"search__batch_size": [8, 128]},
            r"search.batch_size=\[8, 128\] goes beyond the \d+ training samples of task 'low'",
        ),
        ({"tasks__low__data": "nowhere"}, "tasks.low: data='nowhere' does not exist"),
        ({"tasks__low__data": "builtin/digits-lo"}, "tasks.low: .*did you mean 'builtin/digits-low'"),
        ({"tasks__low__classes": ["0", "7"]}, "tasks.low: classes='7' is no class"),
        ({"tasks__low__limit": 9}, "tasks.low: limit=9 is below 15"),
        ({"backbone__name": "test_resnt"}, "backbone.name='test_resnt' is no timm model; did you mean test_resnet"),
        ({"backbone__checkpoint": "gone.pth"}, "gone.pth' does not exist; correct backbone.checkpoint"),
        ({"backbone__frozen": ["nothing"]}, "frozen='nothing' matches no parameter"),
        ({"device": "cuda:99"}, "device='cuda:99': this machine has"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        prepared(tmp_path / "run", project(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_afterwards(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    for allowed in range(0, 24, 3):
        left = allowed

        def full(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        try:
            prepared(tmp_path / "run")
        except StorageFailed as error:
            assert "free some space" in str(error)  # noqa: PT017
        assert not list((tmp_path / "run").rglob("*.tmp"))
    monkeypatch.setattr(os, "fsync", real)
    prepared(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole_run)
