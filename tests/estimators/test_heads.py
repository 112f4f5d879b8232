import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from estimators import heads
from estimators.cost import CostMeter
from estimators.head_files import load_head, store_head
from estimators.heads import ConstantFeatures, fit_head, fit_heads, initial_features
from estimators.tasks import Split, Task


class Identity:
    """A backbone whose features are its inputs, scaled."""

    def __init__(self, width: int, scale: float = 1.0) -> None:
        self.width, self.scale = width, scale
        self.batches: list[int] = []

    @property
    def initial(self) -> Tensor:
        return torch.zeros(1)

    @property
    def feature_dim(self) -> int:
        return self.width

    def features(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        return self.scale * inputs.float()


def task(
    counts: list[int], *, width: int = 5, spread: float = 1.0, seed: int = 0, offset: float = 0.0, name: str = "a"
) -> Task:
    noise = np.random.default_rng(seed)
    labels = noise.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = noise.normal(size=(len(counts), width))
    inputs = centres[labels] + spread * noise.normal(size=(len(labels), width)) + offset
    split = Split(inputs=torch.tensor(inputs, dtype=torch.float32), labels=torch.tensor(labels))
    return Task(name=name, train=split, validation=split, class_names=tuple(str(i) for i in range(len(counts))))


def probabilities(inputs: Tensor, weight: Tensor, bias: Tensor) -> np.ndarray:  # type: ignore[type-arg]
    return torch.softmax(functional.linear(inputs.double(), weight.double(), bias.double()), 1).numpy()


@pytest.mark.parametrize("counts", [[40, 40, 40], [60, 30], [20, 50]])
def test_the_head_is_scikit_learns_on_standardised_features(counts: list[int]) -> None:
    given = task(counts, offset=3.0)
    fit = fit_head(Identity(5), given, seed=0, meter=CostMeter())
    x, y = given.train.inputs.double().numpy(), given.train.labels.numpy()
    twin = make_pipeline(StandardScaler(), LogisticRegression(C=fit.strength, max_iter=1000, tol=1e-8)).fit(x, y)
    ours = probabilities(given.train.inputs, fit.head.weight, fit.head.bias)
    np.testing.assert_allclose(ours, twin.predict_proba(x), atol=2e-3)
    assert fit.head.num_classes == len(counts)


def test_the_head_is_stationary_for_the_stated_objective() -> None:
    given = task([50, 40, 30])
    fit = fit_head(Identity(5), given, seed=0, meter=CostMeter())
    x = given.train.inputs.double()
    mean, std = x.mean(0), x.std(0, unbiased=False)
    weight = (fit.head.weight.double() * std).requires_grad_(True)
    bias = (fit.head.bias.double() + fit.head.weight.double() @ mean).requires_grad_(True)
    logits = functional.linear((x - mean) / std, weight, bias)
    risk = functional.cross_entropy(logits, given.train.labels, reduction="sum")
    (risk + weight.square().sum() / (2 * fit.strength)).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 0.02 * len(x)
    assert float(bias.grad.abs().max()) < 0.02 * len(x)


def test_rescaled_features_give_the_same_predictions() -> None:
    given = task([40, 40])
    small, large = (fit_head(Identity(5, scale), given, seed=0, meter=CostMeter()) for scale in (1e-3, 1e3))
    assert small.strength == large.strength
    np.testing.assert_allclose(
        probabilities(1e-3 * given.train.inputs, small.head.weight, small.head.bias),
        probabilities(1e3 * given.train.inputs, large.head.weight, large.head.bias),
        atol=1e-4,
    )


def test_regularisation_is_stronger_where_features_are_mostly_noise() -> None:
    clear = [
        fit_head(Identity(30), task([40, 40], width=30, spread=0.8, seed=s), seed=0, meter=CostMeter())
        for s in range(5)
    ]
    noisy = [
        fit_head(Identity(30), task([40, 40], width=30, spread=30.0, seed=s), seed=0, meter=CostMeter())
        for s in range(5)
    ]
    assert np.median([fit.strength for fit in clear]) > np.median([fit.strength for fit in noisy])
    # with features of pure noise no strength beats the prior's ln 2 by much
    assert all(fit.cross_validated_risk < 0.8 for fit in noisy)


def test_the_cost_is_one_forward_pass_a_training_sample_and_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK", 32)
    meter, backbone = CostMeter(), Identity(5)
    fit = fit_head(backbone, task([50, 40]), seed=0, meter=meter)
    assert meter.by_purpose() == {"heads": pytest.approx(30.0)}
    assert fit.units == pytest.approx(30.0)
    assert backbone.batches == [32, 32, 26]


def test_features_are_computed_without_gradient() -> None:
    assert not initial_features(Identity(3), torch.ones(4, 3, requires_grad=True)).requires_grad


def test_all_tasks_get_their_heads_and_keep_their_order() -> None:
    fitted = fit_heads(Identity(5), [task([20, 20], name="b"), task([20, 20, 20], name="a")], seed=0, meter=CostMeter())
    assert [t.name for t in fitted] == ["b", "a"]
    assert [t.fitted_head().num_classes for t in fitted] == [2, 3]


def test_a_perfect_fit_is_named() -> None:
    fit = fit_head(Identity(5), task([20, 20], spread=0.01), seed=0, meter=CostMeter())
    assert fit.train_accuracy == 1.0
    assert any("classifies all 40 training samples correctly" in caveat for caveat in fit.caveats)
    assert torch.isfinite(fit.head.flat()).all()


def test_constant_features_are_refused_and_single_constant_ones_get_no_weight() -> None:
    given = task([20, 20])
    with pytest.raises(ConstantFeatures, match="features of task 'a' are the same for all 40 training samples"):
        fit_head(Identity(5, 0.0), given, seed=0, meter=CostMeter())
    inputs = given.train.inputs.clone()
    inputs[:, 2] = 7.0
    part = Split(inputs=inputs, labels=given.train.labels)
    fit = fit_head(
        Identity(5), Task(name="a", train=part, validation=part, class_names=("0", "1")), seed=0, meter=CostMeter()
    )
    assert (fit.head.weight[:, 2] == 0).all()
    assert (fit.head.weight[:, 0] != 0).all()


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="features of task 'a' are not finite at x_0"):
        fit_head(Identity(5, float("inf")), task([20, 20]), seed=0, meter=CostMeter())


def test_a_class_with_one_sample_is_fitted_with_a_caveat() -> None:
    fit = fit_head(Identity(5), task([20, 1]), seed=0, meter=CostMeter())
    assert fit.strength == 1.0
    assert np.isnan(fit.cross_validated_risk)
    assert any("has 1 training sample" in caveat for caveat in fit.caveats)


def test_a_class_without_training_samples_is_refused() -> None:
    given = task([20, 20])
    three = Task(name="a", train=given.train, validation=given.train, class_names=("0", "1", "2"))
    with pytest.raises(ValueError, match="class '2' has no training sample"):
        fit_head(Identity(5), three, seed=0, meter=CostMeter())


def test_a_fitted_head_lies_in_memory_as_a_stored_one(tmp_path) -> None:
    # the last bits of a product depend on layout and address: a resumed run would differ from one that never stopped
    fit = fit_head(Identity(5), task([40, 40, 40]), seed=0, meter=CostMeter())
    store_head(tmp_path, "a", fit, basis="b")
    stored = load_head(tmp_path, "a", basis="b")
    assert fit.head.weight.stride() == stored.head.weight.stride()
    assert torch.equal(fit.head.weight, stored.head.weight)
    assert [part.data_ptr() % 64 for part in (stored.head.weight, stored.head.bias)] == [0, 0]


def test_held_out_losses_are_those_of_heads_fitted_without_the_sample() -> None:
    """Against scikit-learn's own cross-validated probabilities at the chosen strength."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    given = task([40, 60, 50], spread=2.5, seed=3)
    fit = fit_head(Identity(5), given, seed=4, meter=CostMeter())
    x, y = given.train.inputs.double().numpy(), given.train.labels.numpy()
    model = LogisticRegression(C=fit.strength, max_iter=2000)
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=4)
    chances = cross_val_predict(model, (x - x.mean(0)) / x.std(0), y, cv=folds, method="predict_proba")
    assert fit.held_out_losses is not None
    np.testing.assert_allclose(
        fit.held_out_losses.numpy(), -np.log(chances[np.arange(len(y)), y]), rtol=2e-2, atol=2e-3
    )
    assert fit.held_out_losses.double().mean().item() == pytest.approx(fit.cross_validated_risk, rel=1e-5)
    (headed,) = heads.fit_heads(Identity(5), [given], seed=4, meter=CostMeter())
    assert torch.equal(headed.held_out_losses, fit.held_out_losses)


def test_without_cross_validation_there_are_no_held_out_losses() -> None:
    assert fit_head(Identity(5), task([1, 30]), seed=0, meter=CostMeter()).held_out_losses is None
