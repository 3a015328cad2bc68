"""The course of `lookalike up`: what was asked for in, all that is left to do of it done."""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.support.console import hushed, print_json, say
from cli.up import stages
from cli.up.workspace import Workspace
from training.data.images.load import FASHION_MNIST
from training.formatting import duration, plural
from vision.model.manifest import read_manifest

if TYPE_CHECKING:
    from cli.up.gallery_sync import Intake, Taken
    from dataset.listing import Listing
    from training.recipes.auto_recipe import AutoRecipe
    from training.recipes.recipe import Recipe

STAGES: Final = 5
FEWEST: Final = 3  # photos


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for."""

    source: str
    group: str | None = None  # what says which photos show one thing; None: as the last time
    out: Path | None = None
    plan: bool = False
    budget_s: float | None = None
    epochs: int | None = None  # fewer than the recipe's, for a quick look
    retrain: bool = False
    prune: bool = False
    watch: bool = False
    thumbnail: int | None = None  # longest side of the pictures that are kept, pixels
    serve: bool = True
    host: str = "127.0.0.1"
    port: int = 3000
    device: str = "auto"
    as_json: bool = False


def bring_up(wish: Wish) -> None:
    """Do what is left to do of all stages, and become the server.

    Raises:
        Errors of all floors, a sentence each; what was finished is kept.
    """
    from cli.support.preflight import check_port  # noqa: PLC0415 - keeps `--help` quick
    from cli.up.outlook import say_plan, suggest  # noqa: PLC0415
    from cli.up.server import become_server, url_of  # noqa: PLC0415

    if wish.serve and not wish.plan:
        check_port(wish.host, wish.port)  # now, and not after five minutes
    workspace = Workspace.of(_absolute(wish.source), wish.out)
    wish = replace(wish, group=workspace.grouping(wish.group, again=wish.retrain))
    listing = _listed(wish.source, wish.group)
    if listing is not None and not workspace.model.exists():
        _check_enough(listing)
    page = url_of(wish.host, wish.port) if wish.serve else None
    if wish.plan:
        say_plan(listing, recipe_of(listing, wish), workspace, wish, page=page)
        return
    workspace.lock()
    workspace.swap()
    again = workspace.next.folder.exists() or (wish.retrain and workspace.model.exists())
    if again:
        _train_again(workspace, listing, wish, page=page)
    with hushed() if again else nullcontext():  # it has all been said
        intake, taken = _finish(workspace, listing, wish, page=page)
    if listing is not None:
        suggest(workspace, listing, wish)
    intake.close()
    if wish.as_json:
        print_json(_result(workspace, taken))
    if not wish.serve:
        model, gallery = workspace.model, workspace.gallery
        say(f"Ready: lookalike serve --model {model} --gallery {gallery}")
        return
    become_server(workspace, wish)


def _finish(
    workspace: Workspace, listing: "Listing | None", wish: Wish, *, page: str | None
) -> "tuple[Intake, Taken]":
    """Do what is left to do of the first four stages, and say a line of each."""
    device = wish.device
    state = replace(workspace.read(), group=wish.group)
    was_trained = workspace.model.exists()
    if was_trained:
        said = f"trained: {stages.as_trained(read_manifest(workspace.model))}"
    else:
        from cli.up.outlook import say_plan  # noqa: PLC0415

        recipe = recipe_of(listing, wish)
        say_plan(listing, recipe, workspace, wish, page=page)
        workspace.write(state)
        said = stages.train(workspace, recipe, group=wish.group, device=device)
    stages.say_stage(1, STAGES, said)
    measuring = stages.Measuring(workspace, wish.group)
    state, said = stages.export(workspace, state, measuring, device=device)
    stages.say_stage(2, STAGES, said)
    state, said = stages.measure(workspace, state, measuring, device=device)
    stages.say_stage(3, STAGES, said)
    del measuring

    from cli.up.gallery_sync import Intake  # noqa: PLC0415

    if not was_trained:
        listing = _listed(wish.source, wish.group)  # photos came and went meanwhile
    intake = Intake(workspace, state, device=device, thumbnail=wish.thumbnail)
    intake.keep_pictures()
    taken, said = _index(intake, workspace, listing, prune=wish.prune)
    stages.say_stage(4, STAGES, said)
    return intake, taken


def _index(
    intake: "Intake", workspace: Workspace, listing: "Listing | None", *, prune: bool
) -> "tuple[Taken, str]":
    """Take in what is new, and say what the gallery holds now."""
    from cli.up.gallery_sync import Taken  # noqa: PLC0415
    from cli.up.inventory import Inventory  # noqa: PLC0415

    if listing is None:
        if intake.is_complete:
            return Taken(), f"indexed: {workspace.gallery}"
        taken = intake.take_fashion_mnist()
        return taken, f"indexed {plural(taken.count, 'photo')} in {duration(taken.seconds)}"
    was_complete = intake.is_complete
    now = Inventory.of(listing)
    files = intake.news(listing, now)
    stale = intake.stale(listing)
    if stale and prune and listing.unread:
        say(
            f"{listing.unread[0]} cannot be looked into now: what is missing there may only be out "
            "of reach, so nothing is taken out of the gallery"
        )
        prune = False
    taken = Taken(refused=intake.refused, stale=len(stale))
    if files or (stale and prune) or not was_complete:
        taken = intake.take(listing, now, files, prune=prune)
    return taken, _indexed(taken, listing, was_complete=was_complete)


def _indexed(taken: "Taken", listing: "Listing", *, was_complete: bool) -> str:
    if was_complete:
        said = f"indexed: {plural(len(listing.files), 'photo')}, {taken.in_words()}"
    else:
        said = f"indexed {plural(len(listing.files), 'photo')} in {duration(taken.seconds)}"
    if taken.refused:
        said += f"; {taken.refused:,} cannot be read"
    if listing.unread:
        more = f" and {len(listing.unread) - 1:,} more" if len(listing.unread) > 1 else ""
        said += f"; {listing.unread[0]}{more} cannot be looked into now"
    if taken.stale:
        said += f"; {taken.stale:,} gone, still found without --prune"
    return said


def _train_again(
    workspace: Workspace, listing: "Listing | None", wish: Wish, *, page: str | None
) -> None:
    """Make a new model and its gallery beside those that there are, and put them in their place."""
    say(f"training again; until that is done, {workspace.folder} stays as it is")
    new = workspace.next
    if new.read().group != wish.group:
        shutil.rmtree(new.folder, ignore_errors=True)  # begun for others
    new.folder.mkdir(exist_ok=True)
    intake, _ = _finish(new, listing, wish, page=page)
    intake.close()
    new.is_ready()
    workspace.swap()
    say(f"the model and the gallery of before, with edits in it, are kept in {workspace.before}")


def recipe_of(listing: "Listing | None", wish: Wish) -> "AutoRecipe | Recipe":
    """Return the recipe for a source: the one call that decides how it is trained."""
    from cli.training.bit_depth import bits_of  # noqa: PLC0415
    from training.data.source_preview import preview_files  # noqa: PLC0415
    from training.recipes.auto_recipe import auto_recipe  # noqa: PLC0415
    from training.recipes.built_in import pick_recipe  # noqa: PLC0415

    if listing is None:
        recipe = pick_recipe("cnn", FASHION_MNIST)
        return recipe if wish.epochs is None else replace(recipe, epochs=wish.epochs)
    auto = auto_recipe(budget_s=wish.budget_s)
    auto = auto.with_bits(bits_of(str(listing.source), auto.preprocessing))
    return auto.adapted_to(*preview_files(listing.files))


def _listed(source: str, group: str | None) -> "Listing | None":
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


def _check_enough(listing: "Listing") -> None:
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


def _result(workspace: Workspace, taken: "Taken") -> dict[str, Any]:
    return {
        "model": str(workspace.model),
        "gallery": str(workspace.gallery),
        "metrics": read_manifest(workspace.model).metrics,
        "added": taken.added,
        "changed": taken.changed,
        "pruned": taken.pruned,
        "stale": taken.stale,
        "refused": taken.refused,
    }
