import pytest
import timm
import torch
from torch import nn

from advisor.merging import merge_state_dicts
from advisor.merging.fisher_estimation import estimate_fisher


def brute_force(model: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """The definition in plain loops over samples and classes."""
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for sample in inputs:
        for label in range(model(inputs[:1]).shape[1]):
            model.zero_grad()
            log_p = model(sample.unsqueeze(0)).log_softmax(dim=-1)[0, label]
            log_p.backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                total[name] += log_p.exp().detach() * parameter.grad**2 / len(inputs)
    return total


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 4)).eval()


def test_the_estimate_equals_the_definition() -> None:
    model = make_model()
    inputs = torch.randn(6, 1, 5, 5)
    found = estimate_fisher(model, [inputs[:4], inputs[4:]])
    for name, expected in brute_force(model, inputs).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-7)


def test_one_parameter_logistic_regression_has_its_textbook_information() -> None:
    model = nn.Linear(1, 2, bias=False)
    inputs = torch.tensor([[1.0], [2.0]])
    p = model(inputs).softmax(dim=-1)[:, 0].detach()
    expected = (p * (1 - p) * inputs.squeeze() ** 2).mean()
    found = estimate_fisher(model, [inputs])["weight"]
    torch.testing.assert_close(found, expected.detach().expand(2, 1))


def test_sampled_classes_are_unbiased() -> None:
    model = make_model()
    inputs = torch.randn(8, 1, 5, 5)
    exact = estimate_fisher(model, [inputs])["4.weight"].sum()
    draws = torch.stack(
        [estimate_fisher(model, [inputs], classes="sampled", seed=seed)["4.weight"].sum() for seed in range(30)]
    )
    assert abs(draws.mean() - exact) < 4 * draws.std() / 30**0.5


def test_the_model_is_left_as_it_was() -> None:
    model = make_model().train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    estimate_fisher(model, [torch.randn(2, 1, 5, 5)])
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_timms_vision_transformer_can_be_fisher_merged() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    fisher = estimate_fisher(model, [torch.randn(2, 3, 32, 32)], classes="sampled")
    base = {n: t.clone() for n, t in model.state_dict().items()}
    experts = [{n: t + 0.01 * torch.randn_like(t) for n, t in base.items()} for _ in range(2)]
    merged = merge_state_dicts(base, experts, method="fisher", fisher=[fisher, fisher])
    average = merge_state_dicts(base, experts, method="average")
    for name in base:
        torch.testing.assert_close(merged[name], average[name], rtol=1e-4, atol=1e-6)


def test_no_samples_and_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs at least one sample"):
        estimate_fisher(make_model(), [])
    with pytest.raises(ValueError, match="classes='top' must be"):
        estimate_fisher(make_model(), [], classes="top")  # type: ignore[arg-type]
