"""Every condition of the theorem is named when it is broken, with its number, and not when it holds."""

import dataclasses

import numpy as np
import pytest

from advisor.bound import BoundConstants
from advisor.plan import Plan
from advisor.validity import Situation, broken_assumptions
from estimators.recipe import Recipe

NAMES = ("birds", "cars")
FINE = Situation(
    smooth_network=True,
    convex_loss=True,
    nonnegative_loss=True,
    batch_norm_in_train_mode=False,
    dropout=False,
    augmentation=False,
    gradient_clipping=False,
    checkpoint_chosen_from_data=False,
    heads_fitted_on_training_samples=False,
    start_fitted_on_training_samples=False,
    samples_shared_between_tasks=False,
    batch_order_shared_between_tasks=False,
    goal_weights_fixed_beforehand=True,
    coefficients_chosen_after_training=False,
    layerwise_coefficients=False,
    pl_constant_of_realised_risk=True,
)
CALM = Recipe(learning_rate=0.001, batch_size=8, steps=5, sampling="with_replacement")


def constants(**changes):
    values = {
        "names": NAMES,
        "task_weights": [0.5, 0.5],
        "num_samples": [100, 100],
        "smoothness": 40.0,
        "task_smoothness": [10.0, 20.0],
        "gradient_variance": [4.0, 4.0],
        "initial_gradient_norm": [1.0, 1.0],
        "initial_risk": [1.0, 1.0],
        "gradient_gram": np.eye(2),
        "initial_gap": 0.5,
    }
    return BoundConstants(**(values | changes))


def broken(recipe=CALM, situation=FINE, method="task_arithmetic", known=None, **facts):
    plan = Plan.uniform(NAMES, recipe, 0.5, method)
    found = broken_assumptions(known or constants(), plan, dataclasses.replace(situation, **facts))
    return {one.name: one for one in found}


def test_a_training_that_keeps_every_condition_breaks_none():
    assert broken() == {}
    assert broken(growth="convex") == {}


@pytest.mark.parametrize(
    ("changes", "name", "number"),
    [
        ({"learning_rate": 0.06}, "no_displacement_by_descent", "eta*a_k=0.06 against 1/L_i=0.05"),
        ({"optimizer": "adamw"}, "adaptive_optimizer", "5 steps"),
        ({"optimizer": "adamw"}, "weight_decay", "weight decay 0.01"),
        ({"weight_decay": 0.1}, "weight_decay", "weight decay 0.1 (birds, cars)"),
        ({"sampling": "shuffled"}, "shuffled_epochs", "K b=40 draws from n=100"),
        ({"alignment": "sam"}, "aligned_training", "'sam'"),
        ({"optimizer": "momentum"}, "no_displacement_by_descent", "momentum 0.9"),
    ],
)
def test_what_a_recipe_breaks_is_named_with_its_number(changes, name, number):
    found = broken(CALM.replace(**changes))
    assert number in found[name].sentence
    assert found[name].certain


@pytest.mark.parametrize(
    ("changes", "name", "number"),
    [
        ({"learning_rate": 0.06}, "step_too_long_for_convex_growth", "eta*a_k=0.06 exceeds 2/L=0.05"),
        ({"optimizer": "momentum"}, "momentum_in_convex_growth", "momentum 0.9"),
    ],
)
def test_convex_growth_asks_for_short_steps_without_momentum(changes, name, number):
    recipe = CALM.replace(**changes)
    assert number in broken(recipe, growth="convex")[name].sentence
    assert name not in broken(recipe, growth="general")


def test_the_papers_form_asks_for_few_steps():
    recipe = CALM.replace(steps=801)
    assert "K=801 exceeds n b=800" in broken(recipe, form="paper")["paper_form_too_many_steps"].sentence
    assert "paper_form_too_many_steps" not in broken(CALM.replace(steps=800), form="paper")
    assert "paper_form_too_many_steps" not in broken(recipe, form="refined")
    few = broken(CALM.replace(steps=81, num_samples=10), form="paper")["paper_form_too_many_steps"]
    assert "n b=80 (birds, cars)," in few.sentence


@pytest.mark.parametrize(
    ("fact", "needed", "name"),
    [
        ("smooth_network", True, "non_smooth_network"),
        ("nonnegative_loss", True, "loss_may_be_negative"),
        ("batch_norm_in_train_mode", False, "batch_norm_statistics"),
        ("dropout", False, "dropout"),
        ("augmentation", False, "augmentation"),
        ("gradient_clipping", False, "gradient_clipping"),
        ("checkpoint_chosen_from_data", False, "checkpoint_chosen_from_data"),
        ("heads_fitted_on_training_samples", False, "heads_fitted_on_training_samples"),
        ("start_fitted_on_training_samples", False, "start_fitted_on_training_samples"),
        ("samples_shared_between_tasks", False, "samples_shared_between_tasks"),
        ("batch_order_shared_between_tasks", False, "batch_order_shared_between_tasks"),
        ("goal_weights_fixed_beforehand", True, "goal_weights_not_fixed_beforehand"),
        ("coefficients_chosen_after_training", False, "coefficients_chosen_after_training"),
        ("layerwise_coefficients", False, "layerwise_coefficients"),
    ],
)
def test_a_fact_that_breaks_a_condition_is_certain_and_an_unknown_one_is_not(fact, needed, name):
    wrong, unknown = broken(**{fact: not needed}), broken(**{fact: None})
    assert list(wrong) == list(unknown) == [name]
    assert wrong[name].certain
    assert not unknown[name].certain
    assert unknown[name].sentence.startswith("not known: ")


def test_with_nothing_known_every_fact_is_listed():
    unknown = broken(situation=Situation())
    assert len(unknown) == 14
    assert not any(one.certain for one in unknown.values())


def test_a_negative_coefficient_and_a_nonlinear_operator_are_named():
    assert "-0.25" in broken(smallest_coefficient=-0.25)["negative_coefficient"].sentence
    assert broken(smallest_coefficient=0.1) == {}
    assert str(broken(method="ties")["nonlinear_operator"]).startswith("ties is no linear merge")


def test_constants_that_are_too_small_or_measured_elsewhere_are_named():
    noisy = constants(gradient_variance=[4.0, 90.0])
    sentence = broken(known=noisy)["self_bounding_fails"].sentence
    assert sentence.startswith("cars: sigma^2 + G^2=91 exceeds 2 L F_i(x0)=80")
    measured = constants(sources={"smoothness": "top_curvature"})
    assert set(broken(known=measured)) == {"smoothness_not_per_sample", "constants_at_start_only"}
    per_sample = constants(sources={"smoothness": "sample_smoothness"})
    assert set(broken(known=per_sample)) == {"constants_at_start_only"}
    curved = constants(pl_constant=0.3)
    assert broken(known=curved) == {}
    assert (
        "mu=0.3" in broken(known=curved, pl_constant_of_realised_risk=False)["pl_constant_not_of_every_sample"].sentence
    )


def test_a_bound_above_the_start_is_vacuous():
    found = broken(CALM.replace(learning_rate=0.04, steps=500))
    assert "F(x0)=1: it promises no more" in found["vacuous"].sentence


def test_convex_growth_on_a_network_is_named():
    assert broken(growth="convex", convex_loss=False)["loss_not_convex"].certain
    assert not broken(growth="convex", convex_loss=None)["loss_not_convex"].certain


def test_tasks_in_another_order_are_refused():
    plan = Plan.uniform(NAMES[::-1], CALM, 0.5)
    with pytest.raises(ValueError, match="use the same in one order"):
        broken_assumptions(constants(), plan, FINE)
