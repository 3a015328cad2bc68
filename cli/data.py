"""What `--data` names in, images with labels out, with progress and a word on what was left out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.console import progress, say
from vision.image import harden_pillow
from vision.manifest import read_manifest
from vision.preprocess import Preprocessing

if TYPE_CHECKING:
    from training.data import Dataset
    from training.decoding import LoadReport

DATA_HELP: Final = (
    "`fashion-mnist`, a folder of class folders, or a CSV or Parquet of path and label."
)
SHOWN: Final = 5  # files named one by one; the rest are counted


def load(data: str, preprocessing: Preprocessing, *, hold_out: Sequence[str] = ()) -> "Dataset":
    """Return the dataset, showing progress and naming what was left out of it.

    Raises:
        DataError: the data are missing, damaged, or not what can be learnt from.
    """
    from training.data import load_dataset  # noqa: PLC0415 - keeps `--help` quick

    with _reading() as report:
        dataset = load_dataset(data, preprocessing, hold_out=hold_out, report=report)
    _say_what_was_left_out(dataset)
    return dataset


def load_to_measure(data: str, model: Path, others: Sequence[Path] = ()) -> "Dataset":
    """Return what the data have to measure a model with: nothing that it or ``others`` learnt from.

    Raises:
        ModelFolderError: a model folder is missing or damaged.
        DataError: the data are missing or damaged, or nothing is left to measure.
    """
    from training.learnt import read_learnt  # noqa: PLC0415 - keeps `--help` quick
    from training.unlearnt import load_unlearnt  # noqa: PLC0415

    manifest = read_manifest(model)
    learnt = [read_learnt(folder, read_manifest(folder)) for folder in (model, *others)]
    with _reading() as report:
        dataset = load_unlearnt(data, manifest, learnt, report=report)
    _say_what_was_left_out(dataset)
    return dataset


@contextmanager
def _reading() -> Iterator["LoadReport"]:
    """Show how many images were read."""
    harden_pillow()
    with progress() as display:
        task = display.add_task("reading images", total=None, note="")
        yield lambda done, total: display.update(task, completed=done, total=total)


def _say_what_was_left_out(dataset: "Dataset") -> None:
    _say_some([f"left out {path}: {reason}" for path, reason in dataset.unreadable])
    _say_some(
        [
            f"left out {leak.name} ({leak.part}): the same image as {leak.twin} ({leak.twin_part})"
            for leak in dataset.leaked
        ]
    )
    _say_some(
        [
            f"the same image has two labels: {first}, {second}"
            for first, second in dataset.contradictions
        ]
    )


def _say_some(sentences: Sequence[str]) -> None:
    """Say the first few, and how many more there are."""
    for sentence in sentences[:SHOWN]:
        say(sentence)
    if len(sentences) > SHOWN:
        say(f"… and {len(sentences) - SHOWN} more like these")
