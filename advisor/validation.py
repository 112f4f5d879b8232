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
from pathlib import Path
from typing import Literal

from advisor.advice import Measured, Predicted
from advisor.baselines import Contender
from advisor.merged_risks import MergedRisks, finite_risk, with_head
from advisor.wording import measured_text
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective, evaluate
from estimators.splits import open_test
from estimators.tasks import Split

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
) -> tuple[Measured, ...]:
    """Risk and accuracy of every model on the test splits: the advised merge, x_0, its experts, then the others."""
    risks = MergedRisks(objectives=objectives, splits=tests, meter=meter)
    models = [_measured(advised, "advised", risks, goal)]
    initial = risks.initial()
    models.append(
        Measured(
            name="pretrained",
            kind="pretrained",
            risks={task: value.risk for task, value in initial.items()},
            accuracies={task: value.accuracy for task, value in initial.items()},
            goal=goal({task: value.risk for task, value in initial.items()}),
            cost=0.0,
            note="x_0 with probed heads",
        )
    )
    for task, weights in advised.experts.items():
        own = evaluate(objectives[task], weights.to(objectives[task].initial.device), tests[task], meter=meter)
        models.append(
            Measured(
                name=f"expert: {task}",
                kind="expert",
                risks={task: finite_risk(own.risk)},
                accuracies={task: own.accuracy},
                goal=None,
                cost=0.0,
                note="alone, on its own task",
            )
        )
    kinds: dict[bool, Literal["joint", "baseline"]] = {True: "joint", False: "baseline"}
    models += [_measured(other, kinds[other.name == "joint training"], risks, goal) for other in others]
    return tuple(models)


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
) -> dict[str, float]:
    """Risk of the advised merge on validation data, which a refit may use."""
    assert advised.weights is not None  # it was merged
    return {
        task: finite_risk(
            evaluate(objectives[task], with_head(advised.weights, advised.experts.get(task)), split, meter=meter).risk
        )
        for task, split in splits.items()
    }


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
