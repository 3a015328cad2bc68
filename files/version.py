"""The version of this program, also where it was copied and not installed, as in a bento."""

from typing import Final

# pyproject.toml's; `python -m scripts.release prepare` writes both.
VERSION: Final = "0.6.0"
