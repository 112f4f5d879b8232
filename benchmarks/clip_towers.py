r"""CLIP image towers in timm's layout, from the layouts that published checkpoints come in.

| layout | who writes it | the tower's class token |
|---|---|---|
| timm | this project, timm | `cls_token` |
| open_clip | open_clip, OpenAI; TALL-mask and task vectors with `model.` before each name | `visual.class_embedding` |
| Hugging Face | `CLIPModel`, `CLIPVisionModel`; FusionBench's experts | `vision_model.embeddings.class_embedding` |

A tower is followed by a projection P [F, D]: logits of a head V [C, F] on projected features are V Pᵀ x.  open_clip's
experts train it with the tower, Hugging Face's `CLIPVisionModel` has none (the pretrained one stays).  Text towers are
left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import timm
import torch
from torch import Tensor

State = Mapping[str, Tensor]
OPEN_CLIP, HUGGING_FACE = "visual.class_embedding", "vision_model.embeddings.class_embedding"
_LAYERS = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
_OUTER = {
    "embeddings.patch_embedding.": "patch_embed.proj.",
    "pre_layrnorm.": "norm_pre.",  # transformers' own spelling
    "post_layernorm.": "norm.",
}
_INNER = {
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "self_attn.out_proj.": "attn.proj.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
}


def split_tower(state: State, network: torch.nn.Module, place: str) -> tuple[dict[str, Tensor], Tensor | None]:
    """The tower under the names of timm's network, and the projection [F, D] behind it if the checkpoint has one.

    Raises:
        ValueError: of no known layout, or of another network.
    """
    wanted = network.state_dict()
    projection: Tensor | None = None
    if prefix := _prefix(state, OPEN_CLIP):
        bare = {name.removeprefix(prefix.removesuffix(OPEN_CLIP)): value for name, value in state.items()}
        convert: Callable[..., State] = timm.models.vision_transformer.checkpoint_filter_fn
        found, projection = dict(convert(bare, network)), bare.get("visual.proj")
    elif prefix := _prefix(state, HUGGING_FACE):
        bare = {name.removeprefix(prefix.removesuffix(HUGGING_FACE)): value for name, value in state.items()}
        found, projection = from_hugging_face(bare), bare.get("visual_projection.weight")
        projection = None if projection is None else projection.T
    else:
        found = dict(state)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{place}: no {missing[0]!r} (and {len(missing) - 1} more) among {list(state)[:4]}...; give a CLIP image "
            f"tower of timm (cls_token), open_clip ({OPEN_CLIP}) or Hugging Face ({HUGGING_FACE})"
        )
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise ValueError(
                f"{place}: {name!r} has shape {tuple(found[name].shape)}, the model {tuple(value.shape)}; it is of "
                "another size: pass --model or --image-size"
            )
    tower = {name: found[name].float().contiguous() for name in wanted}
    return tower, None if projection is None else projection.float().contiguous()


def from_hugging_face(state: State) -> dict[str, Tensor]:
    """Names of ``CLIPVisionModel`` as timm's; queries, keys and values in one matrix."""
    made = {
        "cls_token": state[HUGGING_FACE].reshape(1, 1, -1),
        "pos_embed": state["vision_model.embeddings.position_embedding.weight"].unsqueeze(0),
    }
    for name, value in state.items():
        if found := _LAYERS.fullmatch(name):
            layer, rest = f"blocks.{found[1]}.", found[2]
            if rest.startswith("self_attn.q_proj."):
                kind = rest.rpartition(".")[2]
                parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                made[f"{layer}attn.qkv.{kind}"] = torch.cat(parts)
            made |= {
                layer + ours + rest[len(theirs) :]: value for theirs, ours in _INNER.items() if rest.startswith(theirs)
            }
        else:
            rest = name.removeprefix("vision_model.")
            made |= {ours + rest[len(theirs) :]: value for theirs, ours in _OUTER.items() if rest.startswith(theirs)}
    return made


def _prefix(state: State, ending: str) -> str:
    """The name that ends so, whatever wrappers (`model.`, `module.`, `image_encoder.`) stand before it."""
    return next((name for name in state if name == ending or name.endswith("." + ending)), "")
