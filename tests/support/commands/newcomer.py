"""What a newcomer has after the first commands of the README: the demo, and photos with a model.

Both are really made, by the very commands, once for all processes of a test run; only the demo's
training is a short one.
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from cli.evaluate import REPORT_PAGE
from tests.support.commands.run_command import lookalike
from tests.support.images.pngs import picture
from training.data.dataset import load_dataset
from training.data.images.load import FASHION_MNIST
from training.recipes.from_scratch import cnn
from training.train import train

CLASSES = ("coat", "hat", "shoe")
PHOTOS = 20  # of each class
LEARNT = 5_000  # images that the demo's model has learnt from, in one epoch


def run_all(commands: Sequence[str], cwd: Path) -> None:
    """Run commands one after another; all of them must succeed."""
    for command in commands:
        done = lookalike(*command.split(), cwd=cwd)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that ``make`` filled, in this process of the test run or in another."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # which the processes of one run have in common
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / f"{name}.made"
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def make_demo(folder: Path) -> None:
    """Write ``demo/model`` and ``demo/gallery``: `lookalike demo` finds a model, and goes on.

    It finds a report, too: to measure 10,000 images takes twenty seconds, and is what `up` does.
    """
    recipe = replace(cnn(), epochs=1)
    whole = load_dataset(FASHION_MNIST, recipe.preprocessing)
    part = replace(whole, train=whole.train.take(np.arange(LEARNT)))
    train(recipe, part, out=folder / "demo" / "model", device="cpu")
    (folder / "demo" / "model" / REPORT_PAGE).write_text("measured")
    run_all(["demo --no-serve --out demo"], folder)


def make_photo_model(folder: Path) -> None:
    """Write ``photos``, ``models/photos`` with an export and ``galleries/photos``."""
    write_photos(folder / "photos")
    run_all(
        [
            "train --data photos --out models/photos --size 48 --budget 20m",
            "export models/photos --data photos --precision fp32 --max-accuracy-loss 100",
            "index build models/photos --data photos --out galleries/photos",
        ],
        folder,
    )


def write_photos(folder: Path) -> Path:
    """Write photos of three classes as cameras and shops do: sizes, formats and modes differ."""
    for kind, label in enumerate(CLASSES):
        (folder / label).mkdir(parents=True)
        for number in range(1, PHOTOS + 1):
            _write_photo(folder / label / f"{number:03d}.jpg", kind, number)
    _photo(0, 90).save(folder / "coat" / "grey.png")
    _photo(1, 91).convert("RGBA").save(folder / "hat" / "with transparency.png")
    _photo(2, 92).convert("L").save(folder / "shoe" / "grey.jpg")
    _photo(2, 93).save(folder / "shoe" / "größe 42.webp")
    return folder


def _write_photo(path: Path, kind: int, number: int) -> None:
    exif = Image.Exif()
    if number % 5 == 0:
        exif[0x0112] = 6  # taken upright
    _photo(kind, number).save(path, quality=70 + number, progressive=number % 3 == 0, exif=exif)


def _photo(kind: int, number: int) -> Image.Image:
    """Return a thing of one kind before some background, a little out of focus, with noise."""
    rng = np.random.default_rng([kind, number])
    size = ((320, 240), (240, 320), (300, 300))[number % 3]
    image = picture(1000 * kind + number, size)
    width, height = size
    left, top = (int(side * rng.uniform(0.1, 0.3)) for side in size)
    right, bottom = (int(side * rng.uniform(0.7, 0.9)) for side in size)
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    draw = ImageDraw.Draw(image)
    if kind == 0:
        draw.rectangle((left, top, right, bottom), colour)
    elif kind == 1:
        draw.ellipse((left, top, right, bottom), colour)
    else:
        draw.polygon(((left, bottom), (right, bottom), (width // 2, top)), colour)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)
    noisy = blurred + rng.normal(0, 5, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
