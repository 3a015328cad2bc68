"""What commands print: results on standard output, progress and errors on standard error."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

stdout = Console(emoji=False, highlight=False)
stderr = Console(emoji=False, stderr=True, highlight=False)


def progress() -> Progress:
    """Return a progress display on standard error: share, a note (field ``note``), time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),  # so that all of it fits a terminal of 80 columns
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=stderr,
    )


def silence() -> None:
    """Print nothing from now on: another process of the same training does."""
    stdout.quiet = stderr.quiet = True


def print_json(value: dict[str, Any]) -> None:
    """Print ``value`` as one JSON document on standard output."""
    if stdout.quiet:
        return
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def say(sentence: str) -> None:
    """Tell the person at the terminal something that is not a result."""
    stderr.print(sentence, markup=False, soft_wrap=True)
