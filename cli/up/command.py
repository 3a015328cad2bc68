"""`lookalike up`: from a folder of photos to the page, in one command that may be run again."""

import inspect
from typing import Any

from cli.up.options import UpOptions
from cli.up.runner import run_up


def up(**options: Any) -> None:
    """Make a page that finds photos that look alike: look, train, export, measure, index, serve.

    Interrupted, the same command goes on where it was. Run again, it starts in seconds and takes in
    what was added or changed since.
    """
    run_up(UpOptions(**options))


_fields = inspect.signature(UpOptions).parameters.values()
# What typer reads the options from.
up.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [field for field in _fields if field.name != "epochs"]
)
