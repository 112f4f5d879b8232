import pytest
from pydantic import TypeAdapter, ValidationError

from advisor.project_values import CoefficientRange, PositiveRange, WholeRange, check_folder_name, plain_yaml_value


def test_a_range_with_equal_ends_fixes_the_value() -> None:
    assert TypeAdapter(PositiveRange).validate_python([0.1, 0.1]) == (0.1, 0.1)
    assert TypeAdapter(CoefficientRange).validate_python([0, 0]) == (0.0, 0.0)
    assert TypeAdapter(WholeRange).validate_python(["4", 8]) == (4, 8)


@pytest.mark.parametrize("value", [[], [1], [1, 2, 3], "12", 5, None, {"a": 1}, [float("nan"), 1], [2, 1], [0, 1]])
def test_other_ranges_are_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="range of two numbers|inverted|positive at both ends"):
        TypeAdapter(PositiveRange).validate_python(value)


@pytest.mark.parametrize("name", ["", "../a", "a/b", "a b", ".a", "-a", "a\n", "ä", "a" * 65])
def test_task_names_that_are_no_plain_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="rename the task"):
        check_folder_name(name)


def test_plain_task_names_pass() -> None:
    assert check_folder_name("Flowers_2-b") == "Flowers_2-b"


def test_tuples_become_lists_at_any_depth() -> None:
    assert plain_yaml_value({"a": ({"b": (1, 2)},)}) == {"a": [{"b": [1, 2]}]}
