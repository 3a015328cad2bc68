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

UNSEEN: Final = ("Cc", "Cs")  # Unicode's categories: control characters, halves of surrogate pairs


class PlainConsole(Console):
    """A terminal that shows every text, cell and title as it is."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return ``text`` for display: rich asks this for every string that it is given."""
        shown = visible(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(shown, **settings)


stdout = PlainConsole()
stderr = PlainConsole(stderr=True)
_hushed: Final[list[bool]] = []  # blocks around us in which nothing is said


def lines_of(texts: Iterable[str]) -> Text:
    """Return ``texts`` as they are shown on standard error, one a line of a single cell."""
    return Text("\n").join(stderr.render_str(text) for text in texts)


def visible(text: str) -> str:
    """Return ``text`` with escapes in place of what would steer the terminal.

    >>> visible("coat\\x1b[2J"), visible("h\\udcff.jpg"), visible("[/old] :smile:")
    ('coat\\\\x1b[2J', 'h\\\\udcff.jpg', '[/old] :smile:')
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in UNSEEN
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
    """Print ``value`` as one JSON document on standard output, whatever its encoding."""
    if stdout.quiet:
        return
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def say(sentence: str) -> None:
    """Tell the person at the terminal something that is not a result.

    Lines break between words where the terminal ends; in a file they are as long as they are.
    """
    show(sentence)


def show(text: str | Table) -> None:
    """Print a sentence or a table on standard error, unless it is hushed."""
    if not _hushed:
        stderr.print(text, soft_wrap=isinstance(text, str) and not stderr.is_terminal)


@contextmanager
def hushed() -> Iterator[None]:
    """Leave unsaid what is said inside the block, by steps of something larger; progress stays."""
    _hushed.append(True)
    try:
        yield
    finally:
        _hushed.pop()


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table for the terminal; what is in it is shown as it is."""
    table = Table(title=title, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
