"""Messages for wrong values: pydantic's error in, the field and the reason in our words out."""

import json
from typing import Any, Final

from pydantic_core import ErrorDetails

MAX_SHOWN: Final = 60  # characters of a wrong value in a sentence
_REASONS: Final[dict[str, str]] = {  # by pydantic's type; in braces what it says of the limit
    "string_type": "must be a string",
    "float_type": "must be a number",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not be empty",  # no list or text has another least length
    "too_long": "must have at most {max_length} elements",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "extra_forbidden": "is not known there",
}


def field_path(error: ErrorDetails) -> str:
    """Return where the wrong value is, such as ``vector[3]`` or ``crop.top``."""
    first, *inner = error["loc"]
    return str(first) + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part[:MAX_SHOWN]}" for part in inner
    )


def failure_reason(error: ErrorDetails) -> str:
    """Return why the value cannot be used, the end of a sentence."""
    if error["type"] in _REASONS:
        return _REASONS[error["type"]].format_map(error.get("ctx", {}))
    return error["msg"].removeprefix("Value error, ")  # pydantic's, before a sentence of ours


def abbreviated(value: Any) -> str:
    """Return ``value`` as JSON, cut where it is long."""
    text = ""
    try:
        for piece in json.JSONEncoder().iterencode(value):
            text += piece[: MAX_SHOWN + 1]
            if len(text) > MAX_SHOWN:
                break
    except ValueError:
        text = type(value).__name__
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
