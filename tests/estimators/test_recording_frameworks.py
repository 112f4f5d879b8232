"""The recorders for Hugging Face's Trainer and Lightning write what a plain loop writes, on a small timm model."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from estimators.recording import TraceRecorder
from estimators.trace_files import Trace, read_trace
from estimators.trained_recipe import TrainedRecipe

STEPS, BATCH, RATE = 6, 4, 0.01


class Images(Dataset):
    """A few made-up images, the same for every loop."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(STEPS * BATCH * 2, 1, 16, 16, generator=generator)
        self.labels = torch.randint(0, 3, (len(self.inputs),), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.inputs[index], "labels": self.labels[index]}


class Network(nn.Module):
    """A timm backbone without dropout or BatchNorm's batch statistics, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backbone = timm.create_model("test_resnet", num_classes=0, in_chans=1)
        self.head = nn.Linear(self.backbone.num_features, 3)
        self.train()

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        self.backbone.eval()  # running statistics stay, as in own probes
        return self

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(self.backbone(pixels))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def plain(folder: Path, *, accumulate: int = 1) -> Trace:
    """The same training in a plain loop."""
    model = Network().train()
    recipe = TrainedRecipe(
        learning_rate=RATE,
        batch_size=BATCH * accumulate,
        steps=STEPS,
        optimizer="sgd",
        schedule="constant",
        weight_decay=0.0,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    data = Images()
    with TraceRecorder(model, folder, task="birds", recipe=recipe, prefix="backbone.") as recorder:
        for step in range(STEPS):
            optimizer.zero_grad()
            at = slice(step * BATCH * accumulate, (step + 1) * BATCH * accumulate)
            loss = model(data.inputs[at], data.labels[at])["loss"]
            loss.backward()
            optimizer.step()
            recorder.step(model, loss)
    return read_trace(folder)


def assert_same(recorded: Trace, expected: Trace, *, rounded: float = 1e-5) -> None:
    assert recorded.header.status == "finished"
    assert recorded.header.base == expected.header.base
    assert recorded.header.parameters == expected.header.parameters
    assert recorded.steps.tolist() == expected.steps.tolist()
    np.testing.assert_allclose(recorded.losses, expected.losses, rtol=rounded)
    np.testing.assert_allclose(recorded.squared_displacements, expected.squared_displacements, rtol=1e-3)
    assert set(recorded.header.checkpoints) == set(expected.header.checkpoints) == {STEPS // 3, STEPS}
    ours, theirs = (safetensors.torch.load_file(trace.checkpoint(STEPS)) for trace in (recorded, expected))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)
    first, second = recorded.header.recipe.as_recipe(), expected.header.recipe.as_recipe()
    assert first[0] == second[0]


@pytest.mark.filterwarnings("ignore")  # the frameworks' own notes on machines without accelerators and loggers
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_of_the_transformers_trainer_is_recorded_like_a_plain_loop(tmp_path, accumulate):
    transformers = pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    pytest.importorskip("accelerate", reason="Trainer needs accelerate, which is not installed")
    from estimators.recording_transformers import TransformersRecorder

    class Sequential(transformers.Trainer):
        def _get_train_sampler(self, *args: object) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = Network()
    recorder = TransformersRecorder(
        tmp_path / "hf", task="birds", prefix="backbone.", more={"augmentation": "none worth telling"}
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=accumulate,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        logging_steps=1000,
        disable_tqdm=True,
        seed=3,
    )
    optimizers = (torch.optim.SGD(model.parameters(), lr=RATE), None)
    Sequential(model=model, args=arguments, train_dataset=Images(), callbacks=[recorder], optimizers=optimizers).train()
    recorded = read_trace(tmp_path / "hf")
    # where gradients are accumulated the loss is the one that the trainer logs, which it may round
    assert_same(recorded, plain(tmp_path / "plain", accumulate=accumulate), rounded=1e-5 if accumulate == 1 else 1e-3)
    assert recorded.header.recorder == "transformers"
    assert recorded.header.seed == 3
    assert any("none worth telling" in note for note in recorded.header.recipe.as_recipe()[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_lightning_run_is_recorded_like_a_plain_loop(tmp_path, accumulate):
    pl = pytest.importorskip("lightning.pytorch", reason="the extra 'lightning' is not installed")
    from estimators.recording_lightning import LightningRecorder

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Network()

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            return self.network(**batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    recorder = LightningRecorder(tmp_path / "pl", task="birds", prefix="network.backbone.")
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), DataLoader(Images(), batch_size=BATCH))
    recorded = read_trace(tmp_path / "pl")
    assert_same(recorded, plain(tmp_path / "plain", accumulate=accumulate))
    assert recorded.header.recorder == "lightning"


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_with_a_scheduler_must_name_its_schedule(tmp_path):
    pl = pytest.importorskip("lightning.pytorch", reason="the extra 'lightning' is not installed")
    from estimators.recording_lightning import LightningRecorder

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Network()

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            return self.network(**batch)["loss"]

        def configure_optimizers(self) -> object:
            optimizer = torch.optim.SGD(self.parameters(), lr=RATE)
            return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer)]

    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        callbacks=[LightningRecorder(tmp_path / "pl", task="birds")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(ValueError, match="the module configures a scheduler; pass schedule="):
        trainer.fit(Module(), DataLoader(Images(), batch_size=BATCH))
