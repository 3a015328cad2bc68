"""The base image, also where no registry is reached: made of Debian's own packages there.

``localhost/debian:bookworm-slim`` holds what the registry's image of that name does. debootstrap
makes it, as root, from this machine's Debian mirror. ``python -m scripts.container.debian_base``
prints the name of the base to use.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Final

from scripts.container.engine import ContainerError, default_base, pick_engine, run
from scripts.locks import ROOT

NAME: Final = "localhost/debian:bookworm-slim"
SUITE: Final = "bookworm"
# What the slim images of Debian leave out, and what no image keeps.
LEFT_OUT: Final = ("usr/share/man", "usr/share/info", "usr/share/locale")
FORGOTTEN: Final = ("var/cache/apt", "var/lib/apt/lists", "var/log/apt")


def mirror() -> str:
    """Return the mirror that this machine's own sources name.

    Raises:
        ContainerError: they name none.
    """
    for source in sorted(Path("/etc/apt").glob("sources.list*/**/*")):
        if source.is_file() and (
            found := re.search(r"https?://\S+/debian(?=\s|$)", source.read_text())
        ):
            return found[0]
    raise ContainerError("this machine's apt sources name no mirror of Debian")


def find_base(engine: str, work: Path) -> str:
    """Return the name of the Containerfile's base if it can be had, else of one that is made.

    Raises:
        ContainerError: there is neither.
    """
    try:
        run(engine, "pull", default_base())
    except ContainerError:
        return make_base(engine, work)
    return default_base()


def make_base(engine: str, work: Path) -> str:
    """Return the name of the image, which is made unless there is one already.

    Raises:
        ContainerError: there is no mirror, or debootstrap or the engine failed.
    """
    if run(engine, "images", "--quiet", NAME):
        return NAME
    root, archive = work / "root", mirror()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run("debootstrap", "--variant=minbase", SUITE, str(root), archive)
    security = archive.removesuffix("debian") + "debian-security"
    (root / "etc/apt/sources.list").write_text(
        f"deb {archive} {SUITE} main\ndeb {archive} {SUITE}-updates main\n"
        f"deb {security} {SUITE}-security main\n"
    )
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(
        "".join(f"path-exclude /{folder}/*\n" for folder in LEFT_OUT)
        + "path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n"
    )
    for file in (root / "usr/share/doc").rglob("*"):
        if file.is_file() and file.name != "copyright":
            file.unlink()
    for folder in (*LEFT_OUT, *FORGOTTEN):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    packed = work / "root.tar"
    run("tar", "--create", "--file", str(packed), "--directory", str(root), ".")
    run(engine, "import", "--change", 'CMD ["bash"]', str(packed), NAME)
    shutil.rmtree(work)
    return NAME


def main() -> int:
    """Make the base; return the exit code."""
    try:
        engine = pick_engine(sys.argv[1] if len(sys.argv) > 1 else "")
        print(find_base(engine, ROOT / "build" / "container" / "base"))
    except (ContainerError, OSError) as error:
        print(f"No base image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
