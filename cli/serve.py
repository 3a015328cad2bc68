"""`lookalike serve`: checks everything that can be wrong, then hands over to BentoML's server."""

from pathlib import Path
from typing import Annotated

import typer

from cli.support.bento_process import start_server
from vision.formats.detect import FORMATS
from vision.inference.runtime_name import RUNTIME_HELP, RuntimeName


def serve(
    *,
    model: Annotated[
        Path, typer.Option(envvar="LOOKALIKE_MODEL", help="Model folder.", show_default=False)
    ],
    gallery: Annotated[
        Path,
        typer.Option(envvar="LOOKALIKE_GALLERY", help="Gallery folder.", show_default=False),
    ],
    create: Annotated[
        bool,
        typer.Option(
            "--create",
            envvar="LOOKALIKE_CREATE",
            help="Make the gallery, empty, when it does not exist; else that is an error.",
        ),
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on (an IP address).")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 3000,
    unix_socket: Annotated[
        Path | None,
        typer.Option(
            envvar="LOOKALIKE_UNIX_SOCKET",
            help="Path to listen at instead, for a proxy on this machine, which is trusted.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="LOOKALIKE_WORKERS",
            min=1,
            help="Worker processes; by default one per core with an exported network, else one.",
            show_default=False,
        ),
    ] = None,
    api_keys_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LOOKALIKE_API_KEYS_FILE",
            help="TOML file of API keys; without it everybody may do everything.",
        ),
    ] = None,
    wrong_keys_per_minute: Annotated[
        int,
        typer.Option(
            envvar="LOOKALIKE_WRONG_KEYS_PER_MINUTE",
            help="Wrong API keys that an address may send; 0: any number.",
        ),
    ] = 60,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(
            envvar="LOOKALIKE_REQUESTS_PER_MINUTE",
            help="Requests of one address where no keys are asked for; without it any number.",
        ),
    ] = None,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(
            envvar="LOOKALIKE_TRUSTED_PROXIES",
            help="Proxies whose X-Forwarded-For, -Host, -Proto and -Prefix are believed: "
            "addresses, by commas.",
        ),
    ] = None,
    root_path: Annotated[
        str | None,
        typer.Option(
            envvar="LOOKALIKE_ROOT_PATH",
            help="Path under which a proxy has this service, such as /visual.",
        ),
    ] = None,
    allowed_hosts: Annotated[
        str | None,
        typer.Option(
            envvar="LOOKALIKE_ALLOWED_HOSTS", help="Names that this server goes by, by commas, or *"
        ),
    ] = None,
    cors_origins: Annotated[
        str | None,
        typer.Option(
            envvar="LOOKALIKE_CORS_ORIGINS", help="Origins whose pages may call, by commas, or *."
        ),
    ] = None,
    backups_dir: Annotated[
        Path | None,
        typer.Option(envvar="LOOKALIKE_BACKUPS_DIR", help="Folder for backups; without it none."),
    ] = None,
    imports_dir: Annotated[
        Path | None,
        typer.Option(envvar="LOOKALIKE_IMPORTS_DIR", help="Folder of files that jobs may import."),
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option(envvar="LOOKALIKE_MAX_BODY_BYTES", help="Largest request body, bytes.")
    ] = 20 * 2**20,
    max_pixels: Annotated[
        int, typer.Option(envvar="LOOKALIKE_MAX_PIXELS", help="Largest image, pixels.")
    ] = 25_000_000,
    formats: Annotated[
        str | None,
        typer.Option(
            envvar="LOOKALIKE_FORMATS",
            help="Image formats that are taken, by commas; by default all that are decoded safely: "
            f"{', '.join(one.key for one in FORMATS)}.",
            show_default=False,
        ),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(envvar="LOOKALIKE_MAX_CONNECTIONS", help="Open connections, per worker.")
    ] = 1024,
    max_bodies_bytes: Annotated[
        int,
        typer.Option(
            envvar="LOOKALIKE_MAX_BODIES_BYTES",
            help="All request bodies held at once, bytes per worker.",
        ),
    ] = 2**27,
    decode_memory_bytes: Annotated[
        int,
        typer.Option(
            envvar="LOOKALIKE_DECODE_MEMORY_BYTES",
            help="All images being decoded at once, bytes per worker.",
        ),
    ] = 2**28,
    decode_timeout_s: Annotated[
        float,
        typer.Option(envvar="LOOKALIKE_DECODE_TIMEOUT_S", help="To decode one image, seconds."),
    ] = 10.0,
    header_timeout_s: Annotated[
        float,
        typer.Option(envvar="LOOKALIKE_HEADER_TIMEOUT_S", help="For a request's headers, seconds."),
    ] = 10.0,
    body_timeout_s: Annotated[
        float,
        typer.Option(envvar="LOOKALIKE_BODY_TIMEOUT_S", help="For more of a body, seconds."),
    ] = 10.0,
    keep_alive_s: Annotated[
        float,
        typer.Option(envvar="LOOKALIKE_KEEP_ALIVE_S", help="For the next request, seconds."),
    ] = 75.0,
    request_timeout_s: Annotated[
        float,
        typer.Option(envvar="LOOKALIKE_REQUEST_TIMEOUT_S", help="To work on a request, seconds."),
    ] = 30.0,
    answer_timeout_s: Annotated[
        float,
        typer.Option(envvar="LOOKALIKE_ANSWER_TIMEOUT_S", help="To read an answer, seconds."),
    ] = 30.0,
    max_queue: Annotated[
        int,
        typer.Option(
            envvar="LOOKALIKE_MAX_QUEUE", help="Requests worked on or waiting, per worker."
        ),
    ] = 256,
    max_wait_s: Annotated[
        float,
        typer.Option(
            envvar="LOOKALIKE_MAX_WAIT_S",
            help="Longest queue, seconds; or 1.5 x what a lone request takes.",
        ),
    ] = 0.5,
    max_batch: Annotated[
        int | None,
        typer.Option(
            envvar="LOOKALIKE_MAX_BATCH",
            min=1,
            help="Images the network takes at once; by default as many as gain.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(envvar="LOOKALIKE_DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    runtime: Annotated[
        RuntimeName, typer.Option(envvar="LOOKALIKE_RUNTIME", help=RUNTIME_HELP)
    ] = "auto",
    log_level: Annotated[
        str,
        typer.Option(
            envvar="LOOKALIKE_LOG_LEVEL",
            help="debug, info (one line per request), warning or error.",
        ),
    ] = "info",
    drain_s: Annotated[
        float,
        typer.Option(
            envvar="LOOKALIKE_DRAIN_S",
            help="Time after SIGTERM in which only /readyz says so, seconds.",
        ),
    ] = 0.0,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar="LOOKALIKE_OTLP_ENDPOINT",
            help="OpenTelemetry collector that gets traces, such as http://localhost:4318.",
        ),
    ] = None,
    trace_ratio: Annotated[
        float,
        typer.Option(
            envvar="LOOKALIKE_TRACE_RATIO",
            help="Share of requests traced, where no caller decided already.",
        ),
    ] = 1.0,
) -> None:
    """Serve a model and a gallery over HTTP until stopped."""
    settings = {
        "MODEL": model.resolve(),
        "GALLERY": gallery.resolve(),
        "CREATE": create,
        "API_KEYS_FILE": api_keys_file.resolve() if api_keys_file else None,
        "WRONG_KEYS_PER_MINUTE": wrong_keys_per_minute,
        "REQUESTS_PER_MINUTE": requests_per_minute,
        "UNIX_SOCKET": unix_socket.absolute() if unix_socket else None,
        "TRUSTED_PROXIES": trusted_proxies,
        "ROOT_PATH": root_path,
        "ALLOWED_HOSTS": allowed_hosts,
        "CORS_ORIGINS": cors_origins,
        "WORKERS": workers,
        "BACKUPS_DIR": backups_dir.resolve() if backups_dir else None,
        "IMPORTS_DIR": imports_dir.resolve() if imports_dir else None,
        "MAX_BODY_BYTES": max_body_bytes,
        "MAX_PIXELS": max_pixels,
        "FORMATS": formats,
        "MAX_CONNECTIONS": max_connections,
        "MAX_BODIES_BYTES": max_bodies_bytes,
        "DECODE_MEMORY_BYTES": decode_memory_bytes,
        "DECODE_TIMEOUT_S": decode_timeout_s,
        "HEADER_TIMEOUT_S": header_timeout_s,
        "BODY_TIMEOUT_S": body_timeout_s,
        "KEEP_ALIVE_S": keep_alive_s,
        "REQUEST_TIMEOUT_S": request_timeout_s,
        "ANSWER_TIMEOUT_S": answer_timeout_s,
        "MAX_QUEUE": max_queue,
        "MAX_WAIT_S": max_wait_s,
        "MAX_BATCH": max_batch,
        "DEVICE": device,
        "RUNTIME": runtime,
        "LOG_LEVEL": log_level,
        "DRAIN_S": drain_s,
        "OTLP_ENDPOINT": otlp_endpoint,
        "TRACE_RATIO": trace_ratio,
    }
    start_server(settings, host=host, port=port)
