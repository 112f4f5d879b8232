r"""What advice is: the values that flow from the recommendation to the report, the command line and the pages.

Risks are in nats, costs in per-sample gradients.  Every predicted number is a ``Predicted`` with its 90 % predictive
interval.  A model that diverged has risk ``math.inf``, which is ``null`` in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from advisor.plan import Plan

Status = Literal["advise", "caution", "refuse"]
Answer = Literal["train_and_merge", "do_not_merge", "train_jointly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A predicted risk with its 90 % predictive interval, nats."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse NaN, minus infinity and an interval that does not hold its value."""
        if not self.value > -math.inf or not self.low <= self.value <= self.high:
            raise ValueError(f"value={self.value} must lie in [low={self.low}, high={self.high}]; check the risk model")

    def holds(self, measured: float) -> bool:
        """Whether the interval holds a measured value."""
        return self.low <= measured <= self.high

    def to_json(self) -> dict[str, float | None]:
        """Plain values; an infinite one becomes ``None``."""
        return {name: _finite(getattr(self, name)) for name in ("value", "low", "high")}

    @classmethod
    def from_json(cls, data: Mapping[str, float | None]) -> Predicted:
        """The inverse of :meth:`to_json`."""
        value = _number(data["value"])
        low = data["low"] if data["low"] is not None else value if math.isinf(value) else -math.inf
        return cls(value=value, low=low, high=_number(data["high"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caveat:
    """A limit of the advice.

    Attributes:
        name: machine name, e.g. ``optimum_on_the_edge``.
        text: one sentence with the numbers.
        weight: ``info`` informs; ``warning`` can lower the status.
    """

    name: str
    text: str
    weight: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Another plan worth knowing.

    Attributes:
        label: why it is listed, e.g. ``cheapest near-optimal``.
        plan: the plan.
        goal: its predicted goal risk.
        cost: units of training it.
    """

    label: str
    plan: Plan
    goal: Predicted
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The advice.

    Attributes:
        status: ``advise``, ``caution`` or ``refuse`` (rule in ``docs/status.md``).
        answer: what to do: train and merge, do not merge, or train jointly instead.
        sentence: the advice in one sentence.
        plan: what to train and how to merge it; the best found even where the status is ``refuse``.
        tasks: predicted risk of each task.
        goal: predicted goal risk.
        initial_tasks: risk of x_0 on each task (validation).
        initial_goal: goal risk of x_0.
        floor: fitted r_inf of each task; excess risk = risk - floor.
        terms: task -> term -> part of the predicted risk, nats; the parts sum to the prediction.
        edges: optimizer -> learning rate of the stability edge at the advised batch size.
        displacement: task -> predicted ||tau_i||.
        turning_point: steps beyond which the predicted risk rises at the advised coefficients, or ``None``.
        elasticities: knob -> local exponent of the predicted goal risk.
        reasons: sentences that name numbers.
        caveats: limits, most important first.
        alternatives: near-optimal plans, the cheapest among them.
        pareto: (cost, predicted goal) of the plans on the risk-compute front with their plans.
        extrapolation: how far beyond the probes the plan lies, in factors of steps x rate (1 = inside).
        cost: purpose -> units spent before this advice.
        full_fine_tune: units of one full fine-tune of all tasks.
        training_cost: units of training the advised plan.
        seconds: wall time spent before this advice.
    """

    status: Status
    answer: Answer
    sentence: str
    plan: Plan
    tasks: Mapping[str, Predicted]
    goal: Predicted
    initial_tasks: Mapping[str, float]
    initial_goal: float
    floor: Mapping[str, float]
    terms: Mapping[str, Mapping[str, float]]
    edges: Mapping[str, Predicted]
    displacement: Mapping[str, float]
    turning_point: int | None
    elasticities: Mapping[str, Predicted]
    reasons: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    alternatives: tuple[Alternative, ...]
    pareto: tuple[Alternative, ...]
    extrapolation: float
    cost: Mapping[str, float]
    full_fine_tune: float
    training_cost: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``recommendation.json``."""
        return _plain(self)  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recommendation:
        """The inverse of :meth:`to_json`; what a run keeps beside an advice (``asked``) is left out."""
        values = {name: cell for name, cell in data.items() if name in cls.__dataclass_fields__}
        for key in ("tasks", "edges", "elasticities"):
            values[key] = {name: Predicted.from_json(cell) for name, cell in data[key].items()}
        for key in ("alternatives", "pareto"):
            values[key] = tuple(_alternative(cell) for cell in data[key])
        values["plan"] = Plan.from_json(data["plan"])
        values["goal"] = Predicted.from_json(data["goal"])
        values["terms"] = {name: _numbers(parts) for name, parts in data["terms"].items()}
        values["displacement"] = _numbers(data["displacement"])
        values["extrapolation"] = _number(data["extrapolation"])
        values["caveats"] = tuple(Caveat(**cell) for cell in data["caveats"])
        values["reasons"] = tuple(data["reasons"])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Risk and accuracy of one model on every task.

    Attributes:
        name: ``advised merge``, ``pretrained``, ``expert:<task>``, ``joint``, ``average: FusionBench`` and so on.
        kind: what sort of model it is.
        risks: task -> mean cross-entropy.
        accuracies: task -> share correct.
        goal: weighted goal risk (mean or worst task, as the project says); ``None`` for a single expert.
        cost: units of making it (training, selection and merging).
        note: how it was made.
    """

    name: str
    kind: Literal["advised", "pretrained", "expert", "joint", "baseline"]
    risks: Mapping[str, float]
    accuracies: Mapping[str, float]
    goal: float | None
    cost: float
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse NaN, and a goal where none can be or none where there must be one."""
        for task, risk in self.risks.items():
            if not risk >= 0:
                raise ValueError(f"risk of {self.name!r} on {task}={risk} must be at least 0; divergence is infinity")
        if (self.goal is None) != (self.kind == "expert"):
            raise ValueError(
                f"goal={self.goal} of {self.name!r} ({self.kind}): only an expert has none; give one or leave it out"
            )

    @property
    def diverged(self) -> bool:
        """Whether any risk is infinite."""
        return any(math.isinf(risk) for risk in self.risks.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite risk becomes ``None``."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        risks = {task: _finite(risk) for task, risk in self.risks.items()}
        goal = None if self.goal is None else _finite(self.goal)
        return plain | {"risks": risks, "accuracies": dict(self.accuracies), "goal": goal}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        """The inverse of :meth:`to_json`; only an expert has no goal, so ``None`` is infinite everywhere else."""
        goal = None if data["kind"] == "expert" else _number(data["goal"])
        return cls(**{**data, "risks": _numbers(data["risks"]), "goal": goal})

    @property
    def mean_accuracy(self) -> float:
        """Unweighted mean accuracy over tasks."""
        return sum(self.accuracies.values()) / len(self.accuracies)

    @property
    def worst_risk(self) -> float:
        """Largest risk over tasks."""
        return max(self.risks.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Predicted against measured, on test data.

    Attributes:
        models: everything measured, the advised merge first.
        predicted: task -> prediction of the advised merge.
        predicted_goal: prediction of its goal risk.
        validation_risks: the advised merge on *validation* data; the only figures a refit may use.
        verdicts: (name, pass|warn|fail, sentence with the figures behind it).
        cost: purpose -> units spent on validation.
    """

    models: tuple[Measured, ...]
    predicted: Mapping[str, Predicted]
    predicted_goal: Predicted
    validation_risks: Mapping[str, float]
    verdicts: tuple[tuple[str, Literal["pass", "warn", "fail"], str], ...]
    cost: Mapping[str, float]

    def model(self, name: str) -> Measured:
        """The measured model of that name."""
        for model in self.models:
            if model.name == name:
                return model
        raise ValueError(f"name={name!r} was not measured; the models are {[m.name for m in self.models]}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``validation.json``."""
        return _plain(self)  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Validation:
        """The inverse of :meth:`to_json`."""
        return cls(
            models=tuple(Measured.from_json(model) for model in data["models"]),
            predicted={name: Predicted.from_json(cell) for name, cell in data["predicted"].items()},
            predicted_goal=Predicted.from_json(data["predicted_goal"]),
            validation_risks=_numbers(data["validation_risks"]),
            verdicts=tuple((name, verdict, text) for name, verdict, text in data["verdicts"]),
            cost=dict(data["cost"]),
        )


def _alternative(data: Mapping[str, Any]) -> Alternative:
    return Alternative(
        label=data["label"],
        plan=Plan.from_json(data["plan"]),
        goal=Predicted.from_json(data["goal"]),
        cost=data["cost"],
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Plan | Predicted | Measured):
        return value.to_json()
    if isinstance(value, Recommendation | Validation | Alternative | Caveat):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(cell) for key, cell in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(cell) for cell in value]
    return _finite(value) if isinstance(value, float) else value
