r"""The backbone as a function of one flat vector of parameters that may move.

Everything in the theory speaks of x in R^P: x_0 (``initial``), experts, merges.  ``Backbone`` is the seam: a batch of
whatever a task yields -> features [B, F], differentiable in x.  ``TorchBackbone`` serves any ``torch.nn.Module``; what
a batch looks like is its ``Reading``: images go in as they are and features come out (every timm model with
``num_classes=0``), token ids are read by ``estimators.token_reading``.

BatchNorm: the module stays in eval mode, so running statistics are those of x_0 in every fine-tune and merge;
``with_batch_statistics`` re-estimates them after merging where a user asks for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Backbone(Protocol):
    """A batch of inputs -> features, as a function of the flat vector of movable parameters."""

    @property
    def initial(self) -> Tensor:
        """The pretrained weights x_0 that may move, float32 [P]."""
        ...

    @property
    def feature_dim(self) -> int:
        """Features a sample, F."""
        ...

    def features(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Features [B, F] of a batch at weights ``parameters`` [P]."""
        ...


class Reading(Protocol):
    """How a module reads a batch, and which part of what it returns are the features."""

    def arguments(self, inputs: Tensor) -> dict[str, Tensor]:
        """Keyword arguments of the module for a batch of rows [B, ...]."""
        ...

    def features(self, output: Any, inputs: Tensor) -> Tensor:
        """Features [B, F] from what the module returned for that batch."""
        ...


class TorchBackbone:
    """A feature extractor ``module`` seen as a function of its movable parameters.

    Args:
        module: maps a float batch [B, C, H, W] to features [B, F], or what ``reading`` says.
        mean: per-channel mean subtracted after scaling uint8 inputs to [0, 1]; empty for none.
        std: per-channel standard deviation.
        frozen: parameter-name prefixes that must not move.
        reading: how batches that are no images are read.

    Raises:
        ValueError: if nothing may move, or a prefix matches no parameter.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        frozen: Sequence[str] = (),
        reading: Reading | None = None,
    ) -> None:
        self.module = module.eval()
        self.reading = reading
        self.mean, self.std, self.frozen = tuple(mean), tuple(std), tuple(frozen)
        names = [name for name, _ in module.named_parameters()]
        for prefix in self.frozen:
            if not any(name.startswith(prefix) for name in names):
                raise ValueError(
                    f"frozen={prefix!r} matches no parameter; the parameters begin with "
                    f"{sorted({name.split('.')[0] for name in names})}"
                )
        movable = {
            name: value
            for name, value in module.named_parameters()
            if value.is_floating_point() and not name.startswith(self.frozen or ("\0",))
        }
        if not movable:
            raise ValueError(f"frozen={list(self.frozen)} leaves no parameter that may move; free some of them")
        self.names = tuple(movable)
        self.shapes = tuple(value.shape for value in movable.values())
        self.sizes = tuple(value.numel() for value in movable.values())
        for value in module.parameters():
            value.requires_grad_(False)
        self._initial = torch.cat([value.detach().reshape(-1).float() for value in movable.values()])
        self._scale: tuple[Tensor, Tensor] | None = None
        self._feature_dim: int | None = None

    @property
    def initial(self) -> Tensor:
        """The pretrained weights x_0 that may move, float32 [P]."""
        return self._initial

    @property
    def num_parameters(self) -> int:
        """Parameters that may move, P."""
        return self._initial.numel()

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self._initial.device

    @property
    def has_batch_norm(self) -> bool:
        """Whether the module keeps running statistics."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.module.modules())

    @property
    def feature_dim(self) -> int:
        """Features a sample, F."""
        if self._feature_dim is None:
            raise ValueError("feature_dim is not known before a batch was seen; call features once")
        return self._feature_dim

    def to(self, device: torch.device | str) -> TorchBackbone:
        """Move the weights; returns self."""
        self.module.to(device)
        self._initial = self._initial.to(device)
        self._scale = None
        return self

    def preprocess(self, inputs: Tensor) -> Tensor:
        """Scale uint8 images to [0, 1] and normalise; floating inputs are only normalised."""
        values = inputs.float() / 255.0 if inputs.dtype == torch.uint8 else inputs
        if not self.mean:
            return values
        if self._scale is None or self._scale[0].device != values.device:
            self._scale = (
                torch.tensor(self.mean, device=values.device).view(-1, 1, 1),
                torch.tensor(self.std, device=values.device).view(-1, 1, 1),
            )
        return (values - self._scale[0]) / self._scale[1]

    def unflatten(self, parameters: Tensor) -> dict[str, Tensor]:
        """The flat vector [P] as named tensors (views)."""
        parts = torch.split(parameters, list(self.sizes))
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def features(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Features [B, F] of a batch at weights ``parameters`` [P]."""
        named = self.unflatten(parameters)
        if self.reading is None:
            out: Tensor = torch.func.functional_call(self.module, named, (self.preprocess(inputs),))
        else:
            given = self.reading.arguments(inputs)
            out = self.reading.features(torch.func.functional_call(self.module, named, (), given), inputs)
        self._feature_dim = int(out.shape[-1])
        return out

    def state_dict(self, parameters: Tensor) -> dict[str, Tensor]:
        """The module's whole state dict with ``parameters`` put in place, on the CPU."""
        state = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        for name, value in self.unflatten(parameters.detach().cpu()).items():
            state[name] = value.to(state[name].dtype).clone()
        return state

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """The movable part of a state dict as one float32 vector [P] on the backbone's device."""
        missing = [name for name in self.names if name not in state]
        if missing:
            raise ValueError(f"state lacks {missing[:3]} ({len(missing)} in all); it must hold this backbone's weights")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if state[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}; this backbone's is {tuple(shape)}")
        return torch.cat([state[name].reshape(-1).float() for name in self.names]).to(self.device)

    def with_batch_statistics(self, parameters: Tensor, batches: Iterable[Tensor]) -> TorchBackbone:
        """A copy at ``parameters`` whose BatchNorm statistics are re-estimated on ``batches`` (cumulative average)."""
        module = copy.deepcopy(self.module)
        with torch.no_grad():
            for name, value in self.unflatten(parameters).items():
                module.get_parameter(name).copy_(value)
            norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for batch in batches:
                if self.reading is None:
                    module(self.preprocess(batch))
                else:
                    module(**self.reading.arguments(batch))
        return self.around(module)

    def around(self, module: nn.Module) -> TorchBackbone:
        """The same backbone around another module of its kind."""
        return TorchBackbone(module, mean=self.mean, std=self.std, frozen=self.frozen, reading=self.reading)
