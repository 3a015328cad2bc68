"""What /openapi.json says of requests that come in three shapes, and of errors."""

from typing import Any

from service.answers import ProblemAnswer
from service.options import JOBS, BulkOptions, Options
from service.problems import MEDIA_TYPE

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "description": "base64, or a data: URI"}
_FORMATS = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")


def image_request(options: type[Options], *, many: bool = False) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes an image, in any of three shapes."""
    properties = _properties(options)
    file = {"type": "array", "items": _BINARY} if many else _BINARY
    # The parameters are described once, as query parameters: /docs sends all it is told of, and
    # the same one in query and form would come twice.
    form = {
        "type": "object",
        "properties": {"image": file},
        "description": "the parameters may also come as fields of this form",
    }
    member = {"images": {"type": "array", "items": _BASE64}} if many else {}
    members = {"image": _BASE64, **member, **properties}
    json_object = {"type": "object", "properties": members, **_required(options)}
    return {
        "parameters": _query(properties),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": json_object},
                **{kind: {"schema": _BINARY} for kind in _FORMATS},
            },
        },
    }


def bulk_request() -> dict[str, Any]:
    """Return the OpenAPI description of the route that stores many items."""
    item = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "string"},
            "image": _BASE64,
            "label": {"type": ["string", "null"]},
            "metadata": {"type": "object"},
        },
    }
    items = {"type": "array", "items": item, "minItems": 1}
    upsert = _properties(BulkOptions)["upsert"]
    form = {
        "image": {"type": "array", "items": _BINARY, "description": "one per item, in order"},
        "items": {"type": "string", "description": "JSON: the list of items, without image"},
        "upsert": upsert,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["items"],
                        "properties": {"items": items, "upsert": upsert},
                    }
                },
                "multipart/form-data": {"schema": {"type": "object", "properties": form}},
            },
        },
    }


def job_request() -> dict[str, Any]:
    """Return the OpenAPI description of the route that begins a job."""
    kinds = [
        {
            "type": "object",
            "title": name,
            "description": kind.__doc__,
            "properties": _properties(kind),
            **_required(kind),
        }
        for name, kind in JOBS.items()
    ]
    schema = {"oneOf": kinds}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def query_request(options: type[Options]) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes query parameters only."""
    return {"parameters": _query(_properties(options))}


def problem_answers() -> dict[int | str, dict[str, Any]]:
    """Return what every route may answer when it does not succeed."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}
    return {
        "4XX": {"description": "The request is at fault", "content": content},
        "5XX": {"description": "The service is at fault", "content": content},
    }


def describe_application(document: dict[str, Any]) -> dict[str, Any]:
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
    return document


def _properties(options: type[Options]) -> dict[str, Any]:
    schema = options.model_json_schema()
    properties: dict[str, Any] = schema.get("properties", {})
    definitions = schema.get("$defs", {})
    return {name: _inlined(value, definitions) for name, value in properties.items()}


def _required(options: type[Options]) -> dict[str, list[str]]:
    schema = options.model_json_schema()
    return {"required": schema["required"]} if "required" in schema else {}


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
        return {name: _inlined(inner, definitions) for name, inner in value.items()}
    if isinstance(value, list):
        return [_inlined(inner, definitions) for inner in value]
    return value


def _as_text(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters as queries carry them: lists and objects as JSON text."""
    return {
        name: {"type": "string", "description": f"JSON: {value.get('description', name)}"}
        if _is_compound(value)
        else value
        for name, value in properties.items()
    }


def _is_compound(value: dict[str, Any]) -> bool:
    kinds = {value.get("type"), *(option.get("type") for option in value.get("anyOf", ()))}
    return bool(kinds & {"array", "object"})


def _query(properties: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": schema,
        }
        for name, schema in _as_text(properties).items()
    ]
