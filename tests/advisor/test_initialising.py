import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from advisor.initialising import draft, init
from advisor.project import load_project
from advisor.surveying import survey, survey_json
from tests.estimators.image_files import write_classes


def test_folders_become_a_commented_project_that_loads(tmp_path: Path) -> None:
    write_classes(tmp_path / "data" / "My Flowers!", {"rose": 20, "tulip": 20})
    for side in ("train", "val", "test"):
        write_classes(tmp_path / "data" / "more" / side, {"violet": 10, "daisy": 10})
    out = init([tmp_path / "data" / "My Flowers!", tmp_path / "data" / "more"], tmp_path / "project.yaml")
    project = load_project(out)
    assert {name: task.data for name, task in project.tasks.items()} == {
        "My-Flowers": "data/My Flowers!",
        "more": "data/more",
    }
    text = out.read_text()
    assert "40 images, 2 classes ('rose', 'tulip'), splits cut 70/15/15" in text
    assert "its own train, validation, test" in text
    assert project.search.batch_size == (8, 16)
    assert project.backbone.image_size == 32


def test_what_init_writes_passes_its_own_check(tmp_path: Path) -> None:
    write_classes(tmp_path / "flowers", {"rose": 20, "tulip": 13})
    out = init([tmp_path / "flowers", "builtin/digits-low"], tmp_path / "project.yaml")
    project = load_project(out)
    found = survey(project, device="cpu")
    assert found.tasks["flowers"].classes == {"rose": 20, "tulip": 13}
    assert sum((found.tasks["flowers"].train, found.tasks["flowers"].validation, found.tasks["flowers"].test)) == 33
    assert found.full_fine_tune == 2 * 640 * 32
    assert found.budget_units == pytest.approx(0.25 * 2 * 640 * 32)
    assert found.head_units == pytest.approx(sum(task.train for task in found.tasks.values()) / 3)
    assert survey_json(found)["tasks"]["digits-low"]["data"] == "builtin/digits-low"


def test_a_folder_of_tasks_becomes_a_task_each(tmp_path: Path) -> None:
    write_classes(tmp_path / "all" / "warm", {"rose": 12, "tulip": 12})
    write_classes(tmp_path / "all" / "cold" / "train", {"violet": 12, "daisy": 12})
    init([tmp_path / "all"], tmp_path / "project.yaml")
    project = load_project(tmp_path / "project.yaml")
    assert {name: task.data for name, task in project.tasks.items()} == {"cold": "all/cold", "warm": "all/warm"}


def test_equal_names_are_told_apart_and_far_folders_are_absolute(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_classes(tmp_path / place / "flowers", {"rose": 12, "tulip": 12})
    (tmp_path / "here").mkdir()
    init([tmp_path / "a" / "flowers", tmp_path / "b" / "flowers"], tmp_path / "here" / "p.yaml")
    project = load_project(tmp_path / "here" / "p.yaml")
    assert list(project.tasks) == ["flowers", "flowers-2"]
    assert Path(project.tasks["flowers-2"].data) == (tmp_path / "b" / "flowers").resolve()


def test_a_folder_named_like_a_prefix_is_still_found(tmp_path: Path) -> None:
    write_classes(tmp_path / "torch" / "flowers", {"rose": 12, "tulip": 12})
    init([tmp_path / "torch" / "flowers"], tmp_path / "p.yaml")
    project = load_project(tmp_path / "p.yaml")
    assert project.tasks["flowers"].data == "./torch/flowers"
    assert survey(project, device="cpu").tasks["flowers"].train > 0


def test_an_existing_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text("mine")
    with pytest.raises(ValueError, match="project.yaml' exists; choose another name with --out"):
        init(["builtin/digits-low"], tmp_path / "project.yaml")
    assert (tmp_path / "project.yaml").read_text() == "mine"
    init(["builtin/digits-low"], tmp_path / "project.yaml", overwrite=True)
    assert load_project(tmp_path / "project.yaml").tasks["digits-low"].data == "builtin/digits-low"


def test_folders_that_are_no_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folders=\[\] must name at least one"):
        draft([], tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        draft([tmp_path / "nowhere"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no class folder"):
        draft([tmp_path / "empty"], tmp_path)
    write_classes(tmp_path / "broken", {"rose": 2, "tulip": 2})
    for path in (tmp_path / "broken").rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match="none of the sampled images can be read"):
        draft([tmp_path / "broken"], tmp_path)


def test_names_cannot_smuggle_lines_into_the_file(tmp_path: Path) -> None:
    folder = tmp_path / 'flo"wers\nseed: 7'
    for name in ("ro\nse: 1", "tulip # x"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (40, 40), (i, 0, 0)).save(folder / name / f"{i}.png")
    init([folder], tmp_path / "p.yaml")
    project = load_project(tmp_path / "p.yaml")
    assert project.seed == 0
    assert survey(project, device="cpu").tasks[next(iter(project.tasks))].classes == {"ro\nse: 1": 12, "tulip # x": 12}


def test_looking_at_folders_needs_no_heavy_library(tmp_path: Path) -> None:
    write_classes(tmp_path / "flowers", {"rose": 12, "tulip": 12})
    code = (
        "import sys; from advisor.initialising import init\n"
        f"init([{str(tmp_path / 'flowers')!r}], {str(tmp_path / 'p.yaml')!r})\n"
        "print([m for m in ('torch', 'optuna', 'timm', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
