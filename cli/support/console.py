"""What commands print: results on standard output, progress and errors on standard error.

Labels, ids and file names are other people's input. All text is shown as it is: nothing in it is
read as rich's markup, no control character reaches the terminal, and what the terminal's encoding
lacks is shown by its number.
"""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

CONTROL_CATEGORIES: Final = (
    "Cc",
    "Cs",
)  # Unicode's categories: control characters, halves of surrogate pairs


class PlainConsole(Console):
    """A terminal that shows every text, cell and title as it is."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return ``text`` for display: rich asks this for every string that it is given."""
        shown = (
            escape_controls(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        )
        return super().render_str(shown, **settings)


stdout = PlainConsole()
stderr = PlainConsole(stderr=True)
_quiet_blocks: Final[list[bool]] = []  # that we are in


def text_lines(texts: Iterable[str]) -> Text:
    """Return ``texts`` as they are shown on standard error, one a line of a single cell."""
    return Text("\n").join(stderr.render_str(text) for text in texts)


def escape_controls(text: str) -> str:
    """Return ``text`` with escapes in place of what would steer the terminal.

    >>> escape_controls("coat\\x1b[2J\\udcff"), escape_controls("[/old] :smile:")
    ('coat\\\\x1b[2J\\\\udcff', '[/old] :smile:')
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in CONTROL_CATEGORIES
        else letter
        for letter in text
    )


def progress() -> Progress:
    """Return a progress display on standard error: share, a note (field ``note``), time left.

    It is only there while the work goes on, and only on a terminal: files and pipes get no lines
    that were meant to be written over.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),  # so that all of it fits a terminal of 80 columns
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )


@contextmanager
def item_progress(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many of ``total`` are done, the rate and the time left."""
    with progress() as bar:
        task = bar.add_task(what, total=total, note="")

        def show(done: int) -> None:
            bar.advance(task, done)
            speed = bar.tasks[0].speed
            bar.update(task, note=f"{speed:,.0f} {unit}/s" if speed else "")

        yield show


@contextmanager
def share_progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show on standard error which share of the work is done, and the time left."""
    with progress() as bar:
        task = bar.add_task(what, total=1.0, note="")
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def stage_progress() -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done, for work whose end nobody can foresee."""
    with stderr.status("starting") as status:
        yield status.update


def disable_output() -> None:
    """Print nothing from now on: another process of the same training does."""
    stdout.quiet = stderr.quiet = True


def print_json(value: dict[str, Any]) -> None:
    """Print ``value`` as one JSON document on standard output, whatever its encoding."""
    if stdout.quiet:
        return
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def print_result(document: dict[str, Any], text: str | Table, *, as_json: bool) -> None:
    """Print a result on standard output, as JSON or for people."""
    if as_json:
        print_json(document)
    else:
        stdout.print(text)


def print_info(text: str | Table) -> None:
    """Print what is not a result on standard error, unless in a ``quiet`` block.

    Lines break between words where the terminal ends; in a file they are as long as they are.
    """
    if not _quiet_blocks:
        stderr.print(text, soft_wrap=isinstance(text, str) and not stderr.is_terminal)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress information inside the block, by steps of something larger; progress stays."""
    _quiet_blocks.append(True)
    try:
        yield
    finally:
        _quiet_blocks.pop()


def make_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: bool = False,
) -> Table:
    """Return a table for the terminal; text is shown as it is.

    Args:
        title: above it, if any.
        columns: their names; no header where all are empty.
        rows: a text for each column.
        numbers: align all columns but the first to the right.
    """
    table = Table(title=title, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="right" if numbers and place else "left")
    for row in rows:
        table.add_row(*row)
    return table
