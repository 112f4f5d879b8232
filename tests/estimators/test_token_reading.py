import torch

from estimators.token_reading import TokenReading
from estimators.tokenising import PADDING


class Output:
    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states


ROWS = torch.tensor([[5, 6, 7], [8, PADDING, PADDING]], dtype=torch.int32)


def test_padding_becomes_the_models_own_token_and_is_closed_to_attention() -> None:
    given = TokenReading(padding_token=1).arguments(ROWS)
    assert given["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert given["attention_mask"].shape == (2, 1, 3, 3)
    weights = torch.softmax(torch.randn(2, 1, 3, 3) + given["attention_mask"], dim=-1)
    assert torch.equal(weights[1, 0, :, 0], torch.ones(3))
    assert (weights[0] > 0).all()


def test_features_are_the_mean_over_the_real_tokens() -> None:
    states = torch.arange(18.0).view(2, 3, 3)
    found = TokenReading().features(Output(states), ROWS)
    assert torch.equal(found[0], states[0].mean(dim=0))
    assert torch.equal(found[1], states[1, 0])
