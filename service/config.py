"""The service's settings, read from the environment in this one place."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, IPvAnyNetwork, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import ServiceConfigError
from service.security.cors import ANY
from service.security.trusted_proxies import PATH
from vision.formats.detect import FORMATS, formats_called
from vision.inference.runtime_name import RuntimeName

PREFIX = "LOOKALIKE_"
# As browsers write it: lower case, no path, a port only where it is not the usual one.
_OWN: Final = ("/v1/", "/docs/", "/page/")  # with which paths of this service begin
_ORIGIN: Final = re.compile(r"https?://[a-z0-9._\-\[\]:]+")


class ServiceSettings(BaseSettings):
    """Every setting is an environment variable ``LOOKALIKE_<NAME>`` and a flag of ``serve``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    model: Path | None = Field(
        None, description="model folder; without it the model packed in the bento is served"
    )
    gallery: Path = Field(Path("gallery"), description="gallery folder")
    create: bool = Field(
        False, description="make the gallery, empty, when it does not exist; else that is an error"
    )
    api_keys_file: Path | None = Field(
        None, description="TOML file of API keys; without it everybody may do everything"
    )
    wrong_keys_per_minute: int = Field(
        60, ge=0, description="wrong API keys that an address may send; 0: any number"
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="requests of one address where no keys are asked for"
    )
    unix_socket: Path | None = Field(
        None, description="path of a Unix socket to listen at, instead of a port"
    )
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        (),
        description="proxies whose X-Forwarded-For, -Host, -Proto and -Prefix are believed, "
        "separated by commas",
    )
    root_path: str = Field(
        "", description="path under which a proxy has this service, such as /visual"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names that this server goes by, separated by commas, or *; by default any, "
        "but on loopback without keys only local ones",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may call this service, separated by commas; or *"
    )
    backups_dir: Path | None = Field(
        None, description="folder in which backups are written; without it none are made"
    )
    imports_dir: Path | None = Field(
        None, description="folder of files that jobs may import; without it none are imported"
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="worker processes; by default one per core with an exported network, else one",
    )
    max_body_bytes: int = Field(20 * 2**20, ge=1024, description="largest request body, bytes")
    formats: Annotated[tuple[str, ...], NoDecode] = Field(
        tuple(one.key for one in FORMATS),
        description="image formats that are taken, separated by commas; by default all that are "
        "decoded safely",
    )
    max_pixels: int = Field(25_000_000, ge=1, description="largest image, pixels")
    max_connections: int = Field(1024, ge=1, description="open connections, per worker")
    max_bodies_bytes: int = Field(
        2**27, ge=1024, description="all request bodies held at once, bytes per worker"
    )
    decode_memory_bytes: int = Field(
        2**28, ge=2**20, description="all images being decoded at once, bytes per worker"
    )
    decode_timeout_s: float = Field(
        10.0, ge=1, description="processor time that decoding one image may take, seconds"
    )
    header_timeout_s: float = Field(
        10.0, gt=0, description="time for a request's headers to arrive, seconds"
    )
    body_timeout_s: float = Field(
        10.0, gt=0, description="time in which more of a body must arrive, seconds"
    )
    keep_alive_s: float = Field(
        75.0, gt=0, description="time that a connection waits for its next request, seconds"
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="time to work on a request that has arrived, seconds"
    )
    answer_timeout_s: float = Field(
        30.0, gt=0, description="time for a client to read its answer, seconds"
    )
    max_queue: int = Field(256, ge=1, description="requests worked on or waiting, per worker")
    max_wait_s: float = Field(
        0.5, gt=0, description="longest queue, seconds; or 1.5 x what a lone request takes"
    )
    max_batch: int | None = Field(
        None, ge=1, description="images the network takes at once; by default as many as gain"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    runtime: RuntimeName = Field(
        "auto", description="auto: the model's export on a CPU, where there is one; torch, openvino"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged; info writes one line per request"
    )
    drain_s: float = Field(
        0.0, ge=0, le=300, description="time after SIGTERM in which only /readyz says so, seconds"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/?#\s]+[^?#\s]*$",
        description="OpenTelemetry collector that gets traces over HTTP, such as "
        "http://localhost:4318; without it none are made",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="share of requests traced, where no caller decided already"
    )

    @field_validator("allowed_hosts", "cors_origins", "trusted_proxies", "formats", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

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
            ServiceConfigError: a variable has a value out of range.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise ServiceConfigError(f"{name} cannot be used: {first['msg']}") from error
