r"""Predicted against measured: the only module that opens test data.

Measured on every task's test split: the advised merge, each expert, x_0, joint training and the default recipes'
merges.  The advised merge is measured on validation data too; a refit sees those figures and no others.

Verdicts, each with its figures:

    interval    pass if the goal's 90 % interval holds the measured risk; warn within one more half-width; else fail
    gain        pass if the advised merge beats x_0 on the goal risk, else fail
    baselines   pass if no default at equal cost has a lower goal risk; warn if only its best lambda has; else fail
    tasks       pass if at least 3/4 of the task intervals hold; warn from 1/2; else fail
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from advisor.advice import Measured, Predicted
from advisor.baselines import Contender
from advisor.merged_risks import MergedRisks, finite_risk
from advisor.unfinished import measured_once, piece_name
from advisor.wording import measured_text
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective, evaluate
from estimators.snapshot_folder import NotKept, Pieces
from estimators.splits import open_test
from estimators.tasks import Split
from estimators.tensor_digests import tensor_digest

Verdict = Literal["pass", "warn", "fail"]
GoalFunction = Callable[[Mapping[str, float]], float]


def open_tests(run: Path, tasks: Sequence[str]) -> dict[str, Split]:
    """The test split of every task; each opening is recorded in the run."""
    return {name: open_test(run, name, reader="validation") for name in tasks}


def measure_models(
    advised: Contender,
    others: Sequence[Contender],
    objectives: Mapping[str, ClassificationObjective],
    tests: Mapping[str, Split],
    *,
    goal: GoalFunction,
    meter: CostMeter | None = None,
    kept: Pieces | None = None,
) -> tuple[Measured, ...]:
    """Risk and accuracy of every model on the test splits: the advised merge, x_0, its experts, then the others.

    Args:
        advised: the advised merge with its experts.
        others: what it is compared with.
        objectives: task -> its loss.
        tests: task -> its test split.
        goal: task risks -> goal risk.
        meter: counts every forward pass.
        kept: where each model's figures are kept on the way.
    """
    risks, once = MergedRisks(objectives=objectives, splits=tests), NotKept() if kept is None else kept

    def measured(name: str, measure: Callable[[], Measured]) -> Measured:
        def count(own: CostMeter) -> dict[str, Any]:
            risks.meter = own
            return measure().to_json()

        found = Measured.from_json(measured_once(once, name, meter, count))
        return found if found.kind == "expert" else replace(found, goal=goal(found.risks))  # what is asked may change

    def merged(contender: Contender, kind: Literal["advised", "joint", "baseline"]) -> Measured:
        return measured(_name_of(contender, kind), lambda: _measured(contender, kind, risks, goal))

    models = [merged(advised, "advised"), measured(piece_name("pretrained"), lambda: _pretrained(risks, goal))]
    for task, weights in advised.experts.items():
        name = piece_name("expert", task, tensor_digest(weights))
        models.append(measured(name, lambda task=task, weights=weights: _expert(task, weights, risks)))  # type: ignore[misc]
    kinds: dict[bool, Literal["joint", "baseline"]] = {True: "joint", False: "baseline"}
    models += [merged(other, kinds[other.name == "joint training"]) for other in others]
    return tuple(models)


def _pretrained(risks: MergedRisks, goal: GoalFunction) -> Measured:
    initial = risks.initial()
    return Measured(
        name="pretrained",
        kind="pretrained",
        risks={task: value.risk for task, value in initial.items()},
        accuracies={task: value.accuracy for task, value in initial.items()},
        goal=goal({task: value.risk for task, value in initial.items()}),
        cost=0.0,
        note="x_0 with probed heads",
    )


def _expert(task: str, weights: Tensor, risks: MergedRisks) -> Measured:
    objective = risks.objectives[task]
    own = evaluate(objective, weights.to(objective.initial.device), risks.splits[task], meter=risks.meter)
    return Measured(
        name=f"expert: {task}",
        kind="expert",
        risks={task: finite_risk(own.risk)},
        accuracies={task: own.accuracy},
        goal=None,
        cost=0.0,
        note="alone, on its own task",
    )


def _name_of(contender: Contender, kind: str, *parts: object) -> str:
    """The name of a contender's figures: they belong to its weights, its heads and its cost."""
    tensors = [] if contender.weights is None else [contender.weights, *contender.experts.values()]
    digests = [tensor_digest(value) for value in tensors]
    return piece_name("measured", kind, contender.name, contender.cost, digests, *parts)


def _measured(
    contender: Contender, kind: Literal["advised", "joint", "baseline"], risks: MergedRisks, goal: GoalFunction
) -> Measured:
    if contender.weights is None:
        lost = dict.fromkeys(risks.splits, math.inf)
        nothing = dict.fromkeys(risks.splits, 0.0)
        return Measured(
            name=contender.name,
            kind=kind,
            risks=lost,
            accuracies=nothing,
            goal=goal(lost),
            cost=contender.cost,
            note=contender.note,
        )
    evaluations = risks.evaluate(contender.weights, contender.experts)
    values = {task: finite_risk(value.risk) for task, value in evaluations.items()}
    return Measured(
        name=contender.name,
        kind=kind,
        risks=values,
        accuracies={task: value.accuracy for task, value in evaluations.items()},
        goal=goal(values),
        cost=contender.cost,
        note=contender.note,
    )


def validation_risks(
    advised: Contender,
    objectives: Mapping[str, ClassificationObjective],
    splits: Mapping[str, Split],
    *,
    meter: CostMeter | None = None,
    kept: Pieces | None = None,
) -> dict[str, float]:
    """Risk of the advised merge on validation data, which a refit may use."""
    risks = MergedRisks(objectives=objectives, splits=splits)

    def measure(own: CostMeter) -> dict[str, Any]:
        assert advised.weights is not None  # it was merged
        risks.meter = own
        found = risks.evaluate(advised.weights, advised.experts)
        return {task: value.risk if math.isfinite(value.risk) else None for task, value in found.items()}

    name = _name_of(advised, "on validation data", list(splits))
    known = measured_once(NotKept() if kept is None else kept, name, meter, measure)
    return {task: math.inf if known[task] is None else float(known[task]) for task in splits}


def judge(
    models: Sequence[Measured], predicted: Mapping[str, Predicted], predicted_goal: Predicted
) -> tuple[tuple[str, Verdict, str], ...]:
    """The verdicts of the module's head, each with the figures behind it."""
    advised = models[0]
    pretrained = next(model for model in models if model.kind == "pretrained")
    assert advised.goal is not None
    assert pretrained.goal is not None
    return (
        ("interval", *_interval_verdict(advised.goal, predicted_goal)),
        (
            "gain",
            "pass" if advised.goal < pretrained.goal else "fail",
            f"goal risk {measured_text(advised.goal)} after merging, {measured_text(pretrained.goal)} before",
        ),
        ("baselines", *_baseline_verdict(advised.goal, models)),
        ("tasks", *_task_verdict(advised, predicted)),
    )


def _interval_verdict(measured: float, predicted: Predicted) -> tuple[Verdict, str]:
    promised = f"{predicted.value:.3f} [{predicted.low:.3f}, {predicted.high:.3f}]"
    text = f"measured {measured_text(measured)}, predicted {promised}"
    if math.isinf(measured):
        return "fail", text
    if predicted.holds(measured):
        return "pass", text
    margin = (predicted.high - predicted.low) / 2
    near = predicted.low - margin <= measured <= predicted.high + margin
    return ("warn" if near else "fail"), text


def _baseline_verdict(measured: float, models: Sequence[Measured]) -> tuple[Verdict, str]:
    rivals = {model.name: model.goal for model in models if model.kind == "baseline" and model.goal is not None}
    if not rivals:
        return "warn", "no default recipe could be measured"
    best = min(rivals, key=lambda name: rivals[name])
    text = f"advised {measured_text(measured)}; best default at equal cost: {best} {measured_text(rivals[best])}"
    if measured <= rivals[best] and math.isfinite(measured):
        return "pass", text
    averages = [value for name, value in rivals.items() if name.startswith("average")]
    return ("warn" if measured <= min(averages, default=math.inf) else "fail"), text


def _task_verdict(advised: Measured, predicted: Mapping[str, Predicted]) -> tuple[Verdict, str]:
    held = [task for task, value in predicted.items() if value.holds(advised.risks[task])]
    missed = [task for task in predicted if task not in held]
    share = len(held) / len(predicted)
    text = f"{len(held)} of {len(predicted)} task intervals hold" + (f"; missed: {', '.join(missed)}" if missed else "")
    return ("pass" if share >= 0.75 else "warn" if share >= 0.5 else "fail"), text
