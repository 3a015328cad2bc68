"""A training's state on disk after each epoch: what an interrupted training goes on from.

Only what changes is in it: of the rest the state knows the SHA-256.
The folder holds ``state.json`` (numbers, history, what is trained on what) and the safetensors file
that it names with its SHA-256. The JSON is written last and renamed into place, so that there is
always one whole checkpoint, the previous or the new one. Nothing in the folder can run code.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from files.checksummed_json import by_name, checksum, with_checksum
from files.durable import replace_file
from files.locks import take_lock
from training.errors import CheckpointError, UnfitCheckpointError

STATE_NAME: Final = "state.json"
LOCK_NAME: Final = "lock"
# 3: random numbers were the CPU's; 2: an epoch had fewer steps; 1 held what never changes, too
FORMAT_VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that decides how a training goes on."""

    run_identity: dict[str, Any]  # recipe and data, as JSON values: what is trained on what
    state: dict[str, Any]  # JSON values
    tensors: Mapping[str, Tensor]


class CheckpointFolder:
    """The one place of one training's checkpoint, held by one process at a time.

    Use it as a context manager: it locks the folder on entering and lets go on leaving; a killed
    process lets go too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make the folder where it is missing, and lock it.

        Raises:
            CheckpointError: another process trains here, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.folder / LOCK_NAME, wait=False)
        except BlockingIOError as error:
            raise CheckpointError(f"another training is at work in {self.folder}") from error
        except OSError as error:
            raise CheckpointError(f"cannot write {self.folder}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.exists():
            self.remove()  # nothing to go on from, nothing to leave behind
        if self._lock is not None:
            os.close(self._lock)  # lets go of the lock
            self._lock = None

    def exists(self) -> bool:
        """Return whether there is a checkpoint to go on from."""
        return (self.folder / STATE_NAME).exists()

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint by this one, synced to disk.

        Raises:
            CheckpointError: it cannot be written (for one, a full disk); the previous one stays.
        """
        data = safetensors.torch.save(
            {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in checkpoint.tensors.items()
            }
        )
        digest = hashlib.sha256(data).hexdigest()
        tensors_path = self.folder / f"{digest[:16]}.safetensors"
        fields = {
            "format_version": FORMAT_VERSION,
            "subject": checkpoint.run_identity,
            "state": checkpoint.state,
            "tensors": tensors_path.name,
            "tensors_sha256": digest,
        }
        try:
            replace_file(tensors_path, data)
            text = with_checksum(fields, by_name, name="sha256")
            replace_file(self.folder / STATE_NAME, text)
            for path in self.folder.glob("*.safetensors*"):
                if path != tensors_path and path.is_file():
                    path.unlink()
        except OSError as error:
            raise CheckpointError(
                f"cannot save the training in {self.folder}: {error.strerror}; "
                "what was saved before is still there"
            ) from error

    def load(self, run_identity: dict[str, Any]) -> Checkpoint:
        """Return the checkpoint, every byte checked, if it is one of ``run_identity``.

        Raises:
            UnfitCheckpointError: it is damaged, or of another recipe, other data or a version.
            CheckpointError: there is none, or it cannot be read.
        """
        path = self.folder / STATE_NAME
        try:
            fields = json.loads(path.read_bytes())
            expected = fields.pop("sha256")
            if expected != checksum(fields, by_name):
                raise UnfitCheckpointError(f"{path} was changed after it was written")
            if fields["format_version"] != FORMAT_VERSION:
                raise UnfitCheckpointError(
                    f"{self.folder} holds a training that another version of this program began "
                    f"(checkpoint format {fields['format_version']}, this one has "
                    f"{FORMAT_VERSION}): finish it with that version, or remove the folder and "
                    "begin again"
                )
            data = (self.folder / fields["tensors"]).read_bytes()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnfitCheckpointError(f"{path} is damaged: not the JSON we wrote") from error
        except OSError as error:
            raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != fields["tensors_sha256"]:
            raise UnfitCheckpointError(f"{self.folder / fields['tensors']} is damaged")
        _refuse_other(fields["subject"], run_identity, self.folder)
        try:
            tensors = safetensors.torch.load(data)
        except SafetensorError as error:
            raise UnfitCheckpointError(f"{self.folder / fields['tensors']} is damaged") from error
        return Checkpoint(run_identity, fields["state"], tensors)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _refuse_other(found: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """Raise if the checkpoint is about something else than what is asked for."""
    for part in sorted(found.keys() | asked.keys()):
        was, now = found.get(part, {}), asked.get(part, {})
        changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
        if changed:
            name = changed[0]
            raise UnfitCheckpointError(
                f"{folder} holds a training with another {part}: {name} was {was.get(name)!r}, now "
                f"{now.get(name)!r}; repeat the first call's options, or remove the folder"
            )
