"""The options of `lookalike up`, which `lookalike demo` sets too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.support.options import (
    BudgetOption,
    DeviceOption,
    GroupOption,
    HostOption,
    JsonOption,
    PortOption,
    ServeOption,
    ThumbnailOption,
    require_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Each field is an option of `lookalike up`, but for ``epochs``."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|TABLE",
            help="Folder of photos, table of their paths, or fashion-mnist.",
            callback=require_name,
            show_default=False,
        ),
    ]
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for model, gallery and report; by default NAME-lookalike beside the "
            "photos.",
            show_default=False,
        ),
    ] = None
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only show what would be done, and how long it would take."),
    ] = False
    budget_s: BudgetOption = None
    epochs: int | None = None  # of Fashion-MNIST's recipe, for a quick look
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Train again on all photos that are there now."),
    ] = False
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Also delete photos from the gallery that are no longer there."
        ),
    ] = False
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep adding new and changed photos while serving."),
    ] = False
    group: GroupOption = None
    thumbnail: ThumbnailOption = None
    serve: ServeOption = True
    host: HostOption = "127.0.0.1"
    port: PortOption = 3000
    device: DeviceOption = "auto"
    as_json: JsonOption = False
