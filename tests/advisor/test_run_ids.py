from datetime import datetime
from pathlib import Path

import pytest

from advisor.run_ids import is_run_id, new_run_folder
from estimators.files import StorageFailed


def test_runs_of_the_same_second_are_numbered(tmp_path: Path) -> None:
    now = datetime(2026, 11, 22, 6, 5, 4)
    names = [new_run_folder(tmp_path / "runs", "Flowers & <b>", now=now).name for _ in range(3)]
    assert names == ["20261122-060504-flowers-b", "20261122-060504-flowers-b-2", "20261122-060504-flowers-b-3"]
    assert all(is_run_id(name) for name in names)


@pytest.mark.parametrize("text", ["", ".", "..", "../a", "a/b", "a\\b", "/a", "-a", ".a", "a\n", "a" * 101, "ä"])
def test_what_is_no_plain_folder_name_is_no_id(text: str) -> None:
    assert not is_run_id(text)


def test_a_file_in_place_of_the_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageFailed, match="runs.*is a file"):
        new_run_folder(tmp_path / "runs", "p")
