"""Cases of parameters: k, ids, vectors, filters, scores, crops and the kinds of jobs."""

from urllib.parse import quote

from tests.support.cases.case import PICTURE, PICTURE_TEXT, Case, as_json, get, raw

SEARCH, RANGE, VOTE, JOBS = "/v1/search", "/v1/search/range", "/v1/search/vote", "/v1/jobs"
WIDTH = 256


def _shown(value: object) -> str:
    """Return ``value`` short enough for a name."""
    text = repr(value)
    return text if len(text) < 60 else f"of {len(text)} characters"


def _search(**members: object) -> bytes:
    return as_json(SEARCH, {"id": "item-00", **members})


def _range(**members: object) -> bytes:
    return as_json(RANGE, {"id": "item-00", "min_score": 0, **members})


def _where(**condition: object) -> bytes:
    return _search(filter={"must": [condition]})


def _crop(**sides: object) -> bytes:
    return as_json(SEARCH, {"image": PICTURE_TEXT, "crop": sides})


def _by_id(wanted: object) -> bytes:
    return as_json(SEARCH, {"id": wanted})


def _by_vector(vector: object) -> bytes:
    return as_json(SEARCH, {"vector": vector})


def _numbers(last: bytes) -> bytes:
    return as_json(SEARCH, b'{"vector": [' + b"1," * (WIDTH - 1) + last + b"]}")


_K = {
    **{f"k of {k!r}": _search(k=k) for k in (0, -1, 1001, 2.5, 0.0, True, "", "3", [3], {}, None)},
    "k of 2^63": _search(k=2**63),
    "k of 400 digits": as_json(SEARCH, b'{"id": "item-00", "k": ' + b"9" * 400 + b"}"),
    "k of 1e400": as_json(SEARCH, b'{"id": "item-00", "k": 1e400}'),
    **{
        f"k={k} in the query": raw(f"/v1/classify?k={k}", PICTURE)
        for k in ("ten", "0", "1001", "-1", "+1", "1.0", "1e2", "0x5", "%201", "1_0", "%D9%A3", "")
    },
    "a vote of k 0": as_json(VOTE, {"id": "item-00", "k": 0}),
}
_IDS = {
    f"the id {_shown(wanted)}": _by_id(wanted)
    for wanted in (
        *("", ".", "..", "a/b", "../etc/passwd", "a\0b", "a\tb", "a\nb", "e\u0301"),
        *("a\u202eb", "a\u200bb", "\ufeffa", "a\u2028b", "a\ufffdb"),
        *("a" * 257, "猫" * 86, "a" * 100_000, 7, 1.5, True, [], ["a"], {}),
    )
}
_ID_PATHS = {
    f"the id {_shown(text)} in a path": text
    for text in (
        *("a\0b", "cafe\u0301", "a\u202eb", "a" * 257, "a\r\nX: y", "a\x7fb", "a\u2066b"),
        *("猫" * 86, "\u212b"),
    )
}
_ODD_IDS = {
    f"the id {_shown(text)}, which nobody has": text
    for text in (
        *("a b", "caf\u00e9", "a\\b", "%", "a?b", "a#b", "'or'1'='1", "<script>", "${7*7}", "*"),
        *("猫", " a", "a;b", "'; DROP TABLE items; --", "a%2fb", "a" * 256),
    )
}
_VECTORS = {
    "a short vector": _by_vector([1.0]),
    "a long vector": _by_vector([1.0] * (WIDTH + 1)),
    "an empty vector": _by_vector([]),
    "a zero vector": _by_vector([0.0] * WIDTH),
    "a vector of text": _by_vector("abc"),
    "a vector of texts": _by_vector(["1"] * WIDTH),
    "a vector of truths": _by_vector([True] * WIDTH),
    "a vector of nulls": _by_vector([None] * WIDTH),
    "a vector of vectors": _by_vector([[1.0] * WIDTH]),
    "a vector that is a number": _by_vector(1),
    "a vector that is an object": _by_vector({"0": 1}),
    "an infinite vector": _numbers(b"1e999"),
    "a vector of 300 digits twice over": as_json(
        SEARCH, b'{"vector": [' + b",".join([b"1e300"] * WIDTH) + b"]}"
    ),
    "a vector that is no JSON": raw(f"{SEARCH}?vector=1,2", b""),
    "a vote by a short vector": as_json(VOTE, {"vector": [1]}),
    "a range by a short vector": as_json(RANGE, {"vector": [1], "min_score": 0}),
}
_FILTERS = {
    **{
        f"a filter that is {what}": _search(filter=value)
        for what, value in {
            "text": "label=coat",
            "a number": 7,
            "a list": [],
            "an unknown part": {"any": []},
            "an object for must": {"must": {}},
            "a text for must": {"must": "a"},
            "a condition that is text": {"must": ["label"]},
            "an empty condition": {"must": [{}]},
            "65 conditions": {"must": [{"key": "label", "match": "a"}] * 65},
            "1,001 values": {"must": [{"key": "label", "match": ["a"] * 1001}]},
            "another filter": {"must": [{"must": []}]},
        }.items()
    },
    "a condition without a test": _where(key="label"),
    "a condition without a key": _where(match="a"),
    "a key that is a number": _where(key=7, match="a"),
    "a key with a NUL": _where(key="a\0", match="a"),
    "a match and a range": _where(key="a", match=1, range={"gt": 1}),
    "an unknown test": _where(key="a", like="x%"),
    "a match of nothing": _where(key="a", match=[]),
    "a match of null": _where(key="a", match=None),
    "a match of a list with null": _where(key="a", match=[1, None]),
    "an id that none can be": _where(key="id", match="a/b"),
    "an id that is a number": _where(key="id", match=7),
    "a label that is a truth": _where(key="label", match=True),
    "a label of spaces": _where(key="label", match="  "),
    "a range of labels by number": _where(key="label", range={"gt": 1}),
    "a label that is null": _where(key="label", is_null=True),
    "an id that is there": _where(key="id", exists=True),
    "existence that is a number": _where(key="a", exists=1),
    "null that is null": _where(key="a", is_null=None),
    "a match and existence": _where(key="a", match=1, exists=True),
    "a match of an object": _where(key="a", match={}),
    "an empty range": _where(key="a", range={}),
    "a range with an unknown bound": _where(key="a", range={"ge": 1}),
    "a range of text and number": _where(key="number", range={"gte": 1, "lt": "x"}),
    "a range of truths": _where(key="a", range={"gte": True}),
    "a range of lists": _where(key="a", range={"gte": [1]}),
    "a filter in the query that is no JSON": get("/v1/items?filter=%7B"),
    "a filter in the query that is text": get("/v1/items?filter=label"),
    "an empty filter in the query": get("/v1/items?filter="),
    "a filter in the query that is NaN": get("/v1/items?filter=NaN"),
    "range with an unknown filter": _range(filter={"any": []}),
}
_OUT_OF_RANGE = {
    "min_score above 1": _search(min_score=1.5),
    "min_score below -1": _search(min_score=-1.5),
    "min_score of text": _search(min_score="much"),
    "min_score of digits in text": _search(min_score="0.5"),
    "min_score of true": _search(min_score=True),
    "min_score of 1e400": as_json(SEARCH, b'{"id": "item-00", "min_score": 1e400}'),
    "range from min_score 1.01": _range(min_score=1.01),
    "range from min_score -1.01": _range(min_score=-1.01),
    "range from min_score nan": raw(f"{RANGE}?min_score=nan", PICTURE),
    "range from min_score inf": raw(f"{RANGE}?min_score=inf", PICTURE),
    "range with min_score null": _range(min_score=None),
    **{
        f"range with a limit of {limit!r}": _range(limit=limit)
        for limit in (0, -1, 10_001, 2.5, "9", None, True)
    },
    **{f"exact that is {value!r}": _search(exact=value) for value in ("perhaps", 0, "true", [])},
    "exact that is yes, in the query": raw(f"{SEARCH}?exact=yes", PICTURE),
    "exact that is empty, in the query": raw(f"{SEARCH}?exact=", PICTURE),
    "with_vector that is 1": _search(with_vector=1),
    **{
        f"min_seq of {seq!r}": _search(min_seq=seq)
        for seq in (-1, 0.5, "0", True, [1], {}, "latest")
    },
    "a crop that is upside down": _crop(top=0.5, bottom=0.4),
    "a crop of nothing": _crop(left=0.5, right=0.5),
    "a crop outside the image": _crop(right=1.01),
    "a crop below 0": _crop(top=-0.1),
    "a crop with an unknown side": _crop(middle=0.5),
    "a crop of texts": _crop(top="0"),
    "a crop of nulls": _crop(top=None),
    "a crop that is a list": as_json(SEARCH, {"image": PICTURE_TEXT, "crop": [0, 0, 1, 1]}),
    "a crop in the query that is no JSON": raw(f"{SEARCH}?crop=0,0,1,1", PICTURE),
    **{
        f"limit={limit}": get(f"/v1/items?limit={limit}")
        for limit in ("0", "1001", "-1", "ten", "", "1.5", "99999999999999999999")
    },
    **{
        f"the cursor {_shown(cursor)}": get(f"/v1/items?cursor={quote(cursor)}")
        for cursor in ("made-up", "", "\0", "é", "MTIz", "a" * 5000)
    },
    "a job of an unknown kind": as_json(JOBS, {"kind": "dance"}),
    "a kind that is a list": as_json(JOBS, {"kind": ["tune"]}),
    "a kind that is null": as_json(JOBS, {"kind": None}),
    "a recall of 0": as_json(JOBS, {"kind": "rebuild", "recall": 0}),
    "a recall above 1": as_json(JOBS, {"kind": "tune", "recall": 1.1}),
    "a recall of text": as_json(JOBS, {"kind": "tune", "recall": "much"}),
    "a recall of true": as_json(JOBS, {"kind": "tune", "recall": True}),
    "duplicates from min_score 2": as_json(JOBS, {"kind": "duplicates", "min_score": 2}),
    "duplicates from min_score false": as_json(JOBS, {"kind": "duplicates", "min_score": False}),
    **{
        f"a backup named {_shown(name)}": as_json(JOBS, {"kind": "backup", "name": name})
        for name in ("", "..", "../up", "/tmp/x", "a/b", "a\0b", "a b", "x" * 129, 7, None)
    },
}
_MISSING_MEMBERS = {
    "range without min_score": as_json(RANGE, {"id": "item-00"}),
    "range of a raw image without min_score": raw(RANGE, PICTURE),
    "a job of no kind": as_json(JOBS, {}),
    "a backup without a name": as_json(JOBS, {"kind": "backup"}),
    "duplicates without min_score": as_json(JOBS, {"kind": "duplicates"}),
}
_WORKS = {
    "k of 2.0, which is 2": _search(k=2.0),
    "k above the gallery's size": _search(k=1000),
    "an id of 128 characters that is there": _by_id("item-00"),
    "a long vector of ones": _by_vector([1] * WIDTH),
    "a vector far from unit length": _by_vector([1e-30] * WIDTH),
    "an empty filter": _search(filter={}),
    "a filter that nothing passes": _where(key="label", match="nothing"),
    "a filter by ids": _where(key="id", match=["item-00", "nothing"]),
    "a filter by what is there": _where(key="label", exists=False),
    "a filter by null": _where(key="a.b", is_null=True),
    "a filter by a member called label": _where(key="metadata.label", match=1),
    "a filter with brackets in its key": _where(key="a[0].b", match=1),
    "a filter with a quote in its key": _where(key="a'\"b", match="'; --"),
    "a filter of large numbers": _where(key="number", range={"gte": -(2**63), "lt": 2**63 - 1}),
    "a filter in the query": get("/v1/items?filter=%7B%7D"),
    "null for what may be left out": _search(filter=None, min_score=None, min_seq=None),
    "a crop of everything": _crop(),
    "a crop of one pixel": _crop(top=0, left=0, bottom=1e-9, right=1e-9),
    "min_seq that was reached": _search(min_seq=1),
    "exact, in the query": raw(f"{SEARCH}?exact=true&with_vector=false", PICTURE),
    "a range of everything": _range(min_score=-1, limit=10_000),
}
_UNKNOWN_IDS = {
    "search by an unknown id": _by_id("nobody"),
    "search by an unknown id of 128 characters": _by_id("a" * 128),
    "range by an unknown id": as_json(RANGE, {"id": "nobody", "min_score": 0}),
    "a vote by an unknown id": as_json(VOTE, {"id": "nobody"}),
}

CASES = [
    *(Case(name, 422, "invalid_k", sent) for name, sent in _K.items()),
    *(Case(name, 422, "invalid_id", sent) for name, sent in _IDS.items()),
    *(
        Case(name, 422, "invalid_id", get(f"/v1/items/{quote(text, safe='')}"))
        for name, text in _ID_PATHS.items()
    ),
    *(
        Case(name, 404, "unknown_id", get(f"/v1/items/{quote(text, safe='')}"))
        for name, text in _ODD_IDS.items()
    ),
    *(Case(f"{name}, in JSON", 404, "unknown_id", _by_id(text)) for name, text in _ODD_IDS.items()),
    *(Case(name, 422, "invalid_vector", sent) for name, sent in _VECTORS.items()),
    *(Case(name, 422, "invalid_filter", sent) for name, sent in _FILTERS.items()),
    *(Case(name, 422, "invalid_parameter", sent) for name, sent in _OUT_OF_RANGE.items()),
    *(Case(name, 400, "invalid_json", sent) for name, sent in _MISSING_MEMBERS.items()),
    *(Case(name, 200, None, sent) for name, sent in _WORKS.items()),
    *(Case(name, 404, "unknown_id", sent) for name, sent in _UNKNOWN_IDS.items()),
    Case("a write that has not happened", 503, "not_ready", _search(min_seq=10**9)),
    Case("min_seq of 2^63", 503, "not_ready", _search(min_seq=2**63)),
]
