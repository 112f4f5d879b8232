"""How a sample becomes a row of a task's inputs: the seam between a data source and a backbone.

    images   uint8 [n, C, S, S]    pixels of the centre square            ``PixelForm``
    texts    int32 [n, L]          token ids, ``PADDING`` after the end   ``estimators.tokenising.TokenForm``

A sample is one row of one tensor in either form, so splits, batches, per-sample gradients, Hessian products and merging
need not know which it is.  What does know is the source (it opens samples), the form (it encodes them) and the
backbone's reading (``estimators.backbone.Reading``: it takes rows to the module's arguments).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from estimators.image_decoding import decode_many

Openers = Sequence[tuple[str, Callable[[], Any]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSamples:
    """Samples of one split as the backbone takes them.

    Attributes:
        rows: [m, ...], one row a readable sample.
        readable: positions of the m readable samples.
        unreadable: name -> reason of the others.
        facts: counts that the caller sums over the splits, e.g. texts that were cut.
    """

    rows: NDArray[Any]
    readable: list[int]
    unreadable: dict[str, str]
    facts: Mapping[str, int]


class SampleForm(Protocol):
    """Named, opened samples -> rows."""

    @property
    def about(self) -> dict[str, Any]:
        """What fixes the rows, as ``splits.json`` keeps it."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        ...

    def encode(self, openers: Openers) -> EncodedSamples:
        """Rows of the readable samples."""
        ...

    def notes(self, task: str, facts: Mapping[str, int]) -> list[str]:
        """What the summed facts of a task's splits mean for the reader."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelForm:
    """Images as bytes.

    Attributes:
        image_size: side of the square S, pixels.
        channels: C, 3 (colour) or 1 (luma).
    """

    image_size: int
    channels: int

    @property
    def about(self) -> dict[str, Any]:
        """Size and channels."""
        return {"image_size": self.image_size, "channels": self.channels}

    @property
    def row_bytes(self) -> int:
        """One byte a pixel and channel."""
        return self.channels * self.image_size**2

    def encode(self, openers: Openers) -> EncodedSamples:
        """Decode images (``estimators.image_decoding``)."""
        rows, readable, unreadable = decode_many(openers, size=self.image_size, channels=self.channels)
        return EncodedSamples(rows=rows, readable=readable, unreadable=unreadable, facts={})

    def notes(self, task: str, facts: Mapping[str, int]) -> list[str]:
        """Nothing: an image is never cut but to its centre square."""
        return []
