"""Diagonal Fisher information of a classifier, from per-sample gradients.

    F_p = E_x Σ_y p(y|x) (∂ log p(y|x) / ∂x_p)²             exact over the classes, mean over the samples

Each sample's gradient is squared before anything is summed (`torch.func.vmap(grad)`): squaring a batch's gradient would
mix in cross terms between samples. `classes="sampled"` draws y ~ p(y|x) once for each sample, unbiased and as
cheap as one gradient; `classes="all"` costs one gradient for each class. The model runs in eval mode and is left as it
was. Source: Matena & Raffel 2021, arXiv 2111.09832, equation 3.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


def estimate_fisher(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    classes: Literal["all", "sampled"] = "all",
    seed: int = 0,
    chunk_size: int | None = 32,
) -> dict[str, Tensor]:
    """Diagonal Fisher information of the trainable parameters.

    Args:
        model: inputs [B, ...] → logits [B, C].
        batches: inputs; all of them are used.
        classes: expectation over y exact, or by one draw for each sample.
        seed: of those draws.
        chunk_size: samples whose gradients are held at once.

    Returns:
        Parameter name → F, in the parameter's shape and dtype, on its device.

    Raises:
        ValueError: no sample, or an unknown `classes`.
    """
    if classes not in ("all", "sampled"):
        raise ValueError(f"classes={classes!r} must be 'all' or 'sampled'")
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    rest = {name: p.detach() for name, p in model.named_parameters() if name not in parameters}
    rest.update({name: buffer.detach() for name, buffer in model.named_buffers()})

    def log_probability(weights: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, (weights, rest), (sample.unsqueeze(0),))
        return logits.squeeze(0).log_softmax(dim=-1).gather(0, label.unsqueeze(0)).squeeze(0)

    per_sample: Any = vmap(grad(log_probability), in_dims=(None, 0, 0), chunk_size=chunk_size)
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    count = 0
    training = model.training
    model.eval()
    try:
        with sdpa_kernel(SDPBackend.MATH):
            for batch in batches:
                for labels, weights in _draw_labels(model, batch, classes, generator):
                    for name, gradient in per_sample(parameters, batch, labels).items():
                        total[name] += torch.einsum("b,b...->...", weights.to(gradient.dtype), gradient.square())
                count += len(batch)
    finally:
        model.train(training)
    if count == 0:
        raise ValueError("batches are empty: Fisher information needs at least one sample")
    return {name: value / count for name, value in total.items()}


def _draw_labels(
    model: nn.Module, batch: Tensor, classes: str, generator: torch.Generator
) -> Iterable[tuple[Tensor, Tensor]]:
    """Pairs (labels [B], weights [B]) that together make up the expectation over y."""
    with torch.no_grad():
        probabilities = model(batch).softmax(dim=-1)
    if classes == "sampled":
        drawn = torch.multinomial(probabilities.cpu(), 1, generator=generator).squeeze(1).to(batch.device)
        yield drawn, torch.ones(len(batch), device=batch.device)
        return
    for label in range(probabilities.shape[1]):
        yield torch.full((len(batch),), label, device=batch.device), probabilities[:, label]
