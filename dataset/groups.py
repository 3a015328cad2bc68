"""Paths of images and what ``--group`` says in, the item that each of them shows out.

Several photos of one item, a product or a person, are a *group*. Training and measuring keep them
in one part of the data, and search is measured by how they find each other.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from dataset.errors import DatasetError
from dataset.findings import Findings
from dataset.listing import ListedFile

FOLDER: Final = "folder"  # what --group says where every item has a folder of its own
ALONE: Final = "an image of no group: stands for itself"
SHOWN: Final = 60  # characters of a pattern or name in a sentence

Steps = tuple[str, ...]  # of a path, without the folder of its part; the last is the file's name


def is_pattern(group: str) -> bool:
    """Return whether ``--group`` was given a regular expression, which marks what it takes."""
    return "(" in group


def folders_are_items(group: str | None, paths: Sequence[Steps]) -> bool:
    """Return whether the first folders hold one item each, and so are no classes."""
    return group == FOLDER and max(map(len, paths)) == len(("thing", "image"))


def groups_of_paths(
    group: str, paths: Sequence[Steps], source: object, *, classes: bool
) -> list[str | None]:
    """Return the group of each path by its folder, or by a pattern that fits its file's name.

    A pattern groups files of one folder only: names may begin anew in another.

    Args:
        group: ``folder`` or a pattern.
        paths: of at least one image.
        source: for sentences.
        classes: whether the first folders are classes, so that things lie below them.

    Raises:
        DatasetError: ``group`` is neither, or none of the paths is of a group.
    """
    if group == FOLDER:
        above = 2 if classes else 1  # steps of a path that has no folder for its thing
        groups = ["/".join(steps[:-1]) if len(steps) > above else None for steps in paths]
        lacking = "no image in it lies in a folder of its own thing, such as class/thing/image.jpg"
    elif is_pattern(group):
        expression = _compiled(group)
        groups = [_group_of_name(expression, steps) for steps in paths]
        name = paths[0][-1].rpartition(".")[0] or paths[0][-1]
        lacking = f"no name of a file in it, without its ending, fits; one is {name[:SHOWN]!r}"
    else:
        raise DatasetError(
            f"--group {group[:SHOWN]!r} is neither {FOLDER!r} nor a pattern with parentheses "
            r"around what photos of one thing have in common, such as '(.*)_\d+'; tables take "
            "the name of a column, too"
        )
    if not any(groups):
        raise DatasetError(f"--group {group[:SHOWN]!r} does not fit {source}: {lacking}")
    return groups


def with_groups(
    files: Sequence[ListedFile], groups: Sequence[str | None], findings: Findings, *, by: str
) -> tuple[ListedFile, ...]:
    """Return the files with their groups, and say how these were understood, with examples.

    Args:
        files: the files.
        groups: of each.
        findings: get the groups of several photos, and photos without a group.
        by: what the groups were read from.
    """
    photos = Counter(group for group in groups if group is not None)
    several = {group: number for group, number in photos.items() if number > 1}
    for thing, number in several.items():
        findings.add(f"a group by {by}: its photos stay in one part", f"{thing}: {number} photos")
    if not several and photos:
        findings.add(f"groups by {by} of a single photo each: the same as none", next(iter(photos)))
    for file, group in zip(files, groups, strict=True):
        if group is None and photos:
            findings.add(ALONE, file.key)
    return tuple(replace(file, group=group) for file, group in zip(files, groups, strict=True))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DatasetError(
            f"--group {pattern[:SHOWN]!r} is not a regular expression: {error}"
        ) from (error)
    if not expression.groups:
        raise DatasetError(
            f"--group {pattern[:SHOWN]!r} marks nothing: put parentheses around what photos of "
            r"one thing have in common, such as '(.*)_\d+'"
        )
    return expression


def _group_of_name(expression: re.Pattern[str], steps: Steps) -> str | None:
    """Return what a file's whole name, without its ending, has in the first parentheses."""
    *folders, name = steps
    found = expression.fullmatch(name.rpartition(".")[0] or name)
    return "/".join([*folders, found[1]]) if found and found[1] else None
