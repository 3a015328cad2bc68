"""The report of a made-up model: what a reader of its HTML finds, and what a real browser does."""

import io
import re
import shutil
from base64 import b64decode
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.support.galleries.labelled_gallery import labelled
from tests.support.models import write_model
from training.data.dataset import Dataset
from training.data.images.labelled_images import LabelledImages
from training.evaluation.evaluate import evaluate_model
from training.evaluation.examples import Examples, Mistake, Neighbours, PlotPoints, choose_examples
from training.formatting import NOTHING
from training.report.charts import grid_values
from training.report.embedding_plot import APART, declutter, symbol
from training.report.html_report import confused_pairs, render_report
from training.report.inline_images import inline_image

HOSTILE = "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>&amp;"
EPOCH = {
    "epoch": 1,
    "loss": 0.6609,
    "accuracy": 0.8461,
    "validation_loss": 0.4123,
    "validation_accuracy": 0.8765,
    "learning_rate": 0.0321,
    "seconds": 41.0,
}
FOUND = {"r_at_1": 0.9111, "precision_at_10": 0.8222, "map": 0.6333, "map_at_r": 0.5444}


@dataclass
class Figures:
    """What stands in for an Evaluation: the page needs its JSON alone."""

    json: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.json


@dataclass
class Read(HTMLParser):
    """A page as its elements: tag, attributes and the text in it."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    raw: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.raw)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make_dataset(names: tuple[str, ...], *, side: int = 12, channels: int = 1) -> Dataset:
    """Return noise: three test and five training images of each class."""
    generator = np.random.default_rng(0)

    def part(each: int) -> LabelledImages:
        labels_N = np.tile(np.arange(len(names)), each)
        shape = (len(labels_N), channels, side, side)
        pixels = generator.integers(0, 256, shape, np.uint8)
        return labelled(pixels, labels_N, names)

    return Dataset(name="squares", train=part(5), test=part(3))


def make_figures(dataset: Dataset, **changes: Any) -> dict[str, Any]:
    """Return figures that can be told apart on the page; two images of the last class are wrong."""
    names = dataset.label_names
    confusion = (3 * np.eye(len(names), dtype=int)).tolist()
    confusion[-1] = [2, *[0] * (len(names) - 2), 1]
    bins = [
        {"low": n / 15, "high": (n + 1) / 15, "images": 0, "confidence": None, "accuracy": None}
        for n in range(15)
    ]
    bins[14] |= {"images": 1234, "confidence": 0.9876, "accuracy": 0.9654}
    return {
        "model": {
            "name": "squares-cnn",
            "fingerprint": "0123456789abcdef" * 4,
            "recipe": "cnn-recipe",
            "network": "cnn-network",
            "embedding_layer": "third-layer",
            "width": 127,
            "parameters": 280234,
            "weights_bytes": 1122344,
            "created": "2026-01-05T10:00:00+00:00",
        },
        "data": {
            "name": "squares",
            "train_images": len(dataset.train),
            "test_images": len(dataset.test),
            "test_fingerprint": "fedcba9876543210" * 4,
            "selection": None,
        },
        "images": len(dataset.test),
        "gallery_images": len(dataset.train),
        "accuracy": 0.9123,
        "accuracy_interval": [0.9061, 0.9187],
        "balanced_accuracy": 0.9012,
        "mean_loss": 0.2612,
        "temperature": 1.3456,
        "calibration_error": 0.0123,
        "calibration_error_honest": 0.0099,
        "calibration_error_honest_high": 0.0144,
        "calibration_error_beyond_chance": 0.0077,
        "calibration_error_beyond_chance_interval": [0.0011, 0.0166],
        "in_words": ["With so many images that is so."],
        "calibration_error_uncalibrated": 0.0456,
        "reliability": bins,
        "reliability_uncalibrated": bins,
        "r_at_1": 0.8912,
        "r_at_1_interval": [0.8843, 0.8977],
        "precision_at_10": 0.8734,
        "map": 0.7891,
        "map_interval": [0.7832, 0.7954],
        "map_at_r": 0.7123,
        "same_item": {
            "setup": "made views",
            "in_words": "the photo that it was made of",
            "photos": 317,
            "queries": 634,
            "gallery_images": 2345,
            "r_at_1": 0.8456,
            "r_at_1_interval": [0.8234, 0.8678],
            "r_at_10": 0.9345,
            "r_at_10_interval": [0.9123, 0.9567],
            "by_kind": [],
        },
        "novelty": None,
        "held_out": None,
        "classes": [
            {
                "label": name,
                "images": 3,
                "precision": 0.955,
                "precision_interval": [0.4444, 0.9999],
                "recall": 0.945,
                "recall_interval": [0.4321, 0.9998],
                "f1": 0.935,
            }
            for name in names
        ],
        "confusion": confusion,
        "history": [EPOCH, EPOCH | {"epoch": 2, "loss": 0.4321, "learning_rate": 0.0123}],
        "tried": None,
        "speed": {"device": "cpu", "threads": 3, "ms_one_image": 1.234, "images_per_s": 3456.7},
    } | changes


def make_examples(dataset: Dataset) -> Examples:
    """Return evidence of every kind: two mistakes, every point, twelve searches."""
    count = len(dataset.test)
    last = len(dataset.label_names) - 1
    predicted_N = dataset.test.labels_N.copy()
    predicted_N[[last, 2 * last + 1]] = 0
    return Examples(
        mistakes=(Mistake(last, last, 0, 0.9871), Mistake(2 * last + 1, last, 0, 0.6543)),
        plot_points=PlotPoints(
            xy=np.random.default_rng(1).normal(size=(count, 2)).astype(np.float32),
            indexes=np.arange(count),
            predicted=predicted_N,
        ),
        neighbours=tuple(
            Neighbours(n % count, tuple(range(8)), tuple(0.9 - n / 100 for n in range(8)))
            for n in range(12)
        ),
    )


def render(names: tuple[str, ...] = ("cat", "dog", "cow"), **changes: Any) -> str:
    dataset = make_dataset(names)
    figures: Any = Figures(make_figures(dataset, **changes))
    return render_report(figures, make_examples(dataset), dataset)


OF_CLASSES = (
    *("accuracy", "accuracy_interval", "balanced_accuracy", "mean_loss", "calibration_error"),
    *("calibration_error_honest", "calibration_error_honest_high", "reliability", "classes"),
    *("calibration_error_beyond_chance", "calibration_error_beyond_chance_interval"),
    *("calibration_error_uncalibrated", "reliability_uncalibrated", "confusion"),
)
OF_CLASS_SEARCH = (
    "r_at_1",
    "r_at_1_interval",
    "precision_at_10",
    "map",
    "map_interval",
    "map_at_r",
)
WITHOUT_CLASSES = dict.fromkeys(OF_CLASSES)
WITHOUT_LABELS = dict.fromkeys(OF_CLASSES + OF_CLASS_SEARCH)


def test_the_search_for_the_same_thing_is_shown_with_its_set_up_and_the_knob() -> None:
    text = Read(raw=render()).text
    assert "634 queries of 317 test images, searched among 2,345 images" in text
    assert "Each is to find the photo that it was made of." in text
    assert "84.6% 82.3% to 86.8%" in text
    assert "93.5% 91.2% to 95.7%" in text
    assert "R@1, same class" not in text
    by_kind = [
        {"kind": kind, "own": kind == 0.35, "same_item": item, "same_class": same_class}
        for kind, item, same_class in ((0, 0.9871, 0.7812), (0.35, 0.9713, 0.9012), (1, 0.28, 0.91))
    ]
    figures = make_figures(make_dataset(("cat", "dog")))["same_item"]
    text = Read(raw=render(same_item=figures | {"by_kind": by_kind})).text
    assert "0.350 (as the vectors are) 97.1% 90.1%" in text


def test_what_the_model_does_not_know_is_shown_where_it_was_measured() -> None:
    assert "Whether it knows" not in Read(raw=render()).text
    novelty = {
        "stated": 0.02,
        "fitted_on": 412,
        "most_distance": 0.3219,
        "least_agreement": 0.3,
        "refused": 0.0173,
        "refused_interval": [0.0102, 0.0311],
        "refused_right": 4,
        "refused_wrong": 7,
        "strangers": [
            {"kind": "noise", "images": 25, "auroc": 0.9876, "certain": 0.44, "refused": 0.92}
            | {"certain_and_sure": 0.04}
        ],
    }
    text = Read(raw=render(novelty=novelty)).text
    assert "fitted with 412 photos kept aside, to refuse at most 2.0% of new ones" in text
    assert "1.7% (1.0% to 3.1%) 4 images that had their right class, and 7" in text
    assert "noise 25 pictures 44.0% 4.0% 92.0% 0.988" in text


def test_without_classes_the_page_speaks_of_search_alone() -> None:
    dataset = make_dataset(("cat", "dog"))
    examples = make_examples(dataset)
    labelled_data: Any = Figures(make_figures(dataset, in_words=[], history=[], **WITHOUT_CLASSES))
    with_labels = Read(raw=render_report(labelled_data, examples, dataset)).text
    assert "R@1" in with_labels
    assert "the same class" in with_labels
    bare: Any = Figures(make_figures(dataset, in_words=[], history=[], **WITHOUT_LABELS))
    points = examples.plot_points._replace(predicted=np.zeros(6, np.int64))
    unlabelled = replace(
        dataset,
        train=replace(dataset.train, label_names=(), labels_N=np.full(10, -1)),
        test=replace(dataset.test, label_names=(), labels_N=np.full(6, -1)),
    )
    page = render_report(bare, replace(examples, mistakes=(), plot_points=points), unlabelled)
    without = Read(raw=page)
    for text in (with_labels, without.text):
        assert "Same item" in text
        for word in ("Accuracy", "Calibration", "Confusions", "Mistakes", "None"):
            assert word not in text
    assert "same class" not in without.text
    anchors = [attributes.get("href") or "" for attributes in without.all("a")]
    ids = {attributes.get("id") for _, attributes in without.elements}
    assert {anchor.removeprefix("#") for anchor in anchors} <= ids


def test_every_picture_is_in_the_page_and_nothing_is_asked_of_anybody() -> None:
    page = render()
    read = Read(raw=page)
    assert len(read.all("img")) == 2 + 12 * 9
    for image in read.all("img"):
        assert (image["src"] or "").startswith("data:image/png;base64,")
        assert image["alt"]
    links = [attributes.get("href") or "" for _, attributes in read.elements]
    assert [link for link in links if link and not link.startswith(("#", "data:"))] == []
    assert {"script", "iframe", "object", "embed", "form"} & {
        tag for tag, _ in read.elements
    } == set()
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page) == []
    (policy,) = [meta["content"] for meta in read.all("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")


def test_class_names_are_text_wherever_they_stand() -> None:
    page = render((HOSTILE, "dog", "cow"))
    read = Read(raw=page)
    assert "<script" not in page
    assert all("onerror" not in image for image in read.all("img"))
    assert HOSTILE in "".join(read.words)
    assert any(attributes.get("title") == HOSTILE for _, attributes in read.elements)


@pytest.mark.parametrize(
    "said",
    [
        "91.2%",
        *("90.6% to 91.9%", "90.1%", "0.261 nats", "1.35", "1.2%", "4.6%", "1.10 is guessing"),
        *("89.1%", "88.4% to 89.8%", "87.3%", "78.9%", "78.3% to 79.5%", "71.2%"),
        *("95.5%", "94.5%", "93.5%", "1,234", "98.8%", "96.5%", "98.7% sure", "65.4% sure"),
        *("0.661", "84.6%", "0.412", "87.6%", "0.032", "0.432", "41 s", "2 epochs and 1 min 22 s"),
        *("squares-cnn", "cnn-recipe", "cnn-network", "third-layer", "127 numbers", "280,234"),
        *("1,122,344 bytes", "1.12 MB", "0123456789ab", "fedcba987654", "5 January 2026"),
        *("1.2 ms", "3,457 images/s", "cpu, 3 threads", "15 training images", "9 test images"),
        *("0.900", "0.830", "cow", "2 images, 66.7% of the class"),
    ],
)
def test_every_figure_is_told_with_its_unit(said: str, page_text: str) -> None:
    assert said in page_text


@pytest.fixture(scope="module")
def page_text() -> str:
    return Read(raw=render()).text


def test_headings_go_down_by_one_and_every_link_has_a_place_to_go() -> None:
    read = Read(raw=render())
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    named = {attributes.get("id") for _, attributes in read.elements}
    links = {(link["href"] or "#")[1:] for link in read.all("a")}
    assert links
    assert links <= named


def test_tables_have_headers_with_a_scope_and_drawings_have_a_name() -> None:
    read = Read(raw=render())
    assert read.all("th")
    assert {header.get("scope") for header in read.all("th")} == {"row", "col"}
    for drawing in read.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (
            drawing.get("role") == "img" and drawing.get("aria-label")
        )


def test_right_and_wrong_neighbours_differ_by_a_sign_too() -> None:
    page = render()
    assert page.count('aria-label="same class">✓') == page.count('<figure class="right">')
    assert page.count('aria-label="another class">✗') == page.count('<figure class="wrong">')
    assert page.count('<figure class="wrong">') > 0


def test_classes_held_out_of_the_training_get_a_table_of_their_own() -> None:
    held_out = {
        "classes": ["Hat", "<b>Scarf", "Belt", "Glove"],
        "images": 321,
        "among_held_out": FOUND | {"gallery_images": 500},
        "among_all": FOUND | {"gallery_images": 1500, "r_at_1": 0.8555},
    }
    text = Read(raw=render(held_out=held_out)).text
    for said in (
        "4 classes were never seen in training, 321 images",
        "<b>Scarf, Belt",
        "91.1%",
        "1,500",
    ):
        assert said in text
    assert "never seen in training" not in Read(raw=render()).text


def test_what_was_tried_stands_in_the_report_with_the_reason() -> None:
    tried = {
        "candidates": [
            {
                **{"name": "<lite2>", "seconds": 41.0, "head": "discriminants", "accuracy": 0.91},
                **{"r_at_1": 0.88, "same_item": 0.99, "not_tried": None, "held_out_images": 9},
            },
            {"name": "vgg19", "not_tried": "there was no time left", "seconds": 0.0},
        ],
        "winner": "<lite2>",
        "why": "<lite2> is all that was tried.",
    }
    page = render(history=[], tried=tried)
    text = Read(raw=page).text
    assert "<lite2> is all that was tried." in text
    assert "<lite2> (chosen)" in text
    assert "not tried: there was no time left" in text
    assert "91.0%" in text
    assert "<lite2>" not in page
    assert "carries no record" not in text


def test_a_model_without_a_history_says_so() -> None:
    text = Read(raw=render(history=[])).text
    assert "no record of its training" in text
    assert "Learning rate" not in text


def test_one_epoch_without_held_out_images_is_drawn() -> None:
    alone = EPOCH | {"validation_loss": None, "validation_accuracy": None}
    page = render(history=[alone])
    assert page.count('<rect class="mark training"') == 3
    assert "held-out images" not in Read(raw=page).text


def test_a_class_that_was_never_given_has_no_precision() -> None:
    nothing = {
        "label": "cat",
        "images": 3,
        "precision": None,
        "precision_interval": None,
        "recall": 0.0,
        "recall_interval": [0.0, 0.5615],
        "f1": None,
    }
    dataset = make_dataset(("cat", "dog", "cow"))
    classes = [nothing, *make_figures(dataset)["classes"][1:]]
    assert f"cat {NOTHING} 0% 0% to 56.1% {NOTHING} 3" in Read(raw=render(classes=classes)).text


def test_a_model_that_is_always_right_has_no_mistakes_to_show() -> None:
    dataset = make_dataset(("cat", "dog"))
    right = make_examples(dataset)
    right = Examples(mistakes=(), plot_points=right.plot_points, neighbours=right.neighbours)
    figures: Any = Figures(make_figures(dataset, confusion=[[3, 0], [0, 3]]))
    text = Read(raw=render_report(figures, right, dataset)).text
    assert text.count("No test image was given a wrong class.") == 2


@pytest.mark.parametrize(("classes", "tables"), [(30, 1), (31, 0)])
def test_many_classes_get_a_list_of_confusions_instead_of_a_table(
    classes: int, tables: int
) -> None:
    page = render(tuple(f"class-{n}" for n in range(classes)))
    assert page.count('<table class="matrix') == tables
    assert f"class-{classes - 1} taken for class-0 2 images" in Read(raw=page).text


def test_confused_pairs_come_with_the_most_images_first() -> None:
    pairs = confused_pairs([[5, 1, 0], [4, 0, 0], [0, 1, 1]])
    assert [(pair.label, pair.predicted, pair.images) for pair in pairs] == [
        (1, 0, 4),
        (2, 1, 1),
        (0, 1, 1),
    ]
    assert pairs[0].share == 1


def test_grid_lines_are_round_numbers_around_the_values() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        low, high = sorted(generator.normal(size=2) * 10.0 ** generator.integers(-4, 4))
        grid = grid_values(low, high)
        step = grid[1] - grid[0]
        assert grid[0] <= low + 1e-9 * abs(low)
        assert grid[-1] >= high - 1e-9 * abs(high)
        assert 3 <= len(grid) <= 9
        assert np.allclose(np.diff(grid), step)
    assert len(grid_values(0.0, 0.0)) > 1


def test_numbers_on_the_map_do_not_cover_each_other() -> None:
    apart = declutter(np.full((40, 2), 200.0))
    distances = np.hypot(*(apart[:, None] - apart[None]).transpose(2, 0, 1))
    np.fill_diagonal(distances, np.inf)
    assert distances.min() >= 0.8 * APART


def test_sixty_classes_look_different_on_the_map() -> None:
    looks = {(symbol(label).colour, symbol(label).shape) for label in range(60)}
    assert len(looks) == 60


def test_points_that_all_lie_in_one_place_are_drawn() -> None:
    dataset = make_dataset(("cat", "dog"))
    examples = make_examples(dataset)
    points = examples.plot_points._replace(xy=np.ones((len(dataset.test), 2), np.float32))
    same = Examples(mistakes=examples.mistakes, plot_points=points, neighbours=examples.neighbours)
    figures: Any = Figures(make_figures(dataset))
    assert 'x="250.0" y="200.0"' in render_report(figures, same, dataset)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_keep_every_pixel(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 28, 20), np.uint8)
    picture = inline_image(pixels)
    with Image.open(io.BytesIO(b64decode(picture.uri.partition(",")[2]))) as image:
        decoded = np.asarray(image.convert("RGB"))
    assert (picture.width, picture.height, picture.pixelated) == (20, 28, True)
    assert (decoded.transpose(2, 0, 1)[:channels] == pixels).all()


def test_large_pictures_are_made_smaller() -> None:
    picture = inline_image(np.zeros((3, 224, 112), np.uint8))
    assert picture.uri.startswith("data:image/jpeg;")
    assert (picture.width, picture.height, picture.pixelated) == (80, 160, False)


def test_a_real_measurement_can_be_shown(tmp_path: Path) -> None:
    names = ("cat", "dog", HOSTILE)
    write_model(tmp_path / "model", channels=1, labels=names)
    dataset = make_dataset(names, side=28)
    measurement = evaluate_model(tmp_path / "model", dataset, device="cpu")
    examples = choose_examples(
        measurement.queries,
        dataset.test.labels_N,
        measurement.predictions.retrieval.first_Q,
        measurement.gallery.vectors_BD,
        group_keys=(dataset.test.group_keys_N, dataset.train.group_keys_N),
    )
    text = Read(raw=render_report(measurement.evaluation, examples, dataset)).text
    assert "test-model" in text
    assert "no record of its training" in text


def test_a_browser_shows_it_without_a_word_of_complaint(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render((HOSTILE, *(f"a long name of a class, the {n}." for n in range(20)))))
    complaints: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 375, "height": 800})
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error("
            "`policy: ${event.violatedDirective} ${event.blockedURI}`))"
        )
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width in (375, 768, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert "taken" not in page.title()
        assert page.locator("img").evaluate_all("all => all.every((one) => one.naturalWidth > 0)")
        browser.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]


def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: install the system's chromium package to test the page")
    return path
