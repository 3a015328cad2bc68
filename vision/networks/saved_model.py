"""A trained model on disk: a folder that appears whole or not at all, and is refused if harmed.

Nothing in the folder can run code: the weights are safetensors, the manifest is JSON, and documents
beside them (a training's report, for one) are never read back here.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from files.durable import sync_folder, write_bytes
from files.unfinished import unfinished
from vision.errors import ModelFolderError
from vision.model.export_folder import Export, write_export
from vision.model.manifest import MANIFEST_NAME, WEIGHTS_NAME, Manifest, read_manifest, read_weights
from vision.model.vector_classifier import read_classifier
from vision.networks.network import Network, build_network

# What fills a tensor with random numbers.
DRAWS: Final = frozenset(
    {
        *(Tensor.normal_, Tensor.uniform_),
        *(nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_),
        *(nn.init.kaiming_normal_, nn.init.kaiming_uniform_),
        *(nn.init.xavier_normal_, nn.init.xavier_uniform_),
    }
)


class _WithoutRandomNumbers(TorchFunctionMode):
    """Leaves tensors as they are where a network would draw its first weights; others follow.

    To draw the 140 million of VGG-19 takes longer than to read them.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if function in DRAWS:
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def load_model(folder: Path) -> tuple[Manifest, Network]:
    """Return the manifest and the network in evaluation mode, on the CPU, every byte checked.

    Classes that were fitted to vectors later are the network's classifier.

    Raises:
        ModelFolderError: the folder is missing, damaged, changed or of another version.
    """
    manifest = read_manifest(folder)
    weights = read_weights(folder, manifest)
    try:
        with _WithoutRandomNumbers():
            network = build_network(manifest.architecture, manifest.preprocessing)
    except ValueError as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    try:
        network.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ModelFolderError(
            f"{folder / WEIGHTS_NAME} does not fit a {manifest.architecture.network!r} network"
        ) from error
    classes = read_classifier(folder, manifest)
    if classes is not None:
        weight_LD, bias_L = torch.from_numpy(classes.weight_LD), torch.from_numpy(classes.bias_L)
        network = network.with_classifier(weight_LD, bias_L)
    return manifest, network.eval()


def save_model(
    folder: Path,
    manifest: Manifest,
    weights: Mapping[str, Tensor],
    describe: Callable[[Manifest], Mapping[str, bytes]] = lambda _: {},
) -> Manifest:
    """Write a model folder and return its manifest, now with the SHA-256 of ``weights``.

    The folder is written under a temporary name beside ``folder``, synced to disk and renamed, so a
    reader sees all of it or nothing. ``describe`` makes the documents that lie in it, by file name,
    of the finished manifest; nothing checks them later.

    Raises:
        ModelFolderError: ``folder`` exists already, or cannot be written (for one, a full disk);
            nothing is left behind.
    """
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
    manifest = replace(manifest, weights_sha256=hashlib.sha256(data).hexdigest())
    write_model(folder, manifest, data, describe(manifest))
    return manifest


def write_model(
    folder: Path,
    manifest: Manifest,
    weights: bytes,
    documents: Mapping[str, bytes],
    export: Export | None = None,
) -> None:
    """Write a model folder of files as they are, whole or not at all.

    Args:
        folder: must not be there yet.
        manifest: bound to the weights.
        weights: bytes of the weights file.
        documents: other files, by name.
        export: of this manifest.

    Raises:
        ModelFolderError: as ``save_model``.
    """
    if folder.exists():
        raise ModelFolderError(f"{folder} exists already; a model folder is never overwritten")
    try:
        with unfinished(folder) as made:
            write_bytes(made / WEIGHTS_NAME, [weights])
            write_bytes(made / MANIFEST_NAME, [manifest.to_bytes()])
            for name, document in documents.items():
                write_bytes(made / name, [document])
            if export is not None:
                write_export(made, export)
            sync_folder(made)
            made.rename(folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise ModelFolderError(f"cannot write {folder}: {error.strerror}") from error
