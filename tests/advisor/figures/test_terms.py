import pytest

from advisor.figures import term_shares


def test_the_mark_is_the_sum_of_the_signed_parts() -> None:
    figure, alt = term_shares({"a": {"start": 0.9, "progress": -0.5}, "b": {"start": 0.8, "noise": 0.1}})
    assert figure.layout.barmode == "relative"
    assert [trace.name for trace in figure.data] == ["start", "progress", "noise", "predicted risk (sum)"]
    assert list(figure.data[-1].y) == pytest.approx([0.4, 0.9])
    assert list(figure.data[2].y) == [0.0, 0.1]
    assert "a 0.400 = start +0.900, progress -0.500" in alt


def test_no_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        term_shares({})
