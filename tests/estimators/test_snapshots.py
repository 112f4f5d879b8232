"""The file of a snapshot: what was written is read, what was damaged is refused, whatever byte was hit."""

import random

import pytest
import torch

from estimators.snapshots import DamagedSnapshot, Snapshot, decode_snapshot, encode_snapshot


def encoded(snapshot: Snapshot) -> bytes:
    """The file's content in one piece."""
    return b"".join(encode_snapshot(snapshot))


def example() -> Snapshot:
    generator = torch.Generator().manual_seed(0)
    return Snapshot(
        tensors={
            "weights": torch.randn(3, 7, generator=generator),
            "traces": torch.randn(4, 3, 3, generator=generator).double(),
            "flags": torch.tensor([True, False]),
            "count": torch.tensor(5),
        },
        facts={"done": 4, "seconds": 0.1 + 0.2, "name": "é"},
    )


def test_what_was_written_is_read() -> None:
    snapshot = example()
    found = decode_snapshot(encoded(snapshot))
    assert found.facts == snapshot.facts
    assert set(found.tensors) == set(snapshot.tensors)
    for name, value in snapshot.tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)


def test_the_safetensors_library_reads_the_same() -> None:
    import safetensors.torch

    snapshot = example()
    found = safetensors.torch.load(encoded(snapshot))
    assert set(found) == set(snapshot.tensors)
    assert all(torch.equal(found[name], value) for name, value in snapshot.tensors.items())


def test_facts_alone_are_read() -> None:
    found = decode_snapshot(encoded(Snapshot(facts={"risk": 0.25})))
    assert found.facts == {"risk": 0.25}
    assert found.tensors == {}


def test_no_flipped_bit_gives_other_numbers() -> None:
    """Every byte of a small file, a bit of each: refused, or the very same values (a blank of the header's padding)."""
    snapshot, chance = example(), random.Random(0)
    data = encoded(snapshot)
    refused = 0
    for at in range(len(data)):
        hit = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        try:
            found = decode_snapshot(hit)
        except DamagedSnapshot:
            refused += 1
            continue
        assert found.facts == snapshot.facts
        assert all(torch.equal(found.tensors[name], value) for name, value in snapshot.tensors.items())
    assert refused > 0.98 * len(data)


def test_no_shorter_file_is_read() -> None:
    data = encoded(example())
    for length in range(0, len(data), 7):
        with pytest.raises(DamagedSnapshot, match=r".+"):
            decode_snapshot(data[:length])


def test_a_file_of_another_kind_is_refused() -> None:
    import safetensors.torch

    for data in (b"", b"{}", b"\xff" * 64, safetensors.torch.save({"a": torch.zeros(2)})):
        with pytest.raises(DamagedSnapshot, match=r".+"):
            decode_snapshot(data)


def test_numbers_that_are_not_finite_are_refused_among_facts() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        encoded(Snapshot(facts={"loss": float("nan")}))
