"""What a model says of pictures that are of none of its classes, with its limits and without.

    python -m benchmarks.novelty MODEL --data photos --others FOLDER

Three rules are compared at the same stated share of one's own photos that are refused: what the
model's references say (distance and agreement of neighbours), a least probability alone, and the
distance alone. The limits of the last two are fitted here, with half of the measured photos, and
all are counted on the other half.

Shape suffixes: N images, C channels, H x W pixels.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import commit, describe_machine
from cli.support.dataset_loading import load_to_evaluate
from dataset.source import list_source
from training.evaluation.novelty import REFUSED, SURE, area_under_curve, nearness
from training.evaluation.out_of_distribution import out_of_distribution_images
from vision.image.decode import harden_pillow
from vision.image.preprocessing import Preprocessing
from vision.inference.encoder import Encoding, encode_all
from vision.inference.torch_encoder import TorchEncoder
from vision.model.open_set import read_detector

MOST = 300  # pictures of a folder
CUTS = 40  # of each photo that scikit-learn brings


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="the model's own kind of photos")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of other ones")
    given = parser.parse_args()
    harden_pillow()
    encoder = TorchEncoder.load(given.model, device="cpu")
    references = read_detector(given.model, encoder.manifest)
    if references is None:
        parser.error(f"{given.model} keeps no references")
    preprocessing = encoder.manifest.preprocessing
    test = load_to_evaluate(given.data, given.model).test
    own = _said(encoder, test.images_NCHW)
    strangers = {
        **out_of_distribution_images(preprocessing),
        "cuts of two photos (a temple, a flower)": _cuts(preprocessing),
        **{f"photos of {folder.name}": _folder(folder, preprocessing) for folder in given.others},
    }
    fitted_N = np.arange(len(test)) % 2 == 0
    distances_N, _ = nearness(references, own)
    tops_N = own.probabilities_BL.max(axis=1)
    least = float(np.quantile(tops_N[fitted_N], REFUSED))
    most = float(np.quantile(distances_N[fitted_N], 1 - REFUSED))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {commit()}, {describe_machine()}: {given.model.name}\n")
    print(
        "| pictures | n | certain of a class | certain and sure | refused | by probability alone "
        "| by distance alone | AUROC distance | AUROC probability |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, said in {
        "own photos": Encoding(*(part[~fitted_N] for part in own)),
        **{name: _said(encoder, images_NCHW) for name, images_NCHW in strangers.items()},
    }.items():
        theirs_N, agreeing_N = nearness(references, said)
        refused_N = (theirs_N > references.most_distance) | (
            agreeing_N < references.least_agreement
        )
        top_N = said.probabilities_BL.max(axis=1)
        shares = (
            (top_N >= SURE).mean(),
            ((top_N >= SURE) & ~refused_N).mean(),
            refused_N.mean(),
            (top_N < least).mean(),
            (theirs_N > most).mean(),
        )
        areas = (area_under_curve(distances_N, theirs_N), area_under_curve(-tops_N, -top_N))
        print(
            f"| {name} | {len(top_N)} | "
            + " | ".join([*(f"{share:.1%}" for share in shares), *(f"{a:.3f}" for a in areas)])
            + " |"
        )


def _said(encoder: TorchEncoder, images_NCHW: NDArray[np.uint8]) -> Encoding:
    return encode_all(encoder, images_NCHW)


def _cuts(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return random squares of the two photos that scikit-learn brings."""
    from sklearn.datasets import load_sample_images  # noqa: PLC0415 - takes a second

    generator = np.random.default_rng(0)
    cuts = []
    for pixels_HWC in load_sample_images().images:
        photo = Image.fromarray(pixels_HWC)
        for _ in range(CUTS):
            side = int(generator.integers(160, min(photo.size)))
            left, top = (int(generator.integers(0, edge - side + 1)) for edge in photo.size)
            cuts.append(preprocessing.pixels(photo.crop((left, top, left + side, top + side))))
    return np.stack(cuts)


def _folder(folder: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    files = list_source(folder).files
    step = max(1, len(files) // MOST)
    return np.stack(
        [
            preprocessing.pixels(preprocessing.decode(file.path.read_bytes()))
            for file in files[::step][:MOST]
        ]
    )


if __name__ == "__main__":
    main()
