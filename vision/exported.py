"""An exported network on disk: files that another runtime than torch runs, and their manifest.

It lies in ``runtimes/<runtime>/`` of the model folder and leaves the model's own files as they are,
so galleries of the model stay usable. The manifest names the model it was made of and carries the
SHA-256 of every file and of its own text: what does not fit is refused. Knows no torch.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, Self

from vision.errors import ModelFolderError
from vision.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest
from vision.sealed import sealed
from vision.synced import replace_synced, sync_folder

FORMAT: Final = "lookalike-runtime"
FORMAT_VERSION: Final = 1
RUNTIMES: Final = "runtimes"  # the folder of all exports of a model
SHOWN_DIGITS: Final = 12  # of a SHA-256

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far an export is from torch, measured on the same images with both."""

    images: int
    cosine_mean: float  # of an image's two vectors
    cosine_low: float  # that 1 % of the images do not reach
    cosine_min: float
    accuracy_torch: float  # in [0, 1], on images that are labelled
    accuracy: float  # likewise, of the export
    lost: int | None = None  # images that only torch is right of; None in exports of up to 0.4.0
    won: int | None = None  # images that only the export is right of

    @property
    def accuracy_loss(self) -> float:
        """Share of the images that torch gets right more often; negative: the export does."""
        return self.accuracy_torch - self.accuracy

    def to_json(self) -> dict[str, float]:
        """Return the figures as JSON values, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return (
            f"mean cosine {self.cosine_mean:.5f} (99 % above {self.cosine_low:.5f}, lowest "
            f"{self.cosine_min:.5f}), accuracy {self.accuracy:.2%}, with torch "
            f"{self.accuracy_torch:.2%}, on {self.images:,} images"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The images whose activations decided the ranges of small integers."""

    data: str
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportManifest:
    """Everything about an exported network but the network."""

    runtime: str  # that runs it
    runtime_version: str  # that it was measured with
    exporter: str  # what wrote it, with versions
    precision: Precision
    full_precision_layers: tuple[str, ...]  # of an int8 network, those that were left in fp32
    model_fingerprint: str
    model_sha256: str  # of the text of the model's manifest: weights, temperature, labels and all
    files: dict[str, str]  # SHA-256 (hexadecimal) of each, by name
    calibration: Calibration | None  # None: there was nothing to calibrate
    difference: Difference
    created: str  # ISO 8601, UTC

    def to_bytes(self) -> bytes:
        """Return the manifest's text, with its own checksum as the last field."""
        fields = asdict(self)
        fields["full_precision_layers"] = list(self.full_precision_layers)
        fields["difference"] = self.difference.to_json()
        return sealed({"format": FORMAT, "format_version": FORMAT_VERSION, **fields})

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
            if version != FORMAT_VERSION:
                raise ModelFolderError(
                    f"the export has format version {version!r}; this program reads "
                    f"{FORMAT_VERSION}"
                )
            fields.pop("manifest_sha256")
            calibration = fields["calibration"]
            manifest = cls(
                **{
                    **fields,
                    "full_precision_layers": tuple(fields["full_precision_layers"]),
                    "calibration": None if calibration is None else Calibration(**calibration),
                    "difference": Difference(**fields["difference"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFolderError("the manifest is damaged: not the JSON we wrote") from error
        if manifest.to_bytes() != text:
            raise ModelFolderError("the manifest was changed after it was written")
        return manifest


@dataclass(frozen=True, slots=True)
class Export:
    """An exported network, every byte checked."""

    manifest: ExportManifest
    files: dict[str, bytes]  # by name


def export_folder(model_folder: Path, runtime: str) -> Path:
    """Return where a model's export for ``runtime`` lies, or would lie."""
    return model_folder / RUNTIMES / runtime


def has_export(model_folder: Path, runtime: str) -> bool:
    """Say whether the model was exported for ``runtime``; it may still be refused when read."""
    return (export_folder(model_folder, runtime) / MANIFEST_NAME).is_file()


def read_export(model_folder: Path, model: Manifest, runtime: str) -> Export:
    """Return a model's export for ``runtime``. The bytes that were checked are those returned.

    Raises:
        ModelFolderError: there is none, it is damaged, changed or of another version, or it was
            made of another model.
    """
    folder = export_folder(model_folder, runtime)
    try:
        manifest = ExportManifest.from_bytes(_read(folder, MANIFEST_NAME, MAX_MANIFEST_BYTES))
    except ModelFolderError as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    if manifest.runtime != runtime:
        raise ModelFolderError(f"{folder} holds an export for {manifest.runtime!r}")
    if manifest.model_sha256 != hashlib.sha256(model.to_bytes()).hexdigest():
        raise ModelFolderError(
            f"{folder} was made of another model ({manifest.model_fingerprint[:SHOWN_DIGITS]}…) "
            f"than {model.name!r} ({model.fingerprint[:SHOWN_DIGITS]}…): export this one again"
        )
    files = {name: _read_file(folder, name, sha256) for name, sha256 in manifest.files.items()}
    return Export(manifest, files)


def write_export(model_folder: Path, export: Export) -> None:
    """Put an export into its model folder, in place of one for the same runtime.

    Its files are named after their content and synced before the manifest, which is replaced in one
    step; so a reader finds the old export or the new one, whole.

    Raises:
        ModelFolderError: it cannot be written (for one, a full disk); an older one still stands.
    """
    folder = export_folder(model_folder, export.manifest.runtime)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in export.files.items():
            replace_synced(folder / name, data)
        replace_synced(folder / MANIFEST_NAME, export.manifest.to_bytes())
        for parent in (folder.parent, model_folder):
            sync_folder(parent)
        for path in folder.iterdir():
            if path.name not in (MANIFEST_NAME, *export.files):
                path.unlink()
    except OSError as error:
        raise ModelFolderError(f"cannot write {folder}: {error.strerror}") from error


def named_after_content(data: bytes, suffix: str) -> str:
    """Return the name under which a file of an export is kept."""
    return f"network-{hashlib.sha256(data).hexdigest()[:SHOWN_DIGITS]}{suffix}"


def _read_file(folder: Path, name: str, sha256: str) -> bytes:
    if Path(name).name != name:
        raise ModelFolderError(f"{folder} names a file that is not in it: {name!r}")
    data = _read(folder, name)
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise ModelFolderError(
            f"{folder / name} was changed: its SHA-256 is {actual[:SHOWN_DIGITS]}…, "
            f"the manifest says {sha256[:SHOWN_DIGITS]}…"
        )
    return data


def _read(folder: Path, name: str, limit: int = -1) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            return file.read(limit)
    except FileNotFoundError as error:
        raise ModelFolderError(f"no {name} in {folder}") from error
    except OSError as error:
        raise ModelFolderError(f"cannot read {folder / name}: {error.strerror}") from error
