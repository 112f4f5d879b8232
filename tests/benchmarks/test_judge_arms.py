import dataclasses

from advisor.probing import MergePoint
from benchmarks.judge_arms import foreign_constants, shuffled_constants, swapped_probes
from benchmarks.suite_format import Suite
from benchmarks.suite_replay import ProbeRequest, Replay, replay_probes
from estimators.constants import Estimate
from estimators.recipe import Recipe
from tests.benchmarks.synthetic_suites import constants


def replay(suite: Suite, seed: int = 0) -> Replay:
    points = (MergePoint(step=8, coefficient=0.5), MergePoint(step=8, coefficient=4.0))
    rates = (0.01, 0.03, 0.1)
    design = [ProbeRequest(recipe=Recipe(learning_rate=rate, batch_size=4, steps=8), points=points) for rate in rates]
    return replay_probes(suite, seed, design)


def test_shuffled_constants_keep_what_probes_measure_anyway() -> None:
    own = constants()
    strange = Estimate(value=99.0, low=90.0, high=110.0)
    task = dataclasses.replace(own.tasks["a"], top_curvature=strange, initial_risk=strange)
    other = dataclasses.replace(own, tasks={"a": task, "b": own.tasks["b"]})
    mixed = foreign_constants(own, other)
    assert mixed.names == own.names
    assert mixed.tasks["a"].top_curvature == strange
    assert mixed.tasks["a"].initial_risk == own.tasks["a"].initial_risk
    assert mixed.tasks["b"] == own.tasks["b"]


def test_shuffled_constants_leave_the_probes_alone(suite: Suite) -> None:
    own, other = replay(suite), replay(suite, 1)
    assert shuffled_constants(own, other).data.merges == own.data.merges


def test_swapped_probes_leave_the_constants_alone_and_rename_the_tasks(suite: Suite) -> None:
    own, other = replay(suite), replay(suite, 1)
    renamed = dataclasses.replace(
        own.data.constants,
        tasks=dict(zip("xy", own.data.constants.tasks.values(), strict=True)),
        num_samples=dict.fromkeys("xy", 64),
        num_classes=dict.fromkeys("xy", 4),
    )
    target = dataclasses.replace(own, data=dataclasses.replace(own.data, constants=renamed, merges=(), traces=()))
    swapped = swapped_probes(target, other).data
    assert swapped.constants == renamed
    assert len(swapped.merges) == len(other.data.merges)
    assert [set(merge.risks) for merge in swapped.merges] == [{"x", "y"}] * len(swapped.merges)
    assert swapped.merges[0].risks["x"] == other.data.merges[0].risks["a"]
    assert {trace.task for trace in swapped.traces} == {"x", "y"}
