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
    assert "tuned on validation labels" in capsys.readouterr().out


@pytest.mark.slow  # builds a whole ViT-B/32
def test_open_clips_layout_becomes_timms(tmp_path: Path) -> None:
    model = "vit_base_patch32_clip_quickgelu_224"
    network = timm.create_model(model, pretrained=False, num_classes=0)
    state, wanted = open_clip_layout(network.state_dict()), network.state_dict()
    safetensors.torch.save_file(state, tmp_path / "open_clip.safetensors")
    made = clip8.as_timm(tmp_path / "open_clip.safetensors", tmp_path / "timm.safetensors", model)
    found = safetensors.torch.load_file(made)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=name)


def open_clip_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names written as open_clip's, by hand."""
    made: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        for ours, theirs in (
            ("patch_embed.proj.", "conv1."),
            ("norm_pre.", "ln_pre."),
            ("norm.", "ln_post."),
            ("blocks.", "transformer.resblocks."),
        ):
            if name.startswith(ours):
                name = theirs + name[len(ours) :]
                break
        for ours, theirs in (
            (".norm1.", ".ln_1."),
            (".norm2.", ".ln_2."),
            (".attn.qkv.weight", ".attn.in_proj_weight"),
            (".attn.qkv.bias", ".attn.in_proj_bias"),
            (".attn.proj.", ".attn.out_proj."),
            (".mlp.fc1.", ".mlp.c_fc."),
            (".mlp.fc2.", ".mlp.c_proj."),
        ):
            name = name.replace(ours, theirs)
        if name == "cls_token":
            name, value = "class_embedding", value.reshape(-1)
        if name == "pos_embed":
            name, value = "positional_embedding", value.squeeze(0)
        made[f"visual.{name}"] = value.contiguous()
    return made


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no cars"):
        clip8.find_checkpoint(tmp_path, "cars")
