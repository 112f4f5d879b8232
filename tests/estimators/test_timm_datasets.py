from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data.dataset_factory
from PIL import Image

from estimators.image_decoding import UnreadableImage, decode
from estimators.image_folders import folder_catalogue
from estimators.timm_datasets import ReaderOptions, timm_catalogue
from tests.estimators.image_files import write_classes


def test_torchvisions_folders_are_read_through_timms_own_code(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"rose": 4, "tulip": 3})
    write_classes(tmp_path / "val", {"rose": 2, "tulip": 2})
    options = ReaderOptions(root=tmp_path, splits={"train": "train", "validation": "val"})
    found = timm_catalogue("torch/image_folder", options, image_size=8)
    assert found.class_names == ("rose", "tulip")
    assert found.counts() == {"rose": 6, "tulip": 5}
    assert [found.sides.count(side) for side in ("train", "validation")] == [7, 4]
    twin = folder_catalogue(tmp_path)
    for position in (0, 6, 10):
        with found.open_sample(position) as ours, twin.open_sample(position) as theirs:
            assert (decode(ours, size=8, channels=3) == decode(theirs, size=8, channels=3)).all()


def test_one_split_leaves_the_sides_open(tmp_path: Path) -> None:
    write_classes(tmp_path, {"rose": 4, "tulip": 3})
    found = timm_catalogue("torch/image_folder", ReaderOptions(root=tmp_path), image_size=8)
    assert set(found.sides) == {""}


class Indexed:
    """What ``create_dataset`` gives for data sets with an index (here: labels only with the samples)."""

    def __init__(self, labels: list[Any], broken: int = -1) -> None:
        self.labels, self.broken, self._max_retries = labels, broken, 10

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        if index == self.broken and self._max_retries == 1:
            raise RuntimeError("Failed to load 1 consecutive samples")
        return Image.new("RGB", (6, 4), (index, 0, 0)), self.labels[index]


class Stream(Indexed):
    """What it gives for streams."""

    read = 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for index, label in enumerate(self.labels):
            self.read += 1
            yield np.full((6, 4, 3), index, dtype=np.uint8), label


def fake(monkeypatch: pytest.MonkeyPatch, dataset: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        if isinstance(dataset, Exception):
            raise dataset
        return dataset

    monkeypatch.setattr(timm.data.dataset_factory, "create_dataset", create)
    return asked


def test_what_the_project_says_reaches_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = fake(monkeypatch, Indexed([0, 1, 1, 0]))
    options = ReaderOptions(root=tmp_path, download=False, splits={"train": "all"}, image_key="img", label_key="y")
    found = timm_catalogue("hfds/someone/things", options, image_size=8)
    assert asked == {
        "name": "hfds/someone/things",
        "root": str(tmp_path),
        "split": "all",
        "is_training": False,
        "download": False,
        "input_key": "img",
        "target_key": "y",
    }
    assert found.class_names == ("0", "1")
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.names[2] == "all/2"


def test_an_unreadable_sample_is_named_and_not_replaced_by_its_neighbour(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = Indexed([0, 1, 1, 0], broken=2)
    dataset.targets = [0, 1, 1, 0]  # type: ignore[attr-defined]
    fake(monkeypatch, dataset)
    found = timm_catalogue("hfds/x", ReaderOptions(root=tmp_path), image_size=8)
    with pytest.raises(UnreadableImage, match="Failed to load 1 consecutive samples"):
        found.open_sample(2)
    assert found.open_sample(3).getpixel((0, 0)) == (3, 0, 0)


def test_streams_are_read_up_to_the_limit_and_kept_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = Stream([0, 1] * 50)
    fake(monkeypatch, stream)
    found = timm_catalogue("tfds/x", ReaderOptions(root=tmp_path), image_size=3, limit=10)
    assert len(found) == 10
    assert stream.read == 11
    assert found.open_sample(7).size == (3, 3)
    assert found.open_sample(7).getpixel((1, 1)) == (7, 7, 7)
    assert found.notes == ("data='tfds/x': only the first 10 samples of the stream were read",)


@pytest.mark.parametrize("label", [None, -1, [0, 1], "rose"])
def test_samples_without_a_usable_label_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, label: Any
) -> None:
    fake(monkeypatch, Indexed([0, label]))
    with pytest.raises(ValueError, match="data='hfds/x' has the label .*set reader.label_key"):
        timm_catalogue("hfds/x", ReaderOptions(root=tmp_path), image_size=8)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ("hfds/x", ConnectionError("Name or service\nnot known"), "could not be opened.*service not known.*connection"),
        ("torch/x", AssertionError("Unknown torchvision dataset x"), "refused by timm .*correct tasks.<name>.data"),
        ("wds/x", ModuleNotFoundError("x", name="webdataset"), "needs the package 'webdataset'; install it"),
        ("tfds/x", ImportError("x"), "needs the package 'tensorflow-datasets'; install it"),
    ],
)
def test_what_a_library_raises_becomes_one_paragraph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: str, error: Exception, said: str
) -> None:
    fake(monkeypatch, error)
    with pytest.raises(ValueError, match=f"data='{data}'.*{said}") as caught:
        timm_catalogue(data, ReaderOptions(root=tmp_path), image_size=8)
    assert "\n" not in str(caught.value)


def test_an_unknown_torchvision_name_is_refused_by_timm_itself(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="data='torch/nothing' is refused by timm .Unknown torchvision dataset nothing"
    ):
        timm_catalogue("torch/nothing", ReaderOptions(root=tmp_path, download=False), image_size=8)


def test_a_data_set_that_is_not_there_names_its_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data='torch/cifar10' could not be opened from root=.*not found"):
        timm_catalogue("torch/cifar10", ReaderOptions(root=tmp_path, download=False), image_size=8)


def test_an_empty_data_set_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(monkeypatch, Indexed([]))
    with pytest.raises(ValueError, match="holds no sample in train; name another split"):
        timm_catalogue("hfds/x", ReaderOptions(root=tmp_path), image_size=8)
