"""`lookalike up`: from a folder of photos to the page, in one command that may be run again."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli import stages
from cli.console import hushed, print_json, say
from cli.data import say_findings
from cli.index import ThumbnailOption
from cli.workspace import Workspace
from training.loading import FASHION_MNIST
from training.units import duration, listed, things
from vision.manifest import read_manifest

if TYPE_CHECKING:
    from cli.intake import Intake, Taken
    from cli.plan import Plan
    from cli.survey import Survey
    from dataset.listing import Listing
    from training.auto_recipe import AutoRecipe
    from training.recipe import Recipe

STAGES: Final = 5
MANY_MORE: Final = 1.25  # times the photos that were learnt from: worth training again


def up(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|TABLE",
            help="Folder of photos, table of their paths, or fashion-mnist.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for model, gallery and report; beside the photos, NAME-lookalike, if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done, and how long it takes.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Time to train, such as 2m, 20m or 2h.", show_default=False),
    ] = None,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Train again, on all the photos that there are now."),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Take photos that are gone out of the gallery as well."),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Take in new and changed photos also while it serves."),
    ] = False,
    thumbnail: ThumbnailOption = None,
    serve: Annotated[bool, typer.Option(help="Start the server at the end.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on (an IP address).")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 3000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a page that finds photos that look alike: look, train, measure, export, index, serve.

    Interrupted, the same command goes on where it was. Run again, it starts in seconds and takes in
    what was added or changed since.
    """
    bring_up(
        Wish(
            source=source,
            out=out,
            plan=plan,
            budget_s=_budget_s(budget),
            retrain=retrain,
            prune=prune,
            watch=watch,
            thumbnail=thumbnail,
            serve=serve,
            host=host,
            port=port,
            device=device,
            as_json=as_json,
        )
    )


def _budget_s(budget: str | None) -> float | None:
    from cli.recipe import seconds_of  # noqa: PLC0415

    try:
        return None if budget is None else seconds_of(budget)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for."""

    source: str
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
    from cli.checks import check_port  # noqa: PLC0415 - keeps `--help` quick
    from cli.served import become_server, url_of  # noqa: PLC0415

    if wish.serve and not wish.plan:
        check_port(wish.host, wish.port)  # now, and not after five minutes
    listing = _listed(wish.source)
    workspace = Workspace.of(_absolute(wish.source), wish.out)
    page = url_of(wish.host, wish.port) if wish.serve else None
    if wish.plan:
        workspace.read()  # another source's folder is said now
        _say_plan(listing, recipe_of(listing, wish), workspace, wish, page=page)
        return
    workspace.lock()
    workspace.read()  # another source's folder is refused before anything is done to it
    workspace.swap()
    again = workspace.next.folder.exists() or (wish.retrain and workspace.model.exists())
    if again:
        _train_again(workspace, listing, wish, page=page)
    with hushed() if again else nullcontext():  # it has all been said
        intake, taken = _finish(workspace, listing, wish, page=page)
    if listing is not None:
        _suggest(workspace, listing, wish)
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
    state = workspace.read()
    if workspace.model.exists():
        said = f"trained: {stages.as_trained(read_manifest(workspace.model))}"
    else:
        recipe = recipe_of(listing, wish)
        _say_plan(listing, recipe, workspace, wish, page=page)
        workspace.write(state)
        said = stages.train(workspace, recipe, device=device)
    stages.say_stage(1, STAGES, said)
    measuring = stages.Measuring(workspace)
    state, said = stages.measure(workspace, state, measuring, device=device)
    stages.say_stage(2, STAGES, said)
    state, said = stages.export(workspace, state, measuring, device=device)
    stages.say_stage(3, STAGES, said)
    del measuring

    from cli.intake import Intake  # noqa: PLC0415

    intake = Intake(workspace, state, device=device, thumbnail=wish.thumbnail)
    taken, said = _index(intake, workspace, listing, prune=wish.prune)
    stages.say_stage(4, STAGES, said)
    return intake, taken


def _index(
    intake: "Intake", workspace: Workspace, listing: "Listing | None", *, prune: bool
) -> "tuple[Taken, str]":
    """Take in what is new, and say what the gallery holds now."""
    from cli.intake import Taken  # noqa: PLC0415
    from cli.inventory import Inventory  # noqa: PLC0415

    if listing is None:
        if intake.is_complete:
            return Taken(), f"indexed: {workspace.gallery}"
        taken = intake.take_fashion_mnist()
        return taken, f"indexed {things(taken.count, 'photo')} in {duration(taken.seconds)}"
    was_complete = intake.is_complete
    now = Inventory.take(listing)
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
        said = f"indexed: {things(len(listing.files), 'photo')}, {taken.in_words()}"
    else:
        said = f"indexed {things(len(listing.files), 'photo')} in {duration(taken.seconds)}"
    if taken.refused:
        said += f"; {taken.refused:,} cannot be read"
    if taken.stale:
        said += f"; {taken.stale:,} gone, still found without --prune"
    return said


def _train_again(
    workspace: Workspace, listing: "Listing | None", wish: Wish, *, page: str | None
) -> None:
    """Make a new model and its gallery beside those that there are, and put them in their place."""
    say(f"training again; until that is done, {workspace.folder} stays as it is")
    new = workspace.next
    new.folder.mkdir(exist_ok=True)
    intake, _ = _finish(new, listing, wish, page=page)
    intake.close()
    new.is_ready()
    workspace.swap()
    say(f"the model and the gallery of before, with edits in it, are kept in {workspace.before}")


def recipe_of(listing: "Listing | None", wish: Wish) -> "AutoRecipe | Recipe":
    """Return the recipe for a source: the one call that decides how it is trained."""
    from cli.depth import bits_of  # noqa: PLC0415
    from training.auto_recipe import auto_recipe  # noqa: PLC0415
    from training.recipes import pick_recipe  # noqa: PLC0415

    if listing is None:
        recipe = pick_recipe("cnn", FASHION_MNIST)
        return recipe if wish.epochs is None else replace(recipe, epochs=wish.epochs)
    auto = auto_recipe(budget_s=wish.budget_s)
    return auto.seeing(bits_of(str(listing.source), auto.preprocessing))


def _say_plan(
    listing: "Listing | None",
    recipe: "AutoRecipe | Recipe",
    workspace: Workspace,
    wish: Wish,
    *,
    page: str | None,
) -> None:
    """Say in five lines what is there, what will be done, and how long it takes on this machine."""
    from cli.plan import make_plan  # noqa: PLC0415 - torch takes seconds
    from cli.survey import survey, survey_of_fashion_mnist  # noqa: PLC0415

    recipe = recipe_of(listing, wish)
    looked = survey_of_fashion_mnist() if listing is None else survey(listing, recipe.preprocessing)
    plan = make_plan(recipe, looked, device=wish.device)
    name = Path(wish.source).resolve().name if listing is not None else wish.source
    for line in (*looked.in_words(name), *plan.in_words(workspace.folder, page=page)):
        say(line)
    if listing is not None:
        _say_found(listing, all_of_it=wish.plan)
    if wish.as_json and wish.plan:
        print_json(_plan_as_json(looked, plan, workspace))


def _say_found(listing: "Listing", *, all_of_it: bool) -> None:
    """Say what was skipped, merged or guessed when the source was listed."""
    if not len(listing.findings):
        return
    if all_of_it:
        say_findings(listing.findings)
        return
    first, *others = listing.findings.frequent_first()
    more = f"; {things(len(others), 'more finding')}" if others else ""
    say(f"found: {first.reason} ({first.count:,} x, {first.examples[0]}){more}; see --plan")


def _suggest(workspace: Workspace, listing: "Listing", wish: Wish) -> None:
    """Say when the photos have become others than those that the model has learnt from."""
    manifest = read_manifest(workspace.model)
    new = [label for label in listing.labels if label not in manifest.labels]
    parts = ("train_images", "validation_images", "test_images", "unreadable", "leaked")
    learnt = sum(int(manifest.data.get(part) or 0) for part in parts)
    now = sum(file.label is not None for file in listing.files) or len(listing.files)
    if new and manifest.labels:
        why = f"the model does not know {listed(new)}"
    elif learnt and now > MANY_MORE * learnt:
        why = f"there are {now:,} photos now, {learnt:,} when it was trained"
    else:
        return
    say(f"{why}: --retrain trains again")


def _listed(source: str) -> "Listing | None":
    """Return what a folder or a table lists; None for Fashion-MNIST.

    Raises:
        DatasetError: it is missing, cannot be read, or holds no photos.
    """
    from dataset.source import list_source  # noqa: PLC0415

    return None if source == FASHION_MNIST else list_source(Path(_absolute(source)))


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


def _plan_as_json(looked: "Survey", plan: "Plan", workspace: Workspace) -> dict[str, Any]:
    return {
        "folder": str(workspace.folder),
        "photos": looked.photos,
        "classes": looked.classes,
        "unlabelled": looked.unlabelled,
        "bytes": looked.bytes,
        "sampled": looked.sampled,
        "broken": looked.broken,
        "copies": looked.copies,
        "formats": dict(looked.formats),
        "recipe": plan.recipe,
        "train_s": round(plan.train_s),
        "rest_s": round(plan.rest_s),
        "needed_bytes": plan.bytes,
    }
