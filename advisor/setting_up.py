"""From a form to a project: draft it, look it over as ``merge-advisor check`` does, show samples, save it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.initialising import DEFAULT_BACKBONE, draft
from advisor.planned_cost import PlannedCost, plan_cost
from advisor.project import Project
from advisor.run_ids import slug
from advisor.yaml_reading import parse_yaml
from estimators.builtin_tasks import BUILTIN_TASKS
from estimators.datasets import Catalogue
from estimators.files import write_text
from estimators.image_decoding import UnreadableImage

if TYPE_CHECKING:
    from advisor.surveying import Survey

THUMBNAIL = 96  # pixels
EXCERPT = 160  # characters
PROJECTS = "projects"  # folder beside the runs that drafted projects are saved in


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of a task.

    Attributes:
        label: its class.
        png: a thumbnail.
    """

    label: str
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSample:
    """One text of a task.

    Attributes:
        label: its class.
        text: its beginning.
    """

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedOver:
    """A project as it was looked over.

    Attributes:
        project: the project, or ``None`` where its text is wrong.
        survey: classes, counts and notes, or ``None`` where the data are wrong.
        planned: what a whole run would cost at most.
        problem: what is wrong, in one paragraph; empty where nothing is.
    """

    project: Project | None
    survey: Survey | None
    planned: PlannedCost | None
    problem: str


def builtin_choices() -> dict[str, str]:
    """Built-in tasks and what they show."""
    return {name: task.summary for name, task in BUILTIN_TASKS.items() if task.pool == "tasks"}


def drafted(sources: Sequence[str], base: Path, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a project over folders and built-in tasks.

    Args:
        sources: folders of class folders, ``builtin/...``, or texts.
        base: folder that the project file will lie in.
        changes: section -> key -> value, over what the draft says; of a text encoder, what belongs to images is left.
    """
    data = parse_yaml(draft(list(sources), base), "the drafted project")
    if data["backbone"].get("kind") == "transformers":
        changes = {**changes, "backbone": _for_encoder(changes.get("backbone", {}))}
    for section, values in changes.items():
        part = data.setdefault(section, {})
        part.update({key: value for key, value in values.items() if value is not None})
    return Project.from_mapping(data, origin=base, label="the project").to_yaml()


def look_over(text: str, base: Path, *, label: str = "the project") -> LookedOver:
    """Everything that can be said of a project without running it; what is wrong is said, not raised."""
    project: Project | None = None
    try:
        project = Project.from_mapping(parse_yaml(text, label), origin=base, label=label)
        from advisor.surveying import survey

        found = survey(project)
        return LookedOver(project=project, survey=found, planned=plan_cost(project, "run"), problem="")
    except (ValueError, OSError) as error:
        return LookedOver(project=project, survey=None, planned=None, problem=" ".join(str(error).split()))


def _for_encoder(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What a form that was made for images says of a text encoder: its name, and where its weights come from."""
    chosen = str(wanted.get("name") or DEFAULT_BACKBONE)
    place = wanted.get("checkpoint") or (None if chosen == DEFAULT_BACKBONE else chosen)
    is_local = wanted.get("checkpoint") is not None or wanted.get("pretrained") is False
    return {"name": place, "pretrained": not is_local if place is not None else None}


def sample_texts(project: Project, name: str, *, most: int = 8) -> tuple[TextSample, ...]:
    """The beginnings of a task's texts, one a class in turn."""
    from advisor.task_sources import open_catalogue

    catalogue = open_catalogue(project, name)
    return tuple(
        TextSample(
            label=catalogue.class_names[int(catalogue.labels[position])],
            text=textwrap.shorten(catalogue.open_sample(position), EXCERPT, placeholder=" …"),
        )
        for position in _one_a_class(catalogue, most)
    )


def _one_a_class(catalogue: Catalogue, most: int) -> list[int]:
    """Positions of some samples, one a class in turn."""
    by_class = [
        [k for k, label in enumerate(catalogue.labels) if label == c] for c in range(len(catalogue.class_names))
    ]
    rounds = -(-most // len(by_class))
    return [positions[turn] for turn in range(rounds) for positions in by_class if turn < len(positions)][:most]


def sample_images(project: Project, name: str, *, image_size: int | None, most: int = 8) -> tuple[Sample, ...]:
    """Thumbnails of a task's images, one a class in turn; images that cannot be read are left out."""
    from advisor.task_sources import open_catalogue

    catalogue = open_catalogue(project, name, image_size=image_size)
    found = []
    for position in _one_a_class(catalogue, most):
        try:
            with catalogue.open_sample(position) as image:
                small = image.convert("RGB")
                small = small.resize((THUMBNAIL, max(1, round(THUMBNAIL * small.height / small.width))), resample=0)
                buffer = io.BytesIO()
                small.save(buffer, format="PNG")
        except UnreadableImage:
            continue  # the check names them
        found.append(Sample(label=catalogue.class_names[int(catalogue.labels[position])], png=buffer.getvalue()))
    return tuple(found)


def save_project(text: str, root: Path, name: str) -> Path:
    """Keep a checked project beside the runs; a file of another content is never replaced."""
    folder = root / PROJECTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = slug(name)
    for number in range(1, 1000):
        path = folder / (f"{stem}.yaml" if number == 1 else f"{stem}-{number}.yaml")
        if not path.exists():
            write_text(path, text)
            return path
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return path
    raise ValueError(f"name={name!r}: {folder.name} holds a thousand projects of that name; choose another name")
