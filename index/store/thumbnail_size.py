"""How large a gallery keeps the pictures of its items: a setting that all who add to it follow."""

from typing import Final

from index.store.store import Store
from vision.image.thumbnail import LEAST_SIDE, MAX_SIDE, MOST_SIDE

SETTING: Final = "thumbnail_side"  # its name


class PictureSize:
    """The longest side of the pictures that are kept from now on; those that are there stay."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def side(self) -> int:
        """The longest side, pixels: 256, unless it was set."""
        return int(self._store.setting(SETTING) or MAX_SIDE)

    def keep(self, side: int) -> None:
        """Keep pictures with a longest side of ``side`` pixels from now on.

        Raises:
            ValueError: not between 64 and 2048.
            ReadOnlyError, DiskFullError, StorageError: nothing was changed.
        """
        if not LEAST_SIDE <= side <= MOST_SIDE:
            raise ValueError(
                f"a picture's side lies between {LEAST_SIDE} and {MOST_SIDE} pixels, got {side}"
            )
        if side != self.side:
            self._store.set_setting(SETTING, str(side))
