"""The parts of a project file that say where advice is looked for and what probing may cost."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from advisor.project_values import CoefficientRange, PositiveRange, Real, Settings, Whole, WholeRange

OptimizerName = Literal["sgd", "momentum", "adamw"]
ScheduleName = Literal["constant", "warmup_cosine"]

DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE)


def parse_duration(value: Any) -> Any:
    """Seconds of ``90``, ``90s``, ``30m``, ``2h`` or ``1h30m``.

    >>> parse_duration("1h30m"), parse_duration("45s"), parse_duration(90)
    (5400.0, 45.0, 90)
    """
    if isinstance(value, bool):
        raise ValueError("must be a duration such as 30m, 2h or a number of seconds")
    if not isinstance(value, str):
        return value
    text = value.strip().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError("must be a duration such as 30m, 2h, 1h30m or a number of seconds; write one of these")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


class CoefficientSettings(Settings):
    """The merging coefficients lambda."""

    scope: Literal["per_task", "shared"] = Field(
        default="per_task", description="A coefficient for each task, or one shared by all."
    )
    range: CoefficientRange = Field(default=(0.0, 2.0), description="Least and greatest coefficient, linear scale.")


class SearchSettings(Settings):
    """The space of recipes and coefficients."""

    learning_rate: dict[OptimizerName, PositiveRange] = Field(
        default={"sgd": (1e-4, 1.0), "adamw": (1e-5, 1e-2)},
        description="Optimizer (`sgd`, `momentum`, `adamw`) -> least and greatest peak learning rate, log scale; "
        "optimizers not named are not searched.",
    )
    batch_size: WholeRange = Field(
        default=(8, 128), description="Least and greatest batch, samples, log scale; at most the training samples."
    )
    steps: WholeRange = Field(default=(20, 640), description="Fewest and most fine-tuning steps, log scale.")
    schedule: tuple[ScheduleName, ...] = Field(
        default=("constant", "warmup_cosine"), description="Learning-rate schedules to choose from."
    )
    coefficients: CoefficientSettings = Field(default=CoefficientSettings(), description="The merging coefficients.")
    per_task_recipes: bool = Field(default=False, description="Whether each task gets a recipe of its own.")

    @field_validator("learning_rate", "schedule", mode="after")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if not value:
            raise ValueError("must not be empty; name at least one, or remove the key for the default")
        return value

    @field_validator("schedule", mode="after")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a schedule twice; name each once")
        return value


class BudgetSettings(Settings):
    """What probing may cost."""

    probe_share: Real = Field(
        default=0.25,
        gt=0,
        le=100,
        description="Everything before advice may cost this many full fine-tunes of all tasks (tasks x most steps x 32 "
        "per-sample gradients), everything counted.",
    )
    max_cost: Real | None = Field(
        default=None, gt=0, description="The same as a number of per-sample gradients; the smaller of the two holds."
    )
    time_limit: Annotated[Real | None, BeforeValidator(parse_duration)] = Field(
        default=None, gt=0, description="Wall time of a command: `30m`, `2h`, `1h30m` or seconds; null for none."
    )
    probes: Whole | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="Number of probes; null: until the advice has settled, or the budget is spent.",
    )
