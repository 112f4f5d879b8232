"""From a fitted model to advice, on quadratic tasks whose merged risks are known in closed form."""

import dataclasses

import numpy as np
import pytest

from advisor.advice import Caveat, Predicted, Recommendation
from advisor.caveats import find_caveats
from advisor.goal import Goal
from advisor.plan import Plan
from advisor.project_search import SearchSettings
from advisor.recommending import Situation, recommend_plan
from advisor.risk_model import RiskModel
from advisor.status import decide_status
from advisor.what_if import WhatIf, with_coefficients
from estimators.constants import Estimate
from estimators.recipe import Recipe
from studies.storage import StudyStorage
from tests.advisor.quadratic_merges import QuadraticWorld

SEARCH = SearchSettings(learning_rate={"sgd": (1e-3, 0.2)}, batch_size=(8, 32), steps=(20, 320), schedule=("constant",))


@pytest.fixture(scope="module")
def world() -> QuadraticWorld:
    return QuadraticWorld.drawn()


@pytest.fixture(scope="module")
def ask(world: QuadraticWorld) -> WhatIf:
    model = RiskModel(seed=0).fit(world.probes())
    return WhatIf(model=model, goal=Goal(weights=dict.fromkeys(world.names, 1.0)))


def situation(world: QuadraticWorld, **changes) -> Situation:
    constants = world.constants()
    values = {
        "search": SEARCH,
        "methods": ("task_arithmetic",),
        "constants": constants,
        "probes": (),
        "num_samples": constants.num_samples,
        "range_suggestion": 0.01,
        "notes": ("a note",),
        "broken_assumptions": lambda plan: [("adaptive", "a sentence")],
        "cost": {"probes": 100.0},
        "seconds": 1.0,
        "full_fine_tune": 1e5,
    }
    return Situation(**(values | changes))


@pytest.fixture(scope="module")
def advice(world: QuadraticWorld, ask: WhatIf) -> Recommendation:
    return recommend_plan(ask, situation(world), seed=0)


def test_the_advised_plan_is_measurably_better_than_the_start(world, advice):
    measured = world.observe(advice.plan)
    before = np.mean(list(measured.initial_risks.values()))
    assert np.mean(list(measured.risks.values())) < 0.9 * before
    assert advice.status in ("advise", "caution")


def test_the_advice_answers_every_question_and_round_trips(advice):
    assert Recommendation.from_json(advice.to_json()) == advice
    assert set(advice.tasks) == set(advice.floor) == set(advice.initial_tasks)
    for name, parts in advice.terms.items():
        assert sum(parts.values()) == pytest.approx(advice.tasks[name].value, rel=1e-6)
    assert any(f"{advice.edges['sgd'].value:.3g}" in reason for reason in advice.reasons)
    assert all(any(character.isdigit() for character in reason) for reason in advice.reasons)
    labels = [other.label for other in advice.alternatives]
    assert "cheapest near-optimal" in labels
    assert "simple average of the advised experts" in labels
    cheapest = next(other for other in advice.alternatives if other.label == "cheapest near-optimal")
    assert cheapest.cost <= advice.training_cost
    costs = [point.cost for point in advice.pareto]
    risks = [point.goal.value for point in advice.pareto]
    assert costs == sorted(costs)
    assert risks == sorted(risks, reverse=True)


def test_what_is_reported_of_other_plans_is_the_prediction_without_the_price_of_caution(ask, advice):
    for other in (*advice.alternatives, *advice.pareto):
        alone = ask.goals([other.plan])[0]
        reported = (other.goal.value, other.goal.low, other.goal.high)
        assert reported == pytest.approx((alone.value, alone.low, alone.high), rel=1e-9), other.label
        assert other.cost == pytest.approx(other.plan.training_cost())


def test_the_same_seed_gives_the_same_advice_also_with_a_stored_study(world, ask, advice, tmp_path):
    storage = StudyStorage(path=tmp_path / "study.journal", fingerprint="x")
    again = recommend_plan(ask, situation(world), seed=0, storage=storage)
    assert again == advice
    resumed = recommend_plan(ask, situation(world), seed=0, storage=storage)
    assert resumed.plan == advice.plan


def test_a_limit_on_cost_is_kept(world, ask, advice):
    cheap = recommend_plan(ask, situation(world, affordable=advice.training_cost / 2), seed=0)
    assert cheap.training_cost <= advice.training_cost / 2
    assert cheap.goal.value >= advice.goal.value - 1e-3


def test_a_batch_range_beyond_the_smallest_task_is_refused(world, ask):
    search = SEARCH.model_copy(update={"batch_size": (10**6, 10**7)})
    with pytest.raises(ValueError, match=r"search.batch_size=\[1000000, 10000000\] starts above the smallest task"):
        recommend_plan(ask, situation(world, search=search), seed=0)


def test_what_if_answers_agree_with_the_model(world, ask, advice):
    direct = ask.model.predict([advice.plan], return_interval=True)
    assert ask.goals([advice.plan])[0].value == pytest.approx(float(direct.goal[0]))
    assert ask.tasks(advice.plan)[world.names[0]].value == pytest.approx(float(direct.task_risk[0, 0]))
    nothing = with_coefficients(advice.plan, 0.0)
    assert ask.goals([nothing])[0].value == pytest.approx(float(direct.initial_risk.mean()), rel=1e-3)
    assert ask.expert_gain(advice.plan) > 0


def plan_of(rate: float = 0.01) -> Plan:
    return Plan.uniform(("a", "b", "c"), Recipe(learning_rate=rate, batch_size=8, steps=20), 0.3)


def caveats_of(world: QuadraticWorld, **changes) -> dict[str, Caveat]:
    values = {
        "constants": world.constants(),
        "probes": (),
        "gain": Predicted(value=0.5, low=0.4, high=0.6),
        "extrapolation": 1.0,
        "edges_of_space": (),
        "range_suggestion": 0.01,
    } | changes
    plan = values.pop("plan", plan_of())
    return {caveat.name: caveat for caveat in find_caveats(plan, **values)}


def test_no_caveat_without_a_cause(world):
    assert caveats_of(world) == {}


@pytest.mark.parametrize(
    ("changes", "name", "weight", "number"),
    [
        ({"extrapolation": 40.0}, "extrapolation", "warning", "40"),
        ({"extrapolation": 4.0}, "extrapolation", "info", "4"),
        ({"edges_of_space": [("steps", "high")]}, "optimum_on_the_edge", "info", "largest"),
        ({"gain": Predicted(value=0.1, low=-0.2, high=0.5)}, "gain_uncertain", "warning", "-0.200"),
        ({"range_suggestion": 1e-4}, "range_test_disagrees", "info", "factor 100"),
        ({"notes": ["three images were left out"]}, "preparation", "info", "three images"),
        ({"broken_assumptions": [("momentum", "momentum 0.9")]}, "theorem: momentum", "info", "0.9"),
    ],
)
def test_each_limit_is_named_with_its_number(world, changes, name, weight, number):
    found = caveats_of(world, **changes)
    assert found[name].weight == weight
    assert number in found[name].text


def test_an_unidentified_variance_weighs_more_than_other_constants(world):
    constants = world.constants()
    first = next(iter(constants.tasks))
    vague = Estimate(value=1.0, low=0.0, high=9.0, identifiable=False, note="too few samples")
    for field, weight in (("gradient_variance", "warning"), ("heterogeneity", "info")):
        changed = dataclasses.replace(constants.tasks[first], **{field: vague})
        other = dataclasses.replace(constants, tasks=constants.tasks | {first: changed})
        assert caveats_of(world, constants=other)["constants_not_identified"].weight == weight


def test_a_warning_lowers_advise_to_caution_and_info_does_not():
    good = Predicted(value=0.5, low=0.4, high=0.6)
    info = Caveat(name="x", text="y")
    assert decide_status(1.0, good, extrapolation=2, caveats=[info]) == "advise"
    assert decide_status(1.0, good, extrapolation=2, caveats=[dataclasses.replace(info, weight="warning")]) == "caution"
    assert decide_status(1.0, good, extrapolation=33, caveats=[]) == "caution"
