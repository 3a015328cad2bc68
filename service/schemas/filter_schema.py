"""What /openapi.json says of a filter, which the gallery reads: to pydantic it is only JSON."""

from typing import Any, Final

from index.items.filter import MAX_CONDITIONS, MAX_VALUES
from service.schemas.parameters import ID_SCHEMA, LABEL_SCHEMA

_TEXT = {"type": "string", "pattern": "^[^\\u0000]*$"}
_NUMBER = {"type": "number", "description": "of 64 bits, if written as an integer"}
_SCALAR: dict[str, Any] = {"anyOf": [_TEXT, _NUMBER, {"type": "boolean"}]}
_TRUTH = {"type": "boolean"}


def _condition(key: dict[str, Any], value: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return the description of a condition on ``key``: of one value or many, or of a range."""
    bounds = [_TEXT, _NUMBER] if value is _SCALAR else [_TEXT]
    values = {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_VALUES}
    tests = {
        "match": {"anyOf": [value, values]},
        "range": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": dict.fromkeys(("gte", "gt", "lte", "lt"), bound),
                    "additionalProperties": False,
                    "minProperties": 1,
                }
                for bound in bounds
            ]
        },
        **others,
    }
    return {
        "type": "object",
        "required": ["key"],
        "properties": {"key": key, **tests},
        "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in tests],
    }


_CONDITION = {
    "anyOf": [
        _condition(
            {"type": "string", "pattern": r"^(?!(id|label)$)[^\u0000]*$"},
            _SCALAR,
            exists=_TRUTH,
            is_null=_TRUTH,
        ),
        _condition(
            {"const": "label"},
            {"type": "string", **LABEL_SCHEMA},
            exists=_TRUTH,
            is_null={"const": False},
        ),
        _condition({"const": "id"}, {"type": "string", **ID_SCHEMA}),
    ]
}
FILTER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        name: {"type": "array", "items": _CONDITION, "maxItems": MAX_CONDITIONS}
        for name in ("must", "should", "must_not")
    },
    "additionalProperties": False,
}
