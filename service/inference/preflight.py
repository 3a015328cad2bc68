"""What is looked at before a server starts, however it is started: settings, and what they name.

A start that cannot succeed ends here, within a second, with the sentence of an error. What only
takes shape in a worker, such as the network's weights on a GPU, ends the server from there.
"""

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Final

from service.config import PREFIX, ServiceSettings
from service.errors import ServiceConfigError
from service.inference.open_gallery import check_gallery, make_gallery
from service.security.api_keys import KeyRing
from service.telemetry.tracing import check_tracing
from vision.errors import DeviceError
from vision.inference.open_encoder import takes_export
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import read_export
from vision.model.manifest import read_manifest, read_weights

# One of them is there where torch may find a CUDA device: Linux, WSL, AMD's.
_GPU_DRIVERS: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
_checked: set[Path] = set()  # models of the servers that this process may start


def check_start(settings: ServiceSettings, model: Path) -> None:
    """Check all that can be found out quickly, and make the gallery if it may be new.

    Workers that start later make no second one.

    Args:
        settings: of the service.
        model: folder of the model to serve.

    Raises:
        ServiceConfigError: a file or folder that a setting names cannot be used, or what computes
            or makes traces is not installed.
        ModelFolderError: the model folder is missing, damaged or changed.
        DeviceError: there is no such device.
        GalleryFolderError, StorageError: the gallery cannot be used or made, belongs to another
            model, or is not there and may not be made.
        OSError: something cannot be read.
    """
    check_settings(settings, model)
    make_gallery(settings, read_manifest(model), model_folder=model)
    os.environ[f"{PREFIX}CREATE"] = "false"


def check_settings(settings: ServiceSettings, model: Path) -> None:
    """Check the settings with the files that they name, once a process; make nothing.

    Raises: as ``check_start``.
    """
    if model in _checked:
        return
    _check_temporary_folder()
    check_tracing(settings)
    if settings.api_keys_file is not None:
        KeyRing.load(settings.api_keys_file)
    if settings.backups_dir is not None and not os.access(settings.backups_dir, os.W_OK | os.X_OK):
        raise ServiceConfigError(
            f"the folder for backups, {settings.backups_dir}, must exist and be writable"
        )
    if settings.imports_dir is not None and not (
        settings.imports_dir.is_dir() and os.access(settings.imports_dir, os.R_OK | os.X_OK)
    ):
        raise ServiceConfigError(
            f"the folder for imports, {settings.imports_dir}, must exist and be readable"
        )
    manifest = read_manifest(model)
    if takes_export(model, device=settings.device, runtime=settings.runtime):
        read_export(model, manifest, RUNTIME)
    else:
        _check_torch(settings, model)
        read_weights(model, manifest)
    check_gallery(settings, manifest)
    _checked.add(model)


def _check_temporary_folder() -> None:
    """Check that workers can share what they count, and the supervisor has a place."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ServiceConfigError(
            "no folder for temporary files can be written to: mount one at /tmp, or name one by "
            "the variable TMPDIR"
        ) from error


def _check_torch(settings: ServiceSettings, model: Path) -> None:
    """Check that torch is there, and a driver where a GPU is asked for; imports nothing."""
    device = settings.device
    if importlib.util.find_spec("torch") is None:
        if device not in ("auto", "cpu"):
            why = f"the device {device!r} needs torch, which is not installed here: use the image "
            raise ServiceConfigError(why + "for GPUs, or the device cpu")
        if settings.runtime != "auto":
            why = f"the runtime {settings.runtime!r} was asked for, and it is not installed here: "
            raise ServiceConfigError(why + "use the runtime auto, or the image for GPUs")
        raise ServiceConfigError(
            f"{model} has no export for the CPU that could serve here, and torch is not installed: "
            "run `lookalike export` on the model where it is, and serve or pack that"
        )
    kind = device.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not any(path.exists() for path in _GPU_DRIVERS):
        raise DeviceError(
            f"device {device!r} is not there: this machine, or container, has no driver of a GPU; "
            "give it one, or use the device auto or cpu"
        )
