"""The worst-case bound: its naive twin, its invariants, its range and what it refuses."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.bound import BoundConstants, RiskTerms, worst_case
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe
from tests.advisor.naive_bound import naive_bound, random_constants

LOGS = [field.name for field in dataclasses.fields(RiskTerms) if field.name.startswith("log_")]


def random_plan(rng, names):
    recipes = {}
    for name in names:
        momentum = float(rng.choice([0.0, 0.0, 0.5, 0.9]))
        recipes[name] = Recipe(
            learning_rate=float(10 ** rng.uniform(-3, -0.3)),
            batch_size=int(rng.integers(1, 65)),
            steps=int(rng.integers(1, 30)),
            optimizer="momentum" if momentum else "sgd",
            momentum=momentum,
            schedule=str(rng.choice(["constant", "warmup_cosine"])),
        )
    zero = rng.random() < 0.2
    return Plan(
        recipes=recipes,
        coefficients={name: 0.0 if zero and i == 0 else float(rng.uniform(0, 1.5)) for i, name in enumerate(names)},
    )


def table_of(names, *, plans=1, **columns):
    shape = (plans, len(names))
    default = {
        "learning_rate": 0.01,
        "batch_size": 8.0,
        "steps": 10.0,
        "optimizer": 0,
        "momentum": 0.0,
        "schedule": 0,
        "num_samples": 100.0,
        "coefficients": 1 / len(names),
    } | columns
    whole = ("optimizer", "schedule")
    arrays = {k: np.broadcast_to(np.asarray(v, int if k in whole else float), shape).copy() for k, v in default.items()}
    return PlanTable(names=names, method=("task_arithmetic",) * plans, **arrays)


@pytest.mark.parametrize("form", ["refined", "paper"])
@pytest.mark.parametrize("growth", ["general", "convex"])
@pytest.mark.parametrize("num_tasks", [1, 2, 4])
@pytest.mark.parametrize("pl_constant", [0.0, 0.2])
def test_the_bound_equals_its_naive_twin(form, growth, num_tasks, pl_constant):
    rng = np.random.default_rng(17)
    constants = random_constants(rng, num_tasks, pl_constant=pl_constant)
    plans = [random_plan(rng, constants.names) for _ in range(20)]
    samples = dict.fromkeys(constants.names, 100)
    terms = worst_case(constants, PlanTable.from_plans(plans, samples), form=form, growth=growth)
    for row, plan in enumerate(plans):
        twin = naive_bound(constants, plan, list(samples.values()), form=form, growth=growth)
        inner = terms.value("heterogeneity")[row] + terms.value("drift")[row]
        np.testing.assert_allclose(inner, twin.pop("interference"), rtol=1e-9)
        for name in ("shares", "chi_square"):
            np.testing.assert_allclose(getattr(terms, name)[row], twin.pop(name), rtol=1e-9)
        for name, value in twin.items():
            np.testing.assert_allclose(terms.value(name)[row], value, rtol=1e-9, err_msg=name)


def test_the_total_is_the_sum_of_its_terms():
    rng = np.random.default_rng(18)
    constants = random_constants(rng, 3)
    terms = worst_case(constants, table_of(constants.names, plans=2, learning_rate=[[1e-4] * 3, [0.3] * 3]))
    parts = [terms.value(name) for name in ("progress", "heterogeneity", "drift", "noise")]
    np.testing.assert_allclose(terms.value("descent"), np.sum(parts, axis=0))
    np.testing.assert_allclose(terms.optimization, np.minimum(terms.value("descent"), terms.value("trust_region")))
    np.testing.assert_allclose(terms.total, terms.optimization + terms.value("generalisation"))
    assert len(terms) == 2
    np.testing.assert_array_equal(terms.vacuous, terms.total >= constants.goal_risk)


def test_a_table_cut_into_pieces_gives_what_its_rows_give():
    rng = np.random.default_rng(19)
    constants = random_constants(rng, 4)
    plans = [random_plan(rng, constants.names) for _ in range(6)]
    few = PlanTable.from_plans(plans, dict.fromkeys(constants.names, 100))
    columns = {
        field.name: np.tile(getattr(few, field.name), (500, 1))
        for field in dataclasses.fields(PlanTable)
        if field.name not in ("names", "method")
    }
    many = PlanTable(names=few.names, method=few.method * 500, **columns)
    whole, small = worst_case(constants, many), worst_case(constants, few)
    assert len(whole) == 3000
    np.testing.assert_allclose(whole.log_total, np.tile(small.log_total, 500), rtol=1e-12)
    np.testing.assert_allclose(whole.log_stability, np.tile(small.log_stability, (500, 1)), rtol=1e-12)


def test_the_order_of_tasks_does_not_matter():
    rng = np.random.default_rng(20)
    constants = random_constants(rng, 3)
    plan = random_plan(rng, constants.names)
    order = [2, 0, 1]
    names = tuple(constants.names[i] for i in order)
    arrays = ("task_weights", "num_samples", "task_smoothness", "gradient_variance", "initial_gradient_norm")
    turned = {name: getattr(constants, name)[order] for name in (*arrays, "initial_risk", "task_gap")}
    other = dataclasses.replace(
        constants, names=names, gradient_gram=constants.gradient_gram[np.ix_(order, order)], **turned
    )
    moved = Plan(
        recipes={name: plan.recipes[name] for name in names},
        coefficients={name: plan.coefficients[name] for name in names},
    )
    samples = dict.fromkeys(constants.names, 50)
    first = worst_case(constants, PlanTable.from_plans([plan], samples))
    second = worst_case(other, PlanTable.from_plans([moved], {name: 50 for name in names}))
    np.testing.assert_allclose(first.total, second.total)
    np.testing.assert_allclose(first.log_displacement[:, order], second.log_displacement)


def scaled(constants: BoundConstants, unit: float) -> BoundConstants:
    """The same tasks in another unit of length, and of loss = length squared: L and eta keep their numbers."""
    return dataclasses.replace(
        constants,
        initial_gradient_norm=constants.initial_gradient_norm * unit,
        **{
            name: getattr(constants, name) * unit**2
            for name in (
                "gradient_variance",
                "initial_risk",
                "gradient_gram",
                "initial_gap",
                "initial_gap_floor",
                "task_gap",
            )
        },
    )


def test_every_term_scales_with_the_unit_of_loss():
    rng = np.random.default_rng(21)
    constants = random_constants(rng, 3)
    table = PlanTable.from_plans(
        [random_plan(rng, constants.names) for _ in range(5)], dict.fromkeys(constants.names, 9)
    )
    base, large = worst_case(constants, table), worst_case(scaled(constants, 10.0), table)
    for name in LOGS:
        power = 1 if name == "log_displacement" else 2
        np.testing.assert_allclose(large.log10(name[4:]), base.log10(name[4:]) + power, atol=1e-9)


@pytest.mark.parametrize(
    "field", ["gradient_variance", "initial_gradient_norm", "initial_risk", "initial_gap", "task_gap", "smoothness"]
)
def test_the_bound_grows_with_each_constant(field):
    rng = np.random.default_rng(22)
    constants = random_constants(rng, 3)
    table = PlanTable.from_plans(
        [random_plan(rng, constants.names) for _ in range(40)], dict.fromkeys(constants.names, 100)
    )
    more = dataclasses.replace(constants, **{field: getattr(constants, field) * 1.2})
    assert (worst_case(more, table).log_total >= worst_case(constants, table).log_total - 1e-12).all()


def test_the_bound_grows_with_heterogeneity_and_chi_square_vanishes_at_equal_progress():
    constants = random_constants(np.random.default_rng(23), 2, task_weights=[0.5, 0.5])
    wider = dataclasses.replace(constants, gradient_gram=constants.gradient_gram * 4)
    table = table_of(constants.names, plans=2, coefficients=[[0.5, 0.5], [0.9, 0.1]])
    base, more = worst_case(constants, table), worst_case(wider, table)
    np.testing.assert_allclose(base.chi_square, [0.0, 0.16 / 0.9 + 0.16 / 0.1])
    assert more.log_heterogeneity[1] > base.log_heterogeneity[1]
    assert base.log_heterogeneity[0] == -np.inf


def test_more_samples_never_hurt_and_larger_batches_lower_the_refined_stability_but_raise_the_papers():
    constants = random_constants(np.random.default_rng(24), 1)
    by_samples = worst_case(constants, table_of(constants.names, plans=4, num_samples=[[1], [10], [100], [1000]]))
    assert (np.diff(by_samples.log_total) < 0).all()
    batches = table_of(constants.names, plans=3, batch_size=[[1], [8], [64]])
    assert (np.diff(worst_case(constants, batches).log_stability[:, 0]) < 0).all()
    paper = worst_case(constants, batches, form="paper").value("stability")[:, 0]
    np.testing.assert_allclose(paper / paper[0], [1, 8, 64])


def test_fewer_samples_than_the_constants_rest_on_make_the_start_gradient_noisier():
    constants = random_constants(np.random.default_rng(25), 2)
    fewer = table_of(constants.names, num_samples=10.0, coefficients=[[0.9, 0.2]])
    extra = constants.gradient_variance * (1 / 10 - 1 / 100)
    told = dataclasses.replace(
        constants,
        num_samples=np.full(2, 10.0),
        initial_gradient_norm=np.sqrt(constants.initial_gradient_norm**2 + extra),
        gradient_gram=constants.gradient_gram + np.diag(extra),
    )
    np.testing.assert_allclose(worst_case(constants, fewer).log_total, worst_case(told, fewer).log_total)


def test_a_merge_of_nothing_keeps_the_initial_gap():
    constants = random_constants(np.random.default_rng(26), 2)
    terms = worst_case(
        constants, table_of(constants.names, coefficients=0.0, momentum=[[0.9, 0.0]], optimizer=[[1, 0]])
    )
    np.testing.assert_allclose(terms.total, constants.initial_gap)
    np.testing.assert_allclose(terms.value("generalisation"), 0)
    np.testing.assert_allclose(terms.shares, [constants.task_weights])


def test_numbers_beyond_the_range_of_a_float_keep_their_logarithm():
    constants = random_constants(np.random.default_rng(27), 1, pl_constant=0.0)
    terms = worst_case(constants, table_of(constants.names, learning_rate=2.0, steps=10_000.0))
    assert terms.total[0] == np.inf
    # g = 11: the trust region (L/2) d^2 rules, and d grows as 11^(K-1) times eta G + ... (geometric sums)
    growth = 2 * (9999 * np.log10(11))
    assert growth < terms.log10("total")[0] < growth + 6


def test_an_expert_left_out_does_not_drown_the_others():
    constants = random_constants(np.random.default_rng(28), 2)
    table = table_of(constants.names, learning_rate=[[5.0, 0.01]], steps=[[5000, 10]], coefficients=[[0.0, 0.5]])
    alone = table_of(constants.names, learning_rate=0.01, coefficients=[[0.0, 0.5]])
    np.testing.assert_allclose(worst_case(constants, table).log_total, worst_case(constants, alone).log_total)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(1e-12, 1e6),
    steps=st.integers(1, 10**7),
    batch=st.integers(1, 10**5),
    samples=st.integers(1, 10**8),
    coefficient=st.just(0.0) | st.floats(1e-30, 10),
    scale=st.floats(1e-6, 1e6),
    pl_constant=st.sampled_from([0.0, 1e-9, 1.0]),
    growth=st.sampled_from(["general", "convex"]),
    form=st.sampled_from(["refined", "paper"]),
)
def test_no_term_is_ever_nan(rate, steps, batch, samples, coefficient, scale, pl_constant, growth, form):
    constants = scaled(random_constants(np.random.default_rng(29), 2, pl_constant=pl_constant), scale)
    table = table_of(
        constants.names,
        learning_rate=[[rate, 0.01]],
        steps=[[steps, 3]],
        batch_size=batch,
        num_samples=samples,
        coefficients=[[coefficient, 0.5]],
    )
    terms = worst_case(constants, table, growth=growth, form=form)
    for name in LOGS:
        assert not np.isnan(getattr(terms, name)).any(), name
    assert np.isfinite(terms.log10("total")).all()


def test_what_the_bound_refuses():
    constants = random_constants(np.random.default_rng(30), 2)
    table = table_of(constants.names)
    with pytest.raises(ValueError, match="form='crude' must be 'refined' or 'paper'"):
        worst_case(constants, table, form="crude")
    with pytest.raises(ValueError, match="growth='slow' must be 'general' or 'convex'"):
        worst_case(constants, table, growth="slow")
    with pytest.raises(ValueError, match="use the same in one order"):
        worst_case(constants, table_of(("a", "b")))
    with pytest.raises(ValueError, match=r"learning_rate \* smoothness=5e\+60 must not exceed"):
        worst_case(constants, table_of(constants.names, learning_rate=1e60))
    with pytest.raises(ValueError, match="coefficient=1e-40 must be 0 or at least 1e-30"):
        worst_case(constants, table_of(constants.names, coefficients=[[1e-40, 1.0]]))
    with pytest.raises(ValueError, match="name='luck' is no term"):
        worst_case(constants, table).value("luck")
