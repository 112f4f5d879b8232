"""The project file: what a user wants merged, as YAML checked by pydantic (every field: ``docs/project-file.md``).

A project is a value: frozen, comparable, and written back to YAML without loss.  Relative paths start from the
project file's folder.  Unknown keys are refused with the nearest known one; every error names its place
(``search.batch_size``), the value, the rule and the next step.  Importing this module loads neither torch nor Optuna.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator, model_validator

from advisor.project_search import BudgetSettings, SearchSettings
from advisor.project_values import (
    Settings,
    Whole,
    check_folder_name,
    dump_settled,
    plain_yaml_value,
    refuse_bool,
)
from advisor.yaml_reading import explain, read_yaml

DEFAULT_SPLIT = (0.7, 0.15, 0.15)

Share = Annotated[float, BeforeValidator(refuse_bool)]
Amount = Annotated[float, BeforeValidator(refuse_bool)]


class Normalisation(Settings):
    """Per-channel mean and standard deviation of inputs scaled to [0, 1]."""

    mean: tuple[Amount, ...] = Field(description="Mean of each channel, or one for all.", min_length=1, max_length=3)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        description="Standard deviation of each channel, or one for all.", min_length=1, max_length=3
    )


IMAGE_KEYS = ("checkpoint", "in_chans", "image_size", "normalisation", "map_keys")  # say nothing of a text encoder
TEXT_KEYS = ("max_length",)


class BackboneSettings(Settings):
    """The pretrained weights x_0 that every expert starts from."""

    name: str = Field(
        description="A timm model name, e.g. `resnet18`; of kind `transformers`: a folder or .zip with config.json, "
        "tokenizer.json and model.safetensors, or `package/NAME` for an installed package that carries one.",
        min_length=1,
        max_length=200,
    )
    kind: Literal["timm", "transformers"] = Field(
        default="timm", description="`timm` reads images; `transformers` is a text encoder and reads texts."
    )
    pretrained: bool = Field(
        default=False, description="Take pretrained weights from the hub (of kind `transformers`: `name` is the hub's)."
    )
    max_length: Whole | None = Field(
        default=None,
        ge=2,
        le=8192,
        description="Tokens a text, longer ones are cut; null for 128 or what the model takes. Texts only.",
    )
    checkpoint: str | None = Field(
        default=None,
        description="A local state dict (.safetensors, .pth, .pt, .bin) instead; its classifier is dropped.",
    )
    in_chans: Literal[1, 3] = Field(default=3, description="Input channels: 3 (colour) or 1 (grey).")
    image_size: Whole | None = Field(
        default=None, ge=1, le=2048, description="Side of the square input, pixels; null for the model's own."
    )
    normalisation: Normalisation | None = Field(
        default=None, description="`{mean: [...], std: [...]}` of inputs in [0, 1]; null for the model's own."
    )
    frozen: tuple[str, ...] = Field(default=(), description="Parameter-name prefixes that must not move.")
    map_keys: Literal["strict", "by_order"] = Field(
        default="strict",
        description="`by_order` matches a .pth checkpoint's tensors by position where only the names differ.",
    )

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> BackboneSettings:
        alien = IMAGE_KEYS if self.kind == "transformers" else TEXT_KEYS
        for key in alien:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} belongs to kind: {'timm' if alien is IMAGE_KEYS else 'transformers'}; remove it"
                )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> BackboneSettings:
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained: true and checkpoint exclude each other; keep one of them")
        if self.map_keys == "by_order" and self.checkpoint is None:
            raise ValueError("map_keys: by_order needs a checkpoint; name one or remove map_keys")
        if self.normalisation is not None:
            for key in ("mean", "std"):
                count = len(getattr(self.normalisation, key))
                if count not in (1, self.in_chans):
                    raise ValueError(
                        f"normalisation.{key} has {count} entries for in_chans={self.in_chans}; give one a channel"
                    )
        return self


class ReaderSettings(Settings):
    """How timm opens a data set named `torch/..`, `hfds/..`, `hfids/..`, `tfds/..` or `wds/..`; columns of tables."""

    root: str = Field(default="data", description="Folder the data set lies in or is downloaded to.")
    download: bool = Field(default=True, description="Download what is missing, where the data set allows it.")
    train: str = Field(default="train", description="Name of the split that training samples come from.")
    validation: str | None = Field(default=None, description="Name of the validation split; null: cut from train.")
    test: str | None = Field(default=None, description="Name of the test split; null: cut from train.")
    image_key: str | None = Field(default=None, description="Column that holds the images (hfds, hfids, tfds, wds).")
    text_key: str | None = Field(default=None, description="Column of a table that holds the texts; null: `text`.")
    label_key: str | None = Field(
        default=None,
        description="Column that holds the labels (hfds, hfids, tfds, wds; tables of texts, null: `label`).",
    )


class TaskSettings(Settings):
    """One task: labelled images or texts."""

    data: str = Field(
        description="A folder of class folders, `builtin/digits-low`, or a data set that timm opens: "
        "`torch/..`, `hfds/..`, `hfids/..`, `tfds/..`, `wds/..`. Texts: a table (.csv, .tsv, .jsonl) or a folder of "
        ".txt files, one a class.",
        min_length=1,
    )
    limit: Whole | None = Field(
        default=None,
        ge=1,
        description="Keep this many samples over all splits, in proportion to classes; null for all.",
    )
    classes: tuple[str, ...] | None = Field(default=None, description="Use these classes alone; null for all.")
    split: tuple[Share, Share, Share] = Field(
        default=DEFAULT_SPLIT,
        description="Shares of train, validation and test where no folders give them; a missing one is cut from train.",
    )
    reader: ReaderSettings = Field(
        default=ReaderSettings(), description="Options for data sets that timm opens, and for tables."
    )

    @field_validator("classes", mode="after")
    @classmethod
    def _at_least_two(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):
            raise ValueError("must name at least two different classes; add one or remove the key")
        return value

    @field_validator("split", mode="after")
    @classmethod
    def _shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(0 < share < 1 for share in value) or abs(sum(value) - 1) > 1e-6:
            raise ValueError("must be three positive shares that sum to 1; for example [0.7, 0.15, 0.15]")
        return value


class ObjectiveSettings(Settings):
    """What counts as good."""

    weights: dict[str, Share] | None = Field(
        default=None, description="Task -> weight in the goal, scaled to sum 1; null for equal weights."
    )
    loss: Literal["cross_entropy"] = Field(default="cross_entropy", description="The risk, in nats.")
    goal: Literal["mean", "worst"] = Field(
        default="mean", description="Minimise the weighted mean of the tasks' risks, or the worst of them."
    )
    max_drop: Amount | None = Field(
        default=None,
        ge=0,
        description="No task's risk may rise above its risk at x_0 by more than this, nats; null: any.",
    )

    @field_validator("weights", mode="after")
    @classmethod
    def _usable(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for name, weight in (value or {}).items():
            if weight < 0:
                raise ValueError(
                    f"weights.{name}={weight:g} must be at least 0; give 0 to leave a task out of the goal"
                )
        if value is not None and not sum(value.values()) > 0:
            raise ValueError("must hold a positive weight; all of them are 0: raise one")
        return value


class MergeSettings(Settings):
    """How experts are merged."""

    method: str = Field(default="auto", description="A merge operator (`merge-advisor merge --help`), or `auto`.")

    @field_validator("method", mode="after")
    @classmethod
    def _known(cls, value: str) -> str:
        from advisor.merging.registry import OPERATORS

        if value != "auto" and value not in OPERATORS:
            raise ValueError(f"must be auto or one of {', '.join(OPERATORS)}; choose one")
        return value


class Project(Settings):
    """A whole project file."""

    backbone: BackboneSettings = Field(description="The pretrained model; a plain name is short for `{name: ...}`.")
    tasks: dict[str, TaskSettings] = Field(description="Name -> task; a plain path is short for `{data: ...}`.")
    heads: Literal["probe", "trained"] = Field(
        default="probe",
        description="`probe`: linear heads fitted on x_0's features, then frozen; "
        "`trained`: they train along and stay one a task.",
    )
    objective: ObjectiveSettings = Field(default=ObjectiveSettings(), description="What counts as good.")
    search: SearchSettings = Field(default=SearchSettings(), description="Where advice is looked for.")
    budget: BudgetSettings = Field(default=BudgetSettings(), description="What probing may cost.")
    merge: MergeSettings = Field(default=MergeSettings(), description="How experts are merged.")
    device: str = Field(
        default="auto", description="`auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`."
    )
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of splits, probes, searches and experts.")
    folder: str = Field(default=".", description="Folder that relative paths start from, relative to this file.")

    _origin: Path = PrivateAttr(default_factory=Path)

    @field_validator("device", mode="after")
    @classmethod
    def _device_form(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise ValueError("must be auto, cpu, cuda, cuda:N or mps; choose one")
        return value

    @field_validator("backbone", mode="before")
    @classmethod
    def _short_backbone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _short_tasks(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {"data": task} if isinstance(task, str) else task for name, task in value.items()}

    @field_validator("tasks", mode="after")
    @classmethod
    def _task_names(cls, value: dict[str, TaskSettings]) -> dict[str, TaskSettings]:
        if not value:
            raise ValueError("must name at least one task; add `name: {data: folder}`")
        for name in value:
            check_folder_name(name)
        lowered = [name.lower() for name in value]
        if len(set(lowered)) != len(lowered):
            raise ValueError(f"names {sorted(value)} differ only in upper and lower case; rename one")
        return value

    @model_validator(mode="after")
    def _weights_fit_tasks(self) -> Project:
        weights = self.objective.weights
        if weights is not None and set(weights) != set(self.tasks):
            strangers = sorted(set(weights) - set(self.tasks))
            absent = sorted(set(self.tasks) - set(weights))
            said = f"names unknown tasks {strangers}" if strangers else f"leaves out {absent}"
            raise ValueError(
                f"objective.weights {said}; the tasks are {', '.join(self.tasks)}: name each once, 0 leaves one out"
            )
        return self

    @property
    def root(self) -> Path:
        """The folder that relative paths start from."""
        return (self._origin / Path(self.folder).expanduser()).resolve()

    def path(self, relative: str) -> Path:
        """A path of the project file, made absolute."""
        return (self.root / Path(relative).expanduser()).resolve()

    def task_weights(self) -> dict[str, float]:
        """Weights p_i of the goal, in the order of the tasks, sum 1."""
        weights = self.objective.weights or dict.fromkeys(self.tasks, 1.0)
        total = sum(weights.values())
        return {name: weights[name] / total for name in self.tasks}

    def to_yaml(self, *, moved: bool = False) -> str:
        """The project as YAML with every field; ``moved`` pins ``folder``, so that it may be stored elsewhere."""
        data = plain_yaml_value(self.model_dump(mode="python"))
        if moved:
            data["folder"] = str(self.root)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)

    def content_hash(self) -> str:
        """SHA-256 of what fixes weights, splits and heads: backbone, tasks and seed.

        Two projects with one hash may share a run directory: objective, search and budget may change between commands.
        """
        tasks = {name: dump_settled(task) for name, task in self.tasks.items()}
        parts = {"backbone": dump_settled(self.backbone), "tasks": tasks, "seed": self.seed}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_mapping(cls, data: Any, *, origin: Path | str = ".", label: str = "project") -> Project:
        """Check plain values as read from YAML; ``origin`` is the folder the file lies in."""
        if not isinstance(data, Mapping):
            raise ValueError(
                f"{label} holds a {type(data).__name__}, not a mapping; it begins with `backbone:` and `tasks:`"
            )
        try:
            project = cls.model_validate(dict(data))
        except ValidationError as error:
            raise ValueError(explain(error, cls, label)) from None
        project._origin = Path(origin)
        return project


def load_project(path: Path | str) -> Project:
    """Read and check a project file.

    Raises:
        ValueError: naming file, place, value, rule and next step.
    """
    path = Path(path)
    return Project.from_mapping(read_yaml(path), origin=path.absolute().parent, label=str(path))
