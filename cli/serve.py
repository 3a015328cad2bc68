"""`lookalike serve`: every setting of the service as an option; checked, then BentoML's server."""

import inspect
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from cli.support.bento_process import start_server
from cli.support.options import HostOption, PortOption
from service.config import PREFIX, ServiceSettings

REQUIRED: Final = ("model", "gallery")


def serve(*, host: HostOption = "127.0.0.1", port: PortOption = 3000, **settings: Any) -> None:
    """Serve a model and a gallery over HTTP until stopped."""
    for name, value in settings.items():
        if isinstance(value, Path):  # of a socket, the name itself is what is meant
            settings[name] = value.absolute() if name == "unix_socket" else value.resolve()
    start_server(settings, host=host, port=port)


def _option(name: str) -> inspect.Parameter:
    """Return the option of a setting; its range is checked by ``ServiceSettings`` itself."""
    field = ServiceSettings.model_fields[name]
    arguments = get_args(field.annotation)
    choices = [one for one in arguments if isinstance(one, str)]
    kinds = [one for one in (bool, int, float, Path) if one in (field.annotation, *arguments)]
    default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        envvar=f"{PREFIX}{name.upper()}",
        help=field.description,
        metavar=f"<{'|'.join(choices)}>" if choices else None,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if name in REQUIRED else None if default == "" else default,
        annotation=Annotated[kinds[0] if kinds else str, option],
    )


_own = [one for name, one in inspect.signature(serve).parameters.items() if name != "settings"]
# What typer reads the options from.
serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*map(_option, ServiceSettings.model_fields), *_own]
)
