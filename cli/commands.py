"""The commands of `lookalike`, by their names."""

import inspect
import re
from typing import Annotated

import typer

from cli.classify import classify
from cli.compare import compare
from cli.demo import demo
from cli.evaluate import evaluate
from cli.export_model import export as export_model
from cli.gallery.build import index_app
from cli.gallery.classes import classes
from cli.gallery.info import info
from cli.gallery.maintenance import compact, duplicates, edit, rebuild, replace, tune
from cli.gallery.purge import purge
from cli.gallery.transfer import backup, export, import_, restore
from cli.new_key import new_key
from cli.pack import pack
from cli.search import search
from cli.serve import ServeCommand, serve
from cli.training.train import train
from cli.up.command import up
from files.version import VERSION

app = typer.Typer(
    name="lookalike",
    help="A visual-search service you train yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lookalike {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


app.command()(up)
app.command()(demo)
app.command()(train)
app.command()(evaluate)
app.command()(compare)
app.command("export")(export_model)
for command in (
    *(edit, info, replace, rebuild, compact, tune, duplicates),
    *(export, backup, restore, purge, classes),
):
    index_app.command()(command)
index_app.command("import")(import_)
app.add_typer(index_app, name="index")
app.command()(search)
app.command()(classify)
app.command(cls=ServeCommand)(serve)
app.command()(pack)
app.command("new-key")(new_key)

# Typer would break the lines of `--help` where those of the docstrings end.
for one in (*app.registered_commands, *index_app.registered_commands):
    one.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(one.callback) or "")
