"""Photos in, the same photos as if taken once more out: cropped, turned, relit and mirrored.

They stand in for other photos of the same thing where there are none. What becomes of a photo is
drawn from its content and a seed alone: every model, whatever its input size, sees the same change,
wherever the file lies.

Shape suffixes: V views, N images, C channels, H x W pixels.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VIEWS: Final = 2  # of each photo: one as it lay, one mirrored
MOST_TURNED: Final = 12.0  # degrees, either way
LEAST_SIDE: Final = 0.7  # of the photo's: half of the area
BRIGHTNESS: Final = 0.3  # at most so much darker or brighter, as a share
CONTRAST: Final = 0.2  # likewise flatter or harder
COLOUR: Final = 0.08  # and so much more or less of each colour
MOST_VALUE: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a photo is changed. Lengths are shares of its sides; no view looks beyond its edges."""

    turn: float  # degrees, anticlockwise
    side: float  # of the square that is cut out
    left: float  # of the square's middle, from the left edge
    top: float
    brightness: float  # factor
    contrast: float  # factor, about the mean
    gains: tuple[float, float, float]  # factors of red, green and blue
    mirrored: bool

    def of(self, image_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the changed pixels, as many as there were."""
        channels, height, width = image_CHW.shape
        cut_CHW = np.stack([self._cut(channel_HW) for channel_HW in image_CHW])
        values_CHW = cut_CHW.reshape(channels, height, width).astype(np.float32)
        mean = float(values_CHW.mean())
        values_CHW = (values_CHW - mean) * self.contrast + mean
        gains_C = np.array(self.gains if channels == len(self.gains) else (1.0,), np.float32)
        values_CHW *= self.brightness * gains_C[:, None, None]
        return np.rint(values_CHW).clip(0, MOST_VALUE).astype(np.uint8)

    def _cut(self, channel_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the turned square, scaled to the size of the whole (bicubic)."""
        height, width = channel_HW.shape
        sine, cosine = math.sin(math.radians(self.turn)), math.cos(math.radians(self.turn))
        across = -self.side if self.mirrored else self.side
        # Of a place in the result to one in the photo: x' = a x + b y + c, y' = d x + e y + f.
        a, b = across * cosine, self.side * sine * width / height
        d, e = -across * sine * height / width, self.side * cosine
        c = self.left * width - a * width / 2 - b * height / 2
        f = self.top * height - d * width / 2 - e * height / 2
        turned = Image.fromarray(channel_HW).transform(
            (width, height),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            resample=Image.Resampling.BICUBIC,
        )
        return np.asarray(turned)


def draw_views(content: int, *, seed: int = 0) -> tuple[View, ...]:
    """Return the views of the photo whose file has the 64-bit number ``content``."""
    generator = np.random.default_rng([seed, content])
    return tuple(_draw(generator, mirrored=bool(number % 2)) for number in range(VIEWS))


def make_views(
    images_NCHW: NDArray[np.uint8],
    contents_N: NDArray[np.uint64],
    *,
    seed: int = 0,
    views: int = VIEWS,
) -> NDArray[np.uint8]:
    """Return the first views (V, N, C, H, W) of square images, whose files have these numbers."""
    views_VNCHW = np.empty((views, *images_NCHW.shape), np.uint8)

    def make(position: int) -> None:
        for place, view in enumerate(draw_views(int(contents_N[position]), seed=seed)[:views]):
            views_VNCHW[place, position] = view.of(images_NCHW[position])

    with ThreadPoolExecutor() as pool:  # Pillow and numpy work without the interpreter's lock
        list(pool.map(make, range(len(images_NCHW))))
    return views_VNCHW


def in_words() -> str:
    """Return how views are made, for reports."""
    return (
        f"cropping to {LEAST_SIDE:.0%} of each side or more, turning by up to {MOST_TURNED:.0f} "
        f"degrees, up to {BRIGHTNESS:.0%} less or more light, other contrast and colours, and "
        "mirroring half of them"
    )


def _draw(generator: np.random.Generator, *, mirrored: bool) -> View:
    turn = generator.uniform(-MOST_TURNED, MOST_TURNED)
    radians = math.radians(abs(turn))
    reach = math.cos(radians) + math.sin(radians)  # of a turned square of side 1, across
    side = generator.uniform(LEAST_SIDE, 1 / reach)
    room = (1 - side * reach) / 2
    left, top = 0.5 + generator.uniform(-room, room, 2)
    red, green, blue = 1 + generator.uniform(-COLOUR, COLOUR, 3)
    return View(
        turn=float(turn),
        side=float(side),
        left=float(left),
        top=float(top),
        brightness=float(1 + generator.uniform(-BRIGHTNESS, BRIGHTNESS)),
        contrast=float(1 + generator.uniform(-CONTRAST, CONTRAST)),
        gains=(float(red), float(green), float(blue)),
        mirrored=mirrored,
    )
