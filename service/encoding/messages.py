"""What the worker and the process with the network say to each other, over a Unix socket.

    worker                                     process with the network
      connects  ────────────────────────────►  accepts, once the network is ready
      Greeting  ◄────────────────────────────  what it is, and how large a batch may be; or why not
      memory    ────────────────────────────►  an open file, see shared_batch.py
      Request   ────────────────────────────►  so many images lie in the memory
      Answer    ◄────────────────────────────  what was said of them does; or why not

Messages keep their bounds (SOCK_SEQPACKET), and each side has at most one under way. They hold
numbers and JSON: nothing in them can run code.
"""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self

from vision import errors
from vision.errors import VisionError
from vision.inference.encoder import Runtime
from vision.model.export_accuracy import Difference

MOST_BYTES: Final = 2**16  # of a message
MOST_LETTERS: Final = 4096  # of a sentence in it
MEMORY: Final = b"memory"
_REQUEST: Final = struct.Struct("<I?")
_DONE: Final = struct.Struct("<cdI")
_IS_DONE, _HAS_FAILED = b"d", b"f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The network that is ready, as workers need to know it."""

    fingerprint: str  # of the model
    device: str
    runtime: Runtime
    images: int  # that a worker may send at once
    width: int  # of a vector
    labels: int

    def to_bytes(self) -> bytes:
        """Return the message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, message: bytes) -> Self:
        """Return what the message says.

        Raises:
            EOFError: it is empty: the other end has been closed.
            Whatever ``read_failure`` returns, if there is no network.
        """
        if not message:
            raise EOFError
        if message.startswith(_HAS_FAILED):
            raise read_failure(message)
        fields: dict[str, Any] = json.loads(message)
        runtime = fields.pop("runtime")
        difference = runtime.pop("difference")
        if difference is not None:
            difference = Difference.from_json(difference)
        return cls(**fields, runtime=Runtime(**runtime, difference=difference))


class Request(NamedTuple):
    """So many images wait to be encoded."""

    images: int
    is_bulk: bool  # they came with others

    def to_bytes(self) -> bytes:
        """Return the message."""
        return _REQUEST.pack(*self)

    @classmethod
    def read(cls, message: bytes) -> Self:
        """Return what the message says.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            return cls(*_REQUEST.unpack(message))
        except struct.error as error:
            raise ValueError("a request was expected") from error


class Answer(NamedTuple):
    """All images of a request were encoded, in a batch that had some of other workers, too."""

    seconds: float  # that the batch took
    images: int  # in the batch

    def to_bytes(self) -> bytes:
        """Return the message."""
        return _DONE.pack(_IS_DONE, *self)

    @classmethod
    def read(cls, message: bytes) -> Self:
        """Return what the message says.

        Raises:
            Whatever ``read_failure`` returns, if they were not encoded.
        """
        if message.startswith(_HAS_FAILED):
            raise read_failure(message)
        return cls(*_DONE.unpack(message)[1:])


def failure(error: Exception) -> bytes:
    """Return the message that something failed.

    An error of ``vision`` arrives as it is; of others, which the log has, only that there was one.
    """
    said = {"error": None, "sentence": "the network failed; its process has logged why"}
    if isinstance(error, VisionError):
        said = {"error": type(error).__name__, "sentence": str(error)[:MOST_LETTERS]}
    return _HAS_FAILED + json.dumps(said).encode()


def read_failure(message: bytes) -> Exception:
    """Return the error that a message is about."""
    said = json.loads(message[1:])
    kind = getattr(errors, str(said["error"]), None)
    if isinstance(kind, type) and issubclass(kind, VisionError):
        return kind(said["sentence"])
    return RuntimeError(said["sentence"])
