"""Build x_0: any timm model as a feature extractor, with weights from the hub, a local checkpoint or a seed.

The classifier of a checkpoint is dropped and named; everything else is strict: a missing, unexpected, misshapen or
non-finite tensor is refused by name.  ``map_keys="by_order"`` maps the k-th tensor of the file to the k-th of the model
where names differ but the architecture is the same; every shape must agree.  A checkpoint of 3 input channels serves a
model of 1 as timm does it: the first convolution's weights are summed over the channels.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from estimators.backbone import TorchBackbone
from estimators.checkpoints import fingerprint, read_checkpoint
from estimators.datasets import shortened

MapKeys = Literal["strict", "by_order"]
COUNTER = "num_batches_tracked"  # BatchNorm's step counter: never read in eval mode, absent from some checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSource:
    """What to build.

    Attributes:
        name: a timm model name.
        pretrained: whether the hub's weights are taken.
        checkpoint: a local state dict instead.
        in_chans: input channels, 1 or 3.
        image_size: side of the square input in pixels; ``None`` for the model's own.
        mean: per-channel mean of inputs in [0, 1]; ``None`` for the model's own.
        std: per-channel standard deviation.
        frozen: parameter-name prefixes that must not move.
        map_keys: how a checkpoint's names are matched.
        seed: seed of the weights where they are random.
    """

    name: str
    pretrained: bool = False
    checkpoint: Path | None = None
    in_chans: int = 3
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    frozen: tuple[str, ...] = ()
    map_keys: MapKeys = "strict"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what does not need timm."""
        if self.in_chans not in (1, 3):
            raise ValueError(f"in_chans={self.in_chans} must be 1 or 3; images are decoded as luma or as RGB")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError(f"pretrained=True and checkpoint={str(self.checkpoint)!r} exclude each other; keep one")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean={self.mean} and std={self.std} belong together; give both or neither")


def build_backbone(
    source: BackboneSource, *, device: torch.device | str = "cpu"
) -> tuple[TorchBackbone, tuple[str, ...]]:
    """A backbone in eval mode on ``device``, and notes on everything that was adapted, dropped or assumed.

    Raises:
        ValueError: for an unknown model, weights that do not fit, no hub in reach, an image size the model refuses.
    """
    resolved, notes = resolve(source)
    module = build_module(resolved, pretrained=source.pretrained)
    if source.checkpoint is not None:
        notes += load_into(module, resolved)
    elif not source.pretrained:
        notes += (
            f"backbone={source.name!r} starts from random weights (seed {source.seed}): advice needs an x_0 that "
            "was pre-trained; set backbone.pretrained or backbone.checkpoint",
        )
    backbone = TorchBackbone(module, mean=resolved.mean or (), std=resolved.std or (), frozen=resolved.frozen)
    backbone.to(device)
    _refuse_bad_features(backbone, resolved)
    return backbone, notes


def backbone_fingerprint(backbone: TorchBackbone) -> str:
    """SHA-256 of the weights x_0, buffers included."""
    return fingerprint(backbone.state_dict(backbone.initial))


def resolve(source: BackboneSource) -> tuple[BackboneSource, tuple[str, ...]]:
    """The source with the model's own image size and normalisation filled in, and notes."""
    config = model_config(source.name)
    notes: tuple[str, ...] = ()
    size = source.image_size or int(config["input_size"][-1])
    mean, std = source.mean, source.std
    if mean is None or std is None:
        mean, std = tuple(config["mean"]), tuple(config["std"])
        if source.in_chans == 1 and len(mean) == 3:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
            notes += (f"backbone={source.name!r}: its normalisation was averaged over colours for 1 channel",)
    for field, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, source.in_chans):
            raise ValueError(
                f"normalisation.{field}={list(values)} has {len(values)} entries for in_chans={source.in_chans}; "
                "give one a channel, or one for all"
            )
    return dataclasses.replace(source, image_size=size, mean=mean, std=std), notes


def model_config(name: str) -> Mapping[str, Any]:
    """Timm's configuration of a model; an unknown name is refused with the nearest known ones."""
    import timm

    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "list them with timm.list_models()"
        raise ValueError(f"backbone.name={name!r} is no timm model; {hint}")
    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [tag.split(".", 1)[1] for tag in timm.list_pretrained(base)]
        known = ", ".join(tags) or "none"
        raise ValueError(f"backbone.name={name!r} has no such tag; the tags of {base} are {known}") from None
    return {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3} | (config.to_dict() if config else {})


def build_module(source: BackboneSource, *, pretrained: bool) -> nn.Module:
    """The timm model without classifier; random weights come from ``seed`` alone."""
    import timm

    config = model_config(source.name)
    extra: dict[str, Any] = {"img_size": source.image_size} if config.get("fixed_input_size") else {}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            module = timm.create_model(
                source.name, pretrained=pretrained, num_classes=0, in_chans=source.in_chans, **extra
            )
    except Exception as error:  # hub clients raise their own families of errors
        text = " ".join(str(error).split())[:200]
        if pretrained:
            raise ValueError(
                f"backbone={source.name!r} with pretrained=True could not be fetched ({type(error).__name__}: {text}); "
                "check the connection to the hub, or give a local file with backbone.checkpoint"
            ) from error
        raise ValueError(f"backbone={source.name!r} could not be built ({type(error).__name__}: {text})") from error
    return module


def load_into(module: nn.Module, source: BackboneSource) -> tuple[str, ...]:
    """Load ``source.checkpoint`` into a module; returns notes."""
    assert source.checkpoint is not None
    checkpoint = read_checkpoint(source.checkpoint)
    label = f"checkpoint={source.checkpoint.name!r}"
    target = {name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)}
    given = {name: value for name, value in checkpoint.tensors.items() if not name.endswith(COUNTER)}
    if source.map_keys == "by_order":
        if not checkpoint.ordered:
            raise ValueError(f"{label}: map_keys=by_order needs a .pth file; safetensors does not keep the order")
        state, dropped = _by_order(given, target, label)
    else:
        state, dropped = _by_name(given, target, model_config(source.name), label)
    notes = [*checkpoint.notes]
    if dropped:
        notes.append(f"{label}: dropped the classifier ({', '.join(sorted(dropped))})")
    if source.map_keys == "by_order":
        notes.append(f"{label}: {len(state)} tensors were matched by order, names ignored")
    notes += _adapt_input(state, target, source, label)
    narrow = sorted({str(value.dtype) for value in state.values() if value.dtype in (torch.bfloat16, torch.float16)})
    if narrow:
        notes.append(f"{label}: stored as {', '.join(narrow)}, computed in float32")
    for name, value in state.items():
        if value.shape != target[name].shape:
            raise ValueError(
                f"{label}: {name!r} has shape {tuple(value.shape)}, {source.name} expects {tuple(target[name].shape)}; "
                "check backbone.name, backbone.image_size and backbone.in_chans"
            )
        if value.is_floating_point() != target[name].is_floating_point():
            raise ValueError(f"{label}: {name!r} has dtype {value.dtype}, {source.name} expects {target[name].dtype}")
    module.load_state_dict(state, strict=False)  # every name was checked; only BatchNorm counters are left out
    return tuple(notes)


def _by_name(
    given: dict[str, Tensor], target: dict[str, Tensor], config: Mapping[str, Any], label: str
) -> tuple[dict[str, Tensor], list[str]]:
    classifier = config.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    dropped = [n for n in given if n not in target and any(n == h or n.startswith(f"{h}.") for h in heads)]
    state = {name: value for name, value in given.items() if name not in dropped}
    missing = [name for name in target if name not in state]
    unexpected = [name for name in state if name not in target]
    if missing or unexpected:
        parts = [f"{len(missing)} tensors are missing ({shortened(missing, 3)})"] if missing else []
        parts += [f"{len(unexpected)} are unexpected ({shortened(unexpected, 3)})"] if unexpected else []
        raise ValueError(
            f"{label}: {' and '.join(parts)}; it belongs to another model: correct backbone.name, or set "
            "backbone.map_keys: by_order if the same layers only bear other names"
        )
    return state, dropped


def _by_order(given: dict[str, Tensor], target: dict[str, Tensor], label: str) -> tuple[dict[str, Tensor], list[str]]:
    names = list(given)
    rest = names[len(target) :]
    if len(names) < len(target) or len(rest) > 2 or any(given[n].ndim > 2 for n in rest):
        raise ValueError(
            f"{label}: {len(names)} tensors cannot be matched by order with the model's {len(target)} (a classifier's "
            "weight and bias may follow); correct backbone.name"
        )
    state = dict(zip(target, given.values(), strict=False))
    for name, source_name in zip(target, names, strict=False):
        if state[name].shape[:1] != target[name].shape[:1] or state[name].ndim != target[name].ndim:
            raise ValueError(
                f"{label}: by order, {source_name!r} {tuple(state[name].shape)} meets {name!r} "
                f"{tuple(target[name].shape)}; the shapes must agree: the layers are not in the same order"
            )
    return state, rest


def _adapt_input(state: dict[str, Tensor], target: dict[str, Tensor], source: BackboneSource, label: str) -> list[str]:
    """Fit the first convolution to the number of input channels as timm does; notes."""
    from timm.models import adapt_input_conv

    first = model_config(source.name).get("first_conv") or ()
    notes = []
    for layer in (first,) if isinstance(first, str) else tuple(first):
        name = f"{layer}.weight"
        if name not in state or state[name].ndim != 4 or state[name].shape[1] == target[name].shape[1]:
            continue
        channels = state[name].shape[1]
        if channels != 3 or source.in_chans != 1:
            raise ValueError(
                f"{label}: {name!r} takes {channels} channels, the project wants in_chans={source.in_chans}; only 3 "
                "channels can be adapted to 1: set backbone.in_chans"
            )
        state[name] = adapt_input_conv(source.in_chans, state[name])
        notes.append(f"{label}: {name!r} was summed over its 3 input channels for in_chans=1")
    return notes


def _refuse_bad_features(backbone: TorchBackbone, source: BackboneSource) -> None:
    """One batch through the model: fixes ``feature_dim`` and refuses what the model cannot digest."""
    size = source.image_size
    batch = torch.zeros(2, source.in_chans, size or 0, size or 0, dtype=torch.uint8, device=backbone.device)
    try:
        with torch.no_grad():
            features = backbone.features(backbone.initial, batch)
    except (RuntimeError, AssertionError, ValueError) as error:
        text = " ".join(str(error).split())[:160]
        raise ValueError(
            f"backbone={source.name!r} refuses images of image_size={size} ({text}); choose another size"
        ) from None
    if features.ndim != 2:
        raise ValueError(
            f"backbone={source.name!r} gives shape {tuple(features.shape)}, not [batch, F]; choose another model"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError(
            f"backbone={source.name!r} gives features that are not finite; check its weights and normalisation"
        )
