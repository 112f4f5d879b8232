r"""The recorder for Lightning (extra ``lightning``); what is recorded: ``estimators.recording``.

    trainer = lightning.Trainer(max_steps=200, callbacks=[LightningRecorder("traces/birds", task="birds",
                                prefix="backbone.", schedule="constant")])

With gradient accumulation a step's loss is the mean over its batches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from estimators.recording import TraceRecorder, recipe_of
from estimators.trained_recipe import TrainedRecipe


class LightningRecorder(pl.Callback):  # type: ignore[misc,unused-ignore]
    """Records a run of ``lightning.Trainer`` with automatic optimization.

    Args:
        folder: where the trace goes.
        task: name of the task in the project.
        recipe: how the run is trained; by default read off the trainer.
        schedule: the learning rate's; must be given where the module configures a scheduler.
        more: what the trainer does not know of the recipe (``augmentation``, ``dropout``, ``lora_rank``), by field.
        **options: as in ``TraceRecorder``: ``checkpoints``, ``prefix``, ``exclude``, ``every``, ``read``, ``probe``.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        task: str,
        recipe: TrainedRecipe | None = None,
        schedule: str | None = None,
        more: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.folder, self.task, self.recipe, self.schedule = folder, task, recipe, schedule
        self.more, self.options = more or {}, options
        self.recorder: TraceRecorder | None = None
        self._losses: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep x_0."""
        if not trainer.is_global_zero:
            return
        if trainer.global_step > 0:
            raise ValueError(f"global_step={trainer.global_step}: a run must be recorded from its first step")
        recipe = self.recipe or recipe_of_lightning(trainer, self.schedule, **self.more)
        self.recorder = TraceRecorder(
            pl_module, self.folder, task=self.task, recipe=recipe, recorder="lightning", **self.options
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record a step once its last batch is done."""
        if self.recorder is None:
            return
        loss = outputs if isinstance(outputs, Tensor) else (outputs or {}).get("loss")
        if loss is None:
            raise ValueError("training_step returned no loss; record such a loop with TraceRecorder.step")
        self._losses.append(loss.detach())
        if trainer.global_step > self.recorder.steps_done:
            total = self._losses[0].clone()
            for part in self._losses[1:]:  # Lightning divides each by the number of accumulated batches
                total += part
            self._losses.clear()
            self.recorder.step(pl_module, total)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the trace."""
        if self.recorder is not None:
            self.recorder.close()


def recipe_of_lightning(trainer: pl.Trainer, schedule: str | None, **more: Any) -> TrainedRecipe:
    """The recipe of a run, from the trainer, its optimizer and its data."""
    if len(trainer.optimizers) != 1:
        raise ValueError(f"the module has {len(trainer.optimizers)} optimizers; record it with TraceRecorder.step")
    if schedule is None and trainer.lr_scheduler_configs:
        raise ValueError("the module configures a scheduler; pass schedule= (constant, linear, cosine, warmup_cosine)")
    size = more.pop("batch_size", None) or getattr(trainer.train_dataloader, "batch_size", None)
    if not isinstance(size, int):
        raise ValueError("batch_size is not known to the data loader; pass more={'batch_size': ...}")
    clipping = trainer.gradient_clip_val
    given: dict[str, Any] = {"gradient_clipping": float(clipping) if clipping else None}
    return recipe_of(
        trainer.optimizers[0],
        batch_size=size * trainer.accumulate_grad_batches * trainer.world_size,
        steps=int(trainer.estimated_stepping_batches),
        schedule=schedule or "constant",
        **(given | more),
    )
