r"""Record what a probe needs from a training loop that is not ours: loss, ||x_k - x_0||^2, weights at chosen steps.

    recorder = TraceRecorder(model, "traces/birds", task="birds", recipe=recipe, exclude=["fc."])
    for inputs, labels in batches:
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        recorder.step(model, loss)
    recorder.close()

What is recorded are the floating-point parameters that train, less those in ``exclude`` (heads are not merged), under
the names that the project's backbone gives them (``prefix`` is taken off).  A copy of x_0 is kept for the distance;
everything else is a sum of squares a step.  Recording changes nothing in the training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from estimators.checkpoints import fingerprint
from estimators.files import write_bytes_atomic
from estimators.recipe import Recipe
from estimators.trace_files import HEADER_NAME, STEPS_NAME, TraceHeader, write_header
from estimators.trained_recipe import TrainedRecipe

FLUSH_STEPS = 16  # losses are brought to the host and written once in so many steps
EARLY_SHARE = 3  # by default the weights are kept after a third of the steps and at the end, as own probes keep them

ReadWeights = Callable[[nn.Module], Mapping[str, Tensor]]


class TraceRecorder:
    """Writes one trace; use it as a context or call :meth:`close`.

    Args:
        model: the model at x_0, before its first step.
        folder: where the trace goes; absent or empty.
        task: name of the task in the project.
        recipe: how the run is trained.
        checkpoints: steps after which weights are kept; by default a third of the steps and the last.
        seed: seed of the run.
        probe: label shared by runs of different tasks that belong together; by default equal recipes do.
        prefix: keep only parameters whose name starts so, and take it off.
        exclude: beginnings of names (after ``prefix``) that are left out: heads.
        every: record every so many steps; checkpoints and the first step are always recorded.
        read: model -> named weights to record instead, for example merged LoRA weights.
        keep_start_on: device of the copy of x_0; by default where the weights are.
        recorder: what records, for the header.

    Raises:
        ValueError: if the folder is taken or nothing is left to record.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path | str,
        *,
        task: str,
        recipe: Recipe | TrainedRecipe,
        checkpoints: Sequence[int] | None = None,
        seed: int | None = None,
        probe: str | None = None,
        prefix: str = "",
        exclude: Sequence[str] = (),
        every: int = 1,
        read: ReadWeights | None = None,
        keep_start_on: str | None = None,
        recorder: str = "plain loop",
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ValueError(f"folder={str(folder)!r} is not empty; give each run a folder of its own")
        if not every >= 1:
            raise ValueError(f"every={every} must be at least 1; 1 records every step")
        trained = recipe if isinstance(recipe, TrainedRecipe) else TrainedRecipe.of(recipe)
        wanted = {trained.steps, max(1, trained.steps // EARLY_SHARE)} if checkpoints is None else set(checkpoints)
        wrong = sorted(step for step in wanted if not 1 <= step <= trained.steps)
        if wrong:
            raise ValueError(f"checkpoints={wrong} must lie in 1..steps={trained.steps}; remove them or train longer")
        self._prefix, self._exclude, self._read = prefix, tuple(exclude), read
        self._wanted, self._every = wanted, every
        self._start = {
            name: value.detach().to(keep_start_on or value.device, copy=True)
            for name, value in self._weights(model).items()
        }
        self.steps_done, self._rows, self._pending = 0, 0, list[dict[str, Any]]()
        self.header = TraceHeader(
            task=task,
            recipe=trained,
            status="recording",
            seed=seed,
            probe=probe,
            base=fingerprint(self._start),
            parameters={name: str(value.dtype).removeprefix("torch.") for name, value in self._start.items()},
            recorder=recorder,
        )
        write_header(self.folder, self.header)

    def step(
        self, model: nn.Module, loss: Tensor | float, *, learning_rate: float | None = None,
        gradient_norm: Tensor | float | None = None,
    ) -> None:  # fmt: skip
        """Record one optimizer step that was just done.

        Args:
            model: the model after the step.
            loss: mean loss of the step's batch, nats.
            learning_rate: the step's, where it is worth keeping.
            gradient_norm: Euclidean norm of the step's gradient.
        """
        self.steps_done += 1
        k = self.steps_done
        if k > self.header.recipe.steps:
            raise ValueError(f"step {k} goes beyond recipe.steps={self.header.recipe.steps}; give the planned steps")
        keep = k in self._wanted
        if keep or k == 1 or k % self._every == 0:
            weights = self._weights(model)
            row = {"step": k, "loss": _detached(loss), "squared_displacement": self._moved(weights)}
            if learning_rate is not None:
                row["learning_rate"] = learning_rate
            if gradient_norm is not None:
                row["gradient_norm"] = _detached(gradient_norm)
            self._pending.append(row)
            if keep:
                self._keep(k, weights)
        if keep or len(self._pending) >= FLUSH_STEPS:
            self._flush()

    def note(self, text: str) -> None:
        """Add a caveat to the header."""
        if text not in self.header.notes:
            self.header = replace(self.header, notes=(*self.header.notes, text))

    def close(self) -> None:
        """Write what is left and mark the trace as finished; done once."""
        if self.header.status == "finished":
            return
        self._flush()
        self.header = replace(self.header, status="finished", rows=self._rows)
        write_header(self.folder, self.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trace; after an error it keeps what was recorded and stays marked as unfinished."""
        if error is None:
            self.close()
        else:
            self._flush()

    def _weights(self, model: nn.Module) -> dict[str, Tensor]:
        if self._read is not None:
            found = dict(self._read(model))
        else:
            named = {name.removeprefix("module."): value for name, value in model.named_parameters()}
            found = {
                name.removeprefix(self._prefix): value
                for name, value in named.items()
                if value.requires_grad and value.is_floating_point() and name.startswith(self._prefix)
            }
        kept = {name: value for name, value in found.items() if not name.startswith(self._exclude or ("\0",))}
        if not kept:
            raise ValueError(
                f"prefix={self._prefix!r}, exclude={list(self._exclude)} leave no parameter that trains to record; "
                f"the model's begin with {sorted({name.split('.')[0] for name, _ in model.named_parameters()})}"
            )
        sharded = next((name for name, value in kept.items() if hasattr(value, "placements")), None)
        if sharded is not None:
            raise ValueError(
                f"parameter {sharded!r} is sharded over devices; pass read= with a function that gathers the weights"
            )
        return kept

    def _moved(self, weights: Mapping[str, Tensor]) -> Tensor:
        if weights.keys() != self._start.keys():
            raise ValueError(
                f"the parameters that train changed since x_0 ({sorted(weights.keys() ^ self._start.keys())[:3]}); "
                "freeze and free layers before the recorder is made"
            )
        with torch.no_grad():
            parts = [
                (value.detach().to(self._start[name].device).float() - self._start[name].float()).square().sum()
                for name, value in weights.items()
            ]
            return torch.stack([part.to(parts[0].device) for part in parts]).cpu().double().sum()

    def _keep(self, step: int, weights: Mapping[str, Tensor]) -> None:
        name = f"checkpoint-{step}.safetensors"
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            self.note(f"the weights after step {step} are not finite and were not kept")
            return
        write_bytes_atomic(self.folder / name, safetensors.torch.save(tensors))
        self.header = replace(self.header, checkpoints={**self.header.checkpoints, step: name})
        write_header(self.folder, self.header)

    def _flush(self) -> None:
        lines = [json.dumps({key: _plain(value) for key, value in row.items()}) for row in self._pending]
        with (self.folder / STEPS_NAME).open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
        self._rows += len(lines)
        self._pending.clear()


def recipe_of(
    optimizer: torch.optim.Optimizer, *, batch_size: int, steps: int, schedule: str = "constant", **more: Any
) -> TrainedRecipe:
    """The recipe that a ``torch.optim`` optimizer follows, with the largest weight decay of its groups.

    Args:
        optimizer: SGD, Adam or AdamW, before any scheduler lowered its learning rate.
        batch_size: samples in one step.
        steps: planned steps.
        schedule: as in ``TrainedRecipe``.
        **more: further fields of ``TrainedRecipe``.

    Raises:
        ValueError: for another optimizer, or groups that train at different rates.
    """
    group = optimizer.param_groups[0]
    rates = sorted({float(g.get("initial_lr", g["lr"])) for g in optimizer.param_groups})
    if len(rates) > 1:
        raise ValueError(f"parameter groups train at rates {rates}; a probe has one learning rate: train with one")
    decays = [float(g.get("weight_decay", 0.0)) for g in optimizer.param_groups]
    if len(set(decays)) > 1:
        remark = f"weight decay {max(decays):g} was read as that of all weights, some had {min(decays):g}"
        more["remarks"] = (*more.get("remarks", ()), remark)
    kind = type(optimizer).__name__.lower()
    given: dict[str, Any] = {
        "learning_rate": rates[0],
        "batch_size": batch_size,
        "steps": steps,
        "optimizer": kind,
        "schedule": schedule,
        "weight_decay": max(decays),
    }
    if kind == "sgd" and group.get("momentum"):
        given |= {"optimizer": "momentum", "momentum": float(group["momentum"]), "nesterov": bool(group["nesterov"])}
    if "betas" in group:
        given["betas"] = tuple(float(beta) for beta in group["betas"])
    return TrainedRecipe(**(given | more))


def _detached(value: Tensor | float) -> Tensor | float:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _plain(value: Tensor | float) -> float | int | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


__all__ = ["HEADER_NAME", "TraceRecorder", "recipe_of"]
