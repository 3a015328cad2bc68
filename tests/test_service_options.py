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
    ("kind", "NaN"): 'kind cannot be used: must be a number, got "NaN"',
    ("kind", "\u0660"): "kind cannot be used: must be a number",  # an Arabic zero
    ("kind", "\uff10.\uff15"): "kind cannot be used: must be a number",  # full-width digits
    ("kind", "0_0"): 'kind cannot be used: must be a number, got "0_0"',
    ("k", "\u0665"): "k cannot be used: must be a whole number",
    ("min_score", "inf"): 'min_score cannot be used: must be a number, got "inf"',
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
    for text, number in (("1", 1), (".5", 0.5), ("1.", 1), ("+5e-1", 0.5), ("-0.25", -0.25)):
        assert SearchOptions.parse({"min_score": Text(text)}).min_score == number
    assert options.exclude == ["a", "b"]
