"""`lookalike search` and `lookalike classify`: one image, without a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from cli.console import print_json, stdout
from cli.index import (
    DeviceOption,
    GalleryArgument,
    JsonOption,
    ModelOption,
    load_encoder_of,
)
from vision.errors import ImageError
from vision.image import DEFAULT_LIMITS, harden_pillow

if TYPE_CHECKING:
    from index.items import Hit
    from vision.encoder import Encoder
    from vision.encoding import Encoding

ImageArgument = Annotated[
    Path,
    typer.Argument(
        help="JPEG, PNG, WebP, GIF or BMP file.", exists=True, dir_okay=False, show_default=False
    ),
]


def search(
    gallery: GalleryArgument,
    image: ImageArgument,
    *,
    model: ModelOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Hits.")] = 10,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the images of a gallery that look most like one."""
    from index.gallery import Gallery  # noqa: PLC0415

    encoder = load_encoder_of(gallery, model, device=device)
    encoding = _encode(encoder, image)
    with Gallery.open(gallery, fingerprint=encoder.manifest.fingerprint) as opened:
        hits = opened.search(encoding.vectors_BD, k=k).hits[0]
    if as_json:
        print_json({"hits": [_hit_json(hit) for hit in hits]})
        return
    table = Table("score", "label", "id", "metadata")
    for hit in hits:
        members = ", ".join(f"{key}: {value}" for key, value in hit.metadata.items())
        table.add_row(f"{hit.score:.4f}", escape(hit.label or ""), escape(hit.id), escape(members))
    stdout.print(table if hits else "the gallery is empty")


def classify(
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    image: ImageArgument,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Labels.")] = 5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what an image shows, with calibrated probabilities."""
    from vision.encoder import Encoder  # noqa: PLC0415

    encoder = Encoder.load(model, device=device)
    probabilities_L = _encode(encoder, image).probabilities_BL[0]
    best = np.argsort(-probabilities_L, kind="stable")[:k].tolist()
    predictions = [(encoder.manifest.labels[row], float(probabilities_L[row])) for row in best]
    if as_json:
        label, probability = predictions[0]
        print_json(
            {
                "label": label,
                "probability": probability,
                "predictions": [{"label": name, "probability": p} for name, p in predictions],
            }
        )
        return
    table = Table("probability", "label")
    for name, share in predictions:
        table.add_row(f"{share:.4f}", escape(name))
    stdout.print(table)


def _encode(encoder: "Encoder", path: Path) -> "Encoding":
    """Return vector and probabilities of the image file, as a batch of one."""
    harden_pillow()
    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT_LIMITS.max_bytes + 1)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    preprocessing = encoder.manifest.preprocessing
    try:
        image = preprocessing.decode(data, limits=DEFAULT_LIMITS)
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error
    return encoder.encode(preprocessing.pixels(image)[np.newaxis])


def _hit_json(hit: "Hit") -> dict[str, Any]:
    return {"id": hit.id, "score": hit.score, "label": hit.label, "metadata": hit.metadata}
