"""An image file -> uint8 [C, S, S], the same bytes every time.

Orientation tags are applied, the centre square is cut out and resized to S x S (Pillow, bilinear, antialiased),
colours become RGB (C = 3) or luma (C = 1).  The size in the header is checked before a pixel is decoded, so a
decompression bomb costs nothing.  Whatever a damaged file makes Pillow raise comes out as ``UnreadableImage`` with the
reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

MAX_PIXELS = 89_478_485  # Pillow's own alarm: a quarter of a GiB as 24-bit RGB
MAX_IMAGE_SIZE = 2048  # no timm model takes more; guards against a typing error that fills the memory


class UnreadableImage(ValueError):
    """An image that cannot be decoded, or whose size is absurd; the text says why."""


def open_image(path: Path) -> Image.Image:
    """Open an image file and check the size in its header; pixels stay undecoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise UnreadableImage(_reason(error)) from None
    try:
        check_size(image)
    except UnreadableImage:
        image.close()
        raise
    return image


def check_size(image: Image.Image) -> None:
    """Refuse an image without pixels or with more than ``MAX_PIXELS``."""
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width} x {height} pixels; between 1 and {MAX_PIXELS:,} pixels are accepted")


def decode(image: Image.Image, *, size: int, channels: int) -> NDArray[np.uint8]:
    """Pixels of an opened image, uint8 [channels, size, size].

    >>> decode(Image.new("L", (4, 2), 255), size=2, channels=3).shape
    (3, 2, 2)
    """
    if channels not in (1, 3):
        raise ValueError(f"channels={channels} must be 1 or 3; images are decoded as luma or as RGB")
    if not 1 <= size <= MAX_IMAGE_SIZE:
        raise ValueError(f"size={size} must lie in 1..{MAX_IMAGE_SIZE} pixels; set backbone.image_size")
    check_size(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            upright = _to_eight_bits(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # truncated and damaged files raise nearly anything
        raise UnreadableImage(_reason(error)) from None
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    square = upright.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(square, dtype=np.uint8)
    return pixels[None].copy() if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_many(
    openers: Sequence[tuple[str, Callable[[], Image.Image]]], *, size: int, channels: int
) -> tuple[NDArray[np.uint8], list[int], dict[str, str]]:
    """Decode named images.

    Returns:
        Pixels uint8 [m, C, S, S] of the m readable images, their positions, and name -> reason of the others.
    """
    pixels = np.empty((len(openers), channels, size, size), dtype=np.uint8)
    readable: list[int] = []
    unreadable: dict[str, str] = {}
    for position, (name, opener) in enumerate(openers):
        try:
            with opener() as image:
                pixels[len(readable)] = decode(image, size=size, channels=channels)
        except UnreadableImage as error:
            unreadable[name] = str(error)
        else:
            readable.append(position)
    return pixels[: len(readable)], readable, unreadable


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen-bit greyscale scaled to eight (Pillow would clip it); palettes unfolded with their transparency."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImage("32-bit greyscale beyond 0..65535; save it with 8 or 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    return image.convert("RGBA") if image.mode in ("P", "PA") else image


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImage):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
