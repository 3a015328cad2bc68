"""What `lookalike up` prints beside its stages: its plan, what it found, when to train again."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.support.console import print_info, print_json
from cli.support.dataset_loading import print_findings
from training.formatting import duration, listed, plural
from vision.model.manifest import read_manifest

if TYPE_CHECKING:
    from cli.up.options import UpOptions
    from cli.up.plan import Plan
    from cli.up.survey import Survey
    from cli.up.workspace import Workspace
    from dataset.listing import Listing
    from training.recipes.auto_recipe import AutoRecipe
    from training.recipes.recipe import Recipe

MANY_MORE: Final = 1.25  # times the photos that were learnt from: worth training again


def print_plan(
    listing: "Listing | None",
    recipe: "AutoRecipe | Recipe",
    workspace: "Workspace",
    options: "UpOptions",
    *,
    page: str | None,
) -> None:
    """Print in five lines what is there, what will be done, and how long that takes here."""
    from cli.up.plan import make_plan  # noqa: PLC0415 - torch takes seconds
    from cli.up.survey import fashion_mnist_survey, survey  # noqa: PLC0415

    looked = fashion_mnist_survey() if listing is None else survey(listing, recipe.preprocessing)
    plan = make_plan(recipe, looked, device=options.device)
    name = Path(options.source).resolve().name if listing is not None else options.source
    for line in (*looked.in_words(name), *plan.in_words(workspace.folder, page=page)):
        print_info(line)
    if listing is not None:
        _print_found(listing, all_of_it=options.plan)
    if options.as_json and options.plan:
        print_json(_plan_to_json(looked, plan, workspace))


def _print_found(listing: "Listing", *, all_of_it: bool) -> None:
    """Print what was skipped, merged or guessed when the source was listed."""
    if not len(listing.findings):
        return
    if all_of_it:
        print_findings(listing.findings)
        return
    first, *others = listing.findings.most_frequent_first()
    more = f"; {plural(len(others), 'more finding')}" if others else ""
    print_info(f"found: {first.reason} ({first.count:,} x, {first.examples[0]}){more}; see --plan")


def suggest_retraining(workspace: "Workspace", listing: "Listing", options: "UpOptions") -> None:
    """Print when the photos have become others than those that the model has learnt from."""
    manifest = read_manifest(workspace.model)
    new = [label for label in listing.labels if label not in manifest.labels]
    parts = ("train_images", "validation_images", "test_images", "unreadable", "leaked")
    learnt = sum(int(manifest.data.get(part) or 0) for part in parts)
    now = sum(file.label is not None for file in listing.files) or len(listing.files)
    if new and manifest.labels:
        why = f"the model does not know {listed(new)}"
    elif learnt and now > MANY_MORE * learnt:
        why = f"there are {now:,} photos now, {learnt:,} when it was trained"
    elif (options.budget_s or 0) > (spent_s := float(manifest.recipe.get("budget_s") or "inf")):
        why = f"it was trained with a budget of {duration(spent_s)}, less than now"
    else:
        return
    print_info(f"{why}: --retrain trains again")


def _plan_to_json(survey: "Survey", plan: "Plan", workspace: "Workspace") -> dict[str, Any]:
    facts = asdict(survey)
    del facts["size"], facts["decode_s"]
    facts["formats"] = dict(survey.formats)  # `asdict` makes something else of a Counter
    return {
        "folder": str(workspace.folder),
        **facts,
        "recipe": plan.recipe,
        "train_s": round(plan.train_s),
        "rest_s": round(plan.rest_s),
        "needed_bytes": plan.bytes,
    }
