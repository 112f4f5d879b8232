"""Drafting, looking over and saving projects."""

import io
from pathlib import Path

import pytest
from PIL import Image

from advisor.project import Project
from advisor.setting_up import builtin_choices, drafted, look_over, sample_images, save_project
from advisor.yaml_reading import parse_yaml

CHANGES = {"backbone": {"name": "test_resnet", "pretrained": False, "in_chans": 1, "image_size": 16}}
LOW = "builtin/digits-low"


def test_form_changes_the_draft_and_nothing_else(tmp_path: Path) -> None:
    text = drafted([LOW, "builtin/digits-high"], tmp_path, {**CHANGES, "budget": {"time_limit": "30m"}})
    project = Project.from_mapping(parse_yaml(text, "x"), origin=tmp_path)
    assert project.backbone.name == "test_resnet"
    assert not project.backbone.pretrained
    assert project.budget.time_limit == 1800
    assert [task.data for task in project.tasks.values()] == [LOW, "builtin/digits-high"]


def test_project_is_looked_over_with_counts_and_cost(tmp_path: Path) -> None:
    found = look_over(drafted([LOW], tmp_path, CHANGES), tmp_path)
    assert found.problem == ""
    assert found.survey is not None
    assert found.planned is not None
    assert len(next(iter(found.survey.tasks.values())).classes) == 5
    assert found.planned.units > 0


def test_problem_is_said_not_raised(tmp_path: Path) -> None:
    assert "nothing" in look_over("backbone: resnet18\ntasks: {a: nothing}\n", tmp_path).problem
    assert look_over("{", tmp_path).project is None


def test_samples_show_every_class_once_before_any_twice(tmp_path: Path) -> None:
    project = look_over(drafted([LOW], tmp_path, CHANGES), tmp_path).project
    assert project is not None
    samples = sample_images(project, next(iter(project.tasks)), image_size=16, most=5)
    assert len({sample.label for sample in samples}) == 5
    with Image.open(io.BytesIO(samples[0].png)) as image:
        assert image.width == 96


def test_saved_project_never_replaces_another(tmp_path: Path) -> None:
    first = save_project("a: 1\n", tmp_path, "../My project")
    second = save_project("a: 2\n", tmp_path, "../My project")
    assert first.parent == second.parent == tmp_path / "projects"
    assert first.read_text(encoding="utf-8") == "a: 1\n"
    assert save_project("a: 1\n", tmp_path, "../My project") == first
    assert first != second


def test_built_in_choices_leave_the_pre_training_pool_out() -> None:
    assert LOW in builtin_choices()
    assert "builtin/digits-pretrain" not in builtin_choices()


def test_weights_by_default_are_a_pretrained_draft(tmp_path: Path) -> None:
    text = drafted([LOW], tmp_path, {"backbone": {"checkpoint": None, "pretrained": True}})
    assert Project.from_mapping(parse_yaml(text, "x"), origin=tmp_path).backbone.pretrained
    with pytest.raises(ValueError, match="exclude each other"):
        drafted([LOW], tmp_path, {"backbone": {"checkpoint": "x.safetensors", "pretrained": True}})
