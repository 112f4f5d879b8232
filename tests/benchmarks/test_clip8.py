"""The standard table's path on tiny stand-ins: a small vision transformer, two tasks of random images."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from benchmarks import clip8
from estimators.splits import open_test
from estimators.tasks import LinearHead
from tests.benchmarks.clip_stand_ins import FEATURES, MODEL, SIDE, features_of, in_hugging_face, in_open_clip, towers

WIDTH = 64


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip8")
    rng = np.random.default_rng(0)
    for task in ("one", "two"):
        for label, shade in (("dark", 60), ("light", 190)):
            place = folder / "data" / task / label
            place.mkdir(parents=True)
            for k in range(12):
                pixels = rng.integers(shade - 50, shade + 50, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{k}.png")
    torch.manual_seed(0)
    network = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=16)
    base = network.state_dict()
    (folder / "clip").mkdir()
    safetensors.torch.save_file(base, folder / "clip" / "base.safetensors")
    for number, task in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(number)
        expert = {n: v + 0.002 * torch.randn(v.shape, generator=generator) for n, v in base.items()}
        safetensors.torch.save_file(expert, folder / "clip" / f"{task}.safetensors")
        head = {"weight": torch.randn(2, WIDTH, generator=generator), "bias": torch.zeros(2)}
        safetensors.torch.save_file(head, folder / "clip" / f"{task}-head.safetensors")
    return folder


def test_the_table_is_made_of_what_is_there_and_names_the_lineage(
    stand_ins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stand_ins / "table.json"
    given = ["--checkpoints", stand_ins / "clip", "--data", stand_ins / "data", "--work", stand_ins / "work"]
    options = ["--model", "test_vit", "--image-size", 16, "--tasks", "one", "two", "--labels", 1]
    clip8.main([str(part) for part in [*given, *options, "--lineage", "tall_mask", "--out", out]])
    table = json.loads(out.read_text())
    assert table["lineage"] == "tall_mask"
    assert table["published_same_lineage"] is None  # stand-ins stand beside no published number
    assert set(table["accuracy"]) == {
        "pretrained",
        "experts",
        *clip8.FIXED,
        "tuned on weights",
        "tuned on unlabelled images",
        "tuned on 1 labels a class",
        "tuned on validation labels",
    }
    for label, cells in table["accuracy"].items():
        assert table["mean"][label] == pytest.approx(100 * np.mean(list(cells.values())))
    assert table["heads"] == {"one": "given", "two": "given"}
    assert "tuned on validation labels" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["open_clip", "hugging_face"])
def test_published_layouts_go_all_the_way_and_match_a_hand_made_merge(
    layout: str, stand_ins: Path, tmp_path: Path
) -> None:
    states = towers(3)
    heads = [torch.randn(2, FEATURES // 2, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    for name, state in zip(("base", "one", "two"), states, strict=True):
        written = in_open_clip(state) if layout == "open_clip" else in_hugging_face(state, whole=name == "base")
        torch.save(written, tmp_path / f"{name}.pt")
    for name, head in zip(("one", "two"), heads, strict=True):
        torch.save({"weight": head}, tmp_path / f"{name}-head.pt")
    table = clip8.run_table(
        tmp_path,
        stand_ins / "data",
        tmp_path / "work",
        tasks=("one", "two"),
        model=MODEL,
        size=SIDE,
        labels=1,
    )
    merged = {n: (states[1][n] + states[2][n]) / 2 for n in states[0]}
    if layout == "hugging_face":  # its experts come without a projection
        merged["projection"] = states[0]["projection"]
    for name, head in zip(("one", "two"), heads, strict=True):
        test = open_test(tmp_path / "work" / "run", name, reader="test")
        shares = (np.reshape(values, (1, 3, 1, 1)) for values in (clip8.CLIP_MEAN, clip8.CLIP_STD))
        mean, deviation = (torch.tensor(v, dtype=torch.float32) for v in shares)
        with torch.no_grad():
            features = features_of(merged, (test.inputs.float() / 255 - mean) / deviation)
        found = (features @ merged["projection"] @ head.T).argmax(1)
        accuracy = (found == test.labels).float().mean()
        assert table["accuracy"]["average"][name] == pytest.approx(float(accuracy), abs=1e-6)


def test_a_task_without_a_head_file_is_said_to_have_a_fitted_one(stand_ins: Path, tmp_path: Path) -> None:
    fitted = LinearHead(weight=torch.zeros(2, WIDTH), bias=torch.zeros(2))
    assert clip8.read_head(tmp_path, "one", fitted, {"base": None}) is None
    assert clip8.read_head(stand_ins / "clip", "one", fitted, {"base": None}) is not None


@pytest.mark.parametrize(
    ("state", "projection", "message"),
    [
        ({"weight": torch.zeros(3, 8)}, None, r"weight \(3, 8\) for 2 class folders"),
        ({"weight": torch.zeros(2, 5)}, None, r"neither on the tower's 8 features nor behind .*projection \(none\)"),
        ({"weight": torch.zeros(2, 5)}, torch.zeros(8, 6), r"projection \(\(8, 6\)\); give base"),
        ({"text": torch.zeros(2, 5)}, None, r"holds \['text'\], a head is 'weight'"),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    state: dict[str, torch.Tensor], projection: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    safetensors.torch.save_file(state, tmp_path / "one-head.safetensors")
    fitted = LinearHead(weight=torch.zeros(2, 8), bias=torch.zeros(2))
    with pytest.raises(ValueError, match=message):
        clip8.read_head(tmp_path, "one", fitted, {"base": projection})


def test_the_projection_of_a_head_follows_the_coefficients() -> None:
    generator = torch.Generator().manual_seed(0)
    base, first, second = (torch.randn(8, 5, generator=generator) for _ in range(3))
    head = clip8.ProjectedHead(
        weight=torch.randn(3, 5, generator=generator), bias=torch.arange(3.0), projections=(base, first, second)
    )
    expected = head.weight @ (0.5 * first + 0.5 * second).T
    torch.testing.assert_close(head.at(np.array([0.5, 0.5])).weight, expected)
    torch.testing.assert_close(head.at(np.zeros(2)).weight, head.weight @ base.T)
    torch.testing.assert_close(head.at(np.zeros(2)).bias, torch.arange(3.0))


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no cars"):
        clip8.find_checkpoint(tmp_path, "cars")
