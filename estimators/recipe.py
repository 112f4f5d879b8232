r"""A recipe: how one expert is fine-tuned.

The bound sees a recipe through its *effective step vector* a [K] (``docs/theory.md`` section 1): the weights move by
x_K - x_0 = -eta * sum_k a_k g_k to first order, where g_k is the mini-batch gradient of step k,

    plain SGD            a_k = s_k
    heavy-ball momentum  a_k = sum_{l>=k} m^{l-k} s_l        (PyTorch's convention: no dampening)
    AdamW                a_k = s_k, in the preconditioned metric

and s_k in (0, 1] is the schedule's factor at step k (1 for a constant schedule).  Normalised averaging of local
updates: Wang et al. 2020 (FedNova).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Optimizer = Literal["sgd", "momentum", "adamw"]
Schedule = Literal["constant", "warmup_cosine", "range_test"]
Sampling = Literal["shuffled", "with_replacement"]
Alignment = Literal["none", "tangent", "sam"]

DEFAULT_MOMENTUM = 0.9
DEFAULT_WEIGHT_DECAY = {"sgd": 0.0, "momentum": 0.0, "adamw": 0.01}
RANGE_TEST_DECADES = 4.0  # a learning-rate range test starts so many decades below its peak
WARMUP_FRACTION = 0.1  # share of the steps spent warming up, at least one step


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The recipe of one expert.

    Attributes:
        learning_rate: peak learning rate eta, > 0.
        batch_size: samples a step b, >= 1.
        steps: fine-tuning steps K, >= 1.
        optimizer: ``sgd``, ``momentum`` (heavy ball) or ``adamw`` (betas 0.9, 0.999, eps 1e-8).
        momentum: heavy-ball coefficient; 0 unless the optimizer is ``momentum`` (default 0.9 there).
        weight_decay: decoupled for AdamW (default 0.01), an L2 term otherwise (default 0).
        schedule: ``constant``; ``warmup_cosine``: linear over the first tenth, then cosine to zero; ``range_test``:
            exponential rise over four decades to the peak (Smith 2017), for measuring only.
        sampling: ``shuffled`` epochs without replacement, or ``with_replacement`` (the theory's sampling).
        num_samples: use only the first n training samples of the task; ``None`` for all.
        alignment: ``tangent`` (linearised fine-tuning) or ``sam`` (sharpness-aware, radius 0.05) or ``none``.

    >>> Recipe(learning_rate=0.1, batch_size=8, steps=3).step_weights().tolist()
    [1.0, 1.0, 1.0]
    >>> Recipe(learning_rate=0.1, batch_size=8, steps=3, optimizer="momentum", momentum=0.5).step_weights().tolist()
    [1.75, 1.5, 1.0]
    """

    learning_rate: float
    batch_size: int
    steps: int
    optimizer: Optimizer = "sgd"
    momentum: float = math.nan
    weight_decay: float = math.nan
    schedule: Schedule = "constant"
    sampling: Sampling = "shuffled"
    num_samples: int | None = None
    alignment: Alignment = "none"

    def __post_init__(self) -> None:
        """Check every field and fill the defaults that depend on the optimizer."""
        _require_choice("optimizer", self.optimizer, get_args(Optimizer))
        _require_choice("schedule", self.schedule, get_args(Schedule))
        _require_choice("sampling", self.sampling, get_args(Sampling))
        _require_choice("alignment", self.alignment, get_args(Alignment))
        if math.isnan(self.momentum):
            object.__setattr__(self, "momentum", DEFAULT_MOMENTUM if self.optimizer == "momentum" else 0.0)
        if math.isnan(self.weight_decay):
            object.__setattr__(self, "weight_decay", DEFAULT_WEIGHT_DECAY[self.optimizer])
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(
                f"learning_rate={self.learning_rate} must be positive and finite; give a rate such as 0.01"
            )
        for name in ("batch_size", "steps", "num_samples"):
            value = getattr(self, name)
            if value is None and name == "num_samples":
                continue
            if not (isinstance(value, int | np.integer) and value >= 1):
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1; give it as an integer")
            object.__setattr__(self, name, int(value))
        if self.optimizer == "momentum" and not 0 < self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} must lie in (0, 1); use optimizer='sgd' for none")
        if self.optimizer != "momentum" and self.momentum != 0:
            raise ValueError(
                f"momentum={self.momentum} needs optimizer='momentum', not {self.optimizer!r}; "
                "leave it out or change the optimizer"
            )
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay={self.weight_decay} must be at least 0; give 0 for none")

    def schedule_factors(self) -> NDArray[np.float64]:
        """The schedule's factors s_k, shape [K], dimensionless, each in (0, 1]."""
        return schedule_factors(self.schedule, self.steps)

    def step_weights(self) -> NDArray[np.float64]:
        """The effective step vector a, shape [K] (module docstring)."""
        weights = self.schedule_factors()
        for k in range(self.steps - 2, -1, -1) if self.momentum else ():
            weights[k] += self.momentum * weights[k + 1]
        return weights

    def cost(self) -> int:
        """Cost of training with this recipe, in per-sample gradients."""
        passes = {"none": 1, "sam": 2, "tangent": 2}[self.alignment]
        return self.batch_size * self.steps * passes

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; a changed optimizer gets its own defaults again."""
        if changes.get("optimizer", self.optimizer) != self.optimizer:
            changes = {"momentum": math.nan, "weight_decay": math.nan} | changes
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """The inverse of :meth:`to_json`; unknown fields are refused."""
        if isinstance(data, dict):
            try:
                return _decoded(tuple(data.items()), tuple(map(type, data.values())))
            except TypeError:  # a value that no field can hold: refused below, in its own words
                pass
        return cls._checked(data)

    @classmethod
    def _checked(cls, data: dict[str, Any]) -> Recipe:
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"recipe fields {unknown} are not known; the fields are {sorted(known)}")
        return cls(**data)

    def describe(self) -> str:
        """One readable phrase, e.g. ``sgd, learning rate 0.01, batch 32, 320 steps, constant``."""
        name = f"momentum {self.momentum:g}" if self.optimizer == "momentum" else self.optimizer
        text = f"{name}, learning rate {self.learning_rate:.3g}, batch {self.batch_size}, {self.steps} steps"
        return f"{text}, {self.schedule.replace('_', ' + ')}"


@functools.lru_cache(maxsize=4096)
def _decoded(items: tuple[tuple[str, Any], ...], types: tuple[type, ...]) -> Recipe:
    """A log of a long run holds a few recipes thousands of times; ``types`` tell 8 from 8.0, which are equal."""
    return Recipe._checked(dict(items))


def schedule_factors(schedule: Schedule, steps: int) -> NDArray[np.float64]:
    """Factors s_k of a schedule over ``steps`` steps, shape [K].

    ``warmup_cosine`` rises linearly over W = max(1, round(K/10)) steps, s_k = (k+1)/W, then follows
    0.5 (1 + cos(pi (k+1-W)/(K-W+1))), which stays positive at the last step.
    """
    if schedule == "constant":
        return np.ones(steps)
    if schedule == "range_test":
        return np.asarray(10.0 ** np.linspace(-RANGE_TEST_DECADES, 0.0, steps))
    warmup = max(1, round(WARMUP_FRACTION * steps))
    k = np.arange(steps)
    rising = (k + 1) / warmup
    falling = 0.5 * (1 + np.cos(np.pi * (k + 1 - warmup) / (steps - warmup + 1)))
    return np.where(k < warmup, rising, falling)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}; choose one of them")
