"""API keys: a file of hashed keys in, the rights of a key out.

The file is TOML and holds no key, only SHA-256 digests (the keys are 256 random bits, so a plain
digest is enough)::

    [[keys]]
    name = "shop"
    sha256 = "…"                      # of the key, hexadecimal
    rights = ["read", "write"]        # and "admin", "metrics"; none of them implies another
    expires = 2027-06-30T00:00:00Z    # optional; from then on the key is refused
    requests_per_minute = 600         # optional

Keys may share a name, such as an old key and its successor: they are one client with one quota.
"""

import hashlib
import hmac
import logging
import secrets
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.errors import ServiceConfigError

Right = Literal["read", "write", "admin", "metrics"]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
LOOK_EVERY_S: Final = 1.0
logger = logging.getLogger("lookalike.service")


class ApiKey(BaseModel):
    """One entry of the key file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rights: frozenset[Right]
    expires: AwareDatetime | None = None
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000_000)

    def has_expired(self) -> bool:
        """Return whether the key has expired."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


class _KeyFileFields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[ApiKey] = Field(min_length=1)


class KeyRing:
    """The keys of the file as it was read once."""

    def __init__(self, keys: list[ApiKey]) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the keys in the file.

        Raises:
            ServiceConfigError: the file is missing or not as the module describes.
        """
        try:
            fields = tomllib.loads(path.read_text("utf-8"))
            return cls(_KeyFileFields.model_validate(fields).keys)
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

    def find(self, token: str) -> ApiKey | None:
        """Return the entry of the key ``token``, which may have expired; None: it is not a key."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found = None
        for stored, key in self._keys:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(stored, digest):
                found = key
        return found


class KeyFile:
    """The key file, read again when it has changed; the change takes effect within a second.

    If the changed file cannot be used, the previous keys stay valid, and the log says so.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file for the first time.

        Raises:
            ServiceConfigError: it cannot be used.
        """
        self._path = path
        self._clock = clock
        self._checked = clock()
        self._identity = _identity(path)
        self._ring = KeyRing.load(path)
        self.is_failing = False  # the file has changed, and cannot be used

    def ring(self) -> KeyRing:
        """Return the valid keys; checks the file for changes at most once a second."""
        now = self._clock()
        if now - self._checked >= LOOK_EVERY_S:
            self._checked = now
            self._reload_if_changed()
        return self._ring

    def _reload_if_changed(self) -> None:
        identity = _identity(self._path)
        if identity == self._identity:
            return
        self._identity = identity  # before reading: what is written meanwhile is seen next time
        try:
            self._ring = KeyRing.load(self._path)
        except ServiceConfigError as error:
            logger.error("the previous keys stay valid: %s", error)  # noqa: TRY400 - a sentence
            self.is_failing = True
        else:
            self.is_failing = False
            logger.info("the key file was reloaded: %d keys", len(self._ring))


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes when the file is written or replaced; empty: there is no file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, shown once, and the lines that let a service accept it."""

    token: str
    lines: str


def make_key(name: str, rights: list[Right], *, expires: datetime | None = None) -> NewKey:
    """Return a new random key of 256 bits with its entry for the key file."""
    token = f"lk_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    listed = ", ".join(f'"{right}"' for right in rights)
    lines = f'[[keys]]\nname = "{name}"\nsha256 = "{digest}"\nrights = [{listed}]\n'
    if expires is not None:
        lines += f"expires = {expires.isoformat()}\n"
    return NewKey(token, lines)
