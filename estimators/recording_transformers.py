r"""The recorder for Hugging Face's ``Trainer`` (extra ``transformers``); what is recorded: ``estimators.recording``.

    trainer = Trainer(model, args, train_dataset=birds, callbacks=[TransformersRecorder("traces/birds", task="birds",
                      prefix="vit.", exclude=["classifier."])])
    trainer.train()

The recipe is read off the trainer.  The loss of a step is the one that the model returns; where gradients are
accumulated, or the model returns none, it is the one that the trainer logs, which is then asked to log every step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (  # type: ignore[import-not-found,unused-ignore]
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from estimators.recording import TraceRecorder, recipe_of
from estimators.trained_recipe import TrainedRecipe


class TransformersRecorder(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Records a run of ``transformers.Trainer``.

    Args:
        folder: where the trace goes.
        task: name of the task in the project.
        recipe: how the run is trained; by default read off the trainer.
        more: what the trainer does not know of the recipe (``augmentation``, ``dropout``, ``lora_rank``), by field.
        **options: as in ``TraceRecorder``: ``checkpoints``, ``prefix``, ``exclude``, ``every``, ``read``, ``probe``.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        task: str,
        recipe: TrainedRecipe | None = None,
        more: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.folder, self.task, self.recipe, self.more, self.options = folder, task, recipe, more or {}, options
        self.recorder: TraceRecorder | None = None
        self._loss: Tensor | None = None
        self._from_log = False
        self._hook: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep x_0 and listen to the model's loss."""
        if not state.is_world_process_zero:
            return
        if state.global_step > 0:
            raise ValueError(f"global_step={state.global_step}: a run must be recorded from its first step; start anew")
        model: nn.Module = kwargs["model"]
        if hasattr(model, "peft_config") and "read" not in self.options:
            raise ValueError("the model holds adapters; pass read= with a function that gives their merged weights")
        recipe = self.recipe or recipe_of_trainer(args, state, kwargs["optimizer"], **self.more)
        self.recorder = TraceRecorder(
            model, self.folder, task=self.task, recipe=recipe, recorder="transformers",
            **({"seed": int(args.seed)} | self.options),
        )  # fmt: skip
        self._from_log = args.gradient_accumulation_steps > 1
        if not self._from_log:
            self._hook = model.register_forward_hook(self._listen)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the step, or ask the trainer to log its loss."""
        if self.recorder is None:
            return
        if self._loss is None:
            self._from_log = True
        if self._from_log:
            control.should_log = True
        else:
            assert self._loss is not None
            self.recorder.step(kwargs["model"], self._loss)
            self._loss = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the step with the loss that the trainer logs."""
        if self.recorder is not None and self._from_log and "loss" in (logs or {}):
            assert logs is not None
            self.recorder.step(kwargs["model"], float(logs["loss"]))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the trace."""
        if self._hook is not None:
            self._hook.remove()
        if self.recorder is not None:
            self.recorder.close()

    def _listen(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if module.training and torch.is_grad_enabled():
            found = outputs.get("loss") if hasattr(outputs, "get") else getattr(outputs, "loss", None)
            self._loss = None if found is None else found.detach().mean()


def recipe_of_trainer(
    args: TrainingArguments, state: TrainerState, optimizer: torch.optim.Optimizer, **more: Any
) -> TrainedRecipe:
    """The recipe of a run, from the trainer's arguments and its optimizer."""
    given: dict[str, Any] = {
        "warmup_steps": int(args.get_warmup_steps(state.max_steps)),
        "gradient_clipping": float(args.max_grad_norm) if args.max_grad_norm else None,
        "label_smoothing": float(args.label_smoothing_factor),
    }
    return recipe_of(
        getattr(optimizer, "optimizer", optimizer),
        batch_size=int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size),
        steps=int(state.max_steps),
        schedule=str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        **(given | more),
    )
