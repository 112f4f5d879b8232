import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from estimators import files
from estimators.files import (
    StorageFailed,
    append_json_line,
    read_json,
    remove_temporaries,
    write_bytes_atomic,
    write_json,
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"ü": [1, 2.5, None], "array": np.arange(3), "scalar": np.float64(0.5)})
    assert read_json(tmp_path / "deep" / "a.json") == {"ü": [1, 2.5, None], "array": [0, 1, 2], "scalar": 0.5}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "a.bin"
    write_bytes_atomic(target, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(StorageFailed, match="a.bin.*No space left.*free some space"):
        write_bytes_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(StorageFailed, match="a/b.json.*choose another --out"):
        write_json(tmp_path / "a" / "b.json", {})


def test_nan_is_refused_because_it_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.json cannot hold this value.*store null"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_value_without_json_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="type complex has no JSON form"):
        write_json(tmp_path / "a.json", {"x": 1j})


def test_damaged_json_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"x": 1')
    with pytest.raises(ValueError, match="a.json.*not readable JSON.*delete it"):
        read_json(tmp_path / "a.json")


def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    for i in range(3):
        append_json_line(tmp_path / "log" / "events.jsonl", {"i": i})
    lines = (tmp_path / "log" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["i"] for line in lines] == [0, 1, 2]


def test_a_line_that_cannot_be_appended_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(StorageFailed, match="a/log.jsonl.*choose another --out"):
        append_json_line(tmp_path / "a" / "log.jsonl", {})


def test_files_take_the_permissions_that_the_user_set(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_bytes_atomic(tmp_path / "private", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_syncing_a_missing_folder_is_harmless(tmp_path: Path) -> None:
    files.sync_folder(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = [tmp_path / ".a.json.0123456789ab.tmp", tmp_path / "deep" / ".b.safetensors.ffffffffffff.tmp"]
    kept = [tmp_path / ".stop.0123456789ab.tmp", tmp_path / ".mine.tmp", tmp_path / "a.json"]
    for path in [*left, *kept]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    remove_temporaries(tmp_path, but=("stop",))
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
