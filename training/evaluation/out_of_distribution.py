"""Pictures that are of nothing a model has learnt, made to find out what it says of them.

Noise, textures, drawings and scans: made, so that every model can be asked without a download. They
are easier to tell from photos than photos of other things are; the report says so.

Shape suffixes: N images, C channels, H x W pixels.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vision.image.preprocessing import Preprocessing

EACH: Final = 25  # pictures of each kind
SIDE: Final = 256  # pixels, before the model's own preprocessing

Colour = tuple[int, int, int]


def out_of_distribution_images(
    preprocessing: Preprocessing, *, each: int = EACH, seed: int = 0
) -> dict[str, NDArray[np.uint8]]:
    """Return ``each`` pictures (N, C, H, W) of every kind, as the model's input, by their kind."""
    generator = np.random.default_rng(seed)
    return {
        kind: np.stack([preprocessing.pixels(draw(generator)) for _ in range(each)])
        for kind, draw in KINDS.items()
    }


def _noise(generator: np.random.Generator) -> Image.Image:
    """Return grains of one to 32 pixels, in colour or grey."""
    side = int(2 ** generator.integers(3, 9))
    channels = int(generator.choice([1, 3]))
    pixels_HWC = generator.integers(0, 256, (side, side, channels), dtype=np.uint8)
    grains = Image.fromarray(np.broadcast_to(pixels_HWC, (side, side, 3)).copy())
    return grains.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _texture(generator: np.random.Generator) -> Image.Image:
    """Return waves in two directions, as of cloth, water or wood."""
    y_HW, x_HW = np.mgrid[:SIDE, :SIDE] / SIDE
    values_HW = np.zeros((SIDE, SIDE))
    for _ in range(int(generator.integers(1, 4))):
        across, down, phase = generator.uniform(-40, 40, 3)
        values_HW += np.sin(across * x_HW + down * y_HW + phase)
    share_HW1 = ((values_HW - values_HW.min()) / np.ptp(values_HW))[..., None]
    first, second = np.array(_colour(generator)), np.array(_colour(generator))
    return Image.fromarray((first + (second - first) * share_HW1).astype(np.uint8))


def _face(generator: np.random.Generator) -> Image.Image:
    """Return a drawn face: an oval, two eyes, a nose and a mouth."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(generator))
    draw = ImageDraw.Draw(picture)
    x, y = generator.integers(110, 146, 2).tolist()
    wide, high = generator.integers(50, 85), generator.integers(70, 105)
    ink = _colour(generator)
    draw.ellipse((x - wide, y - high, x + wide, y + high), fill=_colour(generator), outline=ink)
    for eye in (x - wide // 2, x + wide // 2):
        draw.ellipse((eye - 9, y - 30, eye + 9, y - 14), fill="white", outline=ink)
        draw.ellipse((eye - 4, y - 26, eye + 4, y - 18), fill=ink)
    draw.line((x, y - 10, x - 6, y + 14, x + 4, y + 14), fill=ink, width=3)
    draw.arc((x - 28, y + 18, x + 28, y + 52), 10, 170, fill=ink, width=4)
    return picture


def _landscape(generator: np.random.Generator) -> Image.Image:
    """Return a sky, a sun and hills behind one another."""
    share_H11 = np.linspace(0, 1, SIDE)[:, None, None]
    top, bottom = np.array([90, 140, 220]), np.array([230, 235, 245])
    sky_HWC = np.broadcast_to(top + (bottom - top) * share_H11, (SIDE, SIDE, 3))
    picture = Image.fromarray(sky_HWC.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    x, y = int(generator.integers(30, 226)), int(generator.integers(20, 90))
    draw.ellipse((x - 18, y - 18, x + 18, y + 18), fill=(250, 220, 120))
    places = np.arange(SIDE)
    for row, height in enumerate(np.sort(generator.integers(110, 220, 4)).tolist()):
        waves = np.zeros(SIDE)
        for _ in range(3):
            waves += 14 * np.sin(places / generator.uniform(12, 60) + generator.uniform(0, 6))
        edge = [(int(at), float(height + rise)) for at, rise in zip(places, waves, strict=True)]
        green = (30 + 22 * row, 130 - 20 * row, 50)
        draw.polygon([(0, SIDE), *edge, (SIDE, SIDE)], fill=green)
    return picture.filter(ImageFilter.GaussianBlur(1))


def _scan(generator: np.random.Generator) -> Image.Image:
    """Return a page with lines as if written."""
    picture = Image.new("RGB", (SIDE, SIDE), (248, 246, 240))
    draw = ImageDraw.Draw(picture)
    left, step = int(generator.integers(10, 40)), int(generator.integers(9, 20))
    for line in range(16, SIDE - 16, step):
        at = left
        while at < SIDE - left - int(generator.integers(0, 60)):
            word = int(generator.integers(6, 30))
            draw.line((at, line, min(at + word, SIDE - left), line), fill=(40, 40, 50), width=3)
            at += word + 6
    return picture.rotate(float(generator.uniform(-3, 3)), fillcolor=(248, 246, 240))


def _colour(generator: np.random.Generator) -> Colour:
    red, green, blue = generator.integers(0, 256, 3).tolist()
    return red, green, blue


KINDS: Final[dict[str, Callable[[np.random.Generator], Image.Image]]] = {
    "noise": _noise,
    "textures": _texture,
    "drawn faces": _face,
    "drawn landscapes": _landscape,
    "scans of text": _scan,
}
