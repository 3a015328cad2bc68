"""Many pictures through a network: a folder or a table in, a file with a row for each out.

The file is whole or not there: it gets its name when the last row is on the disk. What cannot be
read has a row too, with the reason.
"""

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from cli.support.console import item_progress, print_info, print_json
from cli.support.dataset_loading import print_findings
from cli.support.image_argument import require_file
from dataset.findings import Findings
from dataset.listing import ListedFile
from dataset.source import list_source
from dataset.tables.table import is_table
from dataset.text import printable
from files.durable import sync_file, sync_folder
from files.resource_limits import usable_cores
from files.unfinished import unfinished
from vision.image.decode import harden_pillow
from vision.image.limits import OWN_FILE_LIMITS

if TYPE_CHECKING:
    from vision.inference.encoder import Encoding, ImageEncoder

CSV: Final = ".csv"
JSONL: Final = ".jsonl"
ERROR: Final = "error"

Document: TypeAlias = dict[str, Any]


ImagesArgument = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGE|FOLDER",
        help="Image file, or - for standard input; or, with --out, a folder or table of images.",
        callback=require_file,
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="File for the answers for a folder or table, .csv or .jsonl; written completely "
        "or not at all.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFormat:
    """How the network's outputs become documents and rows."""

    doing: str  # shown beside the progress
    documents: "Callable[[Encoding], list[Document]]"  # of a batch, as written to JSON lines
    columns: Sequence[str]  # of a CSV, without path and error
    rows: Callable[[Document], list[Document]]  # of a document, in a CSV


def check_results_file(pictures: Path, out: Path | None) -> None:
    """Accept a file for the answers for a folder or table, and none for one image.

    Raises:
        BadParameter: ``out`` does not fit ``pictures``.
    """
    is_many = pictures.is_dir() or is_table(pictures)
    if is_many and out is None:
        raise typer.BadParameter(
            f"{str(pictures)!r} is a {'folder' if pictures.is_dir() else 'table'}: name a .csv or "
            ".jsonl file for the answers",
            param_hint="--out",
        )
    if not is_many and out is not None:
        raise typer.BadParameter(
            "the answer for one image is printed; a file is for those of a folder or table",
            param_hint="--out",
        )
    if out is not None and (out.suffix.lower() not in (CSV, JSONL) or out.is_dir()):
        raise typer.BadParameter(
            f"a file that ends in .csv or .jsonl was expected, got {str(out)!r}", param_hint="--out"
        )


def write_results(
    pictures: Path,
    out: Path,
    encoder: "ImageEncoder",
    result_format: ResultFormat,
    *,
    as_json: bool,
) -> None:
    """Write the answers for all pictures of a folder or table, and print how many there are.

    Raises:
        DatasetError: there are no pictures.
        OSError: the file cannot be written; one that was there stays as it was.
    """
    listing = list_source(pictures)
    print_findings(listing.findings)
    started = time.perf_counter()
    failed: list[tuple[str, str]] = []  # reason and path
    with unfinished(out) as folder:
        with (folder / out.name).open("w", encoding="utf-8", newline="") as file:
            write = _writer(file, out, result_format)
            with item_progress(result_format.doing, len(listing.files), "images") as show:
                for path, document in _documents(listing.files, encoder, result_format, show):
                    write({"path": path, **document})
                    if ERROR in document:
                        failed.append((document[ERROR], path))
            sync_file(file)
        (folder / out.name).replace(out)
        sync_folder(out.absolute().parent)
    seconds = time.perf_counter() - started
    count, reasons = len(listing.files), Findings()
    reasons.add_similar(failed)
    if as_json:
        print_json(
            {
                "out": str(out),
                "images": count,
                "failed": len(failed),
                "reasons": reasons.to_json(),
                "seconds": seconds,
                "images_per_second": count / seconds,
            }
        )
        return
    print_findings(reasons, title="not answered")
    answered = count - len(failed)
    print_info(
        f"{answered:,} of {count:,} images are answered in {out}, {count / seconds:,.0f} images/s"
    )


def _documents(
    files: Iterable[ListedFile],
    encoder: "ImageEncoder",
    result_format: ResultFormat,
    on_progress: Callable[[int], None],
) -> Iterator[tuple[str, Document]]:
    """Yield path and document of each file, in their order."""
    from index.decoding.file_decoder import FileDecoder, FileToDecode  # noqa: PLC0415
    from index.decoding.file_decoder_pool import SLICE, FileDecoderPool  # noqa: PLC0415 - keeps `--help` quick

    def slices() -> Iterator[tuple[list[str], list[FileToDecode]]]:
        coming = iter(files)
        while part := list(islice(coming, SLICE)):
            yield [printable(one.key) for one in part], [FileToDecode(one.path) for one in part]

    harden_pillow()
    decoder = FileDecoder(encoder.manifest.preprocessing, OWN_FILE_LIMITS, thumbnail_side=None)
    with FileDecoderPool(decoder, processes=usable_cores()) as pool:
        for paths, results, pixels_BCHW in pool.decode(slices()):
            found = result_format.documents(encoder.encode(pixels_BCHW)) if len(pixels_BCHW) else []
            for path, one in zip(paths, results, strict=True):
                yield path, {ERROR: one.problem} if one.row is None else found[one.row]
            on_progress(len(paths))


def _writer(file: IO[str], out: Path, result_format: ResultFormat) -> Callable[[Document], None]:
    if out.suffix.lower() == JSONL:

        def write_line(document: Document) -> None:
            file.write(json.dumps(document, ensure_ascii=False) + "\n")

        return write_line
    table = csv.DictWriter(file, ("path", *result_format.columns, ERROR))
    table.writeheader()

    def write(document: Document) -> None:
        row_of_file: Document = {
            name: document[name] for name in ("path", ERROR) if name in document
        }
        rows = [] if ERROR in document else result_format.rows(document)
        table.writerows({**row_of_file, **row} for row in rows or [{}])

    return write
