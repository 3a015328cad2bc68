"""`lookalike up`: from a folder of photos to the page, in one command that may be run again."""

from pathlib import Path
from typing import Annotated

import typer

from cli.support.options import (
    DeviceOption,
    GroupOption,
    HostOption,
    JsonOption,
    PortOption,
    ServeOption,
    ThumbnailOption,
    require_name,
)
from cli.up.runner import UpOptions, run_up


def up(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|TABLE",
            help="Folder of photos, table of their paths, or fashion-mnist.",
            callback=require_name,
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for model, gallery and report; by default NAME-lookalike beside the "
            "photos.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only show what would be done, and how long it would take."),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Time to train, such as 2m, 20m or 2h.", show_default=False),
    ] = None,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Train again on all photos that are there now."),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Also delete photos from the gallery that are no longer there."
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep adding new and changed photos while serving."),
    ] = False,
    group: GroupOption = None,
    thumbnail: ThumbnailOption = None,
    serve: ServeOption = True,
    host: HostOption = "127.0.0.1",
    port: PortOption = 3000,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a page that finds photos that look alike: look, train, export, measure, index, serve.

    Interrupted, the same command goes on where it was. Run again, it starts in seconds and takes in
    what was added or changed since.
    """
    run_up(
        UpOptions(
            source=source,
            out=out,
            plan=plan,
            budget_s=_budget_s(budget),
            retrain=retrain,
            prune=prune,
            watch=watch,
            group=group,
            thumbnail=thumbnail,
            serve=serve,
            host=host,
            port=port,
            device=device,
            as_json=as_json,
        )
    )


def _budget_s(budget: str | None) -> float | None:
    from cli.training.recipe_options import parse_duration  # noqa: PLC0415

    try:
        return None if budget is None else parse_duration(budget)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
