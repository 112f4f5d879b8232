"""Tiny CLIP image towers, written in published layouts by hand.

A tower is a state dict under timm's names, with its projection [F, D] as `projection`.
"""

from typing import Any

import timm
import torch
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

FEATURES, SIDE = 32, 16
MODEL = "tiny_clip_stand_in"


@register_model
def tiny_clip_stand_in(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """The shape of `vit_base_patch32_clip_quickgelu_224`, as small as can be."""
    small = {"img_size": SIDE, "patch_size": 8, "embed_dim": FEATURES, "depth": 2, "num_heads": 2}
    return timm.create_model(  # type: ignore[return-value]
        "vit_base_patch32_clip_quickgelu_224", pretrained=False, **(small | options)
    )


def towers(count: int) -> list[dict[str, Tensor]]:
    """A base and experts beside it, each with its projection."""
    torch.manual_seed(0)
    base = timm.create_model(MODEL, num_classes=0).state_dict()
    base["projection"] = torch.randn(FEATURES, FEATURES // 2)
    made = [base]
    for number in range(1, count):
        generator = torch.Generator().manual_seed(number)
        made.append({n: v + 0.02 * torch.randn(v.shape, generator=generator) for n, v in base.items()})
    return made


def features_of(tower: dict[str, Tensor], images: Tensor) -> Tensor:
    """Features [n, F] of images [n, 3, S, S]."""
    network = timm.create_model(MODEL, num_classes=0).eval()
    network.load_state_dict({name: value for name, value in tower.items() if name != "projection"})
    found: Tensor = network(images)
    return found


_OPEN_CLIP = (
    (".norm1.", ".ln_1."),
    (".norm2.", ".ln_2."),
    (".attn.qkv.weight", ".attn.in_proj_weight"),
    (".attn.qkv.bias", ".attn.in_proj_bias"),
    (".attn.proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
_OPEN_CLIP_OUTER = {
    "patch_embed.proj.": "conv1.",
    "norm_pre.": "ln_pre.",
    "norm.": "ln_post.",
    "blocks.": "transformer.resblocks.",
}


def in_open_clip(tower: dict[str, Tensor], wrapper: str = "model.") -> dict[str, Tensor]:
    """As a module that holds open_clip's model as `model` saves it, without the text tower's blocks."""
    made = {"logit_scale": torch.tensor(4.6), "text_projection": torch.zeros(8, 8)}
    for name, value in tower.items():
        for ours, theirs in _OPEN_CLIP_OUTER.items():
            if name.startswith(ours):
                name = theirs + name[len(ours) :]
                break
        for ours, theirs in _OPEN_CLIP:
            name = name.replace(ours, theirs)
        if name == "cls_token":
            name, value = "class_embedding", value.reshape(-1)
        if name == "pos_embed":
            name, value = "positional_embedding", value.squeeze(0)
        made["visual." + ("proj" if name == "projection" else name)] = value.contiguous()
    return {wrapper + name: value for name, value in made.items()}


def in_hugging_face(tower: dict[str, Tensor], *, whole: bool) -> dict[str, Tensor]:
    """As `CLIPVisionModel` saves it; `whole` as `CLIPModel`: with the projection and some of the text tower."""
    vision = "vision_model."
    made = {
        vision + "embeddings.class_embedding": tower["cls_token"].reshape(-1),
        vision + "embeddings.position_embedding.weight": tower["pos_embed"].squeeze(0),
        vision + "embeddings.position_ids": torch.arange(tower["pos_embed"].shape[1])[None],
        vision + "embeddings.patch_embedding.weight": tower["patch_embed.proj.weight"],
    }
    for kind in ("weight", "bias"):
        made[vision + f"pre_layrnorm.{kind}"] = tower[f"norm_pre.{kind}"]
        made[vision + f"post_layernorm.{kind}"] = tower[f"norm.{kind}"]
        for number in range(2):
            ours, theirs = f"blocks.{number}.", vision + f"encoder.layers.{number}."
            parts = tower[f"{ours}attn.qkv.{kind}"].chunk(3)
            for part, value in zip("qkv", parts, strict=True):
                made[f"{theirs}self_attn.{part}_proj.{kind}"] = value.clone()
            made[f"{theirs}self_attn.out_proj.{kind}"] = tower[f"{ours}attn.proj.{kind}"]
            for mine, other in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
                made[f"{theirs}{other}.{kind}"] = tower[f"{ours}{mine}.{kind}"]
    if whole:
        made["visual_projection.weight"] = tower["projection"].T.contiguous()
        made["text_model.final_layer_norm.weight"] = torch.ones(8)
    return made
