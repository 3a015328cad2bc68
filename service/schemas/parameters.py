"""The parameters of each route: text or typed values in, options out, or a named error."""

import re
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from index.errors import BadVectorsError, FilterError, InvalidIdError
from index.items.ids import MAX_ID_BYTES
from service.errors import (
    InvalidJsonError,
    InvalidKError,
    InvalidKindError,
    InvalidParameterError,
    ListTooLongError,
    UnexpectedFieldError,
)
from service.schemas.image_fields import unknown_field_message
from service.schemas.validation_messages import abbreviated, failure_reason, field_path

MAX_K: Final = 1000
MAX_IMAGES: Final = 256  # in one request
MAX_JSON_VALUES: Final = 100_000  # in one body or field, however they are nested
MAX_WIDTH: Final = 65_536  # of a vector; no network's is so wide
# Python would read "1_0" as a number, too, and the digits of every script.
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

# What JSON Schema can say of values that the gallery checks; for the document alone.
ID_SCHEMA: Final[dict[str, Any]] = {
    "pattern": (
        r"^(?!\.\.?$)[^/\u0000-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufffd]+$"
    ),
    "maxLength": MAX_ID_BYTES,  # as UTF-8
}
LABEL_SCHEMA: Final[dict[str, Any]] = {"pattern": r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]{1,256}$"}

# Which error a wrong value of a parameter is; every other parameter's is InvalidParameterError.
_ERRORS: Final[dict[str, type[Exception]]] = {
    "k": InvalidKError,
    "kind": InvalidKindError,  # of a query; that of a job is known before
    "filter": FilterError,
    "id": InvalidIdError,
    "ids": InvalidIdError,
    "exclude": InvalidIdError,
    "vector": BadVectorsError,
    "items": InvalidJsonError,
}


class FormText(str):
    """A value as forms and queries carry it; in JSON a number is a number, and "5" is none."""

    __slots__ = ()


def _to_integer(value: Any) -> Any:
    """Refuse what pydantic would quietly turn into a whole number: true, " 7", "1_000".

    In its strict mode it would refuse 5.0, which is the same number to JSON.
    """
    if isinstance(value, FormText) and value.isascii() and value.isdecimal():
        return int(value[:12])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():  # the same number, to JSON
        return int(value)
    raise ValueError("must be a whole number")


def _to_number(value: Any) -> Any:
    if isinstance(value, FormText) and _DECIMAL.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError("must be a number")


def _to_bool(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, FormText) and value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


def parse_json_text(value: Any) -> Any:
    """Read JSON from text: how forms and queries carry lists and objects."""
    if isinstance(value, FormText) and sum(map(value.count, ",[{")) > MAX_JSON_VALUES:
        raise ValueError(f"must have at most {MAX_JSON_VALUES} values")
    try:
        return from_json(value, allow_inf_nan=False) if isinstance(value, FormText) else value
    except ValueError as error:
        raise ValueError(f"must be JSON ({error})") from error


# Behind the ranges, or these would be missing in the document.
INTEGER: Final = BeforeValidator(_to_integer)
NUMBER: Final = BeforeValidator(_to_number)
Bool = Annotated[bool, BeforeValidator(_to_bool)]
Vector = Annotated[
    list[Annotated[float, Field(strict=True)]], Field(max_length=MAX_WIDTH, fail_fast=True)
]
Ids = list[Annotated[str, Field(json_schema_extra=ID_SCHEMA)]]
FilterField = Annotated[
    dict[str, Any] | None, BeforeValidator(parse_json_text), Field(description="as in search")
]
Cosine = Annotated[float, Field(ge=-1, le=1), NUMBER]
Recall = Annotated[float, Field(gt=0, le=1), NUMBER]


class Options(BaseModel):
    """Parameters of one route; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    takes_image: ClassVar[bool] = False  # beside them

    @classmethod
    def parse(cls, fields: Any) -> Self:
        """Return the options in ``fields``, which should be an object of JSON.

        Raises:
            RequestError, VectorIndexError: the error that belongs to the first wrong field.
        """
        # Of many unknown fields pydantic would tell each.
        if isinstance(fields, dict):
            for name in fields:
                if name not in cls.model_fields:
                    known = ["image"] * cls.takes_image + [*cls.model_fields]
                    raise UnexpectedFieldError(unknown_field_message(name, known))
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _named_error(error) from error


class ClassifyOptions(Options):
    """Parameters of classify."""

    takes_image = True

    k: Annotated[int, Field(ge=1, le=MAX_K, description="predictions to return"), INTEGER] = 5


class EmbedOptions(Options):
    """Embed takes images alone."""

    takes_image = True


class ItemOptions(Options):
    """Parameters of storing one item."""

    takes_image = True

    label: Annotated[
        str | None, Field(description="class of the item", json_schema_extra=LABEL_SCHEMA)
    ] = None
    metadata: Annotated[
        dict[str, Any], BeforeValidator(parse_json_text), Field(description="a JSON object")
    ] = Field(default_factory=dict)
    vector: Annotated[
        Vector | None,
        BeforeValidator(parse_json_text),
        Field(description="stored as it is, without an image; of unit length"),
    ] = None
    upsert: Annotated[Bool, Field(description="replace other content under this id")] = True


class PageOptions(Options):
    """Parameters of paging through items."""

    limit: Annotated[int, Field(ge=1, le=1000, description="items to return"), INTEGER] = 100
    cursor: Annotated[str | None, Field(description="next_cursor of the page before")] = None
    filter: FilterField = None


class BulkItem(Options):
    """One item of many; ``image`` is left out when images come as form files."""

    id: Annotated[str, Field(json_schema_extra=ID_SCHEMA)]
    image: str | None = None
    vector: Annotated[
        Vector | None, Field(description="stored as it is, without an image; of unit length")
    ] = None
    label: Annotated[str | None, Field(json_schema_extra=LABEL_SCHEMA)] = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class BulkOptions(Options):
    """Parameters of storing many items."""

    items: Annotated[
        Annotated[list[Any], Field(min_length=1, max_length=MAX_IMAGES, fail_fast=True)],
        BeforeValidator(parse_json_text),
    ]
    upsert: Bool = True


class NoOptions(Options):
    """A route that takes no parameters."""


def _named_error(error: ValidationError) -> Exception:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return InvalidJsonError(f"an object was expected, got {abbreviated(first['input'])}")
    name, place = str(first["loc"][0]), field_path(first)
    if first["type"] == "missing":
        return InvalidJsonError(f"{place!r} is missing")
    reason = failure_reason(first)
    if first["type"] == "too_long" and isinstance(first["input"], list):
        return ListTooLongError(f"{place} {reason}, got {len(first['input'])}")
    sentence = f"{place} cannot be used: {reason}, got {abbreviated(first['input'])}"
    return _ERRORS.get(name, InvalidParameterError)(sentence)
