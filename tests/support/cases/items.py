"""Cases of items: storing one or many, reading, deleting; of jobs; of keys where they are asked."""

from tests.support.cases.case import (
    PICTURE,
    PICTURE_TEXT,
    Case,
    as_json,
    field,
    file,
    form,
    get,
    raw,
    request,
)
from tests.support.images.pngs import png

ITEMS = "/v1/items"
JOBS = "/v1/jobs"


def _put(query: str) -> bytes:
    return raw(f"{ITEMS}/refused?{query}", PICTURE, method="PUT")


def _put_json(**members: object) -> bytes:
    body = {"image": PICTURE_TEXT, **members}
    return as_json(f"{ITEMS}/refused", body, method="PUT")


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def _bulk(*items: object, **members: object) -> bytes:
    return as_json(ITEMS, {"items": list(items), **members})


def _item(**members: object) -> dict[str, object]:
    return {"id": "refused", "image": PICTURE_TEXT, **members}


_NOT_STORED = {
    "a label of 257 characters": _put("label=" + "x" * 257),
    "an empty label": _put("label="),
    "a label with a NUL": _put("label=%00"),
    "a label with a line end": _put("label=a%0Ab"),
    "a label that is a number": _put_json(label=7),
    "a label that is a list": _put_json(label=["a"]),
    "metadata that is a list": _put("metadata=%5B%5D"),
    "metadata that is cut": _put("metadata=%7B"),
    "metadata that is text": _put_json(metadata="{}"),
    "metadata that is null": _put_json(metadata=None),
    "metadata of more than 16 KiB": _put_json(metadata={"a": "x" * 16_384}),
    "metadata 17 levels deep": _put_json(metadata=_nested(17)),
    "metadata with an integer of 65 bits": _put_json(metadata={"a": 2**64}),
    "metadata with a NUL": _put_json(metadata={"a": "\0"}),
    "metadata with a NUL in a key": _put_json(metadata={"\0": 1}),
    "metadata with NaN, in the query": _put("metadata=%7B%22a%22:NaN%7D"),
    "upsert that is perhaps": _put("upsert=perhaps"),
    "upsert that is 1": _put("upsert=1"),
    "upsert that is 0, in JSON": _put_json(upsert=0),
    "upsert that is null": _put_json(upsert=None),
}
_BULK = {
    "no items": (400, "invalid_json", _bulk()),
    "items that are missing": (400, "invalid_json", as_json(ITEMS, {})),
    "items that are text": (400, "invalid_json", as_json(ITEMS, {"items": "a"})),
    "items that are an object": (400, "invalid_json", as_json(ITEMS, {"items": {"id": "a"}})),
    "items in a form that are no JSON": (400, "invalid_json", form(ITEMS, field(b"items", b"["))),
    "an unknown member beside items": (400, "unexpected_field", _bulk(_item(), mode="fast")),
    "upsert of many that is text": (422, "invalid_parameter", _bulk(_item(), upsert="no")),
    "fewer files than items": (
        *(400, "ambiguous_query"),
        form(ITEMS, field(b"items", b'[{"id": "a"}, {"id": "b"}]'), file(PICTURE)),
    ),
    "more files than items": (
        *(400, "ambiguous_query"),
        form(ITEMS, field(b"items", b'[{"id": "a"}]'), file(PICTURE), file(PICTURE)),
    ),
}
# What is wrong with one item of many is said of that item.
_OF_MANY = {
    "an item that is null": ("invalid_json", None),
    "an item that is a number": ("invalid_json", 7),
    "an item that is empty": ("invalid_json", {}),
    "an item of many without an image": ("missing_image", {"id": "refused"}),
    "an item of many with a short vector": ("invalid_vector", {"id": "refused", "vector": [1.0]}),
    "an item of many with a vector of text": ("invalid_vector", {"id": "refused", "vector": "1"}),
    "an item of many with image and vector": ("ambiguous_query", _item(vector=[1.0])),
    "an item with an unknown member": ("unexpected_field", _item(colour="red")),
    "an item whose id has a slash": ("invalid_id", _item(id="a/b")),
    "an item whose id has 257 characters": ("invalid_id", _item(id="a" * 257)),
    "an item whose id has 258 bytes": ("invalid_id", _item(id="\u5c71" * 86)),
    "an item whose id is decomposed": ("invalid_id", _item(id="e\u0301")),
    "an item whose id has a line end": ("invalid_id", _item(id="a\u2028")),
    "an item whose id is a number": ("invalid_id", _item(id=7)),
    "an item whose image is empty": ("empty_image", _item(image="")),
    "an item whose image is text": ("unsupported_image_type", _item(image="aGVsbG8=")),
    "an item whose image is no base64": ("invalid_json", _item(image="é")),
    "an item whose image is a URL": ("invalid_json", _item(image="http://127.0.0.1/a.png")),
    "an item whose label has a NUL": ("invalid_parameter", _item(label="\0")),
    "an item whose metadata is a list": ("invalid_parameter", _item(metadata=[])),
}
_PATHS = {
    "an item nobody stored": (404, "unknown_id", get(f"{ITEMS}/nobody")),
    "the picture of an item nobody stored": (404, "unknown_id", get(f"{ITEMS}/nobody/image")),
    "an item nobody stored, to delete": (
        *(404, "unknown_id"),
        request("DELETE", f"{ITEMS}/nobody"),
    ),
    "an id with a slash, as it is": (404, "not_found", get(f"{ITEMS}/a/b")),
    "an id with a slash, encoded": (404, "not_found", get(f"{ITEMS}/a%2Fb")),
    "an id in another script, nobody's": (404, "unknown_id", get(f"{ITEMS}/%E5%B1%B1%20%25")),
    "an id that is decomposed": (422, "invalid_id", get(f"{ITEMS}/e%CC%81")),
    "an id of two points": (422, "invalid_id", get(f"{ITEMS}/..")),
    "an id of two points, encoded": (422, "invalid_id", get(f"{ITEMS}/%2e%2e")),
    "an id with broken encoding": (422, "invalid_id", get(f"{ITEMS}/%zz")),
    "an id that is not UTF-8": (422, "invalid_id", get(f"{ITEMS}/%ff%fe")),
    "an empty id": (404, "not_found", get(f"{ITEMS}/")),
    "an empty id, to store": (404, "not_found", raw(f"{ITEMS}/", PICTURE, method="PUT")),
    "an id to store that cannot be": (
        *(422, "invalid_id"),
        raw(f"{ITEMS}/a%09b", PICTURE, method="PUT"),
    ),
    "an id to delete that cannot be": (422, "invalid_id", request("DELETE", f"{ITEMS}/a%00b")),
    "a file's path": (404, "not_found", get("/page/../../etc/passwd")),
    "a file's path, encoded": (404, "not_found", get("/page/%2e%2e%2f%2e%2e%2fetc%2fpasswd")),
    "BentoML's own document": (404, "not_found", get("/docs.json")),
    "BentoML's own schema": (404, "not_found", get("/schema.json")),
    "BentoML's own route of health": (404, "not_found", get("/healthz")),
    "a job nobody began": (404, "unknown_job", get(f"{JOBS}/20260101T000000-00000000")),
    "a job's id that is a path": (404, "not_found", get(f"{JOBS}/%2e%2e%2fgallery")),
    "a job's id with a NUL": (404, "unknown_job", request("DELETE", f"{JOBS}/a%00b")),
    "jobs with a parameter": (400, "unexpected_field", get(f"{JOBS}?state=done")),
    "a job with a parameter": (400, "unexpected_field", get(f"{JOBS}/x?x=1")),
    "a job with an image": (400, "unexpected_field", raw(f"{JOBS}?kind=rebuild", PICTURE)),
    "a job with another's parameter": (
        *(400, "unexpected_field"),
        as_json(JOBS, {"kind": "rebuild", "name": "a"}),
    ),
    "an id that holds other content": (
        *(409, "id_conflict"),
        raw(f"{ITEMS}/item-00?upsert=false", png(101), method="PUT"),
    ),
}
_BEARER = b"Authorization: Bearer "
_KEYS = {
    "no key": (401, "unauthorized", get("/v1/model")),
    "an empty key": (401, "unauthorized", get("/v1/model", _BEARER)),
    "a wrong key": (401, "unauthorized", get("/v1/model", _BEARER + b"lk_wrong")),
    "a key of 8,000 characters": (401, "unauthorized", get("/v1/model", _BEARER + b"k" * 8000)),
    "a key that is not ASCII": (401, "unauthorized", get("/v1/model", _BEARER + b"\xff\xfe")),
    "a key as a user's password": (
        401,
        "unauthorized",
        get("/v1/model", b"Authorization: Basic YTpi"),
    ),
    "a key in the query": (401, "unauthorized", get("/v1/model?key=@reader@")),
    "no key, and an unknown path": (401, "unauthorized", get("/v1/nothing")),
    "storing with a key to read": (
        *(403, "forbidden"),
        request("PUT", f"{ITEMS}/x", b"", _BEARER + b"@reader@"),
    ),
    "deleting with a key to read": (
        *(403, "forbidden"),
        request("DELETE", f"{ITEMS}/x", None, _BEARER + b"@reader@"),
    ),
    "storing many with a key to read": (
        *(403, "forbidden"),
        as_json(ITEMS, {"items": []}, _BEARER + b"@reader@"),
    ),
    "a job with a key to write": (
        *(403, "forbidden"),
        as_json(JOBS, {"kind": "tune"}, _BEARER + b"@writer@"),
    ),
    "reading with a key for jobs": (403, "forbidden", get("/v1/model", _BEARER + b"@admin@")),
    "a backup without a folder": (
        *(409, "no_backups_folder"),
        as_json(JOBS, {"kind": "backup", "name": "a"}, _BEARER + b"@admin@"),
    ),
    "an import without a folder": (
        *(409, "no_imports_folder"),
        as_json(JOBS, {"kind": "import", "source": "a.csv"}, _BEARER + b"@admin@"),
    ),
    "an import with a key to write": (
        *(403, "forbidden"),
        as_json(JOBS, {"kind": "import", "source": "a.csv"}, _BEARER + b"@writer@"),
    ),
    "more pixels than the settings allow": (
        *(422, "too_many_pixels"),
        raw("/v1/classify", png(1, (101, 100)), _BEARER + b"@reader@"),
    ),
}

CASES = [
    *(Case(name, 422, "invalid_parameter", sent) for name, sent in _NOT_STORED.items()),
    *(Case(name, *expected) for name, expected in (_BULK | _PATHS).items()),
    *(Case(name, 207, code, _bulk(item)) for name, (code, item) in _OF_MANY.items()),
    *(Case(name, *expected, strict=True) for name, expected in _KEYS.items()),
]
