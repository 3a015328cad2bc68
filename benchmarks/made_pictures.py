"""Small labelled sets of pictures that are not photos: a name and a folder in, files out.

Each set is written as ``train/CLASS/N.png`` and ``test/CLASS/N.png``. Digits come with
scikit-learn, clothes are a part of Fashion-MNIST, the others are drawn here, by numbers alone.
"""

import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits

from training.data.images.fashion_mnist import LABELS, find_fashion_mnist, read_fashion_mnist

TRAIN: Final = 60  # pictures of a class that are drawn to learn from,
TEST: Final = 50  # and to measure with
TRAIN_DIGITS: Final = 1000  # of 1,797
TRAIN_CLOTHES, TEST_CLOTHES = 3000, 2000

HALF: Final = 0.5
JOINT, DOT = 0.14, 0.3  # of a cell of a surface: between bricks and tiles, and a dot's radius
LAST_LINE, BOXED = 0.15, 0.3  # shares of lines that end a paragraph, and of rows with a box

Random = np.random.Generator
Heights = Callable[[np.ndarray, np.ndarray, Random], np.ndarray]  # of places on a surface
Picture = tuple[str, str, Image.Image]  # part, class, pixels


def write_set(name: str, folder: Path, *, seed: int) -> Path:
    """Write the set called ``name``, one of ``SETS``, and return its folder."""
    for number, (part, label, picture) in enumerate(SETS[name](seed)):
        place = folder / name / part / label
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number}.png")
    return folder / name


def digits(seed: int) -> Iterator[Picture]:
    """Yield handwritten digits of 8 x 8 gray pixels."""
    read = load_digits()
    order = np.random.default_rng(seed).permutation(len(read.target))
    for place, row in enumerate(order):
        pixels = np.rint(read.images[row] * (255 / 16)).astype(np.uint8)
        yield (
            "train" if place < TRAIN_DIGITS else "test",
            str(read.target[row]),
            Image.fromarray(pixels),
        )


def clothes(seed: int) -> Iterator[Picture]:
    """Yield gray pictures of clothes, 28 x 28 pixels."""
    parts = read_fashion_mnist(find_fashion_mnist())
    rng = np.random.default_rng(seed)
    for (images, labels), part, count in zip(
        parts, ("train", "test"), (TRAIN_CLOTHES, TEST_CLOTHES), strict=True
    ):
        for row in rng.choice(len(labels), count, replace=False):
            label = LABELS[labels[row]].replace("/", " or ")
            yield part, label, Image.fromarray(images[row])


def textures(seed: int) -> Iterator[Picture]:
    """Yield surfaces in colour, 96 x 96 pixels: any turn, scale, light and pair of colours."""
    yield from _drawn(TEXTURES, seed)


def drawings(seed: int) -> Iterator[Picture]:
    """Yield shapes in colour, 96 x 96 pixels, of any place, size and turn, under much noise."""
    yield from _drawn({name: _shape(name) for name in SHAPES}, seed)


def pages(seed: int) -> Iterator[Picture]:
    """Yield scans of pages by their layout, 180 x 240 gray pixels: any font, skewed, stained."""
    yield from _drawn(LAYOUTS, seed)


def small_signs(seed: int) -> Iterator[Picture]:
    """Yield letters in any font that there is, on any ground, 32 x 32 gray pixels."""
    yield from _drawn({letter: _letter(letter) for letter in "ABEFHKMNRSXZ"}, seed)


def _drawn(classes: dict[str, Callable[[Random], Image.Image]], seed: int) -> Iterator[Picture]:
    for place, (label, draw) in enumerate(classes.items()):
        for number in range(TRAIN + TEST):
            part = "train" if number < TRAIN else "test"
            yield part, label, draw(np.random.default_rng([seed, place, number]))


def _field(rng: Random, side: int, coarse: int) -> np.ndarray:
    """Return smooth noise (H, W) in [0, 1], with ``coarse`` bumps a side."""
    bumps = Image.fromarray(rng.random((coarse, coarse)).astype(np.float32))
    return np.clip(np.asarray(bumps.resize((side, side), Image.Resampling.BICUBIC)), 0, 1)


def _surface(make: Heights) -> Callable[[Random], Image.Image]:
    """Return what draws a surface: ``make`` gives heights of places on it, in cells."""

    def draw(rng: Random) -> Image.Image:
        side = 96
        turn, scale = rng.uniform(0, 2 * np.pi), rng.uniform(5, 10)
        across, down = np.meshgrid(np.arange(side), np.arange(side))
        bent = 1.5 * (_field(rng, side, 6) - 0.5)
        x = (across * np.cos(turn) - down * np.sin(turn)) / side * scale + bent
        y = (across * np.sin(turn) + down * np.cos(turn)) / side * scale - bent
        heights = make(x + 40, y + 40, rng)
        heights = np.clip(heights + rng.normal(0, 0.25, heights.shape), 0, 1)[..., None]
        dark, light = rng.uniform(0, 140, 3), rng.uniform(110, 255, 3)
        pixels = dark + (light - dark) * heights
        pixels *= 0.6 + 0.6 * _field(rng, side, 3)[..., None]
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return draw


def _bricks(x: np.ndarray, y: np.ndarray, _: Random) -> np.ndarray:
    shifted = x / 2 + np.floor(y) % 2 / 2
    return ((y % 1 > JOINT) & (shifted % 1 > JOINT / 2)).astype(float)


def _cells(x: np.ndarray, y: np.ndarray, rng: Random) -> np.ndarray:
    """Return the difference between the two nearest of scattered points: 0 on the borders."""
    points = rng.uniform(28, 52, (24 * 24 // 2, 2))
    distances = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    nearest = np.partition(distances, 1, axis=-1)
    return np.clip((nearest[..., 1] - nearest[..., 0]) * 2, 0, 1)


def _pebbles(x: np.ndarray, y: np.ndarray, rng: Random) -> np.ndarray:
    points = rng.uniform(28, 52, (24 * 24 // 2, 2))
    distances = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    return np.clip(1.1 - distances.min(axis=-1), 0, 1)


TEXTURES: Final[dict[str, Callable[[Random], Image.Image]]] = {
    "bricks": _surface(_bricks),
    "tiles": _surface(lambda x, y, _: ((x % 1 > JOINT) & (y % 1 > JOINT)).astype(float)),
    "checks": _surface(lambda x, y, _: (np.floor(x) + np.floor(y)) % 2),
    "stripes": _surface(lambda x, _y, _: 0.5 + 0.5 * np.sin(x * 2 * np.pi)),
    "weave": _surface(lambda x, y, _: 0.5 + 0.25 * (np.sin(x * 2 * np.pi) + np.sin(y * 2 * np.pi))),
    "dots": _surface(lambda x, y, _: (np.hypot(x % 1 - 0.5, y % 1 - 0.5) < DOT).astype(float)),
    "cracks": _surface(_cells),
    "pebbles": _surface(_pebbles),
    "wood": _surface(lambda x, y, _: 0.5 + 0.5 * np.sin(6 * np.hypot((x - 38) / 3, y - 41))),
    "zigzag": _surface(lambda x, y, _: ((y + np.abs(x % 2 - 1)) % 1 > HALF).astype(float)),
}


def _star(points: int, inner: float) -> np.ndarray:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _arc(begin: float, end: float) -> np.ndarray:
    angles = np.linspace(begin, end, 30)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _polygon(corners: int) -> np.ndarray:
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


SHAPES: Final[dict[str, np.ndarray]] = {
    "triangle": _polygon(3),
    "square": _polygon(4),
    "pentagon": _polygon(5),
    "disc": _polygon(40),
    "star": _star(5, 0.45),
    "cross": np.array(
        [(1, 3), (3, 3), (3, 1), (1, 1), (1, -1), (3, -1), (3, -3), (1, -3), (1, -1), (-1, -1)]
    )
    / 3.2,
    "arrow": np.array(
        [(1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3), (-1, -0.3), (0.1, -0.3), (0.1, -0.8)]
    ),
    "moon": np.concatenate(
        [
            _arc(0.6, 5.7),
            0.75 * _arc(5.3, 1) + (0.35, 0),
        ]
    ),
}


def _shape(name: str) -> Callable[[Random], Image.Image]:
    def draw(rng: Random) -> Image.Image:
        side = 96
        ground = np.stack([_field(rng, side, int(rng.integers(2, 9))) for _ in range(3)], axis=2)
        canvas = Image.fromarray((255 * ground).astype(np.uint8))
        size = rng.uniform(12, 34)
        turn = rng.uniform(0, 2 * np.pi)
        turned = SHAPES[name] @ np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
        places = turned * size * rng.uniform(0.7, 1, 2) + rng.uniform(size, side - size, 2)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        pen = ImageDraw.Draw(canvas)
        corners = [(float(x), float(y)) for x, y in places]
        if rng.random() < HALF:
            pen.polygon(corners, fill=colour)
        else:
            pen.line([*corners, corners[0]], fill=colour, width=int(rng.integers(2, 5)))
        noise = rng.normal(0, rng.uniform(15, 50), (side, side, 3))
        pixels = np.asarray(canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))) + noise
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return draw


def _font(rng: Random, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    paths = sorted(FONTS.rglob("*.ttf"))
    if not paths:
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(paths[rng.integers(len(paths))]), max(5, round(size)))


def _words(rng: Random, letters: int) -> str:
    text = ""
    while len(text) < letters:
        text += "".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 9))) + " "
    return text[:letters]


FONTS: Final = Path("/usr/share/fonts/truetype")
WIDE, TALL = 180, 240


class _Page:
    """A page of paper that things are put on."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.picture = Image.new("L", (WIDE, TALL), int(rng.integers(225, 256)))
        self.pen = ImageDraw.Draw(self.picture)
        self.ink = int(rng.integers(0, 90))
        self.left, self.right = int(rng.integers(10, 24)), WIDE - int(rng.integers(10, 24))
        self.top, self.end = int(rng.integers(10, 28)), TALL - int(rng.integers(10, 40))
        self.size = rng.uniform(6, 9)
        self.font = _font(rng, self.size)

    def text(self, left: float, top: float, right: float, *, share: float = 1.0) -> None:
        """Write a line of words."""
        letters = max(1, int((right - left) * share / (0.58 * self.size)))
        self.pen.text((left, top), _words(self.rng, letters), fill=self.ink, font=self.font)

    def paragraph(self, left: float, top: float, right: float, bottom: float) -> None:
        """Write lines until the bottom."""
        while top + self.size < bottom:
            last = self.rng.random() < LAST_LINE
            self.text(left, top, right, share=self.rng.uniform(0.2, 0.8) if last else 0.95)
            top += self.size * (2.2 if last else 1.4)

    def scanned(self) -> Image.Image:
        """Return it as a scanner sees it."""
        rng = self.rng
        turned = self.picture.rotate(
            rng.uniform(-3, 3),
            resample=Image.Resampling.BICUBIC,
            fillcolor=int(rng.integers(180, 256)),
        ).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1)))
        shade = 0.75 + 0.3 * np.asarray(Image.fromarray(_field(rng, TALL, 3)).resize((WIDE, TALL)))
        pixels = np.asarray(turned) * shade + rng.normal(0, rng.uniform(3, 18), (TALL, WIDE))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _letter_page(page: _Page) -> None:
    page.text(page.right - 60, page.top, page.right)
    page.paragraph(page.left, page.top + 14, page.left + 60, page.top + 44)
    page.paragraph(page.left, page.top + 66, page.right, page.end - 40)
    page.text(page.left, page.end - 18, page.left + 50)


def _columns(page: _Page) -> None:
    middle = (page.left + page.right) / 2
    page.paragraph(page.left, page.top, middle - 5, page.end)
    page.paragraph(middle + 5, page.top, page.right, page.end)


def _book(page: _Page) -> None:
    page.paragraph(page.left, page.top, page.right, page.end)


def _table(page: _Page) -> None:
    rows, columns = page.rng.integers(6, 14), page.rng.integers(3, 6)
    top = page.top + page.rng.uniform(0, 50)
    downs = np.linspace(top, page.end, rows)
    acrosses = np.linspace(page.left, page.right, columns)
    for y in downs:
        page.pen.line([(page.left, y), (page.right, y)], fill=page.ink)
        for x in acrosses[:-1]:
            page.text(x + 2, y + 1, x + (page.right - page.left) / columns, share=0.6)
    if page.rng.random() < HALF:
        for x in acrosses:
            page.pen.line([(x, top), (x, page.end)], fill=page.ink)


def _form(page: _Page) -> None:
    y = page.top
    while y < page.end:
        page.text(page.left, y, page.left + 50, share=0.8)
        page.pen.line([(page.left + 58, y + 9), (page.right, y + 9)], fill=page.ink)
        if page.rng.random() < BOXED:
            page.pen.rectangle([page.right - 9, y - 3, page.right, y + 6], outline=page.ink)
        y += page.rng.uniform(16, 26)


def _list(page: _Page) -> None:
    y = page.top
    while y < page.end:
        page.pen.ellipse([page.left, y + 2, page.left + 4, y + 6], fill=page.ink)
        page.text(page.left + 10, y, page.right, share=page.rng.uniform(0.3, 0.9))
        y += page.size * page.rng.uniform(1.6, 2.2)


def _figure(page: _Page) -> None:
    split = page.top + page.rng.uniform(0.35, 0.6) * (page.end - page.top)
    page.pen.rectangle([page.left, page.top, page.right, split], outline=page.ink)
    xs = np.linspace(page.left + 4, page.right - 4, 14)
    ys = page.rng.uniform(page.top + 6, split - 6, 14)
    line = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    page.pen.line(line, fill=page.ink, width=2)
    page.paragraph(page.left, split + 8, page.right, page.end)


def _notice(page: _Page) -> None:
    big = _font(page.rng, page.rng.uniform(18, 30))
    for _ in range(page.rng.integers(1, 4)):
        page.pen.text((page.left, page.top), _words(page.rng, 9), fill=page.ink, font=big)
        page.top += 32
    page.paragraph(page.left + 20, page.top + 20, page.right - 20, page.top + 60)


def _page(layout: Callable[[_Page], None]) -> Callable[[Random], Image.Image]:
    def draw(rng: Random) -> Image.Image:
        page = _Page(rng)
        layout(page)
        return page.scanned()

    return draw


LAYOUTS: Final[dict[str, Callable[[Random], Image.Image]]] = {
    "letter": _page(_letter_page),
    "columns": _page(_columns),
    "book": _page(_book),
    "table": _page(_table),
    "form": _page(_form),
    "list": _page(_list),
    "figure": _page(_figure),
    "notice": _page(_notice),
}


def _letter(letter: str) -> Callable[[Random], Image.Image]:
    def draw(rng: Random) -> Image.Image:
        side = 32
        ground = Image.fromarray((rng.uniform(60, 255) * _field(rng, side, 4)).astype(np.uint8))
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).text(
            tuple(side / 2 + rng.uniform(-4, 4, 2)),
            letter,
            fill=255,
            font=_font(rng, rng.uniform(14, 26)),
            anchor="mm",
        )
        mask = mask.rotate(rng.uniform(-25, 25), resample=Image.Resampling.BICUBIC)
        ground.paste(int(rng.integers(0, 256)), mask=mask)
        pixels = np.asarray(ground) + rng.normal(0, rng.uniform(5, 30), (side, side))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return draw


SETS: Final[dict[str, Callable[[int], Iterator[Picture]]]] = {
    "digits": digits,
    "clothes": clothes,
    "small-signs": small_signs,
    "textures": textures,
    "drawings": drawings,
    "pages": pages,
}
