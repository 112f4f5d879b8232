"""One merge from opened inputs into a sink: survey if the operator needs one, then the merging pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from advisor.merging.compatibility import MergeInputs, check_base
from advisor.merging.grams import TaskVectorGram, sum_statistics
from advisor.merging.operator import Coefficients, Operator, TensorVectors, resolve_coefficients
from advisor.merging.results import MergeResult
from advisor.merging.tensor_pass import Sink, experts_agree, map_tensors, measure_tensor, read_blocks, run_pass

CoefficientInput = Sequence[float] | Mapping[str, float] | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSettings:
    """What a merge needs beside its inputs and operator.

    Attributes:
        coefficients: one for all, one for each expert, or by label; None takes the method's default.
        tensor_coefficients: coefficients [N] of single tensors, in place of `coefficients`.
        seed: of random operators.
        workers: threads.
        trust_base: skip the check that 0 < ‖τ_t‖ ≤ ‖x₀‖.
    """

    coefficients: CoefficientInput = None
    tensor_coefficients: Mapping[str, Sequence[float]] | None = None
    seed: int = 0
    workers: int = 1
    trust_base: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be at least 1")


def run_merge(inputs: MergeInputs, operator: Operator, sink: Sink, settings: MergeSettings) -> MergeResult:
    """Merge into the sink and return the recipe with its Gram matrices."""
    common = resolve_coefficients(operator, inputs.labels, settings.coefficients)
    own = _resolve_own(inputs, operator, settings.tensor_coefficients or {})

    def coefficients_of(name: str) -> Coefficients:
        return own.get(name, common)

    ready = operator
    if operator.survey is not None:

        def blocks() -> Iterator[TensorVectors]:
            return read_blocks(inputs, coefficients_of, seed=settings.seed)

        ready = operator.survey(blocks)
    statistics = run_pass(inputs, ready, coefficients_of, sink, seed=settings.seed, workers=settings.workers)
    measured = sum_statistics(inputs.labels, statistics)
    if not settings.trust_base:
        check_base(measured.labels, measured.norms.tolist(), measured.base_norm)

    def differs(name: str) -> bool:
        return not experts_agree(inputs, name)

    return MergeResult(
        method=operator.name,
        options=ready.options,
        coefficients=dict(zip(inputs.labels, common.tolist(), strict=True)),
        tensor_coefficients={name: tuple(values.tolist()) for name, values in own.items()},
        seed=settings.seed,
        task_vectors=measured,
        kept=tuple(n for n, role in inputs.roles.items() if role == "kept" or (role == "integer" and differs(n))),
        statistics=tuple(inputs.names("statistic")),
        notes=inputs.notes,
    )


def measure_inputs(inputs: MergeInputs, *, workers: int, trust_base: bool) -> TaskVectorGram:
    """Gram matrices of the task vectors, in one pass and without merging."""
    names = [name for name in inputs.names("parameter") if inputs.key(name) == name]
    found = map_tensors(lambda name: measure_tensor(inputs, name), names, workers)
    measured = sum_statistics(inputs.labels, dict(zip(names, found, strict=True)))
    if not trust_base:
        check_base(measured.labels, measured.norms.tolist(), measured.base_norm)
    return measured


def _resolve_own(
    inputs: MergeInputs, operator: Operator, given: Mapping[str, Sequence[float]]
) -> dict[str, Coefficients]:
    unknown = [name for name in given if inputs.roles.get(name) not in ("parameter", "statistic")]
    if unknown:
        raise ValueError(f"tensor_coefficients for {unknown[0]!r}: no tensor of that name is merged")
    return {name: resolve_coefficients(operator, inputs.labels, list(values)) for name, values in given.items()}
