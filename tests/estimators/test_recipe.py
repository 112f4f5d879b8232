import math

import numpy as np
import pytest
import torch

from estimators.recipe import Recipe, schedule_factors


@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_step_weights_are_what_torch_sgd_makes_of_unit_gradients(schedule, momentum):
    """The weights move by -eta sum_k a_k g_k: feed one unit gradient at step k and read a_k off torch's SGD."""
    recipe = Recipe(
        learning_rate=0.1, batch_size=1, steps=12, optimizer="momentum", momentum=momentum, schedule=schedule
    )
    for k in range(recipe.steps):
        x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([x], lr=0.1, momentum=momentum)
        for step, factor in enumerate(recipe.schedule_factors()):
            optimizer.param_groups[0]["lr"] = 0.1 * factor
            x.grad = torch.full((1,), float(step == k), dtype=torch.float64)
            optimizer.step()
        assert -float(x.detach()) / 0.1 == pytest.approx(recipe.step_weights()[k], rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_warmup_cosine_rises_to_one_and_stays_positive(steps):
    factors = schedule_factors("warmup_cosine", steps)
    assert len(factors) == steps
    assert factors.max() == pytest.approx(1.0)
    assert factors.min() > 0


def test_range_test_rises_over_four_decades():
    factors = schedule_factors("range_test", 9)
    np.testing.assert_allclose(factors[[0, -1]], [1e-4, 1.0])
    np.testing.assert_allclose(np.diff(np.log10(factors)), 0.5)


def test_defaults_depend_on_the_optimizer_and_change_with_it():
    assert Recipe(learning_rate=1, batch_size=1, steps=1, optimizer="momentum").momentum == 0.9
    adamw = Recipe(learning_rate=1, batch_size=1, steps=1, optimizer="adamw")
    assert adamw.weight_decay == 0.01
    changed = adamw.replace(optimizer="sgd")
    assert (changed.weight_decay, changed.momentum) == (0.0, 0.0)
    assert adamw.replace(steps=5).weight_decay == 0.01


def test_json_round_trip_and_unknown_fields():
    recipe = Recipe(learning_rate=0.3, batch_size=4, steps=9, optimizer="momentum", num_samples=50)
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ValueError, match=r"\['lr'\] are not known; the fields are"):
        Recipe.from_json({"lr": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        ({"learning_rate": math.nan}, "learning_rate=nan must be positive"),
        ({"learning_rate": math.inf}, "learning_rate=inf must be positive"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number"),
        ({"steps": 2.5}, "steps=2.5 must be a whole number"),
        ({"num_samples": 0}, "num_samples=0 must be a whole number"),
        ({"optimizer": "sgdm"}, "optimizer='sgdm' is not one of sgd, momentum, adamw"),
        ({"schedule": "linear"}, "schedule='linear' is not one of"),
        ({"momentum": 0.9}, "momentum=0.9 needs optimizer='momentum'"),
        ({"optimizer": "momentum", "momentum": 1.0}, r"momentum=1.0 must lie in \(0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be at least 0"),
    ],
)
def test_bad_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**({"learning_rate": 0.1, "batch_size": 4, "steps": 3} | changes))


def test_cost_counts_the_passes_of_alignment():
    plain = Recipe(learning_rate=0.1, batch_size=4, steps=3)
    assert (plain.cost(), plain.replace(alignment="sam").cost()) == (12, 24)


def test_equal_numbers_of_another_type_are_refused_although_a_like_recipe_was_read_before():
    whole = Recipe(learning_rate=0.1, batch_size=4, steps=3).to_json()
    assert Recipe.from_json(whole) == Recipe.from_json(dict(whole))
    with pytest.raises(ValueError, match=r"batch_size=4.0 must be a whole number"):
        Recipe.from_json({**whole, "batch_size": 4.0})
    with pytest.raises((TypeError, ValueError), match="schedule|unhashable|is not one of"):
        Recipe.from_json({**whole, "schedule": ["constant"]})
    with pytest.raises(ValueError, match="are not known"):
        Recipe.from_json("text")  # type: ignore[arg-type]
