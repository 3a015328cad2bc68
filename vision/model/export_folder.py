"""An exported network on disk: files that another runtime than torch runs, and their manifest.

It lies in ``runtimes/<runtime>/`` of the model folder and leaves the model's own files as they are,
so galleries of the model stay usable. The manifest names the model it was made of and carries the
SHA-256 of every file and of its own text: what does not fit is refused. Knows no torch.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from files.checksummed_json import in_order, with_checksum
from files.durable import replace_file, sync_folder
from vision.errors import ModelFolderError
from vision.model.export_accuracy import Difference
from vision.model.manifest import MANIFEST_NAME, Manifest, read_checked, read_manifest_text

FORMAT: Final = "lookalike-runtime"
FORMAT_VERSION: Final = 2
FIRST_VERSION: Final = 1  # of exports of up to 0.5.0, which knew no bf16 and kept no attempts
ADDED: Final = ("floats", "batch", "tried")  # fields that the first version had not
RUNTIMES: Final = "runtimes"  # the folder of all exports of a model
SHOWN_DIGITS: Final = 12  # of a SHA-256

Precision = Literal["fp32", "bf16", "int8"]
FloatPrecision = Literal["fp32", "bf16"]
PrecisionOption = Literal["auto", "int8", "bf16", "fp32"]  # auto: the quickest that holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The images whose activations decided the ranges of small integers."""

    data: str
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredVariant:
    """One way to compute the network, as it was measured when the model was exported."""

    precision: Precision
    floats: FloatPrecision
    cpu_ms: dict[str, float]  # of one core for an image, by the images in a batch
    difference: Difference | None = None  # None: not compared, one that holds is quicker
    refusal: str | None = None  # why it was not taken; None: it would do, or was not compared

    @property
    def name(self) -> str:
        """The precision, and that of the rest of the numbers where it is another one."""
        return precision_name(self.precision, self.floats)

    @property
    def best_ms(self) -> float:
        """Milliseconds of one core for an image, in the batch that suits it best."""
        return min(self.cpu_ms.values())

    @property
    def best_batch(self) -> int:
        """Images at once that one core is quickest with."""
        return int(min(self.cpu_ms, key=lambda size: self.cpu_ms[size]))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        difference = None if self.difference is None else self.difference.to_json()
        return {**asdict(self), "difference": difference}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return what ``to_json`` gave; TypeError or KeyError: it did not give that."""
        difference = fields["difference"]
        compared = None if difference is None else Difference.from_json(difference)
        return cls(**{**fields, "difference": compared})


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
    floats: FloatPrecision = (
        "fp32"  # of the numbers that are not small integers, where the CPU has it
    )
    batch: int | None = None  # images at once that one core is quickest with; None: not measured
    tried: tuple[MeasuredVariant, ...] = ()  # all that were timed, the most exact first
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """Return the manifest's text, with its own checksum as the last field."""
        fields = asdict(self)
        fields["full_precision_layers"] = list(self.full_precision_layers)
        fields["difference"] = self.difference.to_json()
        fields["tried"] = [attempt.to_json() for attempt in self.tried]
        version = fields.pop("format_version")
        if version == FIRST_VERSION:
            for name in ADDED:
                del fields[name]
        fields = {"format": FORMAT, "format_version": version, **fields}
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
            version = fields["format_version"]
            if version not in (FIRST_VERSION, FORMAT_VERSION):
                raise ModelFolderError(
                    f"the export has format version {version!r}; this program reads "
                    f"{FIRST_VERSION} and {FORMAT_VERSION}"
                )
            fields.pop("manifest_sha256")
            calibration = fields["calibration"]
            manifest = cls(
                **{
                    **fields,
                    "full_precision_layers": tuple(fields["full_precision_layers"]),
                    "calibration": None if calibration is None else Calibration(**calibration),
                    "difference": Difference.from_json(fields["difference"]),
                    "tried": tuple(
                        MeasuredVariant.from_json(one) for one in fields.get("tried", ())
                    ),
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


def precision_name(precision: Precision, floats: FloatPrecision) -> str:
    """Return a precision in words, such as "int8 and bf16"."""
    return precision if floats in (precision, "fp32") else f"{precision} and {floats}"


def runtime_folder(model_folder: Path, runtime: str) -> Path:
    """Return where a model's export for ``runtime`` lies, or would lie."""
    return model_folder / RUNTIMES / runtime


def has_export(model_folder: Path, runtime: str) -> bool:
    """Say whether the model was exported for ``runtime``; it may still be refused when read."""
    return (runtime_folder(model_folder, runtime) / MANIFEST_NAME).is_file()


def read_export(model_folder: Path, model: Manifest, runtime: str) -> Export:
    """Return a model's export for ``runtime``. The bytes that were checked are those returned.

    Raises:
        ModelFolderError: there is none, it is damaged, changed or of another version, or it was
            made of another model.
    """
    folder = runtime_folder(model_folder, runtime)
    try:
        text = read_manifest_text(folder / MANIFEST_NAME, missing=f"no {MANIFEST_NAME} in {folder}")
        manifest = ExportManifest.from_bytes(text)
    except ModelFolderError as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    if manifest.runtime != runtime:
        raise ModelFolderError(f"{folder} holds an export for {manifest.runtime!r}")
    if manifest.model_sha256 != hashlib.sha256(model.to_bytes()).hexdigest():
        raise ModelFolderError(
            f"{folder} was made of another model ({manifest.model_fingerprint[:SHOWN_DIGITS]}…) "
            f"than {model.name!r} ({model.fingerprint[:SHOWN_DIGITS]}…): export this one again"
        )
    for name in manifest.files:
        if Path(name).name != name:
            raise ModelFolderError(f"{folder} names a file that is not in it: {name!r}")
    files = {name: read_checked(folder, name, sha256) for name, sha256 in manifest.files.items()}
    return Export(manifest, files)


def rebind(export: Export, model: Manifest) -> Export:
    """Return an export of a model's network for the same network with the classes of ``model``.

    Its files stay as they are; of what was measured, that of the vectors stays.
    """
    manifest = replace(
        export.manifest,
        model_sha256=hashlib.sha256(model.to_bytes()).hexdigest(),
        difference=export.manifest.difference.without_classes(),
        tried=tuple(
            replace(one, difference=one.difference and one.difference.without_classes())
            for one in export.manifest.tried
        ),
    )
    return Export(manifest, export.files)


def write_export(model_folder: Path, export: Export) -> None:
    """Put an export into its model folder, in place of one for the same runtime.

    Its files are named after their content and synced before the manifest, which is replaced in one
    step; so a reader finds the old export or the new one, whole.

    Raises:
        ModelFolderError: it cannot be written (for one, a full disk); an older one still stands.
    """
    folder = runtime_folder(model_folder, export.manifest.runtime)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in export.files.items():
            replace_file(folder / name, data)
        replace_file(folder / MANIFEST_NAME, export.manifest.to_bytes())
        for parent in (folder.parent, model_folder):
            sync_folder(parent)
        for path in folder.iterdir():
            if path.name not in (MANIFEST_NAME, *export.files):
                path.unlink()
    except OSError as error:
        raise ModelFolderError(f"cannot write {folder}: {error.strerror}") from error


def content_name(data: bytes, suffix: str) -> str:
    """Return the name under which a file of an export is kept."""
    return f"network-{hashlib.sha256(data).hexdigest()[:SHOWN_DIGITS]}{suffix}"
