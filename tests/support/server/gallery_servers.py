"""Servers of galleries of their own, for tests that write, count, or want other options."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.galleries.small_galleries import write_gallery
from tests.support.server.servers import Server, running_server


@contextmanager
def gallery_server(model: Path, folder: Path, *options: str) -> Iterator[Server]:
    """A server of a new gallery of 40 pictures, which lies beside its log."""
    write_gallery(folder / "gallery", model)
    with running_server(model, folder / "gallery", folder / "log.txt", *options) as running:
        yield running


@contextmanager
def server_with_folders(model: Path, folder: Path) -> Iterator[Server]:
    """The same with folders for backups and imports, beside its log as well."""
    (folder / "backups").mkdir()
    (folder / "imports").mkdir()
    options = ("--backups-dir", str(folder / "backups"), "--imports-dir", str(folder / "imports"))
    with gallery_server(model, folder, *options) as running:
        yield running
