"""Many items to delete: which ones a request names in, their end out."""

from typing import Any, Final

from index.gallery import Gallery
from index.items.filter import Filter, parse_filter
from index.items.ids import check_id
from service.errors import AmbiguousQueryError, InvalidJsonError, ListTooLongError
from service.jobs.runner import Course, Work
from service.schemas.edit_parameters import MAX_DELETED, DeleteOptions
from service.schemas.job_parameters import DeleteJob

CHUNK: Final = 1000  # ids of one transaction


def check_selection(options: DeleteOptions | DeleteJob) -> None:
    """Accept one of ids, a filter with a condition, and the word that all items are meant.

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
    if options.filter is not None and parse_filter(options.filter) == Filter():
        raise InvalidJsonError(
            'a filter without conditions holds for every item: send "all": true if that is meant'
        )


def delete_few(options: DeleteOptions, gallery: Gallery) -> int:
    """Delete what ``options``, which were checked, name; return how many items that were.

    Raises:
        ListTooLongError: there are more than one request deletes.
    """
    if options.ids is not None:
        return sum(gallery.delete(list(dict.fromkeys(options.ids))))
    wanted = None if options.filter is None else parse_filter(options.filter)
    counts = gallery.facets(wanted, keys=[], limit=1)
    if counts.count > MAX_DELETED:
        raise ListTooLongError(
            f"{counts.count} items would be deleted, and at most {MAX_DELETED} in one request; a "
            'job deletes more: POST /v1/jobs with "kind": "delete"'
        )
    return gallery.delete_where(wanted, up_to=counts.seq)


def deletion_of(options: DeleteJob, gallery: Gallery) -> Work:
    """Return the work that deletes what ``options`` name, a part at a time.

    Of items that were stored or changed after it began none is deleted for a filter.
    """
    check_selection(options)
    wanted = None if options.filter is None else parse_filter(options.filter)

    def work(course: Course) -> dict[str, Any]:
        course.stage("deleting")
        deleted = 0
        if options.ids is not None:
            for start in range(0, len(options.ids), CHUNK):
                course.progress(start / len(options.ids))
                part = list(dict.fromkeys(options.ids[start : start + CHUNK]))
                deleted += sum(gallery.delete(part))
            return {"deleted": deleted}
        counts = gallery.facets(wanted, keys=[], limit=1)
        while part_deleted := gallery.delete_where(wanted, up_to=counts.seq):
            deleted += part_deleted
            course.progress(deleted / max(counts.count, 1))
        return {"deleted": deleted}

    return work
