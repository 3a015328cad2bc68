"""`lookalike demo`: the whole way on Fashion-MNIST: train, export, build a gallery, serve."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.console import print_json, say
from cli.data import load, load_to_measure
from training.recipes import pick_recipe
from vision.errors import ExportError
from vision.exported import export_folder, has_export
from vision.manifest import Manifest, read_manifest
from vision.openvino_encoder import RUNTIME

DATA = "fashion-mnist"
RECIPE = "cnn"


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
    """Train a network on Fashion-MNIST, build a gallery of its 60,000 images, and serve both.

    What is there already is used again; interrupted, the same command goes on where it was.
    """
    from cli.checks import check_port  # noqa: PLC0415
    from cli.serve import start_server  # noqa: PLC0415 - keeps `--help` quick

    if serve:
        check_port(host, port)  # now, and not after five minutes
    model, gallery = out / "model", out / "gallery"
    manifest = _trained(model, device=device, epochs=epochs)
    _exported(model)
    _indexed(model, gallery, out / "gallery.complete", device=device)
    if as_json:
        print_json({"model": str(model), "gallery": str(gallery), "metrics": manifest.metrics})
    if serve:
        say("4/4 Serving.")
        settings: dict[str, object] = {
            "MODEL": model.resolve(),
            "GALLERY": gallery.resolve(),
            "DEVICE": device,
        }
        start_server(settings, host=host, port=port)
    say(f"Ready: lookalike serve --model {model} --gallery {gallery}")


def _trained(folder: Path, *, device: str, epochs: int | None) -> Manifest:
    """Return the manifest of the demo's model, training it where it is not there yet."""
    if folder.exists():
        manifest = read_manifest(folder)
        say(f"1/4 Using the model {folder}, test accuracy {_accuracy(manifest)}.")
        return manifest
    from cli.learning import run_training  # noqa: PLC0415 - torch takes seconds

    recipe = pick_recipe(RECIPE, DATA)
    minutes = "about three and a half minutes on two CPU cores"
    if epochs is not None:
        recipe, minutes = replace(recipe, epochs=epochs), f"{epochs} of {recipe.epochs} epochs"
    say(f"1/4 Training {RECIPE} on {DATA}: {minutes}.")
    dataset = load(DATA, recipe)
    manifest = run_training(recipe, dataset, folder, device=device, resume=True)
    say(f"    {folder}: test accuracy {_accuracy(manifest)}.")
    return manifest


def _exported(model: Path) -> None:
    """Export the demo's model for servers on a CPU, where that is not done."""
    if has_export(model, RUNTIME):
        say(f"2/4 Using the export {export_folder(model, RUNTIME)}.")
        return
    from cli.export import export_for_cpu  # noqa: PLC0415 - torch takes seconds

    say("2/4 Exporting the model for servers on a CPU.")
    try:
        exported = export_for_cpu(model, load_to_measure(DATA, model))
    except ExportError as error:  # the server then computes with torch
        say(f"    {error}")
        return
    say(f"    {exported.precision}: {exported.difference}.")


def _indexed(model: Path, gallery: Path, mark: Path, *, device: str) -> None:
    """Fill the gallery where that is not done; ``mark`` says so, whatever changes later."""
    if mark.exists() and gallery.exists():
        say(f"3/4 Using the gallery {gallery}.")
        return
    from cli.index import build_gallery  # noqa: PLC0415 - torch takes seconds
    from cli.sources import open_source  # noqa: PLC0415

    say("3/4 Indexing 60,000 images.")
    report = build_gallery(model, gallery, open_source(DATA), device=device, runtime="auto")
    mark.write_text(f"{report.added + report.replaced + report.unchanged} images\n")


def _accuracy(manifest: Manifest) -> str:
    return f"{manifest.metrics['test_accuracy']:.2%}"
