"""Options that several commands have."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vision.image.thumbnail import LEAST_SIDE, MAX_SIDE, MOST_SIDE
from vision.inference.runtime_name import RUNTIME_HELP, RuntimeName

UNIT_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
DATA_HELP: Final = (
    "`fashion-mnist`, a folder of class folders, or a table (.csv, .tsv, .parquet) with path and "
    "label."
)
IMAGES_HELP: Final = (
    "`fashion-mnist`, a folder of images, or a table (.csv, .tsv, .parquet) with their paths."
)


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that an option was given; refuse what is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object")
    return value


json_object_option = partial(
    typer.Option, parser=parse_json_object, metavar="<json>", show_default=False
)


def parse_duration(time: str) -> float:
    """Return the seconds of a time such as ``90s``, ``20m`` or ``2h``; refuse what is none.

    >>> parse_duration("20m"), parse_duration("1.5h")
    (1200.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", time.strip().lower())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"{time!r} is no time; such as 2m, 20m or 2h was expected")
    return float(found[1]) * UNIT_S[found[2]]


def require_name(data: str) -> str:
    """Return what was named; refuse no name, as an empty variable of a shell gives, as wrong use.

    It would be the folder that one stands in, whatever lies there.
    """
    if not data.strip():
        raise typer.BadParameter("it is empty; a folder or a table was expected")
    return data


GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="What photos of one thing have in common: `folder` (a folder for each thing), a "
        "pattern of names such as '(.*)_[0-9]+', or a column of the table; a column "
        "`group` is used without asking.",
        show_default=False,
    ),
]
ModelArgument = Annotated[Path, typer.Argument(help="Model folder.", show_default=False)]
GalleryArgument = Annotated[Path, typer.Argument(help="Gallery folder.", show_default=False)]
DataOption = Annotated[str, typer.Option("--data", help=DATA_HELP, callback=require_name)]
ImagesOption = Annotated[
    str,
    typer.Option("--data", help=IMAGES_HELP, callback=require_name, show_default=False),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        parser=parse_duration,
        metavar="<time>",
        help="Time that the recipe auto may spend on trying, such as 2m, 20m or 2h; by default 2m.",
        show_default=False,
    ),
]
GalleryModelOption = Annotated[
    Path | None,
    typer.Option("--model", help="Model folder; by default the one the gallery was built with."),
]
ThumbnailOption = Annotated[
    int | None,
    typer.Option(
        "--thumbnail",
        min=LEAST_SIDE,
        max=MOST_SIDE,
        metavar="PIXELS",
        help=f"Longest side of the stored pictures, at first {MAX_SIDE}; the gallery remembers it.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where to compute: auto, cpu, cuda or cuda:N.")
]
RuntimeOption = Annotated[RuntimeName, typer.Option("--runtime", help=RUNTIME_HELP)]
ServeOption = Annotated[bool, typer.Option(help="Start the server at the end.")]
HostOption = Annotated[
    str, typer.Option("--host", envvar="LOOKALIKE_HOST", help="IP address to listen on.")
]
PortOption = Annotated[
    int, typer.Option("--port", envvar="LOOKALIKE_PORT", min=1, max=65535, help="TCP port.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
