"""Cases of how a request is sent: types, forms, JSON, fields that are missing, unknown or twice."""

import base64
from urllib.parse import quote

from tests.support.cases.case import (
    FORM,
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
    typed,
)

# Its base64 has both letters that differ in addresses, and needs padding.
FOR_ADDRESSES = next(
    text
    for text in (
        base64.urlsafe_b64encode(PICTURE + bytes([n, 250, 255])).decode() for n in range(9)
    )
    if "-" in text and "_" in text
)
UNPADDED = PICTURE_TEXT.rstrip("=")
CLASSIFY, SEARCH, EMBED = "/v1/classify", "/v1/search", "/v1/embed"
NESTED = b"[" * 9999


def _form_of(kind: bytes, body: bytes = b"--edge--\r\n") -> bytes:
    return typed(CLASSIFY, body, kind)


def _search(**members: object) -> bytes:
    return as_json(SEARCH, members)


_MISSING = {
    "no body at all": request("POST", CLASSIFY, b""),
    "no body and no length": request("POST", CLASSIFY),
    "an empty form": form(CLASSIFY),
    "an empty JSON object": as_json(CLASSIFY, {}),
    "a form with a field alone": form(CLASSIFY, field(b"k", b"3")),
    "search with nothing to go by": _search(k=3),
    "search by null": _search(id=None, vector=None),
    "embed without an image": as_json(EMBED, {}),
    "range with nothing to go by": as_json("/v1/search/range", {"min_score": 0}),
    "a vote about nothing": as_json("/v1/search/vote", {}),
    "an item without an image": form("/v1/items/x", field(b"label", b"a"), method="PUT"),
}
_AMBIGUOUS = {
    "two images to find all that are near": form(
        f"{SEARCH}/range", field(b"min_score", b"0"), file(PICTURE), file(PICTURE)
    ),
    "two images for one item": form("/v1/items/x", file(PICTURE), file(PICTURE), method="PUT"),
    "an image and images": as_json(CLASSIFY, {"image": PICTURE_TEXT, "images": [PICTURE_TEXT]}),
    "an image and images to embed": as_json(
        EMBED, {"image": PICTURE_TEXT, "images": [PICTURE_TEXT]}
    ),
    "an image and an id": _search(image=PICTURE_TEXT, id="item-00"),
    "a raw image and an id": raw(f"{SEARCH}?id=item-00", PICTURE),
    "an id and a vector": _search(id="item-00", vector=[1.0]),
    "a vote by image and id": as_json("/v1/search/vote", {"image": PICTURE_TEXT, "id": "item-00"}),
    "k twice in the query": raw(f"{CLASSIFY}?k=1&k=2", PICTURE),
    "k twice with the same value": raw(f"{CLASSIFY}?k=1&k=1", PICTURE),
    "k twice in the form": form(CLASSIFY, file(PICTURE), field(b"k", b"1"), field(b"k", b"2")),
    "k in query and form": form(f"{CLASSIFY}?k=1", file(PICTURE), field(b"k", b"2")),
    "k in query and JSON": as_json(f"{CLASSIFY}?k=1", {"image": PICTURE_TEXT, "k": 2}),
    "limit twice": get("/v1/items?limit=1&limit=2"),
    "label twice": raw("/v1/items/x?label=a&label=b", PICTURE, method="PUT"),
}
_UNEXPECTED = {
    "an unknown parameter": raw(f"{CLASSIFY}?colour=red", PICTURE),
    "a parameter of another route": raw(f"{CLASSIFY}?min_score=0", PICTURE),
    "a parameter in capitals": raw(f"{CLASSIFY}?K=3", PICTURE),
    "a parameter without a name": raw(f"{CLASSIFY}?=3", PICTURE),
    "a NUL in a parameter's name": raw(f"{CLASSIFY}?k%00=3", PICTURE),
    "an unknown member": _search(id="a", x=1),
    "a member without a name": as_json(CLASSIFY, {"image": PICTURE_TEXT, "": 1}),
    "__proto__": as_json(CLASSIFY, {"image": PICTURE_TEXT, "__proto__": {}}),
    "an unknown form field": form(CLASSIFY, file(PICTURE), field(b"x", b"1")),
    "an unknown file": form(CLASSIFY, file(PICTURE), file(PICTURE, name=b"mask")),
    "a file that is k and not a number": form(EMBED, file(PICTURE), file(b"3", name=b"k")),
    "embed with k": as_json(EMBED, {"image": PICTURE_TEXT, "k": 3}),
    "a probe with a parameter of an item": get("/v1/items/item-00?x=1"),
    "a page with an offset": get("/v1/items?offset=3"),
    "range with k": as_json("/v1/search/range", {"id": "item-00", "min_score": 0, "k": 3}),
    "a vote with min_score": as_json("/v1/search/vote", {"id": "item-00", "min_score": 0.5}),
    **{
        f"an image called {name.decode()}, to {path[4:]}": form(path, file(PICTURE, name=name))
        for name in (b"file", b"photo", b"x")
        for path in (CLASSIFY, EMBED, SEARCH, "/v1/search/vote")
    },
    "an image called file, to be stored": form(
        "/v1/items/x", file(PICTURE, name=b"file"), method="PUT"
    ),
    "a member called file": as_json(CLASSIFY, {"file": PICTURE_TEXT}),
    "a URL as a member": as_json(CLASSIFY, {"url": "http://127.0.0.1/a.png"}),
}
_MULTIPART = {
    "no boundary": _form_of(b"multipart/form-data", b"x"),
    "an empty boundary": _form_of(b"multipart/form-data; boundary=", b"x"),
    "a quoted empty boundary": _form_of(b'multipart/form-data; boundary=""', b"x"),
    "a boundary of 300 characters": _form_of(b"multipart/form-data; boundary=" + b"b" * 300),
    "another boundary": _form_of(b"multipart/form-data; boundary=other"),
    "an empty form body": _form_of(b"multipart/form-data; boundary=edge", b""),
    "a form that is an image": _form_of(b"multipart/form-data; boundary=edge", PICTURE),
    "a form that is JSON": _form_of(b"multipart/form-data; boundary=edge", b'{"image": ""}'),
    "no closing delimiter": form(CLASSIFY, file(PICTURE), end=b""),
    "half a closing delimiter": form(CLASSIFY, file(PICTURE), end=b"--edge"),
    "a part without a name": form(CLASSIFY, b"Content-Disposition: form-data\r\n\r\nx"),
    "a part without headers": form(CLASSIFY, b"\r\nx"),
    "a part that is an attachment": form(
        CLASSIFY, b'Content-Disposition: attachment; name="image"\r\n\r\nx'
    ),
    "a part's header without a colon": form(CLASSIFY, b"Content-Disposition\r\n\r\nx"),
    "a part's header with a NUL": form(CLASSIFY, b"Content\0Disposition: form-data\r\n\r\nx"),
    "a part cut in its headers": form(
        CLASSIFY, b'Content-Disposition: form-data; name="im', end=b""
    ),
    "a part that is not the base64 it says": form(
        CLASSIFY, b"Content-Transfer-Encoding: base64\r\n" + file(PICTURE)
    ),
    "300 parts": form(CLASSIFY, *[field(b"x", b"1")] * 300),
    "a field of more than 1 MiB": form(CLASSIFY, file(PICTURE), field(b"k", b"1" * 1_048_577)),
    "a part with 10,000 headers": form(CLASSIFY, b"X: y\r\n" * 10_000 + b"\r\nx"),
    "a part with a header of 1 MiB": form(CLASSIFY, b"X: " + b"y" * 2**20 + b"\r\n\r\nx"),
}
_JSON = {
    "cut JSON": as_json(SEARCH, b'{"id": "a'),
    "an empty JSON body": as_json(SEARCH, b""),
    "blanks alone": as_json(SEARCH, b"  \n "),
    "a JSON array": as_json(SEARCH, b"[1]"),
    "a JSON text": as_json(SEARCH, b'"image"'),
    "JSON null": as_json(SEARCH, b"null"),
    "two JSON objects": as_json(SEARCH, b'{"id": "item-00"}{"k": 1}'),
    "a comma too much": as_json(SEARCH, b'{"id": "item-00",}'),
    "a comment": as_json(SEARCH, b'{"id": "item-00"} // the first'),
    "single quotes": as_json(SEARCH, b"{'id': 'item-00'}"),
    "NaN": as_json(SEARCH, b'{"id": "item-00", "k": NaN}'),
    "Infinity": as_json(SEARCH, b'{"id": "item-00", "min_score": -Infinity}'),
    "deep arrays": as_json(SEARCH, NESTED),
    "deep objects": as_json(SEARCH, b'{"a":' * 9999),
    "a deep member, closed": as_json(SEARCH, b'{"id": ' + NESTED + b"]" * 9999 + b"}"),
    "not UTF-8": as_json(SEARCH, b'{"\xff": 1}'),
    "UTF-16": as_json(SEARCH, '{"id": "item-00"}'.encode("utf-16")),
    "a byte order mark": as_json(SEARCH, b'\xef\xbb\xbf{"id": "item-00"}'),
    "a lone surrogate": as_json(SEARCH, b'{"id": "\\ud800"}'),
    "a control character": as_json(SEARCH, b'{"id": "a\nb"}'),
    "an image as JSON": as_json(CLASSIFY, PICTURE),
    "a number for an image": as_json(CLASSIFY, {"image": 7}),
    "null for an image": as_json(CLASSIFY, {"image": None}),
    "a list for an image": as_json(CLASSIFY, {"image": [PICTURE_TEXT]}),
    "text that is not base64": as_json(CLASSIFY, {"image": "é!"}),
    "base64 cut in the middle": as_json(CLASSIFY, {"image": PICTURE_TEXT[:-3]}),
    "base64 and more": as_json(CLASSIFY, {"image": PICTURE_TEXT + "===="}),
    "a URL": as_json(CLASSIFY, {"image": "http://127.0.0.1:1/cat.png"}),
    "a URL with TLS": as_json(CLASSIFY, {"image": "https://example.org/cat.png"}),
    "a URL in capitals": as_json(CLASSIFY, {"image": "HTTP://127.0.0.1/cat.png"}),
    "a file URL": as_json(CLASSIFY, {"image": "file:///etc/passwd"}),
    "a path": as_json(CLASSIFY, {"image": "/etc/passwd.png"}),
    "a data URI without base64": as_json(CLASSIFY, {"image": "data:image/png,abc"}),
    "a data URI of nothing": as_json(CLASSIFY, {"image": "data:"}),
    "images that are no list": as_json(EMBED, {"images": PICTURE_TEXT}),
    "no images": as_json(EMBED, {"images": []}),
    "images of which one is no text": as_json(EMBED, {"images": [PICTURE_TEXT, 7]}),
    "images of which one is a URL": as_json(EMBED, {"images": [PICTURE_TEXT, "http://a/b"]}),
}
_TYPES = {
    "an urlencoded form": typed(CLASSIFY, b"image=x", b"application/x-www-form-urlencoded"),
    "a pickle": typed(CLASSIFY, b"\x80\x05cos\nsystem\n.", b"application/vnd.bentoml+pickle"),
    "arrows": typed(CLASSIFY, b"ARROW1", b"application/vnd.apache.arrow.stream"),
    "XML": typed(CLASSIFY, b"<a/>", b"application/xml"),
    "JSON called text": typed(CLASSIFY, b'{"image": ""}', b"text/plain"),
    "a PNG called text": typed(CLASSIFY, PICTURE, b"text/plain"),
    "a PNG called multipart/mixed": typed(CLASSIFY, PICTURE, b"multipart/mixed; boundary=edge"),
    "a type that is no type": typed(CLASSIFY, PICTURE, b"\xff\xfe"),
    "a type of 8,000 characters": typed(CLASSIFY, PICTURE, b"a/" + b"b" * 8000),
    "JSON of no type": request("POST", CLASSIFY, b'{"image": ""}'),
}
_WORKS = {
    "an image of no type": request("POST", CLASSIFY, PICTURE),
    "JSON with a charset": typed(SEARCH, b'{"id": "item-00"}', b"Application/JSON; charset=utf-8"),
    "base64 with line ends": as_json(
        CLASSIFY,
        {"image": "\n".join(PICTURE_TEXT[i : i + 76] for i in range(0, len(PICTURE_TEXT), 76))},
    ),
    "a form with more before its first delimiter": typed(
        CLASSIFY, b"hello\r\n--edge\r\n" + file(PICTURE) + b"\r\n--edge--\r\n", FORM
    ),
    "a form with line ends before its first delimiter": typed(
        CLASSIFY, b"\r\n\r\n--edge\r\n" + file(PICTURE) + b"\r\n--edge--\r\n", FORM
    ),
    "base64 without padding": as_json(CLASSIFY, {"image": UNPADDED}),
    "base64 for addresses": as_json(CLASSIFY, {"image": FOR_ADDRESSES}),
    "base64 for addresses, without padding": as_json(SEARCH, {"image": FOR_ADDRESSES.rstrip("=")}),
    "base64 with blanks around it": as_json(CLASSIFY, {"image": f"  {PICTURE_TEXT}\r\n"}),
    "a data URI without padding": as_json(
        EMBED, {"images": [f"data:image/png;base64,{UNPADDED}"] * 2}
    ),
    "a data URI in capitals": as_json(CLASSIFY, {"image": f"DATA:image/png;BASE64,{PICTURE_TEXT}"}),
    "a data URI of no type": as_json(CLASSIFY, {"image": f"data:;base64,{PICTURE_TEXT}"}),
    "a data URI with a parameter": as_json(
        CLASSIFY, {"image": f"data:image/png;name=a.png;base64,{PICTURE_TEXT}"}
    ),
    "a data URI that is escaped": as_json(
        CLASSIFY, {"image": f"data:image/png;base64,{quote(PICTURE_TEXT, safe='')}"}
    ),
    "a data URI in a form": form(
        CLASSIFY, field(b"image", f"data:image/png;base64,{PICTURE_TEXT}".encode())
    ),
    "a part in base64": form(
        CLASSIFY,
        b"Content-Transfer-Encoding: BASE64\r\n" + file(base64.encodebytes(PICTURE)),
    ),
    "base64 in a form": form(CLASSIFY, field(b"image", UNPADDED.encode())),
    **{
        f"a file called {name.decode()}": form(path, file(PICTURE, name=name))
        for name in (b"image[]", b"images", b"images[]")
        for path in (CLASSIFY, EMBED, SEARCH)
    },
    "a form with more behind its end": form(
        CLASSIFY, file(PICTURE), end=b"--edge--\r\ngoodbye\r\n"
    ),
    "a member twice, of which the last counts": as_json(SEARCH, b'{"id": 7, "id": "item-01"}'),
    "an image as a field without a file name": form(CLASSIFY, field(b"image", PICTURE)),
    "two images to classify": form(CLASSIFY, file(PICTURE), file(PICTURE)),
    "256 images": as_json(EMBED, {"images": [PICTURE_TEXT] * 256}),
}

CASES = [
    *(Case(name, 400, "missing_image", sent) for name, sent in _MISSING.items()),
    *(Case(name, 400, "ambiguous_query", sent) for name, sent in _AMBIGUOUS.items()),
    *(Case(name, 400, "unexpected_field", sent) for name, sent in _UNEXPECTED.items()),
    *(Case(name, 400, "malformed_multipart", sent) for name, sent in _MULTIPART.items()),
    *(Case(name, 400, "invalid_json", sent) for name, sent in _JSON.items()),
    *(Case(name, 415, "unsupported_image_type", sent) for name, sent in _TYPES.items()),
    *(Case(name, 200, None, sent) for name, sent in _WORKS.items()),
    Case(
        *("257 images", 422, "list_too_long"),
        as_json(EMBED, {"images": [PICTURE_TEXT] * 257}),
    ),
    Case(
        *("one broken image of three", 207, "None,corrupt_image,empty_image"),
        form(EMBED, file(PICTURE), file(PICTURE[:99]), file(b"")),
    ),
    Case(
        *("a body over the limit, declared", 413, "payload_too_large"),
        raw(CLASSIFY, bytes(70_000), b"Authorization: Bearer @reader@"),
        closes=True,
        strict=True,
    ),
    Case(
        *("JSON over the limit", 413, "payload_too_large"),
        as_json(SEARCH, {"id": "a" * 70_000}, b"Authorization: Bearer @reader@"),
        closes=True,
        strict=True,
    ),
    Case(
        *("a body over the limit, in one chunk", 413, "payload_too_large"),
        request(
            *("POST", CLASSIFY, None, b"Content-Type: image/png"),
            *(b"Transfer-Encoding: chunked", b"Authorization: Bearer @reader@"),
        )
        + b"%x\r\n" % 70_000
        + bytes(70_000)
        + b"\r\n0\r\n\r\n",
        closes=True,
        strict=True,
    ),
    Case(
        *("a write over the limit", 413, "payload_too_large"),
        raw("/v1/items/x", bytes(70_000), b"Authorization: Bearer @writer@", method="PUT"),
        closes=True,
        strict=True,
    ),
]
