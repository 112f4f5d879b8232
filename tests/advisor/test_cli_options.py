import pytest
import typer

from advisor.cli_options import parse_cost, parse_limit, parse_pairs


def test_costs_and_limits_are_read_as_people_write_them() -> None:
    assert parse_cost("200,000") == 200_000
    assert parse_limit("90") == 90
    assert parse_limit("1h30m") == 5400


@pytest.mark.parametrize("text", ["", "nan", "inf", "0", "-1", "many"])
def test_a_cost_that_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be a number of per-sample gradients above 0"):
        parse_cost(text)


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=1,a=2"])
def test_pairs_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="coefficients"):
        parse_pairs([text], "coefficients")
