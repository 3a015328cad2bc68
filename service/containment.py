"""What BentoML opens and we do not need, closed: its control ports and its unpickling of requests.

Requests never reach BentoML's own routes (front.py), so that none is unpickled is a second wall.
The control ports are on loopback, but take commands from every local user, whoever it is.
``tests/test_service_contract.py`` tells when a new version undoes one of them.
"""

from http import HTTPStatus
from typing import Any, Final

from _bentoml_impl import serde
from bentoml._internal.utils import circus
from bentoml.exceptions import BentoMLException

from service.errors import ServiceConfigError

_PICKLE: Final = serde.PickleSerde.media_type


class _SilentArbiter(circus.Arbiter):
    """BentoML's supervisor, whose commands come from its own process only: by signals."""

    def __init__(
        self, watchers: list[Any], endpoint: str, pubsub_endpoint: str, **options: Any
    ) -> None:
        if options.get("plugins"):
            raise ServiceConfigError(
                "--reload needs a control port, which this service never opens"
            )
        super().__init__(watchers, "inproc://control", "inproc://events", **options)


def close_control_ports() -> None:
    """Have the supervisor, when BentoML makes it, listen within its own process only."""
    circus.Arbiter = _SilentArbiter  # type: ignore[misc] # BentoML offers no other way


def refuse_pickles() -> None:
    """Make this process unable to unpickle what a request carries."""
    serde.ALL_SERDE.pop(_PICKLE, None)
    serde.PickleSerde.deserialize_value = _refuse


def _refuse(_: object, payload: object) -> None:
    raise BentoMLException(
        "requests are never unpickled", error_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    )
