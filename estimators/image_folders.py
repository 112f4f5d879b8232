"""A folder of class folders, with or without train/, val/ and test/ above them.

    flowers/rose/1.jpg                      one folder a class: splits are cut later
    flowers/train/rose/1.jpg                given splits are respected; ``val``, ``valid``, ``validation`` are the same

Hidden files and folders are passed over; files that are no image by their ending are counted in a note.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from estimators.datasets import SIDES, Catalogue, Side, shortened
from estimators.image_decoding import open_image

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"})
SIDE_NAMES: dict[str, Side] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def folder_catalogue(folder: Path, *, origin: str | None = None) -> Catalogue:
    """List the images of a folder of class folders.

    Args:
        folder: where the class folders (or train/ val/ test/) lie.
        origin: how the project names it.

    Raises:
        ValueError: if the folder is missing, unreadable or empty, or the layout is not understood.
    """
    origin = origin or str(folder)
    sides = given_sides(folder, origin)
    files: list[Path] = []
    labels: list[int] = []
    split: list[Side] = []
    other_files = 0
    classes = class_names(sides or {"": folder}, origin)
    for side, side_folder in (sides or {"": folder}).items():
        for label, name in enumerate(classes):
            images, ignored = images_of(side_folder / name, origin)
            files += images
            labels += [label] * len(images)
            split += [side] * len(images)
            other_files += ignored
    if not files:
        endings = ", ".join(sorted(IMAGE_ENDINGS))
        raise ValueError(f"data={origin!r} has class folders but no image in them ({endings}); put images there")
    _refuse_empty_classes(classes, labels, origin)

    def opener(position: int) -> Image.Image:
        return open_image(files[position])

    notes = (f"data={origin!r}: {other_files} files are no images by their ending and were left out",)
    return Catalogue(
        origin=origin,
        names=tuple(path.relative_to(folder).as_posix() for path in files),
        labels=np.array(labels, dtype=np.int64),
        class_names=classes,
        sides=tuple(split),
        open_sample=opener,
        notes=notes if other_files else (),
    )


def given_sides(folder: Path, origin: str) -> dict[Side, Path]:
    """Split -> folder where the first level is train/ val/ test/; empty where it is the class folders."""
    children = subfolders(folder, origin)
    known = {child: SIDE_NAMES[child.name.lower()] for child in children if child.name.lower() in SIDE_NAMES}
    if not known or not any(subfolders(child, origin) for child in known):
        return {}
    strangers = [child.name for child in children if child not in known]
    if strangers:
        raise ValueError(
            f"data={origin!r} mixes split folders ({shortened([c.name for c in known])}) with others "
            f"({shortened(strangers)}); keep either split folders or class folders at the first level"
        )
    sides: dict[Side, Path] = {}
    for child, side in known.items():
        if side in sides:
            raise ValueError(
                f"data={origin!r} has two {side} folders, {sides[side].name!r} and {child.name!r}; keep one of them"
            )
        sides[side] = child
    if "train" not in sides:
        raise ValueError(f"data={origin!r} has {', '.join(sides)} but no train folder; add train/")
    return {side: sides[side] for side in SIDES if side in sides}


def subfolders(folder: Path, origin: str) -> list[Path]:
    """Visible folders inside a folder, sorted by name."""
    if not folder.exists():
        raise ValueError(f"data={origin!r} does not exist; paths are relative to the project file: correct the path")
    if not folder.is_dir():
        raise ValueError(f"data={origin!r} is a file; name the folder that holds the class folders")
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise ValueError(f"data={origin!r} cannot be read ({error.strerror}); grant read permission") from None


def class_names(sides: dict[Side, Path] | dict[str, Path], origin: str) -> tuple[str, ...]:
    """Names of the class folders; every split must know the same ones."""
    found = {side: [p.name for p in subfolders(folder, origin)] for side, folder in sides.items()}
    train = found.get("train", found.get("", []))
    if not train:
        raise ValueError(f"data={origin!r} holds no class folder; put one folder of images a class there")
    for side, names in found.items():
        for absent in [name for name in train if name not in names]:
            raise ValueError(
                f"data={origin!r}: class {absent!r} is absent from the {side} split; add images of it there or "
                f"remove the {side} folder, so that the split is cut from train"
            )
        for extra in [name for name in names if name not in train]:
            raise ValueError(
                f"data={origin!r}: class {extra!r} of the {side} split is absent from train; add images of it there"
            )
    return tuple(train)


def images_of(folder: Path, origin: str) -> tuple[list[Path], int]:
    """Images below a class folder (any depth), sorted, and how many other files lie there."""
    try:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise ValueError(
            f"data={origin!r}: {folder.name} cannot be read ({error.strerror}); grant permission"
        ) from None
    images = [p for p in files if p.suffix.lower() in IMAGE_ENDINGS]
    return images, len(files) - len(images)


def _refuse_empty_classes(classes: tuple[str, ...], labels: list[int], origin: str) -> None:
    present = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty:
        raise ValueError(
            f"data={origin!r}: class folders {shortened(empty)} hold no image; add images or remove the folders"
        )
