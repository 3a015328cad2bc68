"""The version of this program, also where it was copied and not installed, as in a bento."""

from typing import Final

VERSION: Final = "0.6.0"  # pyproject.toml's
