"""``merge-advisor init FOLDER...``: look at folders of images and write a commented project file.

A folder with class folders (or train/ val/ test/ above them) becomes a task; a folder of such folders becomes a task
for each of them; ``builtin/..`` names are taken as they are.  Only names, counts and the size of a few images are
looked at.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.project import DEFAULT_SPLIT, Project
from advisor.yaml_reading import parse_yaml
from estimators.builtin_tasks import builtin_catalogue
from estimators.datasets import Catalogue, shortened
from estimators.files import write_text
from estimators.image_decoding import UnreadableImage
from estimators.image_folders import IMAGE_ENDINGS, SIDE_NAMES, folder_catalogue, subfolders

DEFAULT_BACKBONE = "resnet18"
SAMPLED_IMAGES = 24  # images a task whose size is looked at
SIZE_STEP = 32  # most timm models halve their input five times
LARGEST_SIZE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTask:
    """A task that a folder turned out to be.

    Attributes:
        name: a plain name made from the folder's.
        data: what the project file will say.
        images: number of images.
        classes: class names.
        smallest_class: images of the rarest class.
        train_images: training samples after the default split, rounded down.
        sides: splits that the folder gives.
        image_side: median of the sampled images' shorter sides, pixels.
        grey: whether every sampled image is grey.
    """

    name: str
    data: str
    images: int
    classes: tuple[str, ...]
    smallest_class: int
    train_images: int
    sides: tuple[str, ...]
    image_side: int
    grey: bool


def init(folders: Sequence[Path | str], out: Path | str = "project.yaml", *, overwrite: bool = False) -> Path:
    """Write a project file for some folders; returns its path.

    Raises:
        ValueError: if ``out`` exists, no folder is named, or a folder is no task.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise ValueError(f"out={str(out)!r} exists; choose another name with --out, or remove it first")
    write_text(out, draft(folders, out.absolute().parent))
    return out


def draft(folders: Sequence[Path | str], base: Path) -> str:
    """The text of a project file that lies in ``base``."""
    if not folders:
        raise ValueError("folders=[] must name at least one; pass folders of class folders, or builtin/digits-low")
    found: list[FoundTask] = []
    for folder in folders:
        found += look_at(folder, base)
    found = _distinct_names(found)
    text = _text(found)
    Project.from_mapping(parse_yaml(text, "the drafted project"), origin=base, label="the drafted project")
    return text


def look_at(folder: Path | str, base: Path) -> list[FoundTask]:
    """The task, or tasks, that a folder holds."""
    if str(folder).startswith("builtin/"):
        return [_describe(builtin_catalogue(str(folder)), str(folder), str(folder).removeprefix("builtin/"))]
    path = Path(folder).expanduser()
    children = subfolders(path, str(folder))
    nested = [child for child in children if _holds_classes(child)]
    if nested and len(nested) == len(children) and not any(c.name.lower() in SIDE_NAMES for c in children):
        return [_from_folder(child, base) for child in nested]
    return [_from_folder(path, base)]


def _holds_classes(folder: Path) -> bool:
    """Whether at least two folders inside hold images, so that this is a task and not a class."""
    holders = 0
    for child in subfolders(folder, str(folder)):
        inside = (p for p in child.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
        holders += next(inside, None) is not None
    return holders >= 2 or any(child.name.lower() in SIDE_NAMES for child in subfolders(folder, str(folder)))


def _from_folder(path: Path, base: Path) -> FoundTask:
    absolute = path.resolve()
    inside = absolute.is_relative_to(base.resolve())
    data = os.path.relpath(absolute, base.resolve()) if inside else str(absolute)
    if data.split("/", 1)[0].lower() in ("builtin", "torch", "hfds", "hfids", "tfds", "wds"):
        data = f"./{data}"
    return _describe(
        folder_catalogue(path), Path(data).as_posix() if not data.startswith("./") else data, absolute.name
    )


def _describe(catalogue: Catalogue, data: str, name: str) -> FoundTask:
    sides, greys = [], []
    step = max(1, len(catalogue) // SAMPLED_IMAGES)
    for position in range(0, len(catalogue), step):
        try:
            with catalogue.open_image(position) as image:
                sides.append(min(image.size))
                greys.append(image.mode in ("1", "L", "LA", "I;16", "I"))
        except UnreadableImage:
            continue  # `check` and `run` name them; init only wants a typical size
    if not sides:
        raise ValueError(f"data={data!r}: none of the sampled images can be read; look at the files")
    given = tuple(dict.fromkeys(side for side in catalogue.sides if side))
    train = catalogue.sides.count("train") if given else len(catalogue)
    kept = 1.0 - sum(
        share for side, share in zip(("validation", "test"), DEFAULT_SPLIT[1:], strict=True) if side not in given
    )
    return FoundTask(
        name=re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:64] or "task",
        data=data,
        images=len(catalogue),
        classes=catalogue.class_names,
        smallest_class=min(catalogue.counts().values()),
        train_images=max(1, int(train * kept) - len(catalogue.class_names)),
        sides=given,
        image_side=round(statistics.median(sides)),
        grey=all(greys),
    )


def _distinct_names(found: list[FoundTask]) -> list[FoundTask]:
    seen: set[str] = set()
    named = []
    for task in found:
        name, count = task.name, 2
        while name.lower() in seen:
            name, count = f"{task.name[:60]}-{count}", count + 1
        seen.add(name.lower())
        named.append(FoundTask(**{f: getattr(task, f) for f in task.__dataclass_fields__} | {"name": name}))
    return named


def _text(found: Sequence[FoundTask]) -> str:
    side = statistics.median(task.image_side for task in found)
    size = min(LARGEST_SIZE, max(SIZE_STEP, SIZE_STEP * round(side / SIZE_STEP)))
    smallest = min(task.train_images for task in found)
    top = 1 << min(7, smallest.bit_length() - 1)
    colour = "all images seen are grey: 1 would be enough" if all(t.grey for t in found) else "1 for grey"
    lines = [
        "# A project of merge-advisor. Every field: docs/project-file.md. Check it: merge-advisor check project.yaml",
        "backbone:",
        f"  name: {DEFAULT_BACKBONE}      # any timm model",
        "  pretrained: true    # from the hub; or `checkpoint: base.safetensors` for weights of your own",
        f"  in_chans: 3         # {colour}",
        f"  image_size: {size}     # the images' shorter sides are about {round(side)} pixels",
        "tasks:",
    ]
    for task in found:
        lines += _task_lines(task)
    lines += [
        "heads: probe          # linear heads on the pretrained features, then frozen; or trained",
        "objective:",
        "  weights: {" + ", ".join(f"{json.dumps(task.name)}: 1" for task in found) + "}",
        "  goal: mean          # or worst",
        "search:",
        "  learning_rate: {sgd: [1.0e-4, 1.0], adamw: [1.0e-5, 1.0e-2]}",
        f"  batch_size: [{min(8, top)}, {top}]   # the smallest task has about {smallest} training images",
        "  steps: [20, 640]",
        "  schedule: [constant, warmup_cosine]",
        "  coefficients: {scope: per_task, range: [0, 2]}",
        "budget:",
        "  probe_share: 0.25   # probing may cost a quarter of one full fine-tune of all tasks",
        "  time_limit: null    # 30m, 2h",
        "merge: {method: auto}",
        "device: auto",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"


def _task_lines(task: FoundTask) -> list[str]:
    names = shortened([ascii(name) for name in task.classes])
    splits = f"its own {', '.join(task.sides)}" if task.sides else "splits cut 70/15/15"
    comment = f"{task.images} images, {len(task.classes)} classes ({names}), {splits}"
    lines = [f"  {json.dumps(task.name)}:", f"    data: {json.dumps(task.data)}   # {comment}"]
    if task.smallest_class < 10:
        lines.append(f"    # the rarest class has {task.smallest_class} images: figures for it will be rough")
    return lines
