"""`lookalike new-key`: makes an API key and the lines for the key file."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from cli.support.console import print_info, print_json
from cli.support.options import JsonOption

NAME: Final = re.compile(r"[\w .-]{1,64}")


def new_key(
    name: Annotated[str, typer.Argument(help="Who will use the key; shown in logs.")],
    rights: Annotated[
        str, typer.Option(help="What it may do: read, write, admin, metrics; separated by commas.")
    ] = "read",
    expires: Annotated[
        str | None,
        typer.Option(help="Expiry: an ISO 8601 date or date-time, in UTC unless it has an offset."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key, shown once, and the lines that let a service accept it."""
    from service.security.api_keys import RIGHTS, make_key  # noqa: PLC0415 - keeps `lookalike --help` quick

    chosen = [right for right in RIGHTS if right in rights.split(",")]
    if not chosen or len(chosen) != len(rights.split(",")):
        raise typer.BadParameter(f"rights are {', '.join(RIGHTS)}, separated by commas")
    if not NAME.fullmatch(name):
        raise typer.BadParameter("a name has 1 to 64 letters, digits, spaces and . _ -")
    key = make_key(name, chosen, expires=None if expires is None else _moment(expires))
    if as_json:
        print_json({"key": key.token, "lines": key.lines})
        return
    print_info("The key, shown this once:")
    typer.echo(key.token)
    print_info("Add these lines to the file that LOOKALIKE_API_KEYS_FILE names:")
    typer.echo(key.lines)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date or date-time of ISO 8601") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise typer.BadParameter("a key that has expired is of no use to anybody")
    return moment
