"""What commands print: results on standard output, progress and errors on standard error."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

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


@contextmanager
def items_shown(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many of ``total`` are done, the rate and the time left."""
    with progress() as bar:
        task = bar.add_task(what, total=total, note="")

        def show(done: int) -> None:
            bar.advance(task, done)
            speed = bar.tasks[0].speed
            bar.update(task, note=f"{speed:,.0f} {unit}/s" if speed else "")

        yield show


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


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table for the terminal; what is in it is shown as it is."""
    table = Table(title=escape(title), show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[escape(cell) for cell in row])
    return table
