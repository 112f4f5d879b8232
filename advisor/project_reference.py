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
| `data/reviews.csv`, `.tsv`, `.jsonl` | texts: a table with the columns `text` and `label` (others: `reader`) |
| `data/topics` | texts: a folder of `.txt` files, one a class, one text a line |

`builtin/digits-pretrain` holds a third of scikit-learn's images and shares none with the others. The others are made
from the remaining two thirds, so they share images with each other; with one `seed` and one `split` an image is on the
same side of all of them, and preparing says how many are shared. A folder that happens to be called `torch` or
`builtin` is written `./torch/…`.

Images are turned upright, cut to their centre square, resized to `image_size` (bilinear, antialiased) and stored in the
run as bytes. Splits are made once with `seed`, stratified by class, and stored in the run; given split folders are
respected, a missing one is cut from train. Test data are opened by validation alone, and the run records who opened
them. Unreadable images stop a command with their names, unless `--skip-unreadable` leaves them out with a caveat.

## Texts

With `backbone.kind: transformers` every task is one of texts, and with a timm model none is:

```yaml
backbone: {kind: transformers, name: models/minilm, max_length: 32, frozen: [embeddings, encoder.layer.0]}
tasks:
  reviews: {data: data/reviews.csv}
  topics: {data: data/topics}
```

`name` is a folder or a .zip with `config.json`, `tokenizer.json` and `model.safetensors` as `save_pretrained` writes
them, `package/NAME` for an installed Python package that carries these files, or with `pretrained: true` a model of the
hub. Nothing else of a model is read, no pickle is opened and no code beside it is run. The types are albert, bert,
camembert, distilbert, electra, mpnet, roberta and xlm-roberta. Features are the mean of the last hidden states over a
text's tokens.

Texts are UTF-8. A table or a folder of class files may have `train`, `val` and `test` (as files or folders) above or
beside it. Texts are tokenised once; longer ones than `max_length` tokens are cut, and a note says how many. A text that
stands there twice counts once, one with two labels is left out, one that lies in two given splits stays in the later
one (train, validation, test); notes say how many these were. A text is known by its content, so the order of lines
changes no split. The run keeps tokens, not texts. Experts and merges carry the names of the transformers class:
`model.safetensors` of a merge goes back beside the encoder's `config.json`.

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
