"""Runs `lookalike up`: its options in, every stage that is not finished yet done."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.support.console import print_info, print_json, quiet
from cli.up import stages
from cli.up.options import UpOptions
from cli.up.workspace import Workspace
from training.data.images.load import FASHION_MNIST
from training.formatting import duration, plural
from vision.model.manifest import read_manifest

if TYPE_CHECKING:
    from cli.up.gallery_sync import GallerySync, SyncResult
    from dataset.listing import Listing
    from training.recipes.auto_recipe import AutoRecipe
    from training.recipes.recipe import Recipe

STAGES: Final = 5
FEWEST: Final = 3  # photos


def run_up(options: UpOptions) -> None:
    """Do what is left to do of all stages, and become the server.

    Raises:
        Errors of all floors, a sentence each; what was finished is kept.
    """
    from cli.up.outlook import print_plan, suggest_retraining  # noqa: PLC0415 - keeps `--help` quick
    from cli.up.server import exec_server, page_url  # noqa: PLC0415
    from service.security.listening_address import check_port  # noqa: PLC0415

    if options.serve and not options.plan:
        check_port(options.host, options.port)  # now, and not after five minutes
    workspace = Workspace.of(_absolute(options.source), options.out)
    options = replace(options, group=workspace.resolve_group(options.group, again=options.retrain))
    listing = _list_source(options.source, options.group)
    if listing is not None and not workspace.model.exists():
        _check_count(listing)
    page = page_url(options.host, options.port) if options.serve else None
    if options.plan:
        print_plan(listing, choose_recipe(listing, options), workspace, options, page=page)
        return
    workspace.lock()
    workspace.swap()
    again = workspace.next.folder.exists() or (options.retrain and workspace.model.exists())
    if again:
        _retrain(workspace, listing, options, page=page)
    with quiet() if again else nullcontext():  # it has all been printed
        gallery_sync, result = _complete(workspace, listing, options, page=page)
    if listing is not None:
        suggest_retraining(workspace, listing, options)
    gallery_sync.close()
    if options.as_json:
        print_json(_to_json(workspace, result))
    if not options.serve:
        model, gallery = workspace.model, workspace.gallery
        print_info(f"Ready: lookalike serve --model {model} --gallery {gallery}")
        return
    exec_server(workspace, options)


def _complete(
    workspace: Workspace, listing: "Listing | None", options: UpOptions, *, page: str | None
) -> "tuple[GallerySync, SyncResult]":
    """Do what is left to do of the first four stages, and print a line for each."""
    device = options.device
    state = replace(workspace.read_state(), group=options.group)
    was_trained = workspace.model.exists()
    if was_trained:
        line = f"trained: {stages.describe_training(read_manifest(workspace.model))}"
    else:
        from cli.up.outlook import print_plan  # noqa: PLC0415

        recipe = choose_recipe(listing, options)
        print_plan(listing, recipe, workspace, options, page=page)
        workspace.write_state(state)
        line = stages.train(workspace, recipe, group=options.group, device=device)
    print_info(f"1/{STAGES} {line}")
    evaluation_data = stages.EvaluationData(workspace, options.group)
    state, line = stages.export(workspace, state, evaluation_data, device=device)
    print_info(f"2/{STAGES} {line}")
    state, line = stages.measure(workspace, state, evaluation_data, device=device)
    print_info(f"3/{STAGES} {line}")
    del evaluation_data

    from cli.up.gallery_sync import GallerySync  # noqa: PLC0415

    if not was_trained:
        listing = _list_source(options.source, options.group)  # photos came and went meanwhile
    gallery_sync = GallerySync(workspace, state, device=device, thumbnail=options.thumbnail)
    gallery_sync.apply_thumbnail_side()
    result, line = _index(gallery_sync, workspace, listing, prune=options.prune)
    print_info(f"4/{STAGES} {line}")
    return gallery_sync, result


def _index(
    gallery_sync: "GallerySync", workspace: Workspace, listing: "Listing | None", *, prune: bool
) -> "tuple[SyncResult, str]":
    """Index what is new, and return a line on what the gallery holds now."""
    from cli.up.gallery_sync import SyncResult  # noqa: PLC0415
    from cli.up.inventory import Inventory  # noqa: PLC0415

    if listing is None:
        if gallery_sync.is_complete:
            return SyncResult(), f"indexed: {workspace.gallery}"
        result = gallery_sync.update_fashion_mnist()
        return result, f"indexed {plural(result.count, 'photo')} in {duration(result.seconds)}"
    was_complete = gallery_sync.is_complete
    now = Inventory.of(listing)
    files = gallery_sync.changed_files(listing, now)
    stale = gallery_sync.stale_ids(listing)
    if stale and prune and listing.unread:
        print_info(
            f"{listing.unread[0]} cannot be looked into now: what is missing there may only be out "
            "of reach, so nothing is taken out of the gallery"
        )
        prune = False
    result = SyncResult(refused=gallery_sync.refused, stale=len(stale))
    if files or (stale and prune) or not was_complete:
        result = gallery_sync.update(listing, now, files, prune=prune)
    return result, _index_line(result, listing, was_complete=was_complete)


def _index_line(result: "SyncResult", listing: "Listing", *, was_complete: bool) -> str:
    if was_complete:
        line = f"indexed: {plural(len(listing.files), 'photo')}, {result.in_words()}"
    else:
        line = f"indexed {plural(len(listing.files), 'photo')} in {duration(result.seconds)}"
    if result.refused:
        line += f"; {result.refused:,} cannot be read"
    if listing.unread:
        more = f" and {len(listing.unread) - 1:,} more" if len(listing.unread) > 1 else ""
        line += f"; {listing.unread[0]}{more} cannot be looked into now"
    if result.stale:
        line += f"; {result.stale:,} gone, still found without --prune"
    return line


def _retrain(
    workspace: Workspace, listing: "Listing | None", options: UpOptions, *, page: str | None
) -> None:
    """Make a new model and its gallery beside those that there are, and put them in their place."""
    print_info(f"training again; until that is done, {workspace.folder} stays as it is")
    new = workspace.next
    if new.read_state().group != options.group:
        shutil.rmtree(new.folder, ignore_errors=True)  # begun for others
    new.folder.mkdir(exist_ok=True)
    gallery_sync, _ = _complete(new, listing, options, page=page)
    gallery_sync.close()
    new.mark_ready()
    workspace.swap()
    print_info(
        f"the model and the gallery of before, with edits in it, are kept in {workspace.before}"
    )


def choose_recipe(listing: "Listing | None", options: UpOptions) -> "AutoRecipe | Recipe":
    """Return the recipe for a source: the one call that decides how it is trained."""
    from cli.training.bit_depth import detect_bit_depth  # noqa: PLC0415
    from training.data.source_preview import preview_files  # noqa: PLC0415
    from training.recipes.auto_recipe import auto_recipe  # noqa: PLC0415
    from training.recipes.built_in import pick_recipe  # noqa: PLC0415

    if listing is None:
        recipe = pick_recipe("cnn", FASHION_MNIST)
        return recipe if options.epochs is None else replace(recipe, epochs=options.epochs)
    auto = auto_recipe(budget_s=options.budget_s)
    auto = auto.with_bits(detect_bit_depth(str(listing.source), auto.preprocessing))
    return auto.adapted_to(*preview_files(listing.files))


def _list_source(source: str, group: str | None) -> "Listing | None":
    """Return what a folder or a table lists; None for Fashion-MNIST.

    Raises:
        DatasetError: it is missing, cannot be read, or holds no photos; or ``group`` does not fit.
    """
    from dataset.errors import DatasetError  # noqa: PLC0415
    from dataset.source import list_source  # noqa: PLC0415

    if source == FASHION_MNIST:
        if group is not None:
            raise DatasetError(f"{source} does not say which photos show one thing: no --group")
        return None
    return list_source(Path(_absolute(source)), group=group)


def _check_count(listing: "Listing") -> None:
    """Check that there are photos to learn from and to measure with, before anything is made.

    Raises:
        DatasetError: there are too few.
    """
    from dataset.errors import DatasetError  # noqa: PLC0415

    if (count := len(listing.files)) < FEWEST:
        raise DatasetError(
            f"{plural(count, 'photo')} in {listing.source}{listing.findings.in_words()}: two to "
            "learn from and one to measure with are the least"
        )


def _absolute(source: str) -> str:
    return source if source == FASHION_MNIST else str(Path(source).resolve())


def _to_json(workspace: Workspace, result: "SyncResult") -> dict[str, Any]:
    return {
        "model": str(workspace.model),
        "gallery": str(workspace.gallery),
        "metrics": read_manifest(workspace.model).metrics,
        "added": result.added,
        "changed": result.changed,
        "pruned": result.pruned,
        "stale": result.stale,
        "refused": result.refused,
    }
