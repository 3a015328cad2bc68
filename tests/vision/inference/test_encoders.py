"""Every encoder takes any array of the right shape, whoever owns it and however it lies."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.cli.test_cli import lookalike
from tests.support.models import manifest, write_model
from tests.vision.export.test_export_model import export
from tests.vision.inference.test_cuda_encoder import LateStreams
from vision.image.preprocessing import Preprocessing
from vision.inference.cuda_encoder import CudaEncoder
from vision.inference.encoder import ImageEncoder, encode_all
from vision.inference.open_encoder import open_encoder
from vision.networks.saved_model import load_model

KINDS = ("torch", "openvino", "cuda")


@pytest.fixture(scope="module", params=[1, 3], ids=["gray", "colour"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an export, of one channel and of three."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    write_model(folder, channels=request.param)
    export(folder, precision="fp32")
    return folder


def opened(folder: Path, kind: str) -> ImageEncoder:
    if kind != "cuda":
        return open_encoder(folder, device="cpu", runtime=kind, threads=1)  # type: ignore[arg-type]
    read, network = load_model(folder)
    return CudaEncoder(read, network.eval(), torch.float32, LateStreams())


def laid_out(plain_BCHW: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Return the same pixels in memory that lies, and belongs, otherwise."""
    count, channels, height, width = plain_BCHW.shape
    frozen = plain_BCHW.copy()
    frozen.flags.writeable = False
    last = np.ascontiguousarray(plain_BCHW.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    frozen_last = last.view()
    frozen_last.flags.writeable = False
    wide = np.zeros((count, channels, height, 2 * width), np.uint8)
    wide[..., ::2] = plain_BCHW
    return {
        "read-only": frozen,
        "of bytes": np.frombuffer(plain_BCHW.tobytes(), np.uint8).reshape(plain_BCHW.shape),
        "channels last": last,
        "channels last, read-only": frozen_last,
        "every other pixel of wider ones": wide[..., ::2],
        "mirrored twice": np.ascontiguousarray(plain_BCHW[..., ::-1])[..., ::-1],
        "in Fortran's order": np.asfortranarray(plain_BCHW),
        "one picture shown often": np.broadcast_to(plain_BCHW[:1], plain_BCHW.shape),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 5, 40])
def test_any_array_of_the_right_shape_gives_the_same_answer(
    exported: Path, kind: str, count: int
) -> None:
    encoder = opened(exported, kind)
    channels = encoder.manifest.preprocessing.channels
    rng = np.random.default_rng(count)
    pixels_BCHW = rng.integers(0, 256, (count, channels, 28, 28), np.uint8)

    for layout, given_BCHW in laid_out(pixels_BCHW).items():
        before_BCHW = given_BCHW.copy()
        expected = encoder.encode(given_BCHW.copy(order="C"))
        answer = encoder.encode(given_BCHW)

        np.testing.assert_allclose(
            answer.vectors_BD, expected.vectors_BD, atol=1e-6, err_msg=layout
        )
        np.testing.assert_array_equal(given_BCHW, before_BCHW)
        batched = encode_all(encoder, given_BCHW, batch=4)
        np.testing.assert_allclose(
            batched.vectors_BD, expected.vectors_BD, atol=1e-5, err_msg=layout
        )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (40, 30), (1, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_pixels_are_contiguous_and_the_callers_own(
    channels: int, size: tuple[int, int], fit: str
) -> None:
    mean = (0.5,) * channels
    preprocessing = Preprocessing(size=28, channels=channels, mean=mean, std=mean, fit=fit)  # type: ignore[arg-type]
    image = Image.new("RGB", size, (9, 9, 9))

    pixels_CHW = preprocessing.pixels(image)

    assert pixels_CHW.flags.c_contiguous
    assert pixels_CHW.flags.writeable
    pixels_CHW[:] = 200
    assert image.getpixel((0, 0)) == (9, 9, 9)


def test_a_gray_exported_model_classifies_searches_and_replaces(
    tmp_path: Path, exported: Path
) -> None:
    shutil.copytree(exported, tmp_path / "model")
    photos = tmp_path / "photos" / "coat"
    photos.mkdir(parents=True)
    size = manifest().preprocessing.size
    for number in range(3):
        Image.new("L", (size, size), 80 * number).save(photos / f"{number}.png")
    picture = "photos/coat/1.png"
    commands = (
        ("classify", "model", picture),
        ("index", "build", "model", "--data", "photos", "--out", "gallery"),
        ("search", "gallery", picture),
        ("index", "replace", "gallery", "coat:1.png", picture),
    )

    for command in commands:
        done = lookalike(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
