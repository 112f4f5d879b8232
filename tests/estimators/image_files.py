"""Folders of small images for tests: every class has its own colour, so that features can tell them apart."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"rose": (220, 40, 60), "tulip": (230, 200, 40), "violet": (90, 40, 200), "daisy": (240, 240, 240)}


def write_images(folder: Path, count: int, *, colour: tuple[int, int, int], size: int = 24, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    for i in range(count):
        pixels = np.clip(np.array(colour) + noise.normal(0, 40, (size, size + 4, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def write_classes(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        write_images(folder / name, count, colour=COLOURS[name], seed=seed + number)
    return folder
