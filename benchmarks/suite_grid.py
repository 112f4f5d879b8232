"""The grid of a suite: which recipes are trained, where they are looked at, and how they are merged.

    seeds: [0, 1, 2]
    checkpoints: [5, 10, 20, 40, 80, 160, 320]
    coefficients: {short: [0.25, 0.5, 1, 2, 4], long: [0.15, 0.25, 0.4, 0.6, 0.8, 1], short_steps: 40}
    evaluation: {probe: 128, validation: 256, test: 400, train: 128}
    blocks:
      - {optimizer: sgd, learning_rates: [1e-4, 1e-3], batch_sizes: [8, 32], steps: 320}
      - {optimizer: adamw, learning_rates: [1e-4], batch_sizes: [32], steps: 160, schedule: warmup_cosine}
    methods: {ties: [0.5, 1.0]}            # merge operators besides the linear one, at method_steps
    alone: 1.5                             # one expert alone at each short checkpoint, the tasks in turn
    mixed: 24                              # plans with unequal recipes, for each seed
    subsets: 12                            # plans that leave tasks out, for each seed
    pretraining: {data: ../inputs/digits-pretrain, epochs: 4}

A run with a constant schedule is also the run of every shorter recipe, so all checkpoints up to its end are kept; a
run with a schedule that depends on its length counts at its end alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.pretraining import Pretraining
from estimators.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSizes:
    """Samples a task on which merges are evaluated.

    Attributes:
        probe: first validation samples, what a probe's merge is evaluated on.
        validation: validation samples.
        test: test samples.
        train: first training samples.
    """

    probe: int = 128
    validation: int = 256
    test: int = 400
    train: int = 128

    def __post_init__(self) -> None:
        """The probe samples are a part of the validation samples."""
        if not 1 <= self.probe <= self.validation:
            raise ValueError(f"probe={self.probe} must lie in 1..validation={self.validation}; lower it")
        if self.test < 1 or self.train < 1:
            raise ValueError(f"test={self.test} and train={self.train} must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Coefficients that equal recipes are merged with.

    Attributes:
        short: for checkpoints up to ``short_steps``.
        long: for later ones.
        short_steps: border between them.
    """

    short: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    long: tuple[float, ...] = (0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
    short_steps: int = 40

    def at(self, steps: int) -> tuple[float, ...]:
        """Coefficients at a checkpoint."""
        return self.short if steps <= self.short_steps else self.long


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Recipes that differ in learning rate and batch size.

    Attributes:
        optimizer: as in ``Recipe``.
        learning_rates: peak rates.
        batch_sizes: batch sizes.
        steps: length of the runs.
        schedule: as in ``Recipe``.
        num_samples: training samples used; ``None`` for all.
    """

    optimizer: str
    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    steps: int
    schedule: str = "constant"
    num_samples: int | None = None

    def recipes(self) -> list[Recipe]:
        """One recipe for each batch size and rate."""
        return [
            Recipe(
                optimizer=self.optimizer,  # type: ignore[arg-type]
                learning_rate=float(rate),
                batch_size=batch,
                steps=self.steps,
                schedule=self.schedule,  # type: ignore[arg-type]
                num_samples=self.num_samples,
            )
            for batch in self.batch_sizes
            for rate in self.learning_rates
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A whole grid; see the module's example.

    Attributes:
        seeds: of splits, heads and batch order.
        checkpoints: steps at which experts are kept, merged and evaluated.
        coefficients: of equal recipes.
        evaluation: samples a task.
        blocks: recipes.
        methods: operator -> coefficients, besides task arithmetic.
        method_steps: checkpoints at which ``methods`` are measured.
        alone: coefficient with which one expert alone is merged at each short checkpoint, the tasks in turn.
        mixed: plans with unequal recipes, for each seed.
        mixed_steps: checkpoints that they draw from.
        subsets: plans that leave tasks out, for each seed.
        joint: recipes of joint training on all tasks, for comparison.
        stack: most runs trained together.
        constants_share: budget of the constants at x_0, in full fine-tunes.
        pretraining: how x_0 is made where its checkpoint is missing.
    """

    blocks: tuple[Block, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    checkpoints: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320)
    coefficients: Coefficients = field(default_factory=Coefficients)
    evaluation: EvaluationSizes = field(default_factory=EvaluationSizes)
    methods: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    method_steps: tuple[int, ...] = ()
    alone: float | None = None
    mixed: int = 0
    mixed_steps: tuple[int, ...] = ()
    subsets: int = 0
    joint: tuple[Block, ...] = ()
    stack: int = 16
    constants_share: float = 0.06
    pretraining: Pretraining | None = None

    def __post_init__(self) -> None:
        """Check that the grid is not empty and that every later stage has checkpoints to draw from."""
        if not self.blocks or not self.seeds or not self.checkpoints:
            raise ValueError("blocks, seeds and checkpoints must not be empty; name at least one of each")
        if list(self.checkpoints) != sorted({*self.checkpoints}) or self.checkpoints[0] < 1:
            raise ValueError(f"checkpoints={list(self.checkpoints)} must increase from 1 or more; sort them")
        for name in ("method_steps", "mixed_steps"):
            unknown = sorted(set(getattr(self, name)) - set(self.checkpoints))
            if unknown:
                raise ValueError(f"{name} names {unknown}, which are no checkpoints; use some of {self.checkpoints}")
        if (self.mixed and not self.mixed_steps) or (self.methods and not self.method_steps):
            raise ValueError("mixed needs mixed_steps and methods need method_steps; name checkpoints for them")

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All recipes, in the order in which they are trained."""
        return tuple(recipe for block in self.blocks for recipe in block.recipes())

    @property
    def max_steps(self) -> int:
        """Longest run, K_max."""
        return max(block.steps for block in self.blocks)

    def alone_at(self, recipe: Recipe, steps: int, names: Sequence[str]) -> str | None:
        """The one task that is merged alone at a checkpoint, or ``None``."""
        if self.alone is None or steps > self.coefficients.short_steps or len(names) < 2:
            return None
        turn = self.recipes.index(recipe) + self.checkpoints_of(recipe).index(steps)
        return names[turn % len(names)]

    def checkpoints_of(self, recipe: Recipe) -> tuple[int, ...]:
        """Steps at which a run of ``recipe`` is a recipe of its own."""
        if recipe.schedule != "constant":
            return (recipe.steps,)
        return tuple(sorted({k for k in self.checkpoints if k <= recipe.steps} | {recipe.steps}))

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], folder: Path) -> Grid:
        """Check plain values as read from YAML; paths start from ``folder``."""
        values = dict(data)
        _refuse_unknown(cls, values, "grid")
        for name, part in (("coefficients", Coefficients), ("evaluation", EvaluationSizes)):
            if name in values:
                values[name] = _build(part, values[name], f"grid.{name}")
        for name in ("blocks", "joint"):
            if name in values:
                values[name] = tuple(_build(Block, block, f"grid.{name}") for block in values[name])
        if values.get("pretraining"):
            settings = dict(values["pretraining"])
            settings["data"] = folder / str(settings["data"])
            settings["learning_rate"] = float(settings.get("learning_rate", 2e-3))  # YAML reads 1e-3 as text
            values["pretraining"] = _build(Pretraining, settings, "grid.pretraining")
        if "methods" in values:
            values["methods"] = {name: _plain(list(cells)) for name, cells in values["methods"].items()}
        return cls(**{name: _plain(value) for name, value in values.items()})


def _build(kind: type, data: Mapping[str, Any], label: str) -> Any:
    _refuse_unknown(kind, data, label)
    return kind(**{name: _plain(value) for name, value in data.items()})


def _plain(value: Any) -> Any:
    """Lists as tuples; YAML reads ``1e-4`` as text."""
    if isinstance(value, Sequence) and not isinstance(value, str | tuple):
        return tuple(float(item) if isinstance(item, str) else item for item in value)
    return value


def _refuse_unknown(kind: Any, data: Mapping[str, Any], label: str) -> None:
    known = {cell.name for cell in fields(kind)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"{label} holds unknown keys {unknown}; the keys are {sorted(known)}")
