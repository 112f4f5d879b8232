"""Build x_0 for texts: an encoder of the transformers library with weights from its safetensors file.

The architecture comes from ``config.json`` and the library's own classes (a type that this module does not list is
refused, code beside a model is never run), the weights are matched by name, strictly; a prefix such as ``bert.`` and
heads of pre-training beside it are dropped and named.  Parameters that mean pooling never reaches (the pooler) stay as
they are.  Names are those of the transformers class, so a merged ``model.safetensors`` goes back to where x_0 came
from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from estimators.backbone import TorchBackbone
from estimators.datasets import shortened
from estimators.encoder_files import WEIGHTS, EncoderFiles
from estimators.token_reading import TokenReading
from estimators.tokenising import PADDING, TokenForm

ENCODERS = ("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta")  # count positions from the padding token's id + 1
UNREACHED = ("pooler.",)  # reads one token; the mean over tokens does not pass through it
ATTENTION = "eager"  # fused kernels have neither a second derivative nor a batching rule, and gain little on sentences
DEFAULT_LENGTH = 128  # tokens; most sentences fit, and attention is cheap beside the layers
PADDING_TOLERANCE = 1e-3  # relative; kernels differ by 1e-6 between lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSource:
    """What to build.

    Attributes:
        files: where the encoder lies.
        max_length: tokens a text; ``None`` for the least of ``DEFAULT_LENGTH`` and what the model has positions for.
        frozen: parameter-name prefixes that must not move.
    """

    files: EncoderFiles
    max_length: int | None = None
    frozen: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the project names it."""
        return self.files.label

    @property
    def form(self) -> TokenForm:
        """How its texts become rows."""
        return TokenForm(tokenizer=self.files.tokenizer(), max_length=self.length)

    @property
    def length(self) -> int:
        """Tokens a text, known after ``resolve_encoder``."""
        if self.max_length is None:
            raise ValueError(f"backbone={self.name!r}: max_length is open; resolve the source first")
        return self.max_length


def resolve_encoder(source: EncoderSource) -> tuple[EncoderSource, tuple[str, ...]]:
    """The source with its length filled in.

    Raises:
        ValueError: if the type of the model is not known here, or it has fewer positions than ``max_length``.
    """
    config = source.files.config()
    kind = str(config["model_type"])
    if kind not in ENCODERS:
        raise ValueError(
            f"backbone={source.name!r} is of type {kind!r}; text encoders are {', '.join(ENCODERS)}: choose one of them"
        )
    offset = int(config.get("pad_token_id", 1)) + 1 if kind in OFFSET_POSITIONS else 0
    positions = int(config.get("max_position_embeddings", 512)) - offset
    length = source.max_length or min(DEFAULT_LENGTH, positions)
    if length > positions:
        raise ValueError(
            f"backbone.max_length={length} is beyond the {positions} positions of backbone={source.name!r}; lower it"
        )
    return dataclasses.replace(source, max_length=length), ()


def build_encoder(
    source: EncoderSource, *, device: torch.device | str = "cpu"
) -> tuple[TorchBackbone, tuple[str, ...]]:
    """An encoder in eval mode on ``device``, and notes.

    Raises:
        ValueError: for a type that is not known, weights that do not fit, or an encoder that looks at padding.
    """
    resolved, notes = resolve_encoder(source)
    module = encoder_module(resolved)
    notes += load_weights(module, _tensors(resolved.files), source.name)
    backbone = around_encoder(module, resolved).to(device)
    _refuse_bad_features(backbone, resolved)
    return backbone, notes


def encoder_module(source: EncoderSource) -> nn.Module:
    """The encoder without weights of its own; dropout is off as in every backbone."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ValueError(
            "backbone.kind='transformers' needs the package transformers; install merge-advisor[text]"
        ) from error
    config = dict(source.files.config())
    kind = config.pop("model_type")
    for key in ("auto_map", "architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype"):
        config.pop(key, None)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module: nn.Module = AutoModel.from_config(  # type: ignore[no-untyped-call]
                AutoConfig.for_model(kind, **config), dtype=torch.float32, attn_implementation=ATTENTION
            )
    except Exception as error:  # configuration classes raise their own families of errors
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"backbone={source.name!r} could not be built ({type(error).__name__}: {text})") from error
    return module


def around_encoder(module: nn.Module, source: EncoderSource) -> TorchBackbone:
    """The module as a backbone that reads token rows."""
    names = [name for name, _ in module.named_parameters()]
    still = tuple(prefix for prefix in UNREACHED if any(name.startswith(prefix) for name in names))
    padding = source.files.config().get("pad_token_id") or 0
    return TorchBackbone(module, frozen=(*source.frozen, *still), reading=TokenReading(padding_token=int(padding)))


def load_weights(module: nn.Module, given: Mapping[str, Tensor], name: str) -> tuple[str, ...]:
    """Put tensors into a module, strictly by name; returns notes."""
    label = f"backbone={name!r}: {WEIGHTS}"
    target = module.state_dict()
    prefix = str(getattr(module, "base_model_prefix", "")) + "."
    if not any(key in given for key in target):
        inside = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
    else:
        inside = dict(given)
    state = {key: value for key, value in inside.items() if key in target}
    if getattr(module, "pooler", None) is not None and not any(key.startswith(UNREACHED) for key in state):
        delattr(module, "pooler")  # never pre-trained, and never read
        module.register_module("pooler", None)
        target = module.state_dict()
    missing = [key for key in target if key not in state]
    strange = [key for key in inside if key not in target and not key.endswith("position_ids")]
    if missing or (strange and inside.keys() == given.keys()):
        parts = [f"{len(missing)} tensors are missing ({shortened(missing, 3)})"] if missing else []
        parts += [f"{len(strange)} are unexpected ({shortened(strange, 3)})"] if strange else []
        raise ValueError(f"{label}: {' and '.join(parts)}; it belongs to another model than config.json describes")
    for key, value in state.items():
        if value.shape != target[key].shape:
            raise ValueError(f"{label}: {key!r} has shape {tuple(value.shape)}, not {tuple(target[key].shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{label}: {key!r} holds values that are not finite; take an undamaged file")
    module.load_state_dict(state, strict=True)
    notes = []
    dropped = [key for key in given if key not in state and key.removeprefix(prefix) not in state]
    dropped = [key for key in dropped if not key.endswith("position_ids")]
    if dropped:
        notes.append(f"{label}: dropped what is not the encoder ({shortened(sorted(dropped), 4)})")
    narrow = sorted({str(v.dtype) for v in state.values() if v.is_floating_point() and v.dtype != torch.float32})
    if narrow:
        notes.append(f"{label}: stored as {', '.join(narrow)}, computed in float32")
    return tuple(notes)


def _tensors(files: EncoderFiles) -> Mapping[str, Tensor]:
    try:
        return load_tensors(files.read(WEIGHTS))
    except SafetensorError as error:
        raise ValueError(f"backbone={files.label!r}: {WEIGHTS} is damaged ({error}); take an undamaged file") from None


def _refuse_bad_features(backbone: TorchBackbone, source: EncoderSource) -> None:
    """One batch through the model: fixes ``feature_dim``, and padding must not change a text's features."""
    short = torch.ones(1, 2, dtype=torch.int32, device=backbone.device)
    filled = torch.nn.functional.pad(short, (0, source.length - 2), value=PADDING)
    with torch.no_grad():
        alone, padded = (backbone.features(backbone.initial, rows) for rows in (short, filled))
    if not bool(torch.isfinite(padded).all()):
        raise ValueError(f"backbone={source.name!r} gives features that are not finite; check its weights")
    if float((alone - padded).abs().max()) > PADDING_TOLERANCE * (1.0 + float(alone.abs().max())):
        raise ValueError(
            f"backbone={source.name!r} gives a text other features when it is padded; this version of transformers "
            "reads attention masks differently: install another one"
        )


def encoder_about(source: EncoderSource) -> dict[str, Any]:
    """What fixes the model around the weights, as JSON keeps it."""
    return {
        "kind": "transformers",
        "name": source.name,
        "max_length": source.length,
        "config": dict(source.files.config()),
        "frozen": list(source.frozen),
    }
