"""Data sets that timm opens: ``torch/..``, ``hfds/..``, ``hfids/..``, ``tfds/..``, ``wds/..``.

``timm.data.create_dataset`` does the opening.  Data sets with an index are listed by their labels and decoded later;
streams are read once, in their order, and kept as squares of the size that the backbone wants.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from estimators.datasets import Catalogue, Side
from estimators.image_decoding import UnreadableImage, check_size

STREAMS = ("hfids", "tfds", "wds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """How timm opens a data set.

    Attributes:
        root: folder the data set lies in or is downloaded to.
        download: download what is missing.
        splits: our side -> the data set's own name of that split; train is needed.
        image_key: column of the images, where the format has columns.
        label_key: column of the labels.
    """

    root: Path
    download: bool = True
    splits: dict[Side, str] = field(default_factory=lambda: {"train": "train"})
    image_key: str | None = None
    label_key: str | None = None


def timm_catalogue(data: str, options: ReaderOptions, *, image_size: int, limit: int | None = None) -> Catalogue:
    """The catalogue of a data set that timm opens.

    Args:
        data: its name, prefix included.
        options: where it lies and how its parts are called.
        image_size: side of the squares kept from streams, pixels.
        limit: read at most this many samples from a stream.

    Raises:
        ValueError: if it is unknown, cannot be reached or has no usable labels; the error names the next step.
    """
    names: list[str] = []
    labels: list[int] = []
    sides: list[Side] = []
    openers: list[Callable[[], Image.Image]] = []
    classes: tuple[str, ...] = ()
    for side, split in options.splits.items():
        dataset = _create(data, split, options)
        found = _class_names(dataset)
        if classes and found and found != classes:
            raise ValueError(f"data={data!r}: split {split!r} has other classes than train; name another split")
        classes = classes or found
        with _explained(data, options, "read"):
            samples = _stream(dataset, image_size, limit) if _is_stream(data) else _indexed(dataset)
            part = list(samples)
        for position, (label, opener) in enumerate(part):
            names.append(f"{split}/{position}")
            labels.append(_whole(label, data))
            sides.append(side if len(options.splits) > 1 else "")
            openers.append(opener)
    if not names:
        raise ValueError(f"data={data!r} holds no sample in {', '.join(options.splits.values())}; name another split")
    array: NDArray[np.int64] = np.array(labels, dtype=np.int64)
    cut = limit is not None and _is_stream(data) and limit in [sides.count(side) for side in set(sides)]
    return Catalogue(
        origin=data,
        names=tuple(names),
        labels=array,
        class_names=classes or tuple(str(label) for label in range(int(array.max()) + 1)),
        sides=tuple(sides),
        open_sample=lambda position: openers[position](),
        notes=(f"data={data!r}: only the first {limit} samples of the stream were read",) if cut else (),
    )


def _is_stream(data: str) -> bool:
    return data.split("/", 1)[0].lower() in STREAMS


def _create(data: str, split: str, options: ReaderOptions) -> Any:
    """Open one split with ``timm.data.create_dataset``."""
    from timm.data.dataset_factory import create_dataset

    extra: dict[str, Any] = {}
    if not data.lower().startswith("torch/"):
        extra = {"input_key": options.image_key, "target_key": options.label_key}
    with _explained(data, options, "opened"):
        return create_dataset(
            data,
            root=str(options.root),
            split=split,
            is_training=False,
            download=options.download,
            **{key: value for key, value in extra.items() if value is not None},
        )


@contextlib.contextmanager
def _explained(data: str, options: ReaderOptions, verb: str) -> Iterator[None]:
    """Turn whatever a data-set library raises into one paragraph with the next step."""
    try:
        yield
    except ImportError as error:
        package = {"hfds": "datasets", "hfids": "datasets", "tfds": "tensorflow-datasets", "wds": "webdataset"}
        needed = package.get(data.split("/", 1)[0].lower(), str(error.name))
        raise ValueError(f"data={data!r} needs the package {needed!r}; install it beside merge-advisor") from error
    except AssertionError as error:
        raise ValueError(f"data={data!r} is refused by timm ({error}); correct tasks.<name>.data") from error
    except Exception as error:  # every library has its own family of errors
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"data={data!r} could not be {verb} from root={str(options.root)!r} ({type(error).__name__}: {text}); "
            "check its name, its reader options and the connection, or put the images into class folders"
        ) from error


def _class_names(dataset: Any) -> tuple[str, ...]:
    classes = getattr(dataset, "classes", None)
    if classes:
        return tuple(str(name) for name in classes)
    mapping = getattr(getattr(dataset, "reader", None), "class_to_idx", None) or {}
    return tuple(str(name) for name, _ in sorted(mapping.items(), key=lambda item: int(item[1])))


def _indexed(dataset: Any) -> Iterator[tuple[Any, Callable[[], Image.Image]]]:
    """Labels of an indexed data set, without decoding images where it can tell them apart."""
    if hasattr(dataset, "_max_retries"):
        dataset._max_retries = 1  # timm would put the next image in the place of an unreadable one
    reader: Any = getattr(dataset, "reader", None)
    if getattr(dataset, "targets", None) is not None:
        labels = list(dataset.targets)
    elif hasattr(reader, "iter_targets"):
        labels = list(reader.iter_targets())
    else:
        labels = [dataset[index][1] for index in range(len(dataset))]

    def opener(index: int) -> Callable[[], Image.Image]:
        def open_one() -> Image.Image:
            try:
                image = dataset[index][0]
            except Exception as error:  # timm and torchvision raise nearly anything on a damaged file
                raise UnreadableImage(f"{type(error).__name__}: {error}") from None
            return _as_image(image)

        return open_one

    return ((label, opener(index)) for index, label in enumerate(labels))


def _stream(dataset: Any, size: int, limit: int | None) -> Iterator[tuple[Any, Callable[[], Image.Image]]]:
    """Samples of a stream, each kept as a square of ``size`` pixels."""
    for count, (image, label) in enumerate(dataset):
        if limit is not None and count >= limit:
            return
        full = _as_image(image)
        check_size(full)
        side = min(full.size)
        left, top = (full.width - side) // 2, (full.height - side) // 2
        square = full.convert("RGB").resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
        yield label, square.copy


def _as_image(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    return Image.fromarray(np.asarray(value))


def _whole(label: Any, data: str) -> int:
    try:
        value = int(label)
    except (TypeError, ValueError):
        value = -1
    if value < 0:
        raise ValueError(f"data={data!r} has the label {label!r}; every sample needs one class: set reader.label_key")
    return value
