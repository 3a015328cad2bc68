"""Many items to delete: which ones a request selects in, their deletion out."""

from dataclasses import dataclass
from typing import Any, Final

from index.gallery import Gallery
from index.items.filter import Filter, parse_filter
from index.items.ids import check_id
from service.errors import AmbiguousQueryError, InvalidJsonError, ListTooLongError
from service.jobs.runner import JobContext, JobFunction
from service.schemas.edit_parameters import MAX_DELETED, DeleteOptions

CHUNK: Final = 1000  # ids of one transaction


@dataclass(frozen=True, slots=True)
class Selection:
    """The items of some ids, or those that match a filter, or without both all items."""

    ids: list[str] | None
    filter: Filter | None


def parse_selection(options: DeleteOptions) -> Selection:
    """Return what one of ids, a filter with a condition, and the word for all items selects.

    Raises:
        InvalidJsonError: nothing says which items; a filter without conditions is no choice.
        AmbiguousQueryError: two of them do.
        FilterError, InvalidIdError: not a filter, or not an id.
    """
    named = sum([options.ids is not None, options.filter is not None, options.all])
    if named > 1:
        raise AmbiguousQueryError("send one of ids, filter and all, not several")
    if not named:
        raise InvalidJsonError(
            'nothing says which items to delete: send ids or a filter, or "all": true for every '
            "item of the gallery"
        )
    for item_id in options.ids or ():
        check_id(item_id)
    parsed = None if options.filter is None else parse_filter(options.filter)
    if parsed == Filter():
        raise InvalidJsonError(
            'a filter without conditions holds for every item: send "all": true if that is meant'
        )
    return Selection(options.ids, parsed)


def delete_selected(selection: Selection, gallery: Gallery) -> int:
    """Delete the selected items; return how many there were.

    Raises:
        ListTooLongError: there are more than one request deletes.
    """
    if selection.ids is not None:
        return sum(gallery.delete(list(dict.fromkeys(selection.ids))))
    counts = gallery.facets(selection.filter, keys=[], limit=1)
    if counts.count > MAX_DELETED:
        raise ListTooLongError(
            f"{counts.count} items would be deleted, and at most {MAX_DELETED} in one request; a "
            'job deletes more: POST /v1/jobs with "kind": "delete"'
        )
    return gallery.delete_where(selection.filter, up_to=counts.seq)


def deletion_job(selection: Selection, gallery: Gallery) -> JobFunction:
    """Return the work that deletes the selected items, a part at a time.

    Of items that were stored or changed after it began none is deleted for a filter.
    """

    def work(context: JobContext) -> dict[str, Any]:
        context.set_stage("deleting")
        deleted = 0
        if selection.ids is not None:
            for start in range(0, len(selection.ids), CHUNK):
                context.set_progress(start / len(selection.ids))
                part = list(dict.fromkeys(selection.ids[start : start + CHUNK]))
                deleted += sum(gallery.delete(part))
            return {"deleted": deleted}
        counts = gallery.facets(selection.filter, keys=[], limit=1)
        while part_deleted := gallery.delete_where(selection.filter, up_to=counts.seq):
            deleted += part_deleted
            context.set_progress(deleted / max(counts.count, 1))
        return {"deleted": deleted}

    return work
