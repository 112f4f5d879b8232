"""A file that is whole and holds something else is refused by name with the way on; the way on works."""

from pathlib import Path
from typing import Any

import pytest

from advisor.run_manifest import DamagedArtefact
from advisor.run_reading import read_value
from advisor.runs import RunDirectory


def number(content: dict[str, Any]) -> float:
    return float(content["cell"]["values"][0])


def test_a_value_is_made_of_what_is_stored(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "a")
    run.write_json("constants.json", {"cell": {"values": [1.5]}})
    assert read_value(run, "constants.json", number) == 1.5


@pytest.mark.parametrize(
    "content", [{}, {"cell": None}, {"cell": {"values": []}}, {"cell": []}, {"cell": {"values": 3}}]
)
def test_another_shape_is_refused_by_name(tmp_path: Path, content: dict[str, Any]) -> None:
    run = RunDirectory.create(tmp_path, "a")
    run.write_json("constants.json", content)
    with pytest.raises(DamagedArtefact, match=r"constants.json of run .* something else .*; delete it and run"):
        read_value(run, "constants.json", number)


def test_a_wrong_number_keeps_its_own_words(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "a")
    run.write_json("constants.json", {"cell": {"values": ["seven"]}})
    with pytest.raises(ValueError, match="could not convert string to float: 'seven'"):
        read_value(run, "constants.json", number)
