import os
from pathlib import Path

import pytest

from estimators.image_folders import folder_catalogue
from tests.estimators.image_files import write_classes, write_images


def test_class_folders_become_a_catalogue(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 3, "tulip": 2})
    found = folder_catalogue(tmp_path, origin="data/flowers")
    assert found.class_names == ("rose", "tulip")
    assert found.counts() == {"rose": 3, "tulip": 2}
    assert set(found.sides) == {""}
    assert found.names[0] == "rose/000.png"
    with found.open_sample(4) as image:
        assert image.size == (28, 24)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_given_split_folders_are_respected_under_each_usual_name(tmp_path: Path, name: str) -> None:
    for side, count in (("train", 4), (name, 2), ("test", 3)):
        write_classes(tmp_path / side, {"rose": count, "tulip": count})
    found = folder_catalogue(tmp_path)
    assert [found.sides.count(side) for side in ("train", "validation", "test")] == [8, 4, 6]
    assert f"{name}/rose/000.png" in found.names


def test_images_in_deeper_folders_and_upper_case_endings_count(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 2, "tulip": 2})
    write_images(tmp_path / "rose" / "more", 1, colour=(1, 2, 3))
    (tmp_path / "rose" / "000.png").rename(tmp_path / "rose" / "x.PNG")
    assert folder_catalogue(tmp_path).counts() == {"rose": 3, "tulip": 2}


def test_other_files_are_counted_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 2, "tulip": 2})
    (tmp_path / "rose" / "notes.txt").write_text("x")
    (tmp_path / "rose" / ".DS_Store").write_text("x")
    (tmp_path / ".cache").mkdir()
    assert folder_catalogue(tmp_path, origin="f").notes == (
        "data='f': 1 files are no images by their ending and were left out",
    )


def test_a_class_called_test_among_class_folders_stays_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 2, "tulip": 2})
    write_images(tmp_path / "test", 2, colour=(1, 2, 3))
    assert folder_catalogue(tmp_path).class_names == ("rose", "test", "tulip")


def test_bad_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data='nowhere' does not exist.*correct the path"):
        folder_catalogue(tmp_path / "nowhere", origin="nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="data='file' is a file"):
        folder_catalogue(tmp_path / "file", origin="file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="data='empty' holds no class folder"):
        folder_catalogue(tmp_path / "empty", origin="empty")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    (tmp_path / "hollow" / "b").mkdir()
    with pytest.raises(ValueError, match="class folders but no image in them"):
        folder_catalogue(tmp_path / "hollow", origin="hollow")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 2})
    with pytest.raises(ValueError, match=r"has one class only \(rose\).*add a folder a class"):
        folder_catalogue(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 2, "tulip": 2})
    (tmp_path / "violet").mkdir()
    with pytest.raises(ValueError, match="class folders violet hold no image"):
        folder_catalogue(tmp_path)


def test_a_class_absent_from_a_split_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"rose": 2, "tulip": 2})
    write_classes(tmp_path / "val", {"rose": 2})
    with pytest.raises(ValueError, match="class 'tulip' is absent from the validation split"):
        folder_catalogue(tmp_path)
    write_classes(tmp_path / "val", {"tulip": 1, "violet": 1})
    with pytest.raises(ValueError, match="class 'violet' of the validation split is absent from train"):
        folder_catalogue(tmp_path)


def test_two_names_for_one_split_and_mixed_layouts_are_refused(tmp_path: Path) -> None:
    for side in ("train", "val", "valid"):
        write_classes(tmp_path / side, {"rose": 1, "tulip": 1})
    with pytest.raises(ValueError, match="two validation folders, 'val' and 'valid'"):
        folder_catalogue(tmp_path)
    (tmp_path / "valid").rename(tmp_path / "other")
    with pytest.raises(ValueError, match="mixes split folders .* with others"):
        folder_catalogue(tmp_path)


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    for side in ("val", "test"):
        write_classes(tmp_path / side, {"rose": 1, "tulip": 1})
    with pytest.raises(ValueError, match="has test, validation but no train folder"):
        folder_catalogue(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "x", {"rose": 1, "tulip": 1})
    (tmp_path / "x").chmod(0)
    try:
        with pytest.raises(ValueError, match="cannot be read .*grant read permission"):
            folder_catalogue(tmp_path / "x")
    finally:
        (tmp_path / "x").chmod(0o755)
