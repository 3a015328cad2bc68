"""Every list, text and free object that a client may send has an end, and beyond it one error."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from annotated_types import MaxLen
from pydantic import BaseModel
from pydantic.types import FailFast

from index.query.counting import MAX_KEYS, MAX_VALUES
from index.query.groups import MAX_KEY_CHARS
from index.query.result_selection import MAX_EXCLUDED, MAX_GROUP_SIZE
from service.request.preconditions import MAX_TAGS
from service.schemas import edit_parameters, job_parameters, parameters, query_parameters
from tests.support.server.servers import Server

# What has no end of its own, by the last name of its path, and what ends it all the same.
REASONS = {
    "metadata": "16 KiB of JSON, 16 levels, 512 values (index.items.item)",
    "match": "a text that is looked up, in the body's bytes or 8 KiB of an address",
    **dict.fromkeys(("gt", "gte", "lt", "lte", "key"), "the same"),
    **dict.fromkeys(
        ("cursor", "job_id"), "8 KiB of an address (service.server.request_head.MAX_URL_BYTES)"
    ),
    "form": "256 parts (service.http.multipart.MAX_PARTS)",
    "queries": "64, each of which is read as its own (service.schemas.query_parameters.OneQuery)",
    "items": "256, each of which is read as its own (service.schemas.parameters.BulkItem)",
}
LENGTH = re.compile(r"\{\d+,\d+\}\$$")


def endless(schema: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the names of what has no end in a schema of a request."""
    kind = schema.get("type")
    if kind is None and not {"const", "enum"} & schema.keys():
        kinds = [one for part in ("anyOf", "oneOf") for one in schema.get(part, ())]
        beside = {key: said for key, said in schema.items() if key not in ("anyOf", "oneOf")}
        for one in kinds:
            yield from endless({**beside, **one}, name)
        if not kinds:
            yield name
    if kind == "string" and not _has_end(schema):
        yield name
    if kind == "array":
        if "maxItems" not in schema:
            yield name
        yield from endless(schema.get("items", {}), name)
    if kind == "object":
        if schema.get("additionalProperties") is not False and "maxProperties" not in schema:
            yield name
        for member, value in schema.get("properties", {}).items():
            yield from endless(value, member)


def _has_end(schema: dict[str, Any]) -> bool:
    if {"maxLength", "enum", "const"} & schema.keys() or LENGTH.search(schema.get("pattern", "")):
        return True
    return schema.get("format") in ("binary", "byte")  # the body's bytes


def test_all_that_the_document_lets_a_client_send_has_an_end(server: Server) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    found = set()
    for path in paths.values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                sent = [parameter, *parameter.get("content", {}).values()]
                (schema,) = [one["schema"] for one in sent if "schema" in one]
                found |= {*endless(schema, parameter["name"])}
            for kind, media in operation.get("requestBody", {}).get("content", {}).items():
                found |= {*endless(media["schema"], "form" if "form" in kind else "body")}

    assert sorted(found - REASONS.keys()) == []
    assert sorted(REASONS.keys() - found) == []


def lists(model: type[BaseModel]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the name of each field of a model that holds a list, and what is said of it."""
    for name, info in model.model_fields.items():
        for said in _lists(info.annotation, list(info.metadata)):
            yield f"{model.__name__}.{name}", said


def _lists(annotation: Any, metadata: list[Any]) -> Iterator[list[Any]]:
    if hasattr(annotation, "__metadata__"):
        yield from _lists(annotation.__origin__, [*metadata, *_flat(annotation.__metadata__)])
    elif getattr(annotation, "__origin__", annotation) in (list, tuple, set, frozenset):
        yield metadata
    else:
        for one in getattr(annotation, "__args__", ()):
            yield from _lists(one, metadata)


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    return [piece for one in metadata for piece in (one, *getattr(one, "metadata", ()))]


MODELS = [
    model
    for module in (parameters, query_parameters, edit_parameters, job_parameters)
    for model in vars(module).values()
    if inspect.isclass(model)
    and issubclass(model, BaseModel)
    and model.__module__ == module.__name__
]
LISTS = dict(entry for model in MODELS for entry in lists(model))


def test_there_are_lists() -> None:
    assert {"SearchOptions.exclude", "DeleteJob.ids", "OneQuery.vector"} <= LISTS.keys()


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_a_length_and_tells_its_first_fault_alone(name: str) -> None:
    assert any(isinstance(said, MaxLen) for said in LISTS[name])
    assert any(isinstance(said, FailFast) and said.fail_fast for said in LISTS[name])


IDS = [f"none-{number}" for number in range(job_parameters.MAX_JOB_IDS + 1)]
BEYOND = [
    ("/v1/items/delete", {"ids": IDS[: edit_parameters.MAX_DELETED + 1]}),
    ("/v1/jobs", {"kind": "delete", "ids": IDS}),
    ("/v1/facets", {"keys": [f"key-{number}" for number in range(MAX_KEYS + 1)]}),
    ("/v1/facets", {"keys": ["k" * (MAX_KEY_CHARS + 1)]}),
    ("/v1/facets", {"keys": ["label"], "limit": MAX_VALUES + 1}),
    ("/v1/search", {"id": "item-00", "exclude": IDS[: MAX_EXCLUDED + 1]}),
    ("/v1/search", {"id": "item-00", "offset": query_parameters.MAX_OFFSET + 1}),
    ("/v1/search", {"id": "item-00", "group_by": "label", "group_size": MAX_GROUP_SIZE + 1}),
    ("/v1/search", {"id": "item-00", "group_by": "k" * (MAX_KEY_CHARS + 1)}),
    ("/v1/search", {"queries": [{"id": "item-00"}] * (query_parameters.MAX_QUERIES + 1)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body"), BEYOND, ids=[f"{path} {[*body][-1]}" for path, body in BEYOND]
)
def test_one_more_than_a_limit_is_refused(server: Server, path: str, body: dict[str, Any]) -> None:
    with server.client() as client:
        answer = client.post(path, json=body)

    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("list_too_long", "invalid_parameter")


def test_more_entity_tags_than_are_compared_are_refused(server: Server) -> None:
    tags = ", ".join(f'"{number}"' for number in range(MAX_TAGS + 1))
    with server.client() as client:
        answer = client.patch("/v1/items/none", json={"label": "x"}, headers={"If-Match": tags})

    assert answer.status_code == 400, answer.text
    assert str(MAX_TAGS) in answer.json()["detail"]


@pytest.mark.parametrize("wrong", [0, None, {}])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/items/delete"])
def test_of_many_wrong_elements_one_is_told(server: Server, path: str, wrong: object) -> None:
    ids = [wrong] * (
        job_parameters.MAX_JOB_IDS - 1 if path == "/v1/jobs" else edit_parameters.MAX_DELETED
    )
    with server.client() as client:
        answer = client.post(
            path, json={"ids": ids, **({"kind": "delete"} if "job" in path else {})}
        )

    assert answer.status_code in (400, 422)
    assert len(answer.json()["detail"]) < 400
