import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from estimators.image_decoding import UnreadableImage, decode, decode_many, open_image


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def png_with_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its data do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


def test_the_centre_square_is_cut_out(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    out = decode(open_image(saved(Image.fromarray(pixels), tmp_path / "a.png")), size=10, channels=3)
    assert out.shape == (3, 10, 10)
    assert (out == 200).all()


def test_an_image_of_the_right_size_is_kept_bit_for_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    out = decode(open_image(saved(Image.fromarray(pixels), tmp_path / "a.png")), size=12, channels=3)
    assert (out == pixels.transpose(2, 0, 1)).all()


def test_grey_is_the_luma_of_the_standard() -> None:
    # ITU-R 601-2: L = 0.299 R + 0.587 G + 0.114 B
    out = decode(Image.new("RGB", (4, 4), (100, 200, 50)), size=4, channels=1)
    assert out.shape == (1, 4, 4)
    assert abs(int(out[0, 0, 0]) - (0.299 * 100 + 0.587 * 200 + 0.114 * 50)) <= 1


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 10], [257 * 100, 65535]], dtype=np.uint16)
    out = decode(open_image(saved(Image.fromarray(values), tmp_path / "a.png")), size=2, channels=1)
    assert out[0].tolist() == [[0, 10], [100, 255]]


def test_orientation_tags_are_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = saved(image, tmp_path / "a.png", exif=exif)
    out = decode(open_image(path), size=4, channels=1)
    assert (out[0] == np.arange(16).reshape(4, 4)[::-1, ::-1]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_common_mode_is_decoded(mode: str) -> None:
    assert decode(Image.new("RGB", (5, 5), (200, 200, 200)).convert(mode), size=3, channels=3).shape == (3, 3, 3)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="floating-point pixels have no fixed range"):
        decode(Image.new("F", (4, 4)), size=4, channels=1)


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    for width, height in ((60_000, 60_000), (12_000, 12_000), (10_000, 9_000)):
        (tmp_path / "bomb.png").write_bytes(png_with_header(width, height))
        with pytest.raises(UnreadableImage, match="pixels"):
            open_image(tmp_path / "bomb.png")


def test_an_absurd_aspect_ratio_needs_no_memory(tmp_path: Path) -> None:
    path = saved(Image.new("L", (60_000, 1)), tmp_path / "thin.png")
    assert decode(open_image(path), size=64, channels=3).shape == (3, 64, 64)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a\x01", png_with_header(20, 20)]
)
def test_a_damaged_file_is_unreadable_and_says_why(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"\w"), open_image(tmp_path / "a.png") as image:
        decode(image, size=8, channels=3)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]),
    cut=st.integers(0, 400),
    flip=st.integers(0, 400),
)
def test_any_damage_is_decoded_or_named(
    tmp_path_factory: pytest.TempPathFactory, kind: str, cut: int, flip: int
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    data[flip % len(data)] ^= 0xFF
    path = tmp_path_factory.mktemp("damage") / "a.img"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    try:
        with open_image(path) as image:
            assert decode(image, size=4, channels=3).shape == (3, 4, 4)
    except UnreadableImage as error:
        assert str(error)  # noqa: PT017


def test_many_images_are_decoded_and_the_unreadable_named(tmp_path: Path) -> None:
    good = saved(Image.new("RGB", (6, 6), (9, 9, 9)), tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    openers = [(p.name, (lambda p=p: open_image(p))) for p in (good, bad, good)]
    pixels, readable, unreadable = decode_many(openers, size=6, channels=3)
    assert pixels.shape == (2, 3, 6, 6)
    assert readable == [0, 2]
    assert list(unreadable) == ["bad.png"]


@pytest.mark.parametrize(
    ("size", "channels", "said"), [(8, 2, "channels=2 must be 1 or 3"), (0, 3, "size=0"), (9999, 3, "size=9999")]
)
def test_impossible_targets_are_refused(size: int, channels: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode(Image.new("L", (4, 4)), size=size, channels=channels)
