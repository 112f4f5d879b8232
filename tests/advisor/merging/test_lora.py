"""LoRA merging against explicit products and, for scaling and patterns, PEFT's documented rules worked by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from advisor.merging import IncompatibleCheckpoints, UnreadableCheckpoint
from advisor.merging.lora import merge_lora, read_adapter

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


BASE = {
    "blocks.0.fc.weight": normal(6, 4),
    "blocks.1.fc.weight": normal(4, 6),
    "embed.weight": normal(9, 5),
    "conv.weight": normal(3, 2, 3, 3),
    "bias": normal(6),
}
LINEAR = {"r": 2, "lora_alpha": 8, "peft_type": "LORA", "bias": "none"}


def save_adapter(folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {f"base_model.model.{n}": np.ascontiguousarray(t) for n, t in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


def pair(module: str, out: int, inputs: int, rank: int = 2) -> dict[str, Any]:
    return {f"{module}.lora_A.weight": 0.1 * normal(rank, inputs), f"{module}.lora_B.weight": 0.1 * normal(out, rank)}


def merged_weights(tmp_path: Path, folders: list[Path], **settings: Any) -> dict[str, Any]:
    save_file(BASE, tmp_path / "base.safetensors")
    merge_lora(tmp_path / "base.safetensors", folders, out=tmp_path / "out", **settings)
    return dict(load_file(tmp_path / "out" / "model.safetensors"))


def test_adapters_add_their_scaled_products(tmp_path: Path) -> None:
    first, second = pair("blocks.0.fc", 6, 4), pair("blocks.0.fc", 6, 4)
    folders = [save_adapter(tmp_path / n, LINEAR, t) for n, t in (("a", first), ("b", second))]
    merged = merged_weights(tmp_path, folders, coefficients=[0.5, 2.0], workers=2)
    change = sum(
        w * (8 / 2) * t["blocks.0.fc.lora_B.weight"] @ t["blocks.0.fc.lora_A.weight"]
        for w, t in zip([0.5, 2.0], [first, second], strict=True)
    )
    np.testing.assert_allclose(merged["blocks.0.fc.weight"], BASE["blocks.0.fc.weight"] + change, rtol=1e-5, atol=1e-6)
    for name in BASE.keys() - {"blocks.0.fc.weight"}:
        np.testing.assert_array_equal(merged[name], BASE[name])


@pytest.mark.parametrize(
    ("change", "scale"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"alpha_pattern": {"0.fc": 3}}, 1.5),
        ({"alpha_pattern": {"1.fc": 3}}, 4.0),
        ({"r": 16, "rank_pattern": {"blocks.0.fc": 2}}, 4.0),
    ],
)
def test_scales_follow_the_configuration(tmp_path: Path, change: dict[str, Any], scale: float) -> None:
    folder = save_adapter(tmp_path / "a", {**LINEAR, **change}, pair("blocks.0.fc", 6, 4))
    assert read_adapter(folder)["blocks.0.fc.weight"].scale == pytest.approx(scale)


def test_transposed_layers_embeddings_and_convolutions_fit_their_weights(tmp_path: Path) -> None:
    transposed = pair("blocks.0.fc", 4, 6)
    folder = save_adapter(tmp_path / "a", {**LINEAR, "fan_in_fan_out": True}, transposed)
    product = 4 * transposed["blocks.0.fc.lora_B.weight"] @ transposed["blocks.0.fc.lora_A.weight"]
    np.testing.assert_allclose(read_adapter(folder)["blocks.0.fc.weight"].dense((6, 4)), product.T, rtol=1e-6)
    a, b = normal(2, 9), normal(5, 2)
    folder = save_adapter(tmp_path / "e", LINEAR, {"embed.lora_embedding_A": a, "embed.lora_embedding_B": b})
    np.testing.assert_allclose(read_adapter(folder)["embed.weight"].dense((9, 5)), 4 * (b @ a).T, rtol=1e-6)
    a, b = normal(2, 2, 3, 3), normal(3, 2, 1, 1)
    folder = save_adapter(tmp_path / "c", LINEAR, {"conv.lora_A.weight": a, "conv.lora_B.weight": b})
    expected = 4 * np.einsum("or,rikl->oikl", b[:, :, 0, 0], a)
    np.testing.assert_allclose(read_adapter(folder)["conv.weight"].dense((3, 2, 3, 3)), expected, rtol=1e-5)


def test_other_operators_take_adapters_as_experts(tmp_path: Path) -> None:
    folders = [save_adapter(tmp_path / n, LINEAR, pair("blocks.1.fc", 4, 6)) for n in "ab"]
    merged = merged_weights(tmp_path, folders, method="ties", density=0.5)
    assert not np.array_equal(merged["blocks.1.fc.weight"], BASE["blocks.1.fc.weight"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'; only LORA"),
        ({"use_dora": True}, "use_dora=True is not a low-rank change"),
        ({"modules_to_save": ["head"]}, r"modules_to_save=\['head'\] is not a low-rank change"),
        ({"bias": "all"}, "bias='all' is not a low-rank change"),
        ({"r": 0}, "r=0 must be a number above 0"),
        ({"lora_alpha": "x"}, "lora_alpha='x' must be a number above 0"),
        ({"r": 3}, "but r=3"),
    ],
)
def test_configurations_that_do_not_merge_exactly_are_refused(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    folder = save_adapter(tmp_path / "a", {**LINEAR, **change}, pair("blocks.0.fc", 6, 4))
    with pytest.raises(UnreadableCheckpoint, match=match):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"head.weight": normal(2, 2)}, "is not lora_A or lora_B"),
        ({"fc.lora_A.weight": normal(2, 2)}, "module 'fc' lacks lora_B"),
        ({"fc.lora_A.weight": normal(2), "fc.lora_B.weight": normal(2, 2)}, "not a factor"),
    ],
)
def test_damaged_adapters_are_refused(tmp_path: Path, tensors: dict[str, Any], match: str) -> None:
    with pytest.raises(UnreadableCheckpoint, match=match):
        read_adapter(save_adapter(tmp_path / "a", LINEAR, tensors))


def test_adapters_of_another_base_are_refused(tmp_path: Path) -> None:
    wrong_name = save_adapter(tmp_path / "a", LINEAR, pair("other", 6, 4))
    with pytest.raises(IncompatibleCheckpoints, match=r"changes 'other\.weight', which base .* has not"):
        merged_weights(tmp_path, [wrong_name])
    wrong_shape = save_adapter(tmp_path / "b", LINEAR, pair("blocks.0.fc", 4, 6))
    with pytest.raises(IncompatibleCheckpoints, match="does not fit the base's weight"):
        merged_weights(tmp_path, [wrong_shape])
    with pytest.raises(FileNotFoundError, match=r"needs adapter_config\.json"):
        read_adapter(tmp_path)
