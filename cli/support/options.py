"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from cli.support.dataset_option import DATA_HELP, IMAGES_HELP, that_is_named
from vision.image.thumbnail import LEAST_SIDE, MAX_SIDE, MOST_SIDE
from vision.inference.runtime_name import RUNTIME_HELP, RuntimeName

ModelArgument = Annotated[Path, typer.Argument(help="Model folder.", show_default=False)]
GalleryArgument = Annotated[Path, typer.Argument(help="Gallery folder.", show_default=False)]
DataOption = Annotated[str, typer.Option("--data", help=DATA_HELP, callback=that_is_named)]
ImagesOption = Annotated[
    str,
    typer.Option("--data", help=IMAGES_HELP, callback=that_is_named, show_default=False),
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
HostOption = Annotated[str, typer.Option("--host", help="IP address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", min=1, max=65535, help="TCP port.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
