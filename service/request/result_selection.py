"""What a search leaves out: a query with its options in, the gallery's result selection out."""

from index.items.ids import check_id
from index.query.groups import GROUP_KEY, group_key
from index.query.result_selection import ResultSelection
from service.errors import InvalidParameterError
from service.request.search_query import SearchQuery
from service.schemas.query_parameters import SearchOptions


def result_selection(query: SearchQuery[SearchOptions]) -> ResultSelection:
    """Return what the options leave out of the hits. Reads one item, for its copies.

    Raises:
        InvalidParameterError: an option that goes with another one came without it.
        InvalidIdError, GroupKeyError: not an id, or a key that groups nothing.
        UnknownIdError: the item asked for is gone.
    """
    options = query.options
    for item_id in options.exclude:
        check_id(item_id)
    query_items = [] if query.query_item is None else [query.query_item.id]
    if (options.exclude_self or options.exclude_group) and not query_items:
        raise InvalidParameterError(
            "exclude_self and exclude_group leave out a stored item, and its group, that is asked "
            "for by its id; this query has no id"
        )
    if options.group_by is None and options.group_size > 1:
        raise InvalidParameterError("group_size goes with group_by, the key of the groups")
    own = query_items if options.exclude_self or options.exclude_copies else []
    return ResultSelection(
        offset=options.offset,
        group_by=None if options.group_by is None else group_key(options.group_by),
        group_size=options.group_size,
        exclude=frozenset([*options.exclude, *own]),
        exclude_group=group_key(options.group_by or GROUP_KEY) if options.exclude_group else None,
        exclude_content=_content(query) if options.exclude_copies else None,
    )


def _content(query: SearchQuery[SearchOptions]) -> str:
    if query.query_item is not None:
        return query.gallery.get(query.query_item.id).content_sha256
    if query.content_sha256 is None:
        raise InvalidParameterError(
            "exclude_copies leaves out copies of a picture; a vector has none: ask by image or id"
        )
    return query.content_sha256
