r"""Token rows -> what a transformers encoder takes, and its hidden states -> features.

    ids_t  = row_t where row_t >= 0, else the padding token         [B, L]
    mask   = 0 where the key is real, the lowest float elsewhere    [B, 1, L, L], added to the attention scores
    phi    = sum_t real_t h_t / sum_t real_t                        [B, F], mean over the real tokens

The mask is handed over in its final form: an encoder that makes it itself looks at its values to choose a kernel, which
neither ``vmap`` nor a second derivative can follow.  A sentence encoder that would scale phi to length one is used
without: heads are fitted on standardised features, and fine-tuning needs the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from estimators.tokenising import PADDING


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReading:
    """The reading of an encoder that gives ``last_hidden_state`` [B, L, F].

    Attributes:
        padding_token: the id that stands where a row has no token.
    """

    padding_token: int = 0

    def arguments(self, inputs: Tensor) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` of a batch of rows."""
        real = inputs != PADDING
        ids = torch.where(real, inputs, self.padding_token).long()
        closed = torch.where(real, 0.0, torch.finfo(torch.float32).min)
        mask = closed[:, None, None, :].expand(-1, 1, inputs.shape[1], -1)
        return {"input_ids": ids, "attention_mask": mask}

    def features(self, output: Any, inputs: Tensor) -> Tensor:
        """Mean of the real tokens' last hidden states."""
        states: Tensor = output.last_hidden_state
        real = (inputs != PADDING).unsqueeze(-1).to(states.dtype)
        return (states * real).sum(dim=1) / real.sum(dim=1)
