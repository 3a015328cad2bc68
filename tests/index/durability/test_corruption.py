"""Damaged galleries: refused, or repaired, and never a wrong answer."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from index.errors import GalleryFolderError
from index.gallery import Gallery
from tests.support.crashes.crash_harness import create, rebuild, wrong_answers
from tests.support.crashes.crash_worker_main import item_of

SHORT, LONG = 28, 240  # corruptions; the short form has two of each kind


@dataclass(frozen=True)
class Parts:
    """What corruptions are made of: folders that nobody changes."""

    good: Path  # two generations, and writes after them that are only in the write-ahead log
    older: Path  # the same gallery before its newest generation
    other: Path  # another gallery, of the same model


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    place = tmp_path_factory.mktemp("parts")
    create(place / "g")
    put(place / "g", 5_000)
    shutil.copytree(place / "g", place / "older")
    rebuild(place / "g")
    with Gallery.open(place / "g", fingerprint=None) as gallery:
        for version in range(6_000, 6_030):
            gallery.put([item_of(f"i{version % 40}", version)])
        gallery.delete([f"i{n}" for n in range(100, 120)])
        shutil.copytree(place / "g", place / "good")  # as a power cut would leave it
    create(place / "other")
    put(place / "other", 7_000)
    rebuild(place / "other")
    return Parts(place / "good", place / "older", place / "other")


def put(folder: Path, first_version: int) -> None:
    with Gallery.open(folder, fingerprint=None) as gallery:
        gallery.put([item_of(f"i{n}", first_version + n) for n in range(50, 90)])


Corruption = Callable[[Path, Parts, random.Random], None]


def generations(folder: Path) -> list[Path]:
    return sorted((folder / "snapshots").glob("gen-*"))


def a_file(folder: Path, rng: random.Random) -> Path:
    """Return a file of a generation, mostly of the newest."""
    generation = generations(folder)[-1 if rng.random() < 0.8 else 0]
    return rng.choice(sorted(generation.iterdir()))


def flip(path: Path, rng: random.Random, *, last: float = 1.0) -> None:
    """Flip one to eight bits, within the ``last`` part of the file."""
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(int(len(data) * (1 - last)), len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random, *, last: float = 1.0) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(rng.randrange(int(size * (1 - last)), size))


def flip_bits(folder: Path, parts: Parts, rng: random.Random) -> None:
    flip(a_file(folder, rng), rng)


def truncate(folder: Path, parts: Parts, rng: random.Random) -> None:
    cut(a_file(folder, rng), rng)


def overwrite_a_block(folder: Path, parts: Parts, rng: random.Random) -> None:
    path = a_file(folder, rng)
    data = bytearray(path.read_bytes())
    start = rng.randrange(0, len(data), 512)
    size = min(rng.choice([512, 4096]), len(data) - start)
    data[start : start + size] = rng.choice([bytes(size), rng.randbytes(size)])
    path.write_bytes(data)


def append(folder: Path, parts: Parts, rng: random.Random) -> None:
    with a_file(folder, rng).open("ab") as file:
        file.write(rng.randbytes(rng.choice([1, 8, 4096])))


def delete_a_file(folder: Path, parts: Parts, rng: random.Random) -> None:
    a_file(folder, rng).unlink()


def swap_a_file(folder: Path, parts: Parts, rng: random.Random) -> None:
    """Two generations exchange a file."""
    one, other = generations(folder)
    name = rng.choice(sorted(path.name for path in one.iterdir()))
    (one / name).rename(folder / "swap")
    (other / name).rename(one / name)
    (folder / "swap").rename(other / name)


def swap_generations(folder: Path, parts: Parts, rng: random.Random) -> None:
    """Two generations exchange their numbers."""
    one, other = generations(folder)
    one.rename(folder / "swap")
    other.rename(one)
    (folder / "swap").rename(other)


def edit_the_manifest(folder: Path, parts: Parts, rng: random.Random) -> None:
    path = generations(folder)[-1] / "manifest.json"
    text = path.read_text()
    old, new = rng.choice(
        [
            *[('"seq": ', '"seq": 1'), ('"count": 1', '"count": 2'), ('"width": 8', '"width": 4')],
            *[('"k_factor": ', '"k_factor": 1'), ('"format": 1', '"format": 2'), ("{", "[")],
            *[('"kind": "graph"', '"kind": "exact"'), (text, ""), (text, "{}"), (text, "null")],
        ]
    )
    assert old in text
    path.write_text(text.replace(old, new))


def bring_in_another_gallerys(folder: Path, parts: Parts, rng: random.Random) -> None:
    theirs = rng.choice(generations(parts.other))
    target = rng.choice([*generations(folder), folder / "snapshots" / "gen-00000009"])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(theirs, target)


def litter(folder: Path, parts: Parts, rng: random.Random) -> None:
    """Somebody's copies, and names that are no numbers."""
    newest = generations(folder)[-1]
    name = rng.choice(["gen-old", "gen-", f"{newest.name}.bak", "gen-1_0", "gen-٣", ".gen-x"])
    shutil.copytree(newest, newest.with_name(name))
    flip(newest.with_name(name) / rng.choice(["keys.i64", "manifest.json"]), rng)


def a_file_in_the_way(folder: Path, parts: Parts, rng: random.Random) -> None:
    target = rng.choice([folder / "snapshots", *generations(folder)])
    shutil.rmtree(target)
    target.write_text("in the way")


def an_older_database(folder: Path, parts: Parts, rng: random.Random) -> None:
    (folder / "gallery.sqlite-wal").unlink()
    shutil.copy(parts.older / "gallery.sqlite", folder / "gallery.sqlite")


def flip_the_log(folder: Path, parts: Parts, rng: random.Random) -> None:
    flip(folder / "gallery.sqlite-wal", rng, last=rng.choice([0.05, 0.3, 1.0]))


def truncate_the_log(folder: Path, parts: Parts, rng: random.Random) -> None:
    cut(folder / "gallery.sqlite-wal", rng, last=rng.choice([0.05, 0.3, 1.0]))


CORRUPTIONS: list[Corruption] = [
    flip_bits,
    truncate,
    overwrite_a_block,
    append,
    delete_a_file,
    swap_a_file,
    swap_generations,
    edit_the_manifest,
    bring_in_another_gallerys,
    litter,
    a_file_in_the_way,
    an_older_database,
    flip_the_log,
    truncate_the_log,
]


@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.durability)])
def test_whatever_is_damaged_a_gallery_refuses_it_and_never_answers_wrongly(
    parts: Parts, tmp_path: Path, count: int
) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(number)
        corruptions = [CORRUPTIONS[number % len(CORRUPTIONS)]]
        if number >= len(CORRUPTIONS) * 3 and rng.random() < 0.3:  # misfortunes come together
            corruptions.append(rng.choice([flip_bits, truncate, append, flip_the_log]))
        names = " and ".join(corruption.__name__ for corruption in corruptions)
        folder = tmp_path / str(number)
        shutil.copytree(parts.good, folder)
        try:
            for corruption in corruptions:
                corruption(folder, parts, rng)
        except (OSError, ValueError, IndexError):
            continue  # the first one left nothing for the second

        outcome = opened(folder, names)

        outcomes[outcome] += 1
        shutil.rmtree(folder)
    assert outcomes.keys() >= {"newest", "older", "database"}, outcomes
    assert outcomes.total() >= count * 0.9


def opened(folder: Path, names: str) -> str:
    """Open a damaged gallery, search it, rebuild it, and return what it was searched on."""
    try:
        with Gallery.open(folder, fingerprint=None) as gallery:
            used = gallery.info().generation
            problems = wrong_answers(gallery)
            gallery.put([item_of("new", 9_999)])
            gallery.adopt_newest_generation()
            problems += wrong_answers(gallery)
    except GalleryFolderError:
        return "refused"
    assert problems == [], f"{names}: {problems[:3]}"
    if (folder / "snapshots").is_dir():
        rebuild(folder)
        rebuild(folder)
        with Gallery.open(folder, fingerprint=None) as gallery:
            assert gallery.verify() == [], names
            assert wrong_answers(gallery) == [], names
            assert len(gallery._generations.numbers()) == 2, names
    return {0: "database", 2: "newest"}.get(used, "older")


def test_a_generation_of_a_past_that_was_undone_is_not_used_when_other_items_took_its_keys(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "g"
    create(folder)
    backup = (folder / "gallery.sqlite").read_bytes()
    with Gallery.open(folder, fingerprint=None) as gallery:
        gallery.put([item_of(f"undone{n}", 1_000 + n) for n in range(2)])
    rebuild(folder)
    (folder / "gallery.sqlite").write_bytes(backup)

    with Gallery.open(folder, fingerprint=None) as gallery:
        gallery.put([item_of(f"other{n}", 2_000 + n) for n in range(2)])  # under the same keys
        gallery.adopt_newest_generation()
        assert wrong_answers(gallery) == []
    with Gallery.open(folder, fingerprint=None) as gallery:
        assert wrong_answers(gallery) == []
        assert gallery.verify() == []
        assert gallery.info().generation == 1
