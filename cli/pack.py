"""`lookalike pack`: puts a model folder into BentoML's model store, for `bentoml build` to take."""

import shutil
from pathlib import Path

from cli.support.console import print_info, print_json
from cli.support.options import JsonOption, ModelArgument
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import has_export, read_export, write_export
from vision.model.manifest import MANIFEST_NAME, WEIGHTS_NAME, read_manifest, read_weights
from vision.model.open_set import REFERENCES_NAME, read_detector
from vision.model.vector_classifier import CLASSIFIER_NAME, read_classifier


def pack(
    model: ModelArgument,
    as_json: JsonOption = False,
) -> None:
    """Put a model into BentoML's model store; `bentoml build` packs the newest one."""
    # BentoML takes a second to import, which `lookalike --help` should not.
    import bentoml  # noqa: PLC0415

    from service.app import PACKED_MODEL  # noqa: PLC0415

    manifest = read_manifest(model)
    read_weights(model, manifest)
    with bentoml.models.create(
        PACKED_MODEL,
        labels={"name": manifest.name},
        metadata={"fingerprint": manifest.fingerprint},
    ) as stored:
        beside = (
            (CLASSIFIER_NAME, read_classifier(model, manifest)),
            (REFERENCES_NAME, read_detector(model, manifest)),
        )
        kept = [name for name, content in beside if content is not None]
        for name in (MANIFEST_NAME, WEIGHTS_NAME, *kept):
            shutil.copyfile(model / name, stored.path_of(name))
        if has_export(model, RUNTIME):
            write_export(Path(stored.path), read_export(model, manifest, RUNTIME))
        _let_everybody_read(Path(stored.path))  # the service may run as another user
    if as_json:
        print_json({"tag": str(stored.tag), "fingerprint": manifest.fingerprint})
    else:
        print_info(f"Packed as {stored.tag}. Now: bentoml build")
    if not has_export(model, RUNTIME):
        print_info(
            f"It has no export, so only what has torch can serve it: bentofile-cpu.yaml needs "
            f"`lookalike export {model}` first, and then to pack it again."
        )


def _let_everybody_read(folder: Path) -> None:
    """Have ``folder`` and all in it be read by every user, and changed by its owner alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
