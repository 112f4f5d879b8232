"""``merge-advisor init FOLDER...``: look at folders of images, or at texts, and write a commented project file.

A folder with class folders (or train/ val/ test/ above them) becomes a task; a folder of such folders becomes a task
for each of them; ``builtin/..`` names are taken as they are.  A table of texts or a folder of class files becomes a
task of texts (``estimators.text_files``), a folder of those a task for each.  Of images only names, counts and the size
of a few are looked at.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.project import DEFAULT_SPLIT, Project
from advisor.yaml_reading import parse_yaml
from estimators.builtin_tasks import builtin_catalogue
from estimators.datasets import TIMM_PREFIXES, Catalogue, Kind, shortened
from estimators.files import write_text
from estimators.image_decoding import UnreadableImage
from estimators.image_folders import IMAGE_ENDINGS, SIDE_NAMES, folder_catalogue, subfolders
from estimators.text_files import holds_texts, text_catalogue

DEFAULT_BACKBONE = "resnet18"
DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
SAMPLED_IMAGES = 24  # images a task whose size is looked at
SIZE_STEP = 32  # most timm models halve their input five times
LARGEST_SIZE = 224
TOKENS_A_WORD = 1.5  # of English text in a vocabulary of 30 000 word pieces, special tokens included
LENGTH_STEP, LARGEST_LENGTH = 16, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTask:
    """A task that a folder turned out to be.

    Attributes:
        name: a plain name made from the folder's.
        data: what the project file will say.
        kind: what its samples are.
        samples: number of samples.
        classes: class names.
        smallest_class: samples of the rarest class.
        train_samples: training samples after the default split, rounded down.
        sides: splits that the folder gives.
        size: median of the sampled images' shorter sides, pixels; of texts, the median number of words.
        grey: whether every sampled image is grey.
    """

    name: str
    data: str
    kind: Kind
    samples: int
    classes: tuple[str, ...]
    smallest_class: int
    train_samples: int
    sides: tuple[str, ...]
    size: int
    grey: bool = False


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
        raise ValueError(
            "folders=[] must name at least one; pass folders of class folders, tables of texts, or builtin/digits-low"
        )
    found: list[FoundTask] = []
    for folder in folders:
        found += look_at(folder, base)
    found = _distinct_names(found)
    text = _text(found)
    Project.from_mapping(parse_yaml(text, "the drafted project"), origin=base, label="the drafted project")
    return text


def look_at(folder: Path | str, base: Path) -> list[FoundTask]:
    """The task, or tasks, that a folder or table holds."""
    if str(folder).startswith("builtin/"):
        return [_describe(builtin_catalogue(str(folder)), str(folder), str(folder).removeprefix("builtin/"))]
    path = Path(folder).expanduser()
    if path.is_file() or holds_texts(path):
        return [_from_texts(path, base)]
    texts = [child for child in sorted(path.iterdir()) if holds_texts(child)] if path.is_dir() else []
    if texts:
        return [_from_texts(child, base) for child in texts]
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
    return _describe(folder_catalogue(path), _relative(path, base), path.resolve().name)


def _from_texts(path: Path, base: Path) -> FoundTask:
    return _describe(text_catalogue(path), _relative(path, base), path.resolve().stem)


def _relative(path: Path, base: Path) -> str:
    """What the project file will say of a path."""
    absolute = path.resolve()
    inside = absolute.is_relative_to(base.resolve())
    data = os.path.relpath(absolute, base.resolve()) if inside else str(absolute)
    if data.split("/", 1)[0].lower() in ("builtin", *TIMM_PREFIXES):
        return f"./{data}"
    return Path(data).as_posix()


def _typical(catalogue: Catalogue, data: str) -> tuple[float, bool]:
    """Median size of some samples, and whether all are grey images."""
    step = max(1, len(catalogue) // SAMPLED_IMAGES)
    positions = range(0, len(catalogue), step)
    if catalogue.kind == "texts":
        return statistics.median(len(catalogue.open_sample(position).split()) for position in positions), False
    sides, greys = [], []
    for position in positions:
        try:
            with catalogue.open_sample(position) as image:
                sides.append(min(image.size))
                greys.append(image.mode in ("1", "L", "LA", "I;16", "I"))
        except UnreadableImage:
            continue  # `check` and `run` name them; init only wants a typical size
    if not sides:
        raise ValueError(f"data={data!r}: none of the sampled images can be read; look at the files")
    return statistics.median(sides), all(greys)


def _describe(catalogue: Catalogue, data: str, name: str) -> FoundTask:
    size, grey = _typical(catalogue, data)
    given = tuple(dict.fromkeys(side for side in catalogue.sides if side))
    train = catalogue.sides.count("train") if given else len(catalogue)
    kept = 1.0 - sum(
        share for side, share in zip(("validation", "test"), DEFAULT_SPLIT[1:], strict=True) if side not in given
    )
    return FoundTask(
        name=re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:64] or "task",
        data=data,
        kind=catalogue.kind,
        samples=len(catalogue),
        classes=catalogue.class_names,
        smallest_class=min(catalogue.counts().values()),
        train_samples=max(1, int(train * kept) - len(catalogue.class_names)),
        sides=given,
        size=round(size),
        grey=grey,
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
    kinds = sorted({task.kind for task in found})
    if len(kinds) > 1:
        names = [next(task.data for task in found if task.kind == kind) for kind in kinds]
        raise ValueError(
            f"data={names[0]!r} holds images and data={names[1]!r} texts; one backbone reads either: make two projects"
        )
    smallest = min(task.train_samples for task in found)
    top = 1 << min(7, smallest.bit_length() - 1)
    lines = [
        "# A project of merge-advisor. Every field: docs/project-file.md. Check it: merge-advisor check project.yaml",
        *(_encoder_lines(found) if kinds == ["texts"] else _backbone_lines(found)),
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
        f"  batch_size: [{min(8, top)}, {top}]   # the smallest task has about {smallest} training {kinds[0]}",
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


def _backbone_lines(found: Sequence[FoundTask]) -> list[str]:
    side = statistics.median(task.size for task in found)
    size = min(LARGEST_SIZE, max(SIZE_STEP, SIZE_STEP * round(side / SIZE_STEP)))
    colour = "all images seen are grey: 1 would be enough" if all(t.grey for t in found) else "1 for grey"
    return [
        "backbone:",
        f"  name: {DEFAULT_BACKBONE}      # any timm model",
        "  pretrained: true    # from the hub; or `checkpoint: base.safetensors` for weights of your own",
        f"  in_chans: 3         # {colour}",
        f"  image_size: {size}     # the images' shorter sides are about {round(side)} pixels",
    ]


def _encoder_lines(found: Sequence[FoundTask]) -> list[str]:
    words = statistics.median(task.size for task in found)
    length = LENGTH_STEP * math.ceil(TOKENS_A_WORD * words / LENGTH_STEP)
    return [
        "backbone:",
        "  kind: transformers",
        f"  name: {DEFAULT_ENCODER}    # of the hub",
        "  pretrained: true    # from the hub; false for a folder, a .zip or package/NAME",
        f"  max_length: {min(LARGEST_LENGTH, max(LENGTH_STEP, length))}      # tokens; texts have about {round(words)} "
        "words",
        "  # frozen: [embeddings, encoder.layer.0]    # lower layers that stay as they are, and cost less",
    ]


def _task_lines(task: FoundTask) -> list[str]:
    names = shortened([ascii(name) for name in task.classes])
    splits = f"its own {', '.join(task.sides)}" if task.sides else "splits cut 70/15/15"
    comment = f"{task.samples} {task.kind}, {len(task.classes)} classes ({names}), {splits}"
    lines = [f"  {json.dumps(task.name)}:", f"    data: {json.dumps(task.data)}   # {comment}"]
    if task.smallest_class < 10:
        lines.append(f"    # the rarest class has {task.smallest_class} {task.kind}: figures for it will be rough")
    return lines
