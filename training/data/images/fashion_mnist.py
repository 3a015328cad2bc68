"""Fashion-MNIST: four files in, 60,000 training and 10,000 test images with their labels out.

The data are Zalando Research's (Xiao, Rasul & Vollgraf, arXiv:1708.07747, MIT licence). They come
from Debian's package when it is installed, else they are downloaded once, with checksums.

Shape suffixes: N images, H x W pixels.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Final, TypeAlias
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

LABELS: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE: Final = 28  # pixels
PACKAGE: Final = "dataset-fashion-mnist"
PACKAGE_FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")

TRAIN_FILES: Final = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST_FILES: Final = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
TRAIN_IMAGES: Final = 60_000
TEST_IMAGES: Final = 10_000

UNSIGNED_BYTE: Final = 8  # the idx format's code for the type of every value in these files

Part: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W), labels (N,)


def read_fashion_mnist(folder: Path) -> tuple[Part, Part]:
    """Return the training and the test part from the four files in ``folder``.

    Raises:
        DataError: a file is missing, truncated, damaged or not what its name says.
    """
    return (
        _read_part(folder, TRAIN_FILES, TRAIN_IMAGES),
        _read_part(folder, TEST_FILES, TEST_IMAGES),
    )


def find_fashion_mnist(cache: Path | None = None, *, package_folder: Path = PACKAGE_FOLDER) -> Path:
    """Return the folder of the four files: Debian's, or ``cache`` with what it lacked downloaded.

    That is ``~/.cache/lookalike/fashion-mnist`` if not given.

    Raises:
        DataError: the package is not installed and the files cannot be downloaded.
    """
    if package_folder.is_dir():
        return package_folder
    cache = cache or Path.home() / ".cache" / "lookalike" / "fashion-mnist"
    _download_missing(cache)
    return cache


def _download_missing(cache: Path) -> None:
    from torchvision.datasets import (  # noqa: PLC0415 - slow, and rarely needed
        FashionMNIST,
    )
    from torchvision.datasets.utils import (  # noqa: PLC0415
        check_integrity,
        download_url,
    )

    for name, md5 in FashionMNIST.resources:
        reasons: list[str] = []
        for mirror in FashionMNIST.mirrors:
            if check_integrity(str(cache / name), md5):
                break
            try:
                cache.mkdir(parents=True, exist_ok=True)
                download_url(mirror + name, str(cache), filename=name, md5=md5)
            except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the checksum differs
                reasons.append(str(error))
        if not check_integrity(str(cache / name), md5):
            raise DataError(
                f"Fashion-MNIST is not here: install the Debian package {PACKAGE}, or connect to "
                f"the internet so that {name} can be downloaded to {cache} ({'; '.join(reasons)})"
            )


def _read_part(folder: Path, files: tuple[str, str], images: int) -> Part:
    images_NHW = _read_idx(folder / files[0], (images, SIDE, SIDE))
    labels_N = _read_idx(folder / files[1], (images,))
    if labels_N.max() >= len(LABELS):
        raise DataError(
            f"{folder / files[1]} is damaged: labels of 0 to {len(LABELS) - 1} were expected, "
            f"got {labels_N.max()}"
        )
    return images_NHW, labels_N.astype(np.int64)


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a gzipped idx file's values: two zero bytes, type, axes, sizes (big-endian), data."""
    header = bytes((0, 0, UNSIGNED_BYTE, len(shape)))
    header += b"".join(size.to_bytes(4, "big") for size in shape)
    length = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            data = file.read(length + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: not a whole gzip file; get it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if data[: len(header)] != header:
        raise DataError(
            f"{path} is damaged: an idx file of {' x '.join(map(str, shape))} bytes was expected"
        )
    if len(data) != length:
        raise DataError(
            f"{path} is damaged: {length} bytes were expected after decompression, got "
            f"{len(data) if len(data) < length else 'more'}"
        )
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy()  # writable
