"""The table of every field of the project file, made from the models; ``docs/project-file.md`` holds it.

python -m advisor.project_reference > docs/project-file.md
"""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from advisor.project import Project

INTRODUCTION = """# The project file

YAML, read by `merge-advisor` and `advisor.load_project`. `merge-advisor init FOLDER…` writes one by looking at
folders, `merge-advisor check project.yaml` looks one over. Only `backbone` and `tasks` are needed; everything else has
a default.

```yaml
backbone: {name: resnet18, pretrained: true}
tasks:
  flowers: {data: data/flowers}
  digits: {data: builtin/digits-low}
```

- Unknown keys are refused with the nearest known one, keys given twice too; anchors, aliases and tags are not used.
- Relative paths start from the file's folder (or from `folder`, relative to it).
- `backbone: resnet18` is short for `backbone: {name: resnet18}`, `flowers: data/flowers` for `{data: data/flowers}`.
- A range is `[least, greatest]`; equal ends fix the value.

## Data sources

| `data` | what it is |
|---|---|
| `data/flowers` | a folder of class folders, with or without `train/`, `val/` (`valid/`, `validation/`), `test/` |
| `builtin/digits`, `-low`, `-high`, `-even`, `-odd` | scikit-learn's 8 x 8 digits: all, 0-4, 5-9, even, odd |
| `builtin/digits-rotated`, `-inverted`, `-transposed`, `-upside-down`, `-rolled` | all ten digits in other views |
| `builtin/digits-pretrain` | all ten digits, images of their own: what a demo's backbone is pre-trained on |
| `torch/cifar10`, `hfds/…`, `hfids/…`, `tfds/…`, `wds/…` | what `timm.data.create_dataset` opens; see `reader` |

`builtin/digits-pretrain` holds a third of scikit-learn's images and shares none with the others. The others are made
from the remaining two thirds, so they share images with each other; with one `seed` and one `split` an image is on the
same side of all of them, and preparing says how many are shared. A folder that happens to be called `torch` or
`builtin` is written `./torch/…`.

Images are turned upright, cut to their centre square, resized to `image_size` (bilinear, antialiased) and stored in the
run as bytes. Splits are made once with `seed`, stratified by class, and stored in the run; given split folders are
respected, a missing one is cut from train. Test data are opened by validation alone, and the run records who opened
them. Unreadable images stop a command with their names, unless `--skip-unreadable` leaves them out with a caveat.

## Fields
"""


def reference() -> str:
    """The whole page."""
    return INTRODUCTION + "\n".join(["", "| field | default | meaning |", "|---|---|---|", *_rows(Project, "")]) + "\n"


def field_places(model: type[BaseModel] = Project, prefix: str = "") -> list[str]:
    """Every field as its place in the file, e.g. ``search.batch_size``."""
    places = []
    for name, field in model.model_fields.items():
        inner, suffix = _inner_model(field.annotation)
        places.append(f"{prefix}{name}")
        if inner is not None:
            places += field_places(inner, f"{prefix}{name}{suffix}.")
    return places


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        inner, suffix = _inner_model(field.annotation)
        default = "" if isinstance(field.default, BaseModel) else _shown(field.default)
        if field.default is PydanticUndefined:
            default = "*needed*"
        description = str(field.description).replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {default} | {description} |")
        if inner is not None:
            rows += _rows(inner, f"{prefix}{name}{suffix}.")
    return rows


def _inner_model(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model inside a field's type, and ``.<name>`` where it sits in a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return _inner_model(arguments[1])[0], ".<task>"
    if origin in (typing.Union, types.UnionType):
        return next(((m, s) for m, s in map(_inner_model, arguments) if m is not None), (None, ""))
    return None, ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(reference(), end="")
