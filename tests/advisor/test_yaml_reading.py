from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.yaml_reading import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "in line 2: key 'a' is given twice; keep one"),
        ("on: 1", "key True is no text; put it in quotes"),
        ("a: &x [1]\nb: *x", "anchors, aliases and tags"),
        ("a: !!python/object/apply:os.system [ls]", "anchors, aliases and tags"),
        ("a: [1", "in line 1.*correct the YAML"),
        ("a: 2001-99-99", "put the value in quotes"),
        ("a: " + "9" * 5000, "put the value in quotes"),
        ("a: " + "[" * 5000, "nested deeper than 20 levels"),
        ("- " * 5000, "nested deeper than 20 levels"),
        ("{[1]: 2}", "is no text; put it in quotes|unhashable"),
        ("a: \x00", "correct the YAML"),
    ],
)
def test_yaml_that_hides_something_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_yaml(text, "p.yaml")


def test_plain_yaml_is_read() -> None:
    assert parse_yaml("a: {b: [1, 2.5, null, yes, text]}") == {"a": {"b": [1, 2.5, None, True, "text"]}}


def test_missing_large_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing.yaml.*cannot be read.*merge-advisor init"):
        read_yaml(tmp_path / "missing.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * 200_001)
    with pytest.raises(ValueError, match="big.yaml.*larger than 200,000 bytes"):
        read_yaml(tmp_path / "big.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match="binary.yaml.*not UTF-8"):
        read_yaml(tmp_path / "binary.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        read_yaml(tmp_path)


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=":{}[]-&*!|>'\"#%@ \n\tabc01.~", max_size=60))
def test_any_text_is_read_or_refused_with_a_value_error(text: str) -> None:
    try:
        parse_yaml(text, "p.yaml")
    except ValueError as error:
        assert str(error).startswith("p.yaml")  # noqa: PT017
