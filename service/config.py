"""The service's settings, read from the environment in this one place."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import SettingError
from vision.formats.detect import FORMATS, formats_called
from vision.inference.runtime_name import RUNTIME_HELP, RuntimeName

PREFIX: Final = "LOOKALIKE_"
ANY: Final = "*"  # of hosts or origins
PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")  # RFC 3986, 3.3; no //host
_OWN: Final = ("/v1/", "/docs/", "/page/")  # with which paths of this service begin
# As browsers write it: lower case, no path, a port only where it is not the usual one.
_ORIGIN: Final = re.compile(r"https?://[a-z0-9._\-\[\]:]+")


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


# Separated by commas, not JSON.
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)]


class ServiceSettings(BaseSettings):
    """Every setting is an environment variable ``LOOKALIKE_<NAME>`` and an option of ``serve``.

    Descriptions are what ``lookalike serve --help`` says, and how the row in docs/api.md begins.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    model: Path | None = Field(None, description="Model folder.")
    gallery: Path = Field(Path("gallery"), description="Gallery folder.")
    create: bool = Field(
        False, description="Create an empty gallery if there is none; otherwise that is an error."
    )
    unix_socket: Path | None = Field(
        None,
        description="Unix socket to listen on instead of a port, for a proxy on this machine, "
        "which is trusted.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Worker processes; by default one per core for an exported network, one per "
        "core but one on a GPU, otherwise one.",
    )
    api_keys_file: Path | None = Field(
        None, description="TOML file of API keys; without it everybody may do everything."
    )
    wrong_keys_per_minute: int = Field(
        60, ge=0, description="Wrong API keys per minute from one address; 0: any number."
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Requests per minute from one address where no keys are required; by default "
        "any number.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Proxies whose X-Forwarded-For, -Host, -Proto and -Prefix are believed: "
        "addresses or networks, separated by commas.",
    )
    root_path: str = Field(
        "", description="Path under which a proxy publishes this service, such as /visual."
    )
    allowed_hosts: Texts = Field(
        (),
        description="Host names that this server answers to, separated by commas, or *; by default "
        "any, but on the loopback interface without keys only local ones.",
    )
    cors_origins: Texts = Field(
        (),
        description="Origins whose pages may call this service, separated by commas, or *; by "
        "default none.",
    )
    backups_dir: Path | None = Field(
        None, description="Folder for backups; without it none are made."
    )
    imports_dir: Path | None = Field(
        None, description="Folder of files that jobs may import; without it none are imported."
    )
    max_body_bytes: int = Field(20 * 2**20, ge=1024, description="Largest request body, bytes.")
    max_pixels: int = Field(25_000_000, ge=1, description="Largest image, pixels.")
    formats: Texts = Field(
        tuple(one.key for one in FORMATS),
        description="Image formats that are accepted, separated by commas.",
    )
    max_connections: int = Field(1024, ge=1, description="Open connections, per worker.")
    max_bodies_bytes: int = Field(
        2**27, ge=1024, description="All request bodies held at once, bytes per worker."
    )
    decode_memory_bytes: int = Field(
        2**28, ge=2**20, description="All images being decoded at once, bytes per worker."
    )
    decode_timeout_s: float = Field(
        10.0, ge=1, description="Processor time for decoding one image, seconds."
    )
    header_timeout_s: float = Field(
        10.0, gt=0, description="Time for a request's headers to arrive, seconds."
    )
    body_timeout_s: float = Field(
        10.0, gt=0, description="Time for more of a body to arrive, seconds."
    )
    keep_alive_s: float = Field(
        75.0, gt=0, description="Time that a connection waits for its next request, seconds."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Time to work on a request that has arrived, seconds."
    )
    answer_timeout_s: float = Field(
        30.0, gt=0, description="Time for a client to read its answer, seconds."
    )
    max_queue: int = Field(
        256, ge=1, description="Requests being worked on or waiting, per worker."
    )
    max_wait_s: float = Field(
        0.5,
        gt=0,
        description="Longest wait in the queue, seconds; or 1.5 times what a lone request takes, "
        "if that is longer.",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        description="Largest batch of the network, images; by default 16 with an export, 32 with "
        "torch on a CPU, on a GPU up to 256 by what was measured.",
    )
    device: str = Field("auto", description="Where to compute: auto, cpu, cuda or cuda:N.")
    runtime: RuntimeName = Field("auto", description=RUNTIME_HELP)
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe messages to log; info includes one line per request."
    )
    drain_s: float = Field(
        0.0,
        ge=0,
        le=300,
        description="Time after SIGTERM in which only /readyz reports the shutdown, seconds.",
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/?#\s]+[^?#\s]*$",
        description="OpenTelemetry collector that receives traces over HTTP, such as "
        "http://localhost:4318; without it none are made.",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of requests traced, unless the caller has decided."
    )

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if not PATH.fullmatch(path) or f"{path}/".startswith(_OWN):
            raise ValueError(
                f"{path!r} is no root path; one is like /visual, and does not begin with "
                f"{', '.join(_OWN)}"
            )
        return path

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin; one is like https://shop.example, without a path"
                )
        return origins

    @field_validator("formats")
    @classmethod
    def _check_formats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one.key for one in formats_called(names))

    @classmethod
    def from_environment(cls) -> Self:
        """Return the settings of this process's environment.

        Raises:
            SettingError: a variable has a value out of range.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise SettingError(f"{name} cannot be used: {first['msg']}") from error
