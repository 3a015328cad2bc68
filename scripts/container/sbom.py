"""An image in, a CycloneDX bill of all that is inside out: Python's packages, Debian's, our own.

It is read from the image's own files, not from what was asked for. ``python -m
scripts.container.sbom`` writes ``build/sbom-KIND.json`` of each image that there is; it runs in the
environment of ``requirements-audit.lock``, which has CycloneDX's library.
"""

import argparse
import email
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from scripts.container.engine import ContainerError, image_name, pick_engine, run
from scripts.locks import ROOT

KINDS: Final = ("cpu", "gpu")
DEBIAN: Final = "var/lib/dpkg/status"
PYTHON: Final = "app/venv/lib/python3.11/site-packages/"
LABEL: Final = "org.opencontainers.image"


def components(archive: tarfile.TarFile) -> Iterator[Component]:
    """Yield what is installed in the files of an image, which are read once, in their order."""
    for member in archive:
        name = member.name.removeprefix("./")
        if name == DEBIAN:
            yield from _debian(_text(archive, member))
        elif name.startswith(PYTHON) and name.endswith(".dist-info/METADATA"):
            yield _python(_text(archive, member))


def _debian(status: str) -> Iterator[Component]:
    for paragraph in status.strip().split("\n\n"):
        fields = email.message_from_string(paragraph)
        if fields["Status"] != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        qualifiers = {"arch": fields["Architecture"], "distro": "debian-12"}
        purl = PackageURL("deb", "debian", name, version, qualifiers=qualifiers)
        yield Component(name=name, version=version, purl=purl, bom_ref=str(purl))


def _python(metadata: str) -> Component:
    fields = email.message_from_string(metadata)
    name, version = canonicalize_name(fields["Name"]), fields["Version"]
    purl = PackageURL("pypi", None, name, version)
    # The field of old has whole texts in it as well.
    said = fields["License-Expression"] or fields["License"] or ""
    licence = [LicenseFactory().make_from_string(said)] if said and "\n" not in said else []
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), licenses=licence)


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    return "" if file is None else file.read().decode()


def bill(found: Iterable[Component], labels: dict[str, str]) -> str:
    """Return the bill as JSON, valid by CycloneDX's schema: an image that has ``labels``.

    Raises:
        ContainerError: it is not valid.
    """
    product = Component(
        name="lookalike",
        type=ComponentType.CONTAINER,
        version=labels.get(f"{LABEL}.version"),
        description=labels.get(f"{LABEL}.title"),
        licenses=[LicenseFactory().make_from_string(labels.get(f"{LABEL}.licenses", "Apache-2.0"))],
        properties=[Property(name=key, value=value) for key, value in sorted(labels.items())],
    )
    model = Component(
        name="lookalike-model",
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=labels.get("lookalike.model"),
        bom_ref="lookalike-model",
    )
    made = Bom(components=[*found, model])
    made.metadata.component = product
    made.register_dependency(product, made.components)
    text: str = JsonV1Dot6(made).output_as_string(indent=1)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise ContainerError(f"the bill is not valid: {error}")
    return text


def files_of(engine: str, image: str) -> tuple[str, "subprocess.Popen[bytes]"]:
    """Return a container that was never started, and the process that hands out its files."""
    name = run(engine, "create", image)
    return name, subprocess.Popen([engine, "export", name], stdout=subprocess.PIPE)


def describe(engine: str, image: str) -> str:
    """Return the bill of an image.

    Raises:
        ContainerError: there is no such image, or it cannot be read.
    """
    labels: dict[str, str] = json.loads(
        run(engine, "image", "inspect", "--format", "{{json .Config.Labels}}", image)
    )
    name, process = files_of(engine, image)
    try:
        stdout: IO[bytes] | Any = process.stdout
        with tarfile.open(fileobj=stdout, mode="r|") as archive:
            found = list(components(archive))
        stdout.read()
        if process.wait() != 0:
            raise ContainerError(f"the files of {image} could not be read")
    finally:
        process.kill()
        run(engine, "rm", "--volumes", name)
    return bill(found, labels)


def main() -> int:
    """Write the bills of the images that there are; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="", help="docker or podman")
    given = parser.parse_args()
    try:
        engine = pick_engine(given.engine)
        there = [one for one in KINDS if run(engine, "images", "--quiet", image_name(one))]
        for kind in there:
            path = Path("build") / f"sbom-{kind}.json"
            (ROOT / path).write_text(describe(engine, image_name(kind)))
            print(path)
    except (ContainerError, tarfile.TarError) as error:
        print(f"No bill: {error}", file=sys.stderr)
        return 1
    if not there:
        print("No bill: there is no image; `make container` makes one", file=sys.stderr)
    return 0 if there else 1


if __name__ == "__main__":
    sys.exit(main())
