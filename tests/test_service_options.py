"""Parameters as forms and queries carry them: wrong ones are told in a sentence a person writes."""

import pytest

from service.options import Text
from service.query_options import SearchOptions

WRONG = {
    ("exclude", "hat:1.jpg"): "exclude cannot be used: must be JSON (expected value at line 1",
    ("filter", "{label: coat}"): "filter cannot be used: must be JSON (key must be a string",
    ("kind", ""): 'kind cannot be used: must be a number, got ""',
    ("kind", "half"): 'kind cannot be used: must be a number, got "half"',
    ("kind", "0. 5"): 'kind cannot be used: must be a number, got "0. 5"',
    ("kind", "NaN"): "kind cannot be used: Input should be less than or equal to 1",
    ("min_score", "-2"): "min_score cannot be used: Input should be greater than or equal to -1",
    ("offset", "2.5"): 'offset cannot be used: must be a whole number, got "2.5"',
    ("exact", "1"): 'exact cannot be used: must be true or false, got "1"',
}


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_told_with_what_was_expected(name: str, text: str) -> None:
    with pytest.raises(Exception, match="cannot be used") as refused:
        SearchOptions.parse({name: Text(text)})

    assert str(refused.value).startswith(WRONG[name, text])


def test_text_that_says_a_value_is_that_value() -> None:
    said = {"kind": "0.5", "offset": "7", "exact": "true", "exclude": '["a", "b"]'}
    options = SearchOptions.parse({name: Text(text) for name, text in said.items()})

    assert (options.kind, options.offset, options.exact) == (0.5, 7, True)
    assert options.exclude == ["a", "b"]
