"""Projects of texts, as far as neither transformers nor tokenizers is needed."""

import hashlib
import json
from pathlib import Path

import pytest

from advisor.initialising import init
from advisor.project import Project, load_project
from advisor.setting_up import drafted
from advisor.task_sources import changed_since, listing, open_catalogue
from advisor.yaml_reading import parse_yaml
from tests.estimators.image_files import write_classes
from tests.small_encoders import write_table

ENCODER = {"kind": "transformers", "name": "encoder"}


def project(origin: Path, **changes: object) -> Project:
    return Project.from_mapping({"backbone": ENCODER, "tasks": {"a": "a.jsonl"}} | changes, origin=origin)


def test_tables_and_folders_of_them_become_a_project_of_texts(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for seed, name in enumerate(("here", "there")):
        write_table(tmp_path / "all" / f"{name}.jsonl", seed)
    topics = tmp_path / "topics"
    topics.mkdir()
    for name in ("sport", "news"):
        (topics / f"{name}.txt").write_text("\n".join(f"{name} number {n}" for n in range(30)))
    out = init([tmp_path / "all", topics], tmp_path / "project.yaml")
    found = load_project(out)
    assert {name: task.data for name, task in found.tasks.items()} == {
        "here": "all/here.jsonl",
        "there": "all/there.jsonl",
        "topics": "topics",
    }
    assert found.backbone.kind == "transformers"
    assert found.backbone.max_length == 16
    assert "80 texts, 2 classes ('cat', 'dog'), splits cut 70/15/15" in out.read_text()
    assert open_catalogue(found, "topics").counts() == {"news": 30, "sport": 30}


def test_images_and_texts_are_not_mixed(tmp_path: Path) -> None:
    write_table(tmp_path / "a.jsonl", 0)
    write_classes(tmp_path / "flowers", {"rose": 12, "tulip": 12})
    with pytest.raises(ValueError, match=r"data='flowers' holds images and data='a.jsonl' texts.*make two projects"):
        init([tmp_path / "flowers", tmp_path / "a.jsonl"], tmp_path / "project.yaml")


@pytest.mark.parametrize(
    ("form", "name", "pretrained"),
    [
        ({"name": "resnet18", "pretrained": True, "in_chans": 3}, "sentence-transformers/all-MiniLM-L6-v2", True),
        ({"name": "owner/model", "pretrained": True, "image_size": 32}, "owner/model", True),
        ({"name": "my/folder", "pretrained": False}, "my/folder", False),
        ({"name": "resnet18", "pretrained": False, "checkpoint": "/weights"}, "/weights", False),
    ],
)
def test_a_form_made_for_images_drafts_texts(tmp_path: Path, form: dict, name: str, pretrained: bool) -> None:
    table = write_table(tmp_path / "a.jsonl", 0)
    text = drafted([str(table)], tmp_path, {"backbone": form, "search": {"steps": [20, 40]}})
    found = Project.from_mapping(parse_yaml(text, "x"), origin=tmp_path)
    assert (found.backbone.name, found.backbone.pretrained) == (name, pretrained)
    assert found.search.steps == (20, 40)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (ENCODER | {"image_size": 32}, "image_size belongs to kind: timm; remove it"),
        (ENCODER | {"checkpoint": "a.safetensors"}, "checkpoint belongs to kind: timm; remove it"),
        ({"name": "resnet18", "max_length": 32}, "max_length belongs to kind: transformers; remove it"),
        (ENCODER | {"kind": "keras"}, "backbone.kind"),
        (ENCODER | {"max_length": 1}, "max_length=1 must be"),
    ],
)
def test_keys_of_the_other_kind_are_refused(tmp_path: Path, backbone: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        project(tmp_path, backbone=backbone)


def test_columns_are_named_by_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,stars\ngood,5\nbad,1\n")
    task = {"data": "a.csv", "reader": {"text_key": "review", "label_key": "stars"}}
    assert open_catalogue(project(tmp_path, tasks={"a": task}), "a").class_names == ("1", "5")
    with pytest.raises(ValueError, match=r"tasks.a: data='a.csv': a.csv:2 has no column 'text' but review, stars"):
        open_catalogue(project(tmp_path, tasks={"a": "a.csv"}), "a")


def test_changed_texts_are_noticed_in_any_order(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.jsonl", 0)
    wanted = project(tmp_path)
    record = {"listing": listing(open_catalogue(wanted, "a"))}
    assert changed_since(wanted, "a", record) == []
    table.write_text(table.read_text().replace("always", "never", 1))
    assert "has changed since" in changed_since(wanted, "a", record)[0]


def test_projects_of_images_keep_the_hash_they_had_before_there_were_texts(tmp_path: Path) -> None:
    images = Project.from_mapping({"backbone": "resnet18", "tasks": {"a": "flowers"}}, origin=tmp_path)
    plain = images.model_dump(mode="json", include={"backbone", "tasks", "seed"})
    for key in ("kind", "max_length"):
        del plain["backbone"][key]
    del plain["tasks"]["a"]["reader"]["text_key"]
    assert images.content_hash() == hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    assert project(tmp_path).content_hash() != project(tmp_path, backbone=ENCODER | {"max_length": 9}).content_hash()
