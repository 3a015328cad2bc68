"""A folder in, the list of its pictures out, with the classes and parts that its folders say.

``FOLDER/class/…/image`` has the class as label; ``FOLDER/part/class/…/image`` the class too, where
the parts have usual names (``train``, ``valid``, ``Test``, …). Images that lie in no class folder
have no label. Folders that hold one item each (``--group folder``) are no classes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dataset.errors import DatasetError
from dataset.findings import Findings
from dataset.folders.walk import walk
from dataset.groups import Steps, folders_are_items, groups_of_paths, with_groups
from dataset.listing import ListedFile, Listing, Part
from dataset.names import normalize_label, parse_part, parts_among_words, report_similar_names

DEPTH_OF_CLASSES: Final = 3  # part, class, image
SHOWN_NAMES: Final = 5


def list_folder(folder: Path, *, group: str | None = None) -> Listing:
    """Return the pictures below ``folder``, sorted by their folders and names.

    Args:
        folder: where they lie.
        group: as in ``dataset.source``.

    Raises:
        DatasetError: it is missing, cannot be read, or holds none; or it is ambiguous
            whether some of its folders are parts or classes.
    """
    findings = Findings()
    tree = walk(folder, findings)
    if not tree.files:
        raise DatasetError(f"there are no images in {folder}{findings.in_words()}")
    steps_of = _without_wrapper({key: tuple(key.split("/")) for key in tree.files}, findings)
    parts = _parts(folder, steps_of.values(), findings)
    twice = _named_twice(steps_of.values(), parts, findings)
    files: list[ListedFile] = []
    labels: dict[str, str] = {}  # by their folders' names
    inners = [_inner(steps, parts, twice) for steps in steps_of.values()]
    items_have_folders = folders_are_items(group, inners)
    for (key, place), inner in zip(tree.files.items(), inners, strict=True):
        part = parts.get(steps_of[key][0]) if len(inner) < len(steps_of[key]) else None
        name = inner[0] if len(inner) > 1 and not items_have_folders else None
        if name is not None and name not in labels:
            labels[name] = normalize_label(name)
        elif name is None and part is not None and not items_have_folders:
            findings.add("an image directly in a part, in no class folder: without a class", key)
        label = None if name is None else labels[name]
        files.append(ListedFile(place=place, key=key, label=label, part=part))
    if group is not None:
        groups = groups_of_paths(group, inners, folder, classes=not items_have_folders)
        files = list(with_groups(files, groups, findings, by=f"--group {group}"))
    report_similar_names(labels, findings)
    if parts:
        _report_parts_inside(steps_of.values(), parts, twice, findings)
    else:
        _report_part_like_names(steps_of.values(), findings)
        _report_odd_nesting(steps_of.values(), findings)
    return Listing(
        source=folder, files=tuple(files), findings=findings, unread=tuple(sorted(tree.unread))
    )


def _inner(steps: Steps, parts: dict[str, Part], twice: set[str]) -> Steps:
    """Return the steps of a path inside its part."""
    if len(steps) == 1 or steps[0] not in parts:
        return steps
    return steps[2 if steps[0] in twice else 1 :]


def _without_wrapper(
    steps_of: dict[str, tuple[str, ...]], findings: Findings
) -> dict[str, tuple[str, ...]]:
    """Return the steps without a folder that is around all parts, as archives often have one."""
    firsts = {steps[0] for steps in steps_of.values()}
    deep = all(len(steps) > DEPTH_OF_CLASSES for steps in steps_of.values())
    if (
        len(firsts) > 1
        or not deep
        or any(parse_part(steps[1]) is None for steps in steps_of.values())
    ):
        return steps_of
    (first,) = firsts
    if parse_part(first) is not None:
        return steps_of
    findings.add("a folder around all parts: looked into", first)
    return {key: steps[1:] for key, steps in steps_of.items()}


def _named_twice(
    paths: Iterable[tuple[str, ...]], parts: dict[str, Part], findings: Findings
) -> set[str]:
    """Return the parts that hold one folder, called like them, which holds the classes."""
    inner: dict[str, set[str]] = {}
    for steps in paths:
        if steps[0] in parts:
            deep = len(steps) > DEPTH_OF_CLASSES
            inner.setdefault(steps[0], set()).add(steps[1] if deep else "")
    twice = {
        name
        for name, inside in inner.items()
        if len(inside) == 1 and parse_part(next(iter(inside))) == parts[name]
    }
    for name in sorted(twice):
        findings.add("a part inside a folder of its own name: looked into", name)
    return twice


def _parts(folder: Path, paths: Iterable[tuple[str, ...]], findings: Findings) -> dict[str, Part]:
    """Return which of the first folders are parts; none where they are classes.

    Raises:
        DatasetError: that is ambiguous.
    """
    classes: dict[str, set[str]] = {}  # folders inside the first folders
    for steps in paths:
        if len(steps) > 1:
            inside = classes.setdefault(steps[0], set())
            if len(steps) >= DEPTH_OF_CLASSES:
                inside.add(steps[1])
    parts = {name: part for name in classes if (part := parse_part(name)) is not None}
    others = [name for name in classes if name not in parts]
    if not others:
        _report_same_parts(parts, findings)
        return parts
    with_classes = [name for name in parts if classes[name]]
    found = {parts[name] for name in with_classes}
    inside = {name for part in with_classes for name in classes[part]}
    if Part.TRAIN in found or len(found) > 1 or inside & set(others):
        look = "look like parts" if len(with_classes) > 1 else "looks like a part"
        raise DatasetError(
            f"{folder} holds {_listed(with_classes)}, which {look} of the data with "
            f"class folders inside, beside {_listed(others)}, which is not a usual name of a part: "
            "move the classes into the parts, or what is neither out of the folder; a class of "
            "such a name needs another one"
        )
    for name in parts:
        findings.add(
            "a folder called like a part, beside folders that are not: treated as a class", name
        )
    return {}


def _report_same_parts(parts: dict[str, Part], findings: Findings) -> None:
    for part in Part:
        names = sorted(name for name, of in parts.items() if of == part)
        if len(names) > 1:
            findings.add(
                f"several names of the {part.name.lower()} part: taken together",
                " and ".join(names),
            )


def _report_parts_inside(
    paths: Iterable[tuple[str, ...]], parts: dict[str, Part], twice: set[str], findings: Findings
) -> None:
    """Say which parts hold, beside classes, a folder that is called like a part."""
    inside = {
        (steps[0], steps[1])
        for steps in paths
        if len(steps) >= DEPTH_OF_CLASSES and steps[0] in parts and steps[0] not in twice
    }
    for first, second in sorted(inside):
        if parse_part(second) is not None:
            findings.add(
                "a folder called like a part inside a part: treated as a class", f"{first}/{second}"
            )


def _report_part_like_names(paths: Iterable[tuple[str, ...]], findings: Findings) -> None:
    """Say which classes may be parts of a name that is not usual, such as ``01_train``."""
    names = {steps[0] for steps in paths if len(steps) > 1}
    named = {name: found for name in names if (found := parts_among_words(name))}
    if len(frozenset().union(*named.values())) > 1:
        for name in sorted(name for name in named if parse_part(name) is None):
            findings.add(
                "a folder with a part's name in its own: treated as a class; if it is a part, "
                "call it train, validation or test",
                name,
            )


def _report_odd_nesting(paths: Iterable[tuple[str, ...]], findings: Findings) -> None:
    """Say what may have been meant otherwise: one folder around all, or parts inside classes."""
    firsts: set[str] = set()
    seconds: set[tuple[str, str]] = set()
    in_first = False
    for steps in paths:
        firsts.add(steps[0] if len(steps) > 1 else "")
        in_first |= len(steps) < DEPTH_OF_CLASSES
        if len(steps) >= DEPTH_OF_CLASSES:
            seconds.add((steps[0], steps[1]))
    if len(firsts) == 1 and "" not in firsts and not in_first:
        findings.add(
            "the only folder, with folders inside: treated as a class; if those inside are the "
            "classes, name this one as the data",
            *firsts,
        )
    for first, second in sorted(seconds):
        if parse_part(second) is not None:
            findings.add(
                "a folder called like a part inside a class: its images are taken for the class's",
                f"{first}/{second}",
            )


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(repr, names[:SHOWN_NAMES])) + more
