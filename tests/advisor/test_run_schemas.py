import json
from pathlib import Path

import pytest

from advisor import run_schemas
from advisor.run_manifest import DamagedArtefact
from advisor.run_schemas import WrongSchema, read_typed


def stored(folder: Path, content: object) -> Path:
    path = folder / "constants.json"
    path.write_text(json.dumps(content))
    return path


def test_the_schema_is_checked_and_taken_off(tmp_path: Path) -> None:
    assert read_typed(stored(tmp_path, {"schema": "merge-advisor/constants/1", "a": 1})) == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [[1], {"a": 1}, {"schema": 3}, {"schema": "merge-advisor/run/1"}, {"schema": "merge-advisor/constants/x"}],
)
def test_a_file_without_its_own_schema_is_damaged(tmp_path: Path, content: object) -> None:
    with pytest.raises(DamagedArtefact, match="constants.json"):
        read_typed(stored(tmp_path, content))


def test_a_newer_file_asks_for_an_upgrade(tmp_path: Path) -> None:
    with pytest.raises(WrongSchema, match="version=2 of constants.json is newer than 1.*upgrade merge-advisor"):
        read_typed(stored(tmp_path, {"schema": "merge-advisor/constants/2"}))


def test_an_older_file_is_converted_step_by_step_or_refused_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path, {"schema": "merge-advisor/constants/1", "steps": ["one"]})
    monkeypatch.setattr(run_schemas, "VERSIONS", {"constants": 3})
    with pytest.raises(WrongSchema, match="version=1 of constants.json is older than 3 and has no converter"):
        read_typed(path)
    monkeypatch.setattr(
        run_schemas,
        "CONVERTERS",
        {
            ("constants", 1): lambda old: {"steps": [*old["steps"], "two"]},
            ("constants", 2): lambda old: {"steps": [*old["steps"], "three"]},
        },
    )
    assert read_typed(path) == {"steps": ["one", "two", "three"]}
