"""What a build or an import did, as a person or a program reads it."""

import csv
import errno
import io
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cli.support.console import make_table, print_info, print_json, stdout
from cli.support.dataset_loading import print_findings
from dataset.findings import Findings
from files.durable import replace_file
from files.unfinished import unfinished

if TYPE_CHECKING:
    from index.operations.build_report import BuildReport


def print_report(
    gallery: Path, report: "BuildReport", *, findings: Findings | None = None, as_json: bool
) -> None:
    """Print what a build or an import did, and why it refused what it refused.

    Args:
        gallery: what was changed.
        report: of the work.
        findings: what was found in the source before; they have been printed already.
        as_json: print one JSON document.
    """
    if as_json:
        refused: list[dict[str, str | int]] = [
            {"id": item_id, "reason": reason} for item_id, reason in report.refused
        ]
        for one, row in zip(refused, report.refused_rows, strict=False):  # builds have no rows
            one["row"] = row
        document = {"gallery": str(gallery), **asdict(report), "refused": refused}
        del document["refused_rows"]
        document["reasons"] = report.reasons.to_json()
        if findings is not None:
            document["findings"] = findings.to_json()
        print_json({**document, "images_per_second": report.images_per_second})
        return
    rows = {
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "refused": len(report.refused),
        "edits kept": report.kept,
        "no longer in the data, deleted": report.pruned,
        "no longer in the data": report.stale,
        "in the gallery": report.count,
        "images/s": round(report.images_per_second),
    }
    always = ("added", "replaced", "unchanged", "refused", "in the gallery", "images/s")
    cells = [(name, f"{value:,}") for name, value in rows.items() if value or name in always]
    stdout.print(make_table(str(gallery), ("", ""), cells))
    if report.left_as_stored:
        parts = ", ".join(f"{part} of {count:,}" for part, count in report.left_as_stored.items())
        print_info(f"left as stored, since the source does not have it: {parts}")
    print_findings(report.reasons, title="refused")
    if report.stale:
        print_info("what is no longer in the data stays until a build with --prune")


def check_failures(file: Path | None) -> None:
    """Check that refusals can be written to ``file``, before hours of work.

    Raises:
        OSError: they cannot.
    """
    if file is None:
        return
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    with unfinished(file):
        pass


def write_failures(file: Path | None, report: "BuildReport") -> None:
    """Write ids and reasons of all that was refused to the CSV ``file``: whole, or as it was.

    Raises:
        OSError: it cannot be written.
    """
    if file is None:
        return
    table = io.StringIO()
    csv.writer(table).writerows([("id", "reason"), *report.refused])
    replace_file(file, table.getvalue().encode())
    print_info(f"{len(report.refused):,} refused images are listed in {file}")


def print_serve_command(model: Path, gallery: Path) -> None:
    """Print the command that serves a gallery that was built, as it can be typed."""
    command = ["lookalike", "serve", "--model", str(model), "--gallery", str(gallery)]
    print_info(f"serve it: {shlex.join(command)}")
