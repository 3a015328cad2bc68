"""A first look at a source: its listing and a sample of its files in, what a person would want to
know before hours of work out. Takes a second or two, whatever its size.
"""

import io
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from PIL import Image

from dataset.folders.file_content import read_image_file
from dataset.listing import ListedFile, Listing
from training.data.images.near_duplicates import group_near_duplicates
from training.data.images.photo_hashes import PhotoHashArrays, PhotoHashes, hash_photo
from training.formatting import megabytes, plural
from vision.errors import ImageError
from vision.formats.detect import HEIC, sniff_format
from vision.formats.heic import open_heic
from vision.image.decode import harden_pillow
from vision.image.decoding_steps import DECODER_ERRORS
from vision.image.limits import OWN_FILE_LIMITS
from vision.image.preprocessing import Preprocessing

SAMPLE: Final = 200  # files that are opened,
SAMPLE_S: Final = 2.0  # or as many as are decoded in this time,
FEWEST: Final = 8  # but so many at least
RUN: Final = 5  # neighbours that are looked at together: copies mostly lie side by side
RARE: Final = 0.02  # share of a format that is not worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in a source."""

    photos: int  # files that look like pictures
    classes: dict[str, int]  # photos by class
    unlabelled: int
    things: int  # that several photos show, as far as it was said
    bytes: int  # of all files
    sampled: int
    broken: int  # of the sample: could not be read
    copies: int  # of the sample: the same photo as another one of it, or nearly
    formats: Counter[str]  # of the sample
    size: tuple[int, int] | None  # median width and height of the sample, pixels
    decode_s: float  # a photo, on one core

    def in_words(self, name: str) -> list[str]:
        """Return two lines about the source called ``name``."""
        facts = [megabytes(self.bytes)]
        if self.formats:
            facts.append(self._formats())
        if self.size is not None:
            facts.append(f"about {self.size[0]:,} x {self.size[1]:,} pixels")
        return [
            f"{name}: {plural(self.photos, 'photo')} {self._classes()}{self._groups()}",
            f"{', '.join(facts)}; {self._oddities()}",
        ]

    def _classes(self) -> str:
        if not self.classes:
            return "without classes"
        counts = sorted(self.classes.values())
        span = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
        without = f", {self.unlabelled:,} without a class" if self.unlabelled else ""
        each = " each" if len(counts) > 1 else ""
        return f"in {plural(len(counts), 'class', 'classes')} of {span}{each}{without}"

    def _groups(self) -> str:
        return f"; {plural(self.things, 'thing')} shown by several" if self.things else ""

    def _formats(self) -> str:
        total = self.formats.total()
        often = [(name, n) for name, n in self.formats.most_common() if n / total >= RARE]
        if len(often) == 1:
            return often[0][0]
        return " ".join(f"{name} {n / total:.0%}" for name, n in often)

    def _oddities(self) -> str:
        if not (self.broken or self.copies):
            return (
                "none broken or twice"
                if self.sampled == self.photos
                else (f"of {self.sampled} looked at none is broken or twice")
            )
        odd = [f"{self.broken} broken"] * bool(self.broken)
        odd += [f"{self.copies} nearly the same as another"] * bool(self.copies)
        return f"of {self.sampled} looked at {', '.join(odd)}"


def survey(listing: Listing, preprocessing: Preprocessing) -> Survey:
    """Look at the files of ``listing``: sizes of all, contents of a sample, timed as they decode.

    Args:
        listing: of the source.
        preprocessing: what the network will be given.
    """
    harden_pillow()
    labels = Counter(file.label for file in listing.files if file.label is not None)
    groups = Counter(file.group for file in listing.files if file.group is not None)
    formats: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    hashes: list[PhotoHashes] = []
    broken = looked = 0
    spent_s = 0.0
    for file in sample_of(listing.files):
        if spent_s > SAMPLE_S and looked >= FEWEST:
            break
        looked += 1
        try:
            data = read_image_file(file.path, limits=OWN_FILE_LIMITS)
            started = time.perf_counter()
            image = preprocessing.decode(data, limits=OWN_FILE_LIMITS)
            preprocessing.pixels(image)
            spent_s += time.perf_counter() - started
        except (ImageError, OSError):
            broken += 1
            continue
        name, size = _header_of(data, image)
        formats[name] += 1
        sizes.append(size)
        hashes.append(hash_photo(data, image))
    return Survey(
        photos=len(listing.files),
        classes=dict(sorted(labels.items())),
        unlabelled=len(listing.files) - labels.total(),
        things=sum(count > 1 for count in groups.values()),
        bytes=sum(map(_bytes_of, listing.files)),
        sampled=looked,
        broken=broken,
        copies=_copies(hashes),
        formats=formats,
        size=_median(sizes),
        decode_s=spent_s / len(hashes) if hashes else 0.0,
    )


def _header_of(data: bytes, decoded: Image.Image) -> tuple[str, tuple[int, int]]:
    """Return a picture's format and its width and height in the file.

    The decoder shrinks what is large; of a file that it had to mend, the size is as decoded.
    """
    known = sniff_format(data)
    assert known is not None  # it was decoded
    try:
        with open_heic(data) if known is HEIC else Image.open(io.BytesIO(data)) as header:
            return known.name, header.size
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return known.name, decoded.size


def sample_of(files: Sequence[ListedFile]) -> list[ListedFile]:
    """Return runs of neighbours from all over the source, the first ones of every run apart."""
    if len(files) <= SAMPLE:
        return list(files)
    runs = SAMPLE // RUN
    starts = [number * (len(files) - RUN) // (runs - 1) for number in range(runs)]
    # Every other run, then the rest: whoever stops early has seen all parts of the source.
    ordered = starts[::2] + starts[1::2]
    return [files[start + step] for start in ordered for step in range(RUN)]


def _copies(hashes: list[PhotoHashes]) -> int:
    if not hashes:
        return 0
    return len(hashes) - len(set(group_near_duplicates(PhotoHashArrays.of(hashes)).tolist()))


def _median(sizes: list[tuple[int, int]]) -> tuple[int, int] | None:
    if not sizes:
        return None
    widths, heights = zip(*sizes, strict=True)
    return round(median(widths)), round(median(heights))


def _bytes_of(file: ListedFile) -> int:
    try:
        return os.stat(file.path).st_size
    except OSError:
        return 0


def fashion_mnist_survey() -> Survey:
    """Return what is known of Fashion-MNIST: published data, the same everywhere."""
    from training.data.images.fashion_mnist import LABELS  # noqa: PLC0415

    return Survey(
        photos=70_000,
        classes=dict.fromkeys(LABELS, 7000),
        unlabelled=0,
        things=0,
        bytes=30_878_645,
        sampled=70_000,
        broken=0,
        copies=0,
        formats=Counter({"gray": 70_000}),
        size=(28, 28),
        decode_s=0.0,
    )
