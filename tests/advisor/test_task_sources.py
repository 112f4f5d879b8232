import dataclasses
from pathlib import Path
from typing import Any

import pytest

from advisor import task_sources
from advisor.project import Project
from advisor.task_sources import changed_since, listing, open_catalogue, task_basis
from estimators.backbone_loading import BackboneSource
from estimators.timm_datasets import ReaderOptions
from tests.estimators.image_files import write_classes

SOURCE = BackboneSource(name="test_resnet", image_size=32, mean=(0.5,), std=(0.5,))


def project(origin: Path, task: Any, seed: int = 0) -> Project:
    return Project.from_mapping({"backbone": "test_resnet", "tasks": {"a": task}, "seed": seed}, origin=origin)


def test_each_prefix_goes_to_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path / "torch", {"rose": 3, "tulip": 3})
    asked: list[tuple[str, ReaderOptions]] = []
    monkeypatch.setattr(
        task_sources, "timm_catalogue", lambda data, options, **_: asked.append((data, options)) or "catalogue"
    )
    assert open_catalogue(project(tmp_path, "builtin/digits-low"), "a", image_size=8).origin == "builtin/digits-low"
    assert open_catalogue(project(tmp_path, "./torch"), "a", image_size=8).class_names == ("rose", "tulip")
    reader = {"root": "cache", "download": False, "validation": "val", "image_key": "img"}
    open_catalogue(project(tmp_path, {"data": "hfds/x/y", "reader": reader}), "a", image_size=8)
    ((data, options),) = asked
    assert data == "hfds/x/y"
    assert options == ReaderOptions(
        root=(tmp_path / "cache").resolve(),
        download=False,
        splits={"train": "train", "validation": "val"},
        image_key="img",
    )


def test_a_choice_of_classes_is_applied(tmp_path: Path) -> None:
    wanted = project(tmp_path, {"data": "builtin/digits-low", "classes": ["3", "1"]})
    assert open_catalogue(wanted, "a", image_size=8).class_names == ("3", "1")


def test_errors_name_the_task(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tasks.a: data='nowhere' does not exist"):
        open_catalogue(project(tmp_path, "nowhere"), "a", image_size=8)


def test_the_basis_changes_with_whatever_changes_the_samples(tmp_path: Path) -> None:
    task = {"data": "builtin/digits-low"}
    base = task_basis(project(tmp_path, task), "a", SOURCE)
    assert base == task_basis(project(tmp_path / "elsewhere", task), "a", SOURCE)
    assert base == task_basis(project(tmp_path, task), "a", dataclasses.replace(SOURCE, name="test_vit"))
    others = [
        task_basis(project(tmp_path, task, seed=1), "a", SOURCE),
        task_basis(project(tmp_path, task | {"limit": 50}), "a", SOURCE),
        task_basis(project(tmp_path, task), "a", dataclasses.replace(SOURCE, image_size=64)),
        task_basis(project(tmp_path, task), "a", dataclasses.replace(SOURCE, in_chans=1)),
    ]
    assert len({base, *others}) == 5


def test_a_changed_folder_is_noticed_and_other_sources_are_not_looked_at(tmp_path: Path) -> None:
    write_classes(tmp_path / "flowers", {"rose": 3, "tulip": 3})
    wanted = project(tmp_path, "flowers")
    record = {"image_size": 8, "listing": listing(open_catalogue(wanted, "a", image_size=8))}
    assert changed_since(wanted, "a", record) == []
    (tmp_path / "flowers" / "rose" / "000.png").unlink()
    (note,) = changed_since(wanted, "a", record)
    assert "task 'a': data='flowers' has changed since this run was made" in note
    assert changed_since(project(tmp_path, "builtin/digits-low"), "a", {"image_size": 8, "listing": "x"}) == []
    assert changed_since(project(tmp_path, "gone"), "a", record) == []
