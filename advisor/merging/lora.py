"""LoRA adapters in PEFT's layout merged exactly into their base.

    W' = W + Σ_t w_t s_t B_t A_t          s = α/r,  with rsLoRA  s = α/√r

Each adapter is a folder with `adapter_config.json` and `adapter_model.safetensors` (or `.bin`). Shapes: linear A (r,
in), B (out, r); `fan_in_fan_out` stores W as (in, out), so the change is transposed; embeddings A (r, vocabulary), B
(dim, r), change (B A)'; convolutions A (r, in, kh, kw), B (out, r, 1, 1). `rank_pattern` and `alpha_pattern` are
honoured. Averaging A and B apart is not a merge of B A and is not offered. DoRA, trained biases, modules saved whole
and other adapter kinds are refused: they are not sums of low-rank changes. Source: Hu et al. 2021, arXiv 2106.09685;
Kalajdzievski 2023, arXiv 2312.03732 (rsLoRA); PEFT's checkpoint format.
"""

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advisor.merging.compatibility import IncompatibleCheckpoints
from advisor.merging.number_formats import FloatArray, RawArray, to_working
from advisor.merging.results import MergeResult
from advisor.merging.running import CoefficientInput
from advisor.merging.safetensors_reading import parse_json
from advisor.merging.sources import Location, Source, TensorInfo, UnreadableCheckpoint, open_source
from advisor.merging.streaming import merge

_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?:\.weight)?$")
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_REFUSED = {"use_dora": False, "modules_to_save": None, "bias": "none", "lora_bias": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankChange:
    """s·B·A of one weight, not multiplied out.

    Attributes:
        up: B (out, r), in fp32.
        down: A (r, in), in fp32.
        scale: s.
        transposed: the weight holds the transpose of B A.
    """

    up: FloatArray
    down: FloatArray
    scale: float
    transposed: bool

    def __post_init__(self) -> None:
        if self.up.shape[1] != self.down.shape[0]:
            raise ValueError(f"B{self.up.shape} and A{self.down.shape} must share the rank")

    def dense(self, shape: tuple[int, ...]) -> FloatArray:
        """The change in the weight's own shape.

        Raises:
            IncompatibleCheckpoints: it does not fit.
        """
        change: FloatArray = (self.up @ self.down) * np.float32(self.scale)
        if self.transposed:
            change = change.T
        if change.shape != (shape[0], math.prod(shape[1:])):
            raise IncompatibleCheckpoints(f"low-rank change {change.shape} does not fit the base's weight {shape}")
        return change.reshape(shape)


def read_adapter(folder: str | Path) -> dict[str, LowRankChange]:
    """All low-rank changes of a PEFT adapter, by the name of the base's weight.

    Raises:
        FileNotFoundError: config or weights are missing.
        UnreadableCheckpoint: not a LoRA adapter we merge exactly, or damaged.
    """
    path = Path(folder)
    place = f"adapter {str(path)!r}"
    config_file = path / "adapter_config.json"
    weights = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if not config_file.is_file() or weights is None:
        raise FileNotFoundError(f"{place}: needs adapter_config.json and one of {', '.join(_WEIGHTS)}")
    config = parse_json(config_file.read_bytes(), place=place)
    _check_config(config, place)
    source = open_source(weights, place=place)
    pairs: dict[str, dict[str, str]] = {}
    for name in source.tensors:
        match = _KEY.match(name)
        if match is None:
            raise UnreadableCheckpoint(f"{place}: tensor {name!r} is not lora_A or lora_B; only those merge exactly")
        sides = pairs.setdefault(match["module"], {})
        sides[match["side"]] = name
        sides["kind"] = match["kind"] or ""
    if not pairs:
        raise UnreadableCheckpoint(f"{place}: holds no lora_A and lora_B")
    return {f"{module}.weight": _read_pair(source, module, sides, config, place) for module, sides in pairs.items()}


class AdaptedSource:
    """A base with one adapter added: reads like any checkpoint, multiplies out one weight at a time.

    To every operator it is an expert like any other; under task arithmetic the merge is W + Σ w_t s_t B_t A_t. Its
    numbers are fp32 where the base's are narrower, so that a bf16 base does not round each adapter by itself.
    """

    def __init__(
        self, base: Source, changes: Mapping[str, LowRankChange], *, place: str, files: tuple[Path, ...]
    ) -> None:
        unknown = [name for name in changes if name not in base.tensors]
        if unknown:
            raise IncompatibleCheckpoints(f"{place}: changes {unknown[0]!r}, which {base.place} has not")
        self.place = place
        self.files = files
        self.tensors = {name: _widened(info) for name, info in base.tensors.items()}
        self.ties = {name: first if name not in changes else name for name, first in base.ties.items()}
        self._base = base
        self._changes = changes
        self._local = threading.local()  # each worker keeps the weight it is on

    def read(self, name: str, start: int, stop: int, out: RawArray | None = None) -> RawArray:
        """Elements [start, stop) of the flattened tensor, in storage dtype; fresh memory, whatever ``out`` is."""
        info = self._base.tensors[name]
        raw = self._base.read(name, start, stop)
        if not info.floating:
            return raw
        values = to_working(raw, info.dtype)
        return values + self._dense(name)[start:stop] if name in self._changes else values

    def _dense(self, name: str) -> FloatArray:
        if getattr(self._local, "name", None) != name:
            self._local.change = self._changes[name].dense(self._base.tensors[name].shape).reshape(-1)
            self._local.name = name
        change: FloatArray = self._local.change
        return change


def open_adapters(
    base: Location, adapters: Mapping[str, str | Path] | Sequence[str | Path]
) -> dict[str, AdaptedSource]:
    """Every adapter as an expert over the base, for `merge(base, experts, mixed_dtypes=True, ...)`.

    Args:
        base: the checkpoint the adapters were trained on.
        adapters: PEFT folders, by label or in a list (labels `expert0`, `expert1`, ...).

    Returns:
        Label → expert.
    """
    labelled = adapters if isinstance(adapters, Mapping) else {f"expert{i}": a for i, a in enumerate(adapters)}
    source = open_source(base, place="base")
    experts = {}
    for label, folder in labelled.items():
        files = tuple(file for file in Path(folder).iterdir() if file.is_file())
        place = f"expert {label!r} ({folder})"
        experts[label] = AdaptedSource(source, read_adapter(folder), place=place, files=files)
    return experts


def merge_lora(
    base: Location,
    adapters: Mapping[str, str | Path] | Sequence[str | Path],
    *,
    out: str | Path,
    coefficients: CoefficientInput = 1.0,
    method: str = "task_arithmetic",
    **settings: Any,
) -> MergeResult:
    """Merge PEFT adapters into their base; `out`, `coefficients` and settings as in `merge`.

    The default adds every adapter in full, W + Σ s_t B_t A_t; other methods treat base + adapter as experts.
    """
    experts = open_adapters(base, adapters)
    return merge(base, experts, method=method, coefficients=coefficients, out=out, mixed_dtypes=True, **settings)


def _widened(info: TensorInfo) -> TensorInfo:
    return TensorInfo(dtype="F32", shape=info.shape) if info.dtype in ("F16", "BF16") else info


def _check_config(config: Mapping[str, Any], place: str) -> None:
    if config.get("peft_type") != "LORA":
        raise UnreadableCheckpoint(f"{place}: peft_type={config.get('peft_type')!r}; only LORA is a sum of B A")
    for key, harmless in _REFUSED.items():
        if config.get(key, harmless) not in (harmless, None, []):
            raise UnreadableCheckpoint(
                f"{place}: {key}={config[key]!r} is not a low-rank change; merge it into its base with PEFT first"
            )
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise UnreadableCheckpoint(f"{place}: {key}={value!r} must be a number above 0")


def _read_pair(
    source: Source, module: str, sides: Mapping[str, str], config: Mapping[str, Any], place: str
) -> LowRankChange:
    missing = {"A", "B"} - set(sides)
    if missing:
        raise UnreadableCheckpoint(f"{place}: module {module!r} lacks lora_{missing.pop()}")
    down, up = (_read_matrix(source, sides[side]) for side in "AB")
    rank = _by_pattern(config.get("rank_pattern"), module, config["r"])
    if down.shape[0] != rank or up.shape[1] != rank:
        raise UnreadableCheckpoint(f"{place}: module {module!r} has A{down.shape}, B{up.shape}, but r={rank}")
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    transposed = sides["kind"] == "embedding_" or bool(config.get("fan_in_fan_out"))
    return LowRankChange(up=up, down=down, scale=scale, transposed=transposed)


def _read_matrix(source: Source, name: str) -> FloatArray:
    """A factor as (rows, everything else), which is right for linear layers and for convolutions with 1×1 B."""
    info = source.tensors[name]
    if len(info.shape) < 2 or not info.floating:
        raise UnreadableCheckpoint(f"{source.place}: tensor {name!r} is {info.dtype}{list(info.shape)}, not a factor")
    return to_working(source.read(name, 0, info.size), info.dtype).reshape(info.shape[0], -1)


def _by_pattern(patterns: Any, module: str, default: Any) -> float:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(default)
