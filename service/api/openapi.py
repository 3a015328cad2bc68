"""What /openapi.json has of requests that come in three shapes, and of errors."""

from collections.abc import Container, Sequence
from typing import Any

from service.http.problem_details import MEDIA_TYPE
from service.schemas.filter_schema import FILTER_SCHEMA
from service.schemas.job_parameters import JOBS
from service.schemas.parameters import ID_SCHEMA, MAX_IMAGES, BulkItem, BulkOptions, Options
from service.schemas.responses import ProblemAnswer
from vision.formats.detect import FORMATS

# What /docs fills in and sends when nobody changes it, which changes nothing.
_EXAMPLES = {
    "crop": {"top": 0.0, "left": 0.0, "bottom": 1.0, "right": 1.0},
    "exclude": [],
    "filter": {"must": []},
    "metadata": {},
}
_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {
    "type": "string",
    "format": "byte",
    "minLength": 1,
    "description": "base64, or a data: URI",
}
# What a request may be about: one of these; null counts as absent, but where there is no null.
_SOURCES: dict[str, dict[str, Any]] = {
    "image": {},
    "images": {},
    "id": {"type": "string"},
    "vector": {"type": "array"},
    "queries": {"type": "array"},
}
_MEDIA_TYPES = tuple(kind for one in FORMATS for kind in one.media_types)


def image_request(options: type[Options], *, most: int = 1) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes an image, in any of three shapes.

    Or several, ``most`` at most.
    """
    many = most > 1
    properties = _properties(options)
    files = {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": most}
    file = files if many else _BINARY
    # The parameters are described once, as query parameters: /docs sends all that is described, and
    # the same one in query and form would come twice.
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": file},
        "description": "the parameters may also come as fields of this form",
    }
    member = {"images": {**files, "items": {**_BASE64, "minLength": 0}}} if many else {}
    json_object = {
        **_object(options, {"image": _BASE64, **member, **properties}),
        **_one_source({*member, *properties}),
    }
    return {
        # Other sources than the image are members of JSON; with an image they would be ambiguous.
        "parameters": _query({k: v for k, v in properties.items() if k not in _SOURCES}),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": json_object},
                **{kind: {"schema": _BINARY} for kind in _MEDIA_TYPES},
            },
        },
    }


def bulk_request() -> dict[str, Any]:
    """Return the OpenAPI description of the route that stores many items."""
    item = _object(BulkItem, {**_properties(BulkItem), "image": _BASE64})
    # Any other element does not fail the request: it gets a status of its own.
    few = {"type": "array", "maxItems": MAX_IMAGES}
    items = {**few, "items": {"anyOf": [item, {}]}, "minItems": 1}
    upsert = _properties(BulkOptions)["upsert"]
    form = {
        "image": {**few, "items": _BINARY, "description": "one per item, in order"},
        "items": {**items, "description": "JSON: the list of items, without image"},
        "upsert": upsert,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _object(BulkOptions, {"items": items, "upsert": upsert})
                },
                "multipart/form-data": {
                    "schema": {"type": "object", "required": ["items"], "properties": form},
                    "encoding": {"items": {"contentType": "application/json"}},
                },
            },
        },
    }


def json_request(
    options: type[Options],
    *,
    media_types: Sequence[str] = ("application/json",),
    required: bool = True,
) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes a JSON object."""
    content = {kind: {"schema": _selecting_object(options)} for kind in media_types}
    return {"requestBody": {"required": required, "content": content}}


def job_request() -> dict[str, Any]:
    """Return the OpenAPI description of the route that begins a job."""
    kinds = [
        {"title": name, "description": kind.__doc__, **_selecting_object(kind)}
        for name, kind in JOBS.items()
    ]
    schema = {"oneOf": kinds}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def query_request(options: type[Options]) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes query parameters only."""
    required = options.model_json_schema().get("required", ())
    return {"parameters": _query(_properties(options), required)}


def problem_responses() -> dict[int | str, dict[str, Any]]:
    """Return what every route may answer when it does not succeed."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}
    return {
        "4XX": {"description": "The request is at fault", "content": content},
        "5XX": {"description": "The service is at fault", "content": content},
    }


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's ``document`` with what it cannot know: problems, and how keys are sent."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema()
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "where the service asks for keys",
        }
    }
    document["security"] = [{"key": []}, {}]
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "item_id":
                    parameter["schema"].update(ID_SCHEMA)
    return document


def _properties(options: type[Options]) -> dict[str, Any]:
    schema = options.model_json_schema()
    definitions = schema.get("$defs", {})
    properties: dict[str, Any] = _inlined(schema.get("properties", {}), definitions)
    if "filter" in properties:  # the gallery reads it, so the options know only that it is JSON
        properties["filter"]["anyOf"] = [FILTER_SCHEMA, {"type": "null"}]
    return properties


def _object(options: type[Options], properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object of these properties, and those that ``options`` need."""
    schema = options.model_json_schema()
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": schema["required"]} if "required" in schema else {}),
    }


def _selecting_object(options: type[Options]) -> dict[str, Any]:
    properties = _properties(options)
    return {**_object(options, properties), **_one_selection(properties)}


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
        return {name: _inlined(inner, definitions) for name, inner in value.items()}
    if isinstance(value, list):
        return [_inlined(inner, definitions) for inner in value]
    return value


def _one_source(names: set[str]) -> dict[str, Any]:
    """Return which one of the members must be there; null counts as absent."""
    listed: list[dict[str, Any]] = [
        {"required": [name], "properties": {name: schema}}
        for name, schema in _SOURCES.items()
        if name == "image" or name in names
    ]
    return {"oneOf": listed} if len(listed) > 1 else {"required": ["image"]}


def _one_selection(names: Container[str]) -> dict[str, Any]:
    """Return which one of the members must select what to delete, where they are such members."""
    if "all" not in names:
        return {}
    lists = [
        {"required": [name], "properties": {name: {"minItems": 1}}}
        for name in ("must", "should", "must_not")
    ]
    choices = {
        "ids": {"type": "array"},
        "filter": {"type": "object", "anyOf": lists},
        "all": {"const": True},
    }
    absent = {"ids": {"type": "null"}, "filter": {"type": "null"}, "all": {"const": False}}
    return {
        "oneOf": [
            {"required": [name], "properties": {**absent, name: schema}}
            for name, schema in choices.items()
        ]
    }


def _is_compound(value: dict[str, Any]) -> bool:
    kinds = {value.get("type"), *(option.get("type") for option in value.get("anyOf", ()))}
    return bool(kinds & {"array", "object"})


def _query(properties: dict[str, Any], required: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the parameters as queries carry them: lists and objects as JSON text."""
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": schema.get("description", ""),
            **(
                {"content": {"application/json": {"schema": schema, **example}}}
                if _is_compound(schema)
                else {"schema": _without_null(schema)}
            ),
        }
        for name, schema in properties.items()
        for example in [{"example": _EXAMPLES[name]} if name in _EXAMPLES else {}]
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` for text, which cannot be null: there a parameter is left out."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if not options:
        return schema
    return {**{k: v for k, v in schema.items() if k not in ("anyOf", "default")}, **options[0]}
