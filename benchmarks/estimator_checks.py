"""Checks of the estimators on networks: outside truth, repeatability over seeds, peak memory."""

from __future__ import annotations

import importlib.util
import math
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from estimators.cost import CostMeter
from estimators.curvature import exact_attention, gauss_newton_product, hessian_product
from estimators.gradient_variance import GradientVariance
from estimators.heterogeneity import Heterogeneity
from estimators.measuring import measure_constants
from estimators.objectives import ClassificationObjective
from estimators.per_sample_gradients import measure_gradients
from estimators.smoothness import TopCurvature
from estimators.tasks import Split
from tests.small_networks import NETWORKS, small_objective, small_split

PROJECTS = Path(__file__).parent / "projects"
REPEATED = ("gradient_variance", "top_curvature", "heterogeneity", "initial_gradient_norm", "noise_curvature")


def networks() -> dict[str, Any]:
    """Relative differences from truth that shares no code with the estimators."""
    return {name: _against_outside_truth(small_objective(name)) for name in NETWORKS}


def _against_outside_truth(objective: ClassificationObjective) -> dict[str, Any]:
    samples, other = small_split(24, seed=1), small_split(24, seed=2)
    hessian = TopCurvature(max_products=40).fit(objective, samples)
    gauss_newton = TopCurvature(kind="gauss_newton", max_products=40).fit(objective, samples)
    twin = _arpack(objective, samples)
    figures: dict[str, Any] = {
        "parameters": objective.num_shared,
        "top_curvature": hessian.estimate_.value,
        "top_curvature_products": hessian.lanczos_.products,
        "top_curvature_against_arpack": hessian.estimate_.value / twin - 1,
        "gauss_newton_curvature": gauss_newton.estimate_.value,
    }
    if objective.num_shared <= 2000:
        dense = torch.func.hessian(lambda w: objective.losses(w, samples.inputs, samples.labels).mean())
        truth = float(torch.linalg.eigvalsh(dense(objective.initial).double())[-1])
        figures["top_curvature_against_dense"] = hessian.estimate_.value / truth - 1
    if importlib.util.find_spec("curvlinops"):
        try:
            figures["top_curvature_against_curvlinops"] = hessian.estimate_.value / _curvlinops(objective, samples) - 1
        except NotImplementedError as error:  # its operators differentiate forward over reverse
            figures["without_curvlinops"] = str(error).splitlines()[0]
    rows, means = {}, []
    for name, split in {"a": samples, "b": other}.items():
        loop = _loop(objective, split)
        measured = measure_gradients(objective, objective.initial, split, population=len(split))
        variance = float((loop - loop.mean(0)).square().sum() / (len(loop) - 1))
        found = GradientVariance().fit_gradients(measured).estimate_.value
        figures[f"gradient_variance_against_loop_{name}"] = found / variance - 1
        rows[name], means = measured.best, [*means, loop.mean(0)]
    gram = (torch.stack(means) @ torch.stack(means).T).numpy()
    difference = np.abs(Heterogeneity().fit(rows).unbiased_gram_ - gram).max() / np.abs(gram).max()
    figures["gram_against_loop"] = float(difference)
    return figures


def _arpack(objective: ClassificationObjective, samples: Split) -> float:
    """Implicitly restarted Lanczos of ARPACK on forward-over-reverse products."""

    def product(v: np.ndarray) -> np.ndarray:
        vector = torch.as_tensor(v.ravel(), dtype=torch.float32)
        with exact_attention():
            slope = torch.func.grad(lambda w: objective.losses(w, samples.inputs, samples.labels).mean())
            moved = torch.func.jvp(slope, (objective.initial,), (vector,))[1]
        return np.asarray(moved.detach().double().numpy())

    size = objective.num_shared
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", tol=1e-4, v0=np.ones(size))[0][0])


def _curvlinops(objective: ClassificationObjective, samples: Split) -> float:
    """ARPACK on curvlinops' own Hessian operator of the module with its head."""
    from curvlinops import HessianLinearOperator

    class WithHead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = objective.backbone.module  # type: ignore[attr-defined]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            head = objective.head
            return torch.nn.functional.linear(self.body(x), head.weight, head.bias)

    model = WithHead()
    parameters = {name: value.requires_grad_() for name, value in model.named_parameters()}
    with exact_attention():
        try:
            operator = HessianLinearOperator(
                model, torch.nn.CrossEntropyLoss(), parameters, [(samples.inputs, samples.labels)]
            )
        except (TypeError, AttributeError):
            operator = HessianLinearOperator(
                model, torch.nn.CrossEntropyLoss(), list(parameters.values()), [(samples.inputs, samples.labels)]
            )
        value = float(eigsh(operator.to_scipy(), k=1, which="LA", tol=1e-4)[0][0])
    for parameter in parameters.values():
        parameter.requires_grad_(requires_grad=False)
    return value


def _loop(objective: ClassificationObjective, samples: Split) -> torch.Tensor:
    rows = []
    for i in range(len(samples)):
        point = objective.initial.clone().requires_grad_()
        loss = objective.losses(point, samples.inputs[i : i + 1], samples.labels[i : i + 1])[0]
        rows.append(torch.autograd.grad(loss, point)[0].double())
    return torch.stack(rows)


def repeatability(projects: list[str], seeds: int, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Spread over seeds, share flagged, and truth on all training samples, at a tenth of a full fine-tune.

    The truth takes most of the time and does not change while x_0 and the splits stay: it is taken from the ``stored``
    figures where their fingerprint is the same.
    """
    from advisor.project import load_project
    from benchmarks.suite_inputs import prepare_inputs

    figures: dict[str, Any] = {}
    for name in projects:
        project = load_project(PROJECTS / f"{name}.yaml")
        with tempfile.TemporaryDirectory() as folder:
            inputs = prepare_inputs(project, Path(folder), seed=0, device="cpu")
        tasks = {task.name: task for task in inputs.tasks}
        budget = 0.1 * len(tasks) * project.search.steps[1] * 32
        runs, meter = [], CostMeter()
        for seed in range(seeds):
            meter = CostMeter()
            runs.append(measure_constants(inputs.objectives, tasks, seed=seed, meter=meter, max_units=budget))
        before = stored.get(name, {})
        same = before.get("fingerprint") == inputs.fingerprint
        print(name, "truth as stored" if same else "truth to be measured", flush=True)
        figures[name] = {
            "fingerprint": inputs.fingerprint,
            "budget_units": budget,
            "units": meter.units,
            "share_of_full_fine_tune": 0.1 * meter.units / budget,
            "split": meter.by_purpose(),
            "tasks": {task: _spread([run.tasks[task].measured() for run in runs]) for task in tasks},
            "truth_on_all_training_samples": before["truth_on_all_training_samples"]
            if same
            else {task: _truth(inputs.objectives[task], tasks[task].train) for task in tasks},
        }
    return figures


def _spread(runs: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {}
    for field in REPEATED:
        found = [run[field] for run in runs if field in run]
        if not found:
            continue
        values = np.array([estimate.value for estimate in found])
        mean = float(values.mean())
        figures[field] = {
            "mean": mean,
            "coefficient_of_variation": float(values.std(ddof=1) / abs(mean)) if mean else math.inf,
            "flagged": float(np.mean([not estimate.identifiable for estimate in found])),
            "intervals": [[estimate.low, estimate.high] for estimate in found],
        }
    return figures


def _truth(objective: ClassificationObjective, train: Split) -> dict[str, float]:
    top = TopCurvature(max_products=8, tolerance=5e-3).fit(objective, train)
    variance = GradientVariance(num_samples=len(train)).fit(objective, train)
    return {
        "top_curvature": top.estimate_.value,
        "top_curvature_residual": top.lanczos_.residual,
        "gradient_variance": variance.estimate_.value,
        "squared_gradient_norm": float(variance.gradients_.best.mean.double().square().sum()),
    }


ACTIONS = ("training step", "per-sample gradients", "per-sample gradients, 8 MiB budget", "curvature products")


def memory(names: list[str]) -> dict[str, Any]:
    """Peak bytes of live tensors of each action above those before it, MiB, beside a training step of 32 samples."""
    figures: dict[str, Any] = {}
    for name in names:
        figures[name] = {action: _peak_of(name, action) for action in ACTIONS}
        step = figures[name]["training step"]
        others = [value for key, value in figures[name].items() if key != "training step"]
        figures[name]["largest ratio"] = max(others) / step
    return figures


def _peak_of(name: str, action: str) -> float:
    size = 16 if name == "cnn" else 64
    objective = small_objective(name, image_size=size)
    samples = small_split(64, image_size=size)
    with LiveTensors() as live:
        if action == "training step":
            _step(objective, Split(inputs=samples.inputs[:32], labels=samples.labels[:32]))
        elif action.startswith("per-sample"):
            budget = 8 * 2.0**20 if "budget" in action else None
            measure_gradients(objective, objective.initial, samples, population=1000, memory_budget=budget)
        else:
            hessian_product(objective, objective.initial, samples, objective.initial)
            gauss_newton_product(objective, objective.initial, samples, objective.initial)
    return live.peak / 2**20


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of storages made inside the block that are alive, and their peak.

    What the allocator keeps for later does not count, and neither does scratch space inside an operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count the storages of its results."""
        out = function(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if _has_storage(t)}
        for tensor in tree_leaves(out):
            if _has_storage(tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if size and place not in self._seen:
            self._seen.add(place)
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.alive -= size


def _has_storage(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type != "meta" and not value._is_zerotensor()


def _step(objective: ClassificationObjective, batch: Split) -> None:
    weights = objective.initial.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective.losses(weights, batch.inputs, batch.labels).mean(), weights)
    with torch.no_grad():
        weights -= 0.01 * slope
