"""A model folder in, how its training went out: epoch by epoch, and what was tried."""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from vision.errors import ModelFolderError

HISTORY_NAME: Final = "training.json"  # in a model folder


class TrainingHistory(NamedTuple):
    """How a training went, as JSON values."""

    epochs: tuple[dict[str, Any], ...] = ()  # empty where the folder does not say
    tried: dict[str, Any] | None = None  # as ``SelectionResult.to_json``; None: it was not `auto`


def read_history(model_folder: Path) -> TrainingHistory:
    """Return how the training went.

    Raises:
        ModelFolderError: the file is not JSON, or holds something else.
    """
    path = model_folder / HISTORY_NAME
    try:
        found = json.loads(path.read_bytes())
        epochs, tried = tuple(dict(epoch) for epoch in found["history"]), found.get("tried")
        if tried is not None:
            tried = {name: tried[name] for name in ("candidates", "winner", "why")}
        return TrainingHistory(epochs, tried)
    except FileNotFoundError:
        return TrainingHistory()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFolderError(f"{path} is damaged: no history of a training") from error
