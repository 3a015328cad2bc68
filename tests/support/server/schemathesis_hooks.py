"""What the document cannot say, for schemathesis: rules between parameters, and of what is stored.

A request that was made to be right is brought in line with them before it is sent; one that was
made to be wrong is sent as it is.
"""

import base64
import json
import unicodedata
from typing import Any
from urllib.parse import urlencode

import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ensure_resource_availability, use_after_free

from index.items.ids import MAX_ID_BYTES
from tests.support.images.pngs import encoded, picture

WIDTH = 256  # of the model's vectors
MAX_QUERY_BYTES = 4000  # an address may have twice as many
# What only some models, and only some sources of a query, go with.
NOT_ALWAYS = ("kind", "exclude_self", "exclude_group", "exclude_copies", "group_by", "group_size")
MULTI_STATUS = 207
FAILED = 400  # from this status on
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

schemathesis.openapi.format(
    "byte",
    st.sampled_from([base64.b64encode(encoded(picture(1), kind)).decode() for kind in FORMATS]),
)
for kind in FORMATS:
    schemathesis.openapi.media_type(
        f"image/{kind.lower()}",
        st.integers(0, 9).map(lambda seed, kind=kind: encoded(picture(seed), kind)),
    )


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Bring ``case`` in line with the rules."""
    query = case.query or {}
    for fields in (query, case.body):
        if isinstance(fields, dict) and isinstance(fields.get("min_seq"), int | float):
            fields["min_seq"] = min(fields["min_seq"], 0)  # later ones are waited for, in vain
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    case.path_parameters = _sound(case.path_parameters)
    query.pop("cursor", None)  # only a page gives one out
    if case.path.startswith("/v1/search"):
        for fields in (query, case.body if isinstance(case.body, dict) else {}):
            for name in NOT_ALWAYS:
                fields.pop(name, None)
    if case.media_type == "application/json":
        query.clear()  # beside JSON a parameter would come twice
    elif case.path == "/v1/search/range":
        query.setdefault("min_score", 0.5)  # needed, here or in JSON
    case.query = query
    for name in ("crop", "metadata", "exclude"):
        query.pop(name, None)  # here they are text already; JSON bodies carry them, too
    if isinstance(query.get("filter"), str):
        query["filter"] = json.dumps(_sound(json.loads(query["filter"])))
    if isinstance(case.body, dict):
        _bring_in_line(case.body)
        if case.media_type == "multipart/form-data":
            case.body = _sound_form(case.body)
    # Else what was brought in line is judged anew, but as the text that it is by now: as wrong.
    case._record_starting_state()


@schemathesis.check
def use_after_free_of_items(ctx: Any, response: Any, case: Any) -> bool | None:
    """What was deleted is gone; but a job that was cancelled is still there to be read."""
    is_job = case.path.startswith("/v1/jobs")
    return None if is_job else use_after_free(ctx, response, case)


@schemathesis.check
def availability_of_what_was_stored(ctx: Any, response: Any, case: Any) -> bool | None:
    """What was stored is there; but of many items in one request, those that failed are not.

    What came of each is in the answer, not in its status.
    """
    parent = ctx.internals.find_parent(case_id=case.id)
    answer = None if parent is None else ctx.internals.find_response(case_id=parent.id)
    if answer is not None and answer.status_code == MULTI_STATUS:
        item_id = (case.path_parameters or {}).get("item_id")
        stored = [one["id"] for one in answer.json()["results"] if one["status"] < FAILED]
        if item_id not in stored:
            return None
    return ensure_resource_availability(ctx, response, case)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out what says nothing.

    Addresses that are too long are refused as such, which schemathesis takes for no refusal. Forms
    of many items that were made to be wrong may be right: in a form all values are bytes.
    """
    if len(urlencode(case.query or {}, doseq=True)) > MAX_QUERY_BYTES:
        return False
    is_negative = case.meta is not None and not case.meta.generation.mode.is_positive
    is_form = case.media_type == "multipart/form-data"
    return not (is_negative and is_form and case.path == "/v1/items")


def _sound_form(body: dict[str, Any]) -> dict[str, Any]:
    """Return a form of real images alone: of other fields only those of the query are known."""
    if "items" in body:
        return {"items": [{"id": "a"}]}  # with files there must be as many of these
    image = encoded(picture(1))
    return {"image": [image] if isinstance(body["image"], list) else image}


def _bring_in_line(fields: dict[str, Any]) -> None:
    if isinstance(fields.get("vector"), list):
        fields["vector"] = [WIDTH**-0.5] * WIDTH  # of unit length, as vectors to store must be
    if "filter" in fields:
        fields["filter"] = _sound(fields["filter"])
    for name in ("id", "ids", "exclude"):
        if fields.get(name):
            fields[name] = _sound(fields[name])
    if fields.get("kind") == "import":
        fields["source"] = "shop.csv"  # is there, and needs nothing beside it
        for name in ("ids", "vectors"):
            fields.pop(name, None)
    if fields.get("crop"):
        fields["crop"] = {"top": 0.25, "left": 0, "bottom": 1, "right": 0.5}
    if fields.get("metadata"):
        fields["metadata"] = {"number": 1, "list": ["a", None, True]}


def _as_id(text: str) -> str:
    """Return ``text`` composed, and short enough for an id."""
    composed = unicodedata.normalize("NFC", text)
    return composed if len(composed.encode()) <= MAX_ID_BYTES else composed[: MAX_ID_BYTES // 4]


def _sound(value: Any) -> Any:
    """Return ``value`` with its integers within 64 bits, and texts that could be ids."""
    if isinstance(value, dict):
        return {name: _sound(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_sound(inner) for inner in value]
    if isinstance(value, str):
        return _as_id(value)
    is_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return 2**63 - 1 if is_large else value
