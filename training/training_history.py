"""A model folder in, how its training went out: epoch by epoch, and what was tried."""

import json
from pathlib import Path
from typing import Any, Final

from vision.errors import ModelFolderError

HISTORY_NAME: Final = "training.json"  # in a model folder


def read_history(model_folder: Path) -> tuple[dict[str, Any], ...]:
    """Return how the training went, epoch by epoch; nothing where the folder does not say.

    Raises:
        ModelFolderError: the file is not JSON, or holds something else.
    """
    try:
        return tuple(dict(epoch) for epoch in _read(model_folder)["history"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        path = model_folder / HISTORY_NAME
        raise ModelFolderError(f"{path} is damaged: no list of epochs called history") from error


def read_tried(model_folder: Path) -> dict[str, Any] | None:
    """Return what `auto` tried, as ``training.heads.model_choice`` writes it, or None.

    Raises:
        ModelFolderError: the file is not JSON, or holds something else.
    """
    try:
        tried = _read(model_folder).get("tried")
        if tried is None:
            return None
        return {name: tried[name] for name in ("candidates", "winner", "why")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        path = model_folder / HISTORY_NAME
        raise ModelFolderError(f"{path} is damaged: what was tried cannot be read") from error


def _read(model_folder: Path) -> Any:
    return json.loads((model_folder / HISTORY_NAME).read_bytes())
