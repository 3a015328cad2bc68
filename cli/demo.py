"""`lookalike demo`: `lookalike up` on Fashion-MNIST."""

from pathlib import Path
from typing import Annotated

import typer

from cli.up.runner import Wish, bring_up
from training.data.images.load import FASHION_MNIST


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the model and the gallery.")] = Path("demo"),
    serve: Annotated[bool, typer.Option(help="Start the server at the end.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on (an IP address).")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 3000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Fewer than the recipe's, for a quick look.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Do what `lookalike up` does, with the 60,000 images of Fashion-MNIST.

    What is there already is used again; interrupted, the same command goes on where it was.
    """
    bring_up(
        Wish(
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
