"""Gram matrices of layer inputs, the statistics RegMean needs.

    G = (1/n) Σ x x'  (in fp64)          x: every input vector of the layer, over samples, tokens and positions

Linear layers see their inputs as they are; a convolution sees patches of in·kh·kw numbers (`unfold`), one for each
output position. Collected by forward hooks, which are removed again; the model runs in eval mode and is left as it
was. Left out (RegMean then averages them): grouped and transposed convolutions, paddings that are not zeros of a given
size, subclasses that pad by themselves, and weights used without their module's call (`nn.MultiheadAttention`).
Source: Jin et al. 2022, arXiv 2212.09849.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def collect_activation_grams(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean Gram matrix [in, in] of the inputs of every linear layer and plain convolution.

    Args:
        model: called on each batch.
        batches: inputs; all of them are used.

    Returns:
        Name of the layer's weight → Gram matrix in fp32, on the CPU.

    Raises:
        ValueError: no sample.
    """
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            rows = _input_rows(module, arguments[0].detach()).cpu().double()
            gram = rows.T @ rows
            totals[name] = totals[name] + gram if name in totals else gram
            counts[name] = counts.get(name, 0) + len(rows)

        return hook

    handles = [
        module.register_forward_pre_hook(watch(f"{name}.weight" if name else "weight"))
        for name, module in model.named_modules()
        if _is_covered(module)
    ]
    training = model.training
    model.eval()
    seen = 0
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
                seen += len(batch)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    if seen == 0:
        raise ValueError("batches are empty: Gram matrices need at least one sample")
    return {name: (total / counts[name]).float() for name, total in totals.items()}


def _is_covered(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _input_rows(module: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs as rows [n, in]."""
    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(-1, inputs.shape[-1])
    patches = nn.functional.unfold(
        inputs,
        kernel_size=module.kernel_size,
        dilation=module.dilation,
        padding=module.padding,  # type: ignore[arg-type]  # numbers, see _is_covered
        stride=module.stride,
    )
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])
