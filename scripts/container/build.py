"""A model folder in, an image out: packed, made a bento, and the bento built by an engine.

``python -m scripts.container.build cpu --model MODEL``, from this checkout.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import yaml  # type: ignore[import-untyped]

from scripts.container.engine import (
    CONTAINERFILE,
    ContainerError,
    default_base,
    image_name,
    pick_engine,
    run,
)
from scripts.locks import ROOT
from vision.errors import VisionError
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import has_export, read_export
from vision.model.manifest import read_manifest

BENTOFILES: Final = {"cpu": "bentofile-cpu.yaml", "gpu": "bentofile.yaml"}
MODEL: Final = "lookalike-model"  # its name in BentoML's model store
LABEL: Final = "org.opencontainers.image"  # of the OCI's image specification, annotations


def build_bento(kind: str, model: Path, home: Path) -> tuple[Path, Path]:
    """Return the folders of a new bento and of the model packed in it, in a store of their own.

    Args:
        kind: ``cpu`` or ``gpu``.
        model: the model folder.
        home: of BentoML, which is made anew.

    Raises:
        ContainerError: one of the commands failed, or a model for CPUs has no export.
        VisionError: the model or its export cannot be used.
    """
    manifest = read_manifest(model)
    if kind == "cpu":
        if not has_export(model, RUNTIME):
            raise ContainerError(
                f"{model} has no export, and without torch nothing else computes: "
                "run `lookalike export` on it first"
            )
        read_export(model, manifest, RUNTIME)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    os.environ.update(BENTOML_HOME=str(home), BENTOML_DO_NOT_TRACK="True")
    run(sys.executable, "-m", "cli.main", "pack", str(model.resolve()))
    run(sys.executable, "-m", "bentoml", "build", "--bentofile", str(ROOT / BENTOFILES[kind]), ".")
    (bento,) = home.glob("bentos/*/*/bento.yaml")
    (packed,) = home.glob(f"models/{MODEL}/*/manifest.json")
    return bento.parent, packed.parent


def lay_context(bento: Path, model: Path, kind: str, context: Path) -> None:
    """Lay out what the image is built from: the bento's code and lock, the model, our own parts."""
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(bento / "src", context / "src")
    shutil.copytree(model, context / "model", ignore=shutil.ignore_patterns("model.yaml"))
    # BentoML repeats its own pin at the end, without hashes.
    lines = (bento / "env/python/requirements.txt").read_text().rstrip().splitlines()[:-1]
    (context / "requirements.txt").write_text("\n".join(lines) + "\n")
    other = {"cpu": "unused-gpu.txt", "gpu": "-"}[kind]
    for part in CONTAINERFILE.parent.iterdir():
        if part.is_file() and part.name != other:
            shutil.copy(part, context)


def version() -> str:
    """Return the version of the product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def labels(bento: Path, model: Path, kind: str, base: str) -> dict[str, str]:
    """Return what the image says of itself: the OCI's keys, the bento's and the model's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    described = yaml.safe_load((bento / "bento.yaml").read_text())
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    made = datetime.datetime.now(datetime.UTC)
    if epoch is not None:
        made = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    name, _, digest = base.partition("@")
    found = {
        f"{LABEL}.title": f"lookalike ({kind.upper()})",
        f"{LABEL}.description": project["description"],
        f"{LABEL}.version": project["version"],
        f"{LABEL}.revision": _revision(),
        f"{LABEL}.created": made.isoformat(timespec="seconds"),
        f"{LABEL}.licenses": project["license"],
        f"{LABEL}.base.name": name,
        f"{LABEL}.base.digest": digest,
        "com.bentoml.bento": f"{described['name']}:{described['version']}",
        "lookalike.model": read_manifest(model).fingerprint,
    }
    found |= {f"com.bentoml.label.{key}": value for key, value in described["labels"].items()}
    return {key: value for key, value in found.items() if value}


def build_image(kind: str, context: Path, *, engine: str, base: str, said: dict[str, str]) -> str:
    """Build the image of a kind; return its name, which has the version in it.

    The certificate that ``PIP_CERT`` names for pip serves there as well.

    Raises:
        ContainerError: the engine could not.
    """
    name = f"lookalike:{version()}-{kind}"
    command = [engine, "build", "--file", str(context / "Containerfile"), "--build-arg"]
    command += [f"BASE={base}", "--tag", name, "--tag", image_name(kind)]
    if engine != "docker":  # the OCI's own format has no HEALTHCHECK
        command += ["--format", "docker", "--layers"]
    if certificate := os.environ.get("PIP_CERT"):
        command += ["--secret", f"id=cert,src={certificate}"]
    for key, value in said.items():
        command += ["--label", f"{key}={value}"]
    done = subprocess.run([*command, str(context)], check=False)
    if done.returncode != 0:
        raise ContainerError(f"{engine} could not build the image; what it said is above")
    return name


def _revision() -> str:
    """Return the commit of this checkout, marked where it has changes; empty outside of git."""
    try:
        return run(
            "git",
            "-C",
            str(ROOT),
            "describe",
            "--always",
            "--exclude",
            "*",
            "--dirty",
            "--abbrev=40",
        )
    except (ContainerError, OSError):
        return ""


def main() -> int:
    """Build an image; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=tuple(BENTOFILES))
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--engine", default="", help="docker, podman or buildah")
    parser.add_argument("--base", default="", help="base image, instead of the Containerfile's")
    given = parser.parse_args()
    work, base = ROOT / "build" / "container" / given.kind, given.base or default_base()
    try:
        engine = pick_engine(given.engine)
        bento, model = build_bento(given.kind, given.model, work / "bentoml")
        lay_context(bento, model, given.kind, work / "context")
        said = labels(bento, model, given.kind, base)
        name = build_image(given.kind, work / "context", engine=engine, base=base, said=said)
    except (ContainerError, VisionError) as error:
        print(f"No image: {error}", file=sys.stderr)
        return 1
    print(f"{name}, also called {image_name(given.kind)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
