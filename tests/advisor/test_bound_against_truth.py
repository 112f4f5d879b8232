"""The bound against the truth of random problems, and its broken variants against the same check.

Quadratic problems are judged exactly (``tests.exact_moments``): one violation in any case fails.  The scalar ones are
simulated and judged at ``TOLERANCE`` standard errors.
"""

import numpy as np
import pytest

from tests.bound_check import FAMILIES, STRATA, breaks, draw_cases, violations
from tests.broken_bounds import BROKEN
from tests.scalar_check import TOLERANCE, scalar_case


@pytest.fixture(scope="module")
def cases():
    return draw_cases(seed=1, per_stratum=25)


def test_the_bound_holds_on_random_quadratic_problems_of_every_stratum(cases):
    drawn = {(case.family, case.stratum) for case in cases}
    assert drawn == {(family, stratum) for family in FAMILIES for stratum in range(len(STRATA) - 1)}
    found = violations(cases)
    assert set(found) == {
        "displacement",
        "stability",
        "paper stability",
        "optimization",
        "merged_risk",
        "generalisation",
        "total",
    }
    assert not any(found.values()), found


@pytest.mark.parametrize("name", BROKEN)
def test_the_check_catches_a_broken_bound(name, cases):
    variant = BROKEN[name]
    with variant.installed(), np.errstate(all="ignore"):
        assert breaks(cases, variant.promise)


@pytest.mark.parametrize("kind", ["cosine", "log_cosh"])
def test_the_bound_holds_on_simulated_scalar_problems(kind):
    rng = np.random.default_rng(31)
    for _ in range(20):
        excess = scalar_case(rng, kind).excess()
        assert max(excess.values()) <= TOLERANCE, excess


@pytest.mark.slow
def test_the_bound_holds_on_thousands_of_random_problems():
    cases = draw_cases(seed=2, per_stratum=120)
    assert len(cases) >= 2000
    found = violations(cases)
    assert not any(found.values()), found
    rng = np.random.default_rng(32)
    for kind in ("cosine", "log_cosh"):
        for _ in range(150):
            excess = scalar_case(rng, kind).excess()
            assert max(excess.values()) <= TOLERANCE, excess
