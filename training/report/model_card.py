"""A manifest in, a model card out: what the model is, what it is for, and what was measured.

The sections are those of Mitchell et al. 2019, "Model Cards for Model Reporting", as far as there
are facts for them. Names of classes and data are other people's input: all text is escaped.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from training.evaluation.results import ClassFigures
from training.formatting import count, day, decimal, duration, plural
from training.report.markdown import flat, plain, table
from training.report.model_card_figures import (
    CLASSES_ORIGIN,
    MOST_LABELS,
    figures_section,
    later_classes_section,
    recalls_section,
    same_item_section,
    tried_section,
)
from vision.model.manifest import MANIFEST_NAME, WEIGHTS_NAME, Manifest

FRONT_MATTER: Final = """\
---
library_name: lookalike
pipeline_tag: {tag}
tags:
{tags}- image-feature-extraction
- visual-search
---
"""

DATA: Final = {  # what the manifest keeps of the data, in words
    "name": "Name",
    "train_images": "Training images",
    "validation_images": "Validation images of their own part",
    "test_images": "Test images",
    "held_out_classes": "Classes left out of the training",
    "unreadable": "Files left out because they could not be read",
    "leaked": "Training images left out because they are among the test images",
    "contradictions": "Copies of one photo that have two labels, and were kept",
    "learnt_sha256": "SHA-256 of the list of images it has learnt from",
    "references_sha256": "SHA-256 of the vectors that new pictures are compared with",
    "train_fingerprint": "SHA-256 of the training images",
    "validation_fingerprint": "SHA-256 of the held-out images",
    "test_fingerprint": "SHA-256 of the test images",
}


def model_card(
    manifest: Manifest,
    *,
    classes: Mapping[str, ClassFigures],
    tried: Mapping[str, Any] | None = None,
) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        manifest: of the model; where its weights are not yet known, their SHA-256 is not told.
        classes: by label, the figures of those that have test images; may be empty.
        tried: what was tried and why it won, as ``training.heads.model_choice`` writes it.
    """
    sections = (
        _introduction(manifest),
        _details(manifest),
        _intended_use(manifest),
        _data(manifest.data),
        _training(manifest),
        tried_section(tried),
        later_classes_section(manifest),
        figures_section(manifest),
        same_item_section(manifest.metrics),
        recalls_section(classes),
        _use(manifest),
        _files(manifest),
    )
    front_matter = FRONT_MATTER.format(
        tag="image-classification" if manifest.labels else "image-feature-extraction",
        tags="- image-classification\n" if manifest.labels else "",
    )
    return front_matter + "\n" + "\n\n".join("\n\n".join(section) for section in sections) + "\n"


def _introduction(manifest: Manifest) -> Iterator[str]:
    labels, width = len(manifest.labels), manifest.architecture.width
    yield f"# {plain(manifest.name)}"
    names = (
        f"says which of {plural(labels, 'class', 'classes')} an image shows, how probable that is, "
        "and "
    )
    yield (
        f"A {plain(manifest.architecture.network)} network that {names if labels else ''}"
        f"turns {'it' if labels else 'an image'} into a vector of {count(width)} numbers to find "
        "look-alikes by."
    )


def _details(manifest: Manifest) -> Iterator[str]:
    architecture, preprocessing = manifest.architecture, manifest.preprocessing
    colours = "grey" if preprocessing.channels == 1 else "RGB"
    rows: list[tuple[str, str]] = [
        ("Network", architecture.network),
        ("Layer the vector is taken from", architecture.embedding_layer),
        ("Vector width", f"{count(architecture.width)} numbers"),
        ("Classes", count(len(manifest.labels)) if manifest.labels else "none"),
        ("Input", f"{preprocessing.size} x {preprocessing.size} pixels, {colours}"),
        ("Temperature of the probabilities", decimal(manifest.temperature)),
        ("Created", day(manifest.created)),
    ]
    if "parameters" in manifest.metrics:
        rows.append(("Parameters", count(int(manifest.metrics["parameters"]))))
    if manifest.weights_sha256:
        rows.append(("SHA-256 of the weights", manifest.weights_sha256))
        rows.append(("Fingerprint", manifest.fingerprint))
    yield "## Model details"
    yield table(("Fact", "Value"), rows)
    if not manifest.labels:
        return
    shown = ", ".join(plain(label) for label in manifest.labels[:MOST_LABELS])
    more = len(manifest.labels) - MOST_LABELS
    yield f"Classes: {shown}" + (
        f" and {count(more)} more, in `{MANIFEST_NAME}`." if more > 0 else "."
    )


def _intended_use(manifest: Manifest) -> Iterator[str]:
    yield "## Intended use"
    naming = "Naming images of the classes above, and finding" if manifest.labels else "Finding"
    yield f"{naming} images that look alike."
    yield "### Limits"
    yield "\n".join((*_limits_of_classes(manifest), *_limits_of_all(manifest)))


def _limits_of_classes(manifest: Manifest) -> Iterator[str]:
    if not manifest.labels:
        return
    yield (
        f"- It was trained on these {plural(len(manifest.labels), 'class', 'classes')} only and "
        "always answers with one of them. An image of anything else gets a wrong answer, at times "
        "with a high probability."
    )
    if "references_sha256" in manifest.data:
        yield (
            "- `sure` in an answer says whether the image is near to photos it has learnt from. It "
            "filters many wrong answers of that kind, not all, and refuses about 2% of right ones."
        )
    else:
        yield "- A least probability filters many of these answers, not all."
    yield ("- Its probabilities hold for images like the test images; of others they say little.")


def _limits_of_all(manifest: Manifest) -> Iterator[str]:
    yield (
        f"- It sees {manifest.preprocessing.size} x {manifest.preprocessing.size} pixels: what "
        "cannot be told at that size cannot be told by it."
    )
    yield (
        "- It was measured on the test images below and on nothing else. Measure it on your "
        "own before you rely on it."
    )


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    yield "## Training data"
    told = {
        key: value
        for key, value in data.items()
        if value not in (None, [], "") and key != CLASSES_ORIGIN
    }
    if not told:
        yield "The model does not say what it was trained on."
        return
    known = [(words, told.pop(key)) for key, words in DATA.items() if key in told]
    yield table(("Fact", "Value"), known + flat(told))


def _training(manifest: Manifest) -> Iterator[str]:
    recipe, metrics = manifest.recipe, manifest.metrics
    yield "## Training"
    if not recipe:
        yield "The model does not say how it was trained."
        return
    if "epochs" in metrics and "train_seconds" in metrics:
        kept = ""
        if metrics.get("kept_epoch", metrics["epochs"]) != metrics["epochs"]:
            kept = f", of which the weights of epoch {metrics['kept_epoch']:.0f} were kept"
        yield (
            f"It took {plural(int(metrics['epochs']), 'epoch')} and "
            f"{duration(metrics['train_seconds'])}{kept}."
        )
    if recipe.get("predecessor"):
        yield (
            f"It goes on from the model {plain(str(recipe['weights']))}, fingerprint "
            f"`{plain(str(recipe['predecessor']))}`, and knows what that model had learnt."
        )
    elif recipe.get("weights"):
        digest = recipe.get("weights_sha256")
        yield f"It began with pretrained weights: {plain(str(recipe['weights']))}" + (
            f", SHA-256 `{plain(str(digest))}`." if digest else "."
        )
    elif "weights" in recipe:
        yield "It began with random weights."
    yield table(("Setting of the recipe", "Value"), flat(recipe))


def _use(manifest: Manifest) -> Iterator[str]:
    yield "## How to use it"
    naming = "lookalike classify MODEL image.jpg                # which class, how probable\n"
    yield (
        f"```sh\n{naming if manifest.labels else ''}"
        "lookalike evaluate MODEL --data FOLDER            # measure it on your own images\n"
        "lookalike index build MODEL --data FOLDER --out GALLERY\n"
        "lookalike serve --model MODEL --gallery GALLERY   # search over HTTP\n"
        "```"
    )
    inside = " with a folder of images per class" if manifest.labels else " of images"
    yield f"`MODEL` is this folder, `FOLDER` one{inside}."


def _files(manifest: Manifest) -> Iterator[str]:
    references = (
        "- `references.safetensors`: vectors of some of the images it has learnt from, to tell "
        "what is none of its classes.\n"
        if "references_sha256" in manifest.data
        else ""
    )
    classes = (
        "- `classes.safetensors`: the classifier of its vectors.\n"
        if manifest.classes_sha256 is not None
        else ""
    )
    yield "## Files"
    yield (
        f"- `{MANIFEST_NAME}`: the facts above but the recalls, and the SHA-256 of the weights "
        "and of itself.\n"
        f"- `{WEIGHTS_NAME}`: the weights; they hold numbers only and cannot run code.\n"
        "- `learnt.safetensors`: 16 bytes for each image it has learnt from, so that it is not "
        "measured with them; no picture can be made of them.\n"
        f"{classes}{references}"
        "- `training.json`: how the training went, epoch by epoch.\n"
        "- `README.md`: this card."
    )
    yield (
        "Manifest and weights are checked by SHA-256 whenever the model is loaded: one changed "
        "byte is refused; so are the other `.safetensors`, when they are needed. The other two "
        "files are for people, and nothing checks them."
    )
