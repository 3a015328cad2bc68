"""What was measured to be quickest for a network on a GPU, kept so that the next start need not.

It lies in ``$XDG_CACHE_HOME/lookalike/gpu`` (``~/.cache`` without that variable), one small file
for a model on a kind of GPU with a version of torch and cuDNN. It is a cache: without a place to
write, or with a file that cannot be read, everything works and is measured again.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from files.durable import replace_file

logger = logging.getLogger("lookalike.vision")
ShortPrecision = Literal["fp32", "bf16", "fp16"]
VERSION: Final = 1  # of what is measured, and how


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuChoice:
    """How a network is computed."""

    precision: ShortPrecision  # of its features
    fuses_relu: bool  # whether convolutions do the ReLU behind them

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Self:
        """Return what ``asdict`` gave; ValueError, KeyError or TypeError: it did not give that."""
        choice = cls(**fields)  # type: ignore[arg-type]
        if choice.precision not in get_args(ShortPrecision) or type(choice.fuses_relu) is not bool:
            raise ValueError(f"not a choice: {fields}")
        return choice


class RememberedChoice:
    """The file that holds the choice for one model on one kind of GPU."""

    def __init__(self, *bound_to: str) -> None:
        """Take all that decides the choice: the model, the GPU, what computes."""
        key = hashlib.sha256("\n".join([str(VERSION), *bound_to]).encode()).hexdigest()
        folder = cache_folder()
        self._path = None if folder is None else folder / "gpu" / f"{key[:32]}.json"

    def read(self) -> GpuChoice | None:
        """Return what was chosen, if that is known."""
        if self._path is None:
            return None
        try:
            return GpuChoice.from_json(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, choice: GpuChoice) -> None:
        """Keep ``choice``, where there is a place for it."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(asdict(choice)).encode())
        except OSError as error:
            logger.info("what is quickest on this GPU is not remembered: %s", error)


def cache_folder() -> Path | None:
    """Return where this user's caches of ours lie; None: the user has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "lookalike"
