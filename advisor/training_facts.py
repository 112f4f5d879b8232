r"""What the theorem's conditions meet in this project: facts about network, data and training (``advisor.validity``).

Whether a network has kinks is seen by running its module once on ``meta`` tensors, which compute nothing, and listening
to the operations that it calls: that finds a functional ``relu`` inside of ``forward`` as well as ``nn.ReLU``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from advisor.validity import Situation
from estimators.splits import SPLITS_FILE, read_records
from estimators.stored_tasks import shared_samples

if TYPE_CHECKING:
    from advisor.workspace import Workspace

# Operations with a kink, by the beginning of their name in torch: everywhere continuous, not everywhere differentiable
# (or, for hardswish and its like, with a derivative that is not Lipschitz).
KINKED = (
    "relu",
    "leaky_relu",
    "prelu",
    "_prelu",
    "rrelu",
    "threshold",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "hardshrink",
    "softshrink",
    "clamp",
    "abs",
    "max",
    "min",
    "amax",
    "amin",
    "fractional_max",
    "adaptive_max",
)


class _Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the names of the operations that are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heard: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard.append(str(func.overloadpacket.__name__))
        return func(*args, **(kwargs or {}))


def find_kinks(module: nn.Module, input_shape: Sequence[int]) -> tuple[str, ...] | None:
    """Names of the kinked operations of a network, sorted; ``None`` where it cannot be run on ``meta`` tensors.

    Args:
        module: the network.
        input_shape: of one batch, e.g. [1, 3, 32, 32].
    """
    with torch.no_grad():
        hollow = copy.deepcopy(module).to("meta").eval()
        try:
            with _Listener() as listener:
                hollow(torch.zeros(tuple(input_shape), device="meta"))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):  # data-dependent control flow
            return None
    return tuple(sorted({name.strip("_") for name in listener.heard if name.startswith(KINKED)}))


def facts_of(ws: Workspace) -> Situation:
    """The facts that constants and plan cannot know; ``None`` is left where nobody can."""
    backbone = ws.prepared.backbone
    inputs = next(iter(ws.tasks.values())).train.inputs
    kinks = find_kinks(backbone.module, (1, *inputs.shape[1:]))
    records = read_records(ws.run.path) if (ws.run.path / SPLITS_FILE).exists() else None
    return Situation(
        smooth_network=None if kinks is None else not kinks,
        convex_loss=False,
        nonnegative_loss=True,
        batch_norm_in_train_mode=False,  # the module stays in eval mode, which takes dropout out as well
        dropout=False,
        augmentation=False,
        gradient_clipping=False,
        checkpoint_chosen_from_data=False,
        heads_fitted_on_training_samples=True,
        samples_shared_between_tasks=None if records is None else bool(shared_samples(records)),
        batch_order_shared_between_tasks=False,  # the task's name enters the seed of its order
        goal_weights_fixed_beforehand=True,
        coefficients_chosen_after_training=False,
        layerwise_coefficients=False,
    )
