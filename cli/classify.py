"""`lookalike classify`: what an image, or each of a folder, shows, without a server."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from cli.support.console import make_table, print_info, print_json, stdout
from cli.support.image_argument import load_image
from cli.support.image_collection import (
    Document,
    ImagesArgument,
    OutOption,
    ResultFormat,
    check_results_file,
    write_results,
)
from cli.support.options import DeviceOption, JsonOption, ModelArgument, RuntimeOption
from files.resource_limits import usable_cores
from vision.inference.open_encoder import open_encoder
from vision.model.manifest import read_manifest
from vision.model.open_set import OpenSetDetector, judge, read_detector

if TYPE_CHECKING:
    from vision.inference.encoder import Encoding


def classify(
    model: ModelArgument,
    image: ImagesArgument,
    *,
    out: OutOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of labels.")] = 5,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Classify an image, or each of a folder: labels, probabilities, and whether that is sure."""
    check_results_file(image, out)
    if not read_manifest(model).labels:
        raise typer.BadParameter(
            "this model has learnt no classes; lookalike search --vote says what the labels of the "
            "nearest items speak for, and lookalike index classes makes classes of these labels",
            param_hint="MODEL",
        )
    encoder = open_encoder(model, device=device, runtime=runtime, threads=usable_cores())
    labels, references = encoder.manifest.labels, read_detector(model, encoder.manifest)

    def classify_batch(encoding: "Encoding") -> list[Document]:
        return _classes(encoding, labels, references, k)

    if out is not None:
        write_results(
            image, out, encoder, _of_many(classify_batch, min(k, len(labels))), as_json=as_json
        )
        return
    (document,) = classify_batch(load_image(encoder, image).encode())
    if as_json:
        print_json(document)
        return
    rows = [(f"{one['probability']:.4f}", one["label"]) for one in document["predictions"]]
    stdout.print(make_table(None, ("probability", "label"), rows))
    if document["sure"] is False:
        print_info(f"not sure: {document['why_not']['detail']}")


def _of_many(documents: Callable[["Encoding"], list[Document]], count: int) -> ResultFormat:
    """Return how the classes of many pictures are written: label, probability, label_2, … sure."""
    numbers = ["", *(f"_{number}" for number in range(2, count + 1))]
    names = [("label" + number, "probability" + number) for number in numbers]

    def rows(document: Document) -> list[Document]:
        why_not = document["why_not"]
        row: Document = {"sure": document["sure"], "why_not": why_not and why_not["code"]}
        for (label, probability), one in zip(names, document["predictions"], strict=True):
            row |= {label: one["label"], probability: one["probability"]}
        return [row]

    columns = [*(name for pair in names for name in pair), "sure", "why_not"]
    return ResultFormat(doing="classifying", documents=documents, columns=columns, rows=rows)


def _classes(
    encoding: "Encoding", labels: tuple[str, ...], references: OpenSetDetector | None, k: int
) -> list[Document]:
    """Return the answer for each picture of a batch, the likeliest class first."""
    documents: list[Document] = []
    for vector_D, probabilities_L in zip(*encoding, strict=True):
        best = np.argsort(-probabilities_L, kind="stable")[:k].tolist()
        predictions = [
            {"label": labels[row], "probability": float(probabilities_L[row])} for row in best
        ]
        sure, why_not = judge(references, vector_D, probabilities_L)
        documents.append(
            {
                **predictions[0],
                "predictions": predictions,
                "sure": sure,
                "why_not": None if why_not is None else why_not._asdict(),
            }
        )
    return documents
