from typing import get_args

import pytest

from advisor.advice import Answer, Predicted, Status
from advisor.wording import ANSWER_WORDS, STATUS_SIGNS, STATUS_WORDS, elasticity_text, risk_text


def test_every_status_and_answer_has_words_of_its_own() -> None:
    assert set(STATUS_WORDS) == set(STATUS_SIGNS) == set(get_args(Status))
    assert set(ANSWER_WORDS) == set(get_args(Answer))
    assert len(set(STATUS_WORDS.values())) == len(set(STATUS_SIGNS.values())) == len(get_args(Status))


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), "–"), (float("inf"), "∞"), (float("-inf"), "−∞"), (0, "0.000")]
)
def test_risks_that_are_no_numbers_are_said(value: float, text: str) -> None:
    assert risk_text(value) == text


def test_an_exponent_of_minus_one_means_that_ten_per_cent_more_divides_by_eleven_tenths() -> None:
    text = elasticity_text("learning_rate", Predicted(value=-1, low=-2, high=0))
    assert text == "10 % higher learning rate: -9.1 % (-17.4 % to +0.0 %)"
