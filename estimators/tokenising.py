"""A text -> int32 [L] token ids, the same every time.

The tokenizer is a ``tokenizer.json`` of the tokenizers library: plain data, no code.  It adds its own special tokens;
a text of more than L tokens is cut (its closing special tokens stay), a shorter one is filled up with ``PADDING`` = -1,
which is no token of any vocabulary, so a row says by itself which of its entries are real.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from estimators.sample_forms import EncodedSamples, Openers

PADDING = -1  # entries of a row after its text
UNKNOWN_SHARE = 0.2  # beyond it most of the meaning of a text is lost; a note says so


class UnreadableText(ValueError):
    """A text without a single token; the error says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenForm:
    """Texts as rows of token ids.

    Attributes:
        tokenizer: content of a ``tokenizer.json``.
        max_length: tokens a row L, special ones included.
    """

    tokenizer: str = field(repr=False)
    max_length: int

    def __post_init__(self) -> None:
        """Check the length."""
        if not self.max_length >= 2:
            raise ValueError(f"max_length={self.max_length} must be at least 2 tokens; raise backbone.max_length")

    @property
    def about(self) -> dict[str, Any]:
        """Length, and the SHA-256 of the tokenizer."""
        return {
            "max_length": self.max_length,
            "tokenizer": hashlib.sha256(self.tokenizer.encode()).hexdigest(),
        }

    @property
    def row_bytes(self) -> int:
        """Four bytes a token."""
        return 4 * self.max_length

    def encode(self, openers: Openers) -> EncodedSamples:
        """Token rows of texts; ``facts``: ``cut`` texts, ``tokens`` kept and ``unknown`` ones among them."""
        library = load_tokenizer(self.tokenizer)
        unknown = unknown_token(library, self.tokenizer)
        library.no_padding()
        library.no_truncation()
        rows = np.full((len(openers), self.max_length), PADDING, dtype=np.int32)
        readable: list[int] = []
        unreadable: dict[str, str] = {}
        facts = {"cut": 0, "tokens": 0, "unknown": 0}
        for position, (name, opener) in enumerate(openers):
            try:
                ids, is_cut = self._ids(library, str(opener()))
            except UnreadableText as error:
                unreadable[name] = str(error)
                continue
            rows[len(readable), : len(ids)] = ids
            facts["cut"] += is_cut
            facts["tokens"] += len(ids)
            facts["unknown"] += sum(token == unknown for token in ids)
            readable.append(position)
        return EncodedSamples(rows=rows[: len(readable)], readable=readable, unreadable=unreadable, facts=facts)

    def notes(self, task: str, facts: Mapping[str, int]) -> list[str]:
        """How many texts were cut, and whether the tokenizer knows the language."""
        notes = []
        if facts.get("cut"):
            notes.append(
                f"task {task!r}: {facts['cut']} of {facts['samples']} texts have more than {self.max_length} tokens "
                "and were cut (backbone.max_length)"
            )
        tokens = facts.get("tokens", 0)
        if tokens and facts["unknown"] > UNKNOWN_SHARE * tokens:
            notes.append(
                f"task {task!r}: {facts['unknown'] / tokens:.0%} of the tokens are unknown to the tokenizer; its "
                "language is not the texts'"
            )
        return notes

    def _ids(self, library: Any, text: str) -> tuple[list[int], bool]:
        plain = library.encode(text, add_special_tokens=False)
        if not plain.ids:
            raise UnreadableText("no token in it (an empty text?)")
        whole = library.post_process(plain, None, True)
        if len(whole.ids) <= self.max_length:
            return list(whole.ids), False
        room = self.max_length - (len(whole.ids) - len(plain.ids))
        if room < 1:
            raise ValueError(
                f"max_length={self.max_length} leaves no room beside {len(whole.ids) - len(plain.ids)} special tokens; "
                "raise backbone.max_length"
            )
        plain.truncate(room)
        return list(library.post_process(plain, None, True).ids), True


def load_tokenizer(content: str) -> Any:
    """The tokenizer that a ``tokenizer.json`` describes.

    Raises:
        ValueError: if the tokenizers library is absent or cannot read it.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(
            "backbone.kind='transformers' needs the packages transformers and tokenizers; install merge-advisor[text]"
        ) from error
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        text = " ".join(str(error).split())[:160]
        raise ValueError(f"tokenizer.json cannot be read ({text}); save the model with its fast tokenizer") from None


def unknown_token(library: Any, content: str) -> int | None:
    """Id of the token that stands for what the vocabulary lacks, where there is one."""
    model = json.loads(content).get("model") or {}
    name = model.get("unk_token")
    found = model.get("unk_id") if name is None else library.token_to_id(name)
    return None if found is None else int(found)
