import numpy as np
import pytest

from advisor.probing import MergePoint
from benchmarks.suite_format import Suite
from benchmarks.suite_replay import ProbeRequest, replay_probe, replay_probes
from estimators.recipe import Recipe
from tests.benchmarks.synthetic_suites import risk


def request(rate: float = 0.1, steps: int = 8, batch: int = 4) -> ProbeRequest:
    points = (
        MergePoint(step=2, coefficient=4.0),
        MergePoint(step=8, coefficient=0.9),
        MergePoint(step=8, coefficient=1.5, alone="a"),
    )
    return ProbeRequest(recipe=Recipe(learning_rate=rate, batch_size=batch, steps=steps), points=points)


def test_a_probe_is_the_beginning_of_the_stored_run(suite: Suite) -> None:
    probe = replay_probe(suite, 0, request())
    assert probe.recipe == Recipe(learning_rate=0.1, batch_size=4, steps=8)
    assert [trace.steps[-1] for trace in probe.traces] == [8, 8]
    assert probe.traces[0].squared_displacements[-1] == pytest.approx(0.64)
    measured = {m.plan.recipes["a"].steps: m.risks["a"] for m in probe.merges if all(m.plan.coefficients.values())}
    whole = Recipe(learning_rate=0.1, batch_size=4, steps=32)
    assert measured[2] == pytest.approx(risk("a", whole, 2, {"a": 4.0, "b": 4.0}, 0), rel=1e-5)
    assert measured[8] == pytest.approx(risk("a", whole, 8, {"a": 1.0, "b": 1.0}, 0), rel=1e-5)


def test_the_cost_of_a_replay_counts_everything_by_hand(suite: Suite) -> None:
    replay = replay_probes(suite, 0, [request(), request(rate=0.03)])
    merges = sum(len(probe.rows) for probe in replay.probes)
    assert merges >= 5
    assert replay.cost["constants"] == 50.0
    assert replay.cost["heads"] == 12.0
    assert replay.cost["probes"] == 2 * (2 * 4 * 8)
    assert replay.cost["evaluations"] == pytest.approx((merges + 1) * 2 * 8 / 3)
    assert replay.units == pytest.approx(sum(replay.cost.values()))
    assert replay.longest == 8


def test_settings_that_are_not_stored_move_to_the_nearest_ones(suite: Suite) -> None:
    probe = replay_probe(suite, 0, request(rate=0.09, steps=11, batch=6))
    assert probe.recipe == Recipe(learning_rate=0.1, batch_size=4, steps=8)


def test_a_coefficient_that_is_not_stored_becomes_the_nearest_one_that_was_not_seen(suite: Suite) -> None:
    """An advisor that asks for three coefficients learns of three, also where the tables are coarser than it asks."""
    points = tuple(MergePoint(step=8, coefficient=value) for value in (0.9, 0.91, 0.92))
    probe = replay_probe(suite, 0, ProbeRequest(recipe=request().recipe, points=points))
    assert len(set(probe.rows)) == len(probe.rows) == 3
    seen = [merge.plan.coefficients["a"] for merge in probe.merges]
    stored = {suite.coefficients[row].max() for row in suite.rows(0, ("uniform",))}
    assert seen[0] == min(stored, key=lambda value: abs(np.log(value / 0.9)))


def test_a_merge_that_is_not_stored_is_named_and_not_invented(suite: Suite) -> None:
    point = MergePoint(step=8, coefficient=0.7, method="ties")
    probe = replay_probe(suite, 0, ProbeRequest(recipe=request().recipe, points=(point,)))
    assert probe.rows == ()
    assert probe.missing == (point,)


def test_a_diverged_probe_is_data(suite: Suite) -> None:
    probe = replay_probe(suite, 0, request(rate=2.0))
    assert all(merge.diverged for merge in probe.merges)
    assert all(merge.displacement_gram is None for merge in probe.merges)
    assert np.isfinite(probe.training)


def test_an_optimizer_that_no_run_used_is_refused(suite: Suite) -> None:
    recipe = Recipe(learning_rate=0.1, batch_size=4, steps=8, optimizer="adamw")
    with pytest.raises(ValueError, match="optimizer='adamw' with schedule='constant' is not in suite"):
        replay_probe(suite, 0, ProbeRequest(recipe=recipe, points=()))


def test_an_empty_design_is_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match="must hold at least one probe"):
        replay_probes(suite, 0, [])
