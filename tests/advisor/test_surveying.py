from pathlib import Path

import pytest

from advisor.project import Project
from advisor.surveying import budget_units, survey
from tests.estimators.image_files import write_classes


def project(origin: Path, **changes: object) -> Project:
    data: dict[str, object] = {
        "backbone": {"name": "test_resnet", "image_size": 32},
        "tasks": {"low": "builtin/digits-low"},
        "device": "cpu",
    }
    return Project.from_mapping(data | changes, origin=origin)


def test_the_survey_counts_what_preparing_would_make_and_writes_nothing(tmp_path: Path) -> None:
    found = survey(project(tmp_path))
    low = found.tasks["low"]
    assert sum(low.classes.values()) == low.train + low.validation + low.test
    assert found.image_size == 32
    assert list(tmp_path.iterdir()) == []


def test_the_smaller_of_share_and_cost_is_the_budget(tmp_path: Path) -> None:
    assert budget_units(project(tmp_path, budget={"probe_share": 0.5})) == 0.5 * 640 * 32
    assert budget_units(project(tmp_path, budget={"max_cost": 100})) == 100
    assert budget_units(project(tmp_path, budget={"max_cost": 1e9})) == 0.25 * 640 * 32


def test_the_survey_refuses_what_preparing_would_refuse(tmp_path: Path) -> None:
    write_classes(tmp_path / "small", {"rose": 2, "tulip": 12})
    with pytest.raises(ValueError, match="tasks.small: .*class 'rose' has 2 images to cut into 3 splits"):
        survey(project(tmp_path, tasks={"small": "small"}))
    with pytest.raises(ValueError, match="search.batch_size=.*goes beyond"):
        survey(project(tmp_path, search={"batch_size": [8, 4096]}))
    with pytest.raises(ValueError, match="correct backbone.checkpoint"):
        survey(project(tmp_path, backbone={"name": "test_resnet", "checkpoint": "gone.pth"}))
    with pytest.raises(ValueError, match="must be auto, cpu"):
        survey(project(tmp_path), device="gpu")
