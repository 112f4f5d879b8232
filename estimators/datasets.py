"""Where labelled samples come from: one catalogue for images and texts, whatever they lie in.

    data/flowers                 class folders, with or without train/ validation/ test/ (``estimators.image_folders``)
    builtin/digits-low           handwritten digits shipped with scikit-learn (``estimators.builtin_tasks``)
    torch/.. hfds/.. hfids/..    ``timm.data.create_dataset`` (``estimators.timm_datasets``)
    tfds/.. wds/..
    data/reviews.csv, data/topics  texts with labels: tables and class files (``estimators.text_files``)

A catalogue lists samples before anything is decoded: names, labels, classes and the split that a folder already gives.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["train", "validation", "test", ""]
SIDES: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
Kind = Literal["images", "texts"]
TIMM_PREFIXES = ("torch", "hfds", "hfids", "tfds", "wds")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """Labelled images or texts, listed and not yet decoded.

    Attributes:
        origin: the source as the project names it, e.g. ``data/flowers``.
        names: one unique name a sample (a path relative to the source, an index).
        labels: int64 [n], class indices.
        class_names: names of the C classes.
        sides: the split each sample was given by its folder; ``""`` where the source leaves it open.
        open_sample: position -> opened image (raises ``UnreadableImage``), or text.
        kind: what the samples are.
        pool: names the set of samples that ``names`` count in, where several sources share one; ``origin`` if empty.
        notes: what the reader should know (ignored files, adapted names).
    """

    origin: str
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    sides: tuple[Side, ...]
    open_sample: Callable[[int], Any]
    kind: Kind = "images"
    pool: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check lengths, labels and classes."""
        if not len(self.names) == len(self.labels) == len(self.sides):
            raise ValueError(
                f"data={self.origin!r} lists {len(self.names)} names, {len(self.labels)} labels and "
                f"{len(self.sides)} sides; they must agree"
            )
        if not self.names:
            raise ValueError(f"data={self.origin!r} holds no {self.kind[:-1]}; check the path and what lies there")
        if len(self.class_names) < 2:
            raise ValueError(
                f"data={self.origin!r} has one class only ({', '.join(self.class_names)}); a task needs at least two "
                f"classes: add {'a folder a class' if self.kind == 'images' else 'texts with another label'}"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"data={self.origin!r} has labels from {self.labels.min()} to {self.labels.max()}; they must lie in "
                f"0..{len(self.class_names) - 1}: samples without a label cannot be used"
            )

    def __len__(self) -> int:
        return len(self.names)

    def counts(self) -> dict[str, int]:
        """Samples of each class."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}

    def with_classes(self, classes: Sequence[str]) -> Catalogue:
        """Only the samples of some classes, in the order given; labels follow that order."""
        for name in classes:
            if name not in self.class_names:
                near = difflib.get_close_matches(name, self.class_names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"the classes are {shortened(self.class_names)}"
                raise ValueError(f"classes={name!r} is no class of data={self.origin!r}; {hint}")
        if len(set(classes)) != len(classes):
            raise ValueError(f"classes={list(classes)} names a class twice; name each once")
        new_label = np.full(len(self.class_names), -1, dtype=np.int64)
        for label, name in enumerate(classes):
            new_label[self.class_names.index(name)] = label
        kept = np.flatnonzero(new_label[self.labels] >= 0)
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in kept),
            labels=new_label[self.labels[kept]],
            class_names=tuple(classes),
            sides=tuple(self.sides[i] for i in kept),
            open_sample=lambda position: self.open_sample(int(kept[position])),
        )


def shortened(names: Sequence[str], shown: int = 5) -> str:
    """The first few names and how many more there are.

    >>> shortened(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
