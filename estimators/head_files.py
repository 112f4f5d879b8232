"""Heads in the run: ``heads/<task>.safetensors`` with weight and bias, how the fit went as the file's metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from estimators.checkpoints import fingerprint
from estimators.files import write_bytes_atomic
from estimators.heads import HeadFit
from estimators.tasks import LinearHead

LOSSES, FEATURES = "held_out_losses", "features"


class DamagedHead(ValueError):
    """A stored head that cannot be read, or that was fitted on other features or samples."""


def head_path(run: Path, task: str) -> Path:
    """Where the head of a task lies."""
    return run / "heads" / f"{task}.safetensors"


def store_head(run: Path, task: str, fit: HeadFit, *, basis: str) -> None:
    """Write a head; ``basis`` names the weights and samples that it was fitted on."""
    tensors = {"weight": fit.head.weight.cpu().contiguous(), "bias": fit.head.bias.cpu().contiguous()}
    if fit.held_out_losses is not None:
        tensors[LOSSES] = fit.held_out_losses.cpu().contiguous()
    if fit.features is not None:
        tensors[FEATURES] = fit.features.cpu().contiguous()
    about = {
        "basis": basis,
        "sha256": fingerprint(tensors),
        "strength": fit.strength,
        "cross_validated_risk": None if math.isnan(fit.cross_validated_risk) else fit.cross_validated_risk,
        "train_accuracy": fit.train_accuracy,
        "units": fit.units,
        "caveats": list(fit.caveats),
    }
    write_bytes_atomic(head_path(run, task), save_tensors(tensors, metadata={"fit": json.dumps(about)}))


def load_head(run: Path, task: str, *, basis: str) -> HeadFit:
    """Read a head back.

    Raises:
        DamagedHead: if it is missing, damaged or rests on another basis.
    """
    path = head_path(run, task)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["fit"])
            risk = about["cross_validated_risk"]
            # copied out of the file, where they lie at odd addresses: the last bits of a product depend on them
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if about["sha256"] != fingerprint(tensors):
            raise DamagedHead(f"path={str(path)!r} is not what the run wrote down (SHA-256 differs); fit it again")
        if about["basis"] != basis:
            raise DamagedHead(f"path={str(path)!r} was fitted on other weights or samples; fit it again")
        return HeadFit(
            head=LinearHead(weight=tensors["weight"], bias=tensors["bias"]),
            strength=float(about["strength"]),
            cross_validated_risk=math.nan if risk is None else float(risk),
            train_accuracy=float(about["train_accuracy"]),
            units=float(about["units"]),
            held_out_losses=tensors.get(LOSSES),  # heads of older runs have neither
            features=tensors.get(FEATURES),
            caveats=tuple(about["caveats"]),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DamagedHead):
            raise
        raise DamagedHead(f"path={str(path)!r} cannot be read ({type(error).__name__}); fit it again") from None
