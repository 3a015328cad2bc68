"""A classifier that was fitted to unit vectors: it may come later than the network.

A model folder keeps it beside the weights, in a file whose SHA-256 is in the manifest. The network
stays as it is, and with it all vectors and the fingerprint, so galleries of the model stay valid.

Knows no torch. Shape suffixes: B images, D vector width, L labels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from vision.errors import ModelFolderError
from vision.model.manifest import Manifest, read_checked

CLASSIFIER_NAME: Final = "classes.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class VectorClassifier:
    """A linear layer from unit vectors to a logit for each label."""

    weight_LD: NDArray[np.float32]
    bias_L: NDArray[np.float32]

    def probabilities(
        self, vectors_BD: NDArray[np.float32], temperature: float
    ) -> NDArray[np.float32]:
        """Return the softmax (B, L) of the logits, divided by the temperature."""
        logits_BL = (vectors_BD @ self.weight_LD.T + self.bias_L) / np.float32(temperature)
        shares_BL: NDArray[np.float32] = np.exp(logits_BL - logits_BL.max(axis=1, keepdims=True))
        shares_BL /= shares_BL.sum(axis=1, keepdims=True)
        return shares_BL

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return safetensors.numpy.save({"weight": self.weight_LD, "bias": self.bias_L})

    @classmethod
    def from_bytes(cls, data: bytes, *, labels: int, width: int) -> Self:
        """Return what ``to_bytes`` wrote, for so many labels and vectors of this width.

        Raises:
            ModelFolderError: it is something else.
        """
        try:
            arrays = safetensors.numpy.load(data)
            weight_LD, bias_L = arrays["weight"], arrays["bias"]
        except (SafetensorError, KeyError) as error:
            raise ModelFolderError(
                f"{CLASSIFIER_NAME} is damaged: no linear layer in it"
            ) from error
        if (weight_LD.shape, bias_L.shape) != ((labels, width), (labels,)) or {
            weight_LD.dtype,
            bias_L.dtype,
        } != {np.dtype(np.float32)}:
            raise ModelFolderError(
                f"{CLASSIFIER_NAME} does not fit: {labels} rows of {width} numbers were expected"
            )
        return cls(weight_LD, bias_L)


def read_classifier(folder: Path, manifest: Manifest) -> VectorClassifier | None:
    """Return the classes that a model was given later; None where it has none but its network's.

    Raises:
        ModelFolderError: the file is missing, or not the one that the manifest describes.
    """
    if manifest.classes_sha256 is None:
        return None
    data = read_checked(folder, CLASSIFIER_NAME, manifest.classes_sha256)
    return VectorClassifier.from_bytes(
        data, labels=len(manifest.labels), width=manifest.architecture.width
    )
