"""Small galleries that tests start from: pictures with labels and metadata, or bare vectors."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.gallery import Gallery
from index.items.item import NewItem
from index.maintenance.compaction import SETTING, TunedSpec
from index.search.index_spec import EXACT_ROWS, candidate_specs
from index.store.store import Store
from tests.support.images.pngs import png
from tests.support.models import LABELS
from vision.image.thumbnail import make_thumbnail
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import read_manifest

STORED = 40  # items in the gallery that tests start from


def write_gallery(folder: Path, model: Path) -> None:
    """Write a gallery of pictures `png(0)` to `png(39)` under the ids item-00 to item-39."""
    encoder = TorchEncoder.load(model, device="cpu")
    manifest, preprocessing = encoder.manifest, encoder.manifest.preprocessing
    files = [png(number) for number in range(STORED)]
    images = [preprocessing.decode(data) for data in files]
    encoding = encoder.encode(np.stack([preprocessing.pixels(image) for image in images]))
    with Gallery.create(
        folder,
        model_name=manifest.name,
        fingerprint=manifest.fingerprint,
        width=manifest.architecture.width,
        model_folder=model,
    ) as gallery:
        gallery.put(
            [
                NewItem(
                    id=f"item-{number:02d}",
                    vector_D=encoding.vectors_BD[number],
                    label=LABELS[number % 4],
                    metadata={"number": number, "even": number % 2 == 0},
                    thumbnail=make_thumbnail(images[number]),
                    content_sha256=hashlib.sha256(data).hexdigest(),
                )
                for number, data in enumerate(files)
            ]
        )


def write_vectors(folder: Path, model: Path, vectors_ND: NDArray[np.float32]) -> None:
    """Write a gallery of bare vectors under the ids row-0, row-1, …; a graph is chosen for it.

    So few would be scanned otherwise. The graph is not built yet.
    """
    manifest = read_manifest(model)
    with Gallery.create(
        folder,
        model_name=manifest.name,
        fingerprint=manifest.fingerprint,
        width=manifest.architecture.width,
    ) as gallery:
        gallery.put(
            [
                NewItem(
                    id=f"row-{row}",
                    vector_D=vector_D,
                    label=None,
                    metadata={},
                    thumbnail=None,
                    content_sha256=hashlib.sha256(vector_D.tobytes()).hexdigest(),
                )
                for row, vector_D in enumerate(vectors_ND)
            ]
        )
    store = Store.open(folder)
    specs = candidate_specs(EXACT_ROWS, manifest.architecture.width)
    graph = next(spec for spec in specs if spec.kind == "graph")
    store.set_setting(SETTING, TunedSpec(graph, len(vectors_ND)).to_json())
    store.close()
