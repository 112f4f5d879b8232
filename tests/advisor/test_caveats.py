"""Limits are said once each: what holds for several tasks or knobs stands in one sentence, long lists are counted."""

import dataclasses
import math

from advisor.advice import Caveat, Predicted
from advisor.caveats import find_caveats
from advisor.plan import Plan
from advisor.probing import Probe
from advisor.project_search import CoefficientSettings, SearchSettings
from advisor.recommending import telling_edges
from estimators.constants import Constants, Estimate
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld
from tests.advisor.test_recommending import situation

WORLD = QuadraticWorld.drawn(size=20)
RECIPE = Recipe(learning_rate=0.01, batch_size=8, steps=20)
VAGUE = Estimate(value=1.0, low=0.0, high=9.0, identifiable=False, note="too few samples")


def found(**changes: object) -> dict[str, Caveat]:
    values: dict[str, object] = {
        "constants": WORLD.constants(),
        "probes": (),
        "gain": Predicted(value=0.5, low=0.4, high=0.6),
        "extrapolation": 1.0,
        "edges_of_space": (),
        "range_suggestion": 0.01,
    }
    caveats = find_caveats(Plan.uniform(WORLD.names, RECIPE, 0.3), **(values | changes))  # type: ignore[arg-type]
    return {caveat.name: caveat for caveat in caveats}


def vague(*fields: str, tasks: tuple[str, ...] = WORLD.names) -> Constants:
    constants = WORLD.constants()
    changed = {
        name: dataclasses.replace(values, **dict.fromkeys(fields, VAGUE)) if name in tasks else values
        for name, values in constants.tasks.items()
    }
    return dataclasses.replace(constants, tasks=changed)


def test_knobs_on_the_same_edge_share_a_sentence() -> None:
    one = found(edges_of_space=[("batch_size", "low")])["optimum_on_the_edge"].text
    assert one.startswith("The best batch size found is the smallest that the search allows")
    two = found(edges_of_space=[("batch_size", "high"), ("steps", "high")])["optimum_on_the_edge"].text
    assert two.startswith("The best batch size and steps found are the largest that the search allows")


def test_a_constant_that_no_task_determines_is_named_once() -> None:
    text = found(constants=vague("heterogeneity"))["constants_not_identified"].text
    assert text.endswith(": heterogeneity of every task (too few samples).")
    some = found(constants=vague("heterogeneity", tasks=("a", "c")))["constants_not_identified"].text
    assert "heterogeneity of a, c (too few samples)" in some


def test_many_constants_are_counted_and_the_one_that_warns_comes_first() -> None:
    fields = ("noise_scale", "heterogeneity", "initial_gap", "progress_rate", "gradient_variance")
    caveat = found(constants=vague(*fields))["constants_not_identified"]
    assert caveat.weight == "warning"
    assert "budget paid for: gradient variance of every task" in caveat.text
    assert caveat.text.endswith("; and 2 more, marked in the table of constants.")


def test_probes_that_diverged_are_counted() -> None:
    outcomes = dict.fromkeys(WORLD.names, "diverged")
    probes = [Probe(recipe=RECIPE, traces=(), merges=(), outcomes=outcomes, cost=1.0)] * 2
    text = found(probes=probes)["probes_diverged"].text
    assert text.startswith("6 probe runs diverged: sgd")
    assert text.endswith("; and 3 more.")


def test_an_advice_that_rests_on_few_merges_says_so() -> None:
    merges = WORLD.probes(rates=(0.01,)).merges
    one = Probe(recipe=RECIPE, traces=(), merges=merges[:3], outcomes={}, cost=1.0)
    few = found(probes=[one, one])["few_measurements"]
    assert few.weight == "warning"
    assert "rests on 6 measured merges of 2 short probes" in few.text
    assert "few_measurements" not in found(probes=[dataclasses.replace(one, merges=merges[:8])])
    diverged = dataclasses.replace(merges[7], risks=dict.fromkeys(WORLD.names, math.inf))
    lost = dataclasses.replace(one, merges=(*merges[:7], diverged))
    assert "7 measured merges of 1 short probe," in found(probes=[lost])["few_measurements"].text


def test_what_was_left_out_of_the_search_stands_among_the_caveats() -> None:
    left = Caveat(name="optimizer_not_probed", text="No probe used adamw.")
    assert found(left_out=(left,))["optimizer_not_probed"] == left


def test_the_range_test_speaks_of_experts_that_are_merged() -> None:
    assert "range_test_disagrees" in found(range_suggestion=1e-5)
    nothing = Plan.uniform(WORLD.names, RECIPE, 0.0)
    caveats = find_caveats(
        nothing,
        constants=WORLD.constants(),
        probes=(),
        gain=Predicted(value=0.5, low=0.4, high=0.6),
        extrapolation=1.0,
        edges_of_space=(),
        range_suggestion=1e-5,
    )
    assert caveats == ()


def test_a_coefficient_of_zero_is_no_edge_of_the_search() -> None:
    edges = [("coefficient_a", "low"), ("coefficient_b", "high"), ("steps", "low")]
    free = SearchSettings()
    assert telling_edges(edges, situation(WORLD, search=free)) == edges[1:]
    above = SearchSettings(coefficients=CoefficientSettings(range=(0.1, 1.0)))
    assert telling_edges(edges, situation(WORLD, search=above)) == edges
