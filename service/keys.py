"""API keys: a file of hashes in, who may do what out.

The file is TOML and holds no key, only SHA-256 digests (the keys are 256 random bits, so a plain
digest is enough)::

    [[keys]]
    name = "shop"
    sha256 = "…"                    # of the key, hexadecimal
    rights = ["read", "write"]      # and "admin", for jobs; none of them implies another
    requests_per_minute = 600       # optional
"""

import hashlib
import hmac
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import (
    ForbiddenError,
    ServiceConfigError,
    TooManyRequestsError,
    UnauthorizedError,
)

Right = Literal["read", "write", "admin"]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
_WINDOW_S: Final = 60


class ApiKey(BaseModel):
    """One line of the key file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rights: frozenset[Right]
    requests_per_minute: int | None = Field(None, ge=1)


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[ApiKey] = Field(min_length=1)


class KeyRing:
    """The keys a service accepts, and each one's quota of the last minute."""

    def __init__(self, keys: list[ApiKey]) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the keys in the file.

        Raises:
            ServiceConfigError: the file is missing or not as the module describes.
        """
        try:
            fields = tomllib.loads(path.read_text("utf-8"))
            return cls(_KeyFile.model_validate(fields).keys)
        except OSError as error:
            raise ServiceConfigError(
                f"cannot read the key file {path}: {error.strerror}"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ServiceConfigError(f"the key file {path} is not TOML: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ServiceConfigError(f"the key file {path}: {where}: {first['msg']}") from error

    def authorise(self, authorization: str | None, right: Right) -> str:
        """Return the name of the key in the header, which must have ``right`` and quota left.

        Raises:
            UnauthorizedError: no key, or an unknown one.
            ForbiddenError: a key without ``right``.
            TooManyRequestsError: the key's quota of the last minute is used up.
        """
        key = self._find(authorization)
        if right not in key.rights:
            raise ForbiddenError(f"the key {key.name!r} has no right to {right}")
        self._count(key)
        return key.name

    def _find(self, authorization: str | None) -> ApiKey:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorizedError("an API key is needed: Authorization: Bearer KEY")
        digest = hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()
        found = None
        for stored, key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(stored, digest):
                found = key
        if found is None:
            raise UnauthorizedError("the API key is not known")
        return found

    def _count(self, key: ApiKey) -> None:
        if key.requests_per_minute is None:
            return
        item = RateLimitItemPerMinute(key.requests_per_minute)
        if not self._limiter.hit(item, key.name):
            raise TooManyRequestsError(
                f"the key {key.name!r} may send {key.requests_per_minute} requests a minute",
                retry_after_s=_WINDOW_S,
            )


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, shown once, and the lines that let a service accept it."""

    token: str
    lines: str


def make_key(name: str, rights: list[Right]) -> NewKey:
    """Return a new random key of 256 bits with its entry for the key file."""
    token = f"lk_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    listed = ", ".join(f'"{right}"' for right in rights)
    return NewKey(token, f'[[keys]]\nname = "{name}"\nsha256 = "{digest}"\nrights = [{listed}]\n')
