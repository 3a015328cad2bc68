"""`lookalike export`: writes a model for the CPU runtime, measured against torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from cli.support.console import print_info, print_json
from cli.support.dataset_loading import load_to_evaluate
from cli.support.options import DataOption, GroupOption, JsonOption, ModelArgument
from files.resource_limits import usable_cores
from training.errors import DataError
from vision.model.export_folder import ExportManifest, PrecisionOption, precision_name

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from vision.export.variant_selection import ExportImages
    from vision.model.export_accuracy import Difference

CALIBRATION_IMAGES = 200
CALIBRATION_SHARE = 0.2  # of images of which none was learnt from
MAX_TEST_IMAGES = 10_000


def export(
    model: ModelArgument,
    *,
    data: DataOption = "fashion-mnist",
    group: GroupOption = None,
    precision: Annotated[
        PrecisionOption,
        typer.Option(
            help="auto: the fastest that stays within the limits; fp32: the same numbers as torch."
        ),
    ] = "auto",
    min_overlap: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Least share of torch's nearest items that must be found as well."
        ),
    ] = 0.85,
    max_accuracy_loss: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            help="Largest loss of accuracy, or of recall at 1, to accept; percentage points.",
        ),
    ] = 0.3,
    test_images: Annotated[
        int, typer.Option(min=1, help="Largest number of test images to measure with.")
    ] = MAX_TEST_IMAGES,
    as_json: JsonOption = False,
) -> None:
    """Export a model for OpenVINO: servers on a CPU then need no torch, and are quicker.

    Each precision is timed, and the quickest compared with torch (test images; training images
    calibrate int8): accuracy, and whether a search finds the same. If not, the next is.
    """
    dataset = load_to_evaluate(data, model, group=group)
    exported = export_for_cpu(
        model,
        dataset,
        precision=precision,
        min_overlap=min_overlap,
        max_accuracy_loss=max_accuracy_loss,
        test_images=test_images,
    )
    if as_json:
        print_json(
            {
                "model": str(model),
                "runtime": exported.runtime,
                "precision": exported.precision,
                "floats": exported.floats,
                "batch": exported.batch,
                "full_precision_layers": list(exported.full_precision_layers),
                **exported.difference.to_json(),
                "tried": [attempt.to_json() for attempt in exported.tried],
                "findings": dataset.findings.to_json(),
                "in_words": " ".join(_loss_in_words(exported.difference)),
            }
        )
    else:
        for sentence in export_in_words(exported):
            print_info(sentence)


def export_in_words(exported: ExportManifest) -> list[str]:
    """Return what was tried, what was taken and what it loses."""
    sentences = [
        f"{one.name}: {one.best_ms:.3g} ms an image on one core, "
        + ("not compared: no gain" if one.difference is None else str(one.difference))
        + ("" if one.refusal is None else f"; refused: {one.refusal}")
        for one in exported.tried
    ]
    name = precision_name(exported.precision, exported.floats)
    sentences.append(f"exported for {exported.runtime} as {name}, the quickest that holds")
    return [*sentences, *_loss_in_words(exported.difference)]


def _loss_in_words(difference: "Difference") -> list[str]:
    """Return which loss of accuracy so many images exclude; nothing without classes."""
    from training.evaluation.confidence_statements import points  # noqa: PLC0415 - keeps `--help` quick
    from training.statistics.significance import most_lost  # noqa: PLC0415

    if difference.lost is None or difference.won is None:
        return []
    most = most_lost(difference.lost, difference.won, difference.images)
    return [
        f"{difference.lost} of {difference.images:,} test images lost their right class, "
        f"{difference.won} gained it; a loss of more than {points(most)} is excluded "
        "(95 %)"
    ]


def export_for_cpu(
    model: Path,
    dataset: "Dataset",
    *,
    precision: PrecisionOption = "auto",
    min_overlap: float = 0.85,
    max_accuracy_loss: float = 0.3,
    test_images: int = MAX_TEST_IMAGES,
) -> ExportManifest:
    """Export a model with a dataset of its own classes; the loss is in percentage points.

    Raises:
        ModelFolderError, DataError: the model cannot be used, or not with these data.
        ExportError: the model cannot be exported, or loses more than allowed.
    """
    # Here, because they keep `--help` quick.
    from vision.export.export_model import export_model  # noqa: PLC0415
    from vision.model.export_accuracy import LossLimits  # noqa: PLC0415

    for sentence in dataset.selection.sentences() if dataset.selection else ():
        print_info(sentence)
    sample = sample_of(dataset, test_images)
    if precision == "int8" and not len(sample.calibration_NCHW):
        raise DataError(
            f"{dataset.name} holds no images to calibrate int8 with besides those to measure "
            "with; more images of each class are needed, or --precision fp32"
        )
    return export_model(
        model,
        sample,
        precision=precision,
        limits=LossLimits(min_overlap=min_overlap, max_accuracy_loss=max_accuracy_loss / 100),
        threads=usable_cores(),
        report=print_info,
    )


def sample_of(dataset: "Dataset", test_images: int) -> "ExportImages":
    """Return images spread evenly over those to calibrate with and those to measure with.

    Where the data hold nothing that the model has learnt from, a fifth of them calibrates.
    """
    from vision.export.variant_selection import ExportImages  # noqa: PLC0415

    train, test = dataset.train, dataset.test
    if train is test:
        test, train = test.split_validation(CALIBRATION_SHARE)
    chosen = test.take(_spread(len(test), test_images))
    return ExportImages(
        data=dataset.name,
        calibration_NCHW=train.take(_spread(len(train), CALIBRATION_IMAGES)).images_NCHW,
        test_NCHW=chosen.images_NCHW,
        labels_N=chosen.labels_N,
    )


def _spread(total: int, count: int) -> NDArray[np.int64]:
    return np.linspace(0, total - 1, min(total, count)).astype(np.int64)
