"""`lookalike train`: fits a network and writes a model folder."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.support.options import BudgetOption, DataOption, DeviceOption, GroupOption, JsonOption
from cli.training.auto import train_auto_recipe
from cli.training.fit import RunOptions, train_recipe
from cli.training.recipe_options import choose_auto_recipe, choose_recipe
from dataset.names import normalize_label
from training.data.images.load import FASHION_MNIST
from training.recipes.auto_recipe import AUTO
from training.recipes.built_in import RECIPE_NAMES
from training.recipes.recipe import MOST_SEEDS, MetricLoss, Precision
from vision.image.preprocessing import Fit
from vision.model.manifest import Reduction

RECIPE_OF_FASHION_MNIST: Final = "cnn"
MOST_SIDE: Final = 4096  # pixels; a network's input, not the photo's
MOST_WIDTH: Final = 65_536
network_option = partial(typer.Option, rich_help_panel="Network, in place of the recipe's")
learning_option = partial(typer.Option, rich_help_panel="Learning, in place of the recipe's")


def train(
    *,
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"Recipe: {AUTO}, {', '.join(RECIPE_NAMES)}; by default {AUTO}, for "
            "fashion-mnist cnn.",
            show_default=False,
        ),
    ] = None,
    budget_s: BudgetOption = None,
    data: DataOption = "fashion-mnist",
    group: GroupOption = None,
    hold_out: Annotated[
        str | None,
        typer.Option(
            help="Classes to hold out, separated by commas: search is measured with them."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        network_option(
            help="torchvision:NAME, timm:NAME or timm:NAME.TAG, for the backbone recipes."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        network_option(
            help="Initial weights: a published name, a file, a model folder to continue from, or "
            "`none` for random ones."
        ),
    ] = None,
    weights_sha256: Annotated[
        str | None, network_option(help="SHA-256 that the weights must have, hexadecimal.")
    ] = None,
    layer: Annotated[
        str | None,
        network_option(
            help="Embedding layer, or several joined by +; for VGG: pool1 to pool5, fc6, fc7."
        ),
    ] = None,
    width: Annotated[
        int | None, network_option(min=1, max=MOST_WIDTH, help="Width of the vectors.")
    ] = None,
    reduction: Annotated[
        Reduction | None, network_option(help="How the layer's output becomes a vector.")
    ] = None,
    size: Annotated[
        int | None,
        network_option(min=1, max=MOST_SIDE, help="Side of the network's input, pixels."),
    ] = None,
    fit: Annotated[
        Fit | None,
        network_option(
            help="crop: the centre of the picture; pad: all of it, with bars; squash: all of it, "
            "squeezed to a square."
        ),
    ] = None,
    bits: Annotated[
        int | None,
        network_option(min=8, max=16, help="Bits that gray images of 16 bits really use."),
    ] = None,
    flip: Annotated[
        bool | None, learning_option(help="Mirror half of the training images.", show_default=False)
    ] = None,
    erase: Annotated[
        float | None, learning_option(min=0, max=1, help="Share of images with a rectangle erased.")
    ] = None,
    frozen_groups: Annotated[
        int | None, learning_option(min=0, help="Groups of layers that fine-tuning leaves frozen.")
    ] = None,
    views: Annotated[
        int | None,
        learning_option(
            min=1, help="Copies of each image that a frozen backbone embeds, all but one augmented."
        ),
    ] = None,
    mixup: Annotated[
        float | None, learning_option(min=0, help="Mixup: alpha of the beta distribution.")
    ] = None,
    cutmix: Annotated[
        float | None, learning_option(min=0, help="CutMix: alpha of the beta distribution.")
    ] = None,
    metric_loss: Annotated[
        MetricLoss | None,
        learning_option(help="Metric loss on the vectors, in addition to cross-entropy."),
    ] = None,
    class_balance: Annotated[
        float | None,
        learning_option(
            min=0,
            max=1,
            help="Weight of the classes. 0: all images count alike; 1: all classes count alike.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        learning_option(min=1, help="Epochs, at most; by default as many as the recipe has."),
    ] = None,
    batch_size: Annotated[
        int | None, learning_option(min=1, help="Images per batch, over all processes.")
    ] = None,
    learning_rate: Annotated[
        float | None, learning_option(help="Peak learning rate of the schedule.")
    ] = None,
    precision: Annotated[
        Precision | None,
        learning_option(help="Precision of activations; auto: the fastest of the device."),
    ] = None,
    seed: Annotated[int, learning_option(min=0, max=MOST_SEEDS - 1, help="Random seed.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training of this model.")
    ] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard curves.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network on one's own images and write a model folder.

    It can be interrupted at any time; with --resume it goes on where it was and ends with the very
    same weights. On N GPUs, it is
    `PYTHONSAFEPATH=1 torchrun --nproc-per-node N -m cli.main train …`.
    """
    name = recipe or (RECIPE_OF_FASHION_MNIST if data == FASHION_MNIST else AUTO)
    if name != AUTO and budget_s is not None:
        raise typer.BadParameter(f"--budget is for the recipe {AUTO}; {name} learns for --epochs")
    learning: dict[str, Any] = {
        "width": width,
        "reduction": reduction,
        "views": views,
        "metric_loss": metric_loss,
        "class_balance": class_balance,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
    }
    augmentation = {"flip": flip, "erase": erase, "mixup": mixup, "cutmix": cutmix}
    try:
        if name == AUTO:
            others = {**learning, **augmentation, "frozen_groups": frozen_groups}
            by_trying = choose_auto_recipe(
                {**others, "tensorboard": tensorboard},
                budget_s=budget_s,
                backbone=backbone,
                weights=weights,
                weights_sha256=weights_sha256,
                layer=layer,
                size=size,
                fit=fit or "pad",
                seed=seed,
            )
        else:
            by_steps = choose_recipe(
                name,
                data,
                backbone=backbone,
                weights=weights,
                preprocessing={"size": size, "fit": fit, "bits": bits},
                augmentation=augmentation,
                frozen_groups=frozen_groups,
                weights_sha256=weights_sha256,
                embedding_layer=layer,
                seed=seed,
                **learning,
            )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    where = RunOptions(
        data=data,
        out=out,
        group=group,
        hold_out=split_names(hold_out),
        bits=bits,
        device=device,
    )
    if name == AUTO:
        train_auto_recipe(by_trying, where, resume=resume, as_json=as_json)
    else:
        train_recipe(by_steps, where, resume=resume, curves=tensorboard, as_json=as_json)


def split_names(names: str | None) -> tuple[str, ...]:
    """Return the classes of a list with commas."""
    return tuple(normalize_label(name) for name in (names or "").split(",") if name.strip())
