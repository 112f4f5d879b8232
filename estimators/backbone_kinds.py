"""The kinds of backbone, and what the rest of the program asks of either.

    BackboneSource    a timm model, reads images      ``estimators.backbone_loading``
    EncoderSource     a text encoder, reads tokens    ``estimators.encoder_loading``

A third kind is a source of its own, a line in each of these functions, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from estimators import backbone_loading, encoder_loading
from estimators.backbone import TorchBackbone
from estimators.backbone_loading import BackboneSource
from estimators.encoder_loading import EncoderSource
from estimators.sample_forms import PixelForm, SampleForm

Source = BackboneSource | EncoderSource
SCHEMA = 1


def resolve(source: Source) -> tuple[Source, tuple[str, ...]]:
    """The source with what the model itself fixes filled in, and notes."""
    if isinstance(source, EncoderSource):
        return encoder_loading.resolve_encoder(source)
    return backbone_loading.resolve(source)


def build_backbone(source: Source, *, device: torch.device | str = "cpu") -> tuple[TorchBackbone, tuple[str, ...]]:
    """A backbone in eval mode on ``device``, and notes on what was adapted, dropped or assumed."""
    if isinstance(source, EncoderSource):
        return encoder_loading.build_encoder(source, device=device)
    return backbone_loading.build_backbone(source, device=device)


def build_around(source: Source, state: Mapping[str, Tensor] | None) -> TorchBackbone:
    """The backbone of a resolved source around stored weights, or (``None``) around weights that say nothing."""
    if isinstance(source, EncoderSource):
        module = encoder_loading.encoder_module(source)
        if state is not None:
            encoder_loading.load_weights(module, state, source.name)
        return encoder_loading.around_encoder(module, source)
    module = backbone_loading.build_module(source, pretrained=False)
    if state is not None:
        module.load_state_dict(state, strict=True)
    return TorchBackbone(module, mean=source.mean or (), std=source.std or (), frozen=source.frozen)


def blank_inputs(source: Source, count: int, *, device: torch.device | str = "cpu") -> Tensor:
    """``count`` rows of a resolved source's form, all alike."""
    if isinstance(source, EncoderSource):
        return torch.zeros((count, source.length), dtype=torch.int32, device=device)
    size = source.image_size or 0
    return torch.zeros((count, source.in_chans, size, size), dtype=torch.uint8, device=device)


def sample_form(source: Source) -> SampleForm:
    """How samples become rows for a resolved source."""
    if isinstance(source, EncoderSource):
        return source.form
    return PixelForm(image_size=int(source.image_size or 0), channels=source.in_chans)


def described(source: Source) -> str:
    """The inputs of a resolved source, in words.

    >>> described(BackboneSource(name="resnet18", image_size=32))
    'images of 32 x 32 pixels'
    """
    if isinstance(source, EncoderSource):
        return f"texts of at most {source.length} tokens"
    return f"images of {source.image_size} x {source.image_size} pixels"


def about(source: Source) -> dict[str, Any]:
    """What fixes the model around the weights, as JSON keeps it."""
    if isinstance(source, EncoderSource):
        return {"schema": SCHEMA} | encoder_loading.encoder_about(source)
    return {
        "schema": SCHEMA,
        "name": source.name,
        "in_chans": source.in_chans,
        "image_size": source.image_size,
        "mean": None if source.mean is None else list(source.mean),
        "std": None if source.std is None else list(source.std),
        "frozen": list(source.frozen),
    }
