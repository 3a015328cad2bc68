"""`lookalike train`: fits a network and writes a model folder."""

import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.console import print_json, say
from cli.data import DATA_HELP, GroupOption, load, named
from cli.depth import with_depth_of
from cli.progress import TrainingProgress
from cli.recipe import choose_recipe
from dataset.names import label_of
from training.recipe import MOST_SEEDS, MetricLoss, Precision, Recipe
from training.recipes import RECIPE_NAMES
from training.units import things
from vision.manifest import Manifest, Reduction
from vision.preprocess import Fit

if TYPE_CHECKING:
    from training.data import Dataset
    from training.observer import Observer

MOST_SIDE: Final = 4096  # pixels; a network's input, not the photo's
MOST_WIDTH: Final = 65_536
NETWORK: Final = "Network, in place of what the recipe says"  # panels of --help
LEARNING: Final = "Learning, in place of what the recipe says"


def train(
    *,
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    recipe: Annotated[str, typer.Option(help=f"Set-up: {', '.join(RECIPE_NAMES)}.")] = "cnn",
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "fashion-mnist",
    group: GroupOption = None,
    hold_out: Annotated[
        str | None,
        typer.Option(help="Classes, with commas, to keep apart: to measure search with."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="torchvision:NAME, timm:NAME or timm:NAME.TAG, for the backbone recipes.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights to begin with: a published name, a file, a model folder to go on from, "
            "or `none` for random ones.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    weights_sha256: Annotated[
        str | None,
        typer.Option(
            help="Refuse other weights than these (hexadecimal).", rich_help_panel=NETWORK
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layer to embed with, or several with +; for VGG: pool1 to pool5, fc6, fc7.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_WIDTH, help="Numbers in a vector.", rich_help_panel=NETWORK),
    ] = None,
    reduction: Annotated[
        Reduction | None,
        typer.Option(help="How the layer's numbers become a vector's.", rich_help_panel=NETWORK),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_SIDE,
            help="Side of the network's input, pixels.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="crop: the middle of the picture; pad: all of it, with bars; squash: all, square.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(min=8, max=16, help="Of gray with 16, those in use.", rich_help_panel=NETWORK),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            help="Mirror half of the training images.", show_default=False, rich_help_panel=LEARNING
        ),
    ] = None,
    erase: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of images with a rectangle erased.", rich_help_panel=LEARNING
        ),
    ] = None,
    frozen_groups: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Groups of layers, of those that fine-tuning makes, that stay as they are.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Copies of each image, all but one augmented, that a frozen backbone embeds.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(
            min=0, help="Mix images in pairs: the beta distribution's.", rich_help_panel=LEARNING
        ),
    ] = None,
    cutmix: Annotated[
        float | None,
        typer.Option(
            min=0, help="Paste parts of images into others; likewise.", rich_help_panel=LEARNING
        ),
    ] = None,
    metric_loss: Annotated[
        MetricLoss | None,
        typer.Option(help="Loss on the vectors, beside cross-entropy.", rich_help_panel=LEARNING),
    ] = None,
    class_balance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="0: images count alike; 1: classes count alike.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many; the recipe's number if not given.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images a batch, over all processes.", rich_help_panel=LEARNING),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest of the schedule.", rich_help_panel=LEARNING)
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of activations; auto: the device's fastest.", rich_help_panel=LEARNING),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_SEEDS - 1, help="Of everything random.", rich_help_panel=LEARNING
        ),
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training of this model.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder to write curves to, for TensorBoard.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a network on images and write a model folder.

    It can be interrupted at any time; with --resume it goes on after the last whole epoch and ends
    with the very same weights. On N GPUs, it is
    `PYTHONSAFEPATH=1 torchrun --nproc-per-node N -m cli.main train …`.
    """
    try:
        chosen = choose_recipe(
            recipe,
            data,
            backbone=backbone,
            weights=weights,
            preprocessing={"size": size, "fit": fit, "bits": bits},
            augmentation={"flip": flip, "erase": erase, "mixup": mixup, "cutmix": cutmix},
            frozen_groups=frozen_groups,
            weights_sha256=weights_sha256,
            embedding_layer=layer,
            width=width,
            reduction=reduction,
            views=views,
            metric_loss=metric_loss,
            class_balance=class_balance,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            precision=precision,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    from training.checks import check_call  # noqa: PLC0415 - keeps `--help` quick

    if resume:
        _say_what_is_resumed(out)
    check_call(chosen, out=out, device=device, resume=resume)
    with _curves(tensorboard) as curves:  # first: a place that cannot be written to is said at once
        chosen = chosen if bits else with_depth_of(data, chosen)
        dataset = load(data, chosen, hold_out=split_names(hold_out), group=group)
        manifest = run_training(chosen, dataset, out, device=device, resume=resume, curves=curves)
    if as_json:
        print_json(
            {
                "model": str(out),
                "fingerprint": manifest.fingerprint,
                "data": manifest.data,
                "metrics": manifest.metrics,
                "findings": dataset.findings.to_json(),
            }
        )
    else:
        say(
            f"{out}: test accuracy {manifest.metrics['test_accuracy']:.2%} after "
            f"{things(int(manifest.metrics['epochs']), 'epoch')}, "
            f"{manifest.metrics['train_seconds']:.0f} s of training"
        )
        say(f"measure it: {shlex.join(['lookalike', 'evaluate', str(out), *named(data, group)])}")


def _say_what_is_resumed(out: Path) -> None:
    """Say so where there is nothing to go on with: the path may be mistyped."""
    from training.checks import state_folder  # noqa: PLC0415

    if not out.exists() and not state_folder(out).exists():
        say(f"{state_folder(out)} is not there: there is nothing to resume, the training begins")


def split_names(names: str | None) -> tuple[str, ...]:
    """Return the classes of a list with commas."""
    return tuple(label_of(name) for name in (names or "").split(",") if name.strip())


def run_training(
    recipe: Recipe,
    dataset: "Dataset",
    out: Path,
    *,
    device: str,
    resume: bool,
    curves: "Observer | None" = None,
) -> Manifest:
    """Train with progress, also told to ``curves``, and return the new model folder's manifest.

    Raises:
        TrainingError, VisionError: as ``training.train.train``.
    """
    from training.observer import Observers  # noqa: PLC0415 - keeps `--help` quick
    from training.train import train as train_model  # noqa: PLC0415

    with TrainingProgress() as watching:
        return train_model(
            recipe,
            dataset,
            out=out,
            device=device,
            resume=resume,
            observer=Observers(watching, *([] if curves is None else [curves])),
            on_embedded=watching.embedded,
        )


@contextmanager
def _curves(folder: Path | None) -> "Iterator[Observer | None]":
    """Give the block an observer that writes curves to ``folder``, if there is one.

    Raises:
        TrainingError: TensorBoard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield None
        return
    from training.tensorboard import TensorBoard  # noqa: PLC0415 - keeps `--help` quick

    with closing(TensorBoard(folder)) as curves:
        yield curves
