"""The model card, read back by a Markdown parser."""

from dataclasses import replace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.support.models import manifest
from training.evaluation.results import ClassFigures
from training.report.markdown import plain
from training.report.model_card import model_card
from training.statistics.significance import share_interval

HOSTILE = "<script>alert(1)</script> | [x](https://e.example) **b** `c` # &lt; www.e.example\n- d"
RECIPE = {
    "name": "cnn",
    "weights": "a-backbone",
    "weights_sha256": "ab" * 32,
    "epochs": 30,
    "flip": True,
    "patience": None,
    "preprocessing": {"size": 64, "mean": [0.5, 0.25]},
}
METRICS = {
    "test_accuracy": 0.9123,
    "test_accuracy_low": 0.9061,
    "test_accuracy_high": 0.9187,
    "calibration_error": 0.0123,
    "calibration_error_uncalibrated": 0.0456,
    "epochs": 30.0,
    "kept_epoch": 28.0,
    "train_seconds": 200.0,
}


def card(*, recalls: dict[str, float] | None = None, **changes: Any) -> str:
    return model_card(replace(manifest(), **changes), classes=of_recalls(recalls or {}))


def of_recalls(recalls: dict[str, float]) -> dict[str, ClassFigures]:
    """Return the figures of classes with so many right of 20 test images."""
    return {
        label: ClassFigures(
            label=label,
            images=20,
            precision=None,
            precision_interval=None,
            recall=recall,
            recall_interval=share_interval(round(20 * recall), 20),
            f1=0.0,
        )
        for label, recall in recalls.items()
    }


def shown(text: str) -> str:
    """Return the card's body as HTML."""
    _, _, body = text.removeprefix("---\n").partition("---\n")
    return MarkdownIt("commonmark").enable("table").render(body)


def test_it_says_what_the_model_is_in_words_and_to_machines() -> None:
    text = card(weights_sha256="cd" * 32)
    assert text.startswith("---\nlibrary_name: lookalike\npipeline_tag: image-classification\n")
    for said in ("# test-model", "10 classes", "256 numbers", "28 x 28 pixels, RGB", "cd" * 32):
        assert said in text
    assert "coat, sneaker, bag" in text


def test_weights_that_are_not_written_yet_have_no_fingerprint() -> None:
    assert "Fingerprint" not in card()
    assert "Fingerprint" in card(weights_sha256="cd" * 32)


def test_it_says_that_it_always_answers_with_one_of_its_classes() -> None:
    assert "only and always answers with one of them" in card()


def test_the_search_for_the_same_thing_stands_with_what_it_was() -> None:
    measured = {"same_item": 0.9345, "same_item_low": 0.9012, "same_item_high": 0.9567}
    measured |= {"same_item_queries": 200.0, "same_item_gallery": 3440.0, "same_item_of_groups": 0}
    text = card(metrics=measured)
    assert "93.5% (90.1% to 95.7%, 95%) of 200 queries found first, among 3,440 images" in text
    assert "the photo it was made of" in text
    groups = card(metrics=measured | {"same_item_of_groups": 1.0})
    assert "another photo of the same group" in groups


def test_a_model_without_classes_is_not_said_to_name_any() -> None:
    bare = model_card(manifest(labels=()), classes={})
    assert "pipeline_tag: image-feature-extraction" in bare
    assert "turns an image into a vector of 256 numbers" in bare
    for said in ("image-classification", "Classes:", "0 classes", "classify", "answers with one"):
        assert said not in bare


def test_a_model_with_references_says_what_sure_means() -> None:
    text = card(data={"references_sha256": "ab" * 32})
    assert "`sure` in an answer says" in text
    assert "`references.safetensors`" in text
    assert "references.safetensors" not in card()


def test_what_was_tried_is_a_table_with_the_reason() -> None:
    one = {"name": "lite0", "head": "linear", "accuracy": 0.91, "r_at_1": 0.87, "same_item": 0.98}
    tried = {
        "candidates": [
            {**one, "seconds": 41.0, "held_out_images": 300, "not_tried": None},
            {**dict.fromkeys(one), "name": "lite2", "not_tried": "there was no time | left"},
        ],
        "winner": "lite0",
        "why": "lite0 is <best>.",
    }
    page = shown(model_card(manifest(), classes={}, tried=tried))
    assert "<h2>What was tried</h2>" in page
    assert "lite0 is &lt;best&gt;." in page
    assert "<td>lite0 (chosen)</td>\n<td>linear</td>\n<td>91.0%</td>\n<td>87.0%</td>" in page
    assert "<td>not tried: there was no time | left</td>" in page
    assert "What was tried" not in card()


def test_measured_figures_stand_with_their_interval() -> None:
    text = card(metrics=METRICS)
    for said in ("91.2%", "90.6% to 91.9%", "1.2%", "4.6%", "30 epochs and 3 min 20 s", "epoch 28"):
        assert said in text


def test_what_was_not_measured_is_not_told() -> None:
    text = card(metrics={}, recipe={}, data={})
    for said in ("Calibration error", "interval", "Recall", "Setting"):
        assert said not in text
    for said in ("not say what it was trained on", "not say how it was trained", "was measured."):
        assert said in text


def test_the_recipe_is_a_table_without_nesting() -> None:
    page = shown(card(recipe=RECIPE))
    for name, value in (
        ("epochs", "30"),
        ("flip", "yes"),
        ("patience", "none"),
        ("preprocessing.size", "64"),
        ("preprocessing.mean", "0.5, 0.25"),
    ):
        assert f"<td>{name}</td>\n<td>{value}</td>" in page
    assert f"pretrained weights: a-backbone, SHA-256 <code>{'ab' * 32}</code>" in page


def test_random_weights_are_called_random() -> None:
    assert "began with random weights" in card(recipe={"name": "cnn", "weights": None})


def test_what_was_left_out_of_the_data_is_counted() -> None:
    data = {"name": "photos", "train_images": 1200, "unreadable": 3, "leaked": 2, "odd_fact": 7}
    page = shown(card(data=data))
    assert "could not be read</td>\n<td>3</td>" in page
    assert "among the test images</td>\n<td>2</td>" in page
    assert "<td>odd_fact</td>\n<td>7</td>" in page
    assert "1,200" in page


@pytest.mark.parametrize(
    ("recalls", "named"),
    [
        ({"a": 0.9, "b": 0.79, "c": 0.5, "d": 1.0}, "Weakest: c (50.0%), b (79.0%)."),
        ({"a": 0.9, "b": 0.95, "c": 0.85, "d": 1.0}, "Weakest: c (85.0%), a (90.0%), b (95.0%)."),
    ],
)
def test_weak_classes_are_named_the_weakest_first(recalls: dict[str, float], named: str) -> None:
    assert named in card(recalls=recalls)


def test_thousands_of_classes_are_not_all_listed() -> None:
    names = tuple(f"class-{n}" for n in range(2000))
    text = model_card(manifest(labels=names), classes=of_recalls(dict.fromkeys(names, 0.5)))
    assert "and 1,800 more" in text
    assert "and 1,990 more" in text
    assert "class-1999" not in text


def test_names_are_shown_as_they_are_and_never_become_markup() -> None:
    labels = (HOSTILE, "coat")
    text = model_card(manifest(labels=labels), classes=of_recalls({HOSTILE: 0.1, "coat": 0.9}))
    page = shown(replaced(text, name=HOSTILE))
    assert "<script" not in page
    assert "<a " not in page
    assert "<strong>b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | [x](https://e.example) **b** `c` #" in page
    assert page.count("<h1>") == 1


def replaced(text: str, *, name: str) -> str:
    """Return the card of a model with another name."""
    return text.replace("# test-model", f"# {plain(name)}")


@pytest.mark.parametrize(
    "text", ["a_b_c", "1 < 2 & 3 > 2", "~~x~~", "![i](u)", "\\*", "a\tb\u202ec"]
)
def test_plain_text_comes_out_of_markdown_as_it_went_in(text: str) -> None:
    spaced = "".join(letter if letter.isprintable() else " " for letter in text)
    escaped = spaced.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert MarkdownIt("commonmark").render(plain(text)) == f"<p>{escaped}</p>\n"
