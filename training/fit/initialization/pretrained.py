"""Pretrained weights into a backbone: a published name or a file in, checked tensors copied.

Files are read once, and what was hashed is what is loaded. Nothing in them can run code:
safetensors holds tensors only, and PyTorch's own format is read by its restricted unpickler.
"""

import hashlib
import io
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard
from urllib.parse import urlsplit

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from training.errors import WeightsError
from training.recipes.packaged_weights import PACKAGES, read_packaged
from training.recipes.recipe import PACKAGED
from vision.model.manifest import MANIFEST_NAME
from vision.networks.backbone import Backbone
from vision.networks.model_zoo import published_weights, split_name, timm_library

TIMM_SOURCE: Final = "pretrained"  # timm's name for the weights it fetches itself
SAFETENSORS: Final = ".safetensors"
PYTORCH: Final = (".pth", ".pt")
ZIP_START: Final = b"PK\x03\x04"  # PyTorch's format is a zip archive since version 1.6
HUB_HASH: Final = re.compile(
    r"-([0-9a-f]{8,64})$"
)  # torch.hub: the name ends in the SHA-256's start
SHA256: Final = re.compile(r"[0-9a-f]{64}")
WRAPPERS: Final = ("state_dict", "model")  # where a training script's checkpoint keeps the weights
PARALLEL: Final = "module."  # what DataParallel puts before every name
POSITIONS: Final = "pos_embed"  # in the names of tensors with a row for each patch of an image
ONE_SIZE: Final = "position embeddings are for one size of image: leave the size as it is"
COUNTER: Final = "num_batches_tracked"  # batch normalisation's; weights of before 2019 have none
# torchvision's DenseNet weights are older than its names: norm.1 of a layer is norm1 now.
DENSENET_NAME: Final = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Where a backbone's weights came from, and their very bytes."""

    source: str  # the name of the published weights, or of the file
    sha256: str  # hexadecimal, of the file; of the tensors where timm fetched them


def load_pretrained(
    backbone: nn.Module, network: str, source: str, *, sha256: str | None = None
) -> Pretrained:
    """Fill ``backbone``, a ``Backbone`` made from ``network``, with pretrained weights.

    Args:
        backbone: what to fill.
        network: ``torchvision:NAME`` or ``timm:NAME``.
        source: a ``.safetensors``, ``.pth`` or ``.pt`` file; ``packaged``, of those that come
            along; a name of torchvision's, like ``IMAGENET1K_V1`` or ``DEFAULT``, from torch.hub's
            cache or the network; or ``pretrained``, which leaves it to timm.
        sha256: what the weights must have, 64 hexadecimal digits; None accepts any.

    Raises:
        WeightsError: the weights cannot be had or read, were changed, or are of another network;
            the backbone stays as it was.
    """
    if not isinstance(backbone, Backbone):
        raise WeightsError(
            f"{network!r} is not a network with pretrained weights; its weights are those of a "
            f"model folder of the same network, or `none`, not {source!r}"
        )
    expected = sha256.lower() if sha256 is not None else None
    if expected is not None and not SHA256.fullmatch(expected):
        raise WeightsError(f"a SHA-256 has 64 hexadecimal digits, got {sha256!r}")
    if Path(source).suffix.lower() in (SAFETENSORS, *PYTORCH):
        pretrained, given = _read(Path(source), expected)
    else:
        pretrained, given = _published(network, source, expected)
    fitting = _fitting(given, backbone, network, source)
    for name, tensor in backbone.body.state_dict().items():
        if name in fitting:
            tensor.copy_(fitting[name])
    return pretrained


def _published(
    network: str, source: str, expected: str | None
) -> tuple[Pretrained, dict[str, Tensor]]:
    """Return weights that the library publishes under the name ``source``."""
    library, model = split_name(network)
    if source == PACKAGED:
        name, digest, given = read_packaged(network)
        _check_digest(f"the weights of {network}", digest, expected)
        return Pretrained(name, digest), given
    if library == "timm":
        if source != TIMM_SOURCE:
            known_here = f"{PACKAGED!r}, " if network in PACKAGES else ""
            raise WeightsError(
                f"weights of {network} are {known_here}{TIMM_SOURCE!r}, a file ({_suffixes()}) or "
                f"a model folder, not {source!r}"
            )
        return _fetched_by_timm(network, model, expected)
    known = published_weights(model)
    if source not in known:
        raise WeightsError(
            f"weights of {network} are {', '.join(known)}, a file ({_suffixes()}) or a model "
            f"folder, not {source!r}"
        )
    pretrained, given = _read(_in_hub_cache(network, known[source].url), expected)
    return Pretrained(known[source].name, pretrained.sha256), given


def is_at_hand(network: str, source: str) -> bool:
    """Return whether weights that torchvision publishes need no download; they may be damaged."""
    known = published_weights(split_name(network)[1])
    return source in known and _hub_path(known[source].url).exists()


def _hub_path(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _in_hub_cache(network: str, url: str) -> Path:
    """Return the file of torch.hub's cache that holds ``url``, after downloading it if need be."""
    path = _hub_path(url)
    if path.exists():
        return path
    prefix = HUB_HASH.search(path.stem)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(path), prefix.group(1) if prefix else None, progress=sys.stderr.isatty()
        )
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: wrong hash
        raise WeightsError(
            f"cannot download the weights of {network}: {error}. Fetch {url} elsewhere and put it "
            f"into {path.parent}, or name the file: --weights FILE"
        ) from error
    return path


def _fetched_by_timm(
    network: str, model: str, expected: str | None
) -> tuple[Pretrained, dict[str, Tensor]]:
    timm = timm_library()
    # Its warnings of every try, over most of a minute, would hide the one sentence that is ours.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        whole = timm.create_model(model, pretrained=True)
    except Exception as error:  # of several download libraries
        place = timm.get_pretrained_cfg(model)
        address = (place.hf_hub_id or place.url) if place is not None else None
        raise WeightsError(
            f"timm cannot get the weights of {network}: {_first_line(error)}. "
            + (f"Fetch them elsewhere (timm has them from {address})" if address else "Find others")
            + " and name the file: --weights FILE"
        ) from error
    given = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    digest = hashlib.sha256(safetensors.torch.save(given)).hexdigest()
    _check_digest(f"the weights of {network}", digest, expected)
    return Pretrained(TIMM_SOURCE, digest), given


def _read(path: Path, expected: str | None) -> tuple[Pretrained, dict[str, Tensor]]:
    """Return the tensors of a weights file by name, checked against what is known of its hash."""
    if (path.parent / MANIFEST_NAME).exists():
        raise WeightsError(
            f"{path} is a part of a model folder; to go on from that model, name the folder "
            f"{path.parent}"
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weights file {path}") from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    prefix = HUB_HASH.search(path.stem)
    _check_digest(f"{path}", digest, prefix.group(1) if prefix else None)
    _check_digest(f"{path}", digest, expected)
    content = _safetensors(path, data) if path.suffix.lower() == SAFETENSORS else _pth(path, data)
    return Pretrained(path.name, digest), _tensors(path, content)


def _check_digest(what: str, digest: str, expected: str | None) -> None:
    if expected is not None and not digest.startswith(expected):
        raise WeightsError(
            f"{what}: changed or cut short; its SHA-256 is {digest[:12]}…, "
            f"{expected[:12]}… was expected"
        )


def _safetensors(path: Path, data: bytes) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file, or is cut short: {error}") from error


def _pth(path: Path, data: bytes) -> object:
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler's errors have no common base
        if data.startswith(ZIP_START) and isinstance(error, RuntimeError):
            raise WeightsError(f"{path} is cut short or damaged") from error
        raise WeightsError(
            f"{path} is not a file of weights: it is damaged, or holds other things than tensors, "
            "which are not loaded because they could run code"
        ) from error


def _tensors(path: Path, content: object) -> dict[str, Tensor]:
    """Return the tensors by name, out of the wrappings that training scripts put around them."""
    if isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(inner) == 1:
            content = inner[0]
    if not _is_weights(content):
        raise WeightsError(f"{path} does not hold tensors by name, as weights do")
    tensors = dict(content)
    if all(name.startswith(PARALLEL) for name in tensors):
        tensors = {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}
    return {DENSENET_NAME.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}


def _is_weights(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def _fitting(
    given: Mapping[str, Tensor], backbone: Backbone, network: str, source: str
) -> dict[str, Tensor]:
    """Return the tensors that ``backbone`` needs; what was cut away may be there in any shape.

    Raises:
        WeightsError: a tensor is missing, of another form, or not known to the network.
    """
    # A traced network also lists constants that no weights file holds; they are in place already.
    needed = {k: v for k, v in backbone.body.state_dict().items() if k in backbone.full_shapes}
    missing = [k for k in needed if k not in given and not k.endswith(COUNTER)]
    unknown = [k for k in given if k not in backbone.full_shapes]
    unlike = [k for k, v in needed.items() if k in given and _form(given[k]) != _form(v)]
    if missing or unknown or unlike:
        if unlike:
            example = f"{unlike[0]} is {_form(given[unlike[0]])}, not {_form(needed[unlike[0]])}"
        elif missing:
            example = f"{missing[0]} is missing"
        else:
            example = f"{unknown[0]} is unknown"
        raise WeightsError(
            f"{source} does not fit {network}: of {len(needed)} tensors {len(missing)} are missing "
            f"and {len(unlike)} of another form, and {len(unknown)} are unknown; {example}"
            + (f"; {ONE_SIZE}" if any(POSITIONS in name for name in unlike) else "")
        )
    return {name: given[name] for name in needed if name in given}


def _form(tensor: Tensor) -> str:
    kind = "numbers" if tensor.is_floating_point() else "whole numbers"
    sparse = "" if tensor.layout == torch.strided else "sparse "
    return f"{tuple(tensor.shape)} {sparse}{kind}"


def _suffixes() -> str:
    return ", ".join((SAFETENSORS, *PYTORCH))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
