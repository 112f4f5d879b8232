r"""Merges in memory: task vectors are read once, every further merge is a sum (or one operator) over what is cached.

    x(lambda) = x_0 + sum_g sum_i lambda_gi tau_i[g]            lambda: [D], D = N, or G N for G layer groups
    G_d,e     = <tau_d, tau_e> with d = (g, i), e = (g, j); 0 between different groups

BatchNorm statistics that the experts changed take the same rule and are put into the network before it is evaluated, so
what is measured is what is written.  Operators other than task arithmetic are applied to the cached state dicts.

    gradient:   dR/dlambda_gi = <dR/dx [g], tau_i [g]>          one backward pass for all D (Yang et al. 2023)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.merging import merge_state_dicts
from advisor.merging.compatibility import STATISTICS, IncompatibleCheckpoints
from advisor.probing import LINEAR_METHOD
from estimators.backbone import TorchBackbone

FloatArray = NDArray[np.float64]
State = Mapping[str, Tensor]
NEAR = 1e-6  # relative difference below which a base is the project's backbone


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recombination:
    """Everything needed to merge again.

    Attributes:
        backbone: the network; its BatchNorm statistics are overwritten by every merge.
        labels: the N experts.
        start: x_0 [P].
        vectors: task vectors [N, P].
        groups: name -> positions (start, stop) in the flat vector; one group for task-wise coefficients.
        base: the base's state dict, on the CPU.
        experts: the experts' state dicts.
        statistics: BatchNorm statistics -> (base, changes of the experts, group); only those that an expert changed.
    """

    backbone: TorchBackbone
    labels: tuple[str, ...]
    start: Tensor
    vectors: Tensor
    groups: Mapping[str, tuple[int, int]]
    base: State
    experts: tuple[State, ...]
    statistics: Mapping[str, tuple[Tensor, Tensor, int]]

    @property
    def size(self) -> int:
        """Number of coefficients D."""
        return len(self.groups) * len(self.labels)

    def gram(self) -> FloatArray:
        """Gram matrix [D, D], block by block for groups."""
        count = len(self.labels)
        whole = np.zeros((self.size, self.size))
        for number, (first, last) in enumerate(self.groups.values()):
            part = self.vectors[:, first:last].cpu().double()
            block = slice(number * count, (number + 1) * count)
            whole[block, block] = (part @ part.T).numpy()
        return whole

    def weights(self, row: FloatArray) -> Tensor:
        """x(lambda) [P] at coefficients [D]; leaves the merged BatchNorm statistics in the network."""
        cells = torch.as_tensor(np.asarray(row).reshape(len(self.groups), -1), dtype=torch.float32)
        merged = self.start.clone()
        for number, (first, last) in enumerate(self.groups.values()):
            merged[first:last] += cells[number].to(merged.device) @ self.vectors[:, first:last]
        for name, (base, changes, group) in self.statistics.items():
            self._put(name, base + torch.tensordot(cells[group], changes, dims=1))
        return merged

    def by_operator(self, method: str, row: FloatArray, *, seed: int, options: Mapping[str, Any]) -> Tensor:
        """Merged weights [P] of another operator at task-wise coefficients [N]."""
        if method == LINEAR_METHOD:
            return self.weights(row)
        state = merge_state_dicts(
            dict(self.base),
            dict(zip(self.labels, self.experts, strict=True)),
            method=method,
            coefficients=[float(value) for value in row],
            seed=seed,
            trust_base=True,  # checked when the problem was opened
            **options,
        )
        for name in self.statistics:
            self._put(name, state[name])
        return self.backbone.flatten(state)

    def project(self, gradient: Tensor) -> FloatArray:
        """Gradient with respect to coefficients [D] from one with respect to weights [P]."""
        parts = [(self.vectors[:, a:b] @ gradient[a:b]).cpu().double().numpy() for a, b in self.groups.values()]
        return np.concatenate(parts)

    def grouped(self, groups: Mapping[str, tuple[int, int]]) -> Recombination:
        """The same with coefficients for each layer group."""
        names, ends = list(groups), [last for _, last in groups.values()]
        where = {}
        for name, (base, changes, _) in self.statistics.items():
            owner = name.rsplit(".", 1)[0]
            first = next((a for n, a in _positions(self.backbone).items() if n.startswith(owner + ".")), 0)
            where[name] = (base, changes, next(k for k in range(len(names)) if first < ends[k]))
        return Recombination(
            backbone=self.backbone,
            labels=self.labels,
            start=self.start,
            vectors=self.vectors,
            groups=groups,
            base=self.base,
            experts=self.experts,
            statistics=where,
        )

    def by_tensor(self, row: FloatArray) -> dict[str, tuple[float, ...]]:
        """Coefficients [N] of every tensor of the backbone, statistics included, as ``merge`` takes them."""
        cells = np.asarray(row).reshape(len(self.groups), -1)
        ends = [last for _, last in self.groups.values()]
        found = {
            name: tuple(cells[next(k for k in range(len(ends)) if first < ends[k])].tolist())
            for name, first in _positions(self.backbone).items()
        }
        return found | {name: tuple(cells[group].tolist()) for name, (_, _, group) in self.statistics.items()}

    def _put(self, name: str, value: Tensor) -> None:
        if name.endswith("running_var") and bool((value < 0).any()):
            value = torch.full_like(value, torch.nan)  # no merge: its risk comes out infinite
        self.backbone.module.get_buffer(name).copy_(value)


def cache_task_vectors(backbone: TorchBackbone, base: State, experts: Mapping[str, State]) -> Recombination:
    """Read task vectors once.

    Raises:
        IncompatibleCheckpoints: the base is not the backbone, or an expert does not fit it.
    """
    try:
        start = backbone.flatten(base)
        flat = [backbone.flatten(state) for state in experts.values()]
    except ValueError as error:
        raise IncompatibleCheckpoints(f"base and experts must hold the project's backbone: {error}") from None
    distance = float((start - backbone.initial).norm() / backbone.initial.norm())
    if not distance <= NEAR:
        raise IncompatibleCheckpoints(
            f"base differs from the project's backbone by {distance:.2g} of its norm, so the project's heads do not "
            "fit it; name the base as the project's backbone.checkpoint, or give the run that the experts come from"
        )
    own = backbone.around(copy.deepcopy(backbone.module))
    vectors = torch.stack(flat) - start
    still = [name for name, vector in zip(experts, vectors, strict=True) if not bool(vector.any())]
    if still or not bool(torch.isfinite(vectors).all()):
        what = f"expert {still[0]!r} equals the base" if still else "an expert holds NaN or infinity"
        raise IncompatibleCheckpoints(f"{what}; leave it out")
    changed = {}
    for name in [n for n, _ in own.module.named_buffers() if n.endswith(STATISTICS) and n in base]:
        moves = torch.stack([state[name].float() - base[name].float() for state in experts.values()])
        if bool(moves.any()):
            changed[name] = (base[name].float(), moves, 0)
    return Recombination(
        backbone=own,
        labels=tuple(experts),
        start=start,
        vectors=vectors,
        groups={"all": (0, start.numel())},
        base=base,
        experts=tuple(experts.values()),
        statistics=changed,
    )


def layer_groups(backbone: TorchBackbone, *, most: int = 6) -> dict[str, tuple[int, int]]:
    """Neighbouring layers in the network's order, at most ``most`` groups of similar numbers of layers.

    Layers are told apart by their names up to the first number (``blocks.3``, ``layer1``, ``stages.0``).
    """
    starts: dict[str, int] = {}
    for name, first in _positions(backbone).items():
        starts.setdefault(_layer_of(name), first)
    layers = list(starts)
    groups: dict[str, tuple[int, int]] = {}
    for members in np.array_split(np.arange(len(layers)), min(most, len(layers))):
        first, last = layers[members[0]], layers[members[-1]]
        after = int(members[-1]) + 1
        end = starts[layers[after]] if after < len(layers) else backbone.num_parameters
        groups[first if first == last else f"{first} to {last}"] = (starts[first], end)
    return groups


def _layer_of(name: str) -> str:
    parts = name.split(".")
    for k, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: k + 1])
    return parts[0]


def _positions(backbone: TorchBackbone) -> dict[str, int]:
    """Where each tensor begins in the flat vector."""
    ends = np.cumsum(backbone.sizes).tolist()
    return {name: int(end - size) for name, size, end in zip(backbone.names, backbone.sizes, ends, strict=True)}
