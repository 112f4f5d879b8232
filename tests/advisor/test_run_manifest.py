import hashlib
from pathlib import Path

import pytest

from advisor.run_manifest import (
    DamagedArtefact,
    accept_checksum,
    artefact_condition,
    file_checksum,
    forget_checksum,
    read_manifest,
)


def test_the_checksum_of_a_large_file_is_its_sha_256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "w.bin").write_bytes(data)
    assert file_checksum(tmp_path / "w.bin") == hashlib.sha256(data).hexdigest()


def test_a_file_goes_from_absent_over_unrecorded_to_whole_to_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    assert artefact_condition(tmp_path, "w.bin") == "absent"
    path.write_bytes(b"weights")
    assert artefact_condition(tmp_path, "w.bin") == "unrecorded"
    accept_checksum(tmp_path, "w.bin", file_checksum(path))
    assert artefact_condition(tmp_path, "w.bin") == "whole"
    path.write_bytes(b"weightz")
    assert artefact_condition(tmp_path, "w.bin") == "damaged"
    forget_checksum(tmp_path, "w.bin")
    assert artefact_condition(tmp_path, "w.bin") == "unrecorded"


def test_between_accepting_and_writing_the_old_content_is_still_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    accept_checksum(tmp_path, "a.json", file_checksum(path))
    for new in (b"new", b"newer"):  # killed twice before the file was written
        accept_checksum(tmp_path, "a.json", hashlib.sha256(new).hexdigest())
        assert artefact_condition(tmp_path, "a.json") == "whole"
    path.write_bytes(b"newer")
    assert artefact_condition(tmp_path, "a.json") == "whole"
    path.write_bytes(b"new")
    assert artefact_condition(tmp_path, "a.json") == "damaged"


def test_damaged_content_is_not_made_good_by_a_later_write(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    accept_checksum(tmp_path, "a.json", file_checksum(path))
    path.write_bytes(b"flipped")
    accept_checksum(tmp_path, "a.json", hashlib.sha256(b"new").hexdigest())
    assert artefact_condition(tmp_path, "a.json") == "damaged"


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"schema": "merge-advisor/manifest/1", "files": {"a": "x"}}', '{"schema": "x", "files": {}}'],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DamagedArtefact, match=r"manifest\.json"):
        read_manifest(tmp_path)
