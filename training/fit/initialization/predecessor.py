"""An earlier model folder in, a network that begins where that model ended out.

Backbone and embedding are taken as they are. Of the classifier, the rows of labels that both models
know are taken; those of new labels begin at random.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from training.errors import WeightsError
from vision.model.manifest import WEIGHTS_NAME, Manifest, read_manifest, read_weights
from vision.networks.network import Network

CLASSIFIER = "classifier"


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A trained model that a new one goes on from."""

    folder: Path
    manifest: Manifest

    @classmethod
    def at(cls, source: str) -> Self | None:
        """Return the model in the folder ``source``; None where that names no folder.

        Raises:
            ModelFolderError: the folder holds no model, or a damaged one.
        """
        folder = Path(source)
        return cls(folder, read_manifest(folder)) if folder.is_dir() else None

    def warm_start(
        self, network: Network, labels: tuple[str, ...], *, sha256: str | None = None
    ) -> None:
        """Fill ``network``, one of the same architecture for ``labels``, with this model's weights.

        Args:
            network: as ``build_network`` made it.
            labels: of its classifier's outputs, in order.
            sha256: what the file of weights must have, hexadecimal; None accepts any.

        Raises:
            ModelFolderError: the weights were changed.
            WeightsError: they are of another network, or not the expected ones; the network stays
                as it was.
        """
        if sha256 is not None and sha256.lower() != self.manifest.weights_sha256:
            raise WeightsError(
                f"the weights of {self.folder} have the SHA-256 "
                f"{self.manifest.weights_sha256[:12]}…, {sha256[:12]}… was expected"
            )
        state = network.state_dict()
        given = self._read()
        taken = {name: given.get(name) for name in state if not name.startswith(f"{CLASSIFIER}.")}
        for name, tensor in taken.items():
            if tensor is None or tensor.shape != state[name].shape:
                came = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
                raise WeightsError(
                    f"{self.folder} does not fit this network: {name} {came}, "
                    f"{tuple(state[name].shape)} is needed. It was trained with images of "
                    f"{self.manifest.preprocessing.size} pixels: leave the size as it is"
                )
        network.load_state_dict({**state, **taken, **self._classifier(state, given, labels)})

    def _read(self) -> dict[str, Tensor]:
        try:
            return safetensors.torch.load(read_weights(self.folder, self.manifest))
        except SafetensorError as error:
            raise WeightsError(f"{self.folder / WEIGHTS_NAME} does not hold weights") from error

    def _classifier(
        self, state: dict[str, Tensor], given: dict[str, Tensor], labels: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Return the classifier's tensors, a row per label: ours where the label is known here."""
        # Classes that were fitted to vectors later are not those of the network's own classifier.
        own = self.manifest.labels if self.manifest.classes_sha256 is None else ()
        rows = {label: row for row, label in enumerate(own)}
        both = [(place, rows[label]) for place, label in enumerate(labels) if label in rows]
        taken: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if name.startswith(f"{CLASSIFIER}."):
                taken[name] = tensor.clone()
                for here, there in both:
                    taken[name][here] = given[name][there]
        return taken
