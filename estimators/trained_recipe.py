r"""The recipe of a run that was trained elsewhere, and how it reads as a :class:`~estimators.recipe.Recipe`.

Every training program has knobs that the theory does not know: augmentation, gradient clipping, other schedules, LoRA.
``as_recipe`` maps what is known and says in one sentence each what was read as something else or left out; an
optimizer whose steps are of another kind is refused.

A schedule is matched by the sum of its factors, which sets how far a run goes: linear and cosine decay both sum to
K/2, like this package's ``warmup_cosine``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from estimators.recipe import DEFAULT_MOMENTUM, WARMUP_FRACTION, Optimizer, Recipe, Schedule
from estimators.update_rules import BETA1, BETA2

REQUIRED = ("learning_rate", "batch_size", "steps", "optimizer", "schedule", "weight_decay")
OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": "sgd",
    "momentum": "momentum",
    "adamw": "adamw",
    "adam": "adamw",
}
SCHEDULES: Mapping[str, Schedule] = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "warmup_cosine": "warmup_cosine",
    "cosine": "warmup_cosine",
    "linear": "warmup_cosine",
}
WARMUP_TOLERANCE = 0.05  # of the steps, between a run's warm-up and the schedule it is read as


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRecipe:
    """How a run elsewhere was trained.

    Attributes:
        learning_rate: peak learning rate.
        batch_size: samples in one optimizer step, over all devices and accumulated micro-batches.
        steps: optimizer steps planned.
        optimizer: ``sgd``, ``momentum``, ``adam`` or ``adamw``.
        schedule: ``constant``, ``constant_with_warmup``, ``warmup_cosine``, ``cosine`` or ``linear``.
        weight_decay: coefficient.
        momentum: heavy-ball coefficient of ``momentum``.
        nesterov: whether it is Nesterov's.
        betas: the two of Adam.
        warmup_steps: linear warm-up, steps; ``None`` where the schedule has its own.
        gradient_clipping: largest gradient norm, or ``None``.
        num_samples: training samples, or ``None`` for all of the task.
        augmentation: how inputs were changed at random, in words; empty for not at all.
        dropout: largest rate.
        label_smoothing: 0 for none.
        lora_rank: rank of low-rank adapters, or ``None`` for full weights.
        frozen: parameters that did not move, in words or prefixes.
        remarks: anything else that readers of advice should know, a sentence each.
    """

    learning_rate: float
    batch_size: int
    steps: int
    optimizer: str
    schedule: str
    weight_decay: float
    momentum: float | None = None
    nesterov: bool = False
    betas: tuple[float, float] | None = None
    warmup_steps: int | None = None
    gradient_clipping: float | None = None
    num_samples: int | None = None
    augmentation: str = ""
    dropout: float = 0.0
    label_smoothing: float = 0.0
    lora_rank: int | None = None
    frozen: tuple[str, ...] = field(default=())
    remarks: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what cannot be read as a recipe."""
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"recipe.{name}={getattr(self, name)!r} is not one of {', '.join(known)}, whose laws are known; "
                    "train the probes with one of them"
                )
        for name in ("momentum", "gradient_clipping", "dropout", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"recipe.{name}={value} must be at least 0 and finite; leave it out for none")
        for name in ("warmup_steps", "num_samples", "lora_rank"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= (0 if name == "warmup_steps" else 1)):
                raise ValueError(f"recipe.{name}={value!r} must be a whole number above 0; leave it out for none")
        for name in ("frozen", "remarks"):
            object.__setattr__(self, name, tuple(str(item) for item in getattr(self, name)))
        object.__setattr__(self, "betas", None if self.betas is None else tuple(self.betas))
        self.as_recipe()

    def as_recipe(self) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe that the laws see, and a sentence for each thing that they do not."""
        optimizer = OPTIMIZERS[self.optimizer]
        if optimizer == "sgd" and self.momentum:
            optimizer = "momentum"
        momentum = math.nan
        if optimizer == "momentum":
            momentum = DEFAULT_MOMENTUM if self.momentum is None else self.momentum
        recipe = Recipe(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            steps=self.steps,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=self.weight_decay,
            schedule=SCHEDULES[self.schedule],
            num_samples=self.num_samples,
        )
        return recipe, (*self._optimizer_notes(), *self._schedule_notes(recipe), *self._other_notes())

    def _optimizer_notes(self) -> list[str]:
        found = []
        if self.optimizer == "adam" and self.weight_decay:
            found.append(f"Adam's coupled weight decay {self.weight_decay:g} was read as AdamW's decoupled one")
        if self.betas is not None and self.betas != (BETA1, BETA2):
            found.append(f"betas {self.betas} were read as ({BETA1:g}, {BETA2:g})")
        if self.nesterov:
            found.append("Nesterov's momentum was read as heavy-ball momentum")
        return found

    def _schedule_notes(self, recipe: Recipe) -> list[str]:
        warmup = round(WARMUP_FRACTION * self.steps) if recipe.schedule == "warmup_cosine" else 0
        found = []
        if self.schedule not in ("constant", "constant_with_warmup", "warmup_cosine"):
            found.append(f"the {self.schedule} schedule was read as warm-up + cosine, whose rates add up to the same")
        given = warmup if self.warmup_steps is None else self.warmup_steps
        if abs(given - warmup) > WARMUP_TOLERANCE * self.steps:
            found.append(f"a warm-up of {given} of {self.steps} steps was read as one of {warmup}")
        return found

    def _other_notes(self) -> list[str]:
        found = []
        if self.gradient_clipping:
            found.append(f"gradients were clipped at a norm of {self.gradient_clipping:g}, which the laws do not know")
        if self.augmentation:
            found.append(f"inputs were augmented ({self.augmentation}), which the constants at x_0 do not see")
        if self.dropout:
            found.append(f"dropout of {self.dropout:g} was on, which the constants at x_0 do not see")
        if self.label_smoothing:
            found.append(f"labels were smoothed by {self.label_smoothing:g}, so training losses are not risks")
        if self.lora_rank is not None:
            found.append(
                f"LoRA of rank {self.lora_rank} moved the weights inside a subspace; constants are those of all weights"
            )
        if self.frozen:
            found.append(f"{', '.join(self.frozen)} did not move; constants are those of all movable weights")
        return [*found, *self.remarks]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what was left at its default."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        kept = {k: v for k, v in plain.items() if k in REQUIRED or v != defaults[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainedRecipe:
        """The inverse of :meth:`to_json`; missing and unknown fields are refused by name."""
        missing = [name for name in REQUIRED if data.get(name) is None]
        if missing:
            raise ValueError(f"recipe lacks {', '.join(missing)}; add what the run was trained with")
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise ValueError(f"recipe fields {unknown} are not known; the fields are {known}")
        for name in ("learning_rate", "weight_decay", "batch_size", "steps"):
            if isinstance(data[name], bool) or not isinstance(data[name], int | float):
                raise ValueError(f"recipe.{name}={data[name]!r} must be a number; write it without quotes")
        return cls(**data)

    @classmethod
    def of(cls, recipe: Recipe, **more: Any) -> TrainedRecipe:
        """A recipe of this package, with what else is known of the run."""
        given: dict[str, Any] = {name: getattr(recipe, name) for name in (*REQUIRED, "num_samples")}
        if recipe.optimizer == "momentum":
            given["momentum"] = recipe.momentum
        return cls(**(given | more))
