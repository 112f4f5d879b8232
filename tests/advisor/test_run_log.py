import errno
import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.run_log import append_record, encode_record, read_log
from estimators.files import StorageFailed

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_the_checksum_is_the_crc_32_of_the_line_without_it() -> None:
    line = json.loads(encode_record({"kind": "started", "done": 3}))
    assert int(line["check"], 16) == zlib.crc32(b'{"kind": "started", "done": 3}')


@settings(max_examples=100, deadline=None)
@given(record=st.dictionaries(st.text(max_size=4).filter(lambda key: key != "check"), PLAIN, max_size=4))
def test_any_record_is_read_back(record: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    append_record(path, record, sync=False)
    assert read_log(path).records == (record,)


def test_half_a_line_of_a_killed_writer_is_named_and_hurts_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_record(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "ch')
    assert read_log(path).damaged == ()  # perhaps being written just now
    append_record(path, {"n": 3})
    part = read_log(path)
    assert part.records == ({"n": 1}, {"n": 3})
    assert [(line.number, line.reason) for line in part.damaged] == [(2, "is not JSON (cut off or overwritten)")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"n": 2, "check": "00000000"}', "does not match its checksum"),
        (b'{"n": 2}', "has no checksum"),
        (b"[1]", "is not a JSON object"),
        (b"[" * 100_000, "is not JSON (cut off or overwritten)"),
        (b"\xff\xfe", "is not JSON (cut off or overwritten)"),
    ],
)
def test_a_line_that_cannot_be_trusted_is_left_out_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(encode_record({"n": 1}) + line + b"\n" + encode_record({"n": 3}))
    part = read_log(path)
    assert part.records == ({"n": 1}, {"n": 3})
    assert [damage.reason for damage in part.damaged] == [reason]


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_costs_at_most_the_two_lines_that_it_touches(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [encode_record({"n": number, "risk": 0.25 * number}) for number in range(4)]
    data = bytearray(b"".join(lines))
    data[position % len(data)] ^= 1 << bit
    path = tmp_path_factory.mktemp("flipped") / "log.jsonl"
    path.write_bytes(bytes(data))
    part = read_log(path)
    originals = [{"n": number, "risk": 0.25 * number} for number in range(4)]
    assert all(record in originals for record in part.records)
    assert len(part.records) >= 2


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_record(path, {"n": 1})
    first = read_log(path)
    append_record(path, {"n": 2})
    second = read_log(path, start=first.end)
    assert second.records == ({"n": 2},)
    assert read_log(path, start=second.end).records == ()


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none.jsonl").records == ()


def test_a_record_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not hold the key 'check'"):
        append_record(tmp_path / "log.jsonl", {"check": 1})
    with pytest.raises(ValueError, match="store null for what is unknown"):
        append_record(tmp_path / "log.jsonl", {"risk": float("nan")})
    assert not (tmp_path / "log.jsonl").exists()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    append_record(path, {"n": 1})
    before = path.read_bytes()
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:5]))
    with pytest.raises(StorageFailed, match="log.jsonl.*free some space"):
        append_record(path, {"n": 2})
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_closed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(StorageFailed, match="log.jsonl.*grant write permission"):
        append_record(tmp_path / "log.jsonl", {"n": 1})
