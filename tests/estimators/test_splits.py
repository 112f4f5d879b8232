import ast
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from estimators.builtin_tasks import builtin_catalogue
from estimators.datasets import Catalogue, Side
from estimators.files import write_json
from estimators.splits import (
    SPLITS_FILE,
    DamagedSplit,
    SplitIndices,
    apportion,
    data_path,
    load_split,
    open_test,
    read_records,
    split_catalogue,
    store_split,
)

ROOT = Path(__file__).resolve().parents[2]
MAY_OPEN_TEST = {"advisor/validation.py"}


def catalogue(counts: list[int], side: Side | None = None, prefix: str = "") -> Catalogue:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Catalogue(
        origin="data/x",
        names=tuple(f"{prefix}{label}/{i}" for i, label in enumerate(labels)),
        labels=labels,
        class_names=tuple(str(label) for label in range(len(counts))),
        sides=tuple((side or "") for _ in labels),
        open_sample=lambda _: Image.new("L", (2, 2)),
    )


def with_sides(counts: dict[Side, list[int]]) -> Catalogue:
    sides: list[Side] = []
    labels: list[int] = []
    for side, per_class in counts.items():
        for label, count in enumerate(per_class):
            sides += [side] * count
            labels += [label] * count
    return Catalogue(
        origin="data/x",
        names=tuple(f"{side}/{label}/{i}" for i, (side, label) in enumerate(zip(sides, labels, strict=True))),
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(str(i) for i in range(len(next(iter(counts.values()))))),
        sides=tuple(sides),
        open_sample=lambda _: Image.new("L", (2, 2)),
    )


def parts(cut: SplitIndices) -> list[set[int]]:
    return [set(getattr(cut, side).tolist()) for side in ("train", "validation", "test")]


def per_class(found: Catalogue, indices: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    return np.bincount(found.labels[indices], minlength=len(found.class_names)).tolist()


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_splits_part_the_samples_and_hold_every_class(counts: list[int], seed: int) -> None:
    found = catalogue(counts)
    cut = split_catalogue(found, seed=seed)
    train, validation, test = parts(cut)
    assert train | validation | test == set(range(sum(counts)))
    assert len(train) + len(validation) + len(test) == sum(counts)
    for side in (cut.train, cut.validation, cut.test):
        assert min(per_class(found, side)) >= 1


def test_the_default_is_70_15_15_within_each_class() -> None:
    found = catalogue([100, 200])
    cut = split_catalogue(found, seed=0)
    assert per_class(found, cut.train) == [70, 140]
    assert per_class(found, cut.validation) == [15, 30]
    assert per_class(found, cut.test) == [15, 30]


def test_the_seed_alone_decides() -> None:
    found = catalogue([30, 30])
    first, second, other = (split_catalogue(found, seed=seed) for seed in (1, 1, 2))
    assert (first.train == second.train).all()
    assert parts(first) != parts(other)


def test_training_samples_come_in_a_random_order_of_classes() -> None:
    labels = catalogue([200, 200]).labels[split_catalogue(catalogue([200, 200]), seed=0).train]
    runs = int((np.diff(labels) != 0).sum())
    # alternations in a random order of 140 + 140: mean 140, standard deviation 8.4; 2 when sorted by class
    assert 100 < runs < 180


def test_two_tasks_that_share_a_class_put_each_image_on_the_same_side() -> None:
    low, even = builtin_catalogue("builtin/digits-low"), builtin_catalogue("builtin/digits-even")
    named = []
    for found in (low, even):
        cut = split_catalogue(found, seed=3)
        named.append([{found.names[i] for i in side} for side in (cut.train, cut.validation, cut.test)])
    for i in range(3):
        for j in range(3):
            assert bool(named[0][i] & named[1][j]) == (i == j)


def test_given_splits_are_respected() -> None:
    found = with_sides({"train": [10, 10], "validation": [3, 4], "test": [5, 6]})
    cut = split_catalogue(found, seed=0)
    for side in ("train", "validation", "test"):
        assert {found.sides[i] for i in getattr(cut, side)} == {side}
    assert [len(cut.train), len(cut.validation), len(cut.test)] == [20, 7, 11]


def test_a_missing_split_is_cut_from_train_and_never_from_test() -> None:
    found = with_sides({"train": [20, 20], "test": [5, 5]})
    cut = split_catalogue(found, seed=0)
    assert {found.sides[i] for i in cut.validation} == {"train"}
    assert {found.sides[i] for i in cut.test} == {"test"}
    # 0.15 of the 0.85 that train and validation share
    assert len(cut.validation) == 2 * round(20 * 0.15 / 0.85)
    only_train = split_catalogue(with_sides({"train": [20, 20], "validation": [5, 5]}), seed=0)
    assert len(only_train.validation) == 10
    assert len(only_train.test) == 2 * round(20 * 0.15 / 0.85)


@settings(max_examples=80, deadline=None)
@given(counts=st.lists(st.integers(1, 1000), min_size=1, max_size=20), data=st.data())
def test_apportionment_is_exact_and_within_bounds(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(len(counts), 1500))
    sizes = apportion(counts, total)
    assert sum(sizes) == min(total, sum(counts))
    assert all(1 <= size <= count for size, count in zip(sizes, counts, strict=True))


def test_a_limit_holds_exactly_and_keeps_sides_and_proportions() -> None:
    found = catalogue([100, 300])
    full, limited = split_catalogue(found, seed=0), split_catalogue(found, seed=0, limit=80)
    sizes = [len(limited.train), len(limited.validation), len(limited.test)]
    assert sum(sizes) == 80
    assert abs(sizes[0] - 56) <= 2
    for side, whole in zip(parts(limited), parts(full), strict=True):
        assert side <= whole
    assert abs(per_class(found, limited.train)[1] - 42) <= 2


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="class '1' has 2 images to cut into 3 splits; it needs at least 3"):
        split_catalogue(catalogue([5, 2]), seed=0)
    with pytest.raises(ValueError, match="limit=5 is below 6"):
        split_catalogue(catalogue([9, 9]), seed=0, limit=5)
    with pytest.raises(ValueError, match=r"split=\[0.5, 0.5, 0.5\].*sum to 1"):
        split_catalogue(catalogue([9, 9]), seed=0, fractions=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="class '0' is absent from the test split"):
        split_catalogue(with_sides({"train": [9, 9], "test": [0, 4]}), seed=0)


def stored_run(run: Path) -> None:
    inputs = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    labels = np.array([0, 1, 0, 1])
    hashes = {
        side: store_split(run, "a", side, inputs + k, labels) for k, side in enumerate(("train", "validation", "test"))
    }
    write_json(run / SPLITS_FILE, {"schema": 1, "seed": 0, "tasks": {"a": {"sha256": hashes}}})


def test_stored_samples_come_back_bit_for_bit(tmp_path: Path) -> None:
    stored_run(tmp_path)
    hashes = read_records(tmp_path)["a"]["sha256"]
    split = load_split(tmp_path, "a", "validation", sha256=hashes["validation"])
    assert (split.inputs.numpy().ravel() == np.arange(48) + 1).all()
    assert split.labels.tolist() == [0, 1, 0, 1]


def test_opening_test_data_is_written_down(tmp_path: Path) -> None:
    stored_run(tmp_path)
    assert len(open_test(tmp_path, "a", reader="validation")) == 4
    open_test(tmp_path, "a", reader="again")
    lines = [json.loads(line) for line in (tmp_path / "test_openings.jsonl").read_text().splitlines()]
    assert [(line["task"], line["reader"], line["samples"]) for line in lines] == [
        ("a", "validation", 4),
        ("a", "again", 4),
    ]


def test_test_data_cannot_be_had_by_the_side_door(tmp_path: Path) -> None:
    stored_run(tmp_path)
    with pytest.raises(ValueError, match="side='test' must be train or validation"):
        load_split(tmp_path, "a", "test", sha256="x")
    with pytest.raises(ValueError, match="reader=' ' must say what opens"):
        open_test(tmp_path, "a", reader=" ")
    with pytest.raises(ValueError, match="task='b' is not in this run; its tasks are a"):
        open_test(tmp_path, "b", reader="validation")


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_damaged_samples_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    stored_run(tmp_path)
    path, hashes = data_path(tmp_path, "a", "train"), read_records(tmp_path)["a"]["sha256"]
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[:-3])
    else:
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(DamagedSplit, match="a-train.safetensors.*made again|a-train.safetensors.*make it again"):
        load_split(tmp_path, "a", "train", sha256=hashes["train"])


def test_a_run_without_splits_or_with_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no splits.json; prepare the project"):
        read_records(tmp_path)
    write_json(tmp_path / SPLITS_FILE, {"schema": 99})
    with pytest.raises(ValueError, match="is not version 1 of the splits; delete it"):
        read_records(tmp_path)


def test_no_module_but_validation_opens_test_data() -> None:
    offenders = []
    for room in ("advisor", "estimators", "studies", "app"):
        for path in sorted((ROOT / room).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if place == "estimators/splits.py" or place in MAY_OPEN_TEST:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
                text = node.value if isinstance(node, ast.Constant) else None
                if name in ("open_test", "_read_split") or (
                    isinstance(text, str) and text.endswith("-test.safetensors")
                ):
                    offenders.append(f"{place}:{getattr(node, 'lineno', '?')}")
    assert offenders == []
