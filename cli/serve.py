"""`lookalike serve`: every setting of the service as an option; checked, then BentoML's server."""

import inspect
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer
from typer.core import TyperCommand

from cli.support.options import HostOption, PortOption

REQUIRED: Final = ("model", "gallery")


class ServeCommand(TyperCommand):
    """Makes its options when they are first needed: `lookalike --help` does without pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options."""
        self.params = self.params or _options()
        return super().get_params(ctx)

    def invoke(self, ctx: Any) -> None:
        """Start the server, in place of this process."""
        _start(**ctx.params)


def serve() -> None:
    """Serve a model and a gallery over HTTP until stopped."""


def _start(*, host: HostOption = "127.0.0.1", port: PortOption = 3000, **settings: Any) -> None:
    from cli.support.bento_process import start_server  # noqa: PLC0415 - keeps `--help` quick

    for name, value in settings.items():
        if isinstance(value, Path):  # of a socket, the name itself is what is meant
            settings[name] = value.absolute() if name == "unix_socket" else value.resolve()
    start_server(settings, host=host, port=port)


def _options() -> list[Any]:
    """Return an option for each setting, and those of the address."""
    from service.config import ServiceSettings  # noqa: PLC0415 - keeps `--help` quick

    def command() -> None: ...

    address = list(inspect.signature(_start).parameters.values())[:2]
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(_option(*one) for one in ServiceSettings.model_fields.items()), *address]
    )
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return typer.main.get_command(app).params


def _option(name: str, field: Any) -> inspect.Parameter:
    """Return the option of a setting; its range is checked by ``ServiceSettings`` itself."""
    from service.config import PREFIX  # noqa: PLC0415

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
