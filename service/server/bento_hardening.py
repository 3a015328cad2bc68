"""BentoML's unpickling of requests, which we do not need, made impossible.

Requests never reach BentoML's own routes (``request/gateway.py``), so that none is unpickled is a
second wall.
``tests/service/api/test_contract.py`` tells when a new version undoes it.
"""

from http import HTTPStatus
from typing import Final

from _bentoml_impl import serde
from bentoml.exceptions import BentoMLException

_PICKLE: Final = serde.PickleSerde.media_type


def refuse_pickles() -> None:
    """Make this process unable to unpickle what a request carries."""
    serde.ALL_SERDE.pop(_PICKLE, None)
    serde.PickleSerde.deserialize_value = _refuse


def _refuse(_: object, payload: object) -> None:
    raise BentoMLException(
        "requests are never unpickled", error_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    )
