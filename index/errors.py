"""What can go wrong between vectors and hits.

VectorIndexError
├── BadVectorsError        caller: vectors of the wrong shape, not finite, or not unit length
├── InvalidIdError         caller: an id that does not match the id pattern
├── InvalidMetadataError   caller: a label or metadata we do not store
├── FilterError            caller: a filter that says nothing we understand
├── GroupKeyError          caller: a key that groups nothing
├── InvalidCursorError     caller: a paging cursor that we did not give out
├── UnknownIdError         caller: no item has this id
├── ChangedItemError       caller: the item is not as the change expects it
├── NoThumbnailError       caller: the item was stored as a vector, without a picture
├── SourceError            caller: what is to be stored is missing, empty, or cannot be read
├── ImportEndedError       ours: the process that imported vectors ended before it had
├── GalleryFolderError     ours: a gallery is missing, damaged, of another version, or in the way
│   └── ModelMismatchError ours: the gallery holds vectors of another model
├── LogCutError            ours: the log of operations no longer reaches back that far
├── GenerationError        ours, caught: a generation on disk is not what it should be
├── RebuildError           ours: the search structure was not built; the old one stays
│   └── RebuildBusyError   caller: another process is building it already
└── StorageError           ours: reading or writing failed; nothing was changed
    ├── DiskFullError      ours: there is no room left
    └── ReadOnlyError      ours: the disk failed or cannot be written to, or the gallery was moved
"""


class VectorIndexError(Exception):
    """Base of this floor's errors (the builtin ``IndexError`` means something else)."""


class BadVectorsError(VectorIndexError):
    """Vectors of the wrong shape, not finite, or not unit length."""


class InvalidIdError(VectorIndexError):
    """An id that does not match the id pattern."""


class InvalidMetadataError(VectorIndexError):
    """A label or metadata that is not stored: wrong type, too large, or not plain JSON."""


class FilterError(VectorIndexError):
    """A filter that is malformed."""


class GroupKeyError(VectorIndexError):
    """A key to group by that no two items can share, or that is none."""


class InvalidCursorError(VectorIndexError):
    """A paging cursor that no page gave out."""


class UnknownIdError(VectorIndexError):
    """No item has this id."""


class ChangedItemError(VectorIndexError):
    """The item is not as the change expects it: somebody else came first. Nothing was changed."""


class NoThumbnailError(VectorIndexError):
    """The item was stored as a vector, without a picture."""


class SourceError(VectorIndexError):
    """A folder of images or a file of vectors is missing, empty, or cannot be read."""


class ImportEndedError(VectorIndexError):
    """The process that imported vectors ended before it had; what it stored by then stays."""


class GalleryFolderError(VectorIndexError):
    """A gallery folder is missing, damaged, of another version, or in the way."""


class ModelMismatchError(GalleryFolderError):
    """The gallery holds vectors of another model."""


class LogCutError(VectorIndexError):
    """The operations that were asked for have been cut from the log; load the items instead."""


class GenerationError(VectorIndexError):
    """A generation of the search index on disk cannot be used; the database has all it held."""


class RebuildError(VectorIndexError):
    """The search structure could not be built anew; the gallery is as it was."""


class RebuildBusyError(RebuildError):
    """Another process is building the search structure already."""


class StorageError(VectorIndexError):
    """Reading or writing failed; the change that was asked for did not happen.

    One exception: when the disk fails while a write is made durable, the change may be there after
    a restart. The sentence says so, and the gallery is read-only until then.
    """


class DiskFullError(StorageError):
    """There is no room left; the change that was asked for did not happen."""


class ReadOnlyError(StorageError):
    """Nothing is written: the disk failed or can only be read, or the gallery was moved."""
