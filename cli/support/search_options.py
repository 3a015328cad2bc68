"""What ``lookalike search`` leaves out, and what counts: options in, selection and queries out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray

from index.errors import GroupKeyError, InvalidIdError
from vision.inference.query_weighting import WeightedQueries, weight_queries
from vision.model.manifest import Architecture

if TYPE_CHECKING:
    from index.query.result_selection import ResultSelection

MOST_PASSED_OVER: Final = 9_000  # with k: what one search may reach

KindOption = Annotated[
    float | None,
    typer.Option(
        "--kind",
        min=0,
        max=1,
        help="What counts: 0 for this very thing, 1 for the same kind; by default the "
        "model's own setting.",
        show_default=False,
    ),
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="KEY",
        help="Limit the hits that share a value of this key: label, group or any other "
        "metadata key.",
        show_default=False,
    ),
]
GroupSizeOption = Annotated[
    int, typer.Option("--group-size", min=1, max=100, help="Hits per value, at most.")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", metavar="ID", help="Leave this item out of the hits; may be repeated."
    ),
]
ExcludeCopiesOption = Annotated[
    bool,
    typer.Option("--exclude-copies", help="Leave stored copies of the picture out of the hits."),
]
OffsetOption = Annotated[
    int, typer.Option("--offset", min=0, max=MOST_PASSED_OVER, help="Number of best hits to skip.")
]


def result_selection(
    *,
    group_by: str | None,
    group_size: int,
    exclude: Sequence[str] | None,
    exclude_content: str | None,
    offset: int,
) -> "ResultSelection":
    """Return what the options leave out.

    Raises:
        BadParameter: one of them says nothing.
    """
    from index.items.ids import check_id  # noqa: PLC0415
    from index.query.groups import group_key  # noqa: PLC0415
    from index.query.result_selection import MAX_EXCLUDED, ResultSelection  # noqa: PLC0415

    if group_by is None and group_size > 1:
        raise typer.BadParameter("it goes with --group-by", param_hint="--group-size")
    ids = frozenset(exclude or ())
    if len(ids) > MAX_EXCLUDED:
        raise typer.BadParameter(
            f"at most {MAX_EXCLUDED:,} ids, got {len(ids):,}", param_hint="--exclude"
        )
    try:
        for item_id in ids:
            check_id(item_id)
    except InvalidIdError as error:
        raise typer.BadParameter(str(error), param_hint="--exclude") from error
    try:
        key = None if group_by is None else group_key(group_by)
    except GroupKeyError as error:
        raise typer.BadParameter(str(error), param_hint="--group-by") from error
    return ResultSelection(
        offset=offset,
        group_by=key,
        group_size=group_size,
        exclude=ids,
        exclude_content=exclude_content,
    )


def weighed(
    vectors_QD: NDArray[np.float32], architecture: Architecture, kind: float | None
) -> WeightedQueries:
    """Return the queries to search with.

    Raises:
        BadParameter: the model's vectors have one part only.
    """
    if kind is not None and architecture.kind_share is None:
        raise typer.BadParameter(
            "the vectors of this model have one part, which does not tell this very thing from "
            "the same kind",
            param_hint="--kind",
        )
    return weight_queries(vectors_QD, architecture, kind)
