"""What `lookalike serve` checks before it hands over: the settings, what they name, the port."""

import os
import socket

from service.config import ServiceSettings
from service.errors import ServiceConfigError
from vision.inference.open_encoder import takes_export
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import read_export
from vision.model.manifest import read_manifest, read_weights


def check_settings() -> ServiceSettings:
    """Return the settings in the environment, which are checked with the files that they name.

    Raises:
        ServiceConfigError: a setting is out of range, the key file cannot be used, nothing can be
            written to the folder for backups or read from that for imports, or what makes traces is
            not installed.
        ModelFolderError: the model folder is missing, damaged or changed.
        GalleryFolderError: the gallery cannot be used, belongs to another model, or is not there
            and may not be made.
    """
    # Here, because they keep `--help` quick.
    from service.inference.open_gallery import check_gallery  # noqa: PLC0415
    from service.security.api_keys import KeyRing  # noqa: PLC0415
    from service.telemetry.tracing import check_tracing  # noqa: PLC0415

    settings = ServiceSettings.from_environment()
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
    if settings.model is None:
        raise ServiceConfigError("no model folder was named")
    manifest = read_manifest(settings.model)
    if takes_export(settings.model, device=settings.device, runtime=settings.runtime):
        read_export(settings.model, manifest, RUNTIME)
    else:
        read_weights(settings.model, manifest)
    check_gallery(settings, manifest)
    if settings.device not in ("auto", "cpu"):
        from vision.inference.torch_encoder import pick_device  # noqa: PLC0415

        pick_device(settings.device)
    return settings


def check_port(host: str, port: int) -> None:
    """Check that a server can listen there.

    Raises:
        ServiceConfigError: it cannot, for one because another program does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ServiceConfigError(
                f"cannot listen on {host} port {port}: {getattr(error, 'strerror', error)}; "
                "choose another with --port"
            ) from error
