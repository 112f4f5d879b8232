"""Fisher merging: every number weighed by its expert's diagonal Fisher information.

    x_p = Σ_t a_t (F_tp + ε) x_tp / Σ_t a_t (F_tp + ε)        a_t = c_t / Σ c,   ε = 1e-6

`normalize=True` replaces a_t by a_t/‖F_t‖ (L2 norm over the whole model), so that an expert with larger gradients does
not win everywhere. Tensors without Fisher information in some expert (statistics among them) take the weighted
average. Inputs: for each expert one F_t, by tensor name, as a state dict or a file (see `fisher_estimation`). Source:
Matena & Raffel 2021, arXiv 2111.09832.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from advisor.merging.number_formats import FloatArray, to_working
from advisor.merging.operator import Operator, TensorVectors
from advisor.merging.sources import Location, Source, open_source

_BLOCK = 1 << 16


def fisher_operator(
    *, fisher: Mapping[str, Location] | Sequence[Location], epsilon: float = 1e-6, normalize: bool = True
) -> Operator:
    """Fisher merging with given diagonal Fisher information, by label or in the experts' order.

    Raises:
        ValueError: epsilon not above 0, or an F_t that is zero everywhere.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon} must be above 0: it decides where no expert is informed")
    sources = open_by_expert(fisher, "Fisher information")
    norms = {key: _norm(source) for key, source in sources.items()}
    for key, norm in norms.items():
        if normalize and not norm > 0:
            raise ValueError(f"{sources[key].place}: zero everywhere; estimate it on data, or pass normalize=False")

    def merge(tensor: TensorVectors) -> FloatArray:
        chosen = choose_by_expert(sources, tensor.labels)
        if any(tensor.name not in source.tensors for source in chosen):
            return tensor.weighted_sum()
        numerator = np.zeros_like(tensor.base)
        denominator = np.zeros_like(tensor.base)
        for number, source in enumerate(chosen):
            share = float(tensor.coefficients[number])
            if normalize:
                share /= norms[expert_key(sources, tensor.labels, number)]
            weight = read_tensor(source, tensor.name, tensor.shape)
            if weight.size and not weight.min() >= 0:
                raise ValueError(f"{source.place}: tensor {tensor.name!r} holds negative or NaN Fisher information")
            weight = (weight + epsilon) * share
            denominator += weight
            weight *= tensor.vectors[number]
            numerator += weight
        numerator /= denominator
        return numerator

    return Operator(
        name="fisher",
        merge=merge,
        weights="normalize",
        options={"epsilon": epsilon, "normalize": normalize},
    )


def open_by_expert(given: Mapping[str, Location] | Sequence[Location], what: str) -> dict[str | int, Source]:
    """Open one source for each expert, keyed as given: by label or by position."""
    items = given.items() if isinstance(given, Mapping) else enumerate(given)
    return {key: open_source(location, place=f"{what} of expert {key!r}") for key, location in items}


def expert_key(sources: Mapping[str | int, Source], labels: Sequence[str], number: int) -> str | int:
    """The key of expert `number`: its label where sources were given by label, else its position."""
    return labels[number] if labels[number] in sources else number


def choose_by_expert(sources: Mapping[str | int, Source], labels: Sequence[str]) -> list[Source]:
    """The sources in the experts' order.

    Raises:
        ValueError: not exactly one for each expert.
    """
    keys = [expert_key(sources, labels, number) for number in range(len(labels))]
    if set(keys) != set(sources):
        raise ValueError(
            f"statistics for {list(sources)}, experts are {list(labels)}: give exactly one for each expert"
        )
    return [sources[key] for key in keys]


def read_tensor(source: Source, name: str, shape: tuple[int, ...]) -> FloatArray:
    """A whole tensor, flattened, in working numbers.

    Raises:
        ValueError: another shape than expected.
    """
    info = source.tensors[name]
    if info.shape != shape:
        raise ValueError(f"{source.place}: tensor {name!r} has shape {info.shape}, expected {shape}")
    return np.array(to_working(source.read(name, 0, info.size), info.dtype))


def _norm(source: Source) -> float:
    square = 0.0
    for name, info in source.tensors.items():
        for start in range(0, info.size, _BLOCK):
            block = to_working(source.read(name, start, min(start + _BLOCK, info.size)), info.dtype)
            square += float((block.astype(np.float64) ** 2).sum())
    return float(square**0.5)
