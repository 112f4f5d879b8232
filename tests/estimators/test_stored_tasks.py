import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from estimators import stored_tasks
from estimators.builtin_tasks import builtin_catalogue
from estimators.datasets import Catalogue
from estimators.files import StorageFailed
from estimators.image_folders import folder_catalogue
from estimators.sample_forms import PixelForm
from estimators.splits import read_records, split_catalogue
from estimators.stored_tasks import (
    UnreadableSamples,
    load_task,
    record_notes,
    refuse_too_large,
    shared_samples,
    store_task,
    write_records,
)
from tests.estimators.image_files import write_classes


def store(run: Path, catalogue: Catalogue, *, name: str = "a", allow: bool = False) -> dict[str, object]:
    indices = split_catalogue(catalogue, seed=0)
    return store_task(run, name, catalogue, indices, form=PixelForm(image_size=8, channels=1), allow_unreadable=allow)


def test_a_task_comes_back_from_the_run_as_it_was_stored(tmp_path: Path) -> None:
    catalogue = builtin_catalogue("builtin/digits-low")
    write_records(tmp_path, {"a": store(tmp_path, catalogue)}, seed=0)
    record = read_records(tmp_path)["a"]
    task = load_task(tmp_path, "a", record)
    assert task.class_names == ("0", "1", "2", "3", "4")
    assert task.head is None
    cut = split_catalogue(catalogue, seed=0)
    assert task.train.labels.tolist() == catalogue.labels[cut.train].tolist()
    assert record["samples"]["train"] == [catalogue.names[i] for i in cut.train]
    assert task.train.inputs.dtype == torch.uint8
    assert task.train.inputs.shape == (len(cut.train), 1, 8, 8)
    assert task.validation.labels.tolist() == catalogue.labels[cut.validation].tolist()


def test_storing_twice_gives_the_same_files(tmp_path: Path) -> None:
    catalogue = builtin_catalogue("builtin/digits-odd")
    first, second = store(tmp_path / "1", catalogue), store(tmp_path / "2", catalogue)
    assert first == second


def flowers_with_damage(folder: Path, damaged: int) -> Catalogue:
    write_classes(folder, {"rose": 10, "tulip": 10})
    for i in range(damaged):
        (folder / "rose" / f"{i:03d}.png").write_bytes(b"damaged")
    return folder_catalogue(folder, origin="data/flowers")


def test_unreadable_images_stop_by_default_named_and_counted(tmp_path: Path) -> None:
    catalogue = flowers_with_damage(tmp_path / "flowers", 2)
    with pytest.raises(UnreadableSamples, match=r"2 of 20 images cannot be read: rose/00.*--skip-unreadable") as caught:
        store(tmp_path / "run", catalogue)
    assert "rose/001.png" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_left_out_on_request_with_a_caveat(tmp_path: Path) -> None:
    catalogue = flowers_with_damage(tmp_path / "flowers", 2)
    record = store(tmp_path / "run", catalogue, allow=True)
    assert sum(len(names) for names in record["samples"].values()) == 18  # type: ignore[attr-defined]
    (note,) = record_notes("a", record)
    assert "2 unreadable images were left out (rose/00" in note


def test_a_class_that_loses_all_images_of_a_split_is_refused(tmp_path: Path) -> None:
    catalogue = flowers_with_damage(tmp_path / "flowers", 10)
    with pytest.raises(ValueError, match="without its unreadable images class 'rose' is absent from the train split"):
        store(tmp_path / "run", catalogue, allow=True)


def test_shared_images_are_counted(tmp_path: Path) -> None:
    records = {
        name: store(tmp_path, builtin_catalogue(f"builtin/digits-{name}"), name=name)
        for name in ("low", "high", "even", "pretrain")
    }
    (note,) = shared_samples(records)
    low, even = (builtin_catalogue(f"builtin/digits-{name}") for name in ("low", "even"))
    assert f"'low' and 'even' share {len(set(low.names) & set(even.names))} images, 'high' and 'even' share" in note
    assert "none is in the test split of one and not of the other" in note
    assert "pretrain" not in note  # the pre-training digits come from another pool


def test_an_image_that_one_task_trains_on_and_another_tests_on_is_told(tmp_path: Path) -> None:
    records = {}
    for name, fractions in (("rotated", (0.7, 0.15, 0.15)), ("inverted", (0.4, 0.2, 0.4))):
        catalogue = builtin_catalogue(f"builtin/digits-{name}")
        indices = split_catalogue(catalogue, seed=0, fractions=fractions)
        records[name] = store_task(tmp_path, name, catalogue, indices, form=PixelForm(image_size=8, channels=1))
    (note,) = shared_samples(records)
    sides = [{n: side for side, names in record["samples"].items() for n in names} for record in records.values()]
    crossed = sum((sides[0][n] == "test") != (sides[1][n] == "test") for n in sides[0])
    assert crossed > 0
    assert f"{crossed} of them are test images of one and not of the other, so test figures may flatter" in note


def test_samples_beyond_memory_or_disk_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="task 'a' would take .* GiB decoded.*tasks.a.limit"):
        refuse_too_large(tmp_path, "a", 2**60)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    catalogue = builtin_catalogue("builtin/digits-low")
    broken = dataclasses.replace(catalogue, open_sample=lambda _: pytest.fail("an image was decoded"))
    with pytest.raises(StorageFailed, match="0 MiB free, task 'a' needs"):
        store(tmp_path / "new" / "run", broken)
    assert not (tmp_path / "new").exists()


def test_half_of_the_memory_is_the_limit() -> None:
    assert stored_tasks.MEMORY_SHARE == 0.5
