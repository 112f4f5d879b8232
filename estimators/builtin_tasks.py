"""Built-in digit tasks from scikit-learn's ``load_digits`` (1 797 images of 8 x 8 pixels).

The images are dealt once, class by class and independently of any seed of a project, into two pools:

    pool       share   tasks
    pretrain   1/3     builtin/digits-pretrain   (all ten digits: what a demo's backbone is pre-trained on)
    tasks      2/3     builtin/digits (all ten), digits-low (0-4), digits-high (5-9), digits-even, digits-odd, and each
                       of them in another view: digits-rotated, digits-rotated-low, ..., digits-inverted, ...,
                       digits-transposed, ..., digits-upside-down, ..., digits-rolled, ...

No task shares an image with the pre-training pool.  Tasks share images with each other, in different views; splits put
a shared image on the same side of all of them (``estimators.splits``), so no test image was trained on in any view, and
preparing a project says how many are shared.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from estimators.datasets import Catalogue

DEAL_SEED = 1797  # fixes the pools for ever; the seed of a project has no part in them
POOL_ENDS = {"pretrain": 1 / 3, "tasks": 1.0}  # cumulative shares of each class

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinTask:
    """Which digits of which pool, and how they look.

    Attributes:
        pool: key of ``POOL_ENDS``.
        digits: the classes.
        view: what is done to the 8 x 8 pixels.
        summary: one phrase for lists.
    """

    pool: str
    digits: tuple[int, ...]
    summary: str
    view: Callable[[Pixels], Pixels] = np.asarray


ALL_DIGITS = tuple(range(10))
SUBSETS = {
    "": (ALL_DIGITS, "digits 0-9"),
    "-low": ((0, 1, 2, 3, 4), "digits 0-4"),
    "-high": ((5, 6, 7, 8, 9), "digits 5-9"),
    "-even": ((0, 2, 4, 6, 8), "even digits"),
    "-odd": ((1, 3, 5, 7, 9), "odd digits"),
}
VIEWS: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "": ("", np.asarray),
    "-rotated": (" turned by 90 degrees", lambda p: np.rot90(p)),
    "-inverted": (" inverted and mirrored", lambda p: 255 - p[:, ::-1]),
    "-transposed": (", rows and columns exchanged", lambda p: p.T),
    "-upside-down": (" upside down", lambda p: p[::-1]),
    "-rolled": (", left and right halves exchanged", lambda p: np.roll(p, p.shape[1] // 2, axis=1)),
}
BUILTIN_TASKS = {
    f"builtin/digits{view}{subset}": BuiltinTask(pool="tasks", digits=digits, summary=summary + how, view=change)
    for view, (how, change) in VIEWS.items()
    for subset, (digits, summary) in SUBSETS.items()
} | {
    "builtin/digits-pretrain": BuiltinTask(pool="pretrain", digits=ALL_DIGITS, summary="digits 0-9 for pre-training"),
}


@functools.cache
def _digits() -> tuple[Pixels, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def pool_indices(pool: str) -> NDArray[np.int64]:
    """Indices into ``load_digits`` that belong to a pool, ascending."""
    labels = _digits()[1]
    names = list(POOL_ENDS)
    start = POOL_ENDS[names[names.index(pool) - 1]] if names.index(pool) else 0.0
    members = []
    for digit in ALL_DIGITS:
        dealt = np.random.default_rng([DEAL_SEED, digit]).permutation(np.flatnonzero(labels == digit))
        members.append(dealt[round(start * len(dealt)) : round(POOL_ENDS[pool] * len(dealt))])
    return np.sort(np.concatenate(members))


def builtin_catalogue(data: str) -> Catalogue:
    """The catalogue of a built-in task; an unknown name is refused with the nearest known one."""
    if data not in BUILTIN_TASKS:
        near = difflib.get_close_matches(data, BUILTIN_TASKS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the built-in tasks are {', '.join(BUILTIN_TASKS)}"
        raise ValueError(f"data={data!r} is no built-in task; {hint}")
    task = BUILTIN_TASKS[data]
    images, digits = _digits()
    indices = pool_indices(task.pool)
    indices = indices[np.isin(digits[indices], task.digits)]

    def open_image(position: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(task.view(images[indices[position]])))

    return Catalogue(
        origin=data,
        names=tuple(f"digit-{index:04d}" for index in indices),
        labels=np.searchsorted(np.array(task.digits), digits[indices]).astype(np.int64),
        class_names=tuple(str(digit) for digit in task.digits),
        sides=tuple("" for _ in indices),
        open_sample=open_image,
        pool=f"builtin/{task.pool}",
    )
