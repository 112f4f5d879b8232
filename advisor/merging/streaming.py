"""The streaming engine: base and experts on disk in, one merged checkpoint on disk out.

    x_avg = x₀ + Π(c, τ)                 tensor by tensor; G_ab = ⟨τ_a, τ_b⟩ comes out of the same pass

Memory above the interpreter: a few blocks for elementwise operators, (N + 2) × the largest tensor (in fp32) and the
operator's scratch for the others, times the workers; shards are never buffered. Nothing appears at the target
before all of it is complete.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from advisor.merging.compatibility import MergeInputs, open_inputs
from advisor.merging.grams import TaskVectorGram
from advisor.merging.mergekit_recipe import write_recipe
from advisor.merging.model_card import write_card
from advisor.merging.registry import build_operator
from advisor.merging.results import MergeResult
from advisor.merging.running import CoefficientInput, MergeSettings, measure_inputs, run_merge
from advisor.merging.safetensors_writing import SafetensorsSink, parse_size, require_space
from advisor.merging.sources import Location
from advisor.merging.target import CARD_NAME, RECIPE_NAME, open_target
from advisor.merging.threads import single_threaded

_HEADER_BYTES = 512  # of one tensor in a header and an index, at most: names are short beside it


def merge(
    base: Location,
    experts: Mapping[str, Location] | Sequence[Location],
    *,
    method: str = "task_arithmetic",
    coefficients: CoefficientInput = None,
    out: str | Path,
    seed: int = 0,
    max_shard_size: int | str = "5GB",
    workers: int = 1,
    tensor_coefficients: Mapping[str, Sequence[float]] | None = None,
    keys: Literal["strict", "common"] = "strict",
    keep_base: Sequence[str] = (),
    mixed_dtypes: bool = False,
    trust_base: bool = False,
    overwrite: bool = False,
    figures: Mapping[str, float | str] | None = None,
    **options: Any,
) -> MergeResult:
    """Merge experts into one checkpoint on disk.

    Args:
        base: the pretrained checkpoint: state dict, .safetensors, .pth, an index of shards, or a folder.
        experts: the same, by label or in a list.
        method: a name in `OPERATORS`.
        coefficients: one for all, one for each expert in order, or by label; None takes the method's default.
        out: a folder (model, index, model card, recipe), or a path ending in .safetensors (that file alone).
        seed: of random operators; a tensor's chance comes from (seed, tensor, label).
        max_shard_size: bytes, or like "5GB"; a folder gets several shards and an index when the model is larger.
        workers: threads, each on its own tensor; memory grows with them, the result does not change.
        tensor_coefficients: coefficients [N] of single tensors, in place of `coefficients`.
        keys: "strict" wants the same tensors everywhere; "common" merges what all share and keeps the base's rest.
        keep_base: shell patterns of tensors to copy from the base, for example heads.
        mixed_dtypes: allow experts in another floating dtype than the base; the output has the base's.
        trust_base: skip the check that 0 < ‖τ_t‖ ≤ ‖x₀‖.
        overwrite: replace an earlier merge at `out`.
        figures: predicted or measured numbers for the model card.
        **options: options of the method.

    Returns:
        Coefficients, options, Gram matrices and the files written.
    """
    shard_bytes = parse_size(max_shard_size)
    settings = MergeSettings(
        coefficients=coefficients,
        tensor_coefficients=tensor_coefficients,
        seed=seed,
        workers=workers,
        trust_base=trust_base,
    )
    operator = build_operator(method, options)
    inputs = open_inputs(base, experts, keys=keys, keep_base=keep_base, mixed_dtypes=mixed_dtypes)
    tensors = inputs.base.tensors
    with single_threaded(), open_target(Path(out), inputs=inputs, overwrite=overwrite) as target:
        require_space(target.folder, sum(info.bytes + _HEADER_BYTES for info in tensors.values()))
        sink = SafetensorsSink(target.folder, tensors, sys.maxsize if target.single else shard_bytes)
        try:
            result = run_merge(inputs, operator, sink, settings)
            sink.sync()
        finally:
            sink.close()
        texts = {} if target.single else _describe(result, base, experts, inputs, figures)
        return dataclasses.replace(result, files=target.publish(sink.names, texts))


def check_output(
    base: Location, experts: Mapping[str, Location] | Sequence[Location], out: str | Path, *, overwrite: bool = False
) -> None:
    """Refuse, before any long work, inputs that do not belong together and a place where the merge could not go."""
    inputs = open_inputs(base, experts)
    with open_target(Path(out), inputs=inputs, overwrite=overwrite) as target:
        require_space(target.folder, sum(info.bytes + _HEADER_BYTES for info in inputs.base.tensors.values()))


def _describe(
    result: MergeResult,
    base: Location,
    experts: Mapping[str, Location] | Sequence[Location],
    inputs: MergeInputs,
    figures: Mapping[str, float | str] | None,
) -> dict[str, str]:
    """Card and recipe, by file name."""
    given = experts.values() if isinstance(experts, Mapping) else experts
    places = {label: _place(location) for label, location in zip(inputs.labels, given, strict=True)}
    dtypes = {inputs.base.tensors[name].dtype for name in inputs.names("parameter")}
    recipe = write_recipe(result, base=_place(base), experts=places, dtypes=dtypes)
    card = write_card(result, base=_place(base), experts=places, recipe=recipe, figures=figures)
    return {CARD_NAME: card, RECIPE_NAME: recipe.text} if recipe.text else {CARD_NAME: card}


def _place(location: Location) -> str:
    return str(location) if isinstance(location, (str, Path)) else ""


def task_vector_gram(
    base: Location,
    experts: Mapping[str, Location] | Sequence[Location],
    *,
    workers: int = 1,
    keys: Literal["strict", "common"] = "strict",
    keep_base: Sequence[str] = (),
    mixed_dtypes: bool = False,
    trust_base: bool = False,
) -> TaskVectorGram:
    """Inner products, norms and cosines of task vectors in one pass, without merging; arguments as in `merge`."""
    inputs = open_inputs(base, experts, keys=keys, keep_base=keep_base, mixed_dtypes=mixed_dtypes)
    with single_threaded():
        return measure_inputs(inputs, workers=workers, trust_base=trust_base)
