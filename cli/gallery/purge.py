"""`lookalike index purge`: what was deleted from a gallery, made unreadable."""

from dataclasses import asdict

from cli.support.console import print_result, stage_progress
from cli.support.gallery_filling import open_gallery
from cli.support.options import GalleryArgument, JsonOption
from training.formatting import plural


def purge(gallery: GalleryArgument, as_json: JsonOption = False) -> None:
    """Leave no bytes of deleted or replaced items in a gallery's folder.

    Searches go on; whoever writes waits while the database is written anew, which takes as much
    room again. Backups and exports that were made before are not touched: delete them yourself.
    """
    from index.operations.purge import purge as purge_of  # noqa: PLC0415

    with (
        open_gallery(gallery) as opened,
        stage_progress() as show,
    ):
        purged = purge_of(opened, on_stage=show)
    text = (
        f"nothing that was deleted up to operation {purged.seq:,} is left; "
        f"{plural(purged.generations, 'older structure')} and "
        f"{plural(purged.lists, 'record')} of jobs deleted, "
        f"{purged.bytes_saved / 2**20:,.1f} MiB given back"
    )
    print_result(asdict(purged), text, as_json=as_json)
