"""`lookalike pack`: puts a model folder into BentoML's model store, for `bentoml build` to take."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cli.console import print_json, say
from vision.manifest import MANIFEST_NAME, WEIGHTS_NAME, read_manifest, read_weights

STORE_NAME = "lookalike-model"


def pack(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put a model into BentoML's model store; `bentoml build` packs the newest one."""
    import bentoml  # noqa: PLC0415 - takes a second, which `lookalike --help` should not

    manifest = read_manifest(model)
    read_weights(model, manifest)
    with bentoml.models.create(
        STORE_NAME,
        labels={"name": manifest.name},
        metadata={"fingerprint": manifest.fingerprint},
    ) as stored:
        for name in (MANIFEST_NAME, WEIGHTS_NAME):
            shutil.copyfile(model / name, stored.path_of(name))
    if as_json:
        print_json({"tag": str(stored.tag), "fingerprint": manifest.fingerprint})
    else:
        say(f"Packed as {stored.tag}. Now: bentoml build")
