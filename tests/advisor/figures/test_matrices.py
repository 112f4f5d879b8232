import math
from dataclasses import replace

import pytest

from advisor.figures import gradient_cosines, heat_map, relative_sharpness
from estimators.constants import Estimate
from tests.advisor import advice_samples as samples


def test_cosines_are_the_gram_matrix_over_the_norms() -> None:
    def cell(value: float) -> Estimate:
        return Estimate(value=value, low=value - 1, high=value + 1)

    gram = ((cell(4.0), cell(3.0)), (cell(3.0), cell(9.0)))
    drawn = gradient_cosines(replace(samples.constants(("a", "b")), gradient_gram=gram))
    assert drawn is not None
    assert drawn.figure.data[0].z[0][1] == pytest.approx(0.5)
    assert "from 0.5 (a, b) to 0.5 (b, a)" in drawn.alt


def test_a_norm_that_is_not_positive_leaves_a_gap() -> None:
    cells = tuple(tuple(Estimate(value=v, low=v, high=v) for v in row) for row in ((-1.0, 0.2), (0.2, 1.0)))
    drawn = gradient_cosines(replace(samples.constants(("a", "b")), gradient_gram=cells))
    assert drawn is not None
    assert drawn.figure.data[0].z[0][1] is None
    assert drawn.figure.data[0].z[1][1] == 1


def test_what_was_not_measured_has_no_figure() -> None:
    bare = replace(samples.constants(), gradient_gram=None, relative_sharpness=None)
    assert gradient_cosines(bare) is None
    assert relative_sharpness(bare) is None


def test_numbers_vanish_where_cells_are_too_small() -> None:
    names = [f"t{k}" for k in range(20)]
    matrix = [[0.5 if i != j else math.nan for j in range(20)] for i in range(20)]
    assert heat_map(names, matrix, title="t", unit="u").figure.data[0].text is None
    with pytest.raises(ValueError, match="must be 2 x 2"):
        heat_map(["a", "b"], [[1.0]], title="t", unit="u")
