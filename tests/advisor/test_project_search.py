import pytest

from advisor.project_search import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("30min", 1800), ("2h", 7200), ("1h30m", 5400), ("1h 30m 5s", 5405), ("90", 90), ("0.5h", 1800)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "30 minutes ago", "-5m", "1d", "1m2h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 30m"):
        parse_duration(text)
