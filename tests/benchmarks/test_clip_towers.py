"""Published layouts against the tower they were written from, and against transformers' own network."""

import pytest
import timm
import torch

from benchmarks.clip_towers import split_tower
from tests.benchmarks.clip_stand_ins import FEATURES, MODEL, SIDE, features_of, in_hugging_face, in_open_clip, towers


def network() -> torch.nn.Module:
    made: torch.nn.Module = timm.create_model(MODEL, num_classes=0)
    return made


@pytest.mark.parametrize("layout", ["timm", "open_clip", "open_clip, wrapped", "hugging_face", "hugging_face, bare"])
def test_a_tower_is_found_in_every_layout(layout: str) -> None:
    tower = towers(1)[0]
    written = {
        "timm": lambda: {name: value for name, value in tower.items() if name != "projection"},
        "open_clip": lambda: in_open_clip(tower, ""),
        "open_clip, wrapped": lambda: in_open_clip(tower, "module.image_encoder.model."),
        "hugging_face": lambda: in_hugging_face(tower, whole=True),
        "hugging_face, bare": lambda: in_hugging_face(tower, whole=False),
    }[layout]()
    found, projection = split_tower(written, network(), "expert 'cars'")
    assert set(found) == set(tower) - {"projection"}
    for name, value in found.items():
        torch.testing.assert_close(value, tower[name], rtol=0, atol=0, msg=name)
    if layout in ("timm", "hugging_face, bare"):
        assert projection is None
    else:
        assert projection is not None
        torch.testing.assert_close(projection, tower["projection"], rtol=0, atol=0)


def test_half_precision_is_widened() -> None:
    tower = towers(1)[0]
    found, projection = split_tower({n: v.half() for n, v in in_open_clip(tower).items()}, network(), "base")
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert projection is not None
    assert projection.dtype == torch.float32


def test_features_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=FEATURES,
        intermediate_size=4 * FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
    torch.manual_seed(1)
    theirs = transformers.CLIPVisionModel(config).eval()
    state = theirs.state_dict()
    if (
        "vision_model.embeddings.class_embedding" not in state
    ):  # how newer versions name it in memory; files keep the prefix
        state = {f"vision_model.{name}": value for name, value in state.items()}
    found, _ = split_tower(state, network(), "expert")
    images = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = theirs(pixel_values=images).pooler_output
        torch.testing.assert_close(features_of(found, images), expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_tower_is_refused_with_the_layouts_that_are_known() -> None:
    message = r"expert 'x': no 'cls_token' .*among \['weight'\].*timm .*open_clip .*Hugging Face"
    with pytest.raises(ValueError, match=message):
        split_tower({"weight": torch.zeros(2)}, network(), "expert 'x'")


def test_a_tower_with_a_layer_missing_is_refused_by_name() -> None:
    state = in_hugging_face(towers(1)[0], whole=False)
    for name in [name for name in state if ".layers.1.mlp.fc2." in name]:
        del state[name]
    with pytest.raises(ValueError, match=r"no 'blocks.1.mlp.fc2.weight' \(and 1 more\)"):
        split_tower(state, network(), "expert")


def test_a_tower_of_another_size_is_refused() -> None:
    wider = timm.create_model(MODEL, num_classes=0, embed_dim=64)
    with pytest.raises(ValueError, match=r"shape .*it is of another size: pass --model or --image-size"):
        split_tower(in_hugging_face(towers(1)[0], whole=False), wider, "expert")
