"""What a model folder says about itself: ``manifest.json``, read and checked without torch.

The manifest carries the SHA-256 of the weights file and of its own text. The text is canonical (one
way to write each manifest), so that one changed byte anywhere is refused.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

from files.checksummed_json import checksum, in_order, with_checksum
from vision.errors import ModelFolderError
from vision.image.preprocessing import Preprocessing

FORMAT: Final = "lookalike-model"
FIRST_VERSION: Final = 1
FORMAT_VERSION: Final = 2  # of manifests with classes of their own; all others keep the first
MANIFEST_NAME: Final = "manifest.json"
WEIGHTS_NAME: Final = "weights.safetensors"
MAX_MANIFEST_BYTES: Final = 64 * 2**20  # 100,000 labels need about 2 MiB
EMBEDDING_LAYER: Final = "embedding"  # the one of our own networks

# Of a backbone's features to a vector: as they are, by a learnt layer, by principal components, or
# two parts side by side: what tells one thing from another, and what tells kinds apart.
Reduction = Literal["none", "projection", "pca", "item-and-kind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Which network, and what it gives out."""

    network: str  # a name that vision.networks.network.build_network knows
    embedding_layer: str  # whose output, reduced to width and scaled to unit length, is the vector
    width: int  # numbers in a vector
    num_labels: int  # classes of the network's own classifier; 0: it has none
    # How a backbone's layer is brought to width; our own networks have nothing to reduce: None.
    reduction: Reduction | None = None
    # Of item-and-kind: how many of the numbers, the first ones, tell one thing from another, and
    # the share of the others, which tell kinds apart, in a score.
    item_width: int | None = None
    kind_share: float | None = None
    mirrored: bool = False  # a backbone's features are the mean over a picture and its mirror image

    def __post_init__(self) -> None:
        if (self.reduction == "item-and-kind") != (self.item_width is not None):
            raise ValueError("item_width goes with the reduction item-and-kind, and only with it")
        if (self.item_width is None) != (self.kind_share is None):
            raise ValueError("item_width and kind_share go together")
        if self.item_width is not None and not 0 < self.item_width < self.width:
            raise ValueError(
                f"item_width must lie between 0 and the width {self.width}, got {self.item_width}"
            )
        if self.kind_share is not None and not 0 < self.kind_share < 1:
            raise ValueError(f"kind_share must lie between 0 and 1, got {self.kind_share}")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without those that say nothing.

        Folders written before there were such fields keep their text and their fingerprint.
        """
        fields = asdict(self)
        for name in ("reduction", "item_width", "kind_share"):
            if fields[name] is None:
                del fields[name]
        if not self.mirrored:
            del fields["mirrored"]
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything about a trained model but its weights.

    ``recipe``, ``data`` and ``metrics`` are for people and reports; ``architecture``,
    ``preprocessing`` and the weights decide the vectors, and with them the fingerprint.
    """

    name: str
    architecture: Architecture
    labels: tuple[str, ...]  # in the order of the classifier's outputs; () where there is none
    preprocessing: Preprocessing
    weights_sha256: str  # hexadecimal
    created: str  # ISO 8601, UTC
    temperature: float = (
        1.0  # logits are divided by it before softmax (Guo et al. 2017, section 4.2)
    )
    recipe: dict[str, Any] = field(default_factory=dict)  # the training set-up, complete
    data: dict[str, Any] = field(default_factory=dict)  # name, counts and fingerprint of the data
    metrics: dict[str, float] = field(default_factory=dict)  # ratios in [0, 1], times in seconds
    # Of the classifier that was fitted to vectors later (``vision.model.vector_classifier``),
    # hexadecimal; it answers in place of the network's own. None: there is no such.
    classes_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.classes_sha256 is None and len(self.labels) != self.architecture.num_labels:
            raise ValueError(
                f"{self.architecture.num_labels} labels expected, got {len(self.labels)}"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of all that decides the vectors: equal ones, equal vectors."""
        deciding = {
            "architecture": self.architecture.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "weights_sha256": self.weights_sha256,
        }
        return checksum(deciding, in_order)

    def to_bytes(self) -> bytes:
        """Return the manifest's text, with its own checksum as the last field."""
        version = FIRST_VERSION if self.classes_sha256 is None else FORMAT_VERSION
        fields = {"format": FORMAT, "format_version": version, **asdict(self)}
        if self.classes_sha256 is None:
            del fields["classes_sha256"]
        fields["architecture"] = self.architecture.to_json()
        fields["preprocessing"] = self.preprocessing.to_json()
        return with_checksum(fields, in_order, name="manifest_sha256")

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """Return the manifest that ``to_bytes`` wrote.

        Raises:
            ModelFolderError: not a manifest, of another version, or changed since it was written.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ModelFolderError(f"the manifest is not of format {FORMAT!r}")
            version = fields.pop("format_version")
            if isinstance(version, int) and version > FORMAT_VERSION:
                raise ModelFolderError(
                    f"the model folder has format version {version}; this program reads up to "
                    f"{FORMAT_VERSION}: use a newer one"
                )
            if version not in (FIRST_VERSION, FORMAT_VERSION):
                raise ModelFolderError(f"unknown format version {version!r}")
            fields.pop("manifest_sha256")
            manifest = cls(
                **{
                    **fields,
                    "architecture": Architecture(**fields["architecture"]),
                    "preprocessing": Preprocessing.from_json(fields["preprocessing"]),
                    "labels": tuple(fields["labels"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFolderError("the manifest is damaged: not the JSON we wrote") from error
        if manifest.to_bytes() != text:
            raise ModelFolderError("the manifest was changed after it was written")
        return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the model folder, checked against its own checksum.

    Raises:
        ModelFolderError: the folder or the manifest is missing, damaged or of another version.
    """
    path = folder / MANIFEST_NAME
    text = read_manifest_text(path, missing=f"{folder} is not a model folder: no {MANIFEST_NAME}")
    try:
        return Manifest.from_bytes(text)
    except ModelFolderError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def read_manifest_text(path: Path, *, missing: str) -> bytes:
    """Return the bytes of a manifest, no more than one may have.

    Raises:
        ModelFolderError: it cannot be read; ``missing`` says what it means that it is not there.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise ModelFolderError(missing) from error
    except OSError as error:
        raise ModelFolderError(f"cannot read {path}: {error.strerror}") from error


def read_weights(folder: Path, manifest: Manifest) -> bytes:
    """Return the bytes of the weights file, after checking them against the manifest.

    The bytes that were checked are the bytes that are returned: the file is read once.

    Raises:
        ModelFolderError: the file is missing, or not the one the manifest describes.
    """
    return read_checked(folder, WEIGHTS_NAME, manifest.weights_sha256)


def read_checked(folder: Path, name: str, sha256: str) -> bytes:
    """Return a file of a folder that has this SHA-256, as the folder's manifest says.

    Raises:
        ModelFolderError: the file is missing, or not the one that the manifest describes.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFolderError(f"{folder} has no {name}, which its manifest names") from error
    except OSError as error:
        raise ModelFolderError(f"cannot read {path}: {error.strerror}") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise ModelFolderError(
            f"{path} was changed: its SHA-256 is not the manifest's: {actual[:12]}…, where "
            f"{sha256[:12]}… is expected"
        )
    return data
