r"""Arms that take something away from the advisor, to see whether it mattered.

``shuffled constants``: own probes, another suite's constants (curvature, variance, gradient norms, heterogeneity, Gram
matrix); the risk of x_0, which every probe measures anyway, stays.  ``swapped probes``: own constants, another suite's
probes, its tasks renamed in order.  Where the fit or the prediction refuses, the arm recommends nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.plan import Plan
from benchmarks.judge_advisor import SuiteAdvice, advise_on_suite
from benchmarks.suite_format import Suite
from benchmarks.suite_replay import Replay
from estimators.constants import Constants, Estimate

KEPT = ("initial_risk", "initial_accuracy", "initial_gap", "failures")


def foreign_constants(own: Constants, other: Constants) -> Constants:
    """The other's constants under the own tasks' names, taken in order and again from the start if it has fewer."""
    donors = [list(other.tasks.values())[i % len(other.tasks)] for i in range(len(own.tasks))]
    tasks = {
        name: dataclasses.replace(donor, **{field: getattr(task, field) for field in KEPT})
        for (name, task), donor in zip(own.tasks.items(), donors, strict=True)
    }
    gram = other.gradient_gram
    count = len(own.tasks)
    moved: tuple[tuple[Estimate, ...], ...] | None = None
    if gram is not None:
        moved = tuple(tuple(gram[i % len(gram)][j % len(gram)] for j in range(count)) for i in range(count))
    return dataclasses.replace(own, tasks=tasks, gradient_gram=moved)


def shuffled_constants(own: Replay, other: Replay) -> Replay:
    """Own probes with the other suite's constants."""
    constants = foreign_constants(own.data.constants, other.data.constants)
    return dataclasses.replace(own, data=dataclasses.replace(own.data, constants=constants))


def swapped_probes(own: Replay, other: Replay) -> Replay:
    """The other suite's probes with the own constants."""
    names = dict(zip(other.data.constants.names, own.data.constants.names, strict=False))
    merges = tuple(_renamed(merge, names) for merge in other.data.merges)
    traces = tuple(_renamed_trace(trace, names) for trace in other.data.traces if trace.task in names)
    data = ProbeData(constants=own.data.constants, merges=merges, traces=traces)
    return dataclasses.replace(own, data=data)


def _renamed(merge: MergeObservation, names: Mapping[str, str]) -> MergeObservation:
    """A merge under other names; tasks without a name are left out, the Gram matrix with them."""
    kept = [name for name in merge.plan.names if name in names]
    plan = Plan(
        recipes={names[name]: merge.plan.recipes[name] for name in kept},
        coefficients={names[name]: merge.plan.coefficients[name] for name in kept},
        method=merge.plan.method,
    )
    whole = len(kept) == len(merge.plan.names)

    def moved(values: Mapping[str, float]) -> dict[str, float]:
        return {names[name]: value for name, value in values.items() if name in names}

    return dataclasses.replace(
        merge,
        plan=plan,
        risks=moved(merge.risks),
        initial_risks=moved(merge.initial_risks),
        noise=moved(merge.noise),
        squared_displacements=moved(merge.squared_displacements),
        displacement_gram=merge.displacement_gram if whole else None,
    )


def _renamed_trace(trace: DisplacementTrace, names: Mapping[str, str]) -> DisplacementTrace:
    return dataclasses.replace(trace, task=names[trace.task])


def advise_arm(suite: Suite, seed: int, replay: Replay) -> SuiteAdvice | None:
    """Advice from changed data; ``None`` where the model refuses them."""
    try:
        return advise_on_suite(suite, seed, replay=replay)
    except ValueError:
        return None
