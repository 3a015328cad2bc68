"""`lookalike demo`: `lookalike up` on Fashion-MNIST."""

from pathlib import Path
from typing import Annotated

import typer

from cli.support.options import DeviceOption, HostOption, JsonOption, PortOption, ServeOption
from cli.up.options import UpOptions
from cli.up.runner import run_up
from training.data.images.load import FASHION_MNIST


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the model and the gallery.")] = Path("demo"),
    serve: ServeOption = True,
    host: HostOption = "127.0.0.1",
    port: PortOption = 3000,
    device: DeviceOption = "auto",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train for fewer epochs than the recipe's, for a quick look.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Do what `lookalike up` does, with the 60,000 images of Fashion-MNIST.

    What is there already is used again; interrupted, the same command goes on where it was.
    """
    run_up(
        UpOptions(
            source=FASHION_MNIST,
            out=out,
            epochs=epochs,
            serve=serve,
            host=host,
            port=port,
            device=device,
            as_json=as_json,
        )
    )
