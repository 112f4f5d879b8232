"""Numbers of estimators, risk terms and bound terms are those that were stored; see ``golden_numbers`` for how."""

import json

import numpy as np
import pytest

from advisor.bound import worst_case
from advisor.bound_constants import from_constants
from advisor.plan import Plan, PlanTable
from advisor.risk_form import KINDS
from estimators.recipe import Recipe
from tests.reliability.golden_numbers import (
    COMMAND,
    NAMES,
    STORED,
    bound_numbers,
    estimator_numbers,
    example_constants,
    term_numbers,
)

GOLDEN = json.loads(STORED.read_text())
# float32 networks: other processors and versions of torch round otherwise; float64 formulas do not
TOLERANCE = {"estimators": 2e-3, "risk terms": 1e-9, "bound terms": 1e-9}
NUMBERS = {"estimators": estimator_numbers, "risk terms": term_numbers, "bound terms": bound_numbers}


@pytest.mark.parametrize("part", NUMBERS)
def test_numbers_are_those_that_were_stored(part: str) -> None:
    assert GOLDEN["command"] == COMMAND
    if part == "risk terms":
        assert GOLDEN["kinds"] == list(KINDS), f"the risk form has other parameters; look and run {COMMAND}"
    found, stored = NUMBERS[part](), GOLDEN[part]
    assert set(found) == set(stored), f"other numbers than stored; look and run {COMMAND}"
    wrong = {
        name: (value, stored[name])
        for name, value in found.items()
        if value != pytest.approx(stored[name], rel=TOLERANCE[part], abs=1e-9)
    }
    assert wrong == {}, f"if the change is meant, run {COMMAND}"


def test_every_term_is_tried_at_a_value_that_is_not_zero() -> None:
    for part in ("risk terms", "bound terms"):
        names = {name.split("/")[1] for name in GOLDEN[part]}
        zero = [n for n in names if all(v == 0 for key, v in GOLDEN[part].items() if key.split("/")[1] == n)]
        assert zero == []


def test_growth_beyond_the_largest_number_stays_finite_in_logarithms() -> None:
    constants = example_constants()
    recipe = Recipe(learning_rate=10.0, batch_size=16, steps=100_000)  # (1 + 10 * 20)^200000
    table = PlanTable.from_plans([Plan.uniform(NAMES, recipe, 1.0)], constants.num_samples)
    terms = worst_case(from_constants(constants, [0.5, 0.5]), table)
    assert np.isfinite(terms.log10("total")).all()
    assert terms.log10("total")[0] > 308
