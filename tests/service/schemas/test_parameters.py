"""Parameters as forms and queries carry them: wrong ones are told in a sentence a person writes."""

import re
from typing import Any

import pytest

from service.schemas.edit_parameters import DeleteOptions, FacetOptions, PatchOptions
from service.schemas.job_parameters import ImportJob, RebuildJob
from service.schemas.parameters import ClassifyOptions, FormText, ItemOptions, NoOptions, Options
from service.schemas.query_parameters import RangeOptions, SearchOptions

WRONG = {
    ("exclude", "hat:1.jpg"): "exclude cannot be used: must be JSON (expected value at line 1",
    ("filter", "{label: coat}"): "filter cannot be used: must be JSON (key must be a string",
    ("kind", ""): 'kind cannot be used: must be a number, got ""',
    ("kind", "half"): 'kind cannot be used: must be a number, got "half"',
    ("kind", "0. 5"): 'kind cannot be used: must be a number, got "0. 5"',
    ("kind", "NaN"): 'kind cannot be used: must be a number, got "NaN"',
    ("kind", "\u0660"): "kind cannot be used: must be a number",  # an Arabic zero
    ("kind", "\uff10.\uff15"): "kind cannot be used: must be a number",  # full-width digits
    ("kind", "0_0"): 'kind cannot be used: must be a number, got "0_0"',
    ("k", "\u0665"): "k cannot be used: must be a whole number",
    ("min_score", "inf"): 'min_score cannot be used: must be a number, got "inf"',
    ("min_score", "-2"): "min_score cannot be used: must be at least -1",
    ("offset", "2.5"): 'offset cannot be used: must be a whole number, got "2.5"',
    ("exact", "1"): 'exact cannot be used: must be true or false, got "1"',
}


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_told_with_what_was_expected(name: str, text: str) -> None:
    with pytest.raises(Exception, match="cannot be used") as refused:
        SearchOptions.parse({name: FormText(text)})

    assert str(refused.value).startswith(WRONG[name, text])


SENTENCES: dict[str, tuple[type[Options], dict[str, Any], str]] = {
    "text for a list": (
        FacetOptions,
        {"keys": ["label", 7]},
        "keys[1] cannot be used: must be a string, got 7",
    ),
    "a list that is text": (
        DeleteOptions,
        {"ids": "a"},
        'ids cannot be used: must be a list, got "a"',
    ),
    "an empty list": (
        SearchOptions,
        {"queries": []},
        "queries cannot be used: must not be empty, got []",
    ),
    "a long list": (
        DeleteOptions,
        {"ids": ["a"] * 1_001},
        "ids must have at most 1000 elements, got 1001",
    ),
    "an object that is text": (
        PatchOptions,
        {"metadata": "x"},
        'metadata cannot be used: must be an object, got "x"',
    ),
    "a label that is a number": (
        PatchOptions,
        {"label": 7},
        "label cannot be used: must be a string, got 7",
    ),
    "a number of a vector": (
        ItemOptions,
        {"vector": [0.0, "1"]},
        'vector[1] cannot be used: must be a number, got "1"',
    ),
    "a side of a crop": (
        SearchOptions,
        {"crop": {"top": "0"}},
        'crop.top cannot be used: must be a number, got "0"',
    ),
    "too large": (SearchOptions, {"k": 2_000}, "k cannot be used: must be at most 1000, got 2000"),
    "too small": (RangeOptions, {"min_score": 0, "limit": 0}, "limit cannot be used: must be at"),
    "not above": (RebuildJob, {"kind": "rebuild", "recall": 0}, "recall cannot be used: must be a"),
    "missing": (RangeOptions, {}, "'min_score' is missing"),
    "unknown": (
        FacetOptions,
        {"key": "label"},
        "'key' is not a field here; the fields are keys, filter, limit",
    ),
    "unknown where there are none": (
        NoOptions,
        {"a": 1},
        "'a' is not a field here; there are none",
    ),
    "an image under another name": (
        ClassifyOptions,
        {"file": "x"},
        "'image' is expected, got 'file'",
    ),
    "a file where no image is": (
        ImportJob,
        {"kind": "import", "file": "x"},
        "'file' is not a field here; the fields are kind, source, ids, vectors, normalize",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_is_wrong_is_said_in_our_words_and_with_its_place(name: str) -> None:
    options, fields, sentence = SENTENCES[name]
    with pytest.raises(Exception, match=re.escape(sentence)):
        options.parse(fields)


def test_text_that_says_a_value_is_that_value() -> None:
    said = {"kind": "0.5", "offset": "7", "exact": "true", "exclude": '["a", "b"]'}
    options = SearchOptions.parse({name: FormText(text) for name, text in said.items()})

    assert (options.kind, options.offset, options.exact) == (0.5, 7, True)
    for text, number in (("1", 1), (".5", 0.5), ("1.", 1), ("+5e-1", 0.5), ("-0.25", -0.25)):
        assert SearchOptions.parse({"min_score": FormText(text)}).min_score == number
    assert options.exclude == ["a", "b"]
