"""What classes, parts and columns are called in the wild, and what that means here."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from dataset.findings import Findings
from dataset.listing import Part

PART_NAMES: Final = {
    Part.TRAIN: ("train", "training"),
    Part.VALIDATION: ("validation", "valid", "val", "validate", "dev"),
    Part.TEST: ("test", "testing", "eval", "evaluation"),
}
_PART_OF: Final = {
    f"{name}{ending}": part
    for part, names in PART_NAMES.items()
    for name in names
    for ending in ("", "set", "data", "images", "split")
}
_YEAR: Final = re.compile(r"(19|20)[0-9][0-9]$")  # train2017
_WORDS: Final = re.compile(r"[^\W\d_]+")
_JOINTS: Final = re.compile(r"[\s_.-]+")


def normalize_name(name: str) -> str:
    """Return ``name`` without its case, spaces, hyphens and underscores, in one composition.

    >>> normalize_name(" File-Name ")
    'filename'
    """
    return _JOINTS.sub("", unicodedata.normalize("NFC", name).casefold())


def parse_part(name: str) -> Part | None:
    """Return the part that ``name`` is a usual name of, in any case.

    >>> parse_part("Valid"), parse_part("test_set"), parse_part("trainer")
    (<Part.VALIDATION: 1>, <Part.TEST: 2>, None)
    """
    return _PART_OF.get(_YEAR.sub("", normalize_name(name)))


def parts_among_words(name: str) -> frozenset[Part]:
    """Return the parts that ``name`` has a usual name of as one of its words.

    >>> sorted(part.name for part in parts_among_words("01_train")), parts_among_words("trainers")
    (['TRAIN'], frozenset())
    """
    words = _WORDS.findall(unicodedata.normalize("NFKC", name).casefold())
    return frozenset(part for word in words if (part := parse_part(word)) is not None)


def normalize_label(name: str) -> str:
    """Return the class that ``name`` names: NFC, without the spaces around it.

    >>> normalize_label("cafe\\u0301 ") == "caf\\u00e9"
    True
    """
    label = unicodedata.normalize("NFC", name)
    return label.strip() or label


def report_similar_names(names: Iterable[str], findings: Findings) -> None:
    """Say which different ``names`` are one class, and which look like one but are not."""
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    cases: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[normalize_label(name)].add(name)
        cases[normalize_label(name).casefold()].add(normalize_label(name))
    for label, ways in sorted(spellings.items()):
        if len(ways) > 1:
            findings.add(
                "class names that differ only in spaces around them or in how their letters are "
                "composed: treated as one class",
                " and ".join(ascii(way) if way != label else repr(way) for way in sorted(ways)),
            )
    for _, labels in sorted(cases.items()):
        if len(labels) > 1:
            findings.add(
                "class names that differ only in upper and lower case: kept as different classes",
                " and ".join(map(repr, sorted(labels))),
            )
